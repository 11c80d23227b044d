"""Small checkpoints in folders and archives of other kinds, as bytes that get cut and mutated."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from faults_helpers import Target
from onnx import helper, numpy_helper
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)


def _save(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _dcp(folder: Path) -> Path:
    """One tensor cut along both axes, one whole, and a number, from two ranks."""
    path = folder / "step-1"
    path.mkdir()
    files = {"__0_0.distcp": b"", "__1_0.distcp": b""}
    state: dict[str, Any] = {}
    storage: dict[MetadataIndex, _StorageInfo] = {}

    def store(rank: int, index: MetadataIndex, value: Any) -> None:
        name, data = f"__{rank}_0.distcp", _save(value)
        storage[index] = _StorageInfo(name, len(files[name]), len(data))
        files[name] += data

    w = torch.arange(12.0).view(4, 3)
    chunks = []
    for rank, (row, column) in enumerate(((0, 0), (0, 1), (2, 0), (2, 1))):
        part = w[row : row + 2, column : column + 1 + column]
        offsets = torch.Size([row, column])
        chunks.append(ChunkStorageMetadata(offsets, part.shape))
        store(rank % 2, MetadataIndex("model.w", offsets), part.contiguous())
    float32 = TensorProperties(dtype=torch.float32)
    state["model.w"] = TensorStorageMetadata(float32, w.shape, chunks)
    whole = ChunkStorageMetadata(torch.Size([0]), torch.Size([5]))
    state["model.b"] = TensorStorageMetadata(float32, torch.Size([5]), [whole])
    store(0, MetadataIndex("model.b", torch.Size([0])), torch.ones(5))
    state["step"] = BytesStorageMetadata()
    store(1, MetadataIndex("step"), 1)
    for name, data in files.items():
        (path / name).write_bytes(data)
    metadata = Metadata(state, {k: tuple(k.split(".")) for k in state}, storage)
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    return path


def _metadata(folder: Path) -> Target:
    path = _dcp(folder)
    return Target(path, path / ".metadata")


def _slices(folder: Path) -> Target:
    path = _dcp(folder)
    return Target(path, path / "__0_0.distcp", front=4000)


def _zero(folder: Path, stage: int) -> Path:
    path = folder / "global_step1"
    path.mkdir()
    model = {
        "module": {"w": torch.ones(2, 3).bfloat16(), "b": torch.ones(3).bfloat16()},
        "param_shapes": [{"w": torch.Size([2, 3]), "b": torch.Size([3])}],
        "global_steps": 1,
        "dp_world_size": 1,
    }
    prefix = "" if stage < 3 else "zero_pp_rank_0_"
    torch.save(model, path / f"{prefix}mp_rank_00_model_states.pt")
    inner = {"state": {0: {"momentum_buffer": torch.ones(9)}}, "param_groups": [{"lr": 0.1}]}
    state: dict[str, Any] = {"zero_stage": stage, "partition_count": 1}
    if stage < 3:
        state |= {"single_partition_of_fp32_groups": [torch.ones(9)], "base_optimizer_state": inner}
    else:
        state |= {"fp32_flat_groups": [torch.ones(9)], "optimizer_state_dict": inner}
    content = {"optimizer_state_dict": state}
    torch.save(content, path / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    return path


def _zero_optim(folder: Path) -> Target:
    path = _zero(folder, 2)
    return Target(path, path / "zero_pp_rank_0_mp_rank_00_optim_states.pt", back=1500)


def _zero_model(folder: Path) -> Target:
    path = _zero(folder, 3)
    return Target(path, path / "zero_pp_rank_0_mp_rank_00_model_states.pt", back=1500)


def _pt2(folder: Path) -> Target:
    path = folder / "step_1.pt2"
    table = {}
    w = torch.arange(6.0)
    with zipfile.ZipFile(path, "w") as archive:
        for number, shape in enumerate(((2, 3), (6,))):
            strides = [3, 1] if len(shape) == 2 else [1]
            table[f"w{number}"] = {
                "path_name": f"weight_{number}",
                "is_param": True,
                "use_pickle": False,
                "tensor_meta": {
                    "dtype": 7,
                    "sizes": [{"as_int": n} for n in shape],
                    "strides": [{"as_int": n} for n in strides],
                    "storage_offset": {"as_int": 0},
                },
            }
            archive.writestr(f"m/data/weights/weight_{number}", w.numpy().tobytes())
        text = json.dumps({"config": table})
        archive.writestr("m/data/weights/model_weights_config.json", text)
    return Target(path, path, back=600)


_GOLDEN = Path(__file__).parent.parent / "golden"


def _flax(folder: Path) -> Target:
    path = folder / "checkpoint_2"
    shutil.copy(_GOLDEN / "flax" / "chunked_2", path)
    return Target(path, path, front=path.stat().st_size)


def _tensorflow(folder: Path, suffix: str) -> Target:
    for file in (_GOLDEN / "tensorflow" / "adam").glob("ckpt-2.[di]*"):
        shutil.copy(file, folder)
    opened = folder / "ckpt-2.index"
    return Target(opened, folder / f"ckpt-2.{suffix}", front=1600)


def _tensorflow_index(folder: Path) -> Target:
    return _tensorflow(folder, "index")


def _tensorflow_data(folder: Path) -> Target:
    target = _tensorflow(folder, "data-00000-of-00001")
    # The object graph lies behind the variables.
    return Target(target.opened, target.broken, front=64, back=3700)


def _npz(folder: Path) -> Target:
    path = folder / "weights_1.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in (("w", np.ones((4, 3), np.float32)), ("b", np.ones(3))):
            file = io.BytesIO()
            np.save(file, array)
            archive.writestr(f"{name}.npy", file.getvalue())
    return Target(path, path, back=300)


def _onnx(folder: Path) -> Target:
    path = folder / "model_1.onnx"
    names = ("conv.weight", "conv.bias")
    tensors = [numpy_helper.from_array(np.ones((3, 2), np.float32), n) for n in names]
    nodes = [helper.make_node("Conv", ["x", *names], ["y"])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [], tensors)), path)
    return Target(path, path)


def gguf_text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf_bytes(version: int = 3, alignment: int = 32) -> bytes:
    """A file with a setting of several kinds and three tensors, the last one up to the end."""
    settings = [
        gguf_text("general.alignment") + struct.pack("<II", 4, alignment),
        gguf_text("general.name") + struct.pack("<I", 8) + gguf_text("small"),
        gguf_text("numbers") + struct.pack("<IIQ2f", 9, 6, 2, 1.0, 2.0),
        gguf_text("words") + struct.pack("<IIQ", 9, 8, 70) + gguf_text("w") * 70,
        gguf_text("flag") + struct.pack("<IB", 7, 1),
    ]
    tensors = [
        gguf_text("conv.weight") + struct.pack("<I4QIQ", 4, 2, 3, 2, 4, 0, 0),
        gguf_text("half") + struct.pack("<IQIQ", 1, 6, 1, 192),
        gguf_text("rounded.weight") + struct.pack("<I2QIQ", 2, 32, 2, 8, 224),
    ]
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(settings))
    head += b"".join(settings) + b"".join(tensors)
    head += b"\0" * (-len(head) % alignment)
    data = np.arange(48, dtype=np.float32).tobytes() + b"\1" * 12 + b"\0" * 20 + b"\2" * 68
    return head + data


def _gguf(folder: Path) -> Target:
    path = folder / "model_1.gguf"
    path.write_bytes(gguf_bytes())
    return Target(path, path)


def _npy(folder: Path) -> Target:
    path = folder / "weights_1.npy"
    np.save(path, np.ones((5, 6), np.float32))
    return Target(path, path)


def _mlx(folder: Path) -> Target:
    for name in ("model", "optimizer"):
        source = _GOLDEN / "one_network" / "mlx_safetensors" / f"{name}_40.safetensors"
        shutil.copy(source, folder)
    return Target(folder / "model_40.safetensors", folder / "optimizer_40.safetensors")


def _one_network(folder: Path, kind: str, opened: str, broken: str) -> Target:
    for file in (_GOLDEN / "one_network" / kind).iterdir():
        shutil.copy(file, folder)
    return Target(folder / opened, folder / broken)


def _paddle(folder: Path) -> Target:
    return _one_network(folder, "paddle_parts", "model_40.pdparams", "model_40.pdparams")


def _paddle_optimizer(folder: Path) -> Target:
    return _one_network(folder, "paddle", "model_40.pdparams", "model_40.pdopt")


def _megengine(folder: Path) -> Target:
    return _one_network(folder, "megengine_layout", "checkpoint_40.pkl", "checkpoint_40.pkl")


def _mxnet(folder: Path) -> Target:
    return _one_network(folder, "mxnet_module", "net-0002.params", "net-0002.params")


def _mxnet_states(folder: Path) -> Target:
    return _one_network(folder, "mxnet_module", "net-0002.params", "net-0002.states")


def _dcp_safetensors(folder: Path) -> Target:
    path = folder / "step-40"
    shutil.copytree(_GOLDEN / "one_network" / "dcp_hf_2" / "step-40", path)
    return Target(path, path / "shard-00002-model-00001-of-00001.safetensors", front=1800)


def _megatron_optimizer(folder: Path) -> Target:
    place = folder / "iter_0000001" / "mp_rank_00"
    place.mkdir(parents=True)
    weights = {"w": torch.arange(6.0).view(2, 3), "b": torch.arange(3.0)}
    main = torch.cat([weights["b"], torch.zeros(61), weights["w"].flatten()])
    buffers = {"param": main, "exp_avg": main / 2, "numel_unpadded": 70}
    torch.save({0: {(torch.float32, torch.float32): buffers}}, place / "distrib_optim.pt")
    group = {"lr": 0.1, "step": 3}
    content = {"model": weights, "optimizer": {"optimizer": {"param_groups": [group]}}}
    torch.save({**content, "iteration": 1}, place / "model_optim_rng.pt")
    return Target(place.parent, place / "distrib_optim.pt", front=1500, back=1500)


def _pipeline(folder: Path) -> Target:
    path = folder / "global_step1"
    path.mkdir()
    for layer in (0, 2):
        torch.save(
            {"weight": torch.ones(2, 3) * layer}, path / f"layer_{layer:02d}-model_states.pt"
        )
    slots = {0: {"momentum_buffer": torch.ones(2, 3)}}
    for stage in (0, 1):
        optimizer = {"state": slots, "param_groups": [{"lr": 0.1, "params": [0]}]}
        content = {"module": None, "optimizer": optimizer, "global_steps": 1}
        torch.save(content, path / f"mp_rank_{stage:02d}_model_states.pt")
    return Target(path, path / "mp_rank_01_model_states.pt", front=1000, back=1200)


SHARDED = {
    "deepspeed-pipeline": _pipeline,
    "megatron-optimizer": _megatron_optimizer,
    "dcp-safetensors": _dcp_safetensors,
    "paddle": _paddle,
    "paddle-optimizer": _paddle_optimizer,
    "megengine": _megengine,
    "mxnet": _mxnet,
    "mxnet-states": _mxnet_states,
    "gguf": _gguf,
    "numpy-npy": _npy,
    "mlx-optimizer": _mlx,
    "onnx": _onnx,
    "flax-msgpack": _flax,
    "tensorflow-index": _tensorflow_index,
    "tensorflow-data": _tensorflow_data,
    "numpy-npz": _npz,
    "torch-distributed": _metadata,
    "torch-distributed-slices": _slices,
    "deepspeed-optimizer": _zero_optim,
    "deepspeed-model": _zero_model,
    "torch-export": _pt2,
}
