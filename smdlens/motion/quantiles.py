"""How the channels of tensors moved: quantiles, so that per-channel rows need not be kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smdlens.motion.chord import ChordSums
from smdlens.theory.angles import angle

Float = NDArray[np.float64]
LEVELS = (0.05, 0.50, 0.95)
# A piece that gets no gradient turns by rounding alone, over many updates.
_FLOORS, _STILL = 3.0, 1e-3


class Pieces:
    """The independently rescalable pieces of tensors that have as many.

    Args:
        chord: Sums [pairs, tensors, channels].
        groups: Number of pieces; where it divides the channels, neighbours are joined (heads).
    """

    def __init__(self, chord: ChordSums, groups: int) -> None:
        *rows, channels = chord.aa.shape
        size = channels // groups if channels % groups == 0 else 1
        if size == 1:
            aa, bb, chord2, dot = chord.aa, chord.bb, chord.chord2(), chord.dot()
        else:
            shape = *rows, channels // size, size
            joined = ChordSums(*(getattr(chord, n).reshape(shape) for n in ChordSums.__slots__))
            aa, bb = joined.aa.sum(-1), joined.bb.sum(-1)
            chord2, dot = joined.total_chord2(), joined.dot().sum(-1)
        self._valid = (aa > 0) & (bb > 0)
        self._growth = np.log(bb / aa)
        self._turned = angle(aa, bb, chord2, dot)
        self._angles = _quantiles(self._turned, self._valid)

    def quantiles(self) -> tuple[Float, Float]:
        """How they moved.

        Returns:
            growth and angle, [pairs, tensors, 3] each: ln(|b_c|^2 / |a_c|^2) and the angle between
            a_c and b_c in radians at the 5, 50 and 95% level. Pieces of zero norm at either end are
            left out; NaN where none remains.
        """
        return _quantiles(self._growth, self._valid), self._angles

    def still(self, floor: Float) -> Float:
        """Pieces that keep their direction while others turn: they get no gradient.

        Args:
            floor: Angle that rounding the stored weights alone would show, in radians,
                [pairs, tensors].

        Returns:
            [pairs, tensors, 3]: how many pieces stand still (turned no more than a few rounding
            floors, or a thousandth of what the fastest turn), the mean of their
            ln(|b_c|^2 / |a_c|^2), NaN where there are none, and how many pieces are zero at both
            ends.
        """
        valid, growth = self._valid, self._growth
        limit = np.maximum(_FLOORS * floor[..., None], _STILL * self._angles[..., -1:])
        still = valid & (self._turned <= limit)
        count = still.sum(-1)
        mean = np.where(still, growth, 0.0).sum(-1) / np.where(count > 0, count, np.nan)
        empty = (~valid & (np.nan_to_num(growth, nan=0.0) == 0.0)).sum(-1)
        return np.stack((count, mean, empty), axis=-1)


def unit_gradient_quantiles(grad2: Float, w2: Float, groups: int) -> Float:
    """Unit gradients |g_c| |w_c| of the pieces of tensors at the three levels.

    Args:
        grad2: |g_c|^2 by channel, [pairs, tensors, channels].
        w2: |w_c|^2 at the start of each pair, likewise.
        groups: Number of pieces; where it divides the channels, neighbours are joined (heads).

    Returns:
        [pairs, tensors, 3].
    """
    *rows, channels = grad2.shape
    size = channels // groups if channels % groups == 0 else 1
    g2, a2 = (x.reshape(*rows, -1, size).sum(-1) for x in (grad2, w2))
    return _quantiles(np.sqrt(g2 * a2), a2 > 0)


def _quantiles(values: Float, valid: NDArray[np.bool_]) -> Float:
    """Quantiles over the last axis of valid values, linear between neighbours, by one sort."""
    ordered = np.where(valid, values, np.nan)
    ordered.sort(axis=-1)
    count = valid.sum(-1)[..., None]
    place = np.array(LEVELS) * np.maximum(count - 1, 0)
    low = place.astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    a, b = (np.take_along_axis(ordered, place, -1) for place in (low, high))
    found: Float = a + (b - a) * (place - low)
    # A valid value that is NaN sorts behind the others: it would go unnoticed.
    found[np.logical_or.reduce(valid & np.isnan(values), axis=-1)] = np.nan
    return found
