"""Flax, TensorFlow and NumPy files, written by the frameworks themselves, read without them."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from snapshots_helpers import read_tensor

from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotMissingError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)
from smdlens.motion.tensors import load
from smdlens.snapshots import open_series, open_snapshot
from smdlens.snapshots.readers import look, read_checkpoint, reader_for
from smdlens.snapshots.records import Snapshot, TensorRef
from smdlens.symmetry.find import find_scale_groups
from smdlens.vocabulary import Role

GOLDEN = Path(__file__).parent.parent / "golden"
FLAX, TF = GOLDEN / "flax", GOLDEN / "tensorflow"


def _expected(path: Path, slash: str = "/") -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return {key.replace(slash, "/"): archive[key] for key in archive.files}


def _as_torch_has_it(key: str, array: np.ndarray) -> np.ndarray:
    """The array with its output axis first, written out for the shapes of these networks."""
    if "kernel" not in key or array.ndim < 2:
        return array
    if "depthwise" in key or array.shape[:3] == (2, 2, 6):
        return array.transpose(2, 3, 0, 1)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _check(ref: TensorRef, expected: dict[str, np.ndarray], kernel: bool) -> None:
    key = ref.name
    whole = _as_torch_has_it(key if not kernel else f"{key} kernel", expected[key])
    ours = read_tensor(ref)
    assert tuple(ours.shape) == whole.shape, key
    assert np.array_equal(ours.double().numpy(), whole.astype(np.float64)), key
    assert torch.equal(load(ref), ours * ref.scale), "as motion/ reads it"


def _check_all(snapshot: Snapshot, expected: dict[str, np.ndarray]) -> None:
    for name, ref in snapshot.tensors.items():
        _check(ref, expected, len(ref.shape) > 1 and name.endswith("weight"))
    if snapshot.optimizer is not None:
        for slots in snapshot.optimizer.slots.values():
            for ref in slots.values():
                _check(ref, expected, len(ref.shape) > 1)


@pytest.mark.parametrize("name", ["sgd_2", "sgd_4", "adamw_3", "chunked_2"])
def test_flax(name: str) -> None:
    snapshot = open_snapshot(FLAX / name)
    assert snapshot.format == "flax-msgpack" and snapshot.step == int(name[-1])
    _check_all(snapshot, _expected(FLAX / f"{name}.expected.npz"))
    assert len(snapshot.tensors) == 13 and snapshot.optimizer is not None
    kinds = {"first_moment", "second_moment"} if name == "adamw_3" else {"momentum"}
    assert all(set(slots) == kinds for slots in snapshot.optimizer.slots.values())
    assert len(snapshot.optimizer.slots) == 9
    if name.startswith("sgd"):
        values = snapshot.optimizer.groups[0].values
        assert values == {"lr": pytest.approx(0.1), "momentum": pytest.approx(0.9)}
    if name == "adamw_3":
        assert set(snapshot.optimizer.updates.values()) == {3}
    if name == "chunked_2":
        assert len(snapshot.tensors["conv1.weight"].extents) > 1
    assert snapshot.tensors["head.weight"].dtype == "bfloat16"
    assert "shown as torch has them" in snapshot.scalars["conversion"]


def test_a_flax_run_and_its_scale_groups(tmp_path: Path) -> None:
    for step in (2, 4):
        shutil.copy(FLAX / f"sgd_{step}", tmp_path / f"checkpoint_{step}")
    series = open_series(tmp_path)
    assert series.steps == (2, 4)
    groups = find_scale_groups(series).tensors
    for name, channels in (("conv1.weight", 6), ("conv2.weight", 8)):
        found = groups[name]
        assert found.role == Role.SCALE_INVARIANT and found.axis == 0 and found.groups == channels


@pytest.mark.parametrize(
    ("prefix", "step", "slots"),
    [
        ("adam/ckpt-2", 2, {"first_moment", "second_moment"}),
        ("adam/ckpt-4", 4, {"first_moment", "second_moment"}),
        ("sgd/ckpt-3", 3, {"momentum"}),
        ("tf1_momentum/model.ckpt-3", 3, {"momentum"}),
        ("tf1_adam/model.ckpt-3", 3, {"first_moment", "second_moment"}),
    ],
)
def test_tensorflow(prefix: str, step: int, slots: set[str]) -> None:
    snapshot = open_snapshot(TF / f"{prefix}.index")
    assert snapshot.format == "tensorflow" and snapshot.step == step
    _check_all(snapshot, _expected(TF / f"{prefix}.expected.npz", "|"))
    record = snapshot.optimizer
    assert record is not None
    keras = not prefix.startswith("tf1")
    parameters = [n for n in snapshot.tensors if "running" not in n]
    assert len(parameters) == (7 if keras else 2)
    assert set(record.slots) == set(parameters)
    assert all(set(held) == slots for held in record.slots.values())
    scales = [ref.scale for held in record.slots.values() for ref in held.values()]
    scale = -10.0 if prefix.startswith("sgd") else 1.0
    assert scales == [pytest.approx(scale)] * len(scales)
    if keras:
        lr = 0.1 if prefix.startswith("sgd") else 1e-3
        assert record.groups[0].values["lr"] == pytest.approx(lr)
        assert set(record.updates.values()) == (set() if slots == {"momentum"} else {step})
        shapes = {n.partition(".")[2]: r.shape for n, r in snapshot.tensors.items()}
        assert shapes["conv1.weight"] == (6, 4, 3, 2) and shapes["head.weight"] == (3, 6)
        assert shapes["depthwise.weight"] == (6, 1, 2, 2) and shapes["bn1.running_var"] == (6,)


def test_a_keras_run(tmp_path: Path) -> None:
    for file in (TF / "adam").glob("ckpt-*[x1]"):
        shutil.copy(file, tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-4"\n')
    series = open_series(tmp_path)
    assert series.steps == (2, 4) and not series.skipped
    (tmp_path / "ckpt-4.data-00000-of-00001").unlink()
    with pytest.raises(SnapshotMissingError, match="cannot be opened"):
        open_snapshot(tmp_path / "ckpt-4.index")
    shard = tmp_path / "ckpt-2.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(SnapshotTruncatedError, match="ends before"):
        open_snapshot(tmp_path / "ckpt-2.index")


def test_no_framework_is_imported() -> None:
    paths = [str(FLAX / "sgd_4"), str(TF / "adam" / "ckpt-4.index"), str(GOLDEN / "fsdp2/step-3")]
    code = (
        "import sys; from smdlens.snapshots import open_snapshot\n"
        f"for path in {paths!r}: open_snapshot(path)\n"
        "names = {'jax', 'flax', 'msgpack', 'tensorflow', 'onnx', 'torch', 'numpy'}\n"
        "print(sorted(names & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def _arrays() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "conv.weight": draw.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "fortran": np.asfortranarray(draw.normal(size=(5, 7))),
        "half": draw.normal(size=(3,)).astype(np.float16),
        "empty": np.zeros((0, 3), np.float32),
        "step": np.array(12),
    }


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    arrays = _arrays()
    np.savez(path, **arrays, note=np.array("text"), thing=np.array([{}], dtype=object))
    snapshot = open_snapshot(path)
    assert snapshot.format == "numpy-npz" and snapshot.step == 12
    for name in ("conv.weight", "fortran", "half", "empty"):
        assert np.array_equal(read_tensor(snapshot.tensors[name]).numpy(), arrays[name]), name
    assert "thing" not in snapshot.tensors and "note" not in snapshot.tensors


def test_npz_with_the_names_of_flax(tmp_path: Path) -> None:
    arrays = {k: v for k, v in _expected(FLAX / "sgd_4.expected.npz").items() if v.ndim}
    np.savez(tmp_path / "model_4.npz", **arrays)
    snapshot = open_snapshot(tmp_path / "model_4.npz")
    assert snapshot.step == 4 and snapshot.tensors["conv1.weight"].shape == (6, 4, 3, 2)
    assert snapshot.optimizer is not None and len(snapshot.optimizer.slots) == 9


def test_compressed_npz(tmp_path: Path) -> None:
    path = tmp_path / "weights_5.npz"
    draw = np.random.default_rng(0)
    arrays = {
        "a/kernel": draw.normal(size=(300, 70)).astype("f4"), "a/bias": np.zeros(70_000, "f2"),
        "b": np.asfortranarray(draw.normal(size=(7, 3))), "empty": np.zeros((0, 2), "f4"),
    }  # fmt: skip
    np.savez_compressed(path, **arrays, text=np.array("words"))
    snapshot = open_snapshot(path)
    assert snapshot.step == 5 and len(snapshot.tensors) == 4
    for key, array in arrays.items():
        found = load(snapshot.tensors[key.replace("/", ".")])
        assert np.array_equal(found.numpy(), array), key


def test_compressed_npz_that_claims_too_much(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": (1 << 30,)}
    )
    for content in (head.getvalue() + bytes(4000), b"no array", head.getvalue()[:40]):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("w.npy", content)
        with pytest.raises(SnapshotCorruptError):
            open_snapshot(path)


def test_npz_that_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, w=np.zeros((4, 4), ">f4"))
    with pytest.raises(SnapshotUnsupportedError, match="big-endian"):
        open_snapshot(path)
    np.savez(path, w=np.zeros((4, 4), np.float32))
    whole = path.read_bytes()
    for wrong in (b"(9, 4), ", b"(4, 3), ", b"(-4, 4)"):
        path.write_bytes(whole.replace(b"(4, 4), ", wrong.ljust(8)[:8]))
        with pytest.raises(SnapshotCorruptError):
            open_snapshot(path)


def test_other_files_are_not_taken_for_msgpack(tmp_path: Path) -> None:
    for number, head in enumerate(
        (b"\x89PNG\r\n\x1a\n", b"\x89HDF\r\n\x1a\n", b"\x80\x04\x95", b"\x81\xa3\xff\xfe\x00",
         b"\x85\x01", b"\xde\x00", b"\x81\xa0", b"\x81\xbf" + b"k" * 5)
    ):  # fmt: skip
        path = tmp_path / str(number)
        path.write_bytes(head + b"\0" * (0 if head.endswith(b"k") else 40))
        reader = reader_for(look(path))
        assert reader is None or reader.name == "keras-h5", head


def _msgpack(path: Path, body: bytes) -> Path:
    path.write_bytes(b"\x81\xa6params" + body)
    return path


def test_claims_in_msgpack_are_checked(tmp_path: Path) -> None:
    array = b"\x93\x91\x02\xa7float32\xc4\x08" + b"\0" * 8
    good = b"\x81\xa1w\xc7" + bytes([len(array), 1]) + array
    assert read_checkpoint(_msgpack(tmp_path / "good", good)).root["params"]["w"].shape == (2,)
    cases: list[tuple[bytes, type[SnapshotError]]] = [
        (good.replace(b"\x91\x02", b"\x91\x03"), SnapshotCorruptError),
        (good.replace(b"float32", b"float99"), SnapshotUnsupportedError),
        (good.replace(b"\x93\x91", b"\x92\x91"), SnapshotCorruptError),
        (good + b"\0", SnapshotCorruptError),
        (b"\xdd\xff\xff\xff\xff", SnapshotTruncatedError),
        (b"\xdf\xff\xff\xff\xff", SnapshotTruncatedError),
        (b"\xc6\xff\xff\xff\xff", SnapshotTruncatedError),
        (b"\xdb\x7f\xff\xff\xff", SnapshotUnsafeError),
        (b"\x91" * 5000 + b"\0", SnapshotUnsafeError),
        (b"\x82\xa1a\x01\xa1a\x01", SnapshotCorruptError),
        (b"\x81\x01\x01", SnapshotCorruptError),
        (b"\xc1", SnapshotCorruptError),
        (b"\xa1\xff", SnapshotCorruptError),
    ]
    for body, error in cases:
        with pytest.raises(error) as caught:
            read_checkpoint(_msgpack(tmp_path / "bad", body))
        assert str(tmp_path / "bad") in str(caught.value)
