"""PaddlePaddle's .pdiparams: the weights of an exported model, named by the program beside them.

Layout from paddle/phi/core/framework/dense_tensor_serialize.cc and lod_tensor.cc; names of the
program from framework.proto (.pdmodel) or the JSON of PIR (.json). Weights stand by sorted name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smdlens.containers.cursor import Cursor
from smdlens.containers.files import FileStamp, RegularFile, reading
from smdlens.containers.json_header import read_json
from smdlens.containers.limits import Limits
from smdlens.containers.pickle_bytes import load_pickle_in_place
from smdlens.containers.protobuf import ProtobufError, fields, raw, text, varint, whole
from smdlens.errors import SnapshotCorruptError, SnapshotUnsafeError, SnapshotUnsupportedError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.paddle import TABLE, from_paddle
from smdlens.snapshots.records import DTYPE_BYTES, Extent, TensorRef

# Versions 0 and no level of detail, a short description, its first field.
_HEAD = re.compile(rb"\0{16}[\x02-\xff]\0{3}\x08", re.DOTALL)
_DTYPES = {
    0: "bool", 1: "int16", 2: "int32", 3: "int64", 4: "float16", 5: "float32", 6: "float64",
    20: "uint8", 21: "int8", 22: "bfloat16", 23: "complex64", 24: "complex128",
}  # fmt: skip
_DENSE = 7
_LONGEST = 1 << 12
_PROGRAMS = (".json", ".pdmodel")
_INFO = ".info"
_OWN = re.compile(r"(?P<layer>.*)\.(?P<kind>[wb])_(?P<number>\d{1,4})")
_NORM = re.compile(r"(?:.*/)?(?:sync_)?batch_norm\d?d?_\d+")
_KINDS = {("w", "0"): "weight", ("b", "0"): "bias"}
_STATISTICS = {("w", "1"): "_mean", ("w", "2"): "_variance"}


class PaddleInferenceReader:
    """Reader of the weights of exported models."""

    name = "paddle-inference"

    def recognises(self, candidate: Candidate) -> bool:
        """The head of a tensor that begins the file."""
        return _HEAD.match(candidate.head) is not None

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the heads of all tensors and the names beside them."""
        path = candidate.path
        with reading(path) as file:
            tensors = _tensors(file, limits)
        files, stamps = [path], {file.path: file.stamp}
        program = next((p for s in _PROGRAMS if (p := path.with_suffix(s)).is_file()), None)
        if program is None:
            raise SnapshotUnsupportedError(
                "the program that names the weights is missing",
                subject=str(path),
                expected=" or ".join(path.with_suffix(s).name for s in _PROGRAMS),
                remedy="Copy it beside the weights.",
            )
        names = sorted(_names(program, limits, stamps).items())
        files.append(program)
        shapes = [shape for _, shape in names]
        if shapes != [ref.shape for ref in tensors]:
            raise SnapshotCorruptError(
                "the weights are not those of the program beside them",
                subject=str(path),
                expected=f"{len(shapes)} weights of the shapes in {program.name}",
                found=f"{len(tensors)} weights",
                remedy="Copy both files of one export again, or leave them out.",
            )
        own = [name for name, _ in names]
        shown = _structured(path, own, limits, files, stamps)
        tree: dict[str, Any] = dict(zip(shown, tensors, strict=True))
        tree[TABLE] = dict(zip(shown, own, strict=True))
        return RawCheckpoint(self.name, from_paddle(tree, None), tuple(files), stamps, False)


def _tensors(file: RegularFile, limits: Limits) -> list[TensorRef]:
    cursor = Cursor(file, 0, limits.pickle_bytes)
    found: list[TensorRef] = []
    while cursor.pos < file.size:
        if len(found) >= limits.plain_values:
            raise SnapshotUnsafeError("too many weights", subject=file.path)
        start = cursor.pos
        if cursor.unsigned(4) or cursor.unsigned(8) or cursor.unsigned(4):
            raise _corrupt(file.path, f"no tensor at offset {start}")
        size = cursor.unsigned(4)
        if size > _LONGEST:
            raise _corrupt(file.path, f"a description of {size} bytes at offset {start}")
        try:
            dtype, shape = _described(cursor.take(size))
        except ProtobufError as error:
            raise _corrupt(file.path, f"{error} at offset {start}") from error
        nbytes = math.prod(shape) * DTYPE_BYTES[dtype]
        offset = cursor.skip(nbytes)
        extents = (Extent(file.path, offset, nbytes),) if nbytes else ()
        found.append(TensorRef(str(len(found)), shape, dtype, extents))
    return found


def _described(data: bytes) -> tuple[str, tuple[int, ...]]:
    kind, shape = 0, []
    for number, item in fields(data):
        if number == 1:
            kind = whole(item)
        elif number == 2 and isinstance(item, int):
            shape.append(item)
        elif number == 2:
            at = 0
            while at < len(raw(item)):
                size, at = varint(raw(item), at)
                shape.append(size)
    if kind not in _DTYPES or len(shape) > 64 or any(n >= 1 << 62 for n in shape):
        raise ProtobufError("an impossible type or shape")
    return _DTYPES[kind], tuple(shape)


def _names(path: Path, limits: Limits, stamps: dict[str, FileStamp]) -> dict[str, tuple[int, ...]]:
    """The weights of a program by name."""
    with reading(path) as file:
        stamps[file.path] = file.stamp
        if path.suffix == ".pdmodel":
            if file.size > limits.pickle_bytes:
                raise SnapshotUnsafeError("the program is too long", subject=file.path)
            try:
                return _of_protobuf(file.read(0, file.size))
            except ProtobufError as error:
                raise _corrupt(file.path, str(error)) from error
    program = read_json(str(path), limits=limits, allow_nan=True)
    try:
        operations = program["program"]["regions"][0]["blocks"][0]["ops"]
        held = [each for each in operations if each["#"] == "p"]
        found = {each["A"][3]: tuple(each["O"]["TT"]["D"][1]) for each in held}
    except (TypeError, LookupError) as error:
        raise _corrupt(str(path), "JSON that is no program of PIR") from error
    if not all(type(name) is str for name in found):
        raise _corrupt(str(path), "a weight without a name")
    return found


def _of_protobuf(data: bytes) -> dict[str, tuple[int, ...]]:
    """Persistable dense variables of a ProgramDesc's first block."""
    found: dict[str, tuple[int, ...]] = {}
    parts = list(fields(data))  # all of them: a file cut short behind the block is one
    block = next((raw(item) for number, item in parts if number == 1), b"")
    for number, item in fields(block):
        if number != 3:
            continue
        held = dict(fields(raw(item)))
        kind = dict(fields(raw(held.get(2, b""))))
        if kind.get(1) == _DENSE and held.get(3) == 1:
            tensor = next((v for n, v in fields(raw(kind.get(3, b""))) if n == 1), b"")
            found[text(held.get(1, b""))] = _described(raw(tensor))[1]
    return found


def _structured(
    path: Path, own: list[str], limits: Limits, files: list[Path], stamps: dict[str, FileStamp]
) -> list[str]:
    """The names of the model's layers where they are saved, else those of the parameters."""
    beside = path.with_name(path.name + _INFO)
    if beside.is_file():
        with reading(beside) as file:
            table = load_pickle_in_place(file, limits)
        files.append(beside)
        stamps[file.path] = file.stamp
        held = table if isinstance(table, Mapping) else {}
        entries = [held.get(name) for name in own]
        names = [e.get("structured_name") if isinstance(e, Mapping) else None for e in entries]
        known = [name for name in names if type(name) is str]
        if len(known) == len(own) == len(set(known)):
            return known
    return _layered(own)


def _layered(own: list[str]) -> list[str]:
    """`linear_0.w_0` as `linear_0.weight`; recurrent layers, which have several, stay."""
    found = []
    several = {m["layer"] for n in own if (m := _OWN.fullmatch(n)) and m["number"] != "0"}
    for name in own:
        match = _OWN.fullmatch(name)
        layer = match["layer"] if match is not None else ""
        kinds = _KINDS | _STATISTICS if _NORM.fullmatch(layer) else _KINDS
        key = (match["kind"], match["number"]) if match is not None else ("", "")
        plain = layer not in several or _NORM.fullmatch(layer) is not None
        found.append(f"{layer}.{kinds[key]}" if plain and key in kinds else name)
    return found if len(set(found)) == len(own) else own


def _corrupt(subject: str, found: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "the exported model contradicts its format",
        subject=subject,
        found=found,
        remedy="Copy its files again, or leave it out.",
    )
