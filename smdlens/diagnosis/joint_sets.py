"""Which jointly invariant sets can be measured as one vector, and why the others cannot.

A set moves on one sphere as the concatenation of its members. The norm balance then holds for the
whole of it, provided one update rule with one rate and one decay moves all of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np
import polars as pl
from numpy.typing import NDArray

from smdlens.diagnosis.update_rule import law_of
from smdlens.hyper.records import HyperParameters, ParamGroup
from smdlens.motion.joint import joint_turn2
from smdlens.symmetry.records import ScaleGroups, TensorSymmetry
from smdlens.theory.angles import angle_from_turn2, turn2_from_angle
from smdlens.vocabulary import OptimizerKind, Role

# Under Adam what is orthogonal to the vector is its gradient, not its step. Within one tensor the
# second moments are alike and the difference is small; between a weight and its bias it is not
# (docs/theory.md §12).
_ADAPTIVE = (
    "scale-invariant only together with {others}, and {optimizer} scales their gradients apart: no "
    "equilibrium is known for the whole"
)


def with_joint_sets(
    groups: ScaleGroups,
    hyper: HyperParameters,
    measured: Collection[str],
    steps: tuple[int, ...],
) -> ScaleGroups:
    """Scale groups that say of each jointly invariant tensor under which name it is measured.

    Args:
        groups: Scale groups.
        hyper: What the trainer used.
        measured: Names of the tensors in the motion tables.
        steps: Steps of the snapshots.
    """
    tensors = dict(groups.tensors)
    for name, tensor in groups.tensors.items():
        if tensor.role is not Role.JOINTLY_SCALE_INVARIANT or tensor is not tensors[name]:
            continue
        members = _members(tensor, groups)
        reason = _why_not(tensor, members, groups, hyper, measured, steps)
        if reason:
            tensors[name] = dataclasses.replace(tensor, not_measured=reason)
            continue
        for member in members:
            tensors[member] = dataclasses.replace(tensors[member], measured_under=members[0])
    return dataclasses.replace(groups, tensors=tensors)


def _members(tensor: TensorSymmetry, groups: ScaleGroups) -> list[str]:
    """The set of a tensor in file order, as far as its members are there."""
    together = {tensor.name, *tensor.joint_with}
    return [name for name in groups.tensors if name in together]


def _why_not(
    tensor: TensorSymmetry,
    members: list[str],
    groups: ScaleGroups,
    hyper: HyperParameters,
    measured: Collection[str],
    steps: tuple[int, ...],
) -> str:
    """Why a set is not measured; empty where it is."""
    together = (tensor.name, *tensor.joint_with)
    absent = [name for name in together if name not in measured or name not in groups.tensors]
    if absent:
        return f"scale-invariant only together with {_listed(absent)}, which is not measured"
    for name in members:
        if {name, *groups.tensors[name].joint_with} != set(together):
            return f"its set overlaps that of {name}, which is measured with others"
    held = [hyper.group_of(name) for name in members]
    first = held[0]
    for name, group in zip(members, held, strict=True):
        if first is None or group is None:
            return f"the parameter group of {members[0] if first is None else name} is not known"
        if group is not first and not _is_one_law(first, group, hyper, steps):
            return (
                f"scale-invariant only together with {_listed(list(tensor.joint_with))}, and "
                f"{members[0]} and {name} are trained with different rates or weight decay"
            )
    if first is not None and first.weight_decay == 0.0 and _are_vectors(members, groups):
        return "no weight decay acts on these gains and biases: no equilibrium exists for them"
    if hyper.optimizer.kind in (OptimizerKind.ADAM, OptimizerKind.ADAMW, OptimizerKind.LION):
        others = _listed(list(tensor.joint_with))
        return _ADAPTIVE.format(others=others, optimizer=hyper.optimizer.kind.value)
    return ""


def _are_vectors(members: list[str], groups: ScaleGroups) -> bool:
    return all(len(groups.tensors[name].shape) < 2 for name in members)


def _is_one_law(
    one: ParamGroup, other: ParamGroup, hyper: HyperParameters, steps: tuple[int, ...]
) -> bool:
    """Whether two parameter groups are known to move their tensors alike throughout."""
    if law_of(hyper.optimizer, one) != law_of(hyper.optimizer, other):
        return False
    a, b = (hyper.rates(hyper.groups.index(g), steps[0], steps[-1]) for g in (one, other))
    return all(
        np.array_equal(x, y) and bool(np.isfinite(x).all()) for x, y in zip(a, b, strict=True)
    )


def joint_angles(
    angles: pl.DataFrame, snapshots: pl.DataFrame, groups: ScaleGroups
) -> pl.DataFrame:
    """Angles between pairs of snapshots with each measured set as one vector.

    Args:
        angles: `motion.records.ANGLE_SCHEMA`, members apart.
        snapshots: `motion.records.SNAPSHOT_SCHEMA`, for the members' norms.
        groups: From `with_joint_sets`. Members of sets that are not measured are left out.
    """
    whole: dict[str, list[pl.DataFrame]] = {}
    for (name,), rows in angles.group_by("tensor", maintain_order=True):
        tensor = groups.tensors[str(name)]
        if tensor.on_sphere or tensor.measured_under:
            whole.setdefault(tensor.measured_under or tensor.name, []).append(rows)
    norms = {
        str(name): rows.get_column("w2").to_numpy()
        for (name,), rows in snapshots.group_by("tensor", maintain_order=True)
    }
    joined = (own[0] if len(own) == 1 else _one_vector(own, norms) for own in whole.values())
    return pl.concat([angles.clear(), *joined])


def _one_vector(members: list[pl.DataFrame], norms: dict[str, NDArray[np.float64]]) -> pl.DataFrame:
    """The members' rows, pair by pair in one order, become the first's."""
    a, b = (members[0].get_column(c).to_numpy() for c in ("snapshot_from", "snapshot_to"))
    w2 = np.array([norms[rows.item(0, "tensor")] for rows in members])
    own = np.array([rows.get_column("angle_rad").to_numpy() for rows in members])
    turned = joint_turn2(w2[:, a], w2[:, b], turn2_from_angle(own))
    return members[0].with_columns(angle_rad=pl.Series(angle_from_turn2(turned)).fill_nan(None))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more
