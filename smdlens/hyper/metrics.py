"""The test metric of a run: which logged column it is, whether higher is better, and when."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from smdlens.errors import InputError
from smdlens.snapshots.metric_records import MetricColumn, MetricLog
from smdlens.snapshots.metrics import read_metrics
from smdlens.snapshots.records import SnapshotSeries

Goal = Literal["up", "down"]
# Words of a name, best first where the split is concerned; a loss word wins over one of success.
_SPLITS = (
    frozenset({"test"}),
    frozenset({"val", "valid", "validation", "eval", "evaluation", "dev", "holdout"}),
)
_TRAIN = frozenset({"train", "training", "trn"})
_UP = frozenset(
    (
        "acc", "acc1", "acc5", "accuracy", "auc", "auroc", "bleu", "dice", "em", "f1", "iou",
        "kappa", "map", "mcc", "miou", "precision", "psnr", "r2", "recall", "reward", "rouge",
        "score", "ssim", "top", "top1", "top5",
    )
)  # fmt: skip
_DOWN = frozenset(
    (
        "bpb", "bpc", "brier", "ce", "cer", "crossentropy", "ece", "err", "error", "fid", "loss",
        "mae", "mse", "nll", "perplexity", "ppl", "rmse", "wer", "xent",
    )
)  # fmt: skip
# Parts of camelCase; whole words count as well (mIoU).
_WORD = re.compile(r"[A-Z]?[a-z]+\d*|[A-Z]+(?![a-z])\d*|\d+")


@dataclass(frozen=True, slots=True)
class Metric:
    """A test metric on the run's own axis.

    Attributes:
        file: The log.
        kind: What kind of log.
        name: The column.
        goal: "up" where higher is better.
        goal_source: "its name" or "option --metric-goal".
        at: Steps (or epochs, as the run's axis is) after which it was measured, increasing.
        values: What was measured.
        notes: What a person should know of the reading.
    """

    file: str
    kind: str
    name: str
    goal: Goal
    goal_source: str
    at: tuple[float, ...]
    values: tuple[float, ...]
    notes: tuple[str, ...] = ()


def resolve_metric(
    path: Path,
    series: SnapshotSeries,
    name: str | None = None,
    goal: str | None = None,
    steps_per_epoch: int | None = None,
) -> Metric:
    """Reads the log, takes the test metric from it and places it on the run's axis.

    Args:
        path: The log.
        series: The run.
        name: Column to take; else the one whose name says test (or validation) metric, accuracy
            before loss.
        goal: "up" or "down"; else what the name says.
        steps_per_epoch: Turns a log by epochs into steps; else snapshots that hold both do.

    Raises:
        InputError: The log cannot be read, no column fits, its direction is not known, or nothing
            turns its epochs into the run's steps.
    """
    log = read_metrics(path)
    taken = _named(log, name) if name is not None else _likely(log)
    source = "option --metric-goal"
    if goal is None:
        source, goal = "its name", goal_of(taken.name)
    if goal not in ("up", "down"):
        raise InputError(
            f"the name of the metric {taken.name!r} does not say whether higher is better",
            subject=log.path,
            remedy="Give --metric-goal up or --metric-goal down.",
        )
    at = _on_axis(log, taken, series, steps_per_epoch)
    return Metric(
        log.path, log.kind, taken.name, "up" if goal == "up" else "down", source, at,
        taken.values, log.notes,
    )  # fmt: skip


def goal_of(name: str) -> Goal | None:
    """Whether higher is better by the words of a name: accuracy up, loss down; None if unknown."""
    words = _words(name)
    if words & _DOWN:
        return "down"
    return "up" if words & _UP else None


def _words(name: str) -> frozenset[str]:
    plain = re.findall(r"[a-z0-9]+", name.lower())
    return frozenset((*plain, *(word.lower() for word in _WORD.findall(name))))


def _named(log: MetricLog, name: str) -> MetricColumn:
    for each in log.columns:
        if each.name == name:
            return each
    names = [each.name for each in log.columns]
    close = difflib.get_close_matches(name, names, n=1)
    raise InputError(
        f"no column {name!r} with numbers is in the log",
        subject=log.path,
        found=", ".join(names)[:300],
        remedy=f"Did you mean {close[0]}?" if close else "Name one of those with --metric.",
    )


def _likely(log: MetricLog) -> MetricColumn:
    """The test metric by name: test before validation before neither, accuracy before loss."""
    ranked = []
    for place, each in enumerate(log.columns):
        words, goal = _words(each.name), goal_of(each.name)
        if goal is None or words & _TRAIN:
            continue
        split = next((i for i, split in enumerate(_SPLITS) if words & split), len(_SPLITS))
        ranked.append((split, goal == "down", place))
    # Of names that say no split a loss is most likely the training one.
    ranked = [rank for rank in ranked if rank[:2] != (len(_SPLITS), True)]
    if not ranked:
        raise InputError(
            "no column of the log looks like a test metric",
            subject=log.path,
            found=", ".join(each.name for each in log.columns)[:300],
            remedy="Name one with --metric.",
        )
    return log.columns[min(ranked)[2]]


def _on_axis(
    log: MetricLog, taken: MetricColumn, series: SnapshotSeries, steps_per_epoch: int | None
) -> tuple[float, ...]:
    if taken.axis == series.axis:
        return taken.at
    per_epoch = steps_per_epoch or _steps_per_epoch(series)
    if per_epoch is None:
        raise InputError(
            f"the metric {taken.name!r} is given by {taken.axis}, the run by {series.axis}",
            subject=log.path,
            remedy="Give --steps-per-epoch.",
        )
    factor = per_epoch if series.axis == "steps" else 1.0 / per_epoch
    return tuple(at * factor for at in taken.at)


def _steps_per_epoch(series: SnapshotSeries) -> float | None:
    """From snapshots that hold both, where they agree within 1%."""
    ratios = [s.step / s.epoch for s in series.snapshots if s.step and s.epoch and s.epoch > 0.0]
    if not ratios or series.axis != "steps":
        return None
    middle = float(np.median(ratios))
    return middle if np.allclose(ratios, middle, rtol=0.01) else None
