"""The options of an analysis, from arguments and a configuration file, each with who said it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smdlens.config import KEYS, NUMBER, WHOLE, read_config
from smdlens.errors import InputError

if TYPE_CHECKING:
    from smdlens.hyper.options import DeclaredHyperParameters

StepRange = tuple[int | None, int | None, int]
RunPath = str | Path | Sequence[str | Path]
# A network is named, called or passed in many forms; symmetry/loading knows them.
_CHECKED = {*KEYS, "graph"}
_ANY = (lambda _: True, "anything")
_NEVER_CHANGE_RESULTS = ("source", "workers", "cache_dir", "cache")


@dataclass(frozen=True, slots=True)
class AnalysisOptions:
    """Everything that can change a result, merged: argument before configuration before default.

    `steps` is (first, last, stride): steps with both ends inclusive, None for an open end, every
    stride-th snapshot. `source` names who set a field that the configuration file set.
    """

    optimizer: str | None = None
    lr: float | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    dampening: float | None = None
    nesterov: bool | None = None
    betas: tuple[float, float] | None = None
    schedule: Path | None = None
    epsilon: float | None = None
    steps_per_epoch: int | None = None
    weights: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    steps: StepRange | None = None
    tolerance: float = 0.1
    metrics: Path | None = None
    metric: str | None = None
    metric_goal: str | None = None
    model: Any = None
    input: tuple[Any, ...] = ()
    input_fn: Any = None
    graph: Path | None = None
    model_optional: bool = False
    device: str = "auto"
    all_pairs: bool = False
    workers: int | None = None
    cache_dir: Path | None = None
    cache: bool = True
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.0 < self.tolerance < 1.0:
            raise self._bad("tolerance", "a fraction between 0 and 1", self.tolerance)
        for name in ("steps_per_epoch", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise self._bad(name, "a whole number of 1 or more", value)
        if self.metric_goal not in (None, "up", "down"):
            raise self._bad("metric_goal", "up or down", self.metric_goal)
        if self.metrics is None and (self.metric or self.metric_goal):
            raise InputError(
                "--metric and --metric-goal speak of a log",
                remedy="Give the log with --metrics FILE.",
            )
        if self.model is not None and self.graph is not None:
            raise InputError(
                "--model and --graph both name the network", remedy="Leave one of them out."
            )
        # The declared values check themselves; better now than after the files were opened.
        _ = self.declared

    def _bad(self, name: str, expected: str, found: object) -> InputError:
        file = self.source.get(name)
        return InputError(
            "this value cannot be used",
            subject=f"{file}, key {name}" if file else f"option {flag(name)}",
            expected=expected,
            found=repr(found),
        )

    @property
    def declared(self) -> DeclaredHyperParameters:
        """The part that says what the trainer used."""
        from smdlens.hyper.options import DeclaredHyperParameters

        return DeclaredHyperParameters(
            optimizer=self.optimizer,
            lr=self.lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            dampening=self.dampening,
            nesterov=self.nesterov,
            betas=self.betas,
            schedule=self.schedule,
            epsilon=self.epsilon,
            source=self.source,
        )

    def command(self, path: RunPath) -> tuple[str, ...]:
        """A command line that gives the same result; what cannot change it is left out."""
        runs = [path] if isinstance(path, str | Path) else list(path)
        words = ["smdlens", "analyze", *map(str, runs)]
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in _NEVER_CHANGE_RESULTS or value == option.default:
                continue
            words += _words(option.name, value)
        return tuple(words)


def flag(name: str) -> str:
    """The command-line spelling of an option: `weight_decay` is `--weight-decay`."""
    return f"--{name.replace('_', '-')}"


def _words(name: str, value: Any) -> list[str]:
    if name == "model_optional":
        return [flag(name)]
    if name == "input":  # tensors have no command line, shapes do
        return [word for item in value if isinstance(item, str) for word in (flag(name), item)]
    if name in ("model", "input_fn") and not isinstance(value, str):
        return [flag(name), getattr(value, "__name__", type(value).__name__)]
    if isinstance(value, bool):
        return [flag(name) if value else f"--no-{name}"]
    if name in ("include", "exclude"):
        return [word for item in value for word in (flag(name), item)]
    if name == "betas":
        return [flag(name), f"{value[0]!r},{value[1]!r}"]
    if name == "steps":
        return [flag(name), ":".join("" if v is None else str(v) for v in value)]
    return [flag(name), str(value)]


def gather_options(config: str | os.PathLike[str] | None = None, **given: Any) -> AnalysisOptions:
    """Merges arguments (None where not given) over the configuration file.

    Raises:
        InputError: The configuration file or a value cannot be used.
    """
    values = read_config(Path(config)) if config is not None else {}
    source = {name: str(config) for name in values}
    for name, value in given.items():
        if value is None or (isinstance(value, tuple | list) and not value):
            continue
        values[name] = value
        source.pop(name, None)
    typed = {
        name: _typed(name, value, source.get(name, f"option {flag(name)}"))
        for name, value in values.items()
    }
    return AnalysisOptions(**typed, source=source)


def _typed(name: str, value: Any, subject: str) -> Any:
    """An option as its field holds it, from the form in which it may be written.

    Raises:
        InputError: Of another type than the option has.
    """
    if name == "betas":
        value = parse_betas(value, subject) if isinstance(value, str) else value
    elif name == "steps":
        return parse_steps(_steps_text(value), subject)
    elif name in ("schedule", "metrics", "cache_dir", "graph"):
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
    elif name in ("include", "exclude"):
        value = (value,) if isinstance(value, str) else value
    form = list(value) if isinstance(value, tuple) else value
    fits, expected = KEYS["schedule" if name == "graph" else name] if name in _CHECKED else _ANY
    if not fits(form):
        raise InputError(
            "this value cannot be used", subject=subject, expected=expected, found=repr(value)
        )
    if name in ("schedule", "metrics", "cache_dir", "graph"):
        return Path(value)
    if KEYS.get(name) is NUMBER:  # numpy's too
        return float(value)
    if KEYS.get(name) is WHOLE:
        return int(value)
    return tuple(form) if isinstance(form, list) else value


def _steps_text(value: Any) -> str:
    """`FROM:TO:STRIDE` of a tuple such as (1000, None, 2); anything else as Python shows it."""
    if not isinstance(value, tuple | list):
        return str(value)
    return ":".join("" if part is None else str(part) for part in value)


def parse_betas(text: str, subject: str = "option --betas") -> tuple[float, float]:
    """Reads `0.9,0.999`.

    Raises:
        InputError: Not two numbers.
    """
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            "this value cannot be used",
            subject=subject,
            expected="two numbers with a comma between them, such as 0.9,0.999",
            found=repr(text),
        ) from None
    return first, second


def parse_steps(text: str, subject: str = "option --steps") -> StepRange:
    """Reads `FROM:TO:STRIDE`; each part may be left out, and the stride with its colon.

    Raises:
        InputError: Not of that form, the end before the start, or a stride below 1.
    """
    try:
        parts = [int(part) if part.strip() else None for part in text.split(":")]
        if len(parts) not in (2, 3):
            raise ValueError
    except ValueError:
        parts = [1, 0]
    first, last = parts[0], parts[1]
    stride = parts[2] if len(parts) == 3 and parts[2] is not None else 1
    if stride < 1 or (first is not None and last is not None and last < first):
        raise InputError(
            "this value cannot be used",
            subject=subject,
            expected="FROM:TO or FROM:TO:STRIDE, such as 1000:90000:2 or :90000 "
            "(steps, both ends included; every STRIDE-th snapshot)",
            found=repr(text),
        )
    return first, last, stride
