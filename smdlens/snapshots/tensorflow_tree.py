"""TensorFlow variables in our terms: weights under torch's names, slots by weight.

Adam's moments are the same numbers everywhere. TF 1's MomentumOptimizer keeps torch's momentum
(v = m v + g). Keras' SGD keeps v = m v - lr g, whose learning rates cannot be taken out again once
they changed: such buffers are left out, which is noted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smdlens.snapshots.foreign_names import Path, output_first, torch_names
from smdlens.snapshots.records import TensorRef

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT = re.compile(r"(?P<base>.*)/\.OPTIMIZER_SLOT/[^/]+/(?P<slot>[^/]+)/\.ATTRIBUTES/.*")
_OPTIMIZER = re.compile(r"(?:.*/)?_?optimizer/(?P<rest>.*)")
_AVERAGE = "/ExponentialMovingAverage"
_TF1_SLOTS = {"Momentum": "momentum_buffer", "Adam": "exp_avg", "Adam_1": "exp_avg_sq"}
_LEGACY_SLOTS = {"m": "exp_avg", "v": "exp_avg_sq"}
_SETTINGS = {
    "_learning_rate": "lr", "learning_rate": "lr", "momentum": "momentum", "beta_1": "beta1",
    "beta_2": "beta2",
}  # fmt: skip
_COUNTERS = ("_iterations", "iterations", "iter")
_NOT_WEIGHTS = re.compile(
    r"(?:.*/)?(?:keras_api|metrics|_metrics|save_counter|_loss_tracker)(?:/.*)?"
)
KERAS_MOMENTUM = "the momentum of Keras' SGD holds its learning rates (v = m v - lr g): left out"
NOTE = "names and axes shown as torch has them (kernel: out, in, spatial)"


@dataclass(frozen=True, slots=True)
class Variable:
    """One saved tensor: its key, its own name ("" where unknown) and its place in the model."""

    key: str
    name: str
    tensor: TensorRef
    order: int


def from_variables(variables: Sequence[Variable]) -> dict[str, Any]:
    """A checkpoint's content as nested plain trees."""
    found = _Sorted()
    for variable in sorted(variables, key=lambda v: v.order):
        found.take(variable)
    return found.root()


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

    def take(self, variable: Variable) -> None:
        key, ref = variable.key, variable.tensor
        base, slash, last = key.rpartition("/")
        inside = _OPTIMIZER.fullmatch(key.removesuffix(_VALUE)) if key.endswith(_VALUE) else None
        if (slot := _SLOT.fullmatch(key)) is not None:
            self.slots.append((slot["base"] + _VALUE, f"keras {slot['slot']}", ref))
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
        if rest in _COUNTERS:
            self.others["iteration"] = variable.tensor
        elif rest in _SETTINGS:
            self.settings[_SETTINGS[rest]] = variable.tensor
        elif rest.startswith("_variables/") and variable.name:
            self.keras.append((variable.name, variable.tensor))
        if rest in _COUNTERS and "/" in variable.name:
            self.others["optimizer_name"] = variable.name.partition("/")[0]

    def root(self) -> dict[str, Any]:
        names = torch_names(self.weights)
        state: dict[str, dict[str, Any]] = {}
        notes = [NOTE]
        for key, slot, ref in [*self.slots, *self._keras_slots()]:
            path = self.keys.get(key)
            ours = _TF1_SLOTS.get(slot) or _LEGACY_SLOTS.get(slot.removeprefix("keras "))
            if path is None or ref.shape != self.weights[path].shape:
                continue
            if ours is None:
                notes += [KERAS_MOMENTUM] if slot == "keras momentum" else []
                continue
            state.setdefault(names[path], {})[ours] = output_first(path, ref)
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
            root["optimizer"] = {"state": state, "param_groups": [group]}
        return root

    def _keras_slots(self) -> list[tuple[str, str, TensorRef]]:
        """Keras 3's slots, called by their weight's name with underscores and the slot's."""
        by_flat = {"_".join(path): key for key, path in self.keys.items()}
        found: dict[str, dict[str, TensorRef]] = {}
        for name, ref in self.keras:
            flat, _, slot = name.partition("/")[2].rpartition("_")
            if flat in by_flat:
                found.setdefault(by_flat[flat], {})[slot] = ref
        result = []
        for key, held in found.items():
            adam = "momentum" in held and "velocity" in held
            names = {"momentum": "keras m", "velocity": "keras v"} if adam else {}
            result += [(key, names.get(s, f"keras {s}"), ref) for s, ref in held.items()]
        return result
