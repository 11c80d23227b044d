"""Keras' own files: .h5 and .weights.h5 (HDF5), and .keras (a zip archive around one).

Only data is read: no layer is built from the description of the model, nothing in it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from smdlens.containers.files import RegularFile, reading
from smdlens.containers.hdf5_file import MAGIC, Hdf5Dataset, Hdf5Group, read_hdf5
from smdlens.containers.json_header import parse_json
from smdlens.containers.limits import Limits
from smdlens.containers.window import FileWindow
from smdlens.containers.zip_directory import read_zip_directory, require_stored
from smdlens.errors import SnapshotUnsupportedError
from smdlens.snapshots.candidate import Candidate, RawCheckpoint
from smdlens.snapshots.chunks import PieceBudget
from smdlens.snapshots.hdf5_tensors import hdf5_tensor
from smdlens.snapshots.keras_config import (
    epsilon_of,
    layer_groups,
    layers_of,
    optimizer_of_config,
)
from smdlens.snapshots.keras_shards import Owners, is_shard_index, read_shards
from smdlens.snapshots.keras_tree import keras_root
from smdlens.snapshots.keras_variables import (
    legacy_slots,
    legacy_variables,
    numbered_slots,
    numbered_variables,
)
from smdlens.snapshots.records import TensorRef
from smdlens.snapshots.scalars import ScalarReader

EPSILON_KEY = "epsilon of batch normalisation"
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_FIRST = (b"metadata.json", b"config.json", b"model.weights.h5")


class KerasH5Reader:
    """Reader of Keras' HDF5 files."""

    name = "keras-h5"

    def recognises(self, candidate: Candidate) -> bool:
        """The signature of HDF5, or an index of shards."""
        return candidate.head.startswith(MAGIC) or is_shard_index(candidate.head)

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read groups and attributes; datasets stay where they are."""
        if is_shard_index(candidate.head):
            return self._shards(candidate, limits)
        with reading(candidate.path) as file:
            group = read_hdf5(file, limits)
            texts = [group.attributes.get(n) for n in ("model_config", "training_config")]
            model, compiled = (
                parse_json(text.encode(), subject=file.path, limits=limits, allow_nan=True)
                if isinstance(text, str)
                else None
                for text in texts
            )
            root = _root(group, [file], {}, model, compiled, limits)
        network = texts[0] if isinstance(texts[0], str) and layers_of(model) else None
        stamps = {file.path: file.stamp}
        return RawCheckpoint(self.name, root, (candidate.path,), stamps, network=network)

    def _shards(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        with ExitStack() as stack:
            group, owners = read_shards(candidate.path, limits, stack)
            files = list({id(file): file for file in owners.values()}.values())
            root = _root(group, files, owners, None, None, limits)
        stamps = {file.path: file.stamp for file in files}
        return RawCheckpoint(self.name, root, (candidate.path, *map(Path, stamps)), stamps)


class KerasArchiveReader:
    """Reader of .keras archives (Keras 3, and tf_keras since 2.12)."""

    name = "keras"

    def recognises(self, candidate: Candidate) -> bool:
        """A zip whose first entry is one of Keras' three."""
        head = candidate.head
        if not head.startswith(b"PK\3\4"):
            return False
        return head[30 : 30 + int.from_bytes(head[26:28], "little")] in _FIRST

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the description and the HDF5 file inside, in place."""
        with reading(candidate.path) as file:
            entries = read_zip_directory(file, limits)
            held = entries.get(_WEIGHTS)
            if held is None:
                raise SnapshotUnsupportedError(
                    "an archive without the weights of a Keras model",
                    subject=file.path,
                    expected=repr(_WEIGHTS),
                    remedy="Save with model.save('model.keras'), unsharded.",
                )
            config: Any = None
            network: str | None = None
            described = entries.get(_CONFIG)
            if described is not None:
                require_stored(file, described)
                text = FileWindow(file, described.offset, described.nbytes)
                subject = f"{file.path}:{_CONFIG}"
                data = text.read(0, min(text.size, limits.json_bytes + 1))
                config = parse_json(data, subject=subject, limits=limits, allow_nan=True)
                network = data.decode() if layers_of(config) else None
            require_stored(file, held)
            inner = FileWindow(file, held.offset, held.nbytes)
            group = read_hdf5(inner, limits)
            compiled = config.get("compile_config") if isinstance(config, dict) else None
            root = _root(group, [inner], {}, config, compiled, limits)
        stamps = {file.path: file.stamp}
        return RawCheckpoint(self.name, root, (candidate.path,), stamps, network=network)


def _root(
    group: Hdf5Group,
    files: Sequence[RegularFile],
    owners: Owners,
    model: Any,
    compiled: Any,
    limits: Limits,
) -> dict[str, Any]:
    """What the files hold; `owners` tells several files apart."""
    budget = PieceBudget(files[0].path, limits)

    def locate(name: str, dataset: Hdf5Dataset) -> TensorRef:
        return hdf5_tensor(name, dataset, owners.get(id(dataset), files[0]), budget)

    layers = layers_of(model)
    optimizer = optimizer_of_config(compiled)
    epsilon = epsilon_of(layers)
    weights, place = group.members.get("model_weights"), "model_weights/"
    if not isinstance(weights, Hdf5Group):
        weights, place = group, ""
    with ScalarReader({file.path: file.stamp for file in files}) as scalars:

        def number(ref: TensorRef) -> float | None:
            return scalars.number(ref)

        variables = legacy_variables(weights, place, layers, locate)
        if variables:
            saved = group.members.get("optimizer_weights")
            named = (
                legacy_slots(saved, "optimizer_weights/", locate)
                if isinstance(saved, Hdf5Group)
                else []
            )
            root = keras_root(variables, named, optimizer, number)
            return root if epsilon is None else {**root, EPSILON_KEY: epsilon}
        variables = numbered_variables(group, layers, layer_groups(model), locate)
        if not variables:
            raise SnapshotUnsupportedError(
                "an HDF5 file that holds no weights as Keras saves them",
                subject=files[0].path,
                expected="groups named by 'layer_names', or 'vars' in each layer",
                found=", ".join(sorted(group.members)[:10]) or "an empty file",
                remedy="Save with model.save(...) or model.save_weights(...).",
            )
        root = keras_root(variables, numbered_slots(group, locate), optimizer, number)
        return root if epsilon is None else {**root, EPSILON_KEY: epsilon}
