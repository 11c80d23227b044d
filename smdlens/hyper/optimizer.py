"""Which update rule a saved optimizer follows, read from the keys of its parameter groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smdlens.errors import InputError
from smdlens.hyper.finite import finite
from smdlens.hyper.options import DeclaredHyperParameters
from smdlens.hyper.records import Optimizer
from smdlens.hyper.settings import Settings
from smdlens.snapshots.records import OptimizerRecord, SnapshotSeries
from smdlens.vocabulary import OptimizerKind, Slot

# One wording for one source, wherever it is shown.
SAVED = "parameter groups in the checkpoints"
_DECLARED: Mapping[str, tuple[OptimizerKind, bool]] = {
    "sgd": (OptimizerKind.SGD, False),
    "sgdw": (OptimizerKind.SGD, True),
    "adam": (OptimizerKind.ADAM, False),
    "adamw": (OptimizerKind.ADAMW, True),
    "lion": (OptimizerKind.LION, True),
}


def number(values: Mapping[str, Any], key: str) -> float | None:
    """A finite scalar of a parameter group, or None."""
    return finite(values.get(key))


def saved_betas(values: Mapping[str, Any]) -> tuple[float, float] | None:
    """Adam's or Lion's two decay rates from a parameter group, or None."""
    saved = values.get("betas")
    if not isinstance(saved, (tuple, list)) or len(saved) != 2:
        return None
    first, second = (number({"beta": beta}, "beta") for beta in saved)
    if first is None or second is None or not (0.0 <= first < 1.0 and 0.0 <= second < 1.0):
        return None
    return first, second


def last_record(series: SnapshotSeries) -> OptimizerRecord | None:
    """Optimizer state of the last snapshot that carries any."""
    for snapshot in reversed(series.snapshots):
        if snapshot.optimizer is not None and snapshot.optimizer.groups:
            return snapshot.optimizer
    return None


def kind_from_keys(record: OptimizerRecord) -> tuple[OptimizerKind, bool | None]:
    """Update rule and kind of decay from group keys and buffer names.

    torch's SGD saves `dampening` and `nesterov`; its Adam and AdamW `betas`, `eps`, `amsgrad`,
    and since 2.6 `decoupled_weight_decay`, without which the two cannot be told apart. Lion keeps
    `betas` and one moment, no `eps`.
    """
    if record.name is not None and record.name.lower() in _DECLARED:
        return _DECLARED[record.name.lower()]
    keys = set(record.groups[0].values)
    slots = {slot for per_tensor in record.slots.values() for slot in per_tensor}
    if {"dampening", "nesterov"} <= keys:
        return OptimizerKind.SGD, bool(record.groups[0].values.get("decoupled_weight_decay"))
    if "betas" in keys and "amsgrad" in keys:
        decoupled = record.groups[0].values.get("decoupled_weight_decay")
        if decoupled is None:
            return OptimizerKind.UNKNOWN, None
        return (OptimizerKind.ADAMW, True) if decoupled else (OptimizerKind.ADAM, False)
    if "betas" in keys and "eps" not in keys and Slot.SECOND_MOMENT.value not in slots:
        return OptimizerKind.LION, True
    if keys <= {"lr", "params", "initial_lr"}:
        return OptimizerKind.UNKNOWN, None
    return OptimizerKind.OTHER, None


def resolve_optimizer(
    series: SnapshotSeries,
    declared: DeclaredHyperParameters,
    settings: Sequence[Settings] = (),
) -> tuple[Optimizer, list[tuple[str, str, str]]]:
    """The update rule from options first, then the last saved optimizer state, then the settings.

    The trainer's own settings decide what a state leaves open: an old state of Adam is AdamW's
    where they name it.

    Returns:
        The rule, and notes (rule, text, remedy) on contradictions and on what is undecidable.
    """
    record = last_record(series)
    values: Mapping[str, Any] = record.groups[0].values if record is not None else {}
    notes: list[tuple[str, str, str]] = []
    kind, decoupled = (OptimizerKind.UNKNOWN, None) if record is None else kind_from_keys(record)
    source = "not given" if record is None else SAVED
    said_by_trainer = _named(settings, adam=kind is OptimizerKind.UNKNOWN and "betas" in values)
    if said_by_trainer is not None and kind is OptimizerKind.UNKNOWN:
        kind, decoupled = said_by_trainer.rule or (kind, decoupled)
        theirs = f"{said_by_trainer.source}: {said_by_trainer.optimizer}"
        source = theirs if record is None else f"{SAVED}; {theirs}"
    adam_like = kind is OptimizerKind.UNKNOWN and "betas" in values
    if declared.optimizer is not None:
        said, said_decoupled = _DECLARED[declared.optimizer]
        if record is not None and kind not in {said, OptimizerKind.UNKNOWN, OptimizerKind.OTHER}:
            notes.append(
                (
                    "SMD010",
                    f"{declared.said_by('optimizer')} says {declared.optimizer}, the checkpoints "
                    f"hold the state of {kind.value}",
                    "Drop the option, or check that these are the checkpoints you mean.",
                )
            )
        kind, decoupled, source = said, said_decoupled, declared.said_by("optimizer")
    elif adam_like:
        notes.append(
            (
                "SMD011",
                "the files cannot say whether this is Adam (L2 decay) or AdamW (decoupled decay)",
                "Give --optimizer adam or --optimizer adamw.",
            )
        )
    elif kind is OptimizerKind.UNKNOWN and _reads_like_sgd(declared):
        # The paper's own case; said in the report, so that a wrong guess can be seen.
        kind, decoupled, source = OptimizerKind.SGD, False, "assumed (no optimizer state)"
    for name in ("momentum", "dampening"):
        saved = number(values, name)
        said_value = getattr(declared, name)
        if said_value is not None and saved is not None and abs(said_value - saved) > 1e-9:
            notes.append(_contradiction(declared, name, said_value, saved))
    # Where no state is saved, the settings speak for themselves.
    written = said_by_trainer if record is None else None
    betas = declared.betas or saved_betas(values) or (written.betas if written else None)
    is_sgd = kind is OptimizerKind.SGD
    momentum = _first(
        declared.momentum, number(values, "momentum"), written.momentum if written else None
    )
    if is_sgd and momentum is None:
        if record is None and written is None:
            # SGD without momentum is rare: nothing is worked out from it unless someone says so.
            notes.append(
                (
                    "SMD012",
                    "no momentum is given and no optimizer state is saved",
                    "Give --momentum (0 for SGD without momentum).",
                )
            )
        elif record is None or not _has_momentum(record):
            # A trainer's SGD that names no momentum has none, as in torch.
            momentum = 0.0
        else:
            notes.append(
                (
                    "SMD012",
                    "the checkpoints hold momentum buffers but not the momentum",
                    "Give --momentum.",
                )
            )
    if declared.nesterov and not (momentum or 0.0) > 0.0:
        raise InputError(
            "Nesterov momentum needs a momentum above 0",
            subject=declared.said_by("nesterov"),
            expected="--momentum in (0, 1)",
            found=repr(momentum),
            remedy="Give --momentum, or drop --nesterov.",
        )
    saved_nesterov = values.get("nesterov", written.nesterov if written else None)
    optimizer = Optimizer(
        kind=kind,
        name=_name(record, kind, said_by_trainer),
        momentum=momentum if is_sgd else None,
        nesterov=bool(_first(declared.nesterov, saved_nesterov, False)) if is_sgd else None,
        dampening=(_first(declared.dampening, number(values, "dampening")) or 0.0)
        if is_sgd
        else None,
        betas=betas if not is_sgd else None,
        eps=_first(number(values, "eps"), written.eps if written else None),
        decoupled=decoupled,
        amsgrad=bool(values["amsgrad"]) if "amsgrad" in values else None,
        source=source,
    )
    return optimizer, notes


def _has_momentum(record: OptimizerRecord) -> bool:
    return any(Slot.MOMENTUM.value in slots for slots in record.slots.values())


def _named(settings: Sequence[Settings], *, adam: bool) -> Settings | None:
    """The first settings that name an optimizer; of a state with betas, only Adam's family."""
    fitting = (OptimizerKind.ADAM, OptimizerKind.ADAMW, OptimizerKind.LION, OptimizerKind.OTHER)
    for one in settings:
        if one.rule is not None and (not adam or one.rule[0] in fitting):
            return one
    return None


def _name(
    record: OptimizerRecord | None, kind: OptimizerKind, settings: Settings | None
) -> str | None:
    """The class as the file has it; for a rule without formulas, as the settings have it."""
    if record is not None and record.name is not None:
        return record.name
    return settings.optimizer if settings is not None and kind is OptimizerKind.OTHER else None


def _reads_like_sgd(declared: DeclaredHyperParameters) -> bool:
    """A momentum is declared and no betas: the user describes SGD. A rate alone could be Adam's."""
    return declared.betas is None and declared.momentum is not None


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _contradiction(
    declared: DeclaredHyperParameters, name: str, said: float, saved: float
) -> tuple[str, str, str]:
    return (
        "SMD010",
        f"{declared.said_by(name)} says {name} {said:g}, the checkpoints say {saved:g}; "
        "the declared value is used",
        f"Drop the option to use {saved:g}.",
    )
