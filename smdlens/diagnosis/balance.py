"""What learning rate and weight decay really moved a tensor, from its weights and saved buffers.

With f the learning rate and m the weight decay that ran, each over the recorded one, two balances
hold between snapshots of a scale-invariant tensor (docs/faults.md), neither of which asks how
large the gradients are:

    the buffer's lean on the weights:  m c = lean + f energy
    the norm's trend:                  m   = f push - trend / f

c = 1 where the decay passes through the buffer (SGD with momentum) and 0 where it does not (AdamW).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement

Array = NDArray[np.float64]

# Updates over 1 / (1 - a) after a change of the rate in which the buffer still remembers the old.
_MEMORY = 10.0
# Change of the buffer's energy over an interval, logarithm: beyond it the ends are no mean.
_RESTLESS = np.log(4.0)


@dataclass(frozen=True, slots=True)
class Balance:
    """Terms of both balances in units of the recorded decay, [T, I]; NaN where they do not hold.

    Attributes:
        lean: (1-a) <w, v> / (decay |w|^2) at the end of each interval.
        energy: lr |v|^2 / (decay |w|^2) there.
        push: What gradients add to the norm.
        trend: Change of ln |w|^2 per update, over what decay alone would take.
        leak: kappa / decay of epsilon, which acts as that much more decay.
        coupled: c.
    """

    lean: Array
    energy: Array
    push: Array
    trend: Array
    leak: Array
    coupled: bool

    def decay_by_lean(self, f: float) -> Array:
        """M by the first balance; for c = 0 what should be 0."""
        return self.lean + f * self.energy - (self.leak if self.coupled else 0.0)

    def decay_by_trend(self, f: float) -> Array:
        """M by the second balance."""
        return f * self.push - self.trend / f - self.leak


def balance_of(part: GroupMeasurement) -> Balance | None:
    """The balances of a group; None where its optimizer or files do not give them.

    Heavy ball: <w, v> falls by lr |v|^2 and grows by decay |w|^2 per update, and section 2's
    identity gives the trend. AdamW: the same in the norm weighted by sqrt(vhat) + eps, in which the
    gradient is orthogonal to the weights.
    """
    law, tracks, rates = part.law, part.tracks, part.rates
    if law is None or law.momentum == 0.0 or law.rule is None or not tracks.by_updates:
        return None
    a, lr, decay = law.momentum, rates.mean_lr(), rates.mean_decay()
    with np.errstate(divide="ignore", invalid="ignore"):
        if law.is_heavy_ball and not law.decoupled and law.rule.c == 1.0:
            w2, wv, v2 = (tracks.at[name] for name in ("w2", "wv", "v2"))
            ends = (w2[:, :-1], v2[:, :-1]), (w2[:, 1:], v2[:, 1:])
            lean, growth = wv[:, 1:] / w2[:, 1:], (1.0 - a) / 2.0
            gain = (1.0 + a) / 2.0
        elif law.adaptive and law.decoupled:
            names = ("s_w2_from", "s_u2_from", "s_w2_to", "s_u2_to", "s_wu_to")
            w2a, v2a, w2b, v2b, wvb = (tracks.between[name] for name in names)
            ends = (w2a, v2a), (w2b, v2b)
            lean, growth = wvb / w2b, 0.5
            gain = (1.0 + a) / (1.0 - a) / 2.0
        else:
            return None
        (w2a, v2a), (w2b, v2b) = ends
        first, last = lr * v2a / (decay * w2a), lr * v2b / (decay * w2b)
        trend = growth * np.log(w2b / w2a) / (tracks.lengths * lr * decay)
        usable = _usable(part) & (np.abs(np.log(v2b * w2b / (v2a * w2a))) < _RESTLESS)
        # A frozen tensor keeps the buffer it had: it says nothing about weights that stand still.
        usable &= (part.steps.angle != 0.0) & np.isfinite(lean + first + last + trend)
        lean = (1.0 - a) * lean / decay
    return Balance(
        lean=np.where(usable, lean, np.nan),
        energy=np.where(usable, last, np.nan),
        push=np.where(usable, gain * (first + last) / 2.0, np.nan),
        trend=np.where(usable, trend, np.nan),
        leak=np.nan_to_num(part.ratios.kappa_ratio) * np.ones_like(trend),
        coupled=not law.decoupled,
    )


def _usable(part: GroupMeasurement) -> NDArray[np.bool_]:
    """Intervals of one rate and decay, far enough from the start and from every change, [I]."""
    rates, lengths = part.rates, part.tracks.lengths
    usable = rates.constant & (rates.place_error == 0.0) & (lengths > 1)
    memory = _MEMORY / (1.0 - (part.law.momentum if part.law is not None else 0.0))
    lr, since = rates.mean_lr(), 0.0
    for i, n in enumerate(lengths):
        changed = i == 0 or lr[i] != lr[i - 1]
        since = 0.0 if changed else since + float(n)
        usable[i] &= since + n >= memory and not changed
    return np.asarray(usable)


@dataclass(frozen=True, slots=True)
class Fit:
    """One tensor's rate and decay over the recorded ones.

    Attributes:
        rate: f.
        decay: m.
        misfit: Mean squared residual, in standard errors, at that f and m.
        steady_misfit: The same for the best m at f = 1.
        steady_decay: That m.
        rate_alone: The f that explains most with m = 1.
        alone_misfit: The misfit of f = `rate_alone`, m = 1.
        readings: Intervals used.
    """

    rate: float
    decay: float
    misfit: float
    steady_misfit: float
    steady_decay: float
    rate_alone: float
    alone_misfit: float
    readings: int


_GRID = np.exp(np.linspace(np.log(0.1), np.log(10.0), 231))
# A mean over a window is trusted no better than this: unit gradients change within it.
_FLOOR, _LEAST = 0.05, 1e-3


def fit_rates(balance: Balance, row: int, windows: list[NDArray[np.intp]]) -> Fit | None:
    """F and m that bring a tensor's balances together over all windows.

    Each window's means weigh by their scatter. In equilibrium f and 1 / m look alike; a window
    after a cut, in which the norm falls, tells them apart.

    Args:
        balance: The balances of its group.
        row: The tensor.
        windows: Intervals of each stage.
    """
    known = [w[np.isfinite(balance.trend[row, w])] for w in windows]
    known = [w for w in known if len(w) >= 3]
    if not known:
        return None

    def misfit(f: float, m: float | None = None) -> tuple[float, float]:
        means, errors, zeros = [], [], []
        for window in known:
            lean = balance.decay_by_lean(f)[row, window]
            trend = balance.decay_by_trend(f)[row, window]
            for values, is_decay in ((lean, balance.coupled), (trend, True)):
                error = float(values.std()) / len(window) ** 0.5
                size = f * float(balance.energy[row, window].mean())
                error = max(error, _FLOOR * (abs(float(values.mean())) + size), _LEAST)
                if is_decay:
                    means.append(float(values.mean()))
                    errors.append(error)
                else:
                    zeros.append((float(values.mean()) / error) ** 2)
        weight = np.array(errors) ** -2.0
        m = float(np.average(means, weights=weight)) if m is None else m
        squares = [*zeros, *(weight * (np.array(means) - m) ** 2)]
        return float(np.sum(squares)) / max(len(squares) - 1, 1), m

    scored = [misfit(f) for f in _GRID]
    alone = [misfit(f, 1.0)[0] for f in _GRID]
    best, lone = int(np.argmin([score for score, _ in scored])), int(np.argmin(alone))
    steady, steady_decay = misfit(1.0)
    return Fit(
        rate=float(_GRID[best]),
        decay=scored[best][1],
        misfit=scored[best][0],
        steady_misfit=steady,
        steady_decay=steady_decay,
        rate_alone=float(_GRID[lone]),
        alone_misfit=alone[lone],
        readings=sum(map(len, known)),
    )
