"""Where the arithmetic runs: the CPU, or a CUDA device that is measurably faster here."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import torch

from smdlens.errors import InputError

# Elements per block. Two snapshots of one in float64, its bytes as stored and a difference take
# 1.3 MB: within a second-level cache of 2 MB. A GPU needs enough to fill itself.
CPU_BLOCK = 3 << 14
CUDA_BLOCK = 1 << 23
_TRIAL_ELEMENTS = 1 << 23


@dataclass(frozen=True, slots=True)
class Device:
    """A device, its block size, and what the user should know about the choice."""

    torch_device: torch.device
    block_elements: int
    note: str = ""


def choose_device(name: str) -> Device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:N` or `mps` into a device.

    Raises:
        InputError: The name is none of these, or there is no such CUDA device.
    """
    if name == "cpu":
        return _cpu()
    if name == "mps":
        return _cpu("mps has no float64: measured on the CPU")
    if name == "auto":
        return _faster() if torch.cuda.is_available() else _cpu()
    match = re.fullmatch(r"cuda(?::(\d{1,3}))?", name)
    if match is None:
        raise InputError(
            "is not a device",
            subject="--device",
            expected="auto, cpu, cuda, cuda:N or mps",
            found=repr(name),
        )
    index = int(match[1] or 0)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        raise InputError(
            "this CUDA device is not there",
            subject="--device",
            expected=f"one of {count} CUDA devices" if count else "a torch with CUDA and a GPU",
            found=repr(name),
            remedy="Use --device cpu or --device auto.",
        )
    return Device(torch.device("cuda", index), CUDA_BLOCK)


def _cpu(note: str = "") -> Device:
    return Device(torch.device("cpu"), CPU_BLOCK, note)


def _faster() -> Device:
    """The GPU where copying a float32 block there and reducing it in float64 beats the CPU."""
    cuda = Device(torch.device("cuda", 0), CUDA_BLOCK, "auto chose cuda:0 after a short trial")
    values = torch.ones(_TRIAL_ELEMENTS)
    try:
        seconds = {
            device.type: _trial(values, device)
            for device in (cuda.torch_device, torch.device("cpu"))
        }
    except RuntimeError:
        # Most likely somebody else's work fills its memory.
        return _cpu("auto chose cpu: the GPU failed a short trial")
    return cuda if seconds["cuda"] < seconds["cpu"] else _cpu("auto chose cpu after a short trial")


def _trial(values: torch.Tensor, device: torch.device) -> float:
    best = float("inf")
    size = CUDA_BLOCK if device.type == "cuda" else CPU_BLOCK
    for _ in range(3):
        start = time.perf_counter()
        for block in torch.split(values, size):
            wide = block.to(device).double()
            # float() waits for the device, so the time is that of the work, not of its launch.
            float(torch.dot(wide, wide))
        best = min(best, time.perf_counter() - start)
    return best
