"""An inspection as JSON: deterministic, no NaN, floats in 12 significant digits."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from smdlens.containers.checksums import FileCheck
from smdlens.names import for_json
from smdlens.report.inspection import Inspection, plain_scalars
from smdlens.version import __version__

SCHEMA_VERSION = "1.0"


def dumps(inspection: Inspection, checks: Sequence[FileCheck] = ()) -> str:
    """The inspection, and the checks of its files, as indented JSON text."""
    return json.dumps(_clean(to_dict(inspection, checks)), indent=2, allow_nan=False) + "\n"


def to_dict(inspection: Inspection, checks: Sequence[FileCheck] = ()) -> dict[str, Any]:
    """The inspection as dicts, lists and scalars."""
    snapshot = inspection.snapshot
    record = snapshot.optimizer
    by_label = {check.label: check for check in checks}
    slots = record.slots if record is not None else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "smdlens_version": __version__,
        "path": inspection.path,
        "format": snapshot.format,
        "step": snapshot.step,
        "step_source": snapshot.step_source,
        "epoch": snapshot.epoch,
        "files": [
            {"file": label, "bytes": size, **_check(by_label.get(label))}
            for label, size in inspection.sizes.items()
        ],
        "weights": {
            "key": snapshot.tree_key,
            "why": snapshot.tree_note,
            "trees": [
                {"key": key, "tensors": count, "averaged": averaged}
                for key, count, averaged in snapshot.trees
            ],
        },
        "tensors": [
            {
                "name": name,
                "stored_as": ref.name,
                "shape": list(ref.shape),
                "dtype": ref.dtype,
                "bytes": ref.nbytes,
                "contiguous": ref.strides is None,
                "slots": sorted(str(slot) for slot in slots.get(name, {})),
            }
            for name, ref in snapshot.tensors.items()
        ],
        "optimizer": _optimizer(inspection),
        "settings": [
            {
                "source": one.source,
                "optimizer": one.optimizer,
                "lr": one.lr,
                "weight_decay": one.weight_decay,
                "momentum": one.momentum,
                "nesterov": one.nesterov,
                "betas": one.betas,
            }
            for one in inspection.settings
        ],
        "scalars": plain_scalars(snapshot.scalars),
        "notes": [
            {"rule": rule, "message": text, "remedy": remedy}
            for rule, text, remedy in inspection.notes
        ],
    }


def _optimizer(inspection: Inspection) -> dict[str, Any] | None:
    record, rule = inspection.snapshot.optimizer, inspection.optimizer
    if record is None:
        return None
    return {
        "key": record.key,
        "kind": rule.kind.value,
        "name": rule.name,
        "decoupled": rule.decoupled,
        "source": rule.source,
        "parameters": inspection.trained,
        "mapping": record.note,
        "slots": dict(sorted(inspection.slot_counts.items())),
        "groups": [
            {
                "index": group.index,
                "count": group.count,
                "tensors": group.names,
                "values": plain_scalars(group.values),
            }
            for group in record.groups
        ],
    }


def _check(check: FileCheck | None) -> dict[str, Any]:
    if check is None:
        return {}
    return {
        "sha256": check.sha256,
        "crc": check.crc,
        "crc_mismatches": list(check.mismatches),
        "manifest": check.manifest,
    }


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return for_json(value)
    if isinstance(value, float):
        return float(f"{value:.12g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {for_json(str(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return value
