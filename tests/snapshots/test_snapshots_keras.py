"""Keras' own files, written by Keras 3 and tf_keras, read without them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smdlens.errors import SnapshotUnsupportedError
from smdlens.hyper.options import DeclaredHyperParameters
from smdlens.hyper.resolve import resolve_hyper_parameters
from smdlens.motion.tensors import load
from smdlens.snapshots import open_series, open_snapshot
from smdlens.snapshots.keras_config import scheduled_rate, snake_case
from smdlens.snapshots.records import Snapshot
from smdlens.snapshots.steps import NamePosition, position_of_name
from smdlens.vocabulary import OptimizerKind

GOLDEN = Path(__file__).parent.parent / "golden" / "keras"
LEAVES = {"kernel": "weight", "depthwise_kernel": "weight", "gamma": "weight", "beta": "bias",
          "moving_mean": "running_mean", "moving_variance": "running_var"}  # fmt: skip
SLOTS = {"momentum": "momentum", "m": "first_moment", "v": "second_moment"}
# In a run's folder: (run, file); the file's name carries the step.
WHOLE = [
    ("sgd", "model-3.keras"), ("sgd", "model-6.keras"), ("sgd", "model-6.h5"),
    ("adam", "model-3.keras"), ("adam", "model-3.h5"), ("adamw", "model-3.keras"),
    ("sgdw", "model-3.keras"), ("schedule", "model-6.keras"), ("tf_sgd", "model-3.h5"),
    ("tf_adam", "model-3.keras"), ("tf_adam", "model-3.h5"), ("tf_legacy", "model-3.h5"),
    ("tf_legacy_adam", "model-3.h5"),
]  # fmt: skip
WEIGHTS = [("sgd", "w-3.weights.h5"), ("sgd", "w-6.weights.h5"), ("adam", "w-3.weights.h5")]
RATES = {("sgd", 6): 0.01, ("sgdw", 3): 0.05, ("schedule", 6): 0.05}


def _said(run: str, file: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the framework said it held: (facts, array by key)."""
    step = file.split("-")[1].split(".")[0]
    facts = json.loads((GOLDEN / run / "expected.json").read_text())[step]
    with np.load(GOLDEN / run / "expected.npz") as archive:
        arrays = {m["key"]: archive[f"{step}|{m['key']}"] for m in facts["meaning"]}
    return facts, arrays


def _as_torch(layer: str, variable: str, array: np.ndarray) -> np.ndarray:
    if layer == "deep":
        return array.transpose(2, 3, 0, 1)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T if array.ndim == 2 else array


def _check(snapshot: Snapshot, run: str, file: str, rename: dict[str, str] | None = None) -> int:
    """Every weight and slot bit for bit; returns how many slots there were."""
    facts, arrays = _said(run, file)
    slots = 0
    for meaning in facts["meaning"]:
        layer, variable = meaning["layer"], meaning["variable"]
        name = f"{layer}.{LEAVES.get(variable, variable)}"
        name = (rename or {}).get(name, name)
        wanted = _as_torch(layer, variable, arrays[meaning["key"]])
        if meaning["slot"] is None:
            assert np.array_equal(load(snapshot.tensors[name]).numpy(), wanted), name
            continue
        assert snapshot.optimizer is not None
        slots += 1
        ref = snapshot.optimizer.slots[name][SLOTS[meaning["slot"]]]
        assert np.array_equal(load(replace(ref, scale=1.0)).numpy(), wanted), name
        if meaning["slot"] == "momentum":
            # The rate of the last update; the framework's own word is that of the next one.
            rate = 0.05 if run == "schedule" else facts["learning_rate"]
            assert ref.scale == pytest.approx(-1 / rate)
            # torch's buffer: the last update was lr times it.
            torch.testing.assert_close(load(ref) * rate, -torch.tensor(wanted.copy()))
        else:
            assert ref.scale == 1.0
    return slots


@pytest.mark.parametrize(("run", "file"), WHOLE)
def test_weights_and_slots_bit_for_bit(run: str, file: str) -> None:
    snapshot = open_snapshot(GOLDEN / run / file)
    facts, _ = _said(run, file)
    assert snapshot.step == facts["iterations"] and "iteration" in snapshot.step_source
    assert len(snapshot.tensors) == 15
    adam = "adam" in run
    assert _check(snapshot, run, file) == (22 if adam else 11)
    record = snapshot.optimizer
    assert record is not None
    rate = RATES.get((run, snapshot.step or 0), 1e-3 if adam else 0.1)
    for group in record.groups:
        assert group.values["lr"] == pytest.approx(rate, rel=1e-6)
    if adam:
        assert record.groups[0].values["betas"] == pytest.approx((0.9, 0.999))
        assert record.groups[0].values["eps"] == pytest.approx(1e-7)
        assert set(record.updates.values()) == {facts["iterations"]}
    else:
        momentum = 0.8 if run == "sgdw" else 0.9
        assert record.groups[0].values["momentum"] == pytest.approx(momentum)
        assert record.groups[0].values["nesterov"] is (run in ("sgd", "tf_sgd"))
        assert "divided by -lr" in snapshot.scalars["conversion"]


@pytest.mark.parametrize(("run", "file"), WHOLE)
def test_weight_decay_by_group(run: str, file: str) -> None:
    """L2(0.01) on conv_a alone adds 2 * 0.01 * w to its gradient; `weight_decay` is decoupled."""
    record = open_snapshot(GOLDEN / run / file).optimizer
    assert record is not None
    by_name = {n: g.values.get("weight_decay") for g in record.groups for n in g.names or ()}
    assert len(by_name) == 11
    decoupled = {"adamw": 0.02, "tf_adam": 0.02, "sgdw": 1e-3}.get(run)
    # Both kinds on one weight obey neither law: the decay is not given.
    conv_a = None if decoupled else pytest.approx(0.02, rel=1e-6)
    assert by_name.pop("conv_a.weight") == conv_a
    assert set(by_name.values()) == {decoupled or 0.0}
    conversion = open_snapshot(GOLDEN / run / file).scalars["conversion"]
    assert ("exclude_from_weight_decay" in conversion) is bool(decoupled)
    assert record.groups[0].values["decoupled_weight_decay"] is bool(decoupled)


@pytest.mark.parametrize(("run", "file"), WEIGHTS)
def test_weights_alone_find_their_slots_by_order_and_shape(run: str, file: str) -> None:
    snapshot = open_snapshot(GOLDEN / run / file)
    # No description of the model: gamma and beta are not told apart where there is one of them.
    assert _check(snapshot, run, file, {"norm_b.bias": "norm_b.gamma_or_beta"}) == (
        22 if run == "adam" else 11
    )
    record = snapshot.optimizer
    assert record is not None and record.name == run
    assert "weight_decay" not in record.groups[0].values


@pytest.mark.parametrize("file", ["model-2.keras", "model-2.h5"])
def test_mixed_precision(file: str) -> None:
    """The optimizer that scales the loss counts nothing itself and has a rate of 0."""
    snapshot = open_snapshot(GOLDEN / "mixed" / file)
    facts, _ = _said("mixed", file)
    assert snapshot.step == facts["iterations"] == 2
    assert _check(snapshot, "mixed", file) == 11
    assert snapshot.optimizer is not None
    assert snapshot.optimizer.groups[0].values["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize("file", ["model-2.keras", "w-2.weights.h5"])
def test_a_model_written_as_a_class(file: str) -> None:
    """Its file names groups by attributes and describes no layer."""
    snapshot = open_snapshot(GOLDEN / "written" / file)
    assert _check(snapshot, "written", file) == 8
    assert {n: r.shape for n, r in snapshot.tensors.items() if len(r.shape) > 1} == {
        "conv_a.weight": (4, 2, 3, 2), "head_a.weight": (4, 4), "head_b.weight": (3, 4),
    }  # fmt: skip
    assert snapshot.optimizer is not None and snapshot.network is None
    # Regularisers are not described, so no decay is claimed.
    assert all("weight_decay" not in g.values for g in snapshot.optimizer.groups)


@pytest.mark.parametrize("file", ["model-2.keras", "w-2.weights.h5"])
def test_averages_beside_the_moments(file: str) -> None:
    snapshot = open_snapshot(GOLDEN / "averaged" / file)
    record = snapshot.optimizer
    if file.endswith(".h5"):  # nothing says that there are averages among the buffers
        assert record is not None and not record.slots
        assert "unmapped: 44 buffers of adam for 11 weights" in snapshot.scalars["conversion"]
        return
    assert _check(snapshot, "averaged", file) == 22
    assert record is not None and record.groups[0].values["amsgrad"] is True
    assert all("max_second_moment" in held for held in record.slots.values())


def test_weights_of_tf_keras_name_neither_layers_nor_optimizer() -> None:
    snapshot = open_snapshot(GOLDEN / "tf_sgd" / "w-5.weights.h5")
    _, arrays = _said("tf_sgd", "w-5.weights.h5")
    assert snapshot.step == 5 and len(snapshot.tensors) == 15
    kernel = load(snapshot.tensors["conv2d.weight"]).numpy()
    assert np.array_equal(kernel, arrays["conv_a|kernel"].transpose(3, 2, 0, 1))
    assert snapshot.optimizer is None
    assert "unmapped: 11 buffers of an unknown optimizer" in snapshot.scalars["conversion"]


def test_legacy_weights() -> None:
    snapshot = open_snapshot(GOLDEN / "tf_legacy" / "legacy_weights-3.h5")
    facts, arrays = _said("tf_legacy", "legacy_weights-3.h5")
    assert snapshot.step == 3 and "name" in snapshot.step_source and snapshot.optimizer is None
    for meaning in facts["meaning"]:
        if meaning["slot"] is None:
            name = f"{meaning['layer']}.{LEAVES.get(meaning['variable'], meaning['variable'])}"
            wanted = _as_torch(meaning["layer"], "", arrays[meaning["key"]])
            assert np.array_equal(load(snapshot.tensors[name]).numpy(), wanted)


@pytest.mark.parametrize("files", ["*.keras", "w-*.h5"])
def test_a_run(tmp_path: Path, files: str) -> None:
    for file in (GOLDEN / "sgd").glob(files):
        shutil.copy(file, tmp_path)
    shutil.copy(GOLDEN / "sgd" / "model-3.keras", tmp_path / "half.keras.tmp")
    series = open_series(tmp_path)
    assert series.steps == (3, 6)
    assert [(s.file, s.reason.value) for s in series.skipped] == [("half.keras.tmp", "unfinished")]
    hyper = resolve_hyper_parameters(series, DeclaredHyperParameters())
    assert hyper.optimizer.kind == OptimizerKind.SGD
    if files == "*.keras":
        assert hyper.optimizer.momentum == 0.9 and hyper.optimizer.nesterov
        group = hyper.group_of("conv_a.weight")
        assert group is not None and group.weight_decay == 0.02
        assert {round(s.lr, 6) for s in hyper.schedule} <= {0.1, 0.01}


def test_the_rule_of_adam_with_decoupled_decay(tmp_path: Path) -> None:
    for run in ("adamw", "sgdw"):
        folder = tmp_path / run
        folder.mkdir()
        shutil.copy(GOLDEN / run / "model-3.keras", folder / "a.keras")
        series = open_series(folder, minimum=1)
        hyper = resolve_hyper_parameters(series, DeclaredHyperParameters())
        kind = OptimizerKind.ADAMW if run == "adamw" else OptimizerKind.SGD
        assert hyper.optimizer.kind == kind and hyper.optimizer.decoupled is True


def test_files_that_are_not_keras(tmp_path: Path) -> None:
    hostile = GOLDEN.parent / "hdf5" / "hostile_soft_link.h5"
    assert hostile.exists()
    path = tmp_path / "a.keras"
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(SnapshotUnsupportedError, match=r"model\.weights\.h5"):
        open_snapshot(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", b"\0" * 5000)
    with pytest.raises(SnapshotUnsupportedError, match="compressed"):
        open_snapshot(path)


@pytest.mark.parametrize(
    ("kind", "config", "step", "rate"),
    [
        # Values of keras.optimizers.schedules 3.15.1 at that step, as it printed them.
        ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "alpha": 0.0}, 5, 0.05),
        ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5,
                              "staircase": True}, 25, 0.025),
        ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5,
                              "staircase": False}, 20, 0.05),
        ("PiecewiseConstantDecay", {"boundaries": [10, 20], "values": [1.0, 0.5, 0.1]}, 10, 1.0),
        ("PiecewiseConstantDecay", {"boundaries": [10, 20], "values": [1.0, 0.5, 0.1]}, 11, 0.5),
        ("PiecewiseConstantDecay", {"boundaries": [10, 20], "values": [1.0, 0.5, 0.1]}, 99, 0.1),
        ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "power": 1.0,
                             "end_learning_rate": 0.0001, "cycle": False}, 5, 0.05005),
        ("CosineDecay", {"initial_learning_rate": 0.0, "decay_steps": 10, "alpha": 0.1,
                         "warmup_target": 1.0, "warmup_steps": 4}, 2, 0.5),
        ("CosineDecay", {"initial_learning_rate": 0.0, "decay_steps": 10, "alpha": 0.1,
                         "warmup_target": 1.0, "warmup_steps": 4}, 9, 0.55),
        ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 10}, 5, None),
        ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 10,
                             "cycle": True}, 5, None),
        ("ExponentialDecay", {"initial_learning_rate": -1.0, "decay_steps": 2,
                              "decay_rate": -2.0}, 1, None),
        ("ExponentialDecay", {"initial_learning_rate": 1.0, "decay_steps": 1,
                              "decay_rate": 1e300}, 9, None),
    ],
)  # fmt: skip
def test_schedules(kind: str, config: dict[str, Any], step: int, rate: float | None) -> None:
    found = scheduled_rate({"class_name": kind, "config": config}, step)
    assert found == (None if rate is None else pytest.approx(rate, rel=1e-6))


@pytest.mark.parametrize(
    ("kind", "group"),
    [("Conv2D", "conv2d"), ("BatchNormalization", "batch_normalization"), ("ReLU", "re_lu"),
     ("DepthwiseConv2D", "depthwise_conv2d"),
     ("GlobalAveragePooling2D", "global_average_pooling2d"),
     ("LSTM", "lstm"), ("MultiHeadAttention", "multi_head_attention")],
)  # fmt: skip
def test_names_of_groups(kind: str, group: str) -> None:
    assert snake_case(kind) == group


@pytest.mark.parametrize(
    ("run", "file"),
    [("tf_sgd", "ckpt-3"), ("tf_sgd", "saved_3"), ("tf_legacy", "ckpt-3"),
     ("tf_legacy_adam", "ckpt-3")],
)  # fmt: skip
def test_tensorflow_checkpoints_of_tf_keras(run: str, file: str) -> None:
    name = file if file.startswith("saved") else f"{file}.index"
    snapshot = open_snapshot(GOLDEN / run / name)
    assert snapshot.step == 3 and "iteration" in snapshot.step_source
    assert snapshot.format == ("tensorflow-saved-model" if name == file else "tensorflow")
    said = "ckpt-3" if file.startswith("saved") else file
    assert _check(snapshot, run, said) == (22 if "adam" in run else 11)
    record = snapshot.optimizer
    assert record is not None and record.name == ("adam" if "adam" in run else "sgd")


def test_a_run_of_saved_models(tmp_path: Path) -> None:
    for step in (3, 5):
        shutil.copytree(GOLDEN / "tf_sgd" / "saved_3", tmp_path / f"model_{step}")
    series = open_series(tmp_path, minimum=1)
    assert len(series.snapshots) == 1, "one folder is one checkpoint"
    assert {s.reason.value for s in series.skipped} == {"duplicate_step"}
    (tmp_path / "model_3" / "variables" / "variables.index").write_bytes(b"\0" * 100)
    with pytest.raises(SnapshotUnsupportedError, match="no TensorFlow checkpoint"):
        open_snapshot(tmp_path / "model_3")


@pytest.mark.parametrize(
    ("name", "epoch"),
    [("weights.05-0.35.h5", 5), ("model.12-1.07.hdf5", 12), ("w_3-0.100.keras", 3)],
)
def test_names_of_model_checkpoint(name: str, epoch: int) -> None:
    assert position_of_name(name) == NamePosition(epoch=epoch)


def test_a_run_of_weights_by_epoch(tmp_path: Path) -> None:
    """The layout before Keras 3 without the optimizer: nothing inside says when."""
    for epoch in (1, 2, 3):
        source = GOLDEN / "tf_legacy" / "legacy_weights-3.h5"
        shutil.copy(source, tmp_path / f"weights.{epoch:02d}-0.{9 - epoch}1.hdf5")
    series = open_series(tmp_path)
    assert series.axis == "epochs" and series.steps == (1, 2, 3)
    assert open_series(tmp_path, steps_per_epoch=10).steps == (10, 20, 30)
