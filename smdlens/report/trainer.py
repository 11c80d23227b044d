"""What the trainer used in one line, with who says so: the same words in every output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from smdlens.report.numbers import rate
from smdlens.report.summary import invariant_names
from smdlens.vocabulary import OptimizerKind

if TYPE_CHECKING:
    from smdlens.hyper.records import Optimizer, ParamGroup, RateSegment
    from smdlens.report.build import Report

_NAMES: dict[OptimizerKind, str] = {
    OptimizerKind.SGD: "SGD",
    OptimizerKind.ADAM: "Adam",
    OptimizerKind.ADAMW: "AdamW",
    OptimizerKind.LION: "Lion",
    OptimizerKind.OTHER: "an optimizer without formulas here",
    OptimizerKind.UNKNOWN: "optimizer unknown",
}


def trainer_facts(report: Report) -> list[str]:
    """Optimizer, weight decay and learning rate, each with its source in parentheses."""
    hyper = report.hyper
    bound = set(invariant_names(report.diagnosis))
    # Rates of the tensors the theory speaks of; biases and norms often have a group of their own.
    own = [g for g in hyper.groups if bound.intersection(g.tensors)] or list(hyper.groups)
    indices = {g.index for g in own}
    schedule = [s for s in hyper.schedule if s.group in indices]
    facts = [
        (_optimizer(hyper.optimizer), hyper.optimizer.source),
        (_weight_decay(own, hyper.groups), _sources(g.source for g in own)),
        (_learning_rate(_rates(schedule)), _sources(s.source for s in schedule)),
    ]
    if not schedule and report.series.axis == "epochs" and (saved := _saved_rates(report, indices)):
        facts[-1] = (_learning_rate(saved), "optimizer state; no iterations to place it on")
    merged: list[tuple[str, str]] = []
    for text, source in facts:
        if merged and merged[-1][1] == source:
            merged[-1] = (f"{merged[-1][0]}, {text}", source)
        else:
            merged.append((text, source))
    return [f"{text} ({source})" if source else text for text, source in merged]


def _optimizer(optimizer: Optimizer) -> str:
    name = optimizer.name or _NAMES[optimizer.kind]
    if optimizer.kind is OptimizerKind.SGD and optimizer.decoupled and not optimizer.name:
        name = "SGDW"
    words = [name]
    if optimizer.betas is not None:
        words.append("betas {:g}/{:g}".format(*optimizer.betas))
    elif optimizer.momentum is not None:
        kind = "Nesterov momentum" if optimizer.nesterov else "momentum"
        words.append(f"{kind} {optimizer.momentum:g}")
    if optimizer.dampening:
        words.append(f"dampening {optimizer.dampening:g}")
    return " ".join(words)


def _weight_decay(own: Iterable[ParamGroup], groups: Iterable[ParamGroup]) -> str:
    known = list(dict.fromkeys(g.weight_decay for g in own if g.weight_decay is not None))
    if not known:
        return "weight decay unknown"
    text = f"weight decay {' or '.join(map(rate, known[:3]))}"
    others = {g.weight_decay for g in groups if g.weight_decay is not None} - set(known)
    return f"{text}, {rate(others.pop())} elsewhere" if len(others) == 1 else text


def _rates(schedule: Iterable[RateSegment]) -> list[float]:
    return [r for s in schedule for r in (s.lr, s.lr_to) if r is not None]


def _saved_rates(report: Report, indices: set[int]) -> list[float]:
    """Rates as the snapshots hold them; on an axis of epochs no schedule of updates exists."""
    records = (s.optimizer for s in report.series.snapshots)
    rates = (g.values.get("lr") for r in records if r for g in r.groups if g.index in indices)
    return [float(r) for r in rates if isinstance(r, int | float)]


def _learning_rate(rates: list[float]) -> str:
    if not rates:
        return "lr unknown"
    low, high = min(rates), max(rates)
    return f"lr {rate(high)}" if low == high else f"lr {rate(high)} to {rate(low)}"


def _sources(sources: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(s for s in sources if s))
