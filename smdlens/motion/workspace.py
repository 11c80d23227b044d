"""Buffers that a worker keeps from block to block, and reading a block into them.

A block costs a few hundred microseconds, so the views of the buffers are kept as well: making a
view takes as long as summing a small block.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from smdlens.motion.files import FilePool
from smdlens.motion.geometry import Geometry, Slab
from smdlens.motion.layout import Block
from smdlens.motion.tensors import span, storage_dtype
from smdlens.motion.uploads import Uploads
from smdlens.snapshots.records import DTYPE_BYTES, TensorRef

# Shapes differ between tensors; beyond this many views the oldest shapes are long past.
_MOST_VIEWS = 512
_CPU = torch.device("cpu")
# A GPU that has no room for blocks of this many elements is left alone.
_LEAST_ELEMENTS = 1 << 16
_CONVERTED_WELL = {torch.float32, torch.bfloat16, torch.float64}
_PLAIN = {"float32", "bfloat16", "float64"}


class Workspace:
    """Named scratch of one worker: grown once, never freed between blocks.

    Args:
        pool: Open files.
        device: Where the arithmetic runs.
        notes: What the user should know is added here.

    Attributes:
        most_elements: Larger blocks have been found not to fit the device; 0 where none did.
    """

    def __init__(self, pool: FilePool, device: torch.device, notes: set[str] | None = None) -> None:
        self._pool = pool
        self._notes: set[str] = set() if notes is None else notes
        self.most_elements = sys.maxsize
        self.device = device
        self._on_cpu = device == _CPU
        self._beside: Workspace | None = None
        self._tables: dict[torch.dtype, torch.Tensor] = {}
        self._buffers: dict[str, torch.Tensor] = {}
        self._slabs: dict[tuple[str, Geometry], Slab] = {}
        self._uploads = Uploads(device) if device.type == "cuda" else None
        self._raw: dict[tuple[str, str, int], tuple[int, memoryview, torch.Tensor]] = {}

    def on_cpu(self) -> Workspace:
        """A workspace on the CPU, this one if it is."""
        if self.device == _CPU:
            return self
        if self._beside is None:
            self._beside = Workspace(self._pool, _CPU, self._notes)
        return self._beside

    def give_way(self, size: int) -> None:
        """Free the device's memory and expect smaller blocks than `size` elements."""
        for held in (self._buffers, self._slabs, self._tables, self._raw):
            held.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.most_elements = min(self.most_elements, size // 2)
        note = "smaller blocks, for want of GPU memory"
        if self.most_elements < _LEAST_ELEMENTS:
            self.most_elements = 0
            note = "on the CPU from where GPU memory ran out"
        self._notes.add(note)

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

    def raw(self, source: TensorRef, block: Block) -> torch.Tensor:
        """A block's elements in the storage dtype, flat, on the device; valid until the next."""
        if source.strides is not None:
            count = span(source.shape, source.strides)
            whole = self._read(source, 0, count).as_strided(source.shape, source.strides)
            values = whole.reshape(-1)[block.low : block.high]
        else:
            values = self._read(source, block.low, block.high)
        if self._on_cpu:
            return values
        return values.to(self.device) if self._uploads is None else self._uploads.start(values)

    def loader(self, source: TensorRef, size: int, out: torch.Tensor) -> Callable[[Block], None]:
        """`load` for any block of `size` elements of one source, with all said once that can be."""
        if not self._on_cpu or source.strides is not None or len(source.extents) != 1:
            return lambda block: self.load(source, block, out)
        read, convert = self._reader(source, size), self._converter(source, out)

        def load(block: Block) -> None:
            convert(read(block.low))

        return load

    def _reader(self, source: TensorRef, size: int) -> Callable[[int], torch.Tensor]:
        """Gives the `size` elements of a source with one extent from any one on, as stored."""
        (extent,) = source.extents
        fill = self._pool.fill
        width, target, values = self._raw_view("raw", source.dtype, size)

        def read(low: int) -> torch.Tensor:
            fill(extent, low * width, target)
            return values

        return read

    def _converter(self, source: TensorRef, out: torch.Tensor) -> Callable[[torch.Tensor], object]:
        """Converts to float64 into `out`, and scales."""
        if source.dtype in _PLAIN and source.scale == 1.0:
            return out.copy_
        return lambda raw: self._convert(raw, source.scale, out)

    def load(self, source: TensorRef, block: Block, out: torch.Tensor) -> None:
        """A block's elements as float64 into `out` [size]."""
        self._convert(self.raw(source, block), source.scale, out)

    def _convert(self, raw: torch.Tensor, scale: float, out: torch.Tensor) -> None:
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
        if scale != 1.0:
            out.mul_(scale)

    def _values_of(self, dtype: torch.dtype) -> torch.Tensor:
        """Every value of an 8-bit format by its code, float64 [256]."""
        found = self._tables.get(dtype)
        if found is None:
            codes = torch.arange(256, dtype=torch.uint8)
            found = self._tables[dtype] = codes.view(dtype).double().to(self.device)
        return found

    def _read(self, source: TensorRef, low: int, high: int) -> torch.Tensor:
        """Elements [low, high) of what is stored."""
        name = "raw" if self._uploads is None else self._uploads.next_buffer()
        found = self._raw.get((name, source.dtype, high - low))
        if found is None:
            found = self._raw_view(name, source.dtype, high - low)
        width, target, values = found
        self._pool.read_into(source.extents, low * width, high * width, target)
        return values

    def _raw_view(self, name: str, dtype: str, count: int) -> tuple[int, memoryview, torch.Tensor]:
        width = DTYPE_BYTES[dtype]
        raw = self._buffer(name, count * width, torch.uint8, _CPU)[: count * width]
        if len(self._raw) >= _MOST_VIEWS:
            self._raw.clear()
        view = width, raw.numpy().data, raw.view(storage_dtype(dtype))
        self._raw[name, dtype, count] = view
        return view

    def _buffer(
        self, name: str, count: int, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < count:
            # Views of the old one go first: two buffers at once would double the peak.
            self._buffers.pop(name, None)
            self._slabs = {key: slab for key, slab in self._slabs.items() if key[0] != name}
            self._raw = {key: view for key, view in self._raw.items() if key[0] != name}
            # What a GPU copies from without waiting has to stay where it is in memory.
            pinned = self._uploads is not None and device == _CPU
            buffer = torch.empty(count, dtype=dtype, device=device, pin_memory=pinned)
            self._buffers[name] = buffer
        return buffer
