"""Writers of the one training run in the formats that torch, NumPy and onnx can write here."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from deepspeed_files import save_partitioned, save_spread
from onnx import helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

_REFERENCE = Path(__file__).parents[1] / "golden" / "one_network" / "reference.npz"
_SETTINGS = {"momentum": 0.9, "weight_decay": 5e-3}
Net, Optimizer = nn.Module, torch.optim.Optimizer


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, (3, 2), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, (3, 2), padding=1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        y: torch.Tensor = self.head(x.mean((2, 3)))
        return y


def states() -> Iterator[tuple[int, Net, Optimizer]]:
    """Step, network and optimizer, as they were when the snapshot was taken."""
    with np.load(_REFERENCE) as archive:
        arrays = {key: torch.tensor(archive[key]) for key in archive.files}
    for step in arrays["steps"].tolist():
        net = _Net()
        weights = {n: arrays.get(f"{step}/weights/{n}", t) for n, t in net.state_dict().items()}
        net.load_state_dict(weights)
        rate = 0.0625 if step < 120 else 0.015625
        sgd = torch.optim.SGD(net.parameters(), lr=rate, **_SETTINGS)
        for name, parameter in net.named_parameters():
            sgd.state[parameter]["momentum_buffer"] = arrays[f"{step}/momentum/{name}"]
        yield step, net, sgd


def weights_of(net: Net) -> dict[str, torch.Tensor]:
    """Weights and statistics without the counter of batches."""
    return {n: t for n, t in net.state_dict().items() if "num_batches" not in n}


def _content(net: Net, sgd: Optimizer, step: int) -> dict[str, Any]:
    return {"model": net.state_dict(), "optimizer": sgd.state_dict(), "step": step}


def torch_zip(folder: Path) -> None:
    for step, net, sgd in states():
        torch.save(_content(net, sgd, step), folder / f"ckpt_{step}.pt")


def torch_weights(folder: Path) -> None:
    for step, net, _ in states():
        torch.save(net.state_dict(), folder / f"weights_{step}.pt")


def torch_legacy(folder: Path) -> None:
    for step, net, sgd in states():
        path = folder / f"ckpt_{step}.pth"
        torch.save(_content(net, sgd, step), path, _use_new_zipfile_serialization=False)


class _Key:
    """Stands for a tensor in the pickled object of a torch tar."""

    def __init__(self, number: int) -> None:
        self.number = number


class _TarPickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.number if isinstance(obj, _Key) else None


def torch_tar(folder: Path) -> None:
    for step, net, sgd in states():
        tensors: list[torch.Tensor] = []

        def keys(value: Any, tensors: list[torch.Tensor] = tensors) -> Any:
            if isinstance(value, torch.Tensor):
                tensors.append(value)
                return _Key(len(tensors) - 1)
            if isinstance(value, dict):
                return {k: keys(v) for k, v in value.items()}
            return value

        content = _content(net, sgd, step)
        content["model"] = weights_of(net)
        body = io.BytesIO()
        _TarPickler(body, 2).dump(keys(content))
        with tarfile.open(folder / f"ckpt_{step}.tar", "w") as archive:
            for name, data in (*_tar_members(tensors), ("pickle", body.getvalue())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def _tar_members(tensors: list[torch.Tensor]) -> Iterator[tuple[str, bytes]]:
    storages, views = io.BytesIO(), io.BytesIO()
    pickle.dump(len(tensors), storages, 2)
    pickle.dump(len(tensors), views, 2)
    for number, tensor in enumerate(tensors):
        tensor = tensor.detach().contiguous()
        pickle.dump((number, "cpu", torch.FloatStorage), storages, 2)
        storages.write(struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes())
        pickle.dump((number, number, torch.FloatTensor), views, 2)
        numbers = (*tensor.shape, *tensor.stride(), 0)
        views.write(struct.pack(f"<ii{len(numbers)}q", tensor.dim(), 0, *numbers))
    pickle.dump([], storages, 2)
    yield "storages", storages.getvalue()
    yield "tensors", views.getvalue()


def torch_script(folder: Path) -> None:
    for step, net, _ in states():
        traced = torch.jit.trace(net.eval(), torch.zeros(1, 1, 8, 8))
        torch.jit.save(traced, folder / f"script_{step}.pt")


def torch_export(folder: Path) -> None:
    for step, net, _ in states():
        program = torch.export.export(net, (torch.zeros(2, 1, 8, 8),))
        torch.export.save(program, folder / f"step_{step}.pt2")


def safetensors(folder: Path) -> None:
    for step, net, _ in states():
        save_file(weights_of(net), folder / f"model_{step}.safetensors", {"step": str(step)})


def hf_folder(folder: Path) -> None:
    for step, net, sgd in states():
        place = folder / f"checkpoint-{step}"
        place.mkdir()
        save_file(weights_of(net), place / "model.safetensors")
        names = [name for name, _ in net.named_parameters()]
        state = sgd.state_dict()
        state["param_groups"][0]["param_names"] = names
        torch.save(state, place / "optimizer.pt")
        (place / "trainer_state.json").write_text(f'{{"global_step": {step}}}')


def _groups(net: Net) -> list[list[str]]:
    return [[n for n, p in net.named_parameters() if (p.dim() == 1) == flat] for flat in (0, 1)]


def zero_2(folder: Path) -> None:
    for step, net, sgd in states():
        settings = [{"lr": sgd.param_groups[0]["lr"], **_SETTINGS}] * 2
        place = folder / f"global_step{step}"
        save_partitioned(place, net, sgd, _groups(net), step, 3, settings=settings)


def zero_3(folder: Path) -> None:
    for step, net, sgd in states():
        settings = [{"lr": sgd.param_groups[0]["lr"], **_SETTINGS}] * 2
        place = folder / f"global_step{step}"
        save_spread(place, net, sgd, _groups(net), step, 2, settings=settings)


def megatron(folder: Path) -> None:
    for step, net, sgd in states():
        place = folder / f"iter_{step:07d}" / "mp_rank_00"
        place.mkdir(parents=True)
        content = {**_content(net, sgd, step), "iteration": step}
        del content["step"]
        torch.save(content, place / "model_optim_rng.pt")


def megatron_distributed(folder: Path) -> None:
    """The distributed optimizer: one flat buffer over two buckets, joined without their padding."""
    for step, net, sgd in states():
        named = dict(net.named_parameters())
        flat: dict[str, list[torch.Tensor]] = {"param": [], "momentum_buffer": []}
        begin = at = 0
        for name in reversed(named):
            if name == "bn1.bias":
                begin = at  # a bucket of its own begins, right behind the last element
            padding = -(at - begin) % 64
            slot = sgd.state[named[name]]["momentum_buffer"]
            for kind, part in (("param", named[name].detach()), ("momentum_buffer", slot)):
                flat[kind] += [torch.zeros(padding), part.flatten()]
            at += padding + named[name].numel()
        place = folder / f"iter_{step:07d}" / "mp_rank_00"
        place.mkdir(parents=True)
        joined: dict[str, Any] = {kind: torch.cat(parts) for kind, parts in flat.items()}
        buffer = {(torch.bfloat16, torch.float32): {**joined, "numel_unpadded": at}}
        torch.save({"buckets_coalesced": True, 0: buffer}, place / "distrib_optim.pt")
        group = {"lr": sgd.param_groups[0]["lr"], **_SETTINGS}
        halved = {n: t.bfloat16() if n in named else t for n, t in net.state_dict().items()}
        optimizer = {"optimizer": {"param_groups": [{**group, "wd_mult": 1.0}]}}
        content = {"model": halved, "optimizer": optimizer, "iteration": step}
        torch.save(content, place / "model_optim_rng.pt")


def onnx_file(folder: Path) -> None:
    for step, net, _ in states():
        tensors = [numpy_helper.from_array(t.numpy(), n) for n, t in weights_of(net).items()]
        nodes = [
            helper.make_node("Conv", ["x", "conv1.weight"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["a", *_norm("bn1")], ["n1"]),
            helper.make_node("Relu", ["n1"], ["b"]),
            helper.make_node("Conv", ["b", "conv2.weight"], ["c"], group=2, pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["c", *_norm("bn2")], ["n2"]),
            helper.make_node("Relu", ["n2"], ["d"]),
            helper.make_node("GlobalAveragePool", ["d"], ["e"]),
            helper.make_node("Flatten", ["e"], ["f"]),
            helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["y"], transB=1),
        ]
        x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 1, 8, 8))
        y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 10))
        model = helper.make_model(helper.make_graph(nodes, "net", [x], [y], tensors))
        onnx.save(model, folder / f"model_{step}.onnx")


def _norm(name: str) -> list[str]:
    return [f"{name}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]


def pickle_2(folder: Path) -> None:
    for step, net, _ in states():
        arrays = {n: t.numpy() for n, t in weights_of(net).items()}
        (folder / f"weights_{step}.pkl").write_bytes(pickle.dumps(arrays, protocol=2))


def npz(folder: Path) -> None:
    for step, net, _ in states():
        np.savez(
            folder / f"weights_{step}.npz", **{n: t.numpy() for n, t in weights_of(net).items()}
        )
