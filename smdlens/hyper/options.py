"""Hyper-parameters the user declares, by option or configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from smdlens.errors import InputError

OPTIMIZERS = ("sgd", "sgdw", "adam", "adamw", "lion")


@dataclass(frozen=True, slots=True)
class DeclaredHyperParameters:
    """What the user says the trainer used; None where nothing is said.

    `source` gives, per field, who said it ("option --lr", "smdlens.toml").

    Raises:
        InputError: A value outside its range, naming the option, the range and the value.
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
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.optimizer is not None and self.optimizer not in OPTIMIZERS:
            raise self._bad("optimizer", f"one of {', '.join(OPTIMIZERS)}", self.optimizer)
        for name in ("lr", "epsilon"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < float("inf"):
                raise self._bad(name, "a positive number", value)
        if self.weight_decay is not None and not 0.0 <= self.weight_decay < float("inf"):
            raise self._bad("weight_decay", "a number of 0 or more", self.weight_decay)
        for name in ("momentum", "dampening"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value < 1.0:
                raise self._bad(name, "a number in [0, 1)", value)
        if self.betas is not None and not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise self._bad("betas", "two numbers in [0, 1)", self.betas)

    def said_by(self, name: str) -> str:
        """Who declared a field."""
        return self.source.get(name, f"option --{name.replace('_', '-')}")

    def _bad(self, name: str, expected: str, found: object) -> InputError:
        return InputError(
            f"this {name.replace('_', ' ')} cannot be used",
            subject=self.said_by(name),
            expected=expected,
            found=repr(found),
            remedy="Correct it or leave it out to use what the checkpoints say.",
        )
