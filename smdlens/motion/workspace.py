"""Buffers that a worker keeps from block to block, and reading a block into them."""

from __future__ import annotations

import math

import torch

from smdlens.motion.files import FilePool
from smdlens.motion.layout import Block
from smdlens.motion.plan import Source
from smdlens.motion.tensors import span, storage_dtype
from smdlens.snapshots.records import DTYPE_BYTES


class Workspace:
    """Named scratch of one worker: grown once, never freed between blocks.

    Args:
        pool: Open files.
        device: Where the arithmetic runs.
    """

    def __init__(self, pool: FilePool, device: torch.device) -> None:
        self._pool = pool
        self.device = device
        self._buffers: dict[str, torch.Tensor] = {}

    def scratch(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Contiguous float64 scratch; the same memory for the same name."""
        count = math.prod(shape)
        return self._buffer(name, count, torch.float64, self.device)[:count].view(shape)

    def raw(self, source: Source, block: Block) -> torch.Tensor:
        """A block's elements in the storage dtype, flat, on the device; valid until the next."""
        width = DTYPE_BYTES[source.dtype]
        dtype = storage_dtype(source.dtype)
        if source.strides is not None:
            count = span(source.shape, source.strides)
            whole = self._read(source, 0, count * width).view(dtype)
            strided = whole.as_strided(source.shape, source.strides)
            return strided.reshape(-1)[block.low : block.high].to(self.device)
        raw = self._read(source, block.low * width, block.high * width)
        return raw.view(dtype).to(self.device)

    def load(self, source: Source, block: Block, name: str) -> torch.Tensor:
        """A block's elements as float64 [outer, channels, inner] in scratch `name`."""
        return self.scratch(name, block.shape).copy_(self.raw(source, block).view(block.shape))

    def _read(self, source: Source, low: int, high: int) -> torch.Tensor:
        raw = self._buffer("raw", high - low, torch.uint8, torch.device("cpu"))[: high - low]
        self._pool.read_into(source.extents, low, high, raw.numpy().data)
        return raw

    def _buffer(
        self, name: str, count: int, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < count:
            # The old one goes first: two at once would double the peak.
            self._buffers.pop(name, None)
            buffer = self._buffers[name] = torch.empty(count, dtype=dtype, device=device)
        return buffer
