"""Measurements of earlier analyses: a second one reads no weights, a new checkpoint costs itself.

Rows are found by what they depend on (row_keys.py), never by name or step, so a replaced file,
other hyper-parameters or another kernel simply find nothing. Rows of deleted checkpoints stay.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from smdlens.atomic import check_writable_folder, make_folder
from smdlens.errors import InputError, OutputError, SmdlensError
from smdlens.motion import cache_file
from smdlens.motion.fingerprint import FileState, fingerprint
from smdlens.snapshots.records import SnapshotSeries

# Beyond this only what the present analysis used is kept.
_MOST_ROWS = 5_000_000


class MeasurementCache:
    """The cache of one run, in memory between `open_cache` and `save`.

    Args:
        path: The parquet file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = cache_file.read(path)
        self._states = _states(self._rows)
        self._digests: dict[str, str] = _by_key(self._rows, "digest", "digest")
        self._values: dict[str, list[float]] = _by_key(self._rows, "values", "values")
        self._prints: dict[str, str] = {}
        self._used: list[pl.Series] = []
        self._new: list[pl.DataFrame] = []

    def fingerprint(self, path: str) -> str:
        """Content of a file; its bytes are looked at only where the file system has news of it.

        Raises:
            SnapshotError: The file cannot be read.
        """
        known = self._prints.get(path)
        if known is None:
            known = self._prints[path] = self._fingerprint(path)
        return known

    def _fingerprint(self, path: str) -> str:
        real = os.path.realpath(path)
        found = self._states.get(real)
        if found is not None and _same(real, found[0]):
            return found[1]
        digest, state = fingerprint(path)
        if state.is_settled():
            self._add(
                {
                    "kind": "file",
                    "key": digest,
                    "path": real,
                    "size": state.size,
                    "mtime_ns": state.mtime_ns,
                    "ctime_ns": state.ctime_ns,
                    "inode": state.inode,
                }
            )
        return digest

    def digest(self, key: str) -> str | None:
        """Digest of stored bytes, if they were seen before."""
        return self._digests.get(key)

    def add_digest(self, key: str, digest: str) -> None:
        """Remember the digest of stored bytes."""
        self._digests[key] = digest
        self._add({"kind": "digest", "key": key, "digest": digest})

    def values(self, key: str) -> list[float] | None:
        """A list of numbers kept under `key`."""
        return self._values.get(key)

    def add_values(self, key: str, values: list[float]) -> None:
        """Keep a list of numbers."""
        self._values[key] = values
        self._new.append(
            pl.DataFrame(
                {"kind": ["values"], "key": [key], "values": [values]},
                schema={name: cache_file.SCHEMA[name] for name in ("kind", "key", "values")},
            )
        )

    def find(self, kind: str, keys: pl.Series) -> pl.DataFrame:
        """The rows of `kind` ("snapshot", "pair") whose key is among `keys`, one per key."""
        self._used.append(keys)
        rows = self._rows.filter(pl.col("kind") == kind)
        return rows.filter(pl.col("key").is_in(keys.implode())).unique("key", maintain_order=True)

    def add(self, kind: str, rows: pl.DataFrame) -> None:
        """Keep measured rows, which carry their `key`."""
        if not rows.is_empty():
            self._new.append(rows.with_columns(kind=pl.lit(kind)))

    def _add(self, row: Mapping[str, str | int]) -> None:
        schema = {name: cache_file.SCHEMA[name] for name in row}
        self._new.append(pl.DataFrame({k: [v] for k, v in row.items()}, schema=schema))

    def save(self) -> str:
        """Write what is new beside what is there by now; another process may have written too.

        Returns:
            "" or why it could not be written: a lost cache costs time and nothing else.
        """
        if not self._new:
            return ""
        now = cache_file.read(self.path)
        rows = pl.concat([cache_file.empty(), *self._new, now], how="diagonal")
        # The latest word on a file is the first one here; other rows of one key are the same.
        rows = rows.unique(["kind", "key", "path"], keep="first", maintain_order=True)
        if rows.height > _MOST_ROWS:
            used = pl.concat([*self._used, pl.Series("key", list(self._prints.values()))])
            rows = rows.filter(pl.col("key").is_in(used.implode()))
        try:
            cache_file.write(self.path, rows)
        except (OutputError, OSError) as error:
            reason = error.message if isinstance(error, SmdlensError) else str(error)
            return f"the measurement cache {reason}"
        return ""


def _states(rows: pl.DataFrame) -> dict[str, tuple[FileState, str]]:
    files = rows.filter(pl.col("kind") == "file").select(
        "path", "size", "mtime_ns", "ctime_ns", "inode", "key"
    )
    # The latest comes first, so it is written last.
    return {r[0]: (FileState(r[1], r[2], r[3], r[4]), r[5]) for r in reversed(files.rows())}


def _by_key(rows: pl.DataFrame, kind: str, column: str) -> dict[str, Any]:
    return dict(rows.filter(pl.col("kind") == kind).select("key", column).rows())


def _same(path: str, state: FileState) -> bool:
    try:
        return FileState.of(Path(path).stat()) == state
    except OSError:
        return False


def open_cache(
    series: SnapshotSeries, folder: str | os.PathLike[str] | None = None
) -> MeasurementCache | None:
    """The cache of a run; None where there is no place for one.

    Args:
        series: The run.
        folder: Where caches lie; $SMDLENS_CACHE or the user's cache folder unless given.

    Raises:
        InputError: `folder` lies inside the run or cannot be written.
    """
    place = cache_file.default_folder() if folder is None else Path(folder)
    run = _run_folder(series)
    if place is None or run is None:
        return None
    if Path(os.path.realpath(place)).is_relative_to(run):
        if folder is None:
            return None
        raise InputError(
            "lies inside the run, and runs are never written to",
            subject="option --cache-dir",
            found=str(folder),
            remedy="Choose a folder outside the run, or use --no-cache.",
        )
    if folder is not None:
        _check(place)
    return MeasurementCache(place / _name(run))


def _check(folder: Path) -> None:
    try:
        make_folder(folder, parents=True)
    except OutputError as error:
        raise InputError(
            error.message,
            subject=f"option --cache-dir {folder}",
            remedy="Choose a folder you may write to, or use --no-cache.",
        ) from error
    check_writable_folder(folder)


def _run_folder(series: SnapshotSeries) -> Path | None:
    """The folder that all of the run's tensor bytes lie in, however the run was named."""
    paths = {
        extent.path for s in series.snapshots for t in s.tensors.values() for extent in t.extents
    }
    folders = {os.path.dirname(os.path.abspath(path)) for path in paths}  # noqa: PTH100, PTH120
    return Path(os.path.realpath(os.path.commonpath(folders))) if folders else None


def _name(run: Path) -> str:
    """One file per run, and a name that a person can place."""
    digest = hashlib.blake2b(os.fsencode(run), digest_size=8).hexdigest()
    readable = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in run.name)
    return f"{readable[:40]}-{digest}.parquet"
