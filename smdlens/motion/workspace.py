"""Buffers that a worker keeps from block to block, and reading a block into them.

A block costs a few hundred microseconds, so the views of the buffers are kept as well: making a
view takes as long as summing a small block.
"""

from __future__ import annotations

import torch

from smdlens.motion.files import FilePool
from smdlens.motion.geometry import Geometry, Slab
from smdlens.motion.layout import Block
from smdlens.motion.plan import Source
from smdlens.motion.tensors import span, storage_dtype
from smdlens.snapshots.records import DTYPE_BYTES

# Shapes differ between tensors; beyond this many views the oldest shapes are long past.
_MOST_VIEWS = 512
_CPU = torch.device("cpu")


class Workspace:
    """Named scratch of one worker: grown once, never freed between blocks.

    Args:
        pool: Open files.
        device: Where the arithmetic runs.
    """

    def __init__(self, pool: FilePool, device: torch.device) -> None:
        self._pool = pool
        self.device = device
        self._beside: Workspace | None = None
        self._buffers: dict[str, torch.Tensor] = {}
        self._slabs: dict[tuple[str, Geometry], Slab] = {}
        self._raw: dict[tuple[str, int], tuple[memoryview, torch.Tensor]] = {}

    def on_cpu(self) -> Workspace:
        """A workspace on the CPU, this one if it is."""
        if self.device == _CPU:
            return self
        if self._beside is None:
            self._beside = Workspace(self._pool, _CPU)
        return self._beside

    def slab(self, name: str, geometry: Geometry) -> Slab:
        """Scratch on the device for one block; the same memory for the same name."""
        found = self._slabs.get((name, geometry))
        if found is None:
            flat = self.buffer(name, geometry.size)
            if len(self._slabs) >= _MOST_VIEWS:
                self._slabs.clear()
            found = self._slabs[name, geometry] = geometry.slab(flat)
        return found

    def buffer(self, name: str, size: int) -> torch.Tensor:
        """Scratch float64 [size] on the device; the same memory for the same name."""
        return self._buffer(name, size, torch.float64, self.device)[:size]

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

    def load(self, source: Source, block: Block, out: torch.Tensor) -> None:
        """A block's elements as float64 into `out` [size]."""
        raw = self.raw(source, block)
        if raw.element_size() <= 2:
            # Straight to float64 is several times slower than by way of float32, which is exact.
            narrow = self._buffer("narrow", raw.numel(), torch.float32, self.device)
            raw = narrow[: raw.numel()].copy_(raw)
        out.copy_(raw)
        if source.scale != 1.0:
            out.mul_(source.scale)

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
            self._slabs = {key: slab for key, slab in self._slabs.items() if key[0] != name}
            if name == "raw":
                self._raw.clear()
            buffer = self._buffers[name] = torch.empty(count, dtype=dtype, device=device)
        return buffer
