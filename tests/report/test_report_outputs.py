import json

import polars as pl
import pytest
import report_helpers as h

from smdlens.errors import InputError
from smdlens.report.outputs import check_output

REPORT = h.resnet_report()


def test_json_file_holds_the_report(tmp_path):
    REPORT.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == REPORT.to_dict()


def test_parquet_holds_intervals_with_stage_state_and_role(tmp_path):
    REPORT.save(tmp_path / "i.parquet")
    frame = pl.read_parquet(tmp_path / "i.parquet")
    assert frame.equals(REPORT.intervals)
    assert frame.height == 54 * 40
    last = frame.filter(tensor="conv1.weight").tail(1).to_dicts()[0]
    assert (last["stage"], last["state"], last["role"]) == (
        4,
        "approaching_from_below",
        "scale_invariant",
    )
    crossing = frame.filter(pl.col("flags").list.contains("holds_cut"))
    assert crossing.height and crossing["state"].null_count() == crossing.height


def test_csv_reads_back(tmp_path):
    REPORT.save(tmp_path / "i.csv")
    frame = pl.read_csv(tmp_path / "i.csv")
    assert frame.columns == REPORT.intervals.columns
    assert frame["tensor"].to_list() == REPORT.intervals["tensor"].to_list()


def test_folder_holds_every_table(tmp_path):
    REPORT.save(f"{tmp_path}/out/")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    tables = ("tensors", "intervals", "stages", "decays")
    assert names == {"report.json", *(f"{t}.parquet" for t in tables)}
    for table in tables:
        assert pl.read_parquet(tmp_path / "out" / f"{table}.parquet").equals(getattr(REPORT, table))


def test_an_existing_folder_needs_no_slash(tmp_path):
    REPORT.save(tmp_path)
    assert (tmp_path / "report.json").is_file()


@pytest.mark.parametrize("name", ["r.docx", "r.txt", "r", "r.json.gz"])
def test_other_suffixes_are_refused_with_the_list(tmp_path, name):
    with pytest.raises(InputError, match=r"\.json, \.html, .*\.parquet, \.csv") as caught:
        check_output(tmp_path / name)
    assert caught.value.exit_code == 2


def test_frames_have_a_row_per_thing():
    assert REPORT.tensors.height == 161
    assert REPORT.stages.height == 54 * 4
    assert REPORT.decays.height == 53 * 3
    cut = REPORT.decays.row(0, named=True)
    assert cut["step"] == h.CUTS[1] and cut["factor"] == 10.0
