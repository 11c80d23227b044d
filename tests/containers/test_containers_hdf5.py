"""HDF5 files of every age as h5py wrote and read them; hostile ones are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smdlens.containers.files import reading
from smdlens.containers.hdf5_file import Hdf5Dataset, Hdf5Group, read_hdf5
from smdlens.containers.hdf5_types import Cursor, Hdf5FormatError, parse_layout
from smdlens.containers.limits import Limits
from smdlens.containers.packed import unpack
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)
from smdlens.motion.tensors import load
from smdlens.snapshots import open_snapshot
from smdlens.snapshots.hdf5_tensors import member, text_list

GOLDEN = Path(__file__).parent.parent / "golden" / "hdf5"


def _read(name: str, limits: Limits | None = None) -> Hdf5Group:
    with reading(GOLDEN / name) as file:
        return read_hdf5(file, limits or Limits())


@pytest.mark.parametrize("name", ["earliest.h5", "v108.h5", "v110.h5"])
def test_layouts_of_every_age(name: str) -> None:
    snapshot = open_snapshot(GOLDEN / name, weights_key="model")
    with np.load(GOLDEN / "expected.npz") as expected:
        assert len(snapshot.tensors) == len(expected.files) == 15
        for key in expected.files:
            ours = load(snapshot.tensors[f"{key}.weight"]).numpy()
            # Kernels come as (out, in); the files have (in, out).
            assert ours.dtype == expected[key].dtype
            assert np.array_equal(ours, expected[key].T), key
    root = _read(name)
    notes = {k: v for k, v in root.attributes.items() if k.startswith("note")}
    assert notes == {f"note {n}": f"text {n} " * 3 for n in range(12)}
    assert sorted(text_list(root.attributes, "layer_names") or []) == sorted(root.members)


def test_every_index_of_chunks_since_1_10() -> None:
    snapshot = open_snapshot(GOLDEN / "v110_chunks.h5", weights_key="model")
    with np.load(GOLDEN / "expected_chunks.npz") as expected:
        assert len(snapshot.tensors) == len(expected.files) == 12
        for key in expected.files:
            ours = load(snapshot.tensors[f"{key}.weight"]).numpy()
            assert np.array_equal(ours, expected[key].T), key


def test_an_index_of_an_impossible_kind_or_rank() -> None:
    head, tail = b"\x04\x02\0\x03\x01\x04\x03\x04", bytes(20)
    assert not isinstance(parse_layout(Cursor(head + b"\x01" + tail), (4, 3)), str)
    for bad in (head + b"\x06", b"\x04\x02\0\x01\x01\x04\x01", b"\x04\x02\0\x03\x09" + head):
        with pytest.raises(Hdf5FormatError):
            parse_layout(Cursor(bad + tail), (4, 3))


def test_a_great_number_of_chunks_is_paid_for_first() -> None:
    with pytest.raises(SnapshotUnsafeError, match="too many objects"):
        _read("v110_chunks.h5", Limits(plain_values=1500))


def test_a_filtered_dataset_is_unpacked_chunk_by_chunk() -> None:
    dataset = member(_read("earliest.h5"), "chunked", "chunked", "kernel:0")
    assert isinstance(dataset, Hdf5Dataset)
    assert dataset.chunk_shape == (4, 3) and len(dataset.chunks) == 9
    assert dataset.filters == ("shuffle:4", "deflate", "fletcher32")


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("soft_link", SnapshotUnsafeError, "a soft or external link"),
        ("external_link", SnapshotUnsafeError, "a soft or external link"),
        ("external_storage", SnapshotUnsafeError, "bytes lie in another file"),
        ("virtual", SnapshotUnsafeError, "a virtual dataset"),
        ("giant", SnapshotCorruptError, "no chunks of its shape"),
        ("committed", SnapshotUnsupportedError, "a committed datatype"),
        ("compound", SnapshotUnsupportedError, "elements that are not read"),
        ("big_endian", SnapshotUnsupportedError, "elements that are not read"),
        ("lzf", SnapshotUnsupportedError, "filter 32000"),
        ("cycle", SnapshotCorruptError, "inside each other without end"),
        ("never_written", SnapshotCorruptError, "never written"),
    ],
)
def test_hostile_files_are_refused(name: str, error: type[SnapshotError], words: str) -> None:
    path = GOLDEN / f"hostile_{name}.h5"
    with pytest.raises(error, match=words) as caught:
        open_snapshot(path)
    assert str(path) in str(caught.value)
    if name not in ("cycle", "giant", "never_written", "committed", "lzf"):
        assert "a/w:0" in str(caught.value)


def test_a_bomb_unpacks_to_its_declared_size_and_no_further() -> None:
    dataset = member(_read("hostile_bomb.h5"), "a", "w:0")
    assert isinstance(dataset, Hdf5Dataset) and dataset.shape == (1 << 22,)
    (chunk,) = dataset.chunks[:1]
    data = (GOLDEN / "hostile_bomb.h5").read_bytes()
    stored = data[chunk.address : chunk.address + chunk.nbytes]
    size = dataset.chunk_shape[0]
    assert unpack(stored, dataset.filters, size, "x") == bytes(size)
    with pytest.raises(SnapshotCorruptError, match="1000 bytes"):
        unpack(stored, dataset.filters, 1000, "x")


def test_limits_hold() -> None:
    with pytest.raises(SnapshotUnsafeError, match="too many objects"):
        _read("earliest.h5", Limits(plain_values=20))
    with pytest.raises(SnapshotUnsafeError, match="too long"):
        _read("earliest.h5", Limits(pickle_bytes=2000))


def test_a_file_cut_short_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cut.h5"
    path.write_bytes((GOLDEN / "v110.h5").read_bytes()[:-1])
    with pytest.raises(SnapshotTruncatedError, match="cut short"):
        open_snapshot(path)


def test_a_cursor_stays_inside() -> None:
    cursor = Cursor(b"\1\2\3")
    assert cursor.number(2) == 0x0201
    with pytest.raises(Hdf5FormatError):
        cursor.take(2)
    with pytest.raises(Hdf5FormatError):
        cursor.take(-1)


def test_filters_are_undone_in_reverse() -> None:
    import zlib

    values = np.arange(7, dtype=np.float32)
    raw = values.tobytes()
    shuffled = b"".join(raw[k::4] for k in range(4)) + b""
    stored = zlib.compress(shuffled) + b"SUM!"
    assert unpack(stored, ("shuffle:4", "deflate", "fletcher32"), len(raw), "x") == raw
    swapped = values.astype(">f4").tobytes()
    assert unpack(swapped, ("big-endian:4",), len(raw), "x") == raw
    for data, filters in ((b"no deflate", ("deflate",)), (raw[:-1], ()), (raw + b"x", ())):
        with pytest.raises(SnapshotCorruptError):
            unpack(data, filters, len(raw), "x")
    with pytest.raises(SnapshotUnsupportedError, match="lzf"):
        unpack(raw, ("lzf",), len(raw), "x")
