"""Buffers that a worker keeps from block to block, and reading a block into them.

A block costs a few hundred microseconds, so the views of the buffers are kept as well: making a
view takes as long as reducing a small block.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from smdlens.motion.files import FilePool
from smdlens.motion.layout import Block
from smdlens.motion.plan import Source
from smdlens.motion.tensors import span, storage_dtype
from smdlens.snapshots.records import DTYPE_BYTES

Shape = tuple[int, int, int]
# Shapes differ between tensors; beyond this many views the oldest shapes are long past.
_MOST_VIEWS = 512
_CPU = torch.device("cpu")


class Scratch:
    """One contiguous float64 buffer seen as [outer, channels, inner] and flat.

    Attributes:
        cube: [outer, channels, inner].
        flat: [n].
        rows: [outer * channels, inner] as numpy, where numpy can see the memory and has a fused
            product and sum of rows (numpy 2); else None.
    """

    __slots__ = ("cube", "flat", "rows")

    def __init__(self, buffer: torch.Tensor, shape: Shape) -> None:
        self.flat = buffer[: math.prod(shape)]
        self.cube = self.flat.view(shape)
        fused = buffer.device == _CPU and hasattr(np, "vecdot")
        self.rows: NDArray[np.float64] | None = (
            self.flat.numpy().reshape(-1, shape[2]) if fused else None
        )


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
        self._scratch: dict[tuple[str, Shape], Scratch] = {}
        self._raw: dict[tuple[str, int], tuple[memoryview, torch.Tensor]] = {}

    def scratch(self, name: str, shape: Shape) -> Scratch:
        """Scratch on the device; the same memory for the same name."""
        found = self._scratch.get((name, shape))
        if found is None:
            buffer = self._buffer(name, math.prod(shape), torch.float64, self.device)
            if len(self._scratch) >= _MOST_VIEWS:
                self._scratch.clear()
            found = self._scratch[name, shape] = Scratch(buffer, shape)
        return found

    def raw(self, source: Source, block: Block) -> torch.Tensor:
        """A block's elements in the storage dtype, flat, on the device; valid until the next."""
        width = DTYPE_BYTES[source.dtype]
        if source.strides is not None:
            whole = self._read(source, 0, span(source.shape, source.strides) * width)
            strided = whole.as_strided(source.shape, source.strides)
            values = strided.reshape(-1)[block.low : block.high]
        else:
            values = self._read(source, block.low * width, block.high * width)
        return values if self.device == _CPU else values.to(self.device)

    def narrowed(self, values: torch.Tensor) -> torch.Tensor:
        """Exact float32 copies of 8- and 16-bit elements, wider ones as they are.

        Converting those straight to float64 is several times slower than by way of float32.
        """
        if values.element_size() > 2:
            return values
        count = values.numel()
        target = self._buffer("narrow", count, torch.float32, self.device)[:count]
        return target.copy_(values)

    def load(self, source: Source, block: Block, name: str) -> Scratch:
        """A block's elements as float64 in scratch `name`."""
        scratch = self.scratch(name, block.shape)
        scratch.flat.copy_(self.narrowed(self.raw(source, block)))
        if source.scale != 1.0:
            scratch.flat.mul_(source.scale)
        return scratch

    def _read(self, source: Source, low: int, high: int) -> torch.Tensor:
        size = high - low
        found = self._raw.get((source.dtype, size))
        if found is None:
            raw = self._buffer("raw", size, torch.uint8, _CPU)[:size]
            if len(self._raw) >= _MOST_VIEWS:
                self._raw.clear()
            found = raw.numpy().data, raw.view(storage_dtype(source.dtype))
            self._raw[source.dtype, size] = found
        self._pool.read_into(source.extents, low, high, found[0])
        return found[1]

    def _buffer(
        self, name: str, count: int, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < count:
            # Views of the old one go first: two buffers at once would double the peak.
            self._buffers.pop(name, None)
            self._scratch = {key: view for key, view in self._scratch.items() if key[0] != name}
            if name == "raw":
                self._raw.clear()
            buffer = self._buffers[name] = torch.empty(count, dtype=dtype, device=device)
        return buffer
