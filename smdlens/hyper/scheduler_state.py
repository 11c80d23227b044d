"""Saved torch learning-rate schedulers, evaluated again from their plain state.

A scheduler's state dict does not name its class; its keys do. The formulas are the closed forms of
torch.optim.lr_scheduler's documentation. Whoever uses them holds the result against the saved rates
(see hyper/evaluated.py): a formula that does not reproduce every one of them is not used.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

State = Mapping[str, Any]
Formula = Callable[[State, float, int], float]

_WRAPPERS = ("lr_scheduler", "scheduler", "lr_schedulers", "schedulers", "sched", "lr_sched")


def _multi_step(state: State, base: float, epoch: int) -> float:
    milestones = state["milestones"]
    if isinstance(milestones, Mapping):
        passed = sum(int(count) for at, count in milestones.items() if int(at) <= epoch)
    else:
        passed = sum(1 for at in milestones if int(at) <= epoch)
    return float(base * state["gamma"] ** passed)


def _step(state: State, base: float, epoch: int) -> float:
    return float(base * state["gamma"] ** (epoch // int(state["step_size"])))


def _exponential(state: State, base: float, epoch: int) -> float:
    return float(base * state["gamma"] ** epoch)


def _cosine(state: State, base: float, epoch: int) -> float:
    low = float(state["eta_min"])
    return low + (base - low) * (1.0 + math.cos(math.pi * epoch / state["T_max"])) / 2.0


def _cosine_restarts(state: State, base: float, epoch: int) -> float:
    period, factor, done = int(state["T_0"]), int(state["T_mult"]), epoch
    if period < 1 or factor < 1:
        raise ValueError("T_0 and T_mult are 1 or more")
    if factor == 1:
        done %= period
    while done >= period:
        done -= period
        period *= factor
    low = float(state["eta_min"])
    return low + (base - low) * (1.0 + math.cos(math.pi * done / period)) / 2.0


def _linear(state: State, base: float, epoch: int) -> float:
    first, last, total = state["start_factor"], state["end_factor"], int(state["total_iters"])
    return float(base * (first + (last - first) * min(epoch, total) / total))


def _constant(state: State, base: float, epoch: int) -> float:
    return float(base * (state["factor"] if epoch < int(state["total_iters"]) else 1.0))


def _polynomial(state: State, base: float, epoch: int) -> float:
    total = int(state["total_iters"])
    return float(base * (1.0 - min(epoch, total) / total) ** state["power"])


def _sequential(state: State, base: float, epoch: int) -> float:
    milestones = [int(at) for at in state["_milestones"]]
    index = bisect.bisect_right(milestones, epoch)
    part = state["_schedulers"][index]
    start = milestones[index - 1] if index else 0
    formula = formula_of(part)
    if formula is None:
        raise KeyError("_schedulers")
    bases = part.get("base_lrs")
    group = state.get("_group", 0)
    own_base = float(bases[group]) if bases else base
    own = {**part, "_group": group, "_values": state.get("_values", {})}
    return formula(own, own_base, epoch - start)


def _one_cycle(state: State, base: float, epoch: int) -> float:
    """Phases between rates that the parameter group keeps: initial_lr, max_lr, min_lr."""
    values, start = state["_values"], 0.0
    phases = state["_schedule_phases"]
    for phase in phases:
        end = float(phase["end_step"])
        if epoch <= end or phase is phases[-1]:
            low, high = float(values[phase["start_lr"]]), float(values[phase["end_lr"]])
            share = (epoch - start) / (end - start)
            if state["_anneal_func_type"] == "linear":
                return low + (high - low) * share
            return high + (low - high) / 2.0 * (1.0 + math.cos(math.pi * share))
        start = end
    raise ValueError("no phases")


# Telling keys, most specific first.
FORMULAS: tuple[tuple[frozenset[str], Formula], ...] = (
    (frozenset({"_schedulers", "_milestones"}), _sequential),
    (frozenset({"_schedule_phases", "_anneal_func_type"}), _one_cycle),
    (frozenset({"milestones", "gamma"}), _multi_step),
    (frozenset({"step_size", "gamma"}), _step),
    (frozenset({"T_0", "T_mult", "eta_min"}), _cosine_restarts),
    (frozenset({"T_max", "eta_min"}), _cosine),
    (frozenset({"start_factor", "end_factor", "total_iters"}), _linear),
    (frozenset({"total_iters", "power"}), _polynomial),
    (frozenset({"factor", "total_iters"}), _constant),
    (frozenset({"gamma"}), _exponential),
)


def formula_of(state: State) -> Formula | None:
    """The formula whose telling keys the state has, or None (a lambda, a cycle, a plateau)."""
    keys = set(state)
    if {"lr_lambdas", "best", "max_lrs"} & keys:
        return None
    return next((formula for telling, formula in FORMULAS if telling <= keys), None)


def base_rates(state: State) -> Sequence[Any] | None:
    """Rate of each group before the scheduler changed it; a sequence of schedulers asks its first.

    torch's SequentialLR stores no rates of its own, the schedulers it runs do.
    """
    bases = state.get("base_lrs")
    parts = state.get("_schedulers")
    if bases is None and isinstance(parts, (list, tuple)) and parts:
        first = parts[0]
        bases = first.get("base_lrs") if isinstance(first, Mapping) else None
    return bases if isinstance(bases, (list, tuple)) else None


def find_state(scalars: Mapping[str, Any]) -> State | None:
    """The scheduler state inside a checkpoint's plain data, if there is exactly one kind of it."""
    for key in _WRAPPERS:
        found = scalars.get(key)
        if isinstance(found, Sequence) and not isinstance(found, str) and found:
            found = found[0]
        if isinstance(found, Mapping) and isinstance(found.get("scheduler"), Mapping):
            found = found["scheduler"]
        if isinstance(found, Mapping) and isinstance(found.get("last_epoch"), int):
            return found
    return None


def updates_per_tick(points: Sequence[tuple[int, int]]) -> int | None:
    """How many updates lie between two `scheduler.step()` calls, from (step, last_epoch) pairs.

    A checkpoint may be written just before or just after its scheduler steps, so both
    step = N * last_epoch and step = N * (last_epoch + 1) are tried; rate(t) = formula(t // N).
    """
    for shift in (0, 1):
        pairs = [(step, tick + shift) for step, tick in points if step > 0]
        if not pairs or pairs[-1][1] <= 0:
            continue
        size, rest = divmod(pairs[-1][0], pairs[-1][1])
        if rest == 0 and size >= 1 and all(step == size * tick for step, tick in pairs):
            return size
    return None
