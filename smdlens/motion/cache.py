"""Measurements of earlier analyses: a second one reads no weights, a new checkpoint costs itself.

Rows are found by what they depend on (row_keys.py), never by name or step, so a replaced file,
other hyper-parameters or another kernel simply find nothing. Rows of deleted checkpoints stay.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import astuple
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
# The same for numbers in lists: those of all pairs are others with each checkpoint that is added.
_MOST_LISTED = 4_000_000


class MeasurementCache:
    """The cache of one run, in memory between `open_cache` and `save`.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tables = cache_file.read(path)
        self._states: dict[str, tuple[FileState, str]] = {
            real: (FileState(*state), digest)
            for real, digest, *state in self._tables["file"].iter_rows()
        }
        self._digests: dict[str, str] = dict(self._tables["digest"].iter_rows())
        self._values: dict[str, list[float]] = dict(self._tables["values"].iter_rows())
        self._prints: dict[str, str] = {}
        self._used: list[pl.Series] = []
        self._asked: set[str] = set()
        self._new: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in cache_file.SCHEMAS}
        self._measured: dict[str, list[pl.DataFrame]] = {kind: [] for kind in cache_file.SCHEMAS}

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
            self._new["file"].append((real, digest, *astuple(state)))
        return digest

    def digest(self, key: str) -> str | None:
        """Digest of stored bytes, if they were seen before."""
        return self._digests.get(key)

    def add_digest(self, key: str, digest: str) -> None:
        """Remember the digest of stored bytes."""
        self._digests[key] = digest
        self._new["digest"].append((key, digest))

    def values(self, key: str) -> list[float] | None:
        """A list of numbers kept under `key`."""
        self._asked.add(key)
        return self._values.get(key)

    def add_values(self, key: str, values: list[float]) -> None:
        """Keep a list of numbers."""
        self._values[key] = values
        self._new["values"].append((key, values))

    def find(self, kind: str, keys: pl.Series) -> pl.DataFrame:
        """The rows of `kind` ("snapshot", "pair") that are known, and their `place` among `keys`.

        Args:
            kind: Which table.
            keys: Keys of the wanted rows, under the name "key".
        """
        self._used.append(keys)
        wanted = keys.to_frame().with_row_index("place")
        return wanted.join(self._tables[kind], on="key", maintain_order="left")

    def add(self, kind: str, rows: pl.DataFrame) -> None:
        """Keep measured rows, which carry their `key`."""
        if not rows.is_empty():
            self._measured[kind].append(rows.select(list(cache_file.SCHEMAS[kind])))

    def save(self) -> str:
        """Write what is new beside what is there by now; another process may have written too.

        Returns:
            "" or why it could not be written: a lost cache costs time and nothing else.
        """
        if not any(self._new.values()) and not any(self._measured.values()):
            return ""
        tables = cache_file.read(self.path)
        for kind, schema in cache_file.SCHEMAS.items():
            noted = pl.DataFrame(self._new[kind], schema=schema, orient="row")
            rows = pl.concat([noted, *self._measured[kind], tables[kind]])
            # The latest word on a file is the first one here; other rows of one key are the same.
            first = rows.to_series().is_first_distinct()
            tables[kind] = rows if first.all() else rows.filter(first)
        if sum(table.height for table in tables.values()) > _MOST_ROWS:
            used = pl.concat(self._used).implode()
            for kind in ("snapshot", "pair"):
                tables[kind] = tables[kind].filter(pl.col("key").is_in(used))
        lists = tables["values"]
        recent = lists["values"].list.len().cum_sum() <= _MOST_LISTED
        tables["values"] = lists.filter(recent | lists["key"].is_in(list(self._asked)))
        try:
            cache_file.write(self.path, tables)
        except (OutputError, OSError) as error:
            reason = error.message if isinstance(error, SmdlensError) else str(error)
            return f"the measurement cache {reason}"
        return ""


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
    # Made absolute but not resolved: a file that links into a store belongs where its name is.
    folders = {os.path.dirname(os.path.abspath(path)) for path in paths}  # noqa: PTH100, PTH120
    return Path(os.path.realpath(os.path.commonpath(folders))) if folders else None


def _name(run: Path) -> str:
    """One file per run, and a name that a person can place."""
    digest = hashlib.blake2b(os.fsencode(run), digest_size=8).hexdigest()
    readable = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in run.name)
    return f"{readable[:40]}-{digest}.parquet"
