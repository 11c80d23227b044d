"""The same answer for other programs."""

from __future__ import annotations

import json
from typing import Any

from smdlens.names import for_json
from smdlens.symmetry.records import TensorSymmetry
from smdlens.symmetry.scale_symmetry import ScaleSymmetry
from smdlens.version import __version__
from smdlens.vocabulary import Outcome

SCHEMA_VERSION = "1.0"


def dumps(symmetry: ScaleSymmetry) -> str:
    """JSON text: tensors as in a report, and the null space under `symmetries`."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "smdlens_version": __version__,
        "source": symmetry.source,
        "tensors": [_tensor(tensor, symmetry) for tensor in symmetry.tensors.values()],
        "symmetries": [
            {for_json(name): _number(exponent) for name, exponent in vector.items()}
            for vector in symmetry.basis
        ],
        "notes": [for_json(note) for note in symmetry.notes],
        "findings": [
            {
                "rule": "SMD060",
                "outcome": Outcome.INCONCLUSIVE.value,
                "subject": for_json(item.tensor),
                "message": for_json(item.detail),
            }
            for item in symmetry.disagreements
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _number(exponent: Any) -> int | float:
    return int(exponent) if exponent.denominator == 1 else float(exponent)


def _tensor(tensor: TensorSymmetry, symmetry: ScaleSymmetry) -> dict[str, Any]:
    effect = symmetry.epsilon.get(tensor.name)
    return {
        "name": for_json(tensor.name),
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "role": tensor.role.value,
        "parts": [
            {
                "index_from": part.index_from,
                "index_to": part.index_to,
                "role": part.role.value,
                "granularity": part.granularity.value if part.granularity else None,
            }
            for part in tensor.parts
        ],
        "granularity": tensor.granularity.value if tensor.granularity else None,
        "axis": tensor.axis,
        "groups": tensor.groups,
        "joint_with": [for_json(name) for name in tensor.joint_with],
        "epsilon": None
        if effect is None
        else {
            "share": effect.share,
            "share_max": effect.share_max,
            "cosine": effect.cosine,
        },
        "evidence": [
            {"kind": item.kind.value, "detail": for_json(item.detail)} for item in tensor.evidence
        ],
    }
