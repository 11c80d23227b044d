"""Linear scaling of the learning rate with the batch: k small steps against one k times as long."""

from __future__ import annotations

import numpy as np

from smdlens.theory.arrays import Array, Real, as_floats
from smdlens.theory.equilibrium import angular_update
from smdlens.theory.moments import UpdateRule
from smdlens.theory.random_walk import random_walk_angle


def scaling_ratio(
    k: Real, rule: UpdateRule, lr: Real, coupled: Real, decoupled: Real = 0.0
) -> Array:
    """Angle over k updates at rate lr over the angle of one update at rate k lr, in equilibrium.

    The comparison of the linear scaling rule [Goyal2017, §2.1]. White gradients: 1 without
    momentum; 1.38 (k = 2) to 4.02 (k = 64) at a = 0.9, saturating at sqrt((1+a) / (1-a)); observed
    up to about sqrt(k). Derived in docs/theory.md §12 [smdlens-theory].

    Args:
        k: Factor of batch and rate.
        rule: The optimizer.
        lr: Rate of the small batch.
        coupled: Decay inside the gradient.
        decoupled: Decay on the weights directly.

    Returns:
        Dimensionless, broadcast shape.
    """
    k, lr = as_floats(k, lr)
    many = random_walk_angle(k, rule, lr, coupled, decoupled)
    return np.asarray(many / angular_update(rule, k * lr, coupled, decoupled))[()]
