"""Strict, bounded JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smdlens.containers.json_header import parse_json, read_json
from smdlens.containers.limits import Limits
from smdlens.errors import SnapshotCorruptError, SnapshotUnsafeError

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_VALUES)
def test_what_json_writes_is_read_back(value: object) -> None:
    data = json.dumps(value, allow_nan=True).encode()
    assert parse_json(data, subject="x", allow_nan=True) == value


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":2}', "[NaN]", "[Infinity]", "{", "", "[1,]", "'a'", "[1] x", '{"a":1}\0'],
)
def test_what_is_not_strict_is_refused(text: str) -> None:
    with pytest.raises(SnapshotCorruptError, match="x: not valid JSON"):
        parse_json(text.encode(), subject="x")


def test_text_that_is_not_utf8_and_numbers_that_are_too_long() -> None:
    for data in (b'["\xff"]', b"1" * 5_000):
        with pytest.raises(SnapshotCorruptError):
            parse_json(data, subject="x")


def test_depth_counts_brackets_outside_strings_only() -> None:
    fine = json.dumps({"name": "[" * 500 + '\\"{' * 500}).encode()
    assert parse_json(fine, subject="x")
    for depth in (101, 100_000):
        with pytest.raises(SnapshotUnsafeError, match="nested too deeply"):
            parse_json(b"[" * depth + b"]" * depth, subject="x")
    with pytest.raises(SnapshotUnsafeError, match="too long"):
        parse_json(b"[1, 2]", subject="x", limits=Limits(json_bytes=3))


def test_trainer_logs_may_hold_nan(tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text('{"loss": NaN, "norm": -Infinity}')
    values = read_json(str(path), allow_nan=True)
    assert values["loss"] != values["loss"] and values["norm"] == float("-inf")
    with pytest.raises(SnapshotUnsafeError, match="too long"):
        read_json(str(path), limits=Limits(json_bytes=3))


def test_a_large_sparse_file_is_refused_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(SnapshotUnsafeError, match="too long"):
        read_json(str(path))
