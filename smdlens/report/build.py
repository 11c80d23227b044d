"""The report: everything renderers need, gathered once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from smdlens.diagnosis.baseline import read_baseline
from smdlens.diagnosis.cases import CheckResult
from smdlens.diagnosis.check import check
from smdlens.diagnosis.policy import Policy
from smdlens.diagnosis.policy_file import resolve_policy
from smdlens.diagnosis.records import Diagnosis
from smdlens.hyper.records import HyperParameters
from smdlens.motion.records import Motion, ReadCost
from smdlens.report import frames
from smdlens.report.headline import headline
from smdlens.report.summary import (
    EquilibriumCounts,
    StageSummary,
    summarise_stages,
    total_counts,
)
from smdlens.snapshots.records import SnapshotSeries


@dataclass(frozen=True, slots=True)
class Summary:
    """The run in four counts and a sentence, with the stages they come from."""

    equilibrium: EquilibriumCounts
    headline: str
    stages: tuple[StageSummary, ...]


@dataclass(frozen=True)
class Report:
    """The result of `smdlens.analyze`.

    Attributes:
        command: The command line that gives this report.
        series: The snapshots and what was left out.
        diagnosis: States, cuts, assumptions, findings; what the trainer used and who says so.
        cost: What reading took.
        summary: Counts over (scale-invariant tensor, stage) pairs and the headline.
    """

    command: tuple[str, ...]
    series: SnapshotSeries
    diagnosis: Diagnosis
    cost: ReadCost
    summary: Summary

    def __repr__(self) -> str:
        return f"<Report of {self.series.path}: {self.summary.headline}>"

    @property
    def hyper(self) -> HyperParameters:
        """Hyper-parameters with their sources, every cut placed as well as the weights can tell."""
        return self.diagnosis.hyper

    @cached_property
    def tensors(self) -> pl.DataFrame:
        """One row per parameter: role, granularity, evidence (`frames.TENSOR_SCHEMA`)."""
        return frames.tensor_frame(self.diagnosis.groups)

    @cached_property
    def intervals(self) -> pl.DataFrame:
        """One row per tensor and pair of neighbouring snapshots; angles in radians."""
        return frames.interval_frame(self.diagnosis)

    @cached_property
    def stages(self) -> pl.DataFrame:
        """One row per tensor and stage: state, ratio with its 95% interval, norm."""
        return frames.stage_frame(self.diagnosis)

    @cached_property
    def decays(self) -> pl.DataFrame:
        """One row per tensor and cut of the rate: iterations needed, available, observed."""
        return frames.decay_frame(self.diagnosis)

    def check(
        self,
        policy: str | Policy = "default",
        *,
        baseline: str | os.PathLike[str] | None = None,
        soft: bool = False,
        allow_inconclusive: bool = False,
    ) -> CheckResult:
        """Holds the report against a policy.

        Args:
            policy: "strict", "default", "report-only", or a TOML file with a table [check].
            baseline: JSON report of an earlier run that nothing may be worse than.
            soft: Report failures as skipped.
            allow_inconclusive: Pass what could not be decided.

        Raises:
            InputError: The policy or the baseline cannot be used.
        """
        asked = resolve_policy(policy, None) if isinstance(policy, str) else policy
        earlier = baseline if baseline is not None else asked.baseline
        return check(
            self.diagnosis,
            self.series,
            asked,
            None if earlier is None else read_baseline(os.fspath(earlier)),
            soft=soft,
            allow_inconclusive=allow_inconclusive,
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, as `--json` writes it (docs/json.md, schema_version 1.0)."""
        from smdlens.report.json import to_dict

        return to_dict(self)

    def save(self, path: str | os.PathLike[str], result: CheckResult | None = None) -> None:
        """Writes the report; the suffix decides the format, a trailing slash means a folder.

        Args:
            path: Where to.
            result: The check to show (JUnit, SARIF, Markdown, HTML); the default policy's if None.

        Raises:
            InputError: The suffix is not supported, or the place cannot be written.
            OutputError: Writing failed half-way; earlier content is unchanged.
        """
        from smdlens.report.outputs import save

        save(self, path, result)

    def _repr_html_(self) -> str:
        from smdlens.report.fragment import html_fragment

        return html_fragment(self)


def build_report(
    series: SnapshotSeries,
    motion: Motion,
    diagnosis: Diagnosis,
    *,
    command: Sequence[str] = (),
) -> Report:
    """Gathers the results of one analysis; nothing is computed from weights here."""
    stages = summarise_stages(diagnosis)
    counts = total_counts(stages)
    return Report(
        command=tuple(command),
        series=series,
        diagnosis=diagnosis,
        cost=motion.cost,
        summary=Summary(counts, headline(diagnosis, stages, counts), stages),
    )
