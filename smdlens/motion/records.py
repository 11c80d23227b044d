"""The motion tables: plain float64 sums over weights, and nothing else.

Two additive tables (docs/theory.md gives the formulas that use each column). Every column is a sum
over elements or a quantile of per-channel sums; all are float64 and nullable. Blocks, shards and
workers merge by adding in a fixed order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

# One row per (tensor, snapshot). w weights; v momentum buffer; u = mhat / (sqrt(vhat) + eps), the
# Adam direction; round2 = sum of ulp(w)^2 / 12, the variance that rounding to the storage dtype
# leaves on the squared distance.
SNAPSHOT_SCHEMA: dict[str, pl.DataType] = {
    "tensor": pl.String(),
    "snapshot": pl.Int64(),
    "step": pl.Int64(),
    "w2": pl.Float64(),  # sum w^2
    "round2": pl.Float64(),
    "nonfinite": pl.Int64(),  # count of NaN and infinite weights (left out of the sums)
    "clock2": pl.Float64(),  # |sum of w over the output axis|^2
    "wv": pl.Float64(),  # <w, v>                         SGD momentum
    "v2": pl.Float64(),  # |v|^2
    "wu": pl.Float64(),  # <w, u>                         Adam family
    "u2": pl.Float64(),  # |u|^2
    "vhat_sum": pl.Float64(),  # sum vhat
}

# While measuring, with a few of the weights themselves (lag_sample.py); null where none are kept.
SAMPLED_SCHEMA: dict[str, pl.DataType] = {**SNAPSHOT_SCHEMA, "sample": pl.List(pl.Float64())}

# One row per (tensor, pair of neighbouring snapshots a -> b), c = |b| / |a|. S_i is the geometric
# mean over both ends of sqrt(vhat_i) + eps scaled to mean 1 (docs/theory.md §6); at an end without
# moments (step 0) the other end's alone.
PAIR_SCHEMA: dict[str, pl.DataType] = {
    "tensor": pl.String(),
    "snapshot_from": pl.Int64(),
    "snapshot_to": pl.Int64(),
    "step_from": pl.Int64(),
    "step_to": pl.Int64(),
    "dot": pl.Float64(),  # <a, b>
    "chord2": pl.Float64(),  # |b - c a|^2
    "grad2": pl.Float64(),  # |g|^2      consecutive steps with buffers or Adam's first moments:
    "grad_w": pl.Float64(),  # <g, w_a>   g = v_b - a v_a - lam a ...
    "grad_v": pl.Float64(),  # <g, v_a>
    "unit_gradient_p05": pl.Float64(),  # quantiles over channels of |g_c| |w_c|
    "unit_gradient_p50": pl.Float64(),
    "unit_gradient_p95": pl.Float64(),
    "s_w2_from": pl.Float64(),  # sum S w^2 at a
    "s_w2_to": pl.Float64(),  # sum S w^2 at b
    "s_wu_from": pl.Float64(),  # sum S w u at a
    "s_wu_to": pl.Float64(),
    "s_u2_from": pl.Float64(),  # sum S u^2 at a
    "s_u2_to": pl.Float64(),
    "s_mean": pl.Float64(),  # mean of S before it was scaled: mean of sqrt(vhat) + eps
    "s_min_ratio": pl.Float64(),  # min S / max S, a quality number
    # quantiles over channels of ln(|b_c|^2 / |a_c|^2) and of the channel angle in radians
    "growth_p05": pl.Float64(),
    "growth_p50": pl.Float64(),
    "growth_p95": pl.Float64(),
    "angle_p05": pl.Float64(),
    "angle_p50": pl.Float64(),
    "angle_p95": pl.Float64(),
    # channels that get no gradient: how many keep their direction while others turn, their mean
    # growth of ln |w_c|^2, and how many are zero
    "still_channels": pl.Float64(),
    "still_growth": pl.Float64(),
    "empty_channels": pl.Float64(),
    # epsilon leak (docs/theory.md §10): sums over channels c of f_c gamma_c (.), f = eps/(var+eps),
    # f gamma averaged over both ends: gamma_a - gamma_b, buffer_b - buffer_a, mean gamma
    "leak_shift": pl.Float64(),
    "leak_buffer": pl.Float64(),  # null without buffers
    "leak_gamma": pl.Float64(),
    "leak_buffer_from": pl.Float64(),  # sum f gamma * buffer at a (for a rate that changes)
    "leak_buffer_to": pl.Float64(),
    "eps_fraction": pl.Float64(),  # weighted mean of f, weights |w_c|^2
}

# The columns that are sums: those behind the names and numbers of what they belong to.
SNAPSHOT_VALUES = tuple(SNAPSHOT_SCHEMA)[3:]
PAIR_VALUES = tuple(PAIR_SCHEMA)[5:]

# One row per (invariant tensor, any two of at most 64 snapshots), on request.
ANGLE_SCHEMA: dict[str, pl.DataType] = {
    "tensor": pl.String(),
    "snapshot_from": pl.Int64(),
    "snapshot_to": pl.Int64(),
    "step_from": pl.Int64(),
    "step_to": pl.Int64(),
    "angle_rad": pl.Float64(),
}


@dataclass(frozen=True, slots=True)
class ReadCost:
    """What the measurement cost: for the report's head and docs/benchmarks.md.

    Attributes:
        bytes_read: Of all files.
        seconds: From the first to the last.
        device: Where the arithmetic ran.
        note: What was special about it.
        workers: How many read and summed.
        read_seconds: What reading alone took all of them together.
    """

    bytes_read: int
    seconds: float
    device: str
    note: str = ""
    workers: int = 1
    read_seconds: float = 0.0

    @property
    def share_of_limit(self) -> float:
        """The speed as a share of what it would be if the arithmetic took no time, 0 to 1."""
        return min(self.read_seconds / (self.workers * self.seconds), 1.0) if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class NormStatistics:
    """Running statistics of one batch norm that stand still at an end of the run, or throughout.

    Attributes:
        still_from: Index of the first snapshot from which on they are those of the last, bit by
            bit.
        still_until: Index of the last snapshot up to which they are those of the first.
        counts: `num_batches_tracked` in every snapshot, None where it is not saved.
    """

    still_from: int
    still_until: int
    counts: tuple[int | None, ...]

    @property
    def is_frozen(self) -> bool:
        """They never change, and no batch was counted."""
        return self.still_from == 0 and len({n for n in self.counts if n is not None}) < 2


@dataclass(frozen=True, slots=True)
class Motion:
    """Measured motion of every tensor that is looked at.

    Attributes:
        snapshots: Frame with `SNAPSHOT_SCHEMA`, ordered by tensor (file order), snapshot.
        pairs: Frame with `PAIR_SCHEMA`, ordered by tensor, snapshot_from.
        statistics: Running variance -> what its batch norm's statistics did, for those that stand
            still at either end of the run.
        cost: Bytes, time and device.
        angles: Frame with `ANGLE_SCHEMA`, None unless all pairs were asked for.
        lag_angles: The same at lags 1, 2, 4 ..., from a few weights of each tensor.
    """

    snapshots: pl.DataFrame
    pairs: pl.DataFrame
    statistics: Mapping[str, NormStatistics]
    cost: ReadCost
    angles: pl.DataFrame | None = None
    lag_angles: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ANGLE_SCHEMA))

    @property
    def frozen_statistics(self) -> frozenset[str]:
        """Names of running variances that never change over the run."""
        return frozenset(name for name, item in self.statistics.items() if item.is_frozen)
