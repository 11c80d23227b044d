"""Which file suffix means which format, and writing it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from smdlens import atomic
from smdlens.diagnosis.cases import CheckResult
from smdlens.errors import InputError
from smdlens.names import for_csv
from smdlens.report.json import dumps
from smdlens.report.junit import junit
from smdlens.report.markdown import markdown
from smdlens.report.sarif import sarif

if TYPE_CHECKING:
    from smdlens.report.build import Report


def _json(report: Report, result: CheckResult | None) -> bytes:
    return dumps(report, result).encode()


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=False)
    return buffer.getvalue()


def _csv(frame: pl.DataFrame) -> bytes:
    """CSV for spreadsheets: lists joined by semicolons, text that looks like a formula disarmed."""
    columns = []
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if dtype == pl.List(pl.String()):
            column = column.list.join(";")
        if dtype in (pl.String(), pl.List(pl.String())):
            column = column.map_elements(for_csv, return_dtype=pl.String())
        columns.append(column)
    return frame.select(columns).write_csv().encode()


def _checked(report: Report, result: CheckResult | None) -> CheckResult:
    return report.check() if result is None else result


def _html(report: Report, result: CheckResult | None) -> bytes:
    # matplotlib and jinja2 load with the first page, not with every analysis.
    from smdlens.report.html import page

    return page(report, _checked(report, result)).encode()


def _figure(kind: str) -> Writer:
    def write(report: Report, result: CheckResult | None) -> bytes:
        from smdlens.report.plots.paper import paper_figure

        return paper_figure(report, kind)

    return write


Writer = Callable[["Report", "CheckResult | None"], bytes]
# Listed in the order in which messages name them. Only JSON leaves the check out unless given.
FORMATS: dict[str, Writer] = {
    ".json": _json,
    ".html": _html,
    ".md": lambda report, result: markdown(_checked(report, result), report).encode(),
    ".xml": lambda report, result: junit(_checked(report, result)).encode(),
    ".sarif": lambda report, result: sarif(_checked(report, result), report.series.path).encode(),
    ".parquet": lambda report, result: _parquet(report.intervals),
    ".csv": lambda report, result: _csv(report.intervals),
    ".pdf": _figure("pdf"),
    ".svg": _figure("svg"),
    ".png": _figure("png"),
}
# What can be written of a run that could not be analysed: that it could not.
_WITHOUT_REPORT: dict[str, Callable[[CheckResult, str], bytes]] = {
    ".md": lambda result, run: markdown(result, None).encode(),
    ".xml": lambda result, run: junit(result).encode(),
    ".sarif": lambda result, run: sarif(result, run).encode(),
}
_TABLES = ("tensors", "intervals", "stages", "decays")


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether `path` asks for a folder of tables: a trailing slash, or a folder that exists."""
    text = os.fspath(path)
    return text.endswith(("/", os.sep)) or Path(text).is_dir()


def check_output(path: str | os.PathLike[str]) -> None:
    """Checks suffix and place of an output before the work starts.

    Raises:
        InputError: The suffix is not supported, or the place cannot be written.
    """
    if is_folder(path):
        atomic.check_writable_folder(path)
        return
    _format(path)
    atomic.check_writable(path)


def _format(path: str | os.PathLike[str]) -> Writer:
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(
            "no output format has this suffix",
            subject=os.fspath(path),
            expected=f"{', '.join(FORMATS)} or a folder (with a trailing slash)",
            found=suffix or "no suffix",
        )
    return FORMATS[suffix]


def save(report: Report, path: str | os.PathLike[str], result: CheckResult | None = None) -> None:
    """Writes `report` to `path`, atomically; see `Report.save`."""
    check_output(path)
    if not is_folder(path):
        atomic.write_bytes(path, _format(path)(report, result))
        return
    atomic.make_folder(path)
    for name in _TABLES:
        atomic.write_bytes(Path(path) / f"{name}.parquet", _parquet(getattr(report, name)))
    atomic.write_bytes(Path(path) / "report.json", _json(report, result))


def save_error(result: CheckResult, run: str, path: str | os.PathLike[str]) -> bool:
    """Writes a check without a report where the format has room for one; whether it has."""
    writer = _WITHOUT_REPORT.get(Path(path).suffix.lower())
    if writer is not None:
        atomic.write_bytes(path, writer(result, run))
    return writer is not None
