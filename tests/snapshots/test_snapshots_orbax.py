"""Orbax's folders, written by Orbax itself in each of its layouts, read without JAX."""

from __future__ import annotations

import builtins
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smdlens.errors import (
    InputError,
    SnapshotCorruptError,
    SnapshotError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
    SnapshotUnsupportedError,
)
from smdlens.motion.tensors import load
from smdlens.snapshots import open_series, open_snapshot
from smdlens.snapshots.zarr_arrays import zarr_array
from smdlens.symmetry.find import find_scale_groups
from smdlens.vocabulary import Role

GOLDEN = Path(__file__).parent.parent / "golden"
ORBAX = GOLDEN / "orbax"
LAYOUTS = [
    ("ocdbt_zarr2", "checkpoint_2"), ("ocdbt_zarr2", "checkpoint_4"),
    ("ocdbt_zarr3", "checkpoint_2"), ("zarr2", "checkpoint_2"), ("zarr3", "checkpoint_2"),
    ("manager", "2"), ("manager", "4"), ("sharded", "checkpoint_2"),
]  # fmt: skip
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def _expected(run: str, step: int) -> dict[str, np.ndarray]:
    with np.load(ORBAX / run / "expected.npz") as archive:
        return {k.partition("/")[2]: archive[k] for k in archive.files if k.startswith(f"{step}/")}


def _as_torch(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


@pytest.mark.parametrize(("run", "name"), LAYOUTS)
def test_every_layout_bit_for_bit(run: str, name: str) -> None:
    snapshot = open_snapshot(ORBAX / run / name)
    step = int(name[-1])
    assert snapshot.format == "orbax" and snapshot.step == step
    record = snapshot.optimizer
    assert record is not None
    tensors = slots = 0
    for key, wanted in _expected(run, step).items():
        *path, leaf = key.split("/")
        torch_name = f"{path[-1]}.{LEAVES.get(leaf, leaf)}"
        if path[:1] in (["params"], ["batch_stats"]):
            tensors += 1
            ref = snapshot.tensors[torch_name]
        elif {"trace", "mu", "nu"} & set(path):
            kind = next(k for k in ("trace", "mu", "nu") if k in path)
            slot = {"trace": "momentum", "mu": "first_moment", "nu": "second_moment"}[kind]
            slots += 1
            ref = record.slots[torch_name][slot]
        else:
            continue
        assert np.array_equal(load(ref).float().numpy(), _as_torch(wanted)), key
    assert tensors == len(snapshot.tensors) == 7
    assert slots == (10 if run == "manager" else 5)
    assert snapshot.tensors["head.weight"].dtype == "bfloat16"
    if run == "manager":
        assert set(record.updates.values()) == {step}
        assert snapshot.scalars["extra"] == {"seed": 7}
    else:
        assert record.name == "sgd"
        if run != "sharded":
            values = record.groups[0].values
            assert values == {"lr": pytest.approx(0.1), "momentum": pytest.approx(0.9)}


def test_a_kernel_over_two_devices_is_joined() -> None:
    kernel = open_snapshot(ORBAX / "sharded" / "checkpoint_2").tensors["conv1.weight"]
    assert kernel.shape == (16, 4, 3, 3) and len(kernel.extents) == 2 * 3 * 3 * 4


def test_a_run_as_the_manager_leaves_it(tmp_path: Path) -> None:
    for step in ("2", "4"):
        shutil.copytree(ORBAX / "manager" / step, tmp_path / step)
    shutil.copytree(tmp_path / "4", tmp_path / "6.orbax-checkpoint-tmp-1730000000")
    shutil.copytree(tmp_path / "4", tmp_path / "8")
    (tmp_path / "8" / "commit_success.txt").unlink()
    said = json.loads((tmp_path / "8" / "_CHECKPOINT_METADATA").read_text())
    said["commit_timestamp_nsecs"] = None
    (tmp_path / "8" / "_CHECKPOINT_METADATA").write_text(json.dumps(said))
    series = open_series(tmp_path)
    assert series.steps == (2, 4)
    reasons = {s.file: s.reason.value for s in series.skipped}
    assert reasons == {"6.orbax-checkpoint-tmp-1730000000": "unfinished", "8": "unfinished"}
    groups = find_scale_groups(series).tensors
    found = groups["conv1.weight"]
    assert found.role == Role.SCALE_INVARIANT and found.axis == 0 and found.groups == 16


def test_two_formats_in_one_folder(tmp_path: Path) -> None:
    for step in (2, 4):
        shutil.copytree(ORBAX / "ocdbt_zarr2" / f"checkpoint_{step}", tmp_path / f"step_{step}")
        shutil.copy(GOLDEN / "flax" / f"sgd_{step}", tmp_path / f"checkpoint_{step}")
    with pytest.raises(InputError, match=r"flax-msgpack \(.*orbax \("):
        open_series(tmp_path)


def test_without_metadata_the_arrays_name_themselves(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_2"
    shutil.copytree(ORBAX / "ocdbt_zarr2" / "checkpoint_2", path)
    whole = set(open_snapshot(path).tensors)
    (path / "_METADATA").unlink()
    assert set(open_snapshot(path).tensors) == whole


def test_the_variables_of_nnx(tmp_path: Path) -> None:
    """NNX: no `params` around the layers, and each array under a key `value`."""
    path = tmp_path / "step_3"
    shutil.copytree(ORBAX / "zarr2" / "checkpoint_2", path)
    for entry in list(path.iterdir()):
        if entry.name.startswith("params."):
            entry.rename(path / (entry.name.removeprefix("params.") + ".value"))
        elif entry.is_dir() and (entry / ".zarray").exists():
            shutil.rmtree(entry)
    (path / "_METADATA").unlink()
    (path / "_METADATA").write_text("{}")
    snapshot = open_snapshot(path)
    assert set(snapshot.tensors) == {"bn1.bias", "bn1.weight", "conv1.weight", "head.bias",
                                     "head.weight"}  # fmt: skip
    assert snapshot.step == 3


def test_a_missing_package_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "zstandard":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "zstandard", raising=False)
    with pytest.raises(SnapshotUnsupportedError, match=r'pip install "smdlens\[jax\]"'):
        open_snapshot(ORBAX / "ocdbt_zarr2" / "checkpoint_2")


def _broken(tmp_path: Path, name: str, change: dict[str, Any]) -> Path:
    path = tmp_path / "checkpoint_2"
    shutil.copytree(ORBAX / "zarr2" / "checkpoint_2", path)
    file = path / "params.conv1.kernel" / ".zarray"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    return path


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"chunks": [1 << 20, 1 << 20, 1 << 20, 16]}, SnapshotCorruptError, "impossible size"),
        ({"chunks": [3, 3, 4, 0]}, SnapshotCorruptError, "another rank, or empty"),
        ({"chunks": [3, 3, 4, 8]}, SnapshotCorruptError, "no chunk '0.0.0.1'"),
        ({"chunks": [3, 3, 4]}, SnapshotCorruptError, "another rank"),
        ({"shape": [3, 3, -4, 16]}, SnapshotCorruptError, "impossible shape"),
        ({"shape": [1 << 40, 1 << 40, 4, 16]}, SnapshotCorruptError, "chunks"),
        ({"order": "F"}, SnapshotUnsupportedError, "order F"),
        ({"dtype": "<f3"}, SnapshotUnsupportedError, "<f3"),
        ({"compressor": {"id": "lzma"}}, SnapshotUnsupportedError, "lzma"),
        ({"compressor": None}, SnapshotCorruptError, "a chunk of"),
        ({"filters": [{"id": "delta"}]}, SnapshotUnsupportedError, "not read"),
        ({"dimension_separator": "../"}, SnapshotCorruptError, "separator"),
    ],
)
def test_claims_of_arrays_are_checked(
    tmp_path: Path, change: dict[str, Any], error: type[SnapshotError], words: str
) -> None:
    path = _broken(tmp_path, "params.conv1.kernel", change)
    with pytest.raises(error, match=words) as caught:
        open_snapshot(path)
    assert str(path) in str(caught.value)


def test_a_chunk_that_unpacks_to_more_than_it_may(tmp_path: Path) -> None:
    path = _broken(tmp_path, "params.conv1.kernel", {"dtype": "<f2"})
    ref = open_snapshot(path).tensors["conv1.weight"]
    with pytest.raises(SnapshotCorruptError, match="unpack"):
        load(ref)


def test_an_array_behind_a_link_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_2"
    shutil.copytree(ORBAX / "zarr2" / "checkpoint_2", path)
    shutil.move(path / "params.conv1.kernel", tmp_path / "elsewhere")
    (path / "params.conv1.kernel").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SnapshotUnsafeError, match="outside"):
        open_snapshot(path)


def test_a_data_file_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_4"
    shutil.copytree(ORBAX / "ocdbt_zarr2" / "checkpoint_4", path)
    (extent,) = open_snapshot(path).tensors["conv1.weight"].extents
    assert extent.packed is not None and extent.packed.inside is None
    with open(extent.path, "r+b") as file:
        file.truncate(extent.offset + extent.packed.stored - 1)
    with pytest.raises(SnapshotTruncatedError, match="data file ends"):
        open_snapshot(path)


def test_arrays_of_text_are_passed_over() -> None:
    assert (
        zarr_array({"zarr_format": 2, "shape": [], "chunks": [], "dtype": "|S5"}, "a", "x") is None
    )
    said = {"zarr_format": 3, "node_type": "array", "shape": [], "data_type": "string"}
    assert zarr_array(said, "a", "x") is None
    for wrong in ([], {}, {"zarr_format": 3, "node_type": "group", "shape": []}):
        with pytest.raises(SnapshotCorruptError):
            zarr_array(wrong, "a", "x")
