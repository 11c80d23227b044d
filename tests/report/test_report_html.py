"""The HTML page as parsers that are not ours read it; browsers look at it in tests/browser."""

import base64
import csv
import dataclasses
import json
import re
from importlib import resources

import html_helpers as hh
import numpy as np
import polars as pl
import pytest
import report_helpers as h
from ground_helpers import HOSTILE

from smdlens.diagnosis.records import LAG_SCHEMA
from smdlens.names import for_terminal
from smdlens.report.html.figures import draw
from smdlens.report.html.picked import quantised
from smdlens.report.plots.data import plot_data
from smdlens.report.plots.palette import DARK, LIGHT
from smdlens.vocabulary import Role

NAMES = [name for name in HOSTILE if "\ud800" not in name]
FIVE_MEGABYTES = 5_000_000


@pytest.fixture(scope="module")
def resnet():
    return hh.page_of(h.resnet_report())


@pytest.fixture(scope="module")
def hostile():
    return hh.page_of(hh.big_report(snapshots=9, names=NAMES))


def test_sections_come_in_the_order_in_which_one_reads(resnet):
    titles = [" ".join(t.text_content().split()) for t in resnet[1].iter("h2")]
    assert titles == [
        "What was found",
        "Layer by time",
        "Against theory",
        "Re-equilibration after each cut",
        "Tensors",
        "Assumptions of the theory",
        "What the trainer used, and who says so",
        "Left out",
        "Reproduce",
    ]
    assert "Stages 3 and 4 do not reach equilibrium" in resnet[1].find(".//h1").text_content()


def test_findings_have_severity_evidence_and_remedy(resnet):
    text = resnet[1].xpath("//ul[@class='findings']/li")[0].text_content()
    assert "fail" in text and "0.12 of its equilibrium angle" in text and "→ A longer stage" in text


def test_the_page_needs_nothing_from_outside(resnet):
    text, tree = resnet
    for node in tree.iter():
        if not isinstance(node.tag, str):
            continue
        for name, value in node.attrib.items():
            if name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
                assert value.startswith(("#", "data:")), (node.tag, name, value[:60])
            assert not name.startswith("on")
    assert "url(http" not in text and "@import" not in text
    policy = tree.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")[0]
    assert policy.startswith("default-src 'none'")


def test_ids_are_unique_and_references_lead_somewhere(resnet):
    ids = resnet[1].xpath("//@id")
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:url\(#|href="#)([^)"]+)', resnet[0])
    used += [one for value in resnet[1].xpath("//@aria-labelledby") for one in value.split()]
    assert used and set(used) <= set(ids)


def test_every_figure_has_a_text_alternative(resnet):
    figures = resnet[1].xpath("//*[local-name()='svg']")
    assert len(figures) == 3 + 10
    for figure in figures:
        title, described = (figure.find(tag) for tag in ("title", "desc"))
        assert figure.get("role") == "img" and len(title.text) > 10 and len(described.text) > 10


def test_the_ten_worst_are_there_without_javascript(resnet):
    worst = resnet[1].get_element_by_id("worst")
    assert worst.get("open") is not None
    assert len(worst.xpath(".//h3")) == 10 and len(worst.xpath(".//figure")) == 10
    assert len(resnet[1].xpath("//table[@id='tensors']/tbody/tr")) == 161


def test_table_is_worst_first(resnet):
    cells = resnet[1].xpath("//table[@id='tensors']/tbody/tr/td[3]/@data-order")
    ratios = [float(c) for c in cells if c][:53]
    assert ratios == sorted(ratios) and len(ratios) == 53


def test_without_invariant_tensors_there_are_no_figures_and_no_stubs():
    report = hh.build_report(
        h.series(), h.motion(), h.with_states([["undetermined"]], roles=[Role.NOT_SCALE_INVARIANT])
    )
    _, tree = hh.page_of(report)
    assert not tree.xpath("//*[local-name()='svg']")
    assert "theory does not bind here" in tree.find(".//h1").text_content()
    assert "Layer by time" not in tree.text_content()


def test_lags_are_drawn_where_all_pairs_were_measured():
    report = hh.big_report(tensors=2, snapshots=6)
    rows = [
        (name, stage, lag, 5, 0.01 * lag**0.5, 0.0, 1.0, 0.012 * lag**0.5, 0.83, False, "diffusive")
        for name in (*report.intervals["tensor"].unique(), "fc.weight")
        for stage in (1, 2)
        for lag in (100, 200, 400)
    ]
    lags = pl.DataFrame(rows, schema=LAG_SCHEMA, orient="row")

    def drawn(frame):
        diagnosis = dataclasses.replace(report.diagnosis, lags=frame)
        changed = dataclasses.replace(report, diagnosis=diagnosis)
        return draw(changed, plot_data(changed), []).lags

    assert drawn(None) is drawn(lags.clear()) is None
    labels = set(re.findall(r"<text[^>]*>([^<]*)</text>", drawn(lags)))
    assert {"lag in stage 1", "lag in stage 2", "random walk in equilibrium"} <= labels


def test_300_tensors_and_200_snapshots_stay_under_5_megabytes():
    text, tree = hh.page_of(hh.big_report())
    assert len(text.encode()) < FIVE_MEGABYTES
    assert len(tree.xpath("//table[@id='tensors']/tbody/tr[@data-draw]")) == 300


def test_the_same_report_gives_the_same_page():
    one, two = (hh.page_of(hh.big_report(tensors=3, snapshots=12))[0] for _ in range(2))
    assert one == two


def test_javascript_of_our_own_is_short():
    script = resources.files("smdlens.report.html").joinpath("picked.js").read_text()
    assert len(script.splitlines()) <= 200


def decoded(low, high, text):
    codes = np.frombuffer(base64.b64decode(text), dtype="<u2").astype(float)
    return np.where(codes == 0, np.nan, np.exp(low + (high - low) * (codes - 1) / 65534))


def test_quantised_series_keep_four_digits_over_any_range():
    rng = np.random.default_rng(3)
    for span in (0.0, 1e-6, 1.0, 20.0):
        values = np.exp(rng.uniform(-span, span, 500))
        values[::7] = np.nan
        values[3] = 0.0
        back = decoded(*quantised(values))
        known = np.isfinite(values) & (values > 0)
        assert np.array_equal(np.isfinite(back), known)
        error = np.abs(back[known] / values[known] - 1)
        assert error.max() <= 2 * span / 65534 + 2e-7
    assert np.isnan(decoded(*quantised(np.full(4, np.nan)))).all()


def test_page_data_is_the_interval_table(resnet):
    report = h.resnet_report()
    data = json.loads(resnet[1].get_element_by_id("data").text)
    assert tuple(data["steps"]) == report.series.steps
    for tensor in (data["tensors"][0], data["tensors"][-1]):
        rows = report.intervals.filter(tensor=tensor["name"])
        expected = rows["one_step_angle_rad"].to_numpy()
        np.testing.assert_allclose(decoded(*data["series"][tensor["angle"]]), expected, rtol=1e-4)


def test_hostile_names_are_text_and_nothing_else(hostile):
    text, tree = hostile
    shown = {t.text_content() for t in tree.xpath("//table[@id='tensors']//*[@class='name']")}
    for name in NAMES:
        assert for_terminal(name) in shown, ascii(name)[:60]
    assert len(tree.xpath("//script")) == 3 and not tree.xpath("//a | //img | //iframe")
    data = json.loads(tree.get_element_by_id("data").text)
    assert [t["name"] for t in data["tensors"]] == [for_terminal(name) for name in NAMES]
    assert "\x1b" not in text and "\u202e" not in text and "\x00" not in text


def test_hostile_names_in_figures_are_text(hostile):
    labels = [
        t.text or "" for t in hostile[1].xpath("//*[local-name()='svg']//*[local-name()='text']")
    ]
    assert "$\\frac{1}{0}$" in labels and "<script>alert(1)</script>" in labels
    assert "=cmd|' /C calc'!A0" in labels
    assert all(label.isprintable() for label in labels)


def test_hostile_names_in_csv_are_no_formulas_and_read_back(tmp_path):
    report = hh.big_report(snapshots=4, names=NAMES)
    report.save(tmp_path / "i.csv")
    with (tmp_path / "i.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(NAMES)
    for row, name in zip(rows[::3], NAMES, strict=True):
        assert row["tensor"].removeprefix("'") == for_terminal(name)
        assert not row["tensor"].lstrip().startswith(("=", "+", "-", "@"))


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_has_a_contrast_of_4_5_and_lines_of_3(theme):
    for ground in ("page", "card"):
        for name in ("ink", "soft", "accent", "bad", "warn", "open", "good"):
            pair = sorted((luminance(theme[name]), luminance(theme[ground])))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (name, ground)
    for name in ("measured", "expected", "relaxed"):
        pair = sorted((luminance(theme[name]), luminance(theme["page"])))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 3.0, name
