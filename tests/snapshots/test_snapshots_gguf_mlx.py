"""GGUF, MLX and single NumPy arrays: files of the real writers, read without them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from snapshots_helpers import read_tensor

from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)
from smdlens.motion.tensors import load
from smdlens.snapshots import open_series, open_snapshot
from smdlens.snapshots.assemble import NoWeightsError

GOLDEN = Path(__file__).parent.parent / "golden"
RUNS = GOLDEN / "one_network"
STEPS = (40, 80, 120, 160, 161, 200)


def test_gguf_against_its_own_writer() -> None:
    snapshot = open_snapshot(GOLDEN / "gguf" / "mixed_30.gguf")
    assert snapshot.format == "gguf" and snapshot.step == 30
    with np.load(GOLDEN / "gguf" / "mixed_30.expected.npz") as expected:
        assert set(snapshot.tensors) == set(expected.files)
        for name, ref in snapshot.tensors.items():
            ours = load(ref)
            assert np.array_equal(ours.double().numpy(), expected[name].astype(np.float64)), name
            assert ours.equal(read_tensor(ref))
    assert snapshot.tensors["half"].dtype == "bfloat16"
    assert snapshot.scalars["quantised"] == {"blk.0.wide.weight": "Q8_0"}
    assert "1 of 7 tensors" in snapshot.scalars["conversion"]
    metadata = snapshot.scalars["__metadata__"]
    assert metadata["a.numbers"] == [1.5, 2.5] and metadata["a.double"] == 0.25
    assert metadata["a.flag"] is True and metadata["tokenizer.ggml.tokens"] is None


def test_quantised_gguf_is_refused_with_the_reason() -> None:
    with pytest.raises(SnapshotUnsupportedError, match="1 tensors of type Q4_0"):
        open_snapshot(GOLDEN / "gguf" / "quantised_30.gguf")


def _change(path: Path, at: int, new: bytes) -> Path:
    data = bytearray((GOLDEN / "gguf" / "mixed_30.gguf").read_bytes())
    data[at : at + len(new)] = new
    path.write_bytes(data)
    return path


HUGE = b"\xff\xff\xff\xff\xff\xff\xff\x7f"


@pytest.mark.parametrize(
    ("after", "shift", "new", "error"),
    [
        (b"GGUF", 0, b"\0\0\0\3", SnapshotUnsupportedError),  # big-endian
        (b"GGUF", 4, HUGE, SnapshotTruncatedError),  # tensors
        (b"GGUF", 12, HUGE, SnapshotTruncatedError),  # settings
        (b"training.iteration_count", 0, b"\x0d\0\0\0", SnapshotCorruptError),
        (b"general.architecture", -28, HUGE, SnapshotUnsafeError),  # a name
        (b"tokenizer.ggml.tokens", 8, HUGE, SnapshotTruncatedError),  # a list
        (b"conv.weight", 0, b"\x09\0\0\0", SnapshotCorruptError),  # dimensions
        (b"conv.weight", 4, HUGE, SnapshotCorruptError),  # a size
        (b"conv.weight", 36, b"\x63\0\0\0", SnapshotUnsupportedError),  # a type
        (b"conv.weight", 40, b"\0" * 8, SnapshotCorruptError),  # overlap
        (b"conv.weight", 40, HUGE, SnapshotCorruptError),  # offset
        (b"blk.0.wide.weight", 4, b"\x21", SnapshotCorruptError),  # no whole block
    ],
)
def test_claims_of_gguf_are_checked(
    tmp_path: Path, after: bytes, shift: int, new: bytes, error: type[SnapshotError]
) -> None:
    data = (GOLDEN / "gguf" / "mixed_30.gguf").read_bytes()
    path = _change(tmp_path / "a.gguf", data.index(after) + len(after) + shift, new)
    with pytest.raises(error) as caught:
        open_snapshot(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["mlx_safetensors", "mlx_npz", "mlx_gguf"])
def test_mlx_against_the_run_it_holds(kind: str) -> None:
    series = open_series(RUNS / kind)
    assert series.steps == STEPS and not series.skipped
    with np.load(RUNS / "reference.npz") as reference:
        for snapshot in series.snapshots:
            weights = f"{snapshot.step}/weights/"
            assert {weights + n for n in snapshot.tensors} == {
                k for k in reference.files if k.startswith(weights)
            }
            for name, ref in snapshot.tensors.items():
                assert np.array_equal(load(ref).numpy(), reference[weights + name]), name
            record = snapshot.optimizer
            assert record is not None and len(record.slots) == 8
            for name, held in record.slots.items():
                momentum = load(held["momentum"]).numpy()
                assert np.array_equal(momentum, reference[f"{snapshot.step}/momentum/{name}"])
            rate = 0.0625 if (snapshot.step or 0) < 120 else 0.015625
            assert record.groups[0].values["lr"] == pytest.approx(rate)
            assert "output, input, spatial" in snapshot.scalars["conversion"]


def test_an_optimizer_of_mlx_alone_is_no_checkpoint() -> None:
    with pytest.raises(NoWeightsError):
        open_snapshot(RUNS / "mlx_safetensors" / "optimizer_40.safetensors")
    with pytest.raises(NoWeightsError):
        open_snapshot(RUNS / "mlx_npz" / "optimizer_40.npz")


def test_a_folder_with_weights_and_optimizer_of_mlx(tmp_path: Path) -> None:
    for step in (40, 80):
        folder = tmp_path / f"step_{step}"
        folder.mkdir()
        for name in ("model", "optimizer"):
            source = RUNS / "mlx_safetensors" / f"{name}_{step}.safetensors"
            shutil.copy(source, folder / f"{name}.safetensors")
    series = open_series(tmp_path)
    assert series.steps == (40, 80)
    for snapshot in series.snapshots:
        assert snapshot.tensors["conv2.weight"].shape == (8, 3, 3, 2)
        assert snapshot.optimizer is not None and len(snapshot.optimizer.slots) == 8


def _flat_adam(squares_only: bool) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    weight = draw.normal(size=(4, 3, 2, 5)).astype(np.float32)
    state = {
        "conv.weight.v": weight**2,
        "step": np.array(9, np.uint64),
        "learning_rate": np.array(1e-3, np.float32),
    }
    state |= {} if squares_only else {"conv.weight.m": -weight}
    return {"model.conv.weight": weight} | {f"optimizer.{k}": v for k, v in state.items()}


def test_adam_and_rmsprop_of_mlx_in_one_file(tmp_path: Path) -> None:
    arrays = _flat_adam(squares_only=False)
    np.savez(tmp_path / "a.npz", **arrays)
    snapshot = open_snapshot(tmp_path / "a.npz")
    record = snapshot.optimizer
    assert record is not None and snapshot.step == 9 and record.updates == {"model.conv.weight": 9}
    first = load(record.slots["model.conv.weight"]["first_moment"]).numpy()
    assert np.array_equal(first, arrays["optimizer.conv.weight.m"].transpose(0, 3, 1, 2))
    np.savez(tmp_path / "b.npz", **_flat_adam(squares_only=True))
    record = open_snapshot(tmp_path / "b.npz").optimizer
    assert record is not None and not record.slots, "a mean of squares is no momentum"


def test_npy(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for step in (1, 20):
        array = np.asfortranarray(draw.normal(size=(5, 7)).astype(np.float32))
        np.save(tmp_path / f"w_{step}.npy", array)
    series = open_series(tmp_path)
    assert series.steps == (1, 20)
    assert np.array_equal(load(series.snapshots[1].tensors["array"]).numpy(), array)
    np.save(tmp_path / "o.npy", np.array({"w": array}), allow_pickle=True)
    with pytest.raises(SnapshotUnsupportedError, match="pickles"):
        open_snapshot(tmp_path / "o.npy")
    data = (tmp_path / "w_20.npy").read_bytes()
    (tmp_path / "long.npy").write_bytes(data + b"\0")
    with pytest.raises(SnapshotCorruptError, match="another size"):
        open_snapshot(tmp_path / "long.npy")
