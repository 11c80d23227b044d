"""The cache as a parquet file: written as a whole, and read as something that may be anything.

One flat table holds four kinds of rows: measured snapshots, measured pairs, digests of stored
bytes, and files with their fingerprints. In front of it stands a seal, a digest of its bytes: a
parser met with flipped bits may not only raise but abort, so without the seal nothing is parsed.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
from pathlib import Path

import polars as pl

from smdlens.atomic import make_folder, write_bytes
from smdlens.containers.files import open_regular
from smdlens.motion.records import PAIR_SCHEMA, SAMPLED_SCHEMA

# Raised whenever columns or their meaning change; part of the seal.
_VERSION = b"smdlens motion cache 3"
SEAL_BYTES = 32
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
# A few bytes can claim any number of rows.
_MOST_ROWS = 20_000_000


def empty() -> pl.DataFrame:
    """A cache that knows nothing."""
    return pl.DataFrame(schema=SCHEMA)


def read(path: Path) -> pl.DataFrame:
    """The rows of a cache file; nothing where it is missing, broken or foreign."""
    try:
        with open_regular(path) as file:
            content = file.read(0, file.size)
        seal, table = content[:SEAL_BYTES], content[SEAL_BYTES:]
        if seal != _seal(table):
            return empty()
        frame = pl.read_parquet(io.BytesIO(table), n_rows=_MOST_ROWS)
    # A parser met with arbitrary bytes may raise anything, panics of its own kind included.
    except (Exception, pl.exceptions.PanicException):
        return empty()
    return frame if dict(frame.schema) == SCHEMA else empty()


def write(path: Path, rows: pl.DataFrame) -> None:
    """Replace the cache file.

    Raises:
        OutputError: It cannot be written; an earlier one is as it was.
    """
    buffer = io.BytesIO()
    rows.select(list(SCHEMA)).write_parquet(buffer)
    table = buffer.getvalue()
    make_folder(path.parent, parents=True)
    write_bytes(path, _seal(table) + table)


def _seal(table: bytes) -> bytes:
    return hashlib.blake2b(table, digest_size=SEAL_BYTES, key=_VERSION).digest()


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
