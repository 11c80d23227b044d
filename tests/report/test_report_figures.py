"""Figures: what they hold, for a paper and for the page."""

import re

import html_helpers as hh
import numpy as np
import pytest
import report_helpers as h
from lxml import etree
from matplotlib.figure import Figure

from smdlens.errors import InputError
from smdlens.report.html.figures import draw
from smdlens.report.plots.against_theory import tensor_against_theory
from smdlens.report.plots.canvas import drawing, inline_svg, label, plain
from smdlens.report.plots.data import plot_data
from smdlens.report.plots.heat_map import colours
from smdlens.vocabulary import Role

REPORT = hh.big_report(tensors=6, snapshots=24)


@pytest.mark.parametrize(
    ("suffix", "magic"), [("pdf", b"%PDF-"), ("svg", b"<?xml"), ("png", b"\x89PNG\r\n\x1a\n")]
)
def test_paper_figures_are_what_their_suffix_says_and_always_the_same(tmp_path, suffix, magic):
    for name in ("one", "two"):
        REPORT.save(tmp_path / f"{name}.{suffix}")
    content = (tmp_path / f"one.{suffix}").read_bytes()
    assert content.startswith(magic) and len(content) > 5000
    assert content == (tmp_path / f"two.{suffix}").read_bytes()


def test_svg_of_a_paper_holds_its_labels_as_text(tmp_path):
    REPORT.save(tmp_path / "fig.svg")
    tree = etree.parse(str(tmp_path / "fig.svg"))
    texts = {t.text for t in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert {"angle per update (rad)", "norm / equilibrium norm", "equilibrium", "steps"} <= texts


def test_nothing_to_draw_is_a_usage_error(tmp_path):
    diagnosis = h.with_states([["undetermined"]], roles=[Role.NOT_SCALE_INVARIANT])
    report = hh.build_report(h.series(), h.motion(), diagnosis)
    with pytest.raises(InputError, match="scale-invariant"):
        report.save(tmp_path / "fig.pdf")
    assert not list(tmp_path.iterdir())


def test_arrays_are_the_interval_table():
    data = plot_data(REPORT)
    for name in (data.tensors[0], data.tensors[-1]):
        rows = REPORT.diagnosis.intervals.filter(tensor=name)
        row = data.row(name)
        np.testing.assert_array_equal(data["ratio"][row], rows["ratio"].to_numpy())
        np.testing.assert_array_equal(data.norms[row][1:], rows["norm_to"].to_numpy())
    # Heavy ball: |w| settles where ratio = 1, and the ratio goes as 1 / |w|^2.
    middle = np.sqrt(data["norm_from"] * data["norm_to"])
    np.testing.assert_allclose((data.equilibrium_norms / middle) ** 2, data["ratio"])


def test_lines_break_where_the_rate_jumps():
    data = plot_data(REPORT)
    x, y = data.line(np.ones(len(data.middles)))
    gaps = np.flatnonzero(np.isnan(x))
    assert len(gaps) == len(data.cuts) == 3 and np.isnan(y[gaps]).all()
    for gap, cut in zip(gaps, data.cuts, strict=True):
        assert x[gap - 1] < cut < x[gap + 1]


def test_measured_curve_in_the_figure_is_the_measured_angle():
    data = plot_data(REPORT)
    with drawing():
        figure = tensor_against_theory(data, data.tensors[3])
    line = next(a for a in figure.axes[0].get_lines() if a.get_label() == "measured, 95%")
    drawn = np.asarray(line.get_ydata())
    np.testing.assert_array_equal(drawn[np.isfinite(drawn)], data["one_step_angle_rad"][3])


def test_colours_say_which_side_and_how_far():
    cells = colours(np.array([[0.05, 0.5, 0.95, 1.05, 2.0, 20.0, np.nan]]), 0.1)[0]
    below, near_below, held, also_held, near_above, above, unknown = cells
    assert below[2] > below[0] and above[0] > above[2]
    assert np.array_equal(held, also_held) and held[0] == held[1] == held[2]
    assert below[3] > near_below[3] > held[3] > unknown[3] == 0.0
    assert above[3] == 1.0 > near_above[3]


def test_text_in_figures_is_no_formula_and_has_glyphs():
    with drawing():
        figure = Figure(figsize=(4, 1))
        for place, name in enumerate(("$\\frac{1}{0}$", "層.重み", "a$b", "x" * 500)):
            figure.text(0.1, place / 4, label(name))
        svg = inline_svg(figure, "k", "t", "d")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert texts[:3] == ["$\\frac{1}{0}$", "\\u5c64.\\u91cd\\u307f", "a$b"]
    assert len(texts[3]) <= 60


def test_inline_svg_takes_its_colours_from_the_page():
    figures = draw(REPORT, plot_data(REPORT), [REPORT.tensors["tensor"][0]])
    for svg in (figures.run, figures.clock, figures.unit_gradient, figures.spread):
        assert "var(--measured)" in svg or "var(--relaxed)" in svg
        assert not re.search(r"(?:fill|stroke): #", svg.replace("#000000", "")), svg[:200]
    assert "data:image/png;base64," in figures.heat_map


def test_matplotlib_keeps_the_settings_of_the_caller():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw(REPORT, plot_data(REPORT), [])
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("value", "text"), [(0.005, "0.005"), (2e-4, "2e-4"), (1.0, "1"), (20_000.0, "20k")]
)
def test_ticks_are_plain(value, text):
    assert plain(value) == text
