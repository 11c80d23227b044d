"""The inert pickle reader against Python's own on plain values, and its bounds."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import pathlib
import pickle
import types
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smdlens.containers.inert_pickle import PickleEndsError, load_pickle
from smdlens.containers.inert_values import InlineArray, Opaque, OpaqueGlobal
from smdlens.containers.limits import Limits
from smdlens.containers.pickle_numpy import array_values
from smdlens.errors import SnapshotCorruptError, SnapshotUnsafeError

_KEYS = st.text() | st.integers(-(2**59), 2**59) | st.booleans() | st.none() | st.binary()
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**800), 2**800)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=300)
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.tuples(inner, inner, inner, inner)
        | st.dictionaries(_KEYS, inner, max_size=5)
        | st.sets(_KEYS, max_size=4)
        | st.frozensets(_KEYS, max_size=4)
    ),
    max_leaves=25,
)


def load(data: bytes, **options: Any) -> Any:
    value, length = load_pickle(data, subject="file", **options)
    assert length == len(data)
    return value


@settings(max_examples=300, deadline=None)
@given(_VALUES, st.integers(0, 5))
def test_plain_values_as_pickle_reads_them(value: object, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    ours = load(data)
    assert ours == value and type(ours) is type(value)


@pytest.mark.parametrize("protocol", range(6))
def test_known_classes_become_plain_values(protocol: int) -> None:
    class_values: dict[str, tuple[Any, Any]] = {
        "ordered": (collections.OrderedDict(a=1, b=2), {"a": 1, "b": 2}),
        "default": (collections.defaultdict(list, a=[1]), {"a": [1]}),
        "counter": (collections.Counter("aab"), {"a": 2, "b": 1}),
        "deque": (collections.deque([1, 2]), [1, 2]),
        "path": (pathlib.PurePosixPath("/a/b.c"), "/a/b.c"),
        "bytearray": (bytearray(b"ab\xff"), b"ab\xff"),
        "float32": (np.float32(1.5), 1.5),
        "int64": (np.int64(-7), -7),
        "bool": (np.bool_(True), True),
        "big-endian": (np.dtype(">f8").type(2.5), 2.5),
    }
    for name, (value, expected) in class_values.items():
        assert load(pickle.dumps(value, protocol)) == expected, name


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<i8", ">i4", "|u1", "|b1", "<f2"])
def test_small_arrays(protocol: int, dtype: str) -> None:
    array = np.array([[1, 0, 3], [4, 5, 6]]).astype(dtype)
    ours = load(pickle.dumps(array, protocol))
    assert type(ours) is InlineArray and ours.shape == (2, 3)
    assert array_values(ours, Limits()) == array.ravel().tolist()
    assert array_values(ours, Limits(inline_bytes=4)) is None


class Colour(enum.Enum):
    RED = "red"


class Config(dict[str, int]):
    pass


class Bag(list[int]):
    pass


class Slots:
    __slots__ = ("a",)

    def __init__(self) -> None:
        self.a = 1


@pytest.mark.parametrize("protocol", range(2, 6))
def test_unknown_classes_become_placeholders(protocol: int) -> None:
    space = load(pickle.dumps(argparse.Namespace(lr=0.1), protocol))
    assert (type(space), space.name, space.state) == (Opaque, "Namespace", {"lr": 0.1})
    assert load(pickle.dumps(types.SimpleNamespace(a=2), protocol)).state == {"a": 2}
    assert load(pickle.dumps(Colour.RED, protocol)).args == ("red",)
    config = load(pickle.dumps(Config(a=1), protocol))
    assert config.entries == {"a": 1}
    assert load(pickle.dumps(Bag([1, 2]), protocol)).items == [1, 2]
    assert load(pickle.dumps(Slots(), protocol)).state == (None, {"a": 1})
    date = load(pickle.dumps(datetime.datetime(2020, 1, 2), protocol))
    assert (date.module, date.name) == ("datetime", "datetime")
    function = load(pickle.dumps(pathlib.Path.exists, protocol))
    assert type(function) in (Opaque, OpaqueGlobal)


def test_a_namespace_of_protocols_0_and_1() -> None:
    for protocol in (0, 1):
        space = load(pickle.dumps(argparse.Namespace(lr=0.1), protocol))
        assert (space.name, space.state) == ("Namespace", {"lr": 0.1})


def test_every_cut_of_a_pickle_is_noticed() -> None:
    data = pickle.dumps({"a": [1, 2.5, None, "text", b"bytes", (1, 2, 3)], "n": np.int64(3)}, 4)
    for end in range(len(data)):
        with pytest.raises((PickleEndsError, SnapshotCorruptError)):
            load_pickle(data[:end], subject="file")


@pytest.mark.parametrize(
    ("data", "limits", "what"),
    [
        (b"]" * 50 + b".", Limits(pickle_objects=20), "more than 20 objects"),
        (b"N" * 500 + b".", Limits(pickle_stack=20), "values on the stack"),
        (b"N0" * 50 + b".", Limits(pickle_opcodes=20), "more than 20 operations"),
        (b"(" * 50 + b".", Limits(pickle_depth=20), "open marks"),
    ],
)
def test_bounds(data: bytes, limits: Limits, what: str) -> None:
    with pytest.raises(SnapshotUnsafeError, match=what):
        load_pickle(data, subject="file", limits=limits)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x07N.",
        b"\xff.",
        b".",
        b"0.",
        b"h\x05.",
        b"\x8b\xff\xff\xff\x7f.",
        b"I" + b"9" * 5000 + b"\n.",
        b"F1e5x\n.",
        b"S'abc\n.",
        b"Na.",
        b"](NNe(NNu.",
        b"}]Ns.",  # an unhashable key
        b"}((NtNtNs.",  # a nested tuple as key
        b"NNR.",
        b"cos\nsystem\nNR.",
        b"N}b.",
        b"(t}b.",
        b"\x97.",
    ],
)
def test_malformed_streams_are_refused(data: bytes) -> None:
    with pytest.raises((SnapshotCorruptError, PickleEndsError)):
        load_pickle(data, subject="file")


def test_huge_claims_cost_nothing() -> None:
    claims = [
        b"\x8e" + (1 << 40).to_bytes(8, "little"),
        b"\x8d" + (1 << 62).to_bytes(8, "little"),
        b"B" + b"\xff" * 4,
        b"X" + b"\xff" * 4,
        b"\x95" + b"\xff" * 8,
        b"\x96" + (1 << 40).to_bytes(8, "little"),
    ]
    for claim in claims:
        with pytest.raises(PickleEndsError):
            load_pickle(claim + b"x" * 100 + b".", subject="file")
    value, _ = load_pickle(b"Nr\xff\xff\xff\x7f.", subject="file")
    assert value is None, "a memo index is a key, never a size"


def test_copies_of_shared_values_are_paid_for() -> None:
    # One list of 1000, then copies of it through builtins.list: 10 bytes each.
    shared = b"](" + b"N" * 1000 + b"eq\x00" + b"c__builtin__\nlist\nq\x01"
    copies = b"h\x01h\x00\x85R" * 1000
    with pytest.raises(SnapshotUnsafeError, match="objects"):
        load_pickle(shared + copies + b".", subject="f", limits=Limits(pickle_objects=100_000))


def test_nested_shared_tuples_do_not_cost_exponential_time() -> None:
    # t1 = (t0, t0), t2 = (t1, t1) ... hashing t60 would take 2**60 steps.
    data = b")" + b"2\x86" * 60 + b"0}" + b")" + b"2\x86" * 60 + b"Ns."
    with pytest.raises(SnapshotCorruptError):
        load_pickle(data, subject="f")


def _shared(depth: int) -> Any:
    """A tuple of two of the same, so deep that hashing it would walk 2^depth parts."""
    key: Any = ()
    for _ in range(depth):
        key = (key, key)
    return key


@pytest.mark.parametrize(
    "keys",
    [
        # Python hashes integers by their remainder: all of these would meet in one place.
        [k * (2**61 - 1) for k in range(1, 1000)],
        [2**61],
        [-(2**61)],
        [tuple(range(17))],
        [(2**61,)],
    ],
)
@pytest.mark.parametrize("make", [dict.fromkeys, set, frozenset])
def test_keys_that_are_made_to_collide_are_refused(keys: list[Any], make: Any) -> None:
    with pytest.raises((SnapshotUnsafeError, SnapshotCorruptError)):
        load(pickle.dumps(make(keys), protocol=4))


def test_a_key_that_would_take_for_ever_to_hash_is_refused() -> None:
    # Python could not make this dict either, so its pickle is that of a list, turned by one opcode.
    frame = pickle.dumps([_shared(40), None], protocol=2)
    start, stop = frame.index(b"("), frame.rindex(b"e")
    data = frame[:2] + b"}" + frame[start:stop] + b"u" + frame[stop + 1 :]
    with pytest.raises((SnapshotUnsafeError, SnapshotCorruptError)):
        load(data)
