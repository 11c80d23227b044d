"""The flat part of a YAML file: lines `key: scalar`; everything else is counted, never understood.

Trainers leave their options as such lines (timm's args.yaml, Lightning's hparams.yaml). Nesting,
tags, anchors and block text are what makes YAML dangerous and large; none of it is followed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(r"([A-Za-z_][\w.\-/]{0,99}):[ \t]+(\S.{0,2000})")
_ITEM = re.compile(r"- +(\S.{0,200})")
_NUMBER = re.compile(r"[+-]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?")
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_WORDS = {
    "true": True, "yes": True, "on": True, "false": False, "no": False, "off": False,
    "null": None, "~": None, "none": None,
}  # fmt: skip
# A value that starts like this is structure, not a scalar.
_STRUCTURE = tuple("!&*|>{%@`")

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class FlatYaml:
    """Scalars and lists of scalars at the top level, and how many lines were passed over."""

    values: dict[str, Scalar | list[Scalar]]
    ignored: int


def parse_flat_yaml(text: str) -> FlatYaml:
    """Reads `key: scalar`, `key: [scalar, ...]` and a list of scalars below a bare `key:`."""
    values: dict[str, Scalar | list[Scalar]] = {}
    ignored = 0
    below: str | None = None
    for raw in text.splitlines():
        line = raw.rstrip()
        if not line or line.lstrip().startswith("#") or line in ("---", "..."):
            continue
        item = _ITEM.fullmatch(line.lstrip()) if below is not None else None
        if item is not None and below is not None and not item[1].startswith(_STRUCTURE):
            held = values.setdefault(below, [])
            if isinstance(held, list):
                held.append(_scalar(item[1]))
            continue
        match = _LINE.fullmatch(line)
        bare = re.fullmatch(r"([A-Za-z_][\w.\-/]{0,99}):", line)
        below = bare[1] if bare is not None else None
        if match is not None and not match[2].startswith(_STRUCTURE):
            values[match[1]] = _value(match[2])
        elif bare is None:
            ignored += 1
    return FlatYaml(values, ignored)


def _value(text: str) -> Scalar | list[Scalar]:
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1].strip()
        return [_scalar(part.strip()) for part in inner.split(",")] if inner else []
    return _scalar(text)


def _scalar(text: str) -> Scalar:
    if text[0] in "'\"":
        end = text.find(text[0], 1)
        return text[1:end] if end > 0 else text
    text = text.partition(" #")[0].rstrip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text.replace("_", ""))
    return text
