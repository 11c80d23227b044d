import ast
import re
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[2] / "smdlens" / "theory"
DOCS = Path(__file__).parents[2] / "docs" / "theory.md"
FILES = sorted(ROOM.glob("*.py"))
CITATION = re.compile(r"\[([A-Za-z-]+(?:\d{4}[a-z]?)?)(?:, [^\]]+)?\]")
KEYS = set(re.findall(r"@\w+\{([^,]+),", (ROOM / "REFERENCES.bib").read_text()))
# helpers that hold no formula
PLUMBING = {"as_float64", "as_floats", "broadcast"}


def cited(text):
    return {key for key in CITATION.findall(text) if key in KEYS or re.search(r"\d{4}", key)}


def public_functions():
    return [
        pytest.param(node, id=f"{path.stem}.{node.name}")
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name[0] != "_" and node.name not in PLUMBING
    ]


@pytest.mark.parametrize("function", public_functions())
def test_every_public_formula_has_a_source(function):
    text = ast.get_docstring(function) or ""
    keys = cited(text)
    assert keys, f"{function.name} cites nothing"
    assert keys <= KEYS


def test_every_citation_has_an_entry_and_every_entry_is_cited():
    texts = [path.read_text() for path in (*FILES, DOCS)]
    keys = set().union(*(cited(text) for text in texts))
    assert keys == KEYS


def test_sections_exist():
    headings = set(re.findall(r"^## (\d+)\.", DOCS.read_text(), re.M))
    for path in FILES:
        for section in re.findall(r"docs/theory\.md §(\d+)", path.read_text()):
            assert section in headings, f"{path.name}: §{section}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_theory_imports_numpy_and_itself_only(path):
    allowed = {"__future__", "collections.abc", "dataclasses", "typing", "numpy", "numpy.typing"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            assert node.level == 0
        else:
            continue
        for name in names:
            assert name in allowed or name.startswith("smdlens.theory"), name
