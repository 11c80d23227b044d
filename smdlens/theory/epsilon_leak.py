"""The radial pull that batch norm's epsilon leaves, read from how gamma moved.

With y = gamma (x - mu) / sqrt(var + eps), exactly <w_c, g_c> = f_c gamma_c dL/dgamma_c per output
channel, f = eps / (var + eps). See docs/theory.md §10.
"""

from __future__ import annotations

import numpy as np

from smdlens.theory.arrays import Array, Real, as_floats

# f and dL/dgamma co-vary over batches, so the product of their means over-corrects, by 0 to 25 %;
# from per-step logs of small BN networks (docs/theory.md §10), to be refitted on others.
KAPPA_SHRINK = 0.9
# Error of the shrunk kappa as a fraction of it, same source.
KAPPA_RELATIVE_ERROR = 0.35


def kappa_from_gamma(
    leak_shift: Real,
    leak_buffer_from: Real,
    leak_buffer_to: Real,
    leak_gamma: Real,
    lr_first: Real,
    lr_last: Real,
    lr_sum: Real,
    momentum: Real,
    gamma_decay: Real,
    w2_mean: Real,
    nesterov: bool = False,
    dampening: Real = 0.0,
    shrink: float = KAPPA_SHRINK,
) -> Array:
    """Epsilon leak kappa = <g, w> / |w|^2 of an interval, averaged with the weights lr_t.

    The lr-weighted mean gradient of gamma follows from its own motion under SGD,
    c gbar = ((1-a)(gamma_0 - gamma_n) + m (lr_last b_n - lr_first b_0) - m (lr_last - lr_first)
    bbar) / lr_sum - c decay gamma_mean, bbar = (gamma_0 - gamma_n) / lr_sum, with m = a (heavy
    ball), a^2 (Nesterov), 0 (plain SGD). Then kappa = shrink sum_c f_c gamma_c gbar_c / |w|^2, to
    be added to the coupled decay everywhere. Derived in docs/theory.md §10 [smdlens-theory]; batch
    normalisation with its epsilon as in [Ioffe2015, Alg 1].

    Args:
        leak_shift: Sum over channels of f gamma (gamma_0 - gamma_n).
        leak_buffer_from: Sum of f gamma times gamma's buffer at the first snapshot, NaN without.
        leak_buffer_to: The same at the second.
        leak_gamma: Sum of f gamma times the mean gamma.
        lr_first: Rate of the first update after the first snapshot.
        lr_last: Rate of the last update before the second.
        lr_sum: Sum of the rates between (n lr when constant).
        momentum: a of gamma's parameter group.
        gamma_decay: Coupled weight decay on gamma.
        w2_mean: Mean |w|^2 of the tensor over the interval.
        nesterov: Nesterov's update.
        dampening: 1 - c.
        shrink: See `KAPPA_SHRINK`; 1 for the raw value.

    Returns:
        kappa in the units of weight decay, broadcast shape. Exact (shrink 1, f constant) at
        constant rate; inside a schedule the buffer at each change is taken as its mean. Without
        buffers both buffer terms are dropped.
    """
    shift, before, after, gamma, first, last, total, a, decay, w2, dampening = as_floats(
        leak_shift,
        leak_buffer_from,
        leak_buffer_to,
        leak_gamma,
        lr_first,
        lr_last,
        lr_sum,
        momentum,
        gamma_decay,
        w2_mean,
        dampening,
    )
    memory = a**2 if nesterov else a
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = last * after - first * before - (last - first) * shift / total
        ends = np.where(np.isnan(ends), 0.0, ends)
        pulled = ((1.0 - a) * shift + memory * ends) / (total * (1.0 - dampening))
        return np.asarray(shrink * (pulled - decay * gamma) / w2)[()]


def kappa_error(kappa: Real) -> Array:
    """Standard error of a shrunk kappa: `KAPPA_RELATIVE_ERROR` |kappa|, same units.

    Measured, see docs/theory.md §10 [smdlens-theory].
    """
    return np.asarray(KAPPA_RELATIVE_ERROR * np.abs(as_floats(kappa)[0]))[()]
