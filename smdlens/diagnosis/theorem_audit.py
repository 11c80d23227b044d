"""Theorems 1 to 3 of the paper and their assumptions, tensor by tensor and stage by stage.

An assumption about every update of a stage is refuted by one update, and confirmed only by all of
them; where the snapshots cannot tell, `holds` is None and the reason says what would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.diagnosis.gradient_table import radial_test
from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.records import THEOREM_SCHEMA, Assumption, Stage
from smdlens.diagnosis.stages import last_part
from smdlens.diagnosis.theorem_numbers import TheoremNumbers, theorem_numbers
from smdlens.diagnosis.unit_gradients import ExactGradients
from smdlens.symmetry.records import ScaleGroups
from smdlens.theory import theorems

# So many draws make a variance that is not one draw's.
_MANY = 30
# Less than this of the stage's start left: its vanishing term is gone.
_VANISHED = 0.05
_SIGMAS = 3.0
_SHOW_V = "consecutive snapshots, or 8 snapshots of the stage with momentum buffers, would show V"
_SHOW_ALL = "only consecutive snapshots with optimizer state show single gradients"
# Epsilon is worth a word where it explains this share of the cosine.
_TELLING = 0.3


def audit_theorems(
    measured: Sequence[GroupMeasurement],
    gradients: Sequence[ExactGradients],
    stages: tuple[Stage, ...],
    owner: NDArray[np.int64],
    groups: ScaleGroups,
) -> tuple[tuple[Assumption, ...], pl.DataFrame]:
    """The assumptions with their verdicts, and the numbers behind them (`THEOREM_SCHEMA`)."""
    found: list[Assumption] = []
    rows: list[dict[str, object]] = []
    for stage in stages:
        for part, exact in zip(measured, gradients, strict=True):
            own = np.flatnonzero(owner == stage.index)
            last = last_part(stage, owner, part.tracks.steps)
            for row, name in enumerate(part.tracks.tensors):
                if not groups.tensors[name].on_sphere or len(own) == 0:
                    continue
                found += _lemma(part, exact, row, own, name, stage)
                if not covered(part):
                    continue
                numbers = theorem_numbers(part, exact, row, own, last, stage)
                if numbers is not None:
                    found += _assumptions(numbers, name, stage)
                    rows.append(_row(numbers, name, stage))
    return tuple(found), pl.DataFrame(rows, schema=THEOREM_SCHEMA, orient="row")


def covered(part: GroupMeasurement) -> bool:
    """Whether Theorems 1 and 2 speak of this optimizer: SGD and heavy ball with coupled decay."""
    law = part.law
    if law is None or law.rule is None or part.has_decay is not True:
        return False
    return not law.adaptive and not law.decoupled and law.rule.q == 0.0


def norm_band(n: TheoremNumbers) -> tuple[float, str]:
    """Relative half-width of the band of |w|^2 around w*^2, and whose it is.

    Theorem 1 prints its own [Wan2021, Eq 9]; where l is not known, and under momentum, whose
    constant is not printed, three times the scatter that white gradients cause.
    """
    if not math.isfinite(n.scatter):
        return math.nan, ""
    if n.theorem == 1 and n.lower > 0.0:
        bound = theorems.relative_norm2_variance_bound(n.scatter**2, 1.0, n.lower, n.lr, n.decay)
        return float(np.sqrt(bound)), "theorem"
    scatter = theorems.norm2_scatter(n.scatter, n.lr, n.decay, n.momentum)
    return _SIGMAS * float(scatter), "white_gradients"


def _assumptions(n: TheoremNumbers, name: str, stage: Stage) -> Iterator[Assumption]:
    theorem, first = (1, 1) if n.theorem == 1 else (2, 5)

    def one(
        what: str, holds: bool | None, value: float, limit: float, reason: str, where: str
    ) -> Assumption:
        return Assumption(
            what, holds, _number(value), _number(limit), name, stage.index, reason, where
        )

    def source(number: int) -> str:
        return f"Wan2021, Thm {theorem}, assumption {first + number - 1}"

    yield one("gradient_variance_bounded", *_variance(n), source(2))
    yield one("gradient_smooth", *_smooth(n), source(3))
    yield one("gradient_bounded_below", *_lower(n), source(4))
    yield one(
        "norm_as_theorem", *_norm(n), f"Wan2021, Thm {theorem}, Eq {8 if theorem == 1 else 12}"
    )
    yield one("angle_as_theorem", *_angle(n), "Wan2021, Thm 3, Eq 14")


Verdict = tuple[bool | None, float, float, str]


def _variance(n: TheoremNumbers) -> Verdict:
    if not math.isfinite(n.scatter):
        return None, math.nan, math.nan, _SHOW_V
    drawn = f"from {n.scatter_draws} " + (
        "gradients" if n.scatter_source == "updates" else "momentum buffers"
    )
    if n.dominated:
        return None, n.scatter, math.nan, f"{drawn}, one of which makes more than half of it"
    if n.scatter_draws < _MANY:
        return None, n.scatter, math.nan, f"{drawn}: {_MANY} would make it certain"
    return True, n.scatter, math.nan, drawn


def _smooth(n: TheoremNumbers) -> Verdict:
    if not math.isfinite(n.scatter):
        return None, math.nan, math.nan, _SHOW_V
    limit = float(theorems.smoothness_limit(n.scatter, n.lr, n.decay))
    if n.drift is None:
        return None, math.nan, limit, "two intervals within the stage would show how L changes"
    if n.drift.surely > limit:
        return False, n.drift.steepest, limit, "per update, relative to L, steepest pair of windows"
    if n.drift.at_most <= limit:
        return True, n.drift.steepest, limit, "per update, relative to L"
    needed = math.ceil(3.0 / (n.lr * n.decay))
    return (
        None,
        n.drift.steepest,
        limit,
        f"the scatter of single gradients hides it: windows of some {needed:,} updates would do",
    )


def _lower(n: TheoremNumbers) -> Verdict:
    limit = n.lower_limit
    if not limit < 1.0:
        return (
            False,
            n.lower,
            limit,
            "no run can: at this lr x weight decay it asks every value to exceed the mean of all",
        )
    if not math.isfinite(n.lower):
        return None, math.nan, limit, _SHOW_ALL
    if n.below:
        return False, n.lower, limit, f"missed by {n.below} of {n.seen} updates seen"
    if n.seen >= n.updates:
        return True, n.lower, limit, f"all {n.seen} updates seen"
    return (
        None,
        n.lower,
        limit,
        f"kept by all {n.seen} updates seen; the assumption is about all {n.updates:,}",
    )


def _norm(n: TheoremNumbers) -> Verdict:
    norm, expected = math.sqrt(n.norm2), n.expected_norm
    width, _ = norm_band(n)
    if not (math.isfinite(expected) and expected > 0.0):
        return None, norm, math.nan, "the unit gradient is not known here"
    if not n.constant:
        return None, norm, expected, "the theorem is about one constant rate; this one changes"
    if not math.isfinite(width):
        return None, norm, expected, _SHOW_V
    total = width + _SIGMAS * (n.error if math.isfinite(n.error) else 0.0)
    deviation = abs(n.norm2 / expected**2 - 1.0)
    how = "gradients seen one by one" if n.mean_source == "updates" else "the norms' own balance"
    said = f"|w|^2 is {deviation:.1%} off, {total:.1%} allowed; unit gradient from {how}"
    if total >= 1.0:
        return None, norm, expected, f"{said}: the band is as wide as the norm itself"
    if deviation <= total:
        return True, norm, expected, said
    if n.vanishing > _VANISHED:
        return (
            None,
            norm,
            expected,
            f"{said}; {n.vanishing:.0%} of the stage's start has not vanished yet",
        )
    return False, norm, expected, said


def _angle(n: TheoremNumbers) -> Verdict:
    off, bound = abs(n.angle - n.expected_angle), n.angle_bound
    if not math.isfinite(off):
        return None, math.nan, bound, "the angle per update is not known here"
    if math.isnan(bound):
        return None, off, bound, f"V and l are not known: {_SHOW_ALL}"
    if bound >= 1.0:
        return (
            None,
            off,
            bound,
            "the theorem promises nothing here: its probability is below 0 from a bound of 1 on",
        )
    promised = 1.0 - bound
    within = _within(n, bound)
    if math.isnan(within):
        return None, off, bound, f"promised for {promised:.0%} of updates; none was seen alone"
    return (
        within >= promised,
        off,
        bound,
        f"within it: {within:.0%} of {len(n.single_angles)} updates, {promised:.0%} promised",
    )


def _within(n: TheoremNumbers, bound: float) -> float:
    if len(n.single_angles) == 0 or math.isnan(bound):
        return math.nan
    return float((np.abs(n.single_angles - n.expected_angle) < bound).mean())


def _lemma(
    part: GroupMeasurement,
    exact: ExactGradients,
    row: int,
    own: NDArray[np.intp],
    name: str,
    stage: Stage,
) -> Iterator[Assumption]:
    test = radial_test(part, exact, row, own)
    if test is None:
        reason = _SHOW_ALL
    else:
        reason = f"cosine of gradient and weights over {test.updates} updates; a random direction"
        reason += f" would show {test.random:.2g}"
        if test.holds is None:
            reason += ", which rounding or epsilon hides"
        elif test.leaked > _TELLING * test.cosine:
            reason += f"; epsilon explains {test.leaked:.2g}"
    yield Assumption(
        "gradient_orthogonal",
        None if test is None else test.holds,
        None if test is None else test.cosine,
        None if test is None else test.limit,
        name,
        stage.index,
        reason,
        "Wan2021, Lemma 1, Eq 3",
    )


def _row(n: TheoremNumbers, name: str, stage: Stage) -> dict[str, object]:
    width, band = norm_band(n)
    expected, bound = n.expected_norm, n.angle_bound
    return {
        "stage": stage.index,
        "tensor": name,
        "theorem": n.theorem,
        "mean": _number(n.mean),
        "scatter": _number(n.scatter),
        "scatter_source": n.scatter_source or None,
        "lower": _number(n.lower),
        "updates": n.seen,
        "norm": math.sqrt(n.norm2),
        "expected_norm": _number(expected),
        "norm_low": _number(expected * math.sqrt(max(1.0 - width, 0.0))),
        "norm_high": _number(expected * math.sqrt(1.0 + width)),
        "band": band or None,
        "vanishing": n.vanishing,
        "angle_rad": _number(n.angle),
        "expected_angle_rad": n.expected_angle,
        "angle_bound_rad": _number(bound),
        "probability": None if math.isnan(bound) else max(1.0 - bound, 0.0),
        "within_bound": _number(_within(n, bound)),
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
