"""What is measured between neighbouring snapshots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class OneStep:
    """What was measured between neighbouring snapshots; arrays are [T, I], NaN where unknown.

    Attributes:
        turn2: Mean squared one-step angle, as 2 (1 - cos Delta).
        method: `Method` values as strings, "" where nothing could be measured.
        angle: Angle between the two snapshots, radians.
        floor: Angle that rounding to the storage dtype alone would show, radians.
        last: Angle of the last single update, radians, from optimizer state.
        drive: G of the recursion, the second moment that explains the norms.
        unit_gradient2: Mean effective squared unit gradient.
        assumed_error: Relative standard error of turn2 from the shape of Adam's steps, and from the
            correlation of Nesterov's gradients with the momentum (docs/theory.md §11); else 0.
        below: The norm falls as fast as decay alone makes it: the angle is below resolution.
        unclosed: Standard error of turn2 where saved buffers close the norm balance but the rate
            changed meanwhile; 0 elsewhere.
        with_state: The interval's boundary terms come from saved optimizer state.
    """

    turn2: Array
    method: NDArray[np.str_]
    angle: Array
    floor: Array
    last: Array
    drive: Array
    unit_gradient2: Array
    unclosed: Array
    assumed_error: Array
    below: Flags
    with_state: Flags
