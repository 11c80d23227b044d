"""The graph in a file, whichever kind of file it is; nothing in it is run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from smdlens.containers.files import open_regular
from smdlens.containers.zip_directory import read_zip_directory
from smdlens.errors import GraphError, SnapshotError
from smdlens.symmetry.model_graph import ModelGraph

_SUFFIXES = (".pt2", ".onnx", ".keras", ".h5", "symbol.json", "saved_model.pb", ".mlir")
_HEAD = 4096
_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
_EXPECTED = (
    "a .pt2 (torch.export.save), .onnx, .keras, whole .h5 or -symbol.json file, "
    "an archive of torch.jit.save, the folder of a SavedModel, StableHLO as text (.mlir), "
    "or a .json program of paddle.jit.save"
)


def is_graph_file(name: str | os.PathLike[str]) -> bool:
    """Whether a name is one of a file or folder rather than PKG.MOD:FACTORY."""
    return str(name).lower().endswith(_SUFFIXES) or Path(name).exists()


def load_graph(path: str | os.PathLike[str], inputs: Sequence[object] | None = None) -> ModelGraph:
    """Reads the graph in a file or folder, by its content where that tells.

    Args:
        path: The file or folder.
        inputs: Shapes of the network's inputs, for files that do not hold them.

    Raises:
        GraphError: It cannot be read or understood.
    """
    place = Path(path)
    if place.name == "saved_model.pb":
        place = place.parent
    if place.is_dir():
        if (place / "saved_model.pb").exists():
            return _saved_model(place)
        raise _none(path, "a folder without saved_model.pb")
    read = _reader(place, inputs)
    if read is None:
        raise _none(path, f"suffix {place.suffix!r}")
    return read(place)


def program_of(kind: str, path: Path, inputs: Sequence[object] | None = None) -> ModelGraph | None:
    """The graph in a checkpoint of a format whose files are programs; None for another one.

    Args:
        kind: Name of the format.
        path: The checkpoint.
        inputs: Shapes of the network's inputs, for files that do not hold them.

    Raises:
        GraphError: It cannot be read or understood.
    """
    if kind == "torch-zip":
        return _torchscript(path, inputs)
    read = {"torch-export": _pt2, "onnx": _onnx}.get(kind)
    return None if read is None else read(path)


def _none(path: str | os.PathLike[str], found: str) -> GraphError:
    return GraphError(
        "no graph is read from this",
        subject=str(path),
        expected=_EXPECTED,
        found=found,
        remedy="Or name a factory of the model with --model PKG.MOD:FACTORY.",
    )


def _reader(path: Path, inputs: Sequence[object] | None) -> Callable[[Path], ModelGraph] | None:
    head, suffix = _head(path), path.suffix.lower()
    if head.startswith(_ZIP) and _is_torchscript(path):
        return partial(_torchscript, inputs=inputs)
    if path.name.endswith("symbol.json"):
        return _mxnet
    if head.lstrip().startswith(b"{") and b'"base_code"' in head:
        return _paddle
    if is_stablehlo(head) or suffix == ".mlir":
        return _stablehlo
    if head.startswith(_HDF5) or suffix in (".keras", ".h5"):
        return _keras
    if suffix == ".pt2":
        return _pt2
    return _onnx if suffix == ".onnx" else None


def _head(path: Path) -> bytes:
    """The first bytes; none where the reader that the name stands for has to say what is wrong."""
    try:
        with open_regular(path) as file:
            return file.read(0, min(_HEAD, file.size))
    except SnapshotError as error:
        if path.name.lower().endswith(_SUFFIXES):
            return b""
        raise GraphError(error.message, subject=str(path), remedy=error.remedy) from error


def is_stablehlo(head: bytes) -> bool:
    """Whether a file begins as MLIR does, text or bytecode."""
    return head.startswith((b"ML\xefR", b"#loc", b"module @", b"module attributes", b"module {"))


def _is_torchscript(path: Path) -> bool:
    from smdlens.symmetry.torchscript_archive import is_torchscript

    try:
        with open_regular(path) as file:
            return is_torchscript(read_zip_directory(file))
    except SnapshotError:
        return False


def _torchscript(path: Path, inputs: Sequence[object] | None) -> ModelGraph:
    from smdlens.symmetry.from_torchscript import graph_of_torchscript
    from smdlens.symmetry.loading import input_shapes

    return graph_of_torchscript(path, input_shapes(inputs))


def _paddle(path: Path) -> ModelGraph:
    from smdlens.symmetry.from_paddle import graph_of_paddle

    return graph_of_paddle(path)


def _stablehlo(path: Path) -> ModelGraph:
    from smdlens.symmetry.from_stablehlo import graph_of_stablehlo

    return graph_of_stablehlo(path)


def _pt2(path: Path) -> ModelGraph:
    from smdlens.symmetry.from_pt2 import graph_of_pt2

    return graph_of_pt2(path)


def _onnx(path: Path) -> ModelGraph:
    from smdlens.symmetry.from_onnx import graph_of_onnx

    return graph_of_onnx(path)


def _keras(path: Path) -> ModelGraph:
    from smdlens.symmetry.from_keras import graph_of_keras_file

    return graph_of_keras_file(path)


def _mxnet(path: Path) -> ModelGraph:
    from smdlens.symmetry.from_mxnet import graph_of_mxnet_file

    return graph_of_mxnet_file(path)


def _saved_model(path: Path) -> ModelGraph:
    from smdlens.symmetry.from_saved_model import graph_of_saved_model

    return graph_of_saved_model(path)
