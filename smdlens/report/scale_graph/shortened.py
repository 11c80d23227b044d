"""Names as they are read beside a tensor: what they share with its own name is left out."""

from __future__ import annotations

import re

from smdlens.symmetry.records import TensorSymmetry

_DOTTED = re.compile(r"\w+(?:\.\w+)+")
SHARED = ".."
LEGEND = "..name: inside the module that the tensor and the name share"


def relative(text: str, name: str) -> str:
    """`text` with dotted names that begin like `name` cut down to where they part.

    `..norm.bias` beside `encoder.layers.3.conv.weight` is `encoder.layers.3.norm.bias`.
    """
    own = name.split(".")

    def cut(match: re.Match[str]) -> str:
        parts = match[0].split(".")
        shared = 0
        while shared < min(len(parts), len(own)) - 1 and parts[shared] == own[shared]:
            shared += 1
        return match[0] if shared < 2 else SHARED + ".".join(parts[shared:])

    return _DOTTED.sub(cut, text)


def reasons(tensor: TensorSymmetry) -> list[str]:
    """Evidence without what the role beside it says already."""
    found = []
    for item in tensor.evidence:
        if item.detail.startswith("invariant only together with"):
            continue
        text = item.detail.removeprefix("not invariant: ").replace(
            "alone not invariant: ", "alone "
        )
        found.append(relative(text, tensor.name))
    return found
