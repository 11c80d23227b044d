"""Layouts that frameworks write beside their plain ones, held against their own reading.

What lies in tests/golden was made by the scripts beside it, with every value drawn at random.
"""

from __future__ import annotations

import pickle
import random
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from framework_truth import assert_held, expected

import smdlens
from smdlens.containers.packed import unpack
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotTruncatedError,
    SnapshotUnsupportedError,
)
from smdlens.snapshots.discover import discover
from smdlens.snapshots.keras_slots import by_name
from smdlens.snapshots.keras_variables import KerasVariable
from smdlens.snapshots.records import Extent, TensorRef
from smdlens.snapshots.tensorflow_slices import slice_key

GOLDEN = Path(__file__).parents[1] / "golden"
KERAS, TENSORFLOW = GOLDEN / "keras_layouts", GOLDEN / "tensorflow_layouts"
JAX, PADDLE = GOLDEN / "jax_layouts", GOLDEN / "paddle_layouts"
ADAMW = {"lr": 0.125}


def held(file: Path, truth: str) -> smdlens.Checkpoint:
    checkpoint = smdlens.open_checkpoint(file)
    assert_held(checkpoint, expected(file.parent / f"{truth}.expected.npz"))
    return checkpoint


@pytest.mark.parametrize(
    ("file", "truth", "settings"),
    [
        ("nested.keras", "nested.keras", ADAMW | {"weight_decay": 0.0625}),
        ("legacy_nested.keras", "legacy_nested.keras", {"lr": 0.25, "momentum": 0.5}),
        ("written_ckpt.index", "written_ckpt", ADAMW),
        ("written.h5", "written.h5", {"lr": 0.25, "momentum": 0.5}),
        ("bfloat16.h5", "bfloat16.h5", ADAMW),
        ("shards.weights.json", "shards.weights.json", ADAMW),
        ("plain.weights.h5", "plain.weights.h5", ADAMW),
        ("legacy_plain_ckpt.index", "legacy_plain_ckpt", ADAMW),
    ],
)
def test_layouts_of_keras(file, truth, settings):
    checkpoint = held(KERAS / file, truth)
    assert checkpoint.step == 7
    (group,) = checkpoint.param_groups
    assert {key: group[key] for key in settings} == settings


def test_a_model_exported_by_keras_has_every_variable_once():
    # Its program would hold every variable twice, under its number in a set as well.
    assert "sequential.dense_1.weight" in held(KERAS / "exported", "exported").tensors


def test_layers_of_a_class_are_named_by_their_place():
    names = smdlens.open_checkpoint(KERAS / "written_ckpt.index").tensors
    assert {"model.one.norm.weight", "model.two.second.bias"} <= names.keys()


@pytest.mark.parametrize("name", ["momentum", "rmsprop"])
def test_partitions_and_names_of_tensorflow_1(name):
    checkpoint = held(TENSORFLOW / name / "model.ckpt-4321.index", "model.ckpt-4321")
    assert checkpoint.step == 4321
    assert checkpoint.tensors["columns.weight"][0] == (70, 3)
    assert checkpoint.tensors["conv.weight"][0] == (5, 4, 3, 2)
    assert checkpoint.tensors["dw.depthwise_weights"][0] == (5, 2, 3, 3)


def test_settings_of_optax_by_part_of_the_network():
    checkpoint = held(JAX / "parts" / "7", "../parts")
    assert checkpoint.step == 7
    decayed, plain = checkpoint.param_groups
    assert decayed["tensors"] == ("conv.weight", "head.bias", "head.weight")
    assert (decayed["lr"], decayed["weight_decay"]) == (0.125, 0.0625)
    assert plain == {"lr": 0.25, "tensors": ("norm.bias", "norm.weight")}


def test_modules_of_nnx_beside_their_optimizer():
    checkpoint = held(JAX / "modules" / "7", "../modules")
    assert checkpoint.tensors["conv.weight"][0] == (3, 2, 2, 2)
    assert "optax saves no kind" in checkpoint.snapshot.scalars["conversion"]


def test_a_state_without_any_name_of_flax():
    checkpoint = held(JAX / "haiku.msgpack", "haiku.msgpack")
    assert checkpoint.tensors["linear.weight"][0] == (2, 3)
    assert checkpoint.snapshot.optimizer.name == "sgd"
    (group,) = checkpoint.param_groups
    # A penalty in the loss decays as well: no decay among the settings is not a decay of 0.
    assert group == {"lr": 0.25, "momentum": 0.5, "tensors": group["tensors"]}
    assert "optax saves no kind" in checkpoint.snapshot.scalars["conversion"]


@pytest.mark.parametrize("name", ["numbered_7", "blosc_7"])
def test_manifests_and_codecs_of_tensorstore(name):
    checkpoint = held(GOLDEN / "tensorstore" / name, name)
    assert checkpoint.format == "orbax" and checkpoint.step == 7


def test_a_codec_of_blosc_that_is_not_read():
    checkpoint = smdlens.open_checkpoint(GOLDEN / "tensorstore" / "snappy_7")
    with pytest.raises(SnapshotUnsupportedError, match="Blosc with snappy"):
        checkpoint.read("snappy_1.weight")


def test_numbered_manifests_that_are_missing(tmp_path):
    folder = tmp_path / "numbered_7"
    shutil.copytree(GOLDEN / "tensorstore" / "numbered_7", folder)
    for manifest in folder.glob("manifest.0*"):
        manifest.unlink()
    with pytest.raises(SnapshotTruncatedError, match="numbered manifests"):
        smdlens.open_checkpoint(folder)


def test_mutated_chunks_of_blosc_are_unpacked_or_refused():
    draw = random.Random(0)
    refused = 0
    for chunk in (GOLDEN / "tensorstore" / "blosc_7").glob("*/0.0"):
        data = chunk.read_bytes()
        for _ in range(300):
            mutant = bytearray(data)
            for _ in range(draw.randint(1, 3)):
                mutant[draw.randrange(min(len(mutant), draw.choice((64, 3000))))] = draw.randrange(
                    256
                )
            some = bytes(mutant[: draw.choice((len(mutant), draw.randrange(len(mutant))))])
            try:
                assert len(unpack(some, ("blosc",), 2880, "file")) == 2880
            except SnapshotError:
                refused += 1
    assert refused > 600


@pytest.mark.parametrize("name", ["together", "items"])
def test_older_versions_of_orbax(name):
    checkpoint = held(GOLDEN / "orbax_older" / name / "7", f"../{name}")
    assert checkpoint.format == "orbax" and checkpoint.step == 7
    assert checkpoint.tensors["conv.weight"][0] == (4, 3, 2, 2)
    if name == "items":
        assert checkpoint.snapshot.scalars["notes"] == {"seed": 1}


def test_steps_of_older_versions_are_a_run(tmp_path):
    for step in ("7", "8"):
        shutil.copytree(GOLDEN / "orbax_older" / "items" / "7", tmp_path / "100" / step)
    found = discover([tmp_path / "100"])
    assert [ref.label for ref in found.refs] == ["7", "8"]


@pytest.mark.parametrize("name", ["protocol_2", "rmsprop_one_file"])
def test_pickles_of_paddle(name):
    checkpoint = held(PADDLE / f"{name}.pdparams", name)
    assert checkpoint.step == (7 if name == "rmsprop_one_file" else 2)
    assert checkpoint.tensors["1.running_var"] == ((3,), "float32")


@pytest.mark.parametrize(("name", "layer"), [("pir", "conv2d_{}.weight"), ("program", "0.weight")])
def test_models_exported_by_paddle(name, layer):
    checkpoint = held(PADDLE / f"{name}.pdiparams", name)
    assert any(re.fullmatch(layer.format(r"\d+"), tensor) for tensor in checkpoint.tensors)
    assert len([n for n in checkpoint.tensors if n.endswith("running_var")]) == 1


def test_an_exported_model_without_its_program(tmp_path):
    shutil.copy(PADDLE / "pir.pdiparams", tmp_path)
    with pytest.raises(SnapshotUnsupportedError, match=r"pir\.json or pir\.pdmodel"):
        smdlens.open_checkpoint(tmp_path / "pir.pdiparams")
    (tmp_path / "pir.json").write_text('{"program": {"regions": []}}')
    with pytest.raises(SnapshotCorruptError, match="no program of PIR"):
        smdlens.open_checkpoint(tmp_path / "pir.pdiparams")


def test_a_program_of_another_model(tmp_path):
    shutil.copy(PADDLE / "pir.pdiparams", tmp_path)
    text = (PADDLE / "pir.json").read_text().replace("[12,12]", "[12,13]", 1)
    (tmp_path / "pir.json").write_text(text)
    with pytest.raises(SnapshotCorruptError, match="not those of the program"):
        smdlens.open_checkpoint(tmp_path / "pir.pdiparams")


def _python_2(data: bytes, shape: int) -> bytes:
    """A dict of one array as Python 2.7 pickles it with protocol 2: bytes are its strings."""
    size = struct.pack("<I", len(data)) if len(data) > 255 else bytes([len(data)])
    string = (b"T" if len(data) > 255 else b"U") + size + data
    dtype = (
        b"cnumpy\ndtype\nU\x02f4K\0K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
    state = b"(K\x01J" + struct.pack("<i", shape) + b"\x85" + dtype + b"\x89" + string + b"tb"
    return b"\x80\x02}(U\x0bconv.weight" + made + state + b"U\x04nameU\x05modelu."


@pytest.mark.parametrize("count", [1, 3, 17, 40, 63, 64, 1000, 5000])
def test_arrays_that_python_2_pickled(tmp_path, count):
    values = np.random.default_rng(count).standard_normal(count).astype("<f4")
    path = tmp_path / "weights.pkl"
    path.write_bytes(_python_2(values.tobytes(), count))
    assert np.array_equal(smdlens.open_checkpoint(path).read("conv.weight").numpy(), values)


@pytest.mark.parametrize("count", [1, 5, 31, 32, 700, 40_000])
def test_arrays_that_python_3_pickled_with_protocol_2(tmp_path, count):
    draw = np.random.default_rng(count)
    values = {f"w{k}.weight": draw.standard_normal((count, 1)).astype("f4") for k in range(3)}
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({**values, "empty": np.zeros((0, 2), "f4")}, protocol=2))
    checkpoint = smdlens.open_checkpoint(path)
    for name, value in values.items():
        assert np.array_equal(checkpoint.read(name).numpy(), value)
    assert checkpoint.read("empty").shape == (0, 2)


def test_text_that_is_no_array(tmp_path):
    """Characters above 255 in place of bytes: found when the tensor is read, and told apart."""
    data = pickle.dumps({"w": np.frombuffer(b"\xe9" * 4000, "f4")}, protocol=2)
    path = tmp_path / "weights.pkl"
    path.write_bytes(data.replace("\xe9".encode() * 2, "\u6f22a".encode(), 1))
    with pytest.raises(SnapshotCorruptError, match="do not unpack"):
        smdlens.open_checkpoint(path).read("w")


@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_of_deepspeed(stage):
    truth = f"../zero_{stage}"
    checkpoint = held(GOLDEN / "deepspeed" / f"zero_{stage}" / "global_step3", truth)
    assert checkpoint.step == 3
    decayed, plain = checkpoint.param_groups
    assert decayed["tensors"] == ("conv.weight", "head.weight")
    assert (decayed["lr"], decayed["betas"]) == (0.125, (0.5, 0.75))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.0625, 0.0)


def test_nesterov_momentum_of_mxnet():
    checkpoint = held(GOLDEN / "mxnet_layouts" / "nag-0003.params", "nag")
    (group,) = checkpoint.param_groups
    settings = {"lr": 0.25, "momentum": 0.5, "nesterov": True, "weight_decay": 0.125}
    assert {key: group[key] for key in settings} == settings


@pytest.mark.parametrize(("file", "name"), [("brain_7.npz", "brain"), ("model_7.gguf", "model")])
def test_mlx_in_other_files(file, name):
    checkpoint = held(GOLDEN / "mlx_layouts" / file, name)
    assert checkpoint.step == 7
    if name == "model":
        assert checkpoint.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    ("number", "code"),
    # tensorflow/core/lib/strings/ordered_code_test.cc has these (SignedNumIncreasing).
    [(0, b"\x80"), (63, b"\xbf"), (64, b"\xc0\x40"), (-1, b"\x7f"), (-64, b"\x40"),
     (-65, b"\x3f\xbf"), (8191, b"\xdf\xff"), (8192, b"\xe0\x20\x00")],
)  # fmt: skip
def test_numbers_in_the_key_of_a_slice(number, code):
    assert slice_key("a", [(number, 0)]) == b"\0a\0\1\1\1" + code + b"\x80"


def test_zeros_and_ones_in_the_name_of_a_slice():
    assert slice_key("a\0b", []) == b"\0a\0\xffb\0\1\0"


def test_a_folder_of_sharded_weights(tmp_path):
    for step in (10, 20):
        index = (KERAS / "shards.weights.json").read_text()
        (tmp_path / f"ckpt_{step}.weights.json").write_text(index.replace("shards", f"ckpt_{step}"))
        for shard in KERAS.glob("shards_*.h5"):
            shutil.copy(shard, tmp_path / shard.name.replace("shards", f"ckpt_{step}"))
    found = discover([tmp_path])
    assert [ref.label for ref in found.refs] == ["ckpt_10.weights.json", "ckpt_20.weights.json"]
    assert not found.skipped


def test_a_shard_that_is_missing_or_cut(tmp_path):
    for file in KERAS.glob("shards*"):
        shutil.copy(file, tmp_path / file.name)
    shard = tmp_path / "shards_00002.weights.h5"
    data = shard.read_bytes()
    for length in range(0, len(data), 97):
        shard.write_bytes(data[:length])
        with pytest.raises(SnapshotError):
            smdlens.open_checkpoint(tmp_path / "shards.weights.json")
    shard.unlink()
    with pytest.raises(SnapshotError, match="shards_00002"):
        smdlens.open_checkpoint(tmp_path / "shards.weights.json")


@pytest.mark.parametrize(
    "index",
    ['{"weight_map": {"/a": []}}', '{"weight_map": {"/a": 3}}', '{"weight_map": {"/a": [[]]}}'],
)
def test_an_impossible_table_of_shards(tmp_path, index):
    (tmp_path / "x.weights.json").write_text(index)
    with pytest.raises(SnapshotCorruptError, match="shards"):
        smdlens.open_checkpoint(tmp_path / "x.weights.json")


def test_a_shard_outside_its_folder(tmp_path):
    inside = tmp_path / "run"
    inside.mkdir()
    shutil.copy(KERAS / "shards_00000.weights.h5", tmp_path / "x.h5")
    (inside / "x.weights.json").write_text('{"weight_map": {"/a": "../x.h5"}}')
    with pytest.raises(SnapshotError, match="outside"):
        smdlens.open_checkpoint(inside / "x.weights.json")


def _variable(name: str, *shape: int) -> KerasVariable:
    ref = TensorRef(name, shape, "float32", (Extent("file", 0, 4),))
    return KerasVariable(tuple(name.split("/")), name, ref, True, "")


def _buffers(scope: str, *shapes: tuple[int, ...]) -> list[tuple[str, TensorRef]]:
    names = ["Variable", *(f"Variable_{n}" for n in range(1, len(shapes)))]
    refs = [TensorRef(n, s, "float32", ()) for n, s in zip(names, shapes, strict=True)]
    counter = TensorRef("", (), "int64", ())
    return [(f"{scope}/iterations", counter), *((f"training/{scope}/{r.name}", r) for r in refs)]


def test_buffers_without_names_by_order_and_shape():
    variables = [_variable("b/kernel", 3, 4), _variable("a/kernel", 4, 5)]
    found = by_name(_buffers("Adam", (3, 4), (4, 5), (3, 4), (4, 5)), variables)
    assert found.kind == "adam"
    slots = [(s.variable, s.name, s.tensor.name) for s in found.slots]
    assert slots == [
        (0, "momentum", "Variable"), (1, "momentum", "Variable_1"),
        (0, "velocity", "Variable_2"), (1, "velocity", "Variable_3"),
    ]  # fmt: skip


def test_buffers_of_keras_1_follow_sorted_names():
    variables = [_variable("b/kernel", 3, 4), _variable("a/kernel", 4, 5)]
    found = by_name(_buffers("SGD", (4, 5), (3, 4)), variables)
    assert [(s.variable, s.tensor.name) for s in found.slots] == [
        (1, "Variable"),
        (0, "Variable_1"),
    ]


@pytest.mark.parametrize("shapes", [[(4, 4), (4, 4)], [(4, 4)], [(4, 4), (4, 5)]])
def test_buffers_without_names_that_nothing_decides(shapes):
    # Two weights of one shape whose names sort otherwise than their layers stand.
    variables = [_variable("b/kernel", 4, 4), _variable("a/kernel", 4, 4)]
    found = by_name(_buffers("SGD", *shapes), variables)
    assert not found.slots
    assert found.note.startswith("unmapped")


def test_two_weights_of_one_flat_name_take_no_buffer():
    variables = [_variable("a_b/c", 2, 2), _variable("a/b_c", 2, 2)]
    buffer = TensorRef("", (2, 2), "float32", ())
    assert not by_name([("sgd/a_b_c_momentum", buffer)], variables).slots


def test_the_first_format_of_tensorflow_is_refused():
    with pytest.raises(SnapshotUnsupportedError, match=r"SaverDef\.V1"):
        smdlens.open_checkpoint(TENSORFLOW / "first_format")
