"""A TorchScript archive: source text parsed into syntax trees, its objects as inert data.

The text under `code/` is Python's grammar with one class or function after the other. It is parsed
and never compiled or run; objects come from the pickle reader that builds nothing.
"""

from __future__ import annotations

import ast
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smdlens.containers.files import RegularFile, open_regular
from smdlens.containers.inert_pickle import PickleEndsError, load_pickle
from smdlens.containers.inert_values import Opaque, PickledTensor, Storage, StorageKind
from smdlens.containers.limits import DEFAULT_LIMITS
from smdlens.containers.zip_directory import (
    ZipEntry,
    inflated,
    read_zip_directory,
    require_stored,
)
from smdlens.errors import GraphError
from smdlens.snapshots.torch_zip import read_archive

MOST_TEXT = 32 << 20
_MOST_BRACKETS = 150  # inside each other
_MOST_INDENT = 120
_NUMBERS = {"float32": "<f", "float64": "<d", "int64": "<q", "int32": "<i", "bool": "<?",
            "int16": "<h", "int8": "<b", "uint8": "<B"}  # fmt: skip
Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True, slots=True)
class Archive:
    """What an archive holds.

    Attributes:
        root: The module, as inert data.
        definitions: Classes and functions by their full names.
        constants: Values of `CONSTANTS.c0`, `c1`, ...
        numbers: Constants that are one number, by their place.
        inputs: Tensors that it was traced with, where they are kept.
    """

    root: Opaque
    definitions: Mapping[str, Definition]
    constants: tuple[Any, ...]
    numbers: Mapping[int, float | int | bool]
    inputs: tuple[PickledTensor, ...]


def is_torchscript(names: Iterator[str] | Mapping[str, Any]) -> bool:
    """Whether the entries of a zip archive are those of TorchScript."""
    return any("/code/__torch__" in name for name in names)


def read_torchscript(path: Path) -> Archive:
    """Reads an archive.

    Raises:
        SnapshotError: It is no archive of torch, or a broken one.
        GraphError: Its source is not of the form that torch writes.
    """
    with open_regular(path) as file:
        entries = read_zip_directory(file)
        prefix = next((n.partition("/code/")[0] for n in entries if "/code/__torch__" in n), None)
        if prefix is None:
            raise GraphError(
                "no program is in it",
                subject=str(path),
                expected="an archive of torch.jit.save",
                remedy="Weights alone have no graph: name the model with --model.",
            )
        root = read_archive(file, DEFAULT_LIMITS)
        if type(root) is not Opaque:
            raise GraphError("it holds no module", subject=str(path))
        definitions = dict(_definitions(file, entries, f"{prefix}/code/"))
        constants = _pickled(file, entries, f"{prefix}/constants.pkl")
        held = constants if isinstance(constants, tuple) else ()
        numbers = dict(_numbers(file, entries, f"{prefix}/constants/", held))
        inputs = tuple(_tensors(_pickled(file, entries, f"{prefix}/traced_inputs.pkl")))
        return Archive(root, definitions, held, numbers, inputs)


def _definitions(
    file: RegularFile, entries: Mapping[str, ZipEntry], folder: str
) -> Iterator[tuple[str, Definition]]:
    total = 0
    for name, entry in entries.items():
        if not name.startswith(folder) or not name.endswith(".py"):
            continue
        source = inflated(file, entry, MOST_TEXT - total)
        total += len(source)
        module = name[len(folder) : -3].replace("/", ".")
        for item in _parsed(source, name).body:
            if isinstance(item, ast.ClassDef | ast.FunctionDef):
                yield f"{module}.{item.name}", item


def _parsed(data: bytes, name: str) -> ast.Module:
    """The syntax tree; text that nests too deeply for a parser is refused before it."""
    deepest = depth = 0
    for byte in data:
        if byte in b"([{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b")]}":
            depth -= 1
    indent = max((len(line) - len(line.lstrip(b" ")) for line in data.split(b"\n")), default=0)
    if deepest > _MOST_BRACKETS or indent > 2 * _MOST_INDENT:
        raise GraphError("its source nests too deeply", found=name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(data.decode("utf-8"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise GraphError(
            "its source is not what torch writes", found=f"{name}: {str(error)[:100]}"
        ) from error


def _pickled(file: RegularFile, entries: Mapping[str, ZipEntry], name: str) -> Any:
    entry = entries.get(name)
    if entry is None:
        return None
    require_stored(file, entry)
    if entry.nbytes > DEFAULT_LIMITS.pickle_bytes:
        raise GraphError("a pickle in it is too long", found=name)
    data = file.read(entry.offset, entry.nbytes)
    try:
        value, _ = load_pickle(data, subject=file.path, persistent=_storage, base=entry.offset)
    except PickleEndsError as error:
        raise GraphError("a pickle in it has no end", found=name) from error
    return value


def _storage(pid: Any) -> Any:
    if type(pid) is not tuple or len(pid) < 5 or pid[0] != "storage":
        return None
    _, kind, key, _, numel = pid[:5]
    if type(kind) is not StorageKind or type(key) is not str or type(numel) is not int:
        return None
    return Storage(key, kind.dtype, numel)


def _tensors(value: Any) -> Iterator[PickledTensor]:
    """Tensors anywhere in plain data, in order."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, PickledTensor):
            yield item
        elif isinstance(item, dict):
            pending += reversed(list(item.values()))
        elif isinstance(item, list | tuple):
            pending += reversed(item)
        elif isinstance(item, Opaque):
            pending += reversed(item.args)


def _numbers(
    file: RegularFile, entries: Mapping[str, ZipEntry], folder: str, constants: tuple[Any, ...]
) -> Iterator[tuple[int, float | int | bool]]:
    """Constants of one element, read: epsilons and sizes."""
    for at, item in enumerate(constants):
        if not isinstance(item, PickledTensor) or item.shape not in ((), (1,)):
            continue
        entry = entries.get(folder + item.storage.key)
        form = _NUMBERS.get(item.dtype)
        if entry is None or form is None:
            continue
        require_stored(file, entry)
        width = struct.calcsize(form)
        if 0 <= item.offset * width <= entry.nbytes - width:
            data = file.read(entry.offset + item.offset * width, width)
            yield at, struct.unpack(form, data)[0]
