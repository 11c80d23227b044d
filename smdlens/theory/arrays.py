"""The array types of this room and the way into them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Real = float | Array  # what a formula takes: a number or an array of them


def as_float64(value: Real) -> Array:
    """`value` as float64, a 0-d array for a number, without a copy where it already is one."""
    return np.asarray(value, dtype=np.float64)


def as_floats(*values: Real) -> tuple[Array, ...]:
    """Each value through `as_float64`."""
    return tuple(as_float64(value) for value in values)


def broadcast(*values: Real) -> tuple[Array, ...]:
    """Read-only views of the values at their common shape."""
    return tuple(np.broadcast_arrays(*as_floats(*values)))
