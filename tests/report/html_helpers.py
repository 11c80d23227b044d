"""Large and hostile reports for the HTML page, and the page as another parser reads it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import polars as pl
import report_helpers as h
from lxml import html as lxml_html

from smdlens.diagnosis.records import INTERVAL_SCHEMA
from smdlens.report.build import build_report
from smdlens.report.html import page
from smdlens.snapshots.records import Skipped
from smdlens.vocabulary import SkipReason

sys.path.insert(0, str(Path(__file__).parents[1] / "ground"))


def big_report(tensors=300, snapshots=200, names=None):
    """A run with every column filled and noise on it, so that nothing compresses by accident."""
    rng = np.random.default_rng(7)
    names = names or [f"backbone.layer{i // 6}.block.{i % 6}.conv.weight" for i in range(tensors)]
    convs = [(name, (64, 64, 3, 3)) for name in names]
    last = h.CUTS[-1]
    steps = tuple(int(s) for s in np.linspace(0, last, snapshots))
    middle = (np.array(steps[:-1]) + np.array(steps[1:])) / 2
    stage = np.clip(np.searchsorted(h.CUTS, middle, side="right"), 1, 4)
    target = np.sqrt(2 * np.array(h.RATES)[stage - 1] * 1e-4 / 1.9)
    frames = []
    for name in names:
        noise = np.exp(rng.normal(0, 0.02, (6, len(middle))))
        ratio = np.array(h.RATIOS)[stage - 1] * noise[0]
        norm = 20 * np.exp(-middle / last) * noise[1]
        frames.append(
            {
                "tensor": [name] * len(middle),
                "step_from": steps[:-1],
                "step_to": steps[1:],
                "norm_from": norm,
                "norm_to": norm * noise[2],
                "one_step_angle_rad": ratio * target,
                "one_step_method": ["norm_balance"] * len(middle),
                "one_step_low": ratio * target * 0.97,
                "one_step_high": ratio * target * 1.03,
                "expected_one_step_angle_rad": target,
                "relaxed_one_step_angle_rad": target * noise[3],
                "ratio": ratio,
                "ratio_p05": ratio * 0.8 * noise[4],
                "ratio_p95": ratio * 1.2 * noise[5],
                "unit_gradient_rms": noise[4] * 3,
                "stage": stage,
            }
        )
    frame = pl.concat([pl.DataFrame(f) for f in frames])
    missing = [pl.lit(None, d).alias(n) for n, d in INTERVAL_SCHEMA.items() if n not in frame]
    intervals = frame.with_columns(missing).select(list(INTERVAL_SCHEMA)).cast(INTERVAL_SCHEMA)
    diagnosis = dataclasses.replace(h.resnet_diagnosis(convs, steps), intervals=intervals)
    skipped = (Skipped(names[0], SkipReason.UNREADABLE, f"{names[0]} is cut short"),)
    return build_report(
        h.series(names[0] if len(names) < 50 else "runs/big", steps, skipped),
        h.motion(),
        diagnosis,
        command=("smdlens", "analyze", "runs/big"),
    )


def page_of(report):
    """The page's text, and its tree as lxml reads it."""
    text = page(report, report.check())
    return text, lxml_html.document_fromstring(text)
