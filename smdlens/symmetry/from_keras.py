"""A Keras model's own description -> `ModelGraph`: the same table of operators.

The description is JSON inside .h5 and .keras files: read as data, no layer is built. Shapes come
from it and from the checkpoint's tensors. A layer of an unknown class gets the sound default.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smdlens.errors import GraphError, SnapshotError
from smdlens.snapshots.series import open_snapshot
from smdlens.symmetry.keras_call import Builder, LayerCall, NotTranslated
from smdlens.symmetry.keras_layers import LAYERS
from smdlens.symmetry.keras_shapes import known_shape
from smdlens.symmetry.model_graph import ModelGraph, Ref, Shape

_BATCH, _OPEN = 2, 32  # any size of a batch, and of an axis that the description leaves open
_DEEPEST = 16
_MOST_CALLS = 100_000
Key = tuple[str, int, int]


def graph_of_keras_file(path: Path) -> ModelGraph:
    """The graph in a .keras or whole .h5 file.

    Raises:
        GraphError: It cannot be read, or holds no description of a model.
    """
    try:
        snapshot = open_snapshot(path)
    except SnapshotError as error:
        raise GraphError(error.message, subject=str(path), remedy=error.remedy) from error
    if snapshot.network is None:
        raise GraphError(
            "the file holds weights and no description of the model",
            subject=str(path),
            expected="a file of model.save('model.keras')",
            remedy="Or name another graph file.",
        )
    shapes = {name: ref.shape for name, ref in snapshot.tensors.items()}
    return graph_of_keras(snapshot.network, shapes, str(path))


def graph_of_keras(text: str, tensors: Mapping[str, Shape], subject: str) -> ModelGraph:
    """The graph of a described model.

    Args:
        text: The description, JSON as Keras writes it.
        tensors: Shapes of the checkpoint's tensors by the names they are shown under.
        subject: The file, for errors.

    Raises:
        GraphError: A form of description that is not known.
    """
    builder = Builder(tensors)
    try:
        outputs = _Model(builder, json.loads(text), (), True, 0).called(None)
    except GraphError:
        raise
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, ZeroDivisionError,
            OverflowError, RecursionError) as error:  # fmt: skip
        raise GraphError(
            f"Keras' description of the model is of a form that is not known "
            f"({type(error).__name__}: {error})",
            subject=subject,
            remedy="Use --graph with an .onnx file of the model.",
        ) from error
    if not outputs or not builder.parameters:
        raise GraphError("the described model has no weights of this checkpoint", subject=subject)
    return ModelGraph(
        builder.parameters, builder.constants, tuple(builder.nodes), tuple(outputs), "keras"
    )


class _Model:
    """A sequential or functional model while its layers are called."""

    def __init__(
        self, builder: Builder, model: Any, path: tuple[str, ...], trainable: bool, depth: int
    ) -> None:
        if depth > _DEEPEST:
            raise ValueError("models inside each other without end")
        self.builder = builder
        self.path = path
        self.depth = depth
        self.config: Mapping[str, Any] = model["config"]
        self.trainable = trainable and self.config.get("trainable") is not False
        self.layers: list[Mapping[str, Any]] = list(self.config["layers"])
        self.kind = str(model.get("class_name", ""))
        self.first_shape = self.config.get("build_input_shape")
        self.declared = dict(_declared(self.layers))

    def called(self, inputs: tuple[str, ...] | None) -> list[str]:
        """Names of the outputs for these inputs; None: inputs of the network itself."""
        sequential = self.kind.endswith("Sequential") or "input_layers" not in self.config
        return self._sequence(inputs) if sequential else self._functional(inputs)

    def _sequence(self, inputs: tuple[str, ...] | None) -> list[str]:
        values = inputs
        for entry in self.layers:
            if entry["class_name"] == "InputLayer":
                if values is None:
                    values = (self._source(entry),)
                continue
            if values is None:
                values = (self._source(entry),)
            values = tuple(self._layer(entry, values, None))
        return list(values or ())

    def _functional(self, inputs: tuple[str, ...] | None) -> list[str]:
        values: dict[Key, str] = {}
        heads = list(_keys(self.config["input_layers"]))
        by_name = {entry.get("name", entry["config"]["name"]): entry for entry in self.layers}
        for at, key in enumerate(heads):
            values[key] = self._source(by_name[key[0]]) if inputs is None else inputs[at]
        used: dict[str, int] = {}
        places = (self.layers, self.config["output_layers"])
        for name, at, _ in (key for place in places for key in _keys(place)):
            used[name] = max(used.get(name, 0), at)
        pending = []
        for name, entry in by_name.items():
            calls = entry.get("inbound_nodes", [])
            # Keras 2 counts the making of a model inside this one as its first call.
            offset = max(used.get(name, 0) + 1 - len(calls), 0) if calls else 0
            pending += [(name, at + offset, call) for at, call in enumerate(calls)]
        for _ in range(_MOST_CALLS):
            if not pending:
                break
            waiting = []
            for name, at, call in pending:
                needed = list(_keys(call))
                if any(key not in values for key in needed):
                    waiting.append((name, at, call))
                    continue
                given = tuple(values[key] for key in needed)
                made = self._layer(by_name[name], given, self.declared.get((name, at, 0)))
                for index, output in enumerate(made):
                    values[name, at, index] = output
            if len(waiting) == len(pending):
                raise ValueError("layers that wait for each other")
            pending = waiting
        return [values[key] for key in _keys(self.config["output_layers"])]

    def _source(self, entry: Mapping[str, Any]) -> str:
        config = entry["config"]
        said = config.get("batch_shape", config.get("batch_input_shape", self.first_shape))
        if not isinstance(said, list | tuple):
            raise ValueError("an input of unknown shape")
        name = ".".join((*self.path, str(config.get("name", ""))))
        return self.builder.source(name, _sizes(said))

    def _layer(
        self, entry: Mapping[str, Any], inputs: tuple[str, ...], declared: Shape | None
    ) -> list[str]:
        config = entry["config"]
        path = (*self.path, str(config.get("name", "")))
        if isinstance(config, dict) and isinstance(config.get("layers"), list):
            inner = _Model(self.builder, entry, path, self.trainable, self.depth + 1)
            return inner.called(inputs)
        kind = str(entry["class_name"]).rpartition(">")[2]
        trainable = self.trainable and config.get("trainable") is not False
        call = LayerCall(self.builder, path, kind, config, inputs, trainable)
        translate = LAYERS.get(kind)
        before = len(self.builder.nodes)
        if translate is not None:
            try:
                return [translate(call)]
            except NotTranslated:
                del self.builder.nodes[before:]
        return [self._unknown(call, declared)]

    def _unknown(self, call: LayerCall, declared: Shape | None) -> str:
        """A function of its inputs and of every weight under its name."""
        prefix = ".".join(call.path) + "."
        weights = [
            self.builder.parameter(name)
            for name in self.builder.tensors
            if name.startswith(prefix) and not name.endswith(("running_mean", "running_var"))
        ]
        shape = declared if declared is not None else known_shape(call)
        if shape is None:
            raise ValueError(f"the layer {call.path[-1]!r} of class {call.kind!r}: unknown shape")
        used = [Ref(name) for name in (*call.inputs, *weights) if name is not None]
        return call.node(f"keras.{call.kind}", {"inputs": used}, shape)


def _keys(value: Any) -> Iterator[Key]:
    """Places (layer, call, output) named anywhere in a value, in order; Keras 2's and Keras 3's."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            name, call, output = value["config"]["keras_history"]
            yield str(name), int(call), int(output)
        else:
            for item in value.values():
                yield from _keys(item)
    elif isinstance(value, list | tuple):
        whole = len(value) in (3, 4) and isinstance(value[0], str)
        if whole and all(type(n) is int for n in value[1:3]):
            if value[1] >= 0:  # below: a constant, which comes as ["_CONSTANT_VALUE", -1, ...]
                yield value[0], value[1], value[2]
            value = value[3:]
        for item in value:
            yield from _keys(item)


def _declared(value: Any) -> Iterator[tuple[Key, Shape]]:
    """Shapes of values as Keras 3 writes them wherever one is used."""
    if isinstance(value, Mapping):
        config = value.get("config")
        if value.get("class_name") == "__keras_tensor__" and isinstance(config, Mapping):
            name, call, output = config["keras_history"]
            if isinstance(config.get("shape"), list):
                yield (str(name), int(call), int(output)), _sizes(config["shape"])
        else:
            for item in value.values():
                yield from _declared(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _declared(item)


def _sizes(shape: Any) -> Shape:
    """A shape with the batch and open sizes filled in."""
    if len(shape) > 8 or any(n is not None and not 0 < int(n) < 1 << 24 for n in shape):
        raise ValueError("an impossible shape")
    return tuple(_BATCH if at == 0 else int(n or _OPEN) for at, n in enumerate(shape))
