"""The page's table of tensors, worst first, and the colours of its words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from smdlens.report import numbers
from smdlens.report.numbers import enumeration
from smdlens.report.worst import worst_tensors
from smdlens.symmetry.records import TensorSymmetry
from smdlens.vocabulary import HELD_STATES, NOT_HELD_STATES, Outcome, State

if TYPE_CHECKING:
    from smdlens.report.build import Report


_PLAIN = (State.APPROACHING_FROM_ABOVE, State.APPROACHING_FROM_BELOW)


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One line of the tensor table; `order` numbers sort, texts show."""

    name: str
    role: str
    evidence: str
    shape: str
    stage: str
    state: str
    kind: str
    ratio: str
    ratio_order: str
    interval: str
    norm: str
    norm_order: str
    expected_norm: str
    expected_norm_order: str
    reason: str
    drawn: int | None


def tensor_rows(report: Report, drawn: dict[str, int]) -> list[TensorRow]:
    """Every parameter: scale-invariant ones worst first, then unbound ones, then the rest.

    Args:
        report: The report.
        drawn: Tensor -> its number in the data of the page, for those that can be drawn.
    """
    worst = worst_tensors(report.diagnosis).to_dicts()
    known = {row["tensor"] for row in worst}
    last = report.stages.unique("tensor", keep="last", maintain_order=True)
    unbound = last.filter(~pl.col("tensor").is_in(list(known))).to_dicts()
    listed = known | {row["tensor"] for row in unbound}
    others = [name for name in report.diagnosis.groups.tensors if name not in listed]
    rows = [_row(row["tensor"], row, report, drawn) for row in [*worst, *unbound]]
    return rows + [_row(name, {}, report, drawn) for name in others]


def _row(name: str, row: dict[str, Any], report: Report, drawn: dict[str, int]) -> TensorRow:
    tensor = report.diagnosis.groups.tensors[name]
    state = State(row["state"]) if row else None
    bound = "severity" in row
    low, high = row.get("ratio_low"), row.get("ratio_high")
    interval = (
        f"{numbers.ratio_precise(low)}–{numbers.ratio_precise(high)}"
        if low is not None and high is not None
        else ""
    )
    return TensorRow(
        name=name,
        role=_role(tensor),
        evidence="; ".join(f"{e.kind.value}: {e.detail}" for e in tensor.evidence),
        shape="×".join(map(str, tensor.shape)),
        stage=str(row["stage"]) if bound else "",
        state=state.value if state is not None and bound else "",
        kind=kind_of(state) if state is not None and bound else "none",
        ratio=_shown(row.get("ratio"), numbers.ratio_precise),
        ratio_order=_order(row.get("ratio")),
        interval=interval,
        norm=_shown(row.get("norm"), numbers.quantity),
        norm_order=_order(row.get("norm")),
        expected_norm=_shown(row.get("expected_norm"), numbers.quantity),
        expected_norm_order=_order(row.get("expected_norm")),
        reason=_reason(tensor, state, row.get("reason")),
        drawn=drawn.get(name),
    )


def _role(tensor: TensorSymmetry) -> str:
    granularity = f", per {tensor.granularity.value}" if tensor.granularity else ""
    return tensor.role.value.replace("_", " ") + granularity


def _reason(tensor: TensorSymmetry, state: State | None, reason: str | None) -> str:
    if tensor.measured_under == tensor.name:
        together = f"one vector with {enumeration(list(tensor.joint_with))}"
        return together if state in _PLAIN or not reason else f"{together}; {reason}"
    if tensor.measured_under is not None:
        return f"measured with {tensor.measured_under}"
    # The words of these two states say what their reason says.
    return "" if state in _PLAIN else reason or tensor.not_measured or ""


def _shown(value: float | None, form: Any) -> str:
    return "" if value is None else str(form(value))


def _order(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def kind_of(state: State) -> str:
    """The colour of a state; the word beside it says the same."""
    if state in HELD_STATES:
        return "good"
    if state in NOT_HELD_STATES:
        return "bad"
    return "open" if state is State.UNDETERMINED else "warn"


KIND_OF_OUTCOME = {
    Outcome.FAIL: "bad",
    Outcome.ERROR: "bad",
    Outcome.WARN: "warn",
    Outcome.INCONCLUSIVE: "open",
    Outcome.PASS: "good",
}
OUTCOME_SYMBOL = {
    Outcome.FAIL: "✗",
    Outcome.ERROR: "✗",
    Outcome.WARN: "!",
    Outcome.INCONCLUSIVE: "?",
    Outcome.PASS: "✓",
}
