"""ONNX files: the initialisers of the graph, inline or in data files beside it.

Message numbers from onnx/onnx.proto. The file is walked field by field, and tensors are stepped
over: only names, shapes and places are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smdlens.containers.files import FileStamp, contained, reading
from smdlens.containers.limits import Limits
from smdlens.containers.protobuf import Field, MessageScanner, ProtobufError
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
)
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.records import DTYPE_BYTES, Extent, TensorRef

_FIRST_TAGS = frozenset(b"\x12\x1a\x22\x28\x32\x3a\x42")
_OLDEST, _NEWEST = 3, 60
_LARGEST_PROGRAM = 256 << 20  # bytes
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64",
    15: "complex128", 16: "bfloat16", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz",
    19: "float8_e5m2", 20: "float8_e5m2fnuz",
}  # fmt: skip
# Lists of numbers that are laid out as raw bytes are: floats and doubles.
_PACKED = {4: "float32", 10: "float64"}
_FOLDED = (
    "no batch normalisation, and a bias on every convolution: an export for inference may have "
    "folded the normalisation into the weights"
)


class OnnxReader:
    """Reader of ONNX models."""

    name = "onnx"

    def recognises(self, candidate: Candidate) -> bool:
        """A message that begins with a version of the format and another field of a model."""
        head = candidate.head
        return (
            len(head) > 3
            and head[0] == 0x08
            and _OLDEST <= head[1] <= _NEWEST
            and head[2] in _FIRST_TAGS
        )

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Walk over the file; tensors stay where they are."""
        with reading(candidate.path) as file:
            model = _Model(candidate.path, MessageScanner(file, limits.pickle_objects), limits)
            try:
                model.walk()
            except ProtobufError as error:
                if "beyond" in str(error) or "end" in str(error):
                    raise SnapshotTruncatedError(
                        "the file ends inside one of its messages, or is damaged",
                        subject=file.path,
                        found=f"{error}; {file.size} bytes",
                        remedy="Copy the file again, or leave it out.",
                    ) from error
                raise _corrupt(file.path, str(error)) from error
            model.stamps[file.path] = file.stamp
            small = file.size <= _LARGEST_PROGRAM
        files = (candidate.path, *model.outside)
        # The reader of graphs takes a whole file into memory, weights and all.
        network = str(candidate.path) if small else None
        return RawCheckpoint(self.name, model.root(), files, model.stamps, network=network)


class _Model:
    """What a walk over one file finds."""

    def __init__(self, path: Path, scanner: MessageScanner, limits: Limits) -> None:
        self._path = path
        self._scanner = scanner
        self._limits = limits
        self._convolutions: list[int] = []
        self._normalised = False
        self._properties: dict[str, str] = {}
        self.tensors: dict[str, TensorRef] = {}
        self.outside: dict[Path, int] = {}
        self.stamps: dict[str, FileStamp] = {}

    def walk(self) -> None:
        found = set()
        for field in self._scanner.fields(0, self._scanner.size):
            found.add(field.number)
            if field.number == 7:
                self._graph(field)
            elif field.number == 14:
                key, value = self._entry(field)
                self._properties[key] = value
        # The version of the operators follows the graph in every file.
        if not found >= {7, 8}:
            raise SnapshotTruncatedError(
                "a model without a graph or the version of its operators",
                subject=str(self._path),
                remedy="Export the model again, or copy the file again.",
            )

    def root(self) -> dict[str, Any]:
        root: dict[str, Any] = {"": self.tensors}
        if self._properties:
            root["__metadata__"] = self._properties
        if self._convolutions and not self._normalised and min(self._convolutions) > 2:
            root["conversion"] = _FOLDED
        return root

    def _inside(self, field: Field) -> Iterator[Field]:
        return self._scanner.fields(field.offset, field.offset + field.nbytes)

    def _graph(self, graph: Field) -> None:
        for field in self._inside(graph):
            if field.number == 5:
                self._tensor(field)
            elif field.number == 1:
                self._node(field)

    def _node(self, node: Field) -> None:
        inputs, kind = 0, ""
        for field in self._inside(node):
            inputs += field.number == 1
            if field.number == 4:
                kind = self._scanner.text(field)
        if kind in ("Conv", "ConvTranspose"):
            self._convolutions.append(inputs)
        self._normalised |= kind in ("BatchNormalization", "InstanceNormalization")

    def _tensor(self, tensor: Field) -> None:
        dims: list[int] = []
        code, name = 0, ""
        place: Extent | None = None
        outside: dict[str, str] = {}
        for field in self._inside(tensor):
            if field.number == 1:
                dims += self._scanner.numbers(field)
            elif field.number == 2:
                code = field.value
            elif field.number == 8:
                name = self._scanner.text(field)
            elif field.number == 9 or (
                field.nbytes and _PACKED.get(field.number) == _DTYPES.get(code)
            ):
                place = Extent(str(self._path), field.offset, field.nbytes)
            elif field.number == 13:
                key, value = self._entry(field)
                outside[key] = value
        dtype = _DTYPES.get(code)
        if dtype is None or not name or name in self.tensors:
            if name in self.tensors:
                raise ProtobufError(f"the tensor {name[:100]!r} is given twice")
            return
        if len(dims) > 64 or any(n >= 1 << 62 for n in dims):
            raise ProtobufError("an impossible shape")
        nbytes = math.prod(dims) * DTYPE_BYTES[dtype]
        if outside:
            place = self._outside(name, outside, nbytes)
        if place is None and nbytes:
            return  # integers as a list of numbers: constants of the graph, no weights
        if place is not None and place.nbytes != nbytes:
            raise ProtobufError(f"the tensor {name[:100]!r} has another size than its shape says")
        extents = (place,) if place is not None and nbytes else ()
        self.tensors[name] = TensorRef(name, tuple(dims), dtype, extents)

    def _outside(self, name: str, entries: dict[str, str], nbytes: int) -> Extent:
        subject = str(self._path)
        path = contained(self._path.parent, entries.get("location", ""), subject=subject)
        numbers = [entries.get("offset", "0"), entries.get("length", str(nbytes))]
        if not all(re.fullmatch(r"\d{1,18}", n) for n in numbers):
            raise ProtobufError(f"the place of tensor {name[:100]!r} is no number")
        offset, length = map(int, numbers)
        if path not in self.outside:
            if len(self.outside) >= self._limits.index_files:
                raise SnapshotUnsafeError("the model names too many files", subject=subject)
            with reading(path) as file:
                self.outside[path], self.stamps[file.path] = file.size, file.stamp
        if offset + length > self.outside[path]:
            raise SnapshotTruncatedError(
                f"the data file ends inside tensor {name!r}",
                subject=str(path),
                expected=f"{length} bytes at offset {offset}",
                found=f"a file of {self.outside[path]} bytes",
            )
        return Extent(str(path), offset, length)

    def _entry(self, field: Field) -> tuple[str, str]:
        found = {f.number: self._scanner.text(f) for f in self._inside(field) if f.number in (1, 2)}
        return found.get(1, ""), found.get(2, "")


def _corrupt(subject: str, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "not a sound ONNX model",
        subject=subject,
        found=found,
        remedy="Export the model again, or leave it out.",
    )
