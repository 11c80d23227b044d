"""One figure for a paper: the run against theory, and its worst tensor, in print colours."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from smdlens.errors import InputError
from smdlens.report.plots.against_theory import run_against_theory
from smdlens.report.plots.canvas import drawing
from smdlens.report.plots.data import plot_data

if TYPE_CHECKING:
    from smdlens.report.build import Report

# Without these every run would carry its own date.
_METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "Creator": "smdlens", "Producer": None},
    "svg": {"Date": None, "Creator": "smdlens"},
    "png": {"Software": "smdlens"},
}


def paper_figure(report: Report, kind: str) -> bytes:
    """Angle per update and norm of all scale-invariant tensors against theory.

    Args:
        report: The report.
        kind: "pdf", "svg" or "png".

    Raises:
        InputError: No tensor is scale-invariant, so there is no theory to draw.
    """
    data = plot_data(report)
    if not data.invariant.any():
        raise InputError(
            "there is nothing to draw: no tensor is known to be scale-invariant",
            subject=f"output .{kind}",
        )
    with drawing():
        return _bytes(run_against_theory(data), kind)


def _bytes(fig: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, format=kind, dpi=200, metadata=_METADATA[kind])
    return buffer.getvalue()
