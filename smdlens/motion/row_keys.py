"""What each row of the motion tables depends on, as a key: the same key, the same numbers.

A key covers the content and place of every byte that enters the row, how they are summed, and the
hyper-parameters inside the sums. Steps are no part of it: they are written beside the sums later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np
import torch

from smdlens.motion.device import Device
from smdlens.motion.plan import SnapshotSources
from smdlens.motion.select import Selected
from smdlens.snapshots.records import Snapshot, TensorRef
from smdlens.vocabulary import Role, Slot

# Raised whenever a kernel, a block or a merge gives other numbers than before.
KERNELS = 8
Fingerprint = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class RowKeys:
    """Keys of one tensor: a snapshot row each, a pair row each."""

    snapshots: tuple[str, ...]
    pairs: tuple[str, ...]


def row_keys(
    selected: Selected,
    snapshots: tuple[Snapshot, ...],
    epsilon: float,
    device: Device,
    fingerprint: Fingerprint,
) -> RowKeys:
    """Keys of a tensor's rows.

    Args:
        selected: The tensor through all snapshots.
        snapshots: The snapshots.
        epsilon: The normalisation's epsilon.
        device: Where the sums are made.
        fingerprint: Content of a file by its path.
    """
    recipe = _recipe(selected, device)
    at = tuple(_key(recipe, _sources(s, fingerprint)) for s in selected.plan.snapshots)
    norm = selected.symmetry.norm
    behind: list[object] = [None] * len(at)
    if norm is not None and norm.running_var is not None:
        names = norm.running_var, norm.gamma
        behind = [(epsilon, _norm(s, names, fingerprint)) for s in snapshots]
    return RowKeys(
        at,
        tuple(
            _key("pair", at[i], at[i + 1], rule, behind[i], behind[i + 1])
            for i, rule in enumerate(selected.plan.gradients)
        ),
    )


def gram_key(
    selected: Selected, at: tuple[int, ...], device: Device, fingerprint: Fingerprint
) -> str:
    """Key of the angles between any two of a tensor's snapshots `at`."""
    weights = [_source(selected.plan.snapshots[k].weights, fingerprint) for k in at]
    return _key("gram", _recipe(selected, device), weights)


def content_key(ref: TensorRef, fingerprint: Fingerprint) -> str:
    """Key of the bytes of one stored tensor."""
    return _key("content", _source(ref, fingerprint))


def _recipe(selected: Selected, device: Device) -> str:
    plan = selected.plan
    return _key(
        KERNELS,
        torch.__version__,
        np.__version__,
        device.torch_device.type,
        device.block_elements,
        plan.layout,
        plan.gathered,
        plan.clock,
        selected.symmetry.groups,
        selected.symmetry.role == Role.IRRELEVANT,
        selected.sampled,
    )


def _sources(sources: SnapshotSources, fingerprint: Fingerprint) -> object:
    adam = sources.adam
    return (
        _source(sources.weights, fingerprint),
        sources.momentum and _source(sources.momentum, fingerprint),
        adam
        and (
            _source(adam.first, fingerprint),
            _source(adam.second, fingerprint),
            adam.bias1,
            adam.bias2,
            adam.eps,
        ),
    )


def _source(source: TensorRef, fingerprint: Fingerprint) -> object:
    pieces = tuple(
        (fingerprint(e.path), e.offset, e.nbytes, e.packed and astuple(e.packed))
        for e in source.extents
    )
    gather = source.strides and (source.shape, source.strides)
    return pieces, source.dtype, gather, source.scale


def _norm(
    snapshot: Snapshot, names: tuple[str | None, str | None], fingerprint: Fingerprint
) -> object:
    slots = snapshot.optimizer.slots if snapshot.optimizer else {}
    variance, gamma = (snapshot.tensors.get(name or "") for name in names)
    buffers = slots.get(names[1] or "", {})
    buffer = buffers.get(Slot.MOMENTUM, buffers.get(Slot.FIRST_MOMENT))
    return tuple(ref and _source(ref, fingerprint) for ref in (variance, gamma, buffer))


def _key(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
