"""Options from `smdlens.toml`, or from the table `[tool.smdlens]` of `pyproject.toml`."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from smdlens.errors import InputError

FILE_NAME = "smdlens.toml"
PYPROJECT = "pyproject.toml"
# The table of `smdlens check`; diagnosis.policy_file reads it.
POLICY_TABLE = "check"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, list) and all(map(_is_text, value)))


def _is_pair(value: Any) -> bool:
    return _is_text(value) or (
        isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
    )


NUMBER = (_is_number, "a number")
WHOLE = (_is_whole, "a whole number")
_TEXT = (_is_text, "a text in quotes")
_TEXTS = (_is_texts, "a text in quotes or a list of them")
KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "optimizer": _TEXT,
    "lr": NUMBER,
    "weight_decay": NUMBER,
    "momentum": NUMBER,
    "dampening": NUMBER,
    "nesterov": (lambda value: isinstance(value, bool), "true or false"),
    "betas": (_is_pair, "a list of two numbers"),
    "schedule": _TEXT,
    "epsilon": NUMBER,
    "steps_per_epoch": WHOLE,
    "weights": _TEXT,
    "include": _TEXTS,
    "exclude": _TEXTS,
    "steps": (_is_text, 'a text such as "1000:90000:2"'),
    "tolerance": NUMBER,
    "metrics": _TEXT,
    "metric": _TEXT,
    "metric_goal": _TEXT,
    "device": _TEXT,
    "all_pairs": (lambda value: isinstance(value, bool), "true or false"),
    "workers": WHOLE,
    "cache_dir": _TEXT,
    "cache": (lambda value: isinstance(value, bool), "true or false"),
}


# A relative one starts at the configuration file.
_PATHS = ("schedule", "metrics", "cache_dir")


def find_config(folder: Path) -> Path | None:
    """The configuration file of `folder`: `smdlens.toml`, else a `pyproject.toml` that has ours."""
    own = folder / FILE_NAME
    if own.is_file():
        return own
    shared = folder / PYPROJECT
    try:
        # A broken pyproject.toml that does not speak of us is not our business.
        mentions = "tool.smdlens" in shared.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return shared if mentions and read_table(shared) else None


def read_config(path: Path) -> dict[str, Any]:
    """Options by name (underscores), checked for type; a relative path starts at the file.

    Raises:
        InputError: The file cannot be read, holds an unknown key or a value of another type.
    """
    values: dict[str, Any] = {}
    for key, value in read_table(path).items():
        if key == POLICY_TABLE:
            continue
        name = key.replace("-", "_")
        if name not in KEYS:
            close = difflib.get_close_matches(name, KEYS, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Known keys: {', '.join(KEYS)}."
            raise InputError("unknown key", subject=f"{path}, key {key}", remedy=hint)
        fits, expected = KEYS[name]
        if not fits(value):
            raise InputError(
                "a value of the wrong type",
                subject=f"{path}, key {key}",
                expected=expected,
                found=repr(value),
            )
        values[name] = path.parent / value if name in _PATHS else value
    return values


def read_table(path: Path) -> dict[str, Any]:
    """Everything the file says to smdlens: the whole of it, or `[tool.smdlens]`.

    Raises:
        InputError: The file cannot be read or is not valid TOML.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"the configuration cannot be read ({error.strerror})", subject=str(path)
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"the configuration is not valid TOML ({error})", subject=str(path)
        ) from error
    if path.name != PYPROJECT:
        return content
    tool = content.get("tool")
    table = tool.get("smdlens", {}) if isinstance(tool, dict) else {}
    return table if isinstance(table, dict) else {}
