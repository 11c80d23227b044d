"""What a cut shows from weights alone: how fast a norm falls is how much decay there is.

In equilibrium gradients push a norm outwards as strongly as decay pulls it in. A cut of the rate by
k leaves a k-th of that push, so the norm falls nearly as decay alone makes it, at whatever rate and
decay really ran: c times the recorded product (docs/faults.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.hyper.records import RateCut
from smdlens.theory.decay_root import decay_log_rate
from smdlens.theory.relaxation import norm_power

Array = NDArray[np.float64]

# Updates over 1 / (1 - a) after the cut in which the buffer still remembers the old rate.
_MEMORY = 10.0
# Share of the decay that gradients may take back: the unit gradient may have changed at the cut.
_PUSH = 0.35
_FEWEST = 2


def decay_shown(part: GroupMeasurement, cut: RateCut) -> Array | None:
    """C of every tensor after one cut: rate times decay that ran, over the recorded; [T].

    c = -trend / (1 - y) - leak, trend the change of ln |w|^2 over what decay alone would take and
    y = q/k (|w_cut| / |w|)^m what the push is by then; q is the squared ratio before the cut and
    m = 4 (SGD) or 2 (AdamW). Median over the intervals in which y is small.

    Args:
        part: A parameter group.
        cut: A cut inside the run.

    Returns:
        NaN where fewer than two intervals tell; None where the group's rates do not.
    """
    law, rates, steps = part.law, part.rates, part.tracks.steps
    if law is None or law.is_l2_adam or not part.tracks.by_updates:
        return None
    lr, decay = rates.mean_lr(), rates.mean_decay()
    before = np.flatnonzero((steps[1:] <= cut.step_low) & rates.constant)[-3:]
    after = np.flatnonzero((steps[:-1] >= cut.step_high) & rates.constant)
    if not len(before) or not len(after) or not lr[before[-1]] > 0.0 < decay[after[0]]:
        return None
    product = lr[after[0]] * decay[after[0]]
    after = after[(lr[after] == lr[after[0]]) & (decay[after] == decay[after[0]])]
    factor = (lr[before[-1]] / decay[before[-1]]) / (lr[after[0]] / decay[after[0]])
    memory = 0.0 if law.decoupled and not law.adaptive else _MEMORY / (1.0 - law.momentum)
    after = after[steps[after] - cut.step_high >= min(memory, 0.2 * (steps[-1] - cut.step_high))]
    if law.family in ("sgd", "nesterov"):
        fall = 2.0 * decay_log_rate(product, law.momentum, law.family == "nesterov")
    else:
        fall = -2.0 * np.log1p(-product)
    w2 = part.tracks.at["w2"]
    start = int(np.searchsorted(steps, cut.step_low))
    with np.errstate(all="ignore"):
        trend = np.diff(np.log(w2), axis=1) / (part.tracks.lengths * float(fall))
        q = np.nanmean(part.ratios.q[:, before], axis=1, keepdims=True)
        middle = np.sqrt(w2[:, after] * w2[:, after + 1])
        push = q / factor * (w2[:, [start]] / middle) ** (norm_power(law.family) / 2.0)
        shown = -trend[:, after] / (1.0 - push) - np.nan_to_num(part.ratios.kappa_ratio[:, after])
    told = np.isfinite(shown) & (push < _PUSH) & (part.steps.angle[:, after] != 0.0)
    return np.array(
        [
            np.median(row[use][:8]) if use.sum() >= _FEWEST else np.nan
            for row, use in zip(shown, told, strict=True)
        ]
    )
