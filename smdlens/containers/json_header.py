"""Strict, bounded JSON: the headers, indices and logs that come with checkpoints."""

from __future__ import annotations

import json
import re
from typing import Any

from smdlens.containers.files import reading
from smdlens.containers.limits import DEFAULT_LIMITS, Limits
from smdlens.errors import SnapshotCorruptError, SnapshotUnsafeError

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))


def parse_json(
    data: bytes,
    *,
    subject: str,
    limits: Limits = DEFAULT_LIMITS,
    allow_nan: bool = False,
) -> Any:
    """Parse UTF-8 JSON; repeated keys, deep nesting and over-long texts are refused.

    Args:
        data: The text.
        subject: The file, for errors.
        limits: Bounds on length and depth.
        allow_nan: Accept the literals NaN and Infinity, which trainers write into their logs.

    Raises:
        SnapshotUnsafeError: Longer or deeper than `limits` allows.
        SnapshotCorruptError: Not JSON, or a key given twice.
    """
    if len(data) > limits.json_bytes:
        raise SnapshotUnsafeError(
            "the JSON text is too long",
            subject=subject,
            expected=f"at most {limits.json_bytes} bytes",
            found=f"{len(data)} bytes",
        )
    if _depth(data) > limits.json_depth:
        raise SnapshotUnsafeError(
            "the JSON text is nested too deeply",
            subject=subject,
            expected=f"at most {limits.json_depth} levels",
        )
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=float if allow_nan else _no_constant,
        )
    except (ValueError, RecursionError) as error:
        raise SnapshotCorruptError(
            "not valid JSON", subject=subject, found=str(error)[:200]
        ) from error


def read_json(path: str, *, limits: Limits = DEFAULT_LIMITS, allow_nan: bool = False) -> Any:
    """Parse a whole JSON file; errors as `parse_json`, and those of opening it."""
    with reading(path) as file:
        if file.size > limits.json_bytes:
            raise SnapshotUnsafeError(
                "the JSON file is too long",
                subject=path,
                expected=f"at most {limits.json_bytes} bytes",
                found=f"{file.size} bytes",
            )
        data = file.read(0, file.size)
    return parse_json(data, subject=path, limits=limits, allow_nan=allow_nan)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:100]!r} is given twice")
            seen.add(key)
    return result


def _no_constant(text: str) -> float:
    raise ValueError(f"the literal {text} is not JSON")


def _depth(data: bytes) -> int:
    """Deepest nesting of brackets outside strings; never parses, so cannot overflow."""
    depth = deepest = 0
    for byte in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest
