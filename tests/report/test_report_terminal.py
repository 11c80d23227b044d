import dataclasses
import sys
from pathlib import Path

import polars as pl
import pytest
import report_helpers as h
from rich.cells import cell_len

from smdlens.diagnosis.records import DECAY_CURVE_SCHEMA, LAG_SCHEMA, Finding
from smdlens.motion.records import ReadCost
from smdlens.snapshots.records import Skipped
from smdlens.vocabulary import Outcome, Role, SkipReason

sys.path.insert(0, str(Path(__file__).parents[1] / "ground"))
from ground_helpers import HOSTILE

REPORT = h.resnet_report()


def hostile_report():
    names = [name for name in HOSTILE if "\ud800" not in name]
    convs = [(name, (8, 8, 3, 3)) for name in names]
    findings = [
        Finding(f"SMD{100 + i}", Outcome.FAIL, name, f"{name} moves", f"Look at {name}")
        for i, name in enumerate(names)
    ]
    diagnosis = h.resnet_diagnosis(convs, extra_findings=findings)
    return h.resnet_report(diagnosis, path="runs/\x1b[2J::error::[/]")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160, 250])
@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("report", [REPORT, hostile_report()], ids=["resnet", "hostile"])
def test_no_line_is_wider_than_the_terminal(report, width, verbose, encoding):
    text = h.rendered(report, width, verbose=verbose, encoding=encoding)
    for line in text.split("\n"):
        assert cell_len(line) <= width, line
        assert line == line.rstrip()


@pytest.mark.parametrize("width", [80, 160])
def test_hostile_names_are_shown_escaped(width):
    text = h.rendered(hostile_report(), width, verbose=True)
    assert all(c == "\n" or c.isprintable() for c in text)
    assert "::" not in text and "##" not in text
    assert "x[/]y" in text and "[bold red]w[/bold red]" in text and r"esc\x1b[31mred" in text


def test_ascii_terminals_get_ascii():
    assert h.rendered(REPORT, encoding="ascii").isascii()
    assert "]" in h.rendered(REPORT, encoding="ascii")
    assert "▕" in h.rendered(REPORT)


def test_verdict_comes_before_the_numbers():
    text = h.rendered(REPORT)
    verdict = text.index("Stages 3 and 4 do not reach equilibrium")
    assert verdict < text.index("measured/expected") < text.index("worst tensors")


def test_every_stage_with_what_it_needs():
    lines = h.rendered(REPORT).splitlines()
    assert any("0–150,120" in s and "53/53" in s and "1.0" in s for s in lines)
    assert any("53/53" in s and "91k, had 150k: at 241k" in s for s in lines)
    assert any("0/53" in s and "0.38" in s and "0.9M, had 100k: never" in s for s in lines)
    assert any("0/53" in s and "0.12" in s and "14M, had 50k: never" in s for s in lines)


def test_who_says_the_hyper_parameters():
    assert "SGD momentum 0.9, weight decay 1e-4, lr 0.1 to 1e-4 (optimizer state)" in h.rendered(
        REPORT
    )


def test_ten_seconds():
    assert len(h.rendered(REPORT).splitlines()) <= 40


def test_families_are_gathered_and_listed_on_request():
    short, full = h.rendered(REPORT), h.rendered(REPORT, verbose=True)
    assert "3 tensors, such as layer4.0.conv3.weight: momentum has a radial part" in short
    assert "layer4.2.conv3.weight: momentum" not in short
    assert "layer4.2.conv3.weight: momentum" in full


def test_stages_are_told_apart_until_they_are_many():
    def found(count):
        findings = [
            Finding("SMD002", Outcome.FAIL, f"stage {i}", f"ends at 0.{i}", None)
            for i in range(1, count + 1)
        ]
        diagnosis = h.with_states([["equilibrium"]] * count, findings=findings)
        return h.rendered(h.resnet_report(diagnosis))

    assert "✗ stage 3: ends at 0.3" in found(3)
    assert "✗ 9 cases, such as stage 1: ends at 0.1" in found(9)


def test_failures_come_before_warnings_and_passes():
    text = h.rendered(REPORT)
    assert text.index("stage 4 ends at") < text.index("momentum has") < text.index("the clock")


def test_verbose_lists_every_tensor_once():
    text = h.rendered(REPORT, 160, verbose=True)
    for name, _ in h.resnet_names():
        assert sum(line.startswith(f" {name} ") for line in text.splitlines()) == 1


def test_verbose_says_how_near_reading_alone_the_speed_came():
    """2 workers that read for 0.36 of their 2 x 0.6 seconds: 30%; a moment's run says nothing."""
    cost = ReadCost(10**9, 0.6, "cpu", workers=2, read_seconds=0.36)
    text = h.rendered(dataclasses.replace(REPORT, cost=cost), 160, verbose=True)
    assert "on cpu, 2 workers · 30% of the speed of reading alone" in text
    assert "reading alone" not in h.rendered(dataclasses.replace(REPORT, cost=cost), 160)
    short = dataclasses.replace(cost, seconds=0.4)
    brief = h.rendered(dataclasses.replace(REPORT, cost=short), 160, verbose=True)
    assert "on cpu, 2 workers" in brief
    assert "reading alone" not in brief


def test_worst_tensor_is_first():
    rows = h.rendered(REPORT, 120).split("worst tensors")[1].splitlines()[2:7]
    ratios = [float(row.split()[1]) for row in rows]
    assert ratios == sorted(ratios)
    worst = min(h.RATIOS[3] * h.spread(i) for i in range(53))
    assert ratios[0] == pytest.approx(worst, abs=6e-4)


def test_quiet_says_the_verdict_only():
    text = h.rendered(REPORT, quiet=True)
    assert " ".join(text.split()) == "✗ " + REPORT.summary.headline


def test_undetermined_is_said_with_its_reason():
    found = Finding(
        "SMD005",
        Outcome.INCONCLUSIVE,
        "stage 1",
        "2 of 3 scale-invariant tensors cannot be decided: the interval is too wide",
        "Save every 200 iterations or fewer.",
    )
    states = [["equilibrium", "undetermined", "undetermined"]]
    diagnosis = h.with_states(states, findings=[found])
    text = " ".join(h.rendered(h.resnet_report(diagnosis)).split())
    assert "? stage 1: 2 of 3 scale-invariant tensors cannot be decided" in text
    assert "→ Save every 200 iterations or fewer." in text
    assert "1/3 2?" in text


def test_network_without_invariant_tensors_gets_its_own_table():
    roles = [Role.NOT_SCALE_INVARIANT] * 3
    diagnosis = h.with_states(
        [["undetermined"] * 3], roles=roles, reason="not scale-invariant", ratio=0.8
    )
    text = h.rendered(h.resnet_report(diagnosis))
    assert "none of the 3 tensors is known to be" in text
    assert "the theory does not bind here: decayed, but not scale-invariant" in text
    assert "conv2.weight" in text and "0.80" in text
    assert "worst tensors" not in text


def test_what_nothing_tells_from_zero_is_a_bound():
    diagnosis = h.with_states(
        [["undetermined"] * 2], roles=[Role.NOT_SCALE_INVARIANT] * 2, ratio=0.8
    )
    low = pl.Series("ratio_low", [0.0, 0.3])
    rows = diagnosis.stage_tensors.with_columns(low, ratio_high=pl.lit(0.9))
    text = h.rendered(h.resnet_report(dataclasses.replace(diagnosis, stage_tensors=rows)))
    first, second = (line for line in text.splitlines() if "conv" in line)
    assert first.endswith("< 0.90") and second.endswith("  0.80")


def test_skipped_files_are_counted_and_unreadable_ones_named():
    series = dataclasses.replace(
        REPORT.series,
        skipped=(
            Skipped("a.pt", SkipReason.UNREADABLE, "ends after 12 bytes"),
            Skipped("b.tmp", SkipReason.UNFINISHED, "temporary name"),
        ),
    )
    text = h.rendered(dataclasses.replace(REPORT, series=series))
    assert "left out: 1 unreadable, 1 unfinished" in text
    assert "a.pt: ends after 12 bytes" in text and "b.tmp" not in text


def test_many_stages_show_the_worst():
    states = [["equilibrium"]] * 30 + [["approaching_from_below"]] * 5 + [["equilibrium"]]
    text = h.rendered(h.resnet_report(h.with_states(states)))
    assert "24 more stages: add -v" in text
    assert sum("/1" in line for line in text.splitlines()) == 12


def test_html_fragment_is_escaped_and_has_no_script():
    html = hostile_report()._repr_html_()
    assert "<script" not in html and "onload='" not in html
    assert "stage" in html and "Stages 3 and 4 do not reach equilibrium" in html


def test_the_angle_by_lag_is_said_and_so_is_saturation():
    lags = [(10, 1.0, "diffusive"), (20, 0.9, "diffusive"), (30, 0.85, "diffusive"),
            (40, 0.6, "confined"), (80, None, None), (160, None, None)]  # fmt: skip
    diagnosis = h.resnet_diagnosis()
    frame = pl.DataFrame(
        [
            ("conv1.weight", 2, lag, 5, 0.1, 0.1, 0.1, 0.1, ratio, ratio is None, motion)
            for lag, ratio, motion in lags
        ],
        schema=LAG_SCHEMA,
        orient="row",
    )
    asked = dataclasses.replace(diagnosis, lags=frame, lags_of_all_weights=True)
    text = h.rendered(h.resnet_report(asked), width=160)
    assert (
        "stage 2 · 10: 1.00 diffusive · 20: 0.90 · 40: 0.60 confined · saturated from 80 on: too"
    ) in " ".join(text.split())
    assert "angle by lag" not in h.rendered(h.resnet_report(diagnosis))


def test_each_cut_has_its_curve_beside_the_law():
    rows = [
        (k, 1000.0 * i, r, r, r, r + 0.01, r)
        for k in range(3)
        for i, r in enumerate((0.3, 0.5, None, 0.9))
        if r is not None
    ]
    curves = pl.DataFrame(rows, schema=DECAY_CURVE_SCHEMA, orient="row")
    report = h.resnet_report(dataclasses.replace(h.resnet_diagnosis(), decay_curves=curves))
    text = " ".join(h.rendered(report, width=160).split())
    assert "after the cut at 150,120: ▁▄▇ 0.30 to 0.90, law 0.31 to 0.91" in text
    assert "unit gradient x 0.80, which costs 5k iterations" in text
    assert "0.8M iterations missing at the end" in text
    assert "▁" not in h.rendered(report, encoding="ascii")
