"""TensorFlow variables in our terms: weights under torch's names, slots by weight.

Adam's moments are the same numbers everywhere. TF 1's MomentumOptimizer keeps torch's momentum
(v = m v + g); Keras' SGD keeps v = m v - lr g, which is shown divided by -lr (keras_tree.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smdlens.snapshots.foreign_names import Path, output_first, torch_names
from smdlens.snapshots.keras_slots import by_name, optimizer_kind
from smdlens.snapshots.keras_tree import NO_RATE, NOTE, SCALED
from smdlens.snapshots.keras_variables import KerasVariable
from smdlens.snapshots.records import TensorRef
from smdlens.snapshots.tensorflow_graph import ObjectGraph

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT = re.compile(r"(?P<base>.*)/\.OPTIMIZER_SLOT/[^/]+/(?P<slot>[^/]+)/\.ATTRIBUTES/.*")
_OPTIMIZER = re.compile(r"(?:.*/)?_?optimizer/(?P<rest>.*)")
_AVERAGE = "/ExponentialMovingAverage"
_TF1_SLOTS = {
    "Momentum": "momentum_buffer", "Adam": "exp_avg", "Adam_1": "exp_avg_sq", "adam_m": "exp_avg",
    "adam_v": "exp_avg_sq",
}  # fmt: skip
# Numbers of an optimizer or a trainer, which are no weights.
_COUNTS = re.compile(
    r"(?:.*/)?(?:beta[12]_power|global_step|save_counter|learning_rate|lr)(?:_\d+)?"
)
# What TensorFlow 1 calls kernels; always spatial, in, out.
_KERNELS_1 = {"weights": "kernel", "w": "kernel", "W": "kernel", "DW": "kernel",
              "filter": "kernel", "filters": "kernel", "depthwise_weights": "depthwise_kernel",
              "pointwise_weights": "pointwise_kernel"}  # fmt: skip
_KERAS_SLOTS = {
    "m": "exp_avg", "v": "exp_avg_sq", "momentum": "exp_avg", "velocity": "exp_avg_sq",
    "vhat": "max_exp_avg_sq", "velocity_hat": "max_exp_avg_sq",
}  # fmt: skip
_KINDS = ("sgd", "adam", "adamw", "lion")
_SETTINGS = {
    "_learning_rate": "lr", "learning_rate": "lr", "momentum": "momentum", "beta_1": "beta1",
    "beta_2": "beta2",
}  # fmt: skip
_COUNTERS = ("_iterations", "iterations", "iter")
_NOT_WEIGHTS = re.compile(
    r"(?:.*/)?(?:keras_api|metrics|_metrics|save_counter|_loss_tracker)(?:/.*)?"
)


@dataclass(frozen=True, slots=True)
class Variable:
    """One saved tensor: its key, its own name ("" where unknown) and its place in the model."""

    key: str
    name: str
    tensor: TensorRef
    order: int


def from_variables(
    variables: Sequence[Variable],
    number: Callable[[TensorRef], float | None],
    graph: ObjectGraph,
) -> dict[str, Any]:
    """A checkpoint's content as nested plain trees.

    Args:
        variables: The saved tensors.
        number: Reads a scalar.
        graph: The objects that hold them; empty where none is saved.
    """
    found = _Sorted(graph, {v.key: v.tensor.shape for v in variables})
    for variable in sorted(_once(variables), key=lambda v: v.order):
        found.take(variable)
    return found.root(number)


def _once(variables: Sequence[Variable]) -> list[Variable]:
    """Keras' export writes every variable of the model a second time, as members of a set."""
    listed = {v.name for v in variables if v.key.startswith("variables/")}
    return [v for v in variables if not (v.key.startswith("_all_variables/") and v.name in listed)]


class _Sorted:
    """Variables told apart: weights, averages, slots, settings, counters."""

    def __init__(self, graph: ObjectGraph, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._graph = graph
        self._shapes = shapes
        self.named: dict[str, tuple[Path, TensorRef]] = {}
        self.weights: dict[Path, TensorRef] = {}
        self.averages: dict[Path, TensorRef] = {}
        self.keys: dict[str, Path] = {}
        self.slots: list[tuple[str, str, TensorRef]] = []
        self.keras: dict[str, tuple[str, TensorRef]] = {}
        self.settings: dict[str, Any] = {}
        self.others: dict[str, Any] = {}
        self.wrapped = False

    def take(self, variable: Variable) -> None:
        key, ref = variable.key, variable.tensor
        base, slash, last = key.rpartition("/")
        inside = _OPTIMIZER.fullmatch(key.removesuffix(_VALUE)) if key.endswith(_VALUE) else None
        if (slot := _SLOT.fullmatch(key)) is not None:
            self.slots.append((slot["base"] + _VALUE, slot["slot"], ref))
        elif inside is not None and not inside["rest"].startswith("_trainable_variables"):
            self._of_optimizer(inside["rest"], variable)
        elif key == "global_step":
            self.others["global_step"] = ref
        elif slash and last in _TF1_SLOTS:
            self.slots.append((base, last, ref))
        elif key.endswith(_AVERAGE):
            self.averages[tuple(key.removesuffix(_AVERAGE).split("/"))] = ref
        elif slash and self._shapes.get(base) == ref.shape:
            return  # a buffer of another optimizer, under its weight
        elif _NOT_WEIGHTS.fullmatch(key) is None and (
            ref.shape or ("float" in ref.dtype and _COUNTS.fullmatch(key) is None)
        ):
            name = (variable.name or key.removesuffix(_VALUE)).removesuffix(":0")
            self.named[key] = tuple(name.split("/")), ref

    def _place(self) -> None:
        """Weights by their own names; those that share one by their places in the model."""
        shared = Counter(path for path, _ in self.named.values())
        places = self._graph.paths() if max(shared.values(), default=0) > 1 else {}
        for key, (path, ref) in self.named.items():
            if shared[path] > 1:
                path = tuple(part.lstrip("_") for part in places.get(key, ()))
                if not path or path in self.weights:
                    path = tuple(key.removesuffix(_VALUE).split("/"))
            self.weights[path] = ref
            self.keys[key] = path

    def _of_optimizer(self, rest: str, variable: Variable) -> None:
        # Mixed precision wraps the optimizer: the outer one's counter and rate stay 0.
        inner = rest.removeprefix("inner_optimizer/")
        outer = inner == rest and self.wrapped
        self.wrapped, rest = self.wrapped or inner != rest, inner
        if rest in _COUNTERS and not outer:
            self.others["iteration"] = variable.tensor
        elif rest in _SETTINGS and not outer:
            self.settings[_SETTINGS[rest]] = variable.tensor
        elif rest.startswith("_variables/") and variable.name:
            self.keras[variable.key] = variable.name, variable.tensor
        scope = variable.name.rpartition("/")[0] if rest in _COUNTERS else ""
        if rest.startswith("_variables/"):  # tf_keras' counter may stand outside its scope
            first = variable.name.partition("/")[0]
            scope = first if optimizer_kind(first) in _KINDS else ""
        if scope:
            self.others["optimizer_name"] = scope

    def root(self, number: Callable[[TensorRef], float | None]) -> dict[str, Any]:
        self._place()
        names = torch_names(self.weights)
        state: dict[str, dict[str, Any]] = {}
        notes = [NOTE]
        kind = optimizer_kind(str(self.others.get("optimizer_name", "")).rpartition("/")[2])
        kind = kind if kind in _KINDS else ""
        unnamed = self._graph.kind() if "optimizer_name" not in self.others else ""
        kind = kind or unnamed
        held_rate = self.settings.get("lr")
        rate = number(held_rate) if held_rate is not None else None
        for key, slot, ref in [*self.slots, *self._keras_slots()]:
            path = self.keys.get(key)
            ours = _TF1_SLOTS.get(slot) or _KERAS_SLOTS.get(slot)
            if path is None or ours is None or ref.shape != self.weights[path].shape:
                continue
            ref = self._oriented(path, ref)
            if kind == "sgd" and slot in ("m", "momentum"):
                notes.append(SCALED if rate else NO_RATE)
                if not rate:
                    continue
                ours, ref = "momentum_buffer", replace(ref, scale=-1.0 / rate)
            elif slot in _KERAS_SLOTS and kind not in ("adam", "adamw", "lion"):
                continue
            state.setdefault(names[path], {})[ours] = ref
        root: dict[str, Any] = {**self.others, "conversion": "; ".join(dict.fromkeys(notes))}
        root["model"] = {name: self._oriented(p, self.weights[p]) for p, name in names.items()}
        if self.averages:
            averaged = torch_names(self.averages)
            root["ema"] = {n: self._oriented(p, self.averages[p]) for p, n in averaged.items()}
        for held in state.values():
            if "exp_avg" in held and "iteration" in self.others:
                held["step"] = self.others["iteration"]
        beta1, beta2 = self.settings.pop("beta1", None), self.settings.pop("beta2", None)
        if beta1 is not None and beta2 is not None:
            self.settings["betas"] = (beta1, beta2)
        if state or self.settings:
            trained = [n for p, n in names.items() if not p[-1].startswith("moving_")]
            group = {**self.settings, "params": trained}
            name = "" if unnamed == "adam" else kind  # its decay may be coupled or not
            root["optimizer"] = {"state": state, "param_groups": [group], "class_name": name}
        return root

    def _oriented(self, path: Path, ref: TensorRef) -> TensorRef:
        """A kernel with its output axis first; a table of an embedding as it is."""
        leaf = path[-1]
        if leaf in _KERNELS_1 and not (len(ref.shape) == 2 and "emb" in "/".join(path).lower()):
            leaf = _KERNELS_1[leaf]
        bias = self.weights.get((*path[:-1], "bias"))
        n = len(ref.shape)
        if leaf == "kernel" and bias is not None and n > 2 and ref.shape[-1] > 1:
            # Keras 3 calls a depthwise kernel (spatial, in, multiplier) kernel as well.
            both = ref.shape[-2] * ref.shape[-1]
            leaf = "depthwise_kernel" if bias.shape == (both,) else leaf
        return output_first((*path[:-1], leaf), ref)

    def _keras_slots(self) -> list[tuple[str, str, TensorRef]]:
        """Keras' numbered variables: as the optimizer lists them, else by their names."""
        listed = [
            (weight, slot, self.keras[key][1])
            for weight, slot, key in self._graph.slots()
            if key in self.keras
        ]
        if listed:
            return listed
        keys = list(self.keys)
        variables = [
            KerasVariable(self.keys[key], "/".join(self.named[key][0]),
                          self.weights[self.keys[key]], trained=True, sequence="")
            for key in keys
        ]  # fmt: skip
        found = by_name(list(self.keras.values()), variables)
        return [(keys[slot.variable], slot.name, slot.tensor) for slot in found.slots]
