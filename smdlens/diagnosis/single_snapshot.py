"""What one checkpoint alone can say: the angle of the update that made it."""

from __future__ import annotations

import numpy as np

from smdlens.diagnosis.joint_sets import with_joint_sets
from smdlens.diagnosis.tracks import measured_names, tracks_of
from smdlens.diagnosis.update_rule import law_of
from smdlens.hyper.optimizer import number
from smdlens.hyper.records import HyperParameters
from smdlens.motion.records import Motion
from smdlens.snapshots.records import SnapshotSeries
from smdlens.symmetry.records import ScaleGroups
from smdlens.theory.angles import angle_from_turn2
from smdlens.theory.buffers import last_step_angle
from smdlens.theory.moments import steady_state


def describe_last_step(
    series: SnapshotSeries,
    motion: Motion,
    hyper: HyperParameters,
    groups: ScaleGroups,
    declared_lr: float | None = None,
) -> str | None:
    """The last update's angle over the invariant tensors in words, or None if nothing shows it.

    Exact where momentum buffers or Adam's moments are saved and the saved rate is the one that made
    the step (docs/theory.md §3); not for Nesterov.

    Args:
        series: One snapshot.
        motion: Its sums.
        hyper: The update rule and the groups.
        groups: Scale groups.
        declared_lr: The rate that made the update, where the user says so.
    """
    record = series.snapshots[0].optimizer
    if record is None:
        return None
    groups = with_joint_sets(groups, hyper, measured_names(motion), series.steps)
    tracks = tracks_of(motion, series.steps, groups.measured)
    angles: list[float] = []
    shares: list[float] = []
    for row, name in enumerate(tracks.tensors):
        group = hyper.group_of(name)
        law = None if group is None else law_of(hyper.optimizer, group)
        if group is None or law is None or law.rule is None or law.rule.q != 0.0:
            continue
        values = record.groups[group.index].values
        lr, decay = declared_lr or number(values, "lr"), group.weight_decay
        cross, square = ("wu", "u2") if law.adaptive else ("wv", "v2")
        sums = [tracks.at[column][row, 0] for column in ("w2", cross, square)]
        if not groups.measured.tensors[name].on_sphere or not lr or not np.isfinite(sums).all():
            continue
        angles.append(float(last_step_angle(sums[0], sums[1], sums[2], lr)))
        if decay and not law.is_l2_adam:
            coupled, decoupled = (0.0, decay) if law.decoupled else (decay, 0.0)
            expected = angle_from_turn2(steady_state(law.rule, lr, coupled, decoupled).turn2)
            shares.append(angles[-1] / float(expected))
    if not angles:
        return None
    text = (
        f"its last update turned the {len(angles)} scale-invariant tensors by "
        f"{np.median(angles):.3g} rad (median)"
    )
    if shares:
        text += f", {np.median(shares):.2f} of the equilibrium angle"
    if declared_lr is None:
        text += ", if its saved learning rate made that update and is not already the next one"
    return text
