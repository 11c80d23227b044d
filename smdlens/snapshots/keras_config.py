"""What Keras' own description of a model says: its layers in order, its optimizer's settings.

Read as data (`model_config` and `training_config` of an .h5 file, `config.json` of a .keras
archive); no layer is built, no class is looked up.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_DEEPEST = 16
_CAMEL = re.compile(r"(.)([A-Z][a-z0-9]+)")
_HUMP = re.compile(r"([a-z])([A-Z])")


@dataclass(frozen=True, slots=True)
class KerasLayer:
    """A layer of the description.

    Attributes:
        path: Names of the models it lies in, then its own.
        kind: Its class ("Conv2D").
        config: Its settings, as written: data of a stranger.
        trainable: Whether it and the models around it are trained.
    """

    path: tuple[str, ...]
    kind: str
    config: Mapping[str, Any]
    trainable: bool


def layers_of(model: Any) -> list[KerasLayer]:
    """Layers of a described model in their order, those of nested models in their place."""
    return list(_layers(model, (), True, 0))


def _layers(model: Any, path: tuple[str, ...], trainable: bool, depth: int) -> Iterator[KerasLayer]:
    config = model.get("config") if isinstance(model, Mapping) else None
    # Keras before 2.2.3 wrote a sequential model as a bare list.
    entries = config.get("layers") if isinstance(config, Mapping) else config
    if not isinstance(entries, list) or depth > _DEEPEST:
        return
    for entry in entries:
        inner = entry.get("config") if isinstance(entry, Mapping) else None
        if not isinstance(inner, (Mapping, list)):
            continue
        settings = inner if isinstance(inner, Mapping) else {}
        name = settings.get("name", entry.get("name"))
        own = (*path, name if isinstance(name, str) else "")
        trained = trainable and settings.get("trainable") is not False
        if isinstance(settings.get("layers"), list) or isinstance(inner, list):
            yield from _layers(entry, own, trained, depth + 1)
        else:
            yield KerasLayer(own, str(entry.get("class_name", "")), settings, trained)


def layer_groups(model: Any) -> dict[tuple[str, ...], KerasLayer]:
    """Layers by the groups of a file that are named by class: ("layers", "dense_1") and so on.

    Keras numbers the layers of one class within each model, from the second on.
    """
    return dict(_groups(model, (), (), 0))


def _groups(
    model: Any, keys: tuple[str, ...], path: tuple[str, ...], depth: int
) -> Iterator[tuple[tuple[str, ...], KerasLayer]]:
    config = model.get("config") if isinstance(model, Mapping) else None
    entries = config.get("layers") if isinstance(config, Mapping) else None
    if not isinstance(entries, list) or depth > _DEEPEST:
        return
    inside = {layer.path: layer for layer in _layers(model, path, True, depth)}
    seen: Counter[str] = Counter()
    for entry in entries:
        settings = entry.get("config") if isinstance(entry, Mapping) else None
        if not isinstance(settings, Mapping):
            continue
        kind = snake_case(str(entry.get("class_name", "")))
        number, seen[kind] = seen[kind], seen[kind] + 1
        key = (*keys, "layers", f"{kind}_{number}" if number else kind)
        name = settings.get("name", entry.get("name"))
        own = (*path, name if isinstance(name, str) else "")
        if isinstance(settings.get("layers"), list):
            yield from _groups(entry, key, own, depth + 1)
        elif own in inside:
            yield key, inside[own]


def snake_case(kind: str) -> str:
    """A class's name as Keras names groups by it ("Conv2D" is "conv2d")."""
    flat = re.sub(r"\W+", "", kind)
    return _HUMP.sub(r"\1_\2", _CAMEL.sub(r"\1_\2", flat)).lower()


@dataclass(frozen=True, slots=True)
class KerasOptimizer:
    """Settings of the optimizer that a model was compiled with.

    Attributes:
        kind: Its class in lower case ("sgd").
        config: Its settings, as written.
    """

    kind: str
    config: Mapping[str, Any]

    def number(self, name: str) -> float | None:
        """A finite number among the settings."""
        return _number(self.config.get(name))

    def rate(self, iteration: int | None) -> float | None:
        """The learning rate of the last update before `iteration`; None where it is not known."""
        rate = self.config.get("learning_rate", self.config.get("lr"))
        if isinstance(rate, Mapping):
            return scheduled_rate(rate, max(iteration - 1, 0)) if iteration is not None else None
        decay = self.number("decay")
        constant = _number(rate)
        if constant is None or not decay:
            return constant
        return constant / (1.0 + decay * max(iteration - 1, 0)) if iteration is not None else None


def optimizer_of_config(compiled: Any) -> KerasOptimizer | None:
    """The optimizer in `training_config` or `compile_config`."""
    if not isinstance(compiled, Mapping):
        return None
    held = compiled.get("optimizer_config", compiled.get("optimizer"))
    kind = held.get("class_name") if isinstance(held, Mapping) else None
    config = held.get("config") if isinstance(held, Mapping) else None
    if isinstance(config, Mapping) and kind == "LossScaleOptimizer":
        return optimizer_of_config({"optimizer": config.get("inner_optimizer")})
    if not isinstance(kind, str) or not isinstance(config, Mapping):
        return None
    return KerasOptimizer(kind.rpartition(">")[2].lower(), config)


def l2_of(layer: KerasLayer, variable: str) -> float | None:
    """Factor of L2 regularisation of a layer's variable; 0 without, None where it is another kind.

    Keras adds l2 * sum(w^2) to the loss, so its gradient is that of a coupled decay of 2 * l2.
    """
    held = layer.config.get(f"{variable.removesuffix('_kernel')}_regularizer")
    if held is None and variable == "kernel":
        held = layer.config.get("depthwise_regularizer")
    if held is None:
        return 0.0
    config = held.get("config") if isinstance(held, Mapping) else None
    kind = held.get("class_name") if isinstance(held, Mapping) else held
    if not isinstance(kind, str) or kind.lower() not in ("l2", "l1l2", "l1_l2"):
        return None
    if not isinstance(config, Mapping):
        return 0.01 if kind.lower() == "l2" else None  # Keras' default
    if _number(config.get("l1", 0.0)) != 0.0:
        return None
    return _number(config.get("l2", 0.01))


def epsilon_of(layers: Sequence[KerasLayer]) -> float | None:
    """Epsilon of the batch normalisations, where all have the same."""
    found = {
        _number(layer.config.get("epsilon", 1e-3))  # Keras' default
        for layer in layers
        if layer.kind == "BatchNormalization"
    }
    return found.pop() if len(found) == 1 else None


def scheduled_rate(schedule: Mapping[str, Any], step: int) -> float | None:
    """Value of a schedule of `keras.optimizers.schedules` at a step; None for one of another kind.

    Formulas from the documentation of ExponentialDecay, PiecewiseConstantDecay, PolynomialDecay,
    InverseTimeDecay and CosineDecay.
    """
    config, kind = schedule.get("config"), schedule.get("class_name")
    if not isinstance(config, Mapping):
        return None
    try:
        return _number(_scheduled(config, kind, step))
    except (OverflowError, ZeroDivisionError):
        return None


def _scheduled(config: Mapping[str, Any], kind: Any, step: int) -> Any:
    if kind == "PiecewiseConstantDecay":
        bounds, values = config.get("boundaries"), config.get("values")
        if not isinstance(bounds, list) or not isinstance(values, list):
            return None
        steps = [_number(b) for b in bounds]
        if any(b is None for b in steps) or len(values) != len(steps) + 1:
            return None
        return _number(values[sum(1 for b in steps if b is not None and step > b)])
    first, length = _number(config.get("initial_learning_rate")), _number(config.get("decay_steps"))
    if first is None or length is None or length <= 0:
        return None
    rate = _number(config.get("decay_rate"))
    if kind in ("ExponentialDecay", "InverseTimeDecay") and rate is not None:
        done = step / length
        done = math.floor(done) if config.get("staircase") else done
        return first * rate**done if kind == "ExponentialDecay" else first / (1 + rate * done)
    if kind == "PolynomialDecay" and not config.get("cycle"):
        end, power = _number(config.get("end_learning_rate")), _number(config.get("power"))
        if end is None or power is None:
            return None
        return (first - end) * (1 - min(step / length, 1.0)) ** power + end
    if kind == "CosineDecay":
        alpha, target = _number(config.get("alpha", 0.0)), config.get("warmup_target")
        warm = _number(config.get("warmup_steps", 0)) or 0.0
        top = first if target is None else _number(target)
        if alpha is None or top is None:
            return None
        if target is not None and step < warm:
            return first + (top - first) * step / warm
        done = min((step - (warm if target is not None else 0.0)) / length, 1.0)
        return top * ((1 - alpha) * 0.5 * (1 + math.cos(math.pi * done)) + alpha)
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, Mapping):  # a scalar array, as Keras 3 may write it
        inner = value.get("config")
        value = inner.get("value") if isinstance(inner, Mapping) else None
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if good and math.isfinite(value) else None
