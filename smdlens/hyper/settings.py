"""What a trainer wrote down about itself beside the optimizer's state: its options.

Options say what was asked for, the optimizer's state what was used: where both speak, the state
wins. Options decide what a state leaves open (Adam or AdamW), and speak where nothing else does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from smdlens.hyper.finite import natural
from smdlens.hyper.settings_files import settings_files
from smdlens.snapshots.records import SnapshotSeries
from smdlens.vocabulary import OptimizerKind

# Keys under which files keep their options, and how the report calls them.
_PLACES: Mapping[str, str] = {
    "training_args": "training_args.bin",
    "args": "'args' in the checkpoints",
    "hyper_parameters": "'hyper_parameters' in the checkpoints",
    "hparams": "'hparams' in the checkpoints",
    "config": "'config' in the checkpoints",
    "cfg": "'cfg' in the checkpoints",
}
_OPTIMIZER_KEYS = ("optim", "opt", "optimizer", "optimizer_name", "optim_name", "optimizer_type")
_INNER_NAMES = ("name", "type", "_target_", "class_path")
_INNER_VALUES = ("init_args", "params", "kwargs")
_ADAM_LIKE = re.compile(
    r"(?:paged|fused|bnb|apex)?_?(?P<rule>adamw|adam|sgdw|sgd|lion|momentum|nesterov)"
    r"(?:_(?:torch|hf|apex|fused|xla|npu|bnb|4bit|8bit|16bit|32bit|momentum|nesterov|anyprecision))*"
)
_KINDS: Mapping[str, tuple[OptimizerKind, bool]] = {
    "sgd": (OptimizerKind.SGD, False),
    "momentum": (OptimizerKind.SGD, False),
    "nesterov": (OptimizerKind.SGD, False),
    "sgdw": (OptimizerKind.SGD, True),
    "adam": (OptimizerKind.ADAM, False),
    "adamw": (OptimizerKind.ADAMW, True),
    "lion": (OptimizerKind.LION, True),
}
# Update rules without an equilibrium formula here.
_OTHERS = re.compile(
    r"(?:adafactor|adagrad|adadelta|adamax|nadamw?|radamw?|rmsprop\w*|asgd|rprop|lamb\w*|lars\w*|"
    r"adamp|sgdp|adabelief|adan\w*|adopt\w*|novograd|madgrad\w*|muon|shampoo|soap|sophia\w*|galore\w*|"
    r"lomo|adalomo|schedule_free\w*|ademamix\w*|apollo\w*|grokadamw|stable_adamw|lbfgs|sparseadam|"
    r"kron\w*|mars|lookahead\w*|tiger|yogi|qhadam|qhm|prodigy|dadapt\w*)"
)
_MMENGINE_OPTIMIZER = re.compile(r"\boptimizer\s*=\s*dict\(((?:[^()]|\([^()]{0,200}\)){0,2000})\)")
_MMENGINE_FIELD = re.compile(r"\b(type|lr|momentum|weight_decay|nesterov)\s*=\s*'?([\w.+-]{1,40})")


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of one source; None where it is silent.

    Attributes:
        source: Who says so, as the report shows it.
        optimizer: The optimizer's name as written.
        values: All options, for whoever knows this trainer's schedule.
        note: What of the source was not understood.
    """

    source: str
    optimizer: str | None
    lr: float | None
    weight_decay: float | None
    momentum: float | None
    nesterov: bool | None
    betas: tuple[float, float] | None
    eps: float | None
    values: Mapping[str, Any]
    note: str = ""

    @property
    def rule(self) -> tuple[OptimizerKind, bool | None] | None:
        """Kind and decoupling of the named optimizer; None where the name says nothing."""
        return None if self.optimizer is None else rule_of(self.optimizer)


def rule_of(name: str) -> tuple[OptimizerKind, bool | None] | None:
    """Update rule behind an optimizer's name as trainers spell it; None for an unknown name."""
    plain = name.lower().rpartition(".")[2].replace("-", "_").removeprefix("optimizernames_")
    match = _ADAM_LIKE.fullmatch(plain)
    if match is not None:
        return _KINDS[match["rule"]]
    return (OptimizerKind.OTHER, None) if _OTHERS.fullmatch(plain) else None


def read_settings(series: SnapshotSeries) -> tuple[Settings, ...]:
    """Options found in the last snapshot and beside the checkpoints, the closest source first."""
    found: list[Settings] = []
    scalars = series.snapshots[-1].scalars
    for key, source in _PLACES.items():
        options = scalars.get(key)
        if isinstance(options, Mapping):
            found.append(settings_of(source, options))
    meta = scalars.get("meta")
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    if isinstance(text, str):
        found.append(settings_of("the configuration in the checkpoints", _mmengine(text)))
    for file in settings_files(series):
        note = f"{file.ignored} lines of {file.label} are nested and were not read"
        found.append(settings_of(file.label, file.values, note if file.ignored else ""))
    return tuple(s for s in found if _speaks(s))


def settings_of(source: str, options: Mapping[Any, Any], note: str = "") -> Settings:
    """Options under the names that trainers use for them."""
    optimizer: str | None = None
    inner: list[Mapping[Any, Any]] = []
    for key in _OPTIMIZER_KEYS:
        value = options.get(key)
        if isinstance(value, Mapping):
            inner = [value, *(v for k in _INNER_VALUES if isinstance(v := value.get(k), Mapping))]
            value = next((v for k in _INNER_NAMES if isinstance(v := value.get(k), str)), None)
        if isinstance(value, str) and rule_of(value) is not None:
            optimizer = value
            break
    where = [*inner, options]
    betas = _pair(next(_found(where, ("betas", "opt_betas")), None))
    first, second = (_number(where, key) for key in (("adam_beta1",), ("adam_beta2",)))
    if betas is None and first is not None and second is not None:
        betas = (first, second)
    nesterov = next((v for v in _found(where, ("nesterov",)) if isinstance(v, bool)), None)
    if optimizer is not None and "nesterov" in optimizer.lower():
        nesterov = True
    return Settings(
        source=source,
        optimizer=optimizer,
        lr=_number(where, ("learning_rate", "lr")),
        weight_decay=_number(where, ("weight_decay",)),
        momentum=_number(where, ("momentum",)),
        nesterov=nesterov,
        betas=betas,
        eps=_number(where, ("adam_epsilon", "opt_eps", "eps")),
        values={key: value for key, value in options.items() if isinstance(key, str)},
        note=note,
    )


def _speaks(settings: Settings) -> bool:
    return settings.optimizer is not None or settings.lr is not None


def _found(where: list[Mapping[Any, Any]], keys: tuple[str, ...]) -> Iterator[Any]:
    return (place[key] for place in where for key in keys if place.get(key) is not None)


def _number(where: list[Mapping[Any, Any]], keys: tuple[str, ...]) -> float | None:
    for value in _found(where, keys):
        number = natural(value)
        if number is not None:
            return number
    return None


def _pair(value: Any) -> tuple[float, float] | None:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        first, second = map(natural, value)
        if first is not None and second is not None and max(first, second) < 1.0:
            return first, second
    return None


def _mmengine(text: str) -> Mapping[str, Any]:
    """The optimizer's own fields out of a configuration kept as program text; nothing runs."""
    match = _MMENGINE_OPTIMIZER.search(text[:1_000_000])
    if match is None:
        return {}
    inner: dict[str, Any] = {}
    for key, value in _MMENGINE_FIELD.findall(match[1]):
        if key == "nesterov":
            inner[key] = value == "True"
        elif key == "type":
            inner[key] = value
        else:
            try:
                inner[key] = float(value)
            except ValueError:
                continue
    return {"optimizer": inner}
