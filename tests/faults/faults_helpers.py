"""Small checkpoints of every format, as bytes that get cut and mutated."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


@dataclass(frozen=True)
class Target:
    """A checkpoint on disk: what to open, which of its files to break, how much is parsed.

    Attributes:
        opened: Path to open.
        broken: File to cut or mutate.
        front: Bytes at the front that are parsed.
        back: Bytes at the end that are parsed.
    """

    opened: Path
    broken: Path
    front: int = 4096
    back: int = 0


def _content() -> dict[str, Any]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    adam = torch.optim.AdamW(net.parameters(), lr=torch.tensor(1e-3))
    net(torch.randn(2, 3, 5, 5)).sum().backward()
    adam.step()
    return {
        "model": net.state_dict(),
        "optimizer": adam.state_dict(),
        "args": argparse.Namespace(lr=0.1, names=["a", "b"]),
        "step": 1,
    }


def _zip(folder: Path) -> Target:
    path = folder / "ckpt_1.pt"
    torch.save(_content(), path)
    return Target(path, path, back=3000)


def _legacy(folder: Path) -> Target:
    path = folder / "ckpt_1.pt"
    torch.save(_content(), path, _use_new_zipfile_serialization=False)
    return Target(path, path)


def _safetensors(folder: Path) -> Target:
    path = folder / "model-step1.safetensors"
    state = _content()["model"]
    save_file({**state, "wide": torch.zeros(60, 30)}, path, metadata={"step": "1"})
    return Target(path, path, front=800)


class _Key:
    """Stands for a tensor in the pickled object of a torch tar."""

    def __init__(self, number: int) -> None:
        self.number = number


class _TarPickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.number if isinstance(obj, _Key) else None


def _tar(folder: Path) -> Target:
    state = {n: t for n, t in _content()["model"].items() if t.dtype == torch.float32}
    storages, tensors, body = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pickle.dump(len(state), storages, 2)
    pickle.dump(len(state), tensors, 2)
    for number, tensor in enumerate(state.values()):
        pickle.dump((number, "cpu", torch.FloatStorage), storages, 2)
        storages.write(struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes())
        pickle.dump((number, number, torch.FloatTensor), tensors, 2)
        numbers = (*tensor.shape, *tensor.stride(), 0)
        tensors.write(struct.pack(f"<ii{len(numbers)}q", tensor.dim(), 0, *numbers))
    pickle.dump([(99, 0, 0, 4)], storages, 2)
    content = {"model": {n: _Key(i) for i, n in enumerate(state)}, "step": 1}
    _TarPickler(body, 2).dump(content)
    path = folder / "ckpt_1.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in (("storages", storages), ("tensors", tensors), ("pickle", body)):
            info = tarfile.TarInfo(name)
            info.size = len(data.getvalue())
            archive.addfile(info, io.BytesIO(data.getvalue()))
    return Target(path, path, front=6000)


def _index(folder: Path) -> Target:
    state = _content()["model"]
    opened = folder / "checkpoint-1"
    opened.mkdir()
    weight_map = {}
    for number, (name, tensor) in enumerate(state.items()):
        shard = f"model-0000{number}.safetensors"
        save_file({name: tensor}, opened / shard)
        weight_map[name] = shard
    broken = opened / "model.safetensors.index.json"
    broken.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return Target(opened, broken)


FORMATS: dict[str, Callable[[Path], Target]] = {
    "torch-zip": _zip,
    "torch-legacy": _legacy,
    "torch-tar": _tar,
    "safetensors": _safetensors,
    "hf-folder": _index,
}
