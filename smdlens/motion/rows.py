"""The sums of one tensor become its rows of the two motion tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smdlens.motion.chord import ChordSums
from smdlens.motion.leak import LEAK_COLUMNS
from smdlens.motion.quantiles import Pieces
from smdlens.motion.select import Selected
from smdlens.motion.sums import PairSum, SnapshotSum, TensorSums
from smdlens.theory.angles import rounding_floor
from smdlens.vocabulary import Role

Float = NDArray[np.float64]
Columns = dict[str, list[float | int | str | None]]
_CHANNEL_COLUMNS = (
    *(f"growth_{level}" for level in ("p05", "p50", "p95")),
    *(f"angle_{level}" for level in ("p05", "p50", "p95")),
    "still_channels",
    "still_growth",
    "empty_channels",
)
_GRADIENT = {"grad2": PairSum.GRAD2, "grad_w": PairSum.GRAD_W, "grad_v": PairSum.GRAD_V}
_ADAM_FROM = {"s_wu_from": PairSum.S_WU_FROM, "s_u2_from": PairSum.S_U2_FROM}
_ADAM_TO = {"s_wu_to": PairSum.S_WU_TO, "s_u2_to": PairSum.S_U2_TO}
_ADAM_BOTH = {"s_w2_from": PairSum.S_W2_FROM, "s_w2_to": PairSum.S_W2_TO}


def snapshot_rows(
    selected: Selected, sums: TensorSums, steps: tuple[int, ...], first: int = 0
) -> Columns:
    """Columns of `SNAPSHOT_SCHEMA`, one entry per snapshot.

    Args:
        selected: The tensor.
        sums: Its sums.
        steps: Steps of the snapshots.
        first: Index of the first of them in the run.
    """
    sources = selected.plan.snapshots
    momentum = np.array([s.momentum is not None for s in sources])
    adam = np.array([s.adam is not None for s in sources])
    w2 = sums.w2.sum(1)
    values = sums.snapshot[:, 0].T
    return {
        "tensor": [selected.symmetry.name] * len(sources),
        "snapshot": list(range(first, first + len(sources))),
        "step": list(steps),
        "w2": _nullable(w2),
        "round2": _nullable(_round2(values, w2)),
        "nonfinite": [int(n) for n in values[SnapshotSum.NONFINITE]],
        "clock2": _nullable(_clock2(selected, sums, w2)),
        "wv": _nullable(values[SnapshotSum.WV], momentum),
        "v2": _nullable(values[SnapshotSum.V2], momentum),
        "wu": _nullable(values[SnapshotSum.WU], adam),
        "u2": _nullable(values[SnapshotSum.U2], adam),
        "vhat_sum": _nullable(values[SnapshotSum.VHAT], adam),
    }


def pair_rows(
    selected: Selected,
    sums: TensorSums,
    steps: tuple[int, ...],
    leak: Float | None,
    first: int = 0,
) -> Columns:
    """Columns of `PAIR_SCHEMA`, one entry per pair of neighbours.

    Args:
        selected: The tensor.
        sums: Its sums.
        steps: Steps of the snapshots.
        leak: [P, 6] `LEAK_COLUMNS`, None without a normalisation whose variance is stored.
        first: Index of the first snapshot in the run.
    """
    plan = selected.plan
    pairs = len(plan.snapshots) - 1
    out: Columns = {
        "tensor": [selected.symmetry.name] * pairs,
        "snapshot_from": list(range(first, first + pairs)),
        "snapshot_to": list(range(first + 1, first + pairs + 1)),
        "step_from": list(steps[:-1]),
        "step_to": list(steps[1:]),
        "dot": _nullable(sums.chord.dot().sum(1)),
        "chord2": _nullable(sums.chord.total_chord2()),
    }
    values = sums.pair[:, 0].T
    known = np.array(
        [
            rule is not None and ((a.momentum and b.momentum) or (a.adam and b.adam)) is not None
            for rule, a, b in zip(
                plan.gradients, plan.snapshots[:-1], plan.snapshots[1:], strict=True
            )
        ],
        dtype=bool,
    )
    out |= {name: _nullable(values[column], known) for name, column in _GRADIENT.items()}
    out |= _adam_columns(selected, sums)
    w2, snapshot_values = sums.w2.sum(1), sums.snapshot[:, 0].T
    out |= _channel_columns(selected, sums.chord, w2, _round2(snapshot_values, w2))
    leak = np.full((pairs, len(LEAK_COLUMNS)), np.nan) if leak is None else leak
    out |= {name: _nullable(leak[:, column]) for column, name in enumerate(LEAK_COLUMNS)}
    return out


def _channel_columns(selected: Selected, chord: ChordSums, w2: Float, round2: Float) -> Columns:
    """Quantiles over channels, channels without gradient; null where none are kept apart."""
    pairs, groups = len(chord.aa), selected.symmetry.groups
    if selected.plan.layout.count == 1 or groups <= 1:
        return {name: [None] * pairs for name in _CHANNEL_COLUMNS}
    pieces = Pieces(chord, groups)
    growth, turned = pieces.quantiles()
    still = pieces.still(rounding_floor(round2[:-1], w2[:-1], round2[1:], w2[1:]))
    found = (*growth.T, *turned.T, *still)
    return {n: _nullable(values) for n, values in zip(_CHANNEL_COLUMNS, found, strict=True)}


def _adam_columns(selected: Selected, sums: TensorSums) -> Columns:
    """S-weighted sums with S scaled to mean 1 over the tensor: plain sums divided by mean S."""
    adam = np.array([s.adam is not None for s in selected.plan.snapshots])
    values = sums.pair[:, 0].T
    mean = values[PairSum.S_SUM] / selected.plan.layout.numel
    scaled = values / mean
    lowest = sums.s_range[:, 0, 0] / sums.s_range[:, 0, 1]
    start, end = adam[:-1], adam[1:]
    out: Columns = {}
    for known, columns in (
        (start | end, _ADAM_BOTH),
        (start, _ADAM_FROM),
        (end, _ADAM_TO),
    ):
        out |= {name: _nullable(scaled[column], known) for name, column in columns.items()}
    out["s_mean"] = _nullable(mean, start | end)
    out["s_min_ratio"] = _nullable(lowest, start | end)
    return out


def _round2(values: Float, w2: Float) -> Float:
    """From the sampled elements to all, by their share of |w|^2; all are the sample of a zero."""
    sampled = values[SnapshotSum.SAMPLED]
    share: Float = np.where(sampled > 0, w2 / sampled, 1.0)
    scaled: Float = values[SnapshotSum.ROUND2] * share
    return scaled


def _clock2(selected: Selected, sums: TensorSums, w2: Float) -> Float:
    """What gets no gradient: a bias in front of batch norm itself, else the sum over classes."""
    if sums.clock is None:
        return np.full(len(w2), np.nan)
    if selected.symmetry.role == Role.IRRELEVANT:
        return w2
    squared: Float = np.square(sums.clock).sum(1)
    return squared


def _nullable(
    values: Float, known: NDArray[np.bool_] | None = None
) -> list[float | int | str | None]:
    """Finite values as floats; null where not known or not finite."""
    keep = np.isfinite(values) if known is None else np.isfinite(values) & known
    # Most columns are known throughout or not at all; there may be a hundred thousand tensors.
    if keep.all():
        found: list[float | int | str | None] = values.tolist()
        return found
    if not keep.any():
        return [None] * len(values)
    return [v if k else None for v, k in zip(values.tolist(), keep.tolist(), strict=True)]
