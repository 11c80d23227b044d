"""Numbers out of files: hostile until shown to be finite."""

from __future__ import annotations

import math
from typing import Any


def finite(value: Any) -> float | None:
    """A number as a float; None for anything else, for truth values, NaN, infinite or huge ones."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # An integer of hundreds of digits has no float at all.
    if isinstance(value, int) and abs(value) > 1 << 1000:
        return None
    return float(value) if math.isfinite(value) else None


def natural(value: Any) -> float | None:
    """A finite number of 0 or more, or None."""
    found = finite(value)
    return found if found is not None and found >= 0.0 else None
