"""PaddlePaddle, MegEngine and MXNet: files of the frameworks (MegEngine: of its layout)."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotTruncatedError,
    SnapshotUnsupportedError,
)
from smdlens.motion.tensors import load
from smdlens.snapshots import open_series, open_snapshot
from smdlens.snapshots.assemble import NoWeightsError
from smdlens.snapshots.readers import look, read_checkpoint, reader_for

GOLDEN = Path(__file__).parent.parent / "golden"
RUNS = GOLDEN / "one_network"
STEPS = (40, 80, 120, 160, 161, 200)


def _bare(name: str) -> str:
    """Gluon puts the block's own name in front."""
    return name.removeprefix("net_")


@pytest.mark.parametrize(
    ("kind", "slots"),
    [("paddle", 8), ("paddle_one_file", 8), ("paddle_parts", 0), ("megengine_layout", 8),
     ("mxnet_gluon", 8), ("mxnet_module", 8)],
)  # fmt: skip
def test_every_tensor_bit_for_bit(kind: str, slots: int) -> None:
    series = open_series(RUNS / kind)
    assert series.steps == STEPS
    with np.load(RUNS / "reference.npz") as reference:
        for snapshot in series.snapshots:
            weights = f"{snapshot.step}/weights/"
            assert {weights + _bare(n) for n in snapshot.tensors} == {
                k for k in reference.files if k.startswith(weights)
            }
            for name, ref in snapshot.tensors.items():
                assert np.array_equal(load(ref).numpy(), reference[weights + _bare(name)]), name
            record = snapshot.optimizer
            held = record.slots if record is not None else {}
            assert len(held) == slots
            for name, found in held.items():
                momentum = load(found["momentum"]).numpy()
                array = reference[f"{snapshot.step}/momentum/{_bare(name)}"]
                if kind.startswith("mxnet"):  # divided by minus the rate: rounded once more
                    assert np.allclose(momentum, array, rtol=3e-7, atol=0)
                else:
                    assert np.array_equal(momentum, array)


def test_settings_of_each() -> None:
    def groups(path: str) -> list[dict[str, Any]]:
        record = open_snapshot(RUNS / path).optimizer
        assert record is not None
        return [dict(group.values) for group in record.groups]

    for step, rate in ((40, 0.0625), (200, 0.015625)):
        assert groups(f"paddle/model_{step}.pdparams") == [{"lr": rate}]
        sgd = {"lr": rate, "momentum": 0.9, "weight_decay": 5e-3}
        assert groups(f"megengine_layout/checkpoint_{step}.pkl") == [sgd]
        sgd |= {"dampening": 0.0, "nesterov": False}
        assert groups(f"mxnet_gluon/net_{step}.params") == [sgd]
        assert groups(f"mxnet_module/net-{step // 20:04d}.params") == [sgd]
    record = open_snapshot(RUNS / "mxnet_module/net-0002.params").optimizer
    assert record is not None and record.name == "SGD"
    assert record.slots["head.bias"]["momentum"].scale == -16.0


def test_adamw_of_paddle_and_bfloat16() -> None:
    snapshot = open_snapshot(GOLDEN / "paddle" / "epoch_3.pdparams")
    assert snapshot.epoch == 3 and snapshot.optimizer is not None
    half = open_snapshot(GOLDEN / "paddle" / "half_4.pdparams")
    with np.load(GOLDEN / "paddle" / "expected.npz") as expected:

        def check(ours: Any, key: str, linear: bool) -> None:
            array = expected[key].T if linear else expected[key]
            assert np.array_equal(load(ours).float().numpy(), array), key

        for name, ref in snapshot.tensors.items():
            linear = name in ("1.weight", "3.weight")
            check(ref, f"weights/{name}", linear)
            check(half.tensors[name], f"half/{name}", linear)
            slots = snapshot.optimizer.slots[name]
            check(slots["first_moment"], f"moment1/{name}", linear)
            check(slots["second_moment"], f"moment2/{name}", linear)
    assert half.tensors["0.weight"].dtype == "bfloat16"
    # An embedding is stored (number, size) everywhere; a square linear layer is told by its name.
    assert snapshot.tensors["0.weight"].strides is None
    assert snapshot.tensors["3.weight"].strides == (1, 6)


def _dump(path: Path, value: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def test_float32_masters_of_paddle(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    master = draw.normal(size=(3, 4)).astype(np.float32)
    table = {"fc.weight": "linear_0.w_0"}
    bits = (master.view(np.uint32) >> 16).astype(np.uint16)
    _dump(tmp_path / "m_5.pdparams", {"fc.weight": bits, "StructuredToParameterName@@": table})
    slots = {"linear_0.w_0_fp32_master_0_moment1_0": master / 2}
    _dump(tmp_path / "m_5.pdopt", {"master_weights": {"linear_0.w_0": master}, **slots})
    snapshot = open_snapshot(tmp_path / "m_5.pdparams")
    assert np.array_equal(load(snapshot.tensors["fc.weight"]).numpy(), master.T)
    assert "master" in snapshot.scalars["weights_source"] and snapshot.optimizer is not None
    first = load(snapshot.optimizer.slots["fc.weight"]["first_moment"]).numpy()
    assert np.array_equal(first, master.T / 2)


def test_parts_of_paddle_must_fit(tmp_path: Path) -> None:
    part = np.zeros(6, np.float32)
    for shape, slices in (((4, 4), ["w@@.0", "w@@.1"]), ((2, 3), ["w@@.0"]), ((12,), "w@@.0")):
        info = {"w": {"OriginShape": shape, "slices": slices}}
        content = {"w@@.0": part, "w@@.1": part, "UnpackBigParamInfor@@": info}
        path = _dump(tmp_path / "m_1.pdparams", content)
        if shape == (2, 3):
            assert open_snapshot(path).tensors["w"].shape == (2, 3)
        else:
            with pytest.raises(SnapshotCorruptError, match="do not make up its shape"):
                open_snapshot(path)


class _Attack:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/smdlens_was_here",)


def test_attacks_in_plain_pickles_stay_inert(tmp_path: Path) -> None:
    marker = Path("/tmp/smdlens_was_here")
    content = {"w": np.zeros((4, 4), np.float32), "a": _Attack(), "StructuredToParameterName@@": {}}
    snapshot = open_snapshot(_dump(tmp_path / "m_1.pdparams", content))
    assert set(snapshot.tensors) == {"w"} and not marker.exists()
    shutil.copy(RUNS / "mxnet_gluon" / "net_40.params", tmp_path / "net_1.params")
    _dump(tmp_path / "net_1.states", ({0: _Attack()}, _Attack()))
    open_snapshot(tmp_path / "net_1.params")
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols(tmp_path: Path, protocol: int) -> None:
    draw = np.random.default_rng(0)
    arrays = {"a.weight": draw.normal(size=(40, 5)), "f": np.asfortranarray(np.ones((3, 4), "f4"))}
    path = _dump(tmp_path / "w_3.pkl", {**arrays, "lr": np.float64(0.5), "step": 3}, protocol)
    snapshot = open_snapshot(path)
    assert snapshot.step == 3 and snapshot.scalars["lr"] == 0.5
    for name, array in arrays.items():
        assert np.array_equal(load(snapshot.tensors[name]).numpy(), array)


def test_no_framework_is_imported() -> None:
    files = ("mlx_safetensors/model_40.safetensors", "mlx_gguf/model_40.gguf",
             "paddle/model_40.pdparams", "megengine_layout/checkpoint_40.pkl",
             "mxnet_module/net-0002.params", "dcp_hf_2/step-40")  # fmt: skip
    code = (
        "import sys; from smdlens.snapshots import open_snapshot\n"
        f"for path in {[str(RUNS / f) for f in files]!r}: open_snapshot(path)\n"
        "names = {'mlx', 'gguf', 'paddle', 'megengine', 'mxnet', 'torch', 'numpy', 'pickle'}\n"
        "print(sorted(names & set(sys.modules) - BEFORE))"
    )
    code = "import sys; BEFORE = set(sys.modules)\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    for number, value in enumerate(([1, 2], "text", np.zeros(3), {1, 2})):
        assert reader_for(look(_dump(tmp_path / f"{number}.pkl", value))) is None
    with pytest.raises(NoWeightsError):
        open_snapshot(_dump(tmp_path / "vocabulary.pkl", {"a": 1, "b": [2] * 40}))
    with pytest.raises(SnapshotUnsupportedError, match="big-endian"):
        open_snapshot(_dump(tmp_path / "big.pkl", {"w": np.zeros((4, 4), ">f4")}))
    path = _dump(tmp_path / "long.pkl", {"w": np.zeros((4, 4), "f4")})
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(SnapshotCorruptError, match="bytes follow"):
        open_snapshot(path)


def test_the_bytes_of_a_large_pickle_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w_1.pkl"
    head = pickle.dumps({"w": np.zeros((8, 16), np.float32)}, 4)
    at = head.index(b"B\x00\x02\x00\x00")
    huge = 6 << 30  # a hole: no disk is used
    shape = head.replace(
        b"K\x08K\x10\x86", b"\x8a\x05" + struct.pack("<q", huge // 64)[:5] + b"K\x10\x86"
    )
    at = shape.index(b"B\x00\x02\x00\x00")
    with path.open("wb") as file:
        file.write(shape[:at] + b"\x8e" + struct.pack("<Q", huge))
        file.seek(huge, os.SEEK_CUR)
        file.write(shape[at + 5 + 512 :])
    tensor = open_snapshot(path).tensors["w"]
    assert tensor.nbytes == huge and tensor.extents[0].offset == at + 9


def test_megengine_tensors_and_shapes(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    state = {
        "conv.weight": draw.normal(size=(1, 5, 1, 1)).astype(np.float32),
        "conv.bias": np.zeros((1, 1, 1, 1), np.float32),
        "bn.weight": np.ones((1, 4, 1, 1), np.float32),
        "bn.running_mean": np.zeros((1, 4, 1, 1), np.float32),
        "group.weight": draw.normal(size=(2, 3, 4, 1, 3)).astype(np.float32),
    }
    snapshot = open_snapshot(_dump(tmp_path / "m_1.pkl", {"state_dict": state}))
    shapes = {name: ref.shape for name, ref in snapshot.tensors.items()}
    assert shapes == {
        "conv.weight": (1, 5, 1, 1), "conv.bias": (1,), "bn.weight": (4,),
        "bn.running_mean": (4,), "group.weight": (6, 4, 1, 3),
    }  # fmt: skip
    group = load(snapshot.tensors["group.weight"]).numpy()
    assert np.array_equal(group, state["group.weight"].reshape(6, 4, 1, 3))


def _record(array: np.ndarray, version: int, code: int = 0, kind: int = 0) -> bytes:
    head = struct.pack("<I", version)
    if version in (0xF993FAC9, 0xF993FACA):
        head += struct.pack("<i", kind)
    form = "I" if version < 100 else "q"
    head += b"" if version < 100 else struct.pack("<I", array.ndim)
    return (
        head
        + struct.pack(f"<{array.ndim}{form}", *array.shape)
        + struct.pack("<iii", 1, 0, code)
        + array.tobytes()
    )


def _mxnet_file(path: Path, records: list[bytes], names: list[str]) -> Path:
    data = struct.pack("<3Q", 0x112, 0, len(records)) + b"".join(records)
    data += struct.pack("<Q", len(names))
    for name in names:
        data += struct.pack("<Q", len(name)) + name.encode()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", [2, 0xF993FAC8, 0xF993FAC9, 0xF993FACA])
def test_every_version_of_an_array_of_mxnet(tmp_path: Path, version: int) -> None:
    array = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float16)
    none = struct.pack("<IiI", 0xF993FAC9, 0, 0)
    path = tmp_path / "net-0007.params"
    _mxnet_file(path, [_record(array, version, 2), none], ["arg:fc_weight", "arg:gone"])
    snapshot = open_snapshot(path)
    assert snapshot.epoch == 7 and set(snapshot.tensors) == {"fc.weight"}
    assert np.array_equal(load(snapshot.tensors["fc.weight"]).numpy(), array)


def test_claims_of_mxnet_are_checked(tmp_path: Path) -> None:
    array = np.ones((2, 2), np.float32)
    good = _record(array, 0xF993FAC9)
    path = tmp_path / "a-0001.params"
    cases: list[tuple[list[bytes], list[str], type[SnapshotError], str]] = [
        ([_record(array, 0xF993FAC9, kind=1)], ["w"], SnapshotUnsupportedError, "sparse"),
        ([_record(array, 0xF993FAC9, 99)], ["w"], SnapshotUnsupportedError, "type 99"),
        ([good, good], ["w", "w"], SnapshotCorruptError, "given twice"),
        ([good], ["w", "v"], SnapshotCorruptError, "2 names for 1"),
        ([struct.pack("<III", 0xF993FAC9, 0, 99)], ["w"], SnapshotCorruptError, "99 dimensions"),
        ([good.replace(b"\2" + bytes(7), b"\2" + bytes(6) + b"\x40", 1)], ["w"],
         SnapshotTruncatedError, "ends before"),
    ]  # fmt: skip
    for records, names, error, message in cases:
        _mxnet_file(path, records, names)
        with pytest.raises(error, match=message):
            open_snapshot(path)
    path.write_bytes(struct.pack("<3Q", 0x112, 0, 1 << 60) + bytes(80))
    with pytest.raises(SnapshotError):
        read_checkpoint(path)
    _mxnet_file(path, [good], ["w"])
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(SnapshotCorruptError, match="behind the last name"):
        open_snapshot(path)


def test_adam_of_mxnet_numbers_the_sorted_names(tmp_path: Path) -> None:
    names = ["n_conv10_weight", "n_conv2_weight"]
    draw = np.random.default_rng(0)
    arrays = {n: draw.normal(size=(2, 2)).astype(np.float32) for n in names}
    records = [_record(arrays[n], 0xF993FAC9) for n in reversed(names)]
    _mxnet_file(tmp_path / "n_1.params", records, list(reversed(names)))

    # The states of the framework itself, with two arrays in place of one for every parameter.
    class NDArray:
        def __init__(self, array: np.ndarray) -> None:
            self.handle = bytearray(_record(array, 0xF993FAC9))

    NDArray.__module__, NDArray.__qualname__ = __name__, "NDArray"
    globals()["NDArray"] = NDArray
    states = {i: (NDArray(arrays[n]), NDArray(arrays[n] ** 2)) for i, n in enumerate(names)}
    _dump(tmp_path / "n_1.states", states)
    del globals()["NDArray"]
    record = open_snapshot(tmp_path / "n_1.params").optimizer
    assert record is not None and set(record.slots) == {"n_conv10.weight", "n_conv2.weight"}
    for name in names:
        first = record.slots[name.replace("_weight", ".weight")]["first_moment"]
        assert np.array_equal(load(first).numpy(), arrays[name])


class SGD:
    """Pickles as MXNet's optimizer does: a class and its attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__ |= attributes


def test_multiples_of_rate_and_decay_of_mxnet(tmp_path: Path) -> None:
    array = np.ones((2, 2), np.float32)
    names = ["fc_weight", "fc_bias"]
    _mxnet_file(tmp_path / "n_1.params", [_record(array, 0xF993FAC9)] * 2, names)
    optimizer = SGD(
        lr=0.5, wd=0.1, momentum=0.9, num_update=7, idx2name=dict(enumerate(names)),
        wd_mult={"fc_bias": 0.0}, lr_mult={1: 2.0},
    )  # fmt: skip
    _dump(tmp_path / "n_1.states", ({0: None, 1: None}, optimizer))
    record = open_snapshot(tmp_path / "n_1.params").optimizer
    assert record is not None and record.name == "SGD"
    found = {g.names: (g.values["lr"], g.values["weight_decay"]) for g in record.groups}
    assert found == {("fc.weight",): (0.5, 0.1), ("fc.bias",): (1.0, 0.0)}
