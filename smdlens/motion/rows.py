"""The sums of tensors become their rows of the two motion tables, as arrays.

There may be a hundred thousand tensors, so a row is a row of numbers, made for many at once; names
and nulls come with the tables. NaN, and whatever is not finite, stands for null.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smdlens.motion.chord import ChordSums
from smdlens.motion.leak import LEAK_COLUMNS
from smdlens.motion.quantiles import Pieces, unit_gradient_quantiles
from smdlens.motion.records import PAIR_VALUES, SNAPSHOT_VALUES
from smdlens.motion.select import Selected
from smdlens.motion.sums import PairSum, SnapshotSum, TensorSums
from smdlens.theory.angles import rounding_floor
from smdlens.vocabulary import Role

Float = NDArray[np.float64]
_SNAPSHOT_AT = {name: place for place, name in enumerate(SNAPSHOT_VALUES)}
_PAIR_AT = {name: place for place, name in enumerate(PAIR_VALUES)}
_MOMENTUM = {"wv": SnapshotSum.WV, "v2": SnapshotSum.V2}
_ADAM = {"wu": SnapshotSum.WU, "u2": SnapshotSum.U2, "vhat_sum": SnapshotSum.VHAT}
_GRADIENT = {"grad2": PairSum.GRAD2, "grad_w": PairSum.GRAD_W, "grad_v": PairSum.GRAD_V}
_ADAM_FROM = {"s_wu_from": PairSum.S_WU_FROM, "s_u2_from": PairSum.S_U2_FROM}
_ADAM_TO = {"s_wu_to": PairSum.S_WU_TO, "s_u2_to": PairSum.S_U2_TO}
_ADAM_BOTH = {"s_w2_from": PairSum.S_W2_FROM, "s_w2_to": PairSum.S_W2_TO}
_CHANNELS = slice(_PAIR_AT["growth_p05"], _PAIR_AT["empty_channels"] + 1)
_UNIT = slice(_PAIR_AT["unit_gradient_p05"], _PAIR_AT["unit_gradient_p95"] + 1)
_LEAK = slice(_PAIR_AT[LEAK_COLUMNS[0]], _PAIR_AT[LEAK_COLUMNS[-1]] + 1)


def snapshot_values(alike: Sequence[Selected], sums: TensorSums) -> Float:
    """`SNAPSHOT_VALUES` of tensors measured alike, [S, M, columns]; NaN where not known.

    Args:
        alike: The tensors: of as many channels and groups, from the same kinds of sources.
        sums: Their sums as `TensorSums.of` gives them.
    """
    sources = alike[0].plan.snapshots
    w2 = sums.w2.sum(-1)
    out = np.full((*w2.shape, len(SNAPSHOT_VALUES)), np.nan)
    out[..., _SNAPSHOT_AT["w2"]] = w2
    out[..., _SNAPSHOT_AT["round2"]] = _round2(sums.snapshot, w2)
    out[..., _SNAPSHOT_AT["nonfinite"]] = sums.snapshot[..., SnapshotSum.NONFINITE]
    if sums.clock is not None:
        out[..., _SNAPSHOT_AT["clock2"]] = _clock2(alike[0], sums.clock, w2)
    for columns, known in (
        (_MOMENTUM, [s.momentum is not None for s in sources]),
        (_ADAM, [s.adam is not None for s in sources]),
    ):
        if any(known):
            _fill(out, _SNAPSHOT_AT, columns, sums.snapshot, np.array(known))
    return out


def pair_values(alike: Sequence[Selected], sums: TensorSums, leak: Float) -> Float:
    """`PAIR_VALUES` of tensors measured alike, [P, M, columns]; NaN where not known.

    Args:
        alike: As for `snapshot_values`.
        sums: Likewise.
        leak: [P, M, 6] `LEAK_COLUMNS`, NaN without a normalisation whose variance is stored.
    """
    plan, groups, chord = alike[0].plan, alike[0].symmetry.groups, sums.chord
    has_pieces = plan.layout.count > 1 and groups > 1
    out = np.full((*leak.shape[:2], len(PAIR_VALUES)), np.nan)
    out[..., _PAIR_AT["dot"]] = chord.dot().sum(-1)
    out[..., _PAIR_AT["chord2"]] = chord.total_chord2()
    if any(rule is not None for rule in plan.gradients):
        ends = zip(plan.gradients, plan.snapshots[:-1], plan.snapshots[1:], strict=True)
        known = [
            rule is not None and bool((a.momentum and b.momentum) or (a.adam and b.adam))
            for rule, a, b in ends
        ]
        _fill(out, _PAIR_AT, _GRADIENT, sums.pair, np.array(known))
        if has_pieces and len(sums.grad2):
            unit = unit_gradient_quantiles(sums.grad2, sums.w2[:-1], groups)
            out[known, :, _UNIT] = unit[known]
    _fill_adam(out, alike, sums)
    if has_pieces:
        w2 = sums.w2.sum(-1)
        out[..., _CHANNELS] = _channels(groups, chord, w2, _round2(sums.snapshot, w2))
    out[..., _LEAK] = leak
    return out


def _fill(
    out: Float,
    places: dict[str, int],
    columns: dict[str, SnapshotSum] | dict[str, PairSum],
    values: Float,
    known: NDArray[np.bool_],
) -> None:
    """Some columns of `values` into those of `out`, in snapshots or pairs where they are known."""
    for name, column in columns.items():
        out[known, :, places[name]] = values[known, :, column]


def _channels(groups: int, chord: ChordSums, w2: Float, round2: Float) -> Float:
    """Quantiles over channels, and channels without gradient: [P, M, 9]."""
    pieces = Pieces(chord, groups)
    still = pieces.still(rounding_floor(round2[:-1], w2[:-1], round2[1:], w2[1:]))
    return np.concatenate((*pieces.quantiles(), still), axis=-1)


def _fill_adam(out: Float, alike: Sequence[Selected], sums: TensorSums) -> None:
    """S-weighted sums with S scaled to mean 1 over the tensor: plain sums divided by mean S."""
    adam = np.array([s.adam is not None for s in alike[0].plan.snapshots])
    if not adam.any():
        return
    values = sums.pair
    mean = values[..., PairSum.S_SUM] / np.array([each.plan.layout.numel for each in alike])
    scaled = values / mean[..., None]
    start, end = adam[:-1], adam[1:]
    for known, columns in ((start | end, _ADAM_BOTH), (start, _ADAM_FROM), (end, _ADAM_TO)):
        _fill(out, _PAIR_AT, columns, scaled, known)
    either = start | end
    out[either, :, _PAIR_AT["s_mean"]] = mean[either]
    lowest = sums.s_range[..., 0] / sums.s_range[..., 1]
    out[either, :, _PAIR_AT["s_min_ratio"]] = lowest[either]


def _round2(values: Float, w2: Float) -> Float:
    """From the sampled elements to all, by their share of |w|^2; all are the sample of a zero."""
    sampled = values[..., SnapshotSum.SAMPLED]
    share: Float = np.where(sampled > 0, w2 / sampled, 1.0)
    scaled: Float = values[..., SnapshotSum.ROUND2] * share
    return scaled


def _clock2(selected: Selected, clock: Float, w2: Float) -> Float:
    """What gets no gradient: a bias in front of batch norm itself, else the sum over classes."""
    if selected.symmetry.role == Role.IRRELEVANT:
        return w2
    squared: Float = np.square(clock).sum(1)
    return squared[:, None]
