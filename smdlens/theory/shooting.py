"""Find the gradient that takes the measured norm of one snapshot to that of the next.

Any linear optimizer, any schedule, jumps and the first interval included: the recursion of
`moments` is run through the recorded rates and the one unit-gradient second moment G is found for
which it ends on the measured norm. Derivation: docs/theory.md §7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.theory.arrays import Array, Flags, Real, as_float64, as_floats
from smdlens.theory.closed_form import trend_moments
from smdlens.theory.moments import UpdateRule
from smdlens.theory.root_search import find_roots
from smdlens.theory.trajectory import End, Indices, Schedule, run

TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Shot:
    """What happened between two snapshots; every array has the batch shape.

    Attributes:
        turn2_mean: Mean of 2 (1 - cos Delta) over the updates.
        turn2_last: Of the last update.
        G: Second moment of the unit gradient (SGD family) or of the normalised gradient.
        W_end: |w|^2 reached (the measured one where converged).
        P_end: <w, v'> at the end: carry into the next interval.
        V_end: |v'|^2 at the end.
        W_mean: Mean of |w|^2 over the updates.
        W2_mean: Mean of |w|^4.
        converged: W_end is the measured norm to `TOLERANCE`.
        below_resolution: Decay alone ends at or above the measured norm: G is clipped to 0.
        residual: W_end / W1 - 1.
        evaluations: Trajectories that were run for this interval.
    """

    turn2_mean: Array
    turn2_last: Array
    G: Array
    W_end: Array
    P_end: Array
    V_end: Array
    W_mean: Array
    W2_mean: Array
    converged: Flags
    below_resolution: Flags
    residual: Array
    evaluations: NDArray[np.int64]


class _Intervals:
    """A flat batch in running order that can be narrowed to those not yet solved."""

    def __init__(
        self,
        rule: UpdateRule,
        batch: tuple[int, ...],
        lr: Array,
        coupled: Array,
        decoupled: Array,
        count: NDArray[np.int64],
        start: tuple[Array, Array, Array],
    ) -> None:
        self._rule, self._batch, self._count, self._start = rule, batch, count, start
        self._schedules = (lr, coupled, decoupled)

    def run(self, G: Array, which: Indices, record: bool) -> End:
        """Run the intervals `which` (flat positions, longest first) with their G."""
        W, lean, tangent = (x[which] for x in self._start)
        lr, coupled, decoupled = self._schedules
        return run(
            self._rule,
            G[which],
            W,
            lean,
            tangent,
            self._count[which],
            Schedule(lr, self._batch, which),
            Schedule(coupled, self._batch, which),
            Schedule(decoupled, self._batch, which) if decoupled.any() else None,
            record,
        )


def shoot(
    rule: UpdateRule,
    lr: Real,
    coupled: Real,
    decoupled: Real,
    W0: Real,
    P0: Real,
    V0: Real,
    W1: Real,
    count: NDArray[np.int64] | int | None = None,
    guess: Real | None = None,
) -> Shot:
    """One-step angle between two snapshots under any schedule of a linear optimizer.

    Finds G >= 0 with |w_end|^2 = W1; the end rises with G, and |w_end|^4 (SGD family) or |w_end|^2
    (normalised) is nearly linear in it, so guarded secants need few trajectories. The equilibrium
    law of [Wan2021, Thm 2-3] run backwards from the norms; derived in docs/theory.md §7
    [smdlens-theory].

    Args:
        rule: The optimizer.
        lr: Learning rates [n_steps, *batch], or [n_steps] for all, or a number.
        coupled: Decay inside the gradient (L2 plus epsilon leak), broadcastable likewise.
        decoupled: Decay on the weights directly, broadcastable likewise.
        W0: |w|^2 at the first snapshot, shape `batch`.
        P0: <w, v'> there (0 at step 0; see `initial_moments` where no buffer was saved).
        V0: |v'|^2 there.
        W1: |w|^2 at the second snapshot.
        count: Updates of each interval, at most n_steps; needed where no rate has a step axis.
        guess: Starting G where positive, e.g. of an earlier pass; otherwise from the closed form.

    Returns:
        The shots. NaN, not converged, where an input is not finite, a norm is not positive or an
        interval has no updates.
    """
    lr, coupled, decoupled = as_floats(lr, coupled, decoupled)
    W0, P0, V0, W1 = as_floats(W0, P0, V0, W1)
    counts = np.asarray(_n_steps(lr, coupled, decoupled) if count is None else count)
    batch = np.broadcast_shapes(
        W0.shape,
        W1.shape,
        P0.shape,
        V0.shape,
        counts.shape,
        *(x.shape[1:] for x in (lr, coupled, decoupled)),
    )
    lr, coupled, decoupled = (_with_steps(x, len(batch)) for x in (lr, coupled, decoupled))
    W0, P0, V0, W1 = (np.broadcast_to(x, batch).reshape(-1) for x in (W0, P0, V0, W1))
    counts = np.broadcast_to(counts, batch).reshape(-1).astype(np.int64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        usable = (W0 > 0) & (W1 > 0) & (counts > 0) & np.isfinite(W0 + P0 + V0 + W1)
        lean = P0 / W0
        start = (W0, lean, np.maximum(V0 / W0 - lean**2, 0.0))
    longest_first = np.argsort(-counts, kind="stable")
    which: Indices = longest_first[usable[longest_first]]
    intervals = _Intervals(rule, batch, lr, coupled, decoupled, counts, start)
    G = np.full(len(W0), np.nan)
    G[which] = _closed_form_guess(rule, batch, lr, coupled, decoupled, W0, W1, counts, which)
    if guess is not None:
        given = np.broadcast_to(as_float64(guess), batch).reshape(-1)[which]
        G[which] = np.where(np.isfinite(given) & (given > 0.0), given, G[which])
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        G, below, evaluations = find_roots(_miss(rule, intervals, W1), G, which, TOLERANCE)
        return _record(intervals, G, W1, counts, which, below, evaluations, batch)


def _n_steps(*schedules: Array) -> int:
    return max(len(x) if x.ndim else 1 for x in schedules)


def _with_steps(values: Array, batch_axes: int) -> Array:
    """Add the step axis of a number and the batch axes that broadcasting would add."""
    if values.ndim == 0:
        return values.reshape((1,) * (batch_axes + 1))
    missing = batch_axes + 1 - values.ndim
    return values.reshape((len(values), *(1,) * missing, *values.shape[1:]))


def _closed_form_guess(
    rule: UpdateRule,
    batch: tuple[int, ...],
    lr: Array,
    coupled: Array,
    decoupled: Array,
    W0: Array,
    W1: Array,
    counts: NDArray[np.int64],
    which: Indices,
) -> Array:
    """G from the steady-trend formula at typical rates, floored well above 0."""
    rate, pull, shrink = (_typical(x, batch, counts, which) for x in (lr, coupled, decoupled))
    s = np.log(W1[which] / W0[which]) / counts[which]
    with np.errstate(all="ignore"):
        trend = trend_moments(rule, s, rate, pull, shrink)
        middle = np.sqrt(W0[which] * W1[which])
        scale = middle if rule.normalised else middle**2
        balance = np.abs(s) + rate * (np.abs(pull) + shrink)
        floor = 1e-3 * balance / rate**2
        ratio = np.where(trend.gradient_ratio > floor, trend.gradient_ratio, floor)
        guess = ratio * scale
    return np.where(np.isfinite(guess) & (guess > 0.0), guess, 1.0)


def _typical(
    values: Array, batch: tuple[int, ...], counts: NDArray[np.int64], which: Indices
) -> Array:
    """Mean of the first, middle and last value of each interval's own updates."""
    rows = values.reshape(len(values), -1)
    columns = np.arange(rows.shape[1]).reshape(values.shape[1:])
    column = np.broadcast_to(columns, batch).reshape(-1)[which]
    last = np.minimum(counts[which], len(rows)) - 1
    return np.asarray((rows[0, column] + rows[last // 2, column] + rows[last, column]) / 3.0)


def _miss(rule: UpdateRule, intervals: _Intervals, W1: Array) -> Callable[[Array, Indices], Array]:
    """How far a G misses: (W_end / W1)^(m/2) - 1, nearly linear in G."""

    def miss(G: Array, who: Indices) -> Array:
        ended = intervals.run(G, who, record=False).W
        # a norm that overflowed is far too large, not unknown
        ended = np.where(np.isnan(ended), np.inf, ended)
        return np.asarray((ended / W1[who]) ** (rule.norm_power / 2) - 1.0)

    return miss


def _record(
    intervals: _Intervals,
    G: Array,
    W1: Array,
    counts: NDArray[np.int64],
    which: Indices,
    below: Flags,
    evaluations: NDArray[np.int64],
    batch: tuple[int, ...],
) -> Shot:
    """One more run at the solution, with the angles summed."""
    end = intervals.run(G, which, record=True)
    evaluations[which] += 1
    n = counts[which]

    def spread(values: Array) -> Array:
        full = np.full(len(W1), np.nan)
        full[which] = values
        return full.reshape(batch)[()]

    residual = spread(end.W / W1[which] - 1.0)
    return Shot(
        turn2_mean=spread(end.turn2_sum / n),
        turn2_last=spread(end.turn2_last),
        G=G.reshape(batch)[()],
        W_end=spread(end.W),
        P_end=spread(end.lean * end.W),
        V_end=spread((end.tangent + end.lean**2) * end.W),
        W_mean=spread(end.W_sum / n),
        W2_mean=spread(end.W2_sum / n),
        converged=np.abs(residual) <= 4 * TOLERANCE,
        below_resolution=below.reshape(batch)[()],
        residual=residual,
        evaluations=evaluations.reshape(batch)[()],
    )


def initial_moments(
    rule: UpdateRule,
    W: Real,
    s: Real,
    lr: Real,
    coupled: Real,
    decoupled: Real,
    G: Real | None = None,
) -> tuple[Array, Array]:
    """Quasi-steady P = <w, v'> and V = |v'|^2 of a tensor whose ln |w|^2 moves by s per update.

    For a snapshot without a saved buffer. A wrong start is forgotten as a^n. Derived in
    docs/theory.md §6 [smdlens-theory].

    Args:
        rule: The optimizer.
        W: |w|^2 at the snapshot.
        s: Trend of ln |w|^2 per update before it.
        lr: Learning rate before it.
        coupled: Decay inside the gradient.
        decoupled: Decay on the weights directly.
        G: Unit-gradient second moment where known; otherwise the one that balances s.

    Returns:
        P and V, broadcast shape.
    """
    W = as_float64(W)
    ratio = None
    if G is not None:
        ratio = as_float64(G) / (W if rule.normalised else W**2)
    trend = trend_moments(rule, s, lr, coupled, decoupled, gradient_ratio=ratio)
    P = trend.P_over_W * W
    # no vector is shorter than its own projection
    return P, np.maximum(trend.V_over_W * W, P**2 / W)
