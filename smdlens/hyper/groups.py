"""Parameter groups: who shares a weight decay, and which tensors they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smdlens.hyper.optimizer import SAVED, last_record, number, saved_betas
from smdlens.hyper.options import DeclaredHyperParameters
from smdlens.hyper.records import ParamGroup
from smdlens.hyper.settings import Settings
from smdlens.snapshots.decay_rules import splits
from smdlens.snapshots.records import GroupRecord, SnapshotSeries

Note = tuple[str, str, str]
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def is_parameter(name: str) -> bool:
    """True for trained tensors, False for a batch norm's running statistics."""
    return name.rsplit(".", 1)[-1] not in _STATISTICS


def resolve_groups(
    series: SnapshotSeries,
    declared: DeclaredHyperParameters,
    settings: Sequence[Settings] = (),
) -> tuple[tuple[ParamGroup, ...], list[Note]]:
    """Groups of the last saved optimizer state, or one group of everything without any.

    A declared weight decay replaces that of all groups but the spared ones (`spared_groups`).
    """
    record = last_record(series)
    parameters = tuple(name for name in series.snapshots[-1].tensors if is_parameter(name))
    if record is None:
        written = next((s for s in settings if s.weight_decay is not None), None)
        decay: float | None
        if declared.weight_decay is not None:
            decay, source = declared.weight_decay, declared.said_by("weight_decay")
        elif written is not None:
            decay, source = written.weight_decay, written.source
        else:
            decay, source = None, "no optimizer state saved"
        group = ParamGroup(
            index=0,
            name="all parameters",
            tensors=parameters,
            weight_decay=decay,
            momentum=declared.momentum,
            betas=declared.betas,
            source=source,
        )
        return (group,), []
    notes: list[Note] = []
    groups: list[ParamGroup] = []
    inferred = _by_rule(record.groups, series, parameters)
    spared = spared_groups(series)
    for at, saved in enumerate(record.groups):
        values = saved.values
        decay = number(values, "weight_decay")
        source = SAVED
        declared_decay = declared.weight_decay
        if declared_decay is not None and saved.index not in spared:
            if decay is not None and abs(decay - declared_decay) > 1e-9 * max(decay, 1e-30):
                notes.append(
                    (
                        "SMD010",
                        f"{declared.said_by('weight_decay')} says weight decay "
                        f"{declared_decay:g}, parameter group {saved.index} of the checkpoints "
                        f"says {decay:g}; the declared value is used",
                        f"Drop the option to use {decay:g}.",
                    )
                )
            decay, source = declared_decay, declared.said_by("weight_decay")
        elif decay is None:
            # Optimizers written by hand may not store it; nothing is assumed.
            source += " (weight_decay not stored)"
        names = saved.names
        if names is None and inferred is not None:
            names = inferred[at]
            source += " (its tensors inferred by the usual rule of weight decay)"
        elif names is None:
            names = _only_group(record.groups, parameters)
        groups.append(
            ParamGroup(
                index=saved.index,
                name=_name(values, saved.index, decay),
                tensors=names,
                weight_decay=decay,
                momentum=declared.momentum
                if declared.momentum is not None
                else number(values, "momentum"),
                betas=declared.betas or saved_betas(values),
                source=source,
            )
        )
    unmapped = any(saved.names is None for saved in record.groups)
    if unmapped and inferred is None and len(record.groups) > 1:
        notes.append(
            (
                "SMD018",
                f"the optimizer's groups cannot be matched to tensor names ({record.note})",
                "Save with an optimizer built from model.named_parameters(), or give --optimizer, "
                "--weight-decay and --lr for one group.",
            )
        )
    return tuple(groups), notes


def spared_groups(series: SnapshotSeries) -> frozenset[int]:
    """Groups saved without decay beside others that have one: the usual biases and gains.

    What is declared speaks of the decayed groups. Where no group was saved with decay it speaks of
    all: the optimizer cannot have kept apart what it did not know.
    """
    record = last_record(series)
    decays = (
        {} if record is None else {g.index: number(g.values, "weight_decay") for g in record.groups}
    )
    if all(decay == 0.0 for decay in decays.values()):
        return frozenset()
    return frozenset(index for index, decay in decays.items() if decay == 0.0)


def _by_rule(
    groups: tuple[GroupRecord, ...], series: SnapshotSeries, parameters: tuple[str, ...]
) -> tuple[tuple[str, ...], ...] | None:
    """Tensors of two groups of which one has no decay, where their counts tell them apart.

    Without buffers (plain SGD) nothing else is known of a group's tensors: the counts must match
    exactly, under one of the usual rules only.
    """
    if len(groups) != 2 or any(group.names is not None for group in groups):
        return None
    decays = [number(group.values, "weight_decay") for group in groups]
    if decays.count(0.0) != 1:
        return None
    tensors = series.snapshots[-1].tensors
    shapes = {name: tensors[name].shape for name in parameters}
    statistics = frozenset(n.rpartition(".")[0] for n in tensors if not is_parameter(n))
    fitting = [
        (without, decayed) if decays[0] == 0.0 else (decayed, without)
        for decayed, without in splits(shapes, statistics)
    ]
    fitting = [
        split
        for split in fitting
        if all(len(names) == group.count for names, group in zip(split, groups, strict=True))
    ]
    return fitting[0] if len(fitting) == 1 else None


def _only_group(groups: tuple[Any, ...], parameters: tuple[str, ...]) -> tuple[str, ...]:
    """Everything belongs to the one group there is; with several nobody can say."""
    return parameters if len(groups) == 1 else ()


def _name(values: Mapping[str, Any], index: int, decay: float | None) -> str:
    saved = values.get("name") or values.get("group_name")
    if isinstance(saved, str) and saved:
        return saved
    return f"group {index}" + (" (no decay)" if decay == 0.0 else "")
