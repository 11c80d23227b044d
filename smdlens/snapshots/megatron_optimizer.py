"""Megatron-LM's distributed optimizer: flat float32 buffers, and where the parameters lie in them.

By number of the buffer and dtypes of its parameters, distrib_optim.pt holds flat tensors `param`
(the float32 weights), `exp_avg`, ... of the whole data-parallel world: one over all buckets, or one
per bucket. A buffer's parameters stand in the reverse of the model's order, each beginning at a
multiple of 64 elements of its bucket (in early versions at once behind the one before); a new
bucket may begin with any of them. The file says neither names nor places, so every place is held
against the weights themselves, of which `param` is the copy before rounding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smdlens.containers.files import FileStamp, RegularFile, open_regular
from smdlens.snapshots.records import DTYPE_BYTES, TensorRef
from smdlens.snapshots.resolve import is_tensor, tensor_ref
from smdlens.snapshots.zero_partitions import Flat, flat

NOTE = "float32 weights of the distributed optimizer, told apart by the weights themselves"
UNPLACED = "distrib_optim.pt is not read: its buffers do not fit the weights"
_ALIGNED = 64
_SAMPLE = 64
_ROUNDED = {"float32", "bfloat16", "float16"}
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Bucket:
    """Flat buffers of one bucket: `param` and the slots, all of one length."""

    parts: Mapping[str, Flat]

    @property
    def numel(self) -> int:
        """Elements of each."""
        return self.parts["param"].numel


def distributed_state(
    content: Any, weights: Mapping[str, Any], stamps: Mapping[str, FileStamp], subject: str
) -> dict[str, dict[str, TensorRef]] | None:
    """Parameter name -> `param` and slots; None where the buffers do not fit the weights.

    Args:
        content: What distrib_optim.pt holds.
        weights: The model's tensors by name, in its order.
        stamps: The files, as they were when their headers were read.
        subject: The folder, for errors.
    """
    lines = [list(_buckets(part, subject, 0)) for part in _buffers(content)]
    lines = [line for line in lines if line]
    refs = {n: tensor_ref(n, t) for n, t in weights.items() if t.dtype in _ROUNDED}
    pending = [(n, r) for n, r in reversed(refs.items()) if r.numel and r.strides is None]
    found: dict[str, dict[str, TensorRef]] = {}
    with _Samples(stamps) as samples:
        for line in lines:
            placed = _place(line, pending, samples)
            if placed is None:
                return None
            found |= placed
            pending = [(n, r) for n, r in pending if n not in placed]
    return {name: found[name] for name in refs if name in found} or None


def _buffers(content: Any) -> Iterator[Any]:
    """The part of each buffer: by number of the buffer, then by dtypes."""
    if isinstance(content, Mapping):
        for number, by_dtype in content.items():
            if type(number) is int and isinstance(by_dtype, Mapping):
                yield from by_dtype.values()


def _buckets(part: Any, subject: str, depth: int) -> Iterator[Bucket]:
    """One bucket where all were joined, else those of a mapping by number or of a list."""
    if isinstance(part, Mapping) and is_tensor(part.get("param")):
        tensors = {k: v for k, v in part.items() if type(k) is str and is_tensor(v)}
        parts = {name: flat(name, [value], subject) for name, value in tensors.items()}
        same = {name: f for name, f in parts.items() if f.numel == parts["param"].numel}
        yield Bucket(same)
    elif isinstance(part, Mapping) and depth < _DEEPEST:
        numbered = sorted(k for k in part if type(k) is int)
        for number in numbered:
            yield from _buckets(part[number], subject, depth + 1)
    elif isinstance(part, (list, tuple)) and depth < _DEEPEST:
        for item in part:
            yield from _buckets(item, subject, depth + 1)


def _place(
    buckets: Sequence[Bucket], pending: Sequence[tuple[str, TensorRef]], samples: _Samples
) -> dict[str, dict[str, TensorRef]] | None:
    """Parameters of one buffer: as many as lie in it, in the order of `pending`."""
    found: dict[str, dict[str, TensorRef]] = {}
    at, number, begin = 0, 0, 0
    for name, ref in pending:
        aligned = begin + -(-(at - begin) // _ALIGNED) * _ALIGNED
        # Within a bucket; behind it, where the next begins in the same flat buffer; in the next.
        for place, bucket, start in (
            (aligned, number, begin),
            (at, number, at),
            (0, number + 1, 0),
        ):
            if bucket >= len(buckets) or place + ref.numel > buckets[bucket].numel:
                continue
            main = buckets[bucket].parts["param"]
            if samples.agree(ref, _part(name, ref, main, place)):
                parts = buckets[bucket].parts.items()
                found[name] = {slot: _part(name, ref, f, place) for slot, f in parts}
                at, number, begin = place + ref.numel, bucket, start
                break
    rest = buckets[number].numel - at if number == len(buckets) - 1 else 0
    return found if found and rest < 1 << 16 else None


def _part(name: str, ref: TensorRef, buffer: Flat, at: int) -> TensorRef:
    return TensorRef(name, ref.shape, buffer.dtype, buffer.part(at, at + ref.numel))


class _Samples:
    """Compares the first and last elements of a weight and of its float32 copy."""

    def __init__(self, stamps: Mapping[str, FileStamp]) -> None:
        self._stamps = stamps
        self._files: dict[str, RegularFile] = {}

    def __enter__(self) -> _Samples:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def agree(self, weight: TensorRef, main: TensorRef) -> bool:
        """Whether the copy, rounded to the weight's dtype, is the weight, as far as is looked."""
        count = min(weight.numel, _SAMPLE)
        return all(
            _rounded(self._read(main, first, count), weight.dtype)
            == self._read(weight, first, count)
            for first in {0, weight.numel - count}
        )

    def _read(self, ref: TensorRef, first: int, count: int) -> bytes:
        width = DTYPE_BYTES[ref.dtype]
        low, high, data, start = first * width, (first + count) * width, b"", 0
        for extent in ref.extents:
            begin, end = max(low, start), min(high, start + extent.nbytes)
            if begin < end:
                file = self._file(extent.path)
                data += file.read(extent.offset + begin - start, end - begin)
            start += extent.nbytes
        return data

    def _file(self, path: str) -> RegularFile:
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = open_regular(path)
            file.check_unchanged(self._stamps.get(path))
        return file


def _rounded(data: bytes, dtype: str) -> bytes:
    """Float32 numbers in another dtype, to nearest, ties to even."""
    if dtype == "bfloat16":
        bits = struct.unpack(f"<{len(data) // 4}I", data)
        return struct.pack(
            f"<{len(bits)}H", *((b + 0x7FFF + (b >> 16 & 1)) >> 16 & 0xFFFF for b in bits)
        )
    if dtype == "float16":
        values = struct.unpack(f"<{len(data) // 4}f", data)
        try:
            return struct.pack(f"<{len(values)}e", *values)
        except OverflowError:
            return b""
    return data
