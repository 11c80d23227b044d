"""The variance that rounding to the storage dtype leaves: sum of ulp(w)^2 / 12.

Rounding to nearest leaves an error uniform in +-ulp/2, so of variance ulp^2/12 per element. The
ulp of a value is a power of two read off its exponent bits; subnormals and zero have the smallest
one. Exponents of every storage dtype up to 32 bits survive the exact conversion to float32.
"""

from __future__ import annotations

import torch

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
# Squares of powers of two in this range neither overflow nor underflow to a degree that matters.
_SAFE_LOW, _SAFE_HIGH = 2.0**-50, 2.0**50


def rounding_variance(
    values: torch.Tensor, scratch: torch.Tensor, rms: float, masked: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum of ulp^2 / 12 over a block.

    Args:
        values: Elements in the storage dtype, any shape.
        scratch: Contiguous float64 scratch with as many elements; overwritten.
        rms: Root mean square of the block, tells whether float32 squares suffice.
        masked: Boolean, True where an element is left out.

    Returns:
        0-d float64 tensor; relative error below 1e-5 (a power of two summed in float32), far
        below what a noise floor needs.
    """
    mantissa, exponent = _FORMATS[values.dtype]
    scale = 4.0**-mantissa / 12
    smallest = 2.0**exponent
    flat = values.reshape(-1)
    if values.dtype == torch.float64:
        bits = scratch.view(-1).view(torch.int64)
        torch.bitwise_and(flat.view(torch.int64), _EXPONENT_64, out=bits)
        power = bits.view(torch.float64)
    else:
        half = scratch.view(-1).view(torch.float32)[: flat.numel()]
        if values.dtype == torch.float32:
            torch.bitwise_and(flat.view(torch.int32), _EXPONENT_32, out=half.view(torch.int32))
        else:
            half.copy_(flat)
            half.view(torch.int32).bitwise_and_(_EXPONENT_32)
        power = half if _SAFE_LOW < rms < _SAFE_HIGH else half.to(torch.float64)
    power.clamp_(min=smallest)
    if masked is not None:
        power.masked_fill_(masked.reshape(-1), 0.0)
    return torch.dot(power, power).to(torch.float64) * scale
