"""Second moment of the unit gradient |w| g, from motion alone."""

from __future__ import annotations

import numpy as np

from smdlens.theory.arrays import Array, Real, as_floats


def unit_gradient_rms_from_turn2(
    turn2_mean: Real, r4_mean: Real, lr: Real, momentum: Real = 0.0
) -> Array:
    """sqrt(E h~) of heavy ball over an interval: sqrt((1 - a^2) mean(r^4) mean(Delta^2)) / lr.

    h~ = (|g|^2 + 2 a <v', g>) |w|^2 is the adjusted unit gradient of [Wan2021, Thm 2]; without
    momentum it is |g~|^2. Leading order in lr decay; shooting gives the same number as sqrt(G).
    Derived in docs/theory.md §10 [smdlens-theory].

    Args:
        turn2_mean: Mean 2 (1 - cos Delta).
        r4_mean: Mean |w|^4.
        lr: Learning rate.
        momentum: a.

    Returns:
        Norm of the unit gradient (loss per radian), broadcast shape.
    """
    turn2_mean, r4_mean, lr, a = as_floats(turn2_mean, r4_mean, lr, momentum)
    return np.asarray(np.sqrt((1.0 - a**2) * r4_mean * turn2_mean) / lr)[()]


def unit_gradient_norm_plain_sgd(angle_rad: Real, w2: Real, lr: Real, decay: Real) -> Array:
    """|g~| of one plain SGD update, exactly: |w|^2 tan(Delta) (1 - lr decay) / lr.

    Inverts the right triangle of [Wan2021, Eq 7]; derived in docs/theory.md §10 [smdlens-theory].

    Args:
        angle_rad: Angle of the update.
        w2: |w|^2 before it.
        lr: Learning rate.
        decay: Weight decay plus epsilon leak.
    """
    angle_rad, w2, lr, decay = as_floats(angle_rad, w2, lr, decay)
    return np.asarray(w2 * np.tan(angle_rad) * (1.0 - lr * decay) / lr)[()]


def unit_gradient_norm(grad2: Real, w2: Real) -> Array:
    """|g~| = |w| |g| from the squared norms of a gradient and its weights [Wan2021, Def 2].

    For SGD on consecutive snapshots grad2 = |v_t - a v_(t-1) - decay w_t|^2; for Adam the sum of
    vhat gives the RMS.
    """
    grad2, w2 = as_floats(grad2, w2)
    return np.asarray(np.sqrt(grad2) * np.sqrt(w2))[()]
