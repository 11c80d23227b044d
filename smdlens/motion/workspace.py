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
_CONVERTED_WELL = {torch.float32, torch.bfloat16, torch.float64}


class Workspace:
    """Named scratch of one worker: grown once, never freed between blocks.

    Args:
        pool: Open files.
        device: Where the arithmetic runs.
    """

    def __init__(self, pool: FilePool, device: torch.device) -> None:
        self._pool = pool
        self.device = device
        self._on_cpu = device == _CPU
        self._beside: Workspace | None = None
        self._tables: dict[torch.dtype, torch.Tensor] = {}
        self._buffers: dict[str, torch.Tensor] = {}
        self._slabs: dict[tuple[str, Geometry], Slab] = {}
        self._raw: dict[tuple[str, int], tuple[int, memoryview, torch.Tensor]] = {}

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
        if source.strides is not None:
            count = span(source.shape, source.strides)
            whole = self._read(source, 0, count).as_strided(source.shape, source.strides)
            values = whole.reshape(-1)[block.low : block.high]
        else:
            values = self._read(source, block.low, block.high)
        return values if self._on_cpu else values.to(self.device)

    def load(self, source: Source, block: Block, out: torch.Tensor) -> None:
        """A block's elements as float64 into `out` [size]."""
        raw = self.raw(source, block)
        if raw.dtype in _CONVERTED_WELL:
            out.copy_(raw)
        elif raw.element_size() == 1:
            # By a table of all 256 values: torch's own conversion takes eight times as long.
            codes = self._buffer("codes", raw.numel(), torch.int32, self.device)[: raw.numel()]
            codes.copy_(raw.view(torch.uint8))
            torch.index_select(self._values_of(raw.dtype), 0, codes, out=out)
        else:
            # By way of float32, which is exact: straight to float64 takes twice as long.
            narrow = self._buffer("narrow", raw.numel(), torch.float32, self.device)
            out.copy_(narrow[: raw.numel()].copy_(raw))
        if source.scale != 1.0:
            out.mul_(source.scale)

    def _values_of(self, dtype: torch.dtype) -> torch.Tensor:
        """Every value of an 8-bit format by its code, float64 [256]."""
        found = self._tables.get(dtype)
        if found is None:
            codes = torch.arange(256, dtype=torch.uint8)
            found = self._tables[dtype] = codes.view(dtype).double().to(self.device)
        return found

    def _read(self, source: Source, low: int, high: int) -> torch.Tensor:
        """Elements [low, high) of what is stored."""
        found = self._raw.get((source.dtype, high - low))
        if found is None:
            found = self._raw_view(source.dtype, high - low)
        width, target, values = found
        self._pool.read_into(source.extents, low * width, high * width, target)
        return values

    def _raw_view(self, dtype: str, count: int) -> tuple[int, memoryview, torch.Tensor]:
        width = DTYPE_BYTES[dtype]
        raw = self._buffer("raw", count * width, torch.uint8, _CPU)[: count * width]
        if len(self._raw) >= _MOST_VIEWS:
            self._raw.clear()
        view = width, raw.numpy().data, raw.view(storage_dtype(dtype))
        self._raw[dtype, count] = view
        return view

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
