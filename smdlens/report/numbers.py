"""Numbers as a person reads them: 91k iterations, a rate of 1e-4, a ratio of 0.37."""

from __future__ import annotations

import math

_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def exact(value: int) -> str:
    """All digits, in groups of three: 450,360."""
    return f"{value:,}"


def humanised(value: float) -> str:
    """Two significant digits and a unit from 1,000 on: 2.4k, 91k, 0.9M, 14M."""
    # Half a million reads better as 0.5M than as 500k; likewise for the other units' upper halves.
    for size, unit in _UNITS:
        scaled = value / size
        if scaled >= (1.0 if unit == "k" else 0.5):
            digits = f"{scaled:.1f}".removesuffix(".0") if scaled < 9.95 else f"{scaled:,.0f}"
            return digits + unit
    return f"{value:.0f}"


def step_range(low: int, high: int, *, widest: int, dash: str = "–") -> str:
    """`low–high`, exact where that takes at most `widest` characters, else humanised."""
    text = f"{exact(low)}{dash}{exact(high)}"
    if len(text) <= widest:
        return text
    first, last = humanised(low), humanised(high)
    if first[-1] == last[-1] and not first[-1].isdigit():
        first = first[:-1]
    return f"{first}{dash}{last}"


def rate(value: float | None) -> str:
    """A learning rate or weight decay: 0.1, 0.001, 1e-4, 3.33e-5."""
    if value is None:
        return "?"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def ratio(value: float | None) -> str:
    """A ratio near 1 with two decimals; small ones keep two significant digits."""
    if value is None or not math.isfinite(value):
        return "?"
    if value >= 99.5:
        return f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
    if value >= 9.95:
        return f"{value:.0f}"
    if value >= 0.0995 or value == 0:
        return f"{value:.2f}"
    return f"{value:.2g}" if value >= 0.001 else f"{value:.0e}".replace("e-0", "e-")


def ratio_precise(value: float | None) -> str:
    """A ratio of one tensor beside its interval: three decimals, or three significant digits."""
    if value is None or not math.isfinite(value):
        return "?"
    return f"{value:.3f}" if 0.0995 <= value < 9.95 else f"{value:.3g}"


def quantity(value: float | None) -> str:
    """A norm or another quantity in three significant digits: 0.452, 1,430, 1.49e-5."""
    if value is None or not math.isfinite(value):
        return "?"
    if value and not 1e-4 <= abs(value) < 999_500:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    if abs(value) >= 999.5:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}".removesuffix(".")


def bytes_text(value: float) -> str:
    """Decimal bytes: 4.1 GB."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B"


def enumeration(items: list[str]) -> str:
    """`3`, `3 and 4`, `1, 3 and 4`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
