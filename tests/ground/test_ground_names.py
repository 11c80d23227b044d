import csv
import io
import json
import re
import unicodedata
import warnings
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from ground_helpers import HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from smdlens import names

ORDINARY = ("layer4.0.downsample.0.weight", "blocks/3/attn/qkv[0]", "module.conv1.weight", "größe")
any_text = st.text(st.characters(), max_size=60)


def assert_terminal_safe(text):
    assert "::" not in text and "##" not in text
    for char in text:
        assert unicodedata.category(char)[0] != "C"
        assert unicodedata.category(char) not in ("Zl", "Zp", "Mn", "Me")


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_are_left_alone(name):
    for function in (names.for_terminal, names.for_json, names.for_csv, names.for_figure):
        assert function(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_terminal(name):
    assert_terminal_safe(names.for_terminal(name))


@given(any_text)
def test_terminal_any_text_and_idempotent(text):
    safe = names.for_terminal(text)
    assert_terminal_safe(safe)
    assert names.for_terminal(safe) == safe


def test_escapes_are_visible():
    assert names.for_terminal("a\x1b[0m\u202e\U000e0001") == r"a\x1b[0m\u202e\U000e0001"


@pytest.mark.parametrize("name", HOSTILE)
def test_html(name):
    class Collector(HTMLParser):
        seen = ""

        def handle_starttag(self, tag, attrs):
            assert (tag, [k for k, _ in attrs]) == ("td", ["title"])
            self.title = attrs[0][1]

        def handle_data(self, data):
            self.seen += data

    collector = Collector()
    safe = names.for_html(name)
    collector.feed(f'<td title="{safe}">{safe}</td>')
    collector.close()
    assert collector.seen == collector.title == names.for_terminal(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_xml(name):
    safe = names.for_xml(name)
    element = ElementTree.fromstring(f'<case name="{safe}">{safe}</case>')
    assert element.text == element.get("name") == names.for_terminal(name)


@given(any_text)
def test_xml_any_text(text):
    safe = names.for_xml(text)
    ElementTree.fromstring(f'<case name="{safe}">{safe}</case>'.encode())


@pytest.mark.parametrize("name", HOSTILE)
def test_json_keeps_the_name_and_is_valid_utf8(name):
    text = json.dumps(names.for_json(name), ensure_ascii=False)
    text.encode("utf-8")
    if "surrogate" not in name:
        assert json.loads(text) == name


@pytest.mark.parametrize("name", [n[:60] for n in HOSTILE])
def test_figure(name):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure()
    figure.suptitle(names.for_figure(name))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize("name", HOSTILE)
def test_csv_is_one_cell_and_no_formula(name):
    buffer = io.StringIO()
    csv.writer(buffer).writerow([names.for_csv(name), "next"])
    (row,) = csv.reader(io.StringIO(buffer.getvalue()))
    assert row[1] == "next"
    assert not re.match(r"\s*[=+\-@]", row[0])


@pytest.mark.parametrize("name", HOSTILE)
def test_annotation_holds_no_command_and_no_property(name):
    safe = names.for_annotation(name)
    assert not re.search(r"[\r\n:,]", safe)
    assert re.fullmatch(r"(?:[^%]|%25|%3A|%2C)*", safe)


def test_shorten_keeps_both_ends():
    short = names.shorten("layer4.0.downsample.0.weight", 20)
    assert len(short) == 20 and short.startswith("layer4") and short.endswith("0.weight")
    assert names.shorten("conv1", 20) == "conv1"
    assert names.shorten("conv1.weight", 1) == "c"


@pytest.mark.parametrize(
    "texts",
    [
        ["stem.body.conv.weight", "stages.0.body.conv.weight", "stages.1.body.conv.weight"],
        [f"encoder.layer.{i}.attention.query.weight" for i in range(12)],
        ["blocks.0.attn.qkv.weight", "blocks.0.attn.proj.weight", "blocks.0.mlp.fc1.weight"],
    ],
)
def test_names_below_one_another_stay_apart(texts):
    width = 20
    head = names.distinct_head(texts, width)
    cut = [names.shorten(text, width, head=head) for text in texts]
    assert len(set(cut)) == len(texts)
    assert all(len(text) <= width for text in cut)
    # Where the usual place does as well, it is taken.
    assert names.distinct_head(["a" * 50, "b" * 50], 13) == 4
