"""Megatron-LM's own layout: iter_0000100/mp_rank_00/model_optim_rng.pt.

Tensor-parallel slices are put together (tensor_parallel.py); stages of a pipeline and experts over
several ranks are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smdlens.containers.files import FileStamp, contained
from smdlens.containers.inert_values import Opaque
from smdlens.containers.limits import Limits
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotTruncatedError,
    SnapshotUnsupportedError,
)
from smdlens.snapshots.candidate import Candidate, RawCheckpoint, candidate_folder, is_folder
from smdlens.snapshots.chunks import PieceBudget
from smdlens.snapshots.hf_folder import torch_file
from smdlens.snapshots.megatron_optimizer import NOTE, UNPLACED, distributed_state
from smdlens.snapshots.records import TensorRef
from smdlens.snapshots.resolve import is_tensor
from smdlens.snapshots.tensor_parallel import joined, named_state

_RANK = re.compile(r"mp_rank_\d{2,3}(?:_\d{3}){0,2}")
_FILE = "model_optim_rng.pt"
_SPREAD = "distrib_optim.pt"
_DEEPEST = 12
UNNAMED = "optimizer left out: not every buffer of the slices is known to belong to one weight"


class MegatronReader:
    """Reader of iteration folders of Megatron-LM."""

    name = "megatron"

    def recognises(self, candidate: Candidate) -> bool:
        """A folder of folders named for model-parallel ranks."""
        ranks = _ranks(candidate)
        if not ranks or not is_folder(candidate.path / ranks[0]):
            return False
        return (candidate.path / ranks[0] / _FILE).is_file()

    def read(self, candidate: Candidate, limits: Limits) -> RawCheckpoint:
        """Read the headers of the files of all ranks, and join their slices."""
        subject = str(candidate.path)
        ranks = _tensor_parallel(_ranks(candidate), subject)
        files: list[Path] = []
        stamps: dict[str, FileStamp] = {}
        roots = []
        for rank in ranks:
            folder = contained(candidate.path, rank, subject=subject)
            roots.append(_one_rank(folder, limits, files, stamps))
        root = roots[0]
        if len(roots) > 1:
            root |= _joined(roots, PieceBudget(subject, limits))
        return RawCheckpoint(self.name, root, tuple(files), stamps)


def _tensor_parallel(ranks: list[str], subject: str) -> list[str]:
    """Names of the tensor-parallel ranks in order.

    Raises:
        SnapshotUnsupportedError: Stages of a pipeline, or experts over several ranks.
        SnapshotTruncatedError: A rank is missing.
    """
    numbers = [tuple(map(int, rank.split("_")[2:])) for rank in ranks]
    if any(any(number[1:]) for number in numbers):
        raise SnapshotUnsupportedError(
            "the model is cut into stages of a pipeline or experts over several ranks",
            subject=subject,
            expected="tensor-parallel ranks alone (mp_rank_00, mp_rank_01 ...)",
            found=", ".join(ranks[:4]),
            remedy="Merge them with Megatron's own tools, or save with torch_dist.",
        )
    placed = dict(zip((number[0] for number in numbers), ranks, strict=True))
    missing = set(range(len(ranks))) - set(placed)
    if missing:
        raise SnapshotTruncatedError(
            "the folder of a rank is missing",
            subject=subject,
            expected=f"mp_rank_{min(missing):02d}",
            found=", ".join(ranks[:4]),
            remedy="Wait for the trainer to finish, or copy all folders of the iteration.",
        )
    return [placed[number] for number in sorted(placed)]


def _one_rank(
    folder: Path, limits: Limits, files: list[Path], stamps: dict[str, FileStamp]
) -> dict[str, Any]:
    if not (folder / _FILE).is_file():
        raise SnapshotTruncatedError(
            "the file of a rank is missing",
            subject=str(folder),
            expected=_FILE,
            remedy="Wait for the trainer to finish, or copy all folders of the iteration.",
        )
    raw = torch_file(folder / _FILE, limits)
    if not isinstance(raw.root, Mapping):
        raise SnapshotCorruptError("not a mapping of states", subject=str(folder / _FILE))
    root = {str(k): v for k, v in raw.root.items() if type(k) is str}
    if isinstance(root.get("model"), Mapping):
        root["model"] = dict(_flatten(root["model"], "", 0))
    files += raw.files
    stamps |= raw.stamps
    if _SPREAD in candidate_folder(folder).names:
        spread = torch_file(folder / _SPREAD, limits)
        files.append(folder / _SPREAD)
        stamps |= spread.stamps
        root |= _distributed(root, spread.root, stamps, str(folder / _SPREAD))
    return root


def _joined(roots: list[dict[str, Any]], budget: PieceBudget) -> dict[str, Any]:
    """Weights and slots of all tensor-parallel ranks, put together; all else is the first's."""
    models = [root.get("model") for root in roots]
    if not all(isinstance(model, Mapping) and model for model in models):
        raise SnapshotCorruptError("a rank without weights", subject=budget.subject)
    weights = [model for model in models if isinstance(model, Mapping)]
    gated = _gated(roots[0].get("args"))
    result: dict[str, Any] = {"model": joined(weights, gated, budget)}
    states = [
        named_state(root.get("optimizer"), model)
        for root, model in zip(roots, weights, strict=True)
    ]
    held = [state for state in states if state is not None]
    if len(held) != len(roots):
        unplaced = {"conversion": UNNAMED} if roots[0].get("optimizer") is not None else {}
        return {**result, "optimizer": None, **unplaced}
    slots: dict[str, dict[str, Any]] = {}
    for slot in dict.fromkeys(s for name in held[0].slots.values() for s in name if s != "step"):
        parts = [{n: v[slot] for n, v in one.slots.items() if slot in v} for one in held]
        for name, ref in joined(parts, gated, budget, like=f"{slot} of ").items():
            slots.setdefault(name, {})[slot] = ref
    for name, own in slots.items():
        if "step" in held[0].slots[name]:
            own["step"] = held[0].slots[name]["step"]
    result["optimizer"] = {"state": slots, "param_groups": held[0].groups}
    return result


def _gated(args: Any) -> bool | None:
    """Whether the MLPs have gates, from the training arguments; None without any."""
    held = args.state if type(args) is Opaque else args
    if not isinstance(held, Mapping):
        return None
    return any(held.get(key) not in (None, False) for key in ("swiglu", "gated_linear_unit"))


def _distributed(
    root: Mapping[str, Any], content: Any, stamps: Mapping[str, FileStamp], subject: str
) -> dict[str, Any]:
    """The float32 weights and slots of the distributed optimizer, in place of the copies."""
    model = root.get("model")
    weights = model if isinstance(model, Mapping) else {}
    found = distributed_state(content, weights, stamps, subject)
    if found is None:
        return {"conversion": UNPLACED}
    masters = {name: parts["param"] for name, parts in found.items()}
    slots = {
        name: {slot: ref for slot, ref in parts.items() if slot != "param"}
        for name, parts in found.items()
    }
    groups = _groups(root.get("optimizer"), found)
    for group in groups:
        for name in group["params"]:
            if "step" in group:
                slots[name]["step"] = group["step"]
    return {
        "model": {**weights, **masters},
        "weights_source": NOTE,
        "optimizer": {"state": slots, "param_groups": groups},
    }


def _groups(optimizer: Any, found: Mapping[str, Mapping[str, TensorRef]]) -> list[dict[str, Any]]:
    """Settings of the groups, which do not list their parameters.

    Megatron decays all but biases and vectors, unless told otherwise: with two groups that differ
    by `wd_mult` alone it is known which is which.
    """
    held = optimizer.get("optimizer", optimizer) if isinstance(optimizer, Mapping) else None
    given = held.get("param_groups") if isinstance(held, Mapping) else None
    groups = [g for g in given if isinstance(g, Mapping)] if isinstance(given, list) else []
    settings = [
        {k: v for k, v in g.items() if type(k) is str and k not in ("params", "param_names")}
        for g in groups
    ]
    plain = [n for n, parts in found.items() if _is_vector(n, parts["param"])]
    decayed = [n for n in found if n not in plain]
    multiples = [g.get("wd_mult") for g in settings]
    if len(settings) == 1:
        return [{**settings[0], "params": list(found)}]
    if sorted(map(str, multiples)) == ["0.0", "1.0"]:
        return [{**g, "params": decayed if g["wd_mult"] == 1.0 else plain} for g in settings]
    return [{"params": list(found)}]


def _is_vector(name: str, ref: TensorRef) -> bool:
    return len(ref.shape) == 1 or name.endswith(".bias")


def _ranks(candidate: Candidate) -> list[str]:
    return sorted(name for name in candidate.names if _RANK.fullmatch(name))


def _flatten(value: Mapping[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Tensors of nested modules (language_model.encoder ...) by dotted names."""
    for key, item in value.items():
        if type(key) is not str:
            continue
        name = f"{prefix}.{key}" if prefix else key
        if is_tensor(item):
            yield name, item
        elif isinstance(item, Mapping) and depth < _DEEPEST:
            yield from _flatten(item, name, depth + 1)
