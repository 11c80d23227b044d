"""Networks, runs and an independent reader of tensor bytes for the tests of snapshots."""

from __future__ import annotations

from pathlib import Path

import torch

from smdlens.snapshots.records import TensorRef


def read_tensor(ref: TensorRef) -> torch.Tensor:
    """The tensor a reference describes, read with nothing of smdlens' own reading."""
    dtype = getattr(torch, ref.dtype)
    raw = bytearray()
    for extent in ref.extents:
        with open(extent.path, "rb") as file:
            file.seek(extent.offset)
            part = file.read(extent.nbytes)
        assert len(part) == extent.nbytes
        raw += part
    if not raw:
        return torch.empty(ref.shape, dtype=dtype)
    flat = torch.frombuffer(raw, dtype=torch.uint8).view(dtype)
    if ref.strides is None:
        return flat.reshape(ref.shape)
    return flat.as_strided(ref.shape, ref.strides)


def same(ref: TensorRef, tensor: torch.Tensor) -> bool:
    """Bit for bit the same values, shape and dtype (complex and fp8 included)."""
    ours = read_tensor(ref).contiguous()
    theirs = tensor.detach().cpu().contiguous()
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    if ours.numel() == 0:
        return True
    return torch.equal(ours.reshape(-1).view(torch.uint8), theirs.reshape(-1).view(torch.uint8))


def small_net(seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, bias=False),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 6, 3),
        torch.nn.BatchNorm2d(6),
        torch.nn.Flatten(),
        torch.nn.Linear(24, 5),
    )


def train(net: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(4, 3, 6, 6)).square().mean().backward()
        optimizer.step()


def save_run(
    folder: Path,
    steps: tuple[int, ...],
    name: str = "ckpt_{step}.pt",
    *,
    optimizer: bool = True,
    inside: bool = True,
    seed: int = 0,
    **extra: object,
) -> torch.nn.Module:
    """Train a small net and save it at the given steps; returns the net at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    net = small_net(seed)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    done = 0
    for step in steps:
        train(net, sgd, step - done)
        done = step
        content: dict[str, object] = {"model": net.state_dict(), **extra}
        if optimizer:
            content["optimizer"] = sgd.state_dict()
        if inside:
            content["step"] = step
        path = folder / name.format(step=step)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
    return net
