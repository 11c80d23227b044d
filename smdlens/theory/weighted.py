"""AdamW in the norm in which its step is orthogonal to the weights: S = sqrt(vhat) + eps.

Scale invariance gives <w, g> = 0, but the step is g / S: <w, g / S> vanishes only when entries are
weighted by S. See docs/theory.md §6.
"""

from __future__ import annotations

import numpy as np

from smdlens.theory.arrays import Array, Real, as_floats


def plain_turn2(turn2_weighted: Real, WS0: Real, WS1: Real, W0: Real, W1: Real) -> Array:
    """Plain squared chord of a step measured in the S-weighted norm.

    Delta^2 = Delta_S^2 sqrt(WS0 WS1) / sqrt(W0 W1): Adam's direction has the same mean square in
    every entry, so |u|_S^2 = |u|^2 for S of mean 1 and only the weights' norms differ. Derived in
    docs/theory.md §6 [smdlens-theory]; normalised steps as in [Kosson2024].

    Args:
        turn2_weighted: 2 (1 - cos Delta_S) from the closed form or from shooting on WS.
        WS0: sum S w^2 at the first snapshot, S scaled to mean 1.
        WS1: sum S w^2 at the second.
        W0: |w|^2 at the first.
        W1: |w|^2 at the second.

    Returns:
        2 (1 - cos Delta), broadcast shape; NaN where a plain norm is zero.
    """
    turn2_weighted, WS0, WS1, W0, W1 = as_floats(turn2_weighted, WS0, WS1, W0, W1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.sqrt(WS0 / W0) * np.sqrt(WS1 / W1)
    return np.where((W0 > 0) & (W1 > 0), turn2_weighted * scale, np.nan)[()]
