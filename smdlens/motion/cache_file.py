"""The cache as a file: written as a whole, and read as something that may be anything.

Parquet tables one after another, each behind its length: measured snapshots, measured pairs,
digests of stored bytes, lists of numbers, and files with their fingerprints. In front of them
stands a seal, a digest of all bytes: a parser met with flipped bits may not only raise but abort,
so without the seal nothing is parsed.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
from pathlib import Path

import polars as pl

from smdlens.atomic import make_folder, open_atomic
from smdlens.containers.files import open_regular
from smdlens.motion.records import PAIR_SCHEMA, PAIR_VALUES, SAMPLED_SCHEMA, SNAPSHOT_VALUES

# Raised whenever columns or their meaning change; part of the seal.
_VERSION = b"smdlens motion cache 4"
_SEAL_BYTES = 32
_LENGTH_BYTES = 8
# A few bytes can claim any number of rows.
_MOST_ROWS = 20_000_000
# Compressed one after another; a model of very many tensors has as many rows.
_GROUP_ROWS = 1 << 16

Tables = dict[str, pl.DataFrame]
# The first column says what a row is about; a table has one row about each.
SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    "snapshot": {
        "key": pl.String(),
        **{name: SAMPLED_SCHEMA[name] for name in (*SNAPSHOT_VALUES, "sample")},
    },
    "pair": {"key": pl.String(), **{name: PAIR_SCHEMA[name] for name in PAIR_VALUES}},
    "digest": {"key": pl.String(), "digest": pl.String()},
    "values": {"key": pl.String(), "values": pl.List(pl.Float64())},
    "file": {
        "path": pl.String(),
        "digest": pl.String(),
        "size": pl.Int64(),
        "mtime_ns": pl.Int64(),
        "ctime_ns": pl.Int64(),
        "inode": pl.Int64(),
    },
}


def empty() -> Tables:
    """A cache that knows nothing."""
    return {kind: pl.DataFrame(schema=schema) for kind, schema in SCHEMAS.items()}


def read(path: Path) -> Tables:
    """The tables of a cache file; nothing where it is missing, broken or foreign."""
    try:
        with open_regular(path) as file:
            content = memoryview(file.read(0, file.size))
        tables = _unpacked(content[_SEAL_BYTES:]) if _is_sealed(content) else empty()
    # A parser met with arbitrary bytes may raise anything, panics of its own kind included.
    except (Exception, pl.exceptions.PanicException):
        return empty()
    is_ours = all(dict(table.schema) == SCHEMAS[kind] for kind, table in tables.items())
    return tables if is_ours else empty()


def write(path: Path, tables: Tables) -> None:
    """Replace the cache file.

    Raises:
        OutputError: It cannot be written; an earlier one is as it was.
    """
    pieces = packed(tables)
    make_folder(path.parent, parents=True)
    with open_atomic(path) as file:
        file.writelines(pieces)


def packed(tables: Tables) -> list[bytes]:
    """The content of a cache file, in pieces."""
    pieces: list[bytes] = []
    for kind in SCHEMAS:
        buffer = io.BytesIO()
        tables[kind].write_parquet(buffer, row_group_size=_GROUP_ROWS)
        pieces += [buffer.tell().to_bytes(_LENGTH_BYTES, "little"), buffer.getvalue()]
    return [_seal(*pieces), *pieces]


def _unpacked(content: memoryview) -> Tables:
    tables: Tables = {}
    for kind in SCHEMAS:
        end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        table, content = content[_LENGTH_BYTES:end], content[end:]
        tables[kind] = pl.read_parquet(io.BytesIO(table), n_rows=_MOST_ROWS)
    return tables


def _is_sealed(content: memoryview) -> bool:
    return content[:_SEAL_BYTES] == _seal(content[_SEAL_BYTES:])


def _seal(*pieces: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=_SEAL_BYTES, key=_VERSION)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


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
