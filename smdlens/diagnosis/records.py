"""What the motion means: the frames and records that every report shows.

Column names are those of the JSON contract (docs/json.md); angles are radians, steps are optimizer
iterations (epochs where `SnapshotSeries.axis` says so).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from smdlens.hyper.metrics import Metric
from smdlens.hyper.records import HyperParameters
from smdlens.symmetry.records import ScaleGroups
from smdlens.vocabulary import Outcome

INTERVAL_SCHEMA: dict[str, pl.DataType] = {
    "tensor": pl.String(),
    "step_from": pl.Int64(),
    "step_to": pl.Int64(),
    "norm_from": pl.Float64(),
    "norm_to": pl.Float64(),
    "angle_rad": pl.Float64(),
    "angle_floor_rad": pl.Float64(),
    "angle_random_walk_rad": pl.Float64(),
    "one_step_angle_rad": pl.Float64(),
    "one_step_method": pl.String(),
    "one_step_low": pl.Float64(),
    "one_step_high": pl.Float64(),
    "last_step_angle_rad": pl.Float64(),
    "expected_one_step_angle_rad": pl.Float64(),
    "relaxed_one_step_angle_rad": pl.Float64(),
    "ratio": pl.Float64(),
    "ratio_p05": pl.Float64(),
    "ratio_p50": pl.Float64(),
    "ratio_p95": pl.Float64(),
    "still_channels": pl.Int64(),
    "unit_gradient_rms": pl.Float64(),
    "eps_leak": pl.Float64(),
    "radial_ratio": pl.Float64(),
    "flags": pl.List(pl.String()),
    # beyond the contract's fields: which stage the interval belongs to (null: none, it holds a cut)
    "stage": pl.Int64(),
}

STAGE_TENSOR_SCHEMA: dict[str, pl.DataType] = {
    "stage": pl.Int64(),
    "tensor": pl.String(),
    "group": pl.Int64(),
    "lr_from": pl.Float64(),
    "lr_to": pl.Float64(),
    "weight_decay": pl.Float64(),
    "state": pl.String(),
    "reached_step": pl.Int64(),
    "ratio": pl.Float64(),
    "ratio_low": pl.Float64(),
    "ratio_high": pl.Float64(),
    "norm": pl.Float64(),
    "expected_norm": pl.Float64(),
    "reason": pl.String(),
}

DECAY_TENSOR_SCHEMA: dict[str, pl.DataType] = {
    "decay": pl.Int64(),
    "tensor": pl.String(),
    "iterations_corollary": pl.Int64(),
    "iterations_lower_bound": pl.Int64(),
    "iterations_to_tolerance": pl.Int64(),
    "iterations_to_tolerance_measured": pl.Int64(),
    "iterations_available": pl.Int64(),
    "iterations_observed": pl.Int64(),
    "ratio_at_end": pl.Float64(),
    "ratio_at_start_predicted": pl.Float64(),
    "unit_gradient_change": pl.Float64(),
    "iterations_to_tolerance_new_gradient": pl.Int64(),
    "iterations_missing": pl.Int64(),
    "enough_iterations": pl.Int64(),
    "enough_weight_decay_factor": pl.Float64(),
    "enough_weight_divisor": pl.Float64(),
}

# One row per cut and interval of the stage it opens: medians over the scale-invariant tensors.
DECAY_CURVE_SCHEMA: dict[str, pl.DataType] = {
    "decay": pl.Int64(),
    "step": pl.Float64(),  # middle of the interval
    "ratio": pl.Float64(),
    "ratio_low": pl.Float64(),  # 10% of the tensors are below
    "ratio_high": pl.Float64(),
    "ratio_predicted": pl.Float64(),  # with the unit gradient of before the cut
    "ratio_predicted_new_gradient": pl.Float64(),  # with the one measured after it
}

# One row per tensor, stage and lag, with `--all-pairs` (docs/theory.md §9): the angle between
# snapshots that far apart, median and range over the pairs, beside that of a random walk.
LAG_SCHEMA: dict[str, pl.DataType] = {
    "tensor": pl.String(),
    "stage": pl.Int64(),
    "lag_steps": pl.Int64(),
    "pairs": pl.Int64(),
    "angle_rad": pl.Float64(),
    "angle_min_rad": pl.Float64(),
    "angle_max_rad": pl.Float64(),
    "angle_random_walk_rad": pl.Float64(),
    "ratio_to_walk": pl.Float64(),
    "saturated": pl.Boolean(),  # the walk would have forgotten where it started
    "motion": pl.String(),  # confined, diffusive or directed; null where it cannot be said
}

# One row per tensor and stage of which single gradients are known exactly (docs/theory.md §14).
UNIT_GRADIENT_SCHEMA: dict[str, pl.DataType] = {
    "stage": pl.Int64(),
    "tensor": pl.String(),
    "source": pl.String(),  # buffers, weights, first_moments
    "updates": pl.Int64(),
    "rms": pl.Float64(),  # of |g| |w|, quantiles likewise
    "p05": pl.Float64(),
    "p25": pl.Float64(),
    "p50": pl.Float64(),
    "p75": pl.Float64(),
    "p95": pl.Float64(),
    "channel_p05": pl.Float64(),  # over channels, median of the updates
    "channel_p50": pl.Float64(),
    "channel_p95": pl.Float64(),
    "effective_rms": pl.Float64(),  # square root of the mean of h~
    "effective_negative": pl.Float64(),  # share of updates with h~ < 0
    "cosine_rms": pl.Float64(),
    "cosine_mean": pl.Float64(),
    "cosine_epsilon_rms": pl.Float64(),
    "cosine_limit": pl.Float64(),
    "cosine_random": pl.Float64(),
    "orthogonal": pl.Boolean(),
    "radial_ratio": pl.Float64(),
}

# One row per scale-invariant tensor and stage under SGD: the theorems' numbers.
THEOREM_SCHEMA: dict[str, pl.DataType] = {
    "stage": pl.Int64(),
    "tensor": pl.String(),
    "theorem": pl.Int64(),  # 1 without momentum, 2 with
    "mean": pl.Float64(),  # L, mean of h~
    "scatter": pl.Float64(),  # sqrt(V) / L
    "scatter_source": pl.String(),  # updates, buffers
    "lower": pl.Float64(),  # smallest h~ seen over L
    "updates": pl.Int64(),  # how many h~ were seen
    "norm": pl.Float64(),  # root mean |w|^2 over the stage's end
    "expected_norm": pl.Float64(),
    "norm_low": pl.Float64(),
    "norm_high": pl.Float64(),
    "band": pl.String(),  # theorem, white_gradients
    "vanishing": pl.Float64(),  # what is left of the stage's start
    "angle_rad": pl.Float64(),
    "expected_angle_rad": pl.Float64(),
    "angle_bound_rad": pl.Float64(),
    "probability": pl.Float64(),  # what Theorem 3 promises; 0 where it promises nothing
    "within_bound": pl.Float64(),  # share of single updates within the bound
}


@dataclass(frozen=True, slots=True)
class Stage:
    """The updates between two cuts; rates are those of the group with most invariant elements."""

    index: int
    step_from: int
    step_to: int
    lr_from: float | None
    lr_to: float | None
    weight_decay: float | None


@dataclass(frozen=True, slots=True)
class Decay:
    """A cut (or jump) of the learning rate; factor = lr_before / lr_after."""

    index: int
    step: int
    step_low: int
    step_high: int
    lr_before: float
    lr_after: float
    factor: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Assumption:
    """One assumption of the theory held against the run; holds None means not known.

    `reason` says what was compared, or why it cannot be told; `source` where the paper states it.
    """

    name: str
    holds: bool | None
    value: float | None
    limit: float | None
    tensor: str | None
    stage: int | None
    reason: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class MetricStage:
    """The test metric through one stage, beside the angle.

    Attributes:
        stage: Index of the stage.
        values: How many values lie in it.
        first: Value of the first measurement after the stage began; None without one.
        best: Best value.
        best_at: Where it was measured.
        last: Last value.
        change: Theil and Sen's slope times the time it was taken over; below 0 is worse for either
            goal. None with fewer than 5 values after the first.
        p_value: Chance of so steep a fall without a trend; None likewise.
        ratio_from: Median ratio over tensors in the stage's first interval; None if unknown.
        ratio_to: In its last one.
        pseudo_overfitting: Whether the stage follows a cut, its angle rises and its metric falls;
            None where that cannot be said.
    """

    stage: int
    values: int
    first: float | None
    best: float | None
    best_at: float | None
    last: float | None
    change: float | None
    p_value: float | None
    ratio_from: float | None
    ratio_to: float | None
    pseudo_overfitting: bool | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a person should know, with its remedy."""

    rule: str
    outcome: Outcome
    subject: str
    message: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything the theory says about a run.

    `intervals`, `stage_tensors`, `decay_tensors` and `decay_curves` carry the schemas above;
    `groups` are the scale groups with the evidence from the weights added, `hyper` the
    hyper-parameters with every cut placed as well as the weights can tell. Tensors the theory does
    not bind (role not invariant) appear in the frames with state `undetermined`, reason
    `not scale-invariant`.
    `lags` (`LAG_SCHEMA`) comes from a few weights of each tensor unless all pairs were measured;
    `metric` and `metric_stages` are there with `--metrics` only; `unit_gradients` and `theorems`
    carry their schemas and are empty where nothing is known.
    """

    intervals: pl.DataFrame
    stages: tuple[Stage, ...]
    stage_tensors: pl.DataFrame
    decays: tuple[Decay, ...]
    decay_tensors: pl.DataFrame
    assumptions: tuple[Assumption, ...]
    findings: tuple[Finding, ...]
    groups: ScaleGroups
    hyper: HyperParameters
    tolerance: float
    lags: pl.DataFrame | None = None
    lags_of_all_weights: bool = False
    decay_curves: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=DECAY_CURVE_SCHEMA)
    )
    metric: Metric | None = None
    metric_stages: tuple[MetricStage, ...] = ()
    unit_gradients: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=UNIT_GRADIENT_SCHEMA)
    )
    theorems: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=THEOREM_SCHEMA))
