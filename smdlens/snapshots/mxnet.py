"""MXNet's .params files, of Module and of Gluon, with the optimizer's .states beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smdlens.containers.cursor import Cursor
from smdlens.containers.files import FileStamp, reading
from smdlens.containers.limits import Limits
from smdlens.containers.mxnet_arrays import LIST_MAGIC, MxnetArray, read_list
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.foreign_names import torch_names
from smdlens.snapshots.mxnet_states import MxnetStates, optimizer_of_states, read_states
from smdlens.snapshots.records import Extent, TensorRef

NOTE = "MXNet: names shown as torch has them (gamma: weight, moving_mean: running_mean)"
_KIND = re.compile(r"(?:arg|aux):")
_LEAF = re.compile(
    r"(?P<layer>.+)_(?P<leaf>weight|bias|gamma|beta|(?:moving|running)_(?:mean|var))"
)
_EPOCH = re.compile(r"(.*)-(\d{4})\.params")


class MxnetReader:
    """Reader of MXNet's lists of arrays."""

    name = "mxnet"

    def recognises(self, candidate: Candidate) -> bool:
        """The number and the zero that such a list begins with."""
        return candidate.head[:16] == LIST_MAGIC.to_bytes(8, "little") + bytes(8)

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the headers of all arrays, and the optimizer's states where there are any."""
        path = candidate.path
        files: list[Path] = [path]
        with reading(path) as file:
            arrays = read_list(Cursor(file, 0, limits.json_bytes), limits)
        stamps: dict[str, FileStamp] = {file.path: file.stamp}
        names = names_of_symbol(name for name, _ in arrays)
        tensors = {
            names[name]: tensor(name, array, file.path)
            for name, array in arrays
            if array is not None
        }
        root: dict[str, Any] = {"": tensors, "conversion": NOTE}
        states = _states(path, limits, files, stamps)
        if states is not None:
            added = optimizer_of_states(states, names, tensors)
            notes = [NOTE, *([added["conversion"]] if "conversion" in added else [])]
            root |= {**added, "conversion": "; ".join(notes)}
        epoch = _EPOCH.fullmatch(path.name)
        network: str | None = None
        if epoch is not None:
            root["epoch"] = int(epoch[2])
            network = _symbol(path.with_name(f"{epoch[1]}-symbol.json"), limits, files)
        # A trainer numbers its parameters in an order that structural names do not tell.
        return RawCheckpoint(self.name, root, tuple(files), stamps, False, network)


def tensor(name: str, array: MxnetArray, path: str) -> TensorRef:
    """An array as a tensor."""
    extents = (Extent(path, array.offset, array.nbytes),) if array.nbytes else ()
    return TensorRef(name, array.shape, array.dtype, extents)


def names_of_symbol(given: Iterable[str]) -> Mapping[str, str]:
    """Name in a file or symbol -> torch's: `arg:bn0_gamma` is `bn0.weight`."""
    paths: dict[str, tuple[str, ...]] = {}
    for name in given:
        plain = _KIND.sub("", name, count=1)
        match = _LEAF.fullmatch(plain) if "." not in plain else None
        path = (match["layer"], match["leaf"]) if match is not None else tuple(plain.split("."))
        paths[name] = path if path not in paths.values() else (name,)
    names = torch_names(paths.values())
    return {name: names[path] for name, path in paths.items()}


def _symbol(path: Path, limits: Limits, files: list[Path]) -> str | None:
    """The symbol that Module keeps beside its parameters; None where there is none to read."""
    if not path.is_file():
        return None
    with reading(path) as file:
        if file.size > limits.json_bytes:
            return None
        text = file.read(0, file.size)
    files.append(path)
    return text.decode("utf-8", "replace")


def _states(
    path: Path, limits: Limits, files: list[Path], stamps: dict[str, FileStamp]
) -> MxnetStates | None:
    beside = path.with_suffix(".states")
    if beside == path or not beside.is_file():
        return None
    states, stamp = read_states(beside, limits)
    files.append(beside)
    stamps |= stamp
    return states
