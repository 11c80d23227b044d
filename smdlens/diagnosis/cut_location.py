"""Where a cut really was, when the files only say that the rate changed between two snapshots.

The unit gradient is known from the intervals on both sides. For each place of the cut within the
interval the recursion says which norm it would have ended with: the measured norm picks the place,
all tensors together (docs/theory.md §7).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.clock import place_by_clock
from smdlens.diagnosis.gradient_scatter import Z95, student95
from smdlens.diagnosis.one_step import one_step
from smdlens.diagnosis.rates import interval_rates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law, law_of
from smdlens.hyper.records import HyperParameters, RateCut
from smdlens.hyper.resolve import with_cut_placed
from smdlens.symmetry.records import ScaleGroups
from smdlens.theory.closed_form import trend_moments
from smdlens.theory.moments import advance

Array = NDArray[np.float64]

# Candidate places within the interval, as shares of it.
_GRID = np.linspace(0.0, 1.0, 21)
# A snapshot is the place where its norm misses by less than this share of what the place decides:
# trainers save where they change the rate far more often than just beside it.
_AT_SNAPSHOT = 0.1
# A buffer saved at the end may differ from the predicted one by this factor: one draw of |v|^2
# scatters by 0.3, and the unit gradient falls by 2 to 4 at a cut.
_BUFFER_SCATTER = 1.6
# What is left of the unit gradient right after a cut, squared, and how far that may move a place.
_FALL, _DRIFT = 0.5, 0.15
# Standard error at which tensors agree on a snapshot, how many it takes to have one, how many for
# the median deviation to be it, and what is assumed of fewer.
_TIGHT, _FEWEST, _MANY, _FEW_ERROR = 0.11, 3, 7, 0.05
# Least error of a place found between two snapshots, and the largest one worth telling; all as
# shares of the interval.
_PLACE_ERROR, _VAGUE = 0.1, 0.5


def locate_cuts(tracks: Tracks, hyper: HyperParameters, groups: ScaleGroups) -> HyperParameters:
    """Places every uncertain cut as well as the weights can tell.

    A clock that still ticks decides exactly; else the norms do. A cut they put at a snapshot
    becomes certain (step_low == step_high); one inside keeps bounds around its most plausible step;
    one they say nothing about keeps its bounds. What the norms put at a snapshot is believed only
    while the other cuts of the run agree: all at the snapshot before the change was seen, or all at
    the one after it.

    Args:
        tracks: All measured tensors.
        hyper: Hyper-parameters whose `cuts` may be uncertain.
        groups: Scale groups; invariant tensors and clocks testify.
    """
    guesses: list[tuple[RateCut, int]] = []
    inside = False
    for cut in hyper.cuts:
        if cut.step_low == cut.step_high:
            continue
        timed = place_by_clock(tracks, hyper, groups, cut)
        if timed is not None:
            hyper = with_cut_placed(hyper, cut, *timed)
            continue
        found = _locate(tracks, hyper, groups, cut)
        if found is None:
            continue
        if found[1] < found[2]:
            inside = True
            hyper = with_cut_placed(hyper, cut, *found)
        else:
            guesses.append((cut, found[0]))
    sides = {step == cut.step_low for cut, step in guesses}
    if inside or len(sides) > 1:
        return hyper
    for cut, step in guesses:
        hyper = with_cut_placed(hyper, cut, step, step, step)
    return hyper


def _locate(
    tracks: Tracks, hyper: HyperParameters, groups: ScaleGroups, cut: RateCut
) -> tuple[int, int, int] | None:
    """Most plausible step of a cut and its bounds, from the norms; None where they cannot tell."""
    at = int(np.searchsorted(tracks.steps, cut.step_low))
    inside = 1 <= at < len(tracks.steps) - 2 and tracks.steps[at] == cut.step_low
    witnesses = _witnesses(tracks, hyper, groups)
    if not inside or tracks.steps[at + 1] != cut.step_high or len(witnesses) == 0:
        return None
    case = _case(tracks.take(witnesses).window(slice(at - 1, at + 3)), hyper, cut)
    if case is None:
        return None
    span = cut.step_high - cut.step_low
    places = np.unique(np.round(_GRID * span).astype(np.int64))
    norm, buffer = _misfit(case, places)
    off = np.abs(np.median(buffer, axis=1))
    possible = ~(off - np.fmin.reduce(off) > np.log(_BUFFER_SCATTER))
    own = _crossings(norm, places) / span
    place = float(np.median(own))
    scatter = _median_error(own)
    # The unit gradient falls at a cut and grows back: what the interval after shows is too much.
    weak = dataclasses.replace(case, gradient_after=case.gradient_after * _FALL)
    drift = abs(float(np.median(_crossings(_misfit(weak, places)[0], places))) / span - place)
    # Adam's plain norms lean by a few percent of the decay: good for a choice, not for a place.
    half = 0.5 if case.law.adaptive else 1.0
    tight = scatter <= half * _TIGHT and drift <= _DRIFT
    near = max(half * _AT_SNAPSHOT, 1.25 * scatter)
    for end, step in ((0, cut.step_low), (1, cut.step_high)):
        if abs(place - end) <= near and tight and possible[-end]:
            return step, step, step
    error = max(_PLACE_ERROR, 2.0 * scatter, drift)
    if case.law.adaptive or error > _VAGUE or not -error <= place <= 1.0 + error:
        return None
    if not possible[int(np.abs(places - place * span).argmin())]:
        return None
    low, high = (cut.step_low + round(span * (place + side * error)) for side in (-1.0, 1.0))
    low, high = max(low, cut.step_low), min(high, cut.step_high)
    return min(max(cut.step_low + round(span * place), low), high), low, high


def _crossings(misfit: Array, places: NDArray[np.int64]) -> Array:
    """Place of the cut at which each tensor's predicted norm is the measured one, updates, [T].

    Beyond the interval it is extrapolated, to one interval at most.
    """
    found = np.empty(misfit.shape[1])
    span = float(places[-1])
    for t, own in enumerate(misfit.T):
        crossing = np.flatnonzero(np.sign(own[1:]) != np.sign(own[:-1]))
        if len(crossing):
            i = int(crossing[0])
            share = own[i] / (own[i] - own[i + 1])
            found[t] = places[i] + share * (places[i + 1] - places[i])
        else:
            reach = own[0] - own[-1]
            found[t] = span * (own[0] / reach) if reach != 0.0 else np.nan
    return np.clip(np.where(np.isfinite(found), found, span / 2.0), -span, 2.0 * span)


def _median_error(values: Array) -> float:
    """Standard error of a median, Student's factor in it; one or two show none of their own."""
    if len(values) < _FEWEST:
        return _FEW_ERROR
    # 1.48 median absolute deviations are a Gaussian's standard deviation; of few values they say
    # little, and of many one stray tensor must not decide.
    spread = 1.48 * float(np.median(np.abs(values - np.median(values))))
    if len(values) < _MANY:
        spread = max(spread, float(values.std(ddof=1)))
    freedom = np.array(len(values) - 1.0)
    return 1.25 * spread / float(np.sqrt(len(values))) * float(student95(freedom)) / Z95


@dataclass(frozen=True)
class _Case:
    """The interval with the cut, and what its neighbours say; arrays are [T]."""

    law: Law
    n: int
    start: tuple[Array, Array, Array]
    end: Array
    end_buffer: Array
    gradient_before: Array
    gradient_after: Array
    rates: tuple[tuple[float, float], tuple[float, float]]


def _case(own: Tracks, hyper: HyperParameters, cut: RateCut) -> _Case | None:
    """Everything known around the interval [1, 2] of four snapshots."""
    group = _group_index(hyper, own.tensors[0])
    law = law_of(hyper.optimizer, hyper.groups[group])
    if law is None or law.rule is None or law.is_l2_adam:
        return None
    lr, decay = hyper.rates(group, cut.step - 1, cut.step + 1)
    no_leak = np.zeros((len(own.tensors), 3))
    steps = one_step(own, law, interval_rates(hyper, group, own.steps), no_leak)
    before, after = steps.drive[:, 0], steps.drive[:, 2]
    w2 = own.at["w2"]
    usable = (before > 0.0) & (after > 0.0) & ~steps.below[:, 0] & ~steps.below[:, 2]
    if not usable.any():
        return None
    coupled, decoupled = (0.0, decay[0]) if law.decoupled else (decay[0], 0.0)
    trend = np.log(w2[:, 1] / w2[:, 0]) / own.lengths[0]
    moments = trend_moments(law.rule, trend, lr[0], coupled, decoupled)
    lean, buffer = own.at["wv"][:, 1], own.at["v2"][:, 1]
    saved = np.isfinite(lean + buffer)
    P = np.where(saved, lean, moments.P_over_W * w2[:, 1])
    V = np.where(saved, buffer, moments.V_over_W * w2[:, 1])
    return _Case(
        law=law,
        n=int(own.lengths[1]),
        start=(w2[usable, 1], P[usable], V[usable]),
        end=w2[usable, 2],
        end_buffer=own.at["v2"][usable, 2],
        gradient_before=before[usable],
        gradient_after=after[usable],
        rates=((float(lr[0]), float(decay[0])), (float(lr[1]), float(decay[1]))),
    )


def _misfit(case: _Case, places: NDArray[np.int64]) -> tuple[Array, Array]:
    """Ln(predicted / measured) for each place of the cut, [C, T] each.

    Args:
        case: The interval.
        places: Updates at the old rate, [C].

    Returns:
        Of |w|^2 and of |v|^2 at the end of the interval; the latter NaN without buffers.
    """
    assert case.law.rule is not None
    W, P, V = (np.broadcast_to(x, (len(places), len(x))) for x in case.start)
    for t in range(case.n):
        old = (t < places)[:, None]
        G = np.where(old, case.gradient_before, case.gradient_after)
        lr = np.where(old, case.rates[0][0], case.rates[1][0])
        decay = np.where(old, case.rates[0][1], case.rates[1][1])
        coupled, decoupled = (0.0, decay) if case.law.decoupled else (decay, 0.0)
        W, P, V, _ = advance(case.law.rule, W, P, V, G, lr, coupled, decoupled)
    return np.asarray(np.log(W / case.end)), np.asarray(np.log(V / case.end_buffer))


def _group_index(hyper: HyperParameters, tensor: str) -> int:
    group = hyper.group_of(tensor)
    assert group is not None
    return hyper.groups.index(group)


def _witnesses(tracks: Tracks, hyper: HyperParameters, groups: ScaleGroups) -> NDArray[np.intp]:
    """Rows of the invariant tensors of the decayed group with most of them."""
    rows: dict[int, list[int]] = {}
    for row, name in enumerate(tracks.tensors):
        group = hyper.group_of(name)
        if group is None or not groups.tensors[name].on_sphere:
            continue
        if (group.weight_decay or 0.0) > 0.0 and law_of(hyper.optimizer, group) is not None:
            rows.setdefault(hyper.groups.index(group), []).append(row)
    return np.array(max(rows.values(), key=len, default=[]), dtype=np.intp)
