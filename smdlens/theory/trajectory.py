"""The recursion of `moments` run over many intervals at once, with buffers and no masks.

Intervals of a batch are ordered by length, so that the ones still running are a prefix: each step
touches that slice alone and a finished interval keeps its last state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smdlens.theory.arrays import Array
from smdlens.theory.moments import UpdateRule

Indices = NDArray[np.intp]


class Schedule:
    """One per-step quantity read row by row in the batch's running order, never expanded.

    Args:
        values: [n_steps or 1, *batch], batch axes of length 1 allowed.
        batch: The batch shape.
        order: Flat batch positions in running order.
    """

    def __init__(self, values: Array, batch: tuple[int, ...], order: Indices) -> None:
        rows = values.reshape(len(values), -1)
        width = rows.shape[1]
        self._rows = rows
        self._steady = len(rows) == 1
        self._columns: Indices | None = None
        if width > 1:
            positions = np.arange(width).reshape(values.shape[1:])
            self._columns = np.broadcast_to(positions, batch).reshape(-1)[order]
        self._buffer = np.empty(len(order))
        if self._steady and self._columns is not None:
            np.take(rows[0], self._columns, out=self._buffer)

    def at(self, step: int, active: int) -> Any:
        """The values of `step` for the first `active` intervals: a number or a view."""
        if self._columns is None:
            return self._rows[0 if self._steady else step, 0]
        view = self._buffer[:active]
        if not self._steady:
            # mode "clip" skips numpy's second, buffered copy; the columns are in range
            np.take(self._rows[step], self._columns[:active], out=view, mode="clip")
        return view


@dataclass(slots=True)
class End:
    """State at the end of every interval, running order; sums only when recorded.

    Attributes:
        W: |w|^2.
        lean: <w, v'> / |w|^2.
        tangent: The buffer's squared part across w over |w|^2.
        turn2_sum: Sum of turn2 over the updates.
        turn2_last: turn2 of the last update.
        W_sum: Sum of |w|^2 at the start of each update.
        W2_sum: Sum of its square.
    """

    W: Array
    lean: Array
    tangent: Array
    turn2_sum: Array
    turn2_last: Array
    W_sum: Array
    W2_sum: Array


def run(
    rule: UpdateRule,
    G: Array,
    W: Array,
    lean: Array,
    tangent: Array,
    count: NDArray[np.int64],
    lr: Schedule,
    coupled: Schedule,
    decoupled: Schedule | None,
    record: bool,
) -> End:
    """Run every interval through its own number of updates.

    Derived in docs/theory.md §4 [smdlens-theory].

    Args:
        rule: The optimizer.
        G: Unit-gradient second moment per interval, [B], running order (longest first).
        W: |w|^2 at the start.
        lean: <w, v'> / |w|^2 at the start.
        tangent: Squared part of v' across w over |w|^2 at the start.
        count: Updates per interval, descending.
        lr: Learning rates.
        coupled: Decay inside the gradient.
        decoupled: Decay on the weights, None where it is 0 throughout.
        record: Also sum angles and norms.

    Returns:
        The end states.
    """
    size = len(W)
    end = End(W.copy(), lean.copy(), tangent.copy(), *(np.zeros(size) for _ in range(4)))
    spare = [np.empty(size) for _ in range(6)]
    a, c, p, q = rule.a, rule.c, rule.p, rule.q
    steps = int(count[0]) if size else 0
    # active[t]: how many intervals are longer than t
    active = np.searchsorted(-count, -np.arange(steps), side="left")
    previous = -1
    for step in range(steps):
        k = int(active[step])
        if k != previous:
            w, rho, tau = end.W[:k], end.lean[:k], end.tangent[:k]
            g_k = G[:k]
            gradient, drive, radial, energy, growth, hold = (x[:k] for x in spare)
            previous = k
        eta, pull = lr.at(step, k), coupled.at(step, k)
        # gg / W
        if rule.normalised:
            np.divide(g_k, w, out=gradient)
        else:
            np.multiply(w, w, out=gradient)
            np.divide(g_k, gradient, out=gradient)
        # drive = <w, v> / W
        np.multiply(rho, a, out=drive)
        np.add(drive, c * pull, out=drive)
        keep = 1.0 if decoupled is None else 1.0 - eta * decoupled.at(step, k)
        if q == 0.0:
            # heavy ball and AdamW, p = 1: the step is the buffer
            np.multiply(drive, eta, out=radial)
            np.subtract(keep, radial, out=radial)
            np.multiply(gradient, c * c, out=gradient)
            np.multiply(tau, a * a, out=energy)
            np.add(energy, gradient, out=energy)
            across = energy
            np.multiply(energy, keep * keep, out=tau)
        else:
            kept = keep - eta * q * pull
            np.multiply(drive, -p * eta, out=radial)
            np.add(radial, kept, out=radial)
            np.multiply(tau, p * a * a, out=energy)
            np.multiply(
                gradient, (p * c + q) * c + a * (2 * p * c + q) * rule.correlation, out=hold
            )
            across = hold
            np.add(energy, hold, out=hold)
            np.multiply(energy, p, out=energy)
            kick = (p * c + q) * (p * c + q + 2 * p * a * rule.correlation)
            np.add(energy, gradient * kick, out=energy)
            push = c * kept + eta * q * drive
            along = rule.correlation * gradient
            area = push * push * gradient + 2.0 * kept * a * push * along
            area += (kept * a) ** 2 * tau
            area += (eta * a * q) ** 2 * (tau * gradient - along * along)
            # The correlation is a mean: a single start may leave less than nothing across w.
            np.maximum(area, 0.0, out=tau)
        # growth = radial^2 + eta^2 energy
        np.multiply(radial, radial, out=growth)
        np.multiply(energy, eta * eta, out=gradient)
        np.add(growth, gradient, out=growth)
        if record:
            end.W_sum[:k] += w
            end.W2_sum[:k] += w * w
            grown = np.sqrt(growth)
            turn2 = 2.0 * gradient / (grown * (grown + radial))
            end.turn2_sum[:k] += turn2
            end.turn2_last[:k] = turn2
        # lean and tangent at the new weights
        np.multiply(radial, drive, out=rho)
        np.multiply(across, eta, out=gradient)
        np.subtract(rho, gradient, out=rho)
        np.divide(rho, growth, out=rho)
        np.multiply(w, growth, out=w)
        np.multiply(growth, growth, out=growth)
        np.divide(tau, growth, out=tau)
    return end
