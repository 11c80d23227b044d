"""The variance that rounding to the storage dtype leaves: sum of ulp(w)^2 / 12.

Rounding to nearest leaves an error uniform in +-ulp/2, so of variance ulp^2/12 per element. The
ulp of a value is a power of two read off its exponent bits; subnormals and zero have the smallest
one. Exponents of every storage dtype up to 32 bits survive the conversion to float32.
"""

from __future__ import annotations

import torch

from smdlens.motion.workspace import Scratch

# Mantissa bits and smallest normal exponent.
_FORMATS: dict[torch.dtype, tuple[int, int]] = {
    torch.float64: (52, -1022),
    torch.float32: (23, -126),
    torch.bfloat16: (7, -126),
    torch.float16: (10, -14),
    torch.float8_e4m3fn: (3, -6),
    torch.float8_e5m2: (2, -14),
}
_EXPONENT_32 = 0x7F800000
_EXPONENT_64 = 0x7FF0000000000000
# Where the root mean square of a block lies in this range, squared powers of two neither overflow
# float32 nor underflow to a degree that matters.
ORDINARY_RMS = (2.0**-50, 2.0**50)


def rounding_variance(values: torch.Tensor, stored: torch.dtype, spare: Scratch) -> float:
    """Sum of ulp^2 / 12 over a block whose root mean square lies within `ORDINARY_RMS`.

    Args:
        values: Elements as float32, or float64 where they are stored so; flat.
        stored: The storage dtype.
        spare: As many elements; overwritten.

    Returns:
        The sum, relative error below 1e-4: squares of powers of two are summed in float32, which
        is plenty for a noise floor and half the price.
    """
    if stored == torch.float64:
        return careful_rounding_variance(values, None)
    mantissa, exponent = _FORMATS[stored]
    power = spare.flat.view(torch.float32)[: values.numel()]
    torch.bitwise_and(values.view(torch.int32), _EXPONENT_32, out=power.view(torch.int32))
    if exponent > -126:
        # Squared, the smallest ulp of the other formats is zero in float32 anyway.
        power.clamp_(min=2.0**exponent)
    return float(torch.dot(power, power)) * 4.0**-mantissa / 12


def careful_rounding_variance(values: torch.Tensor, left_out: torch.Tensor | None) -> float:
    """Sum of ulp^2 / 12 over any block, in float64.

    Args:
        values: Elements in the storage dtype, flat.
        left_out: True where an element does not count; None if all do.
    """
    mantissa, exponent = _FORMATS[values.dtype]
    bits = values.to(torch.float64).view(torch.int64) & _EXPONENT_64
    power = bits.view(torch.float64).clamp_(min=2.0**exponent)
    if left_out is not None:
        power.masked_fill_(left_out, 0.0)
    # The ulp itself, not the power times a factor later: float64's smallest would square to zero.
    ulp = power.mul_(2.0**-mantissa)
    return float(torch.dot(ulp, ulp)) / 12
