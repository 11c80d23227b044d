"""TensorFlow variables in our terms: weights under torch's names, slots by weight.

Adam's moments are the same numbers everywhere. TF 1's MomentumOptimizer keeps torch's momentum
(v = m v + g); Keras' SGD keeps v = m v - lr g, which is shown divided by -lr (keras_tree.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smdlens.snapshots.foreign_names import Path, output_first, torch_names
from smdlens.snapshots.keras_slots import by_name
from smdlens.snapshots.keras_tree import NO_RATE, NOTE, SCALED
from smdlens.snapshots.keras_variables import KerasVariable
from smdlens.snapshots.records import TensorRef

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT = re.compile(r"(?P<base>.*)/\.OPTIMIZER_SLOT/[^/]+/(?P<slot>[^/]+)/\.ATTRIBUTES/.*")
_OPTIMIZER = re.compile(r"(?:.*/)?_?optimizer/(?P<rest>.*)")
_AVERAGE = "/ExponentialMovingAverage"
_TF1_SLOTS = {"Momentum": "momentum_buffer", "Adam": "exp_avg", "Adam_1": "exp_avg_sq"}
_KERAS_SLOTS = {"m": "exp_avg", "v": "exp_avg_sq", "momentum": "exp_avg", "velocity": "exp_avg_sq"}
_NAMED = re.compile(r"(sgd|adamw|adam|lion)(?:_\d+)?")
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
    variables: Sequence[Variable], number: Callable[[TensorRef], float | None]
) -> dict[str, Any]:
    """A checkpoint's content as nested plain trees.

    Args:
        variables: The saved tensors.
        number: Reads a scalar.
    """
    found = _Sorted()
    for variable in sorted(variables, key=lambda v: v.order):
        found.take(variable)
    return found.root(number)


class _Sorted:
    """Variables told apart: weights, averages, slots, settings, counters."""

    def __init__(self) -> None:
        self.weights: dict[Path, TensorRef] = {}
        self.averages: dict[Path, TensorRef] = {}
        self.keys: dict[str, Path] = {}
        self.slots: list[tuple[str, str, TensorRef]] = []
        self.keras: list[tuple[str, TensorRef]] = []
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
        elif ref.shape and _NOT_WEIGHTS.fullmatch(key) is None:
            path = tuple((variable.name or key.removesuffix(_VALUE)).removesuffix(":0").split("/"))
            if path in self.weights:
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
            self.keras.append((variable.name, variable.tensor))
        if variable.name.count("/") and (rest in _COUNTERS or rest.startswith("_variables/")):
            self.others["optimizer_name"] = variable.name.partition("/")[0]

    def root(self, number: Callable[[TensorRef], float | None]) -> dict[str, Any]:
        names = torch_names(self.weights)
        state: dict[str, dict[str, Any]] = {}
        notes = [NOTE]
        named = _NAMED.fullmatch(str(self.others.get("optimizer_name", "")).lower())
        kind = named[1] if named is not None else ""
        held_rate = self.settings.get("lr")
        rate = number(held_rate) if held_rate is not None else None
        for key, slot, ref in [*self.slots, *self._keras_slots()]:
            path = self.keys.get(key)
            ours = _TF1_SLOTS.get(slot) or _KERAS_SLOTS.get(slot)
            if path is None or ours is None or ref.shape != self.weights[path].shape:
                continue
            ref = output_first(path, ref)
            if kind == "sgd" and slot in ("m", "momentum"):
                notes.append(SCALED if rate else NO_RATE)
                if not rate:
                    continue
                ours, ref = "momentum_buffer", replace(ref, scale=-1.0 / rate)
            elif slot in _KERAS_SLOTS and kind not in ("adam", "adamw", "lion"):
                continue
            state.setdefault(names[path], {})[ours] = ref
        root: dict[str, Any] = {**self.others, "conversion": "; ".join(dict.fromkeys(notes))}
        root["model"] = {name: output_first(p, self.weights[p]) for p, name in names.items()}
        if self.averages:
            averaged = torch_names(self.averages)
            root["ema"] = {n: output_first(p, self.averages[p]) for p, n in averaged.items()}
        for held in state.values():
            if "exp_avg" in held and "iteration" in self.others:
                held["step"] = self.others["iteration"]
        beta1, beta2 = self.settings.pop("beta1", None), self.settings.pop("beta2", None)
        if beta1 is not None and beta2 is not None:
            self.settings["betas"] = (beta1, beta2)
        if state or self.settings:
            trained = [n for p, n in names.items() if not p[-1].startswith("moving_")]
            group = {**self.settings, "params": trained}
            root["optimizer"] = {"state": state, "param_groups": [group], "class_name": kind}
        return root

    def _keras_slots(self) -> list[tuple[str, str, TensorRef]]:
        """Keras' numbered variables, by the names they have in the model's graph."""
        keys = list(self.keys)
        variables = [
            KerasVariable(self.keys[key], "/".join(self.keys[key]), self.weights[self.keys[key]],
                          trained=True, sequence="")
            for key in keys
        ]  # fmt: skip
        found = by_name(self.keras, variables)
        return [(keys[slot.variable], slot.name, slot.tensor) for slot in found.slots]
