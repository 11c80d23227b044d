"""The test metric in words, the same in terminal, page and Markdown."""

from __future__ import annotations

from smdlens.diagnosis.records import Diagnosis, MetricStage
from smdlens.hyper.metrics import Metric

_MOST_STAGES = 8


def metric_text(diagnosis: Diagnosis) -> str | None:
    """One line: the metric's last value per stage, and what the angle did in marked ones.

    None without a metric.
    """
    metric = diagnosis.metric
    if metric is None:
        return None
    known = [row for row in diagnosis.metric_stages if row.values]
    shown = [_stage(metric, row) for row in known[-_MOST_STAGES:]]
    left = "... " if len(known) > len(shown) else ""
    better = "higher" if metric.goal == "up" else "lower"
    return f"{metric.name} ({better} is better): {left}{'; '.join(shown) or 'no value in the run'}"


def _stage(metric: Metric, row: MetricStage) -> str:
    text = f"stage {row.stage} {row.first:.4g} to {row.last:.4g}"
    if row.pseudo_overfitting:
        text += f", best {row.best:.4g}, falls as the angle grows"
    elif row.pseudo_overfitting is None:
        text += ", too few values to say whether it falls as the angle grows"
    return text
