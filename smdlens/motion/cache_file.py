"""The cache as a parquet file: written as a whole, and read as something that may be anything.

One flat table holds four kinds of rows: measured snapshots, measured pairs, digests of stored
bytes, and files with their fingerprints; and a seal, a digest of all the others, without which
nothing in it is believed.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl

from smdlens.atomic import make_folder, write_bytes
from smdlens.containers.files import open_regular
from smdlens.motion.records import PAIR_SCHEMA, SAMPLED_SCHEMA

# Raised whenever columns or their meaning change; part of the seal.
_VERSION = "smdlens motion cache 2"
_OTHER: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "key": pl.String(),
    "digest": pl.String(),
    "path": pl.String(),
    "size": pl.Int64(),
    "mtime_ns": pl.Int64(),
    "ctime_ns": pl.Int64(),
    "inode": pl.Int64(),
    "values": pl.List(pl.Float64()),
}
SCHEMA: dict[str, pl.DataType] = {**_OTHER, **SAMPLED_SCHEMA, **PAIR_SCHEMA}
_SEAL = "seal"
# A few bytes can claim any number of rows.
_MOST_ROWS = 20_000_000


def empty() -> pl.DataFrame:
    """A cache that knows nothing."""
    return pl.DataFrame(schema=SCHEMA)


def read(path: Path) -> pl.DataFrame:
    """The rows of a cache file without the seal; nothing where it is missing, broken or foreign."""
    try:
        with open_regular(path) as file:
            content = file.read(0, file.size)
        frame = pl.read_parquet(io.BytesIO(content), n_rows=_MOST_ROWS)
    # A parser met with arbitrary bytes may raise anything, panics of its own kind included.
    except (Exception, pl.exceptions.PanicException):
        return empty()
    if dict(frame.schema) != SCHEMA:
        return empty()
    seals = frame.filter(pl.col("kind") == _SEAL)
    rows = frame.filter(pl.col("kind") != _SEAL)
    if seals.height != 1 or seals.item(0, "key") != _seal(rows):
        return empty()
    return rows


def write(path: Path, rows: pl.DataFrame) -> None:
    """Replace the cache file.

    Raises:
        OutputError: It cannot be written; an earlier one is as it was.
    """
    seal = pl.DataFrame({"kind": [_SEAL], "key": [_seal(rows)]})
    buffer = io.BytesIO()
    pl.concat([rows, seal], how="diagonal").select(list(SCHEMA)).write_parquet(buffer)
    make_folder(path.parent, parents=True)
    write_bytes(path, buffer.getvalue())


def _seal(rows: pl.DataFrame) -> str:
    found = hashlib.blake2b(_VERSION.encode(), digest_size=32)
    for name, kind in SCHEMA.items():
        column = rows.get_column(name)
        found.update(column.is_null().to_numpy().tobytes())
        if kind == pl.List(pl.Float64()):
            found.update(column.list.len().fill_null(0).to_numpy().tobytes())
            column = column.explode().drop_nulls()
        if kind == pl.String():
            text = column.fill_null("").to_list()
            found.update("\0".join(text).encode("utf-8", "surrogatepass"))
        else:
            found.update(np.ascontiguousarray(column.fill_null(0).to_numpy()).tobytes())
    return found.hexdigest()


def default_folder() -> Path | None:
    """The user's cache folder for smdlens; None where the system knows of none."""
    named = os.environ.get("SMDLENS_CACHE")
    if named:
        return Path(named)
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "smdlens"
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The standard says that a relative path there is to be ignored.
    return (Path(base) if base.startswith("/") else home / ".cache") / "smdlens"
