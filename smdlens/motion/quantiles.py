"""How the channels of one tensor moved: quantiles, so that per-channel rows need not be kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smdlens.motion.chord import ChordSums
from smdlens.theory.angles import angle

Float = NDArray[np.float64]
LEVELS = (0.05, 0.50, 0.95)
# A piece that gets no gradient turns by rounding alone, over many updates.
_FLOORS, _STILL = 3.0, 1e-3


def channel_quantiles(chord: ChordSums, groups: int) -> tuple[Float, Float]:
    """Quantiles over the independently rescalable pieces of one tensor.

    Args:
        chord: Sums [pairs, channels].
        groups: Number of pieces; where it divides the channels, neighbours are joined (heads).

    Returns:
        growth and angle, [pairs, 3] each: ln(|b_c|^2 / |a_c|^2) and the angle between a_c and b_c
        in radians at the 5, 50 and 95% level. Pieces of zero norm at either end are left out; NaN
        where none remains.
    """
    growth, turned, valid = _pieces(chord, groups)
    return _quantiles(growth, valid), _quantiles(turned, valid)


def still_pieces(chord: ChordSums, groups: int, floor: Float) -> tuple[Float, Float, Float]:
    """Pieces that keep their direction while others turn: they get no gradient.

    Args:
        chord: Sums [pairs, channels].
        groups: Number of pieces, as in `channel_quantiles`.
        floor: Angle that rounding the stored weights alone would show, radians [pairs].

    Returns:
        Per pair: how many pieces stand still (turned no more than a few rounding floors, or a
        thousandth of what the fastest turn), the mean of their ln(|b_c|^2 / |a_c|^2), NaN where
        there are none, and how many pieces are zero at both ends.
    """
    growth, turned, valid = _pieces(chord, groups)
    fastest = _quantiles(turned, valid)[:, -1:]
    limit = np.maximum(_FLOORS * floor[:, None], _STILL * fastest)
    still = valid & (turned <= limit)
    count = still.sum(1)
    mean = np.where(still, growth, 0.0).sum(1) / np.where(count > 0, count, np.nan)
    empty = (~valid & (np.nan_to_num(growth, nan=0.0) == 0.0)).sum(1)
    return count.astype(np.float64), mean, empty.astype(np.float64)


def _pieces(chord: ChordSums, groups: int) -> tuple[Float, Float, NDArray[np.bool_]]:
    """ln(|b_c|^2 / |a_c|^2), angle and validity of each piece, [pairs, pieces]."""
    pairs, channels = chord.aa.shape
    size = channels // groups if channels % groups == 0 else 1
    pieces = ChordSums(
        *(
            getattr(chord, name).reshape(pairs, channels // size, size)
            for name in ChordSums.__slots__
        )
    )
    aa, bb = pieces.aa.sum(-1), pieces.bb.sum(-1)
    turned = angle(aa, bb, pieces.total_chord2(), pieces.dot().sum(-1))
    return np.log(bb / aa), turned, (aa > 0) & (bb > 0)


def _quantiles(values: Float, valid: NDArray[np.bool_]) -> Float:
    out = np.full((len(values), len(LEVELS)), np.nan)
    whole = valid.all(1)
    if whole.any():
        out[whole] = np.quantile(values[whole], LEVELS, axis=1).T
    for row in np.flatnonzero(~whole & valid.any(1)):
        out[row] = np.quantile(values[row][valid[row]], LEVELS)
    return out
