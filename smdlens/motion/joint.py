"""Rows of a jointly invariant set: its members' sums become those of one concatenated vector.

Members that the network can only rescale together live on one sphere as one long vector. Every sum
over elements adds; only the chord needs thought, since each member's was taken at a ratio
c_i = |b_i| / |a_i| of its own (derived in docs/theory.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

# What is left out belongs to one tensor and no other (its clock, the quantiles of its channels), or
# to Adam, under which no set is measured.
_ADDED_AT = ("w2", "round2", "nonfinite", "wv", "v2")
_ADDED_BETWEEN = ("dot", "grad2", "grad_w", "grad_v")


def joint_at(at: Mapping[str, Float]) -> dict[str, Float]:
    """Snapshot columns of the set, [S] each.

    Args:
        at: Column of `SNAPSHOT_SCHEMA` -> its members' values, [members, S]; NaN where not known.
    """
    found = {name: np.full(values.shape[1], np.nan) for name, values in at.items()}
    return found | {name: at[name].sum(axis=0) for name in _ADDED_AT}


def joint_between(between: Mapping[str, Float], w2: Float) -> dict[str, Float]:
    """Pair columns of the set, [P] each.

    Args:
        between: Column of `PAIR_SCHEMA` -> its members' values, [members, P]; NaN where not known.
        w2: |w|^2 of the members, [members, P + 1].
    """
    found = {name: np.full(values.shape[1], np.nan) for name, values in between.items()}
    found |= {name: between[name].sum(axis=0) for name in _ADDED_BETWEEN}
    found["chord2"] = joint_chord2(w2[:, :-1], w2[:, 1:], between["chord2"])
    return found


def joint_chord2(a2: Float, b2: Float, chord2: Float) -> Float:
    """|b - c a|^2 of the concatenated vectors, c = |b| / |a|, [P].

    With c_i = |b_i| / |a_i| and |b_i - c_i a_i|^2 = -2 c_i <b_i - c_i a_i, a_i>, moving each
    member from its own ratio to the common one leaves a sum of terms that are none negative:

        |b - c a|^2 = sum_i (c / c_i) |b_i - c_i a_i|^2 + (c - c_i)^2 |a_i|^2

    A member that is zero at one end counts by what it is at the other.

    Args:
        a2: |a_i|^2, [members, P].
        b2: |b_i|^2.
        chord2: |b_i - c_i a_i|^2; NaN where a member is zero at either end.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        c = np.sqrt(b2.sum(axis=0) / a2.sum(axis=0))
        own = np.sqrt(b2 / a2)
        moved = c / own * chord2 + np.square(c - own) * a2
    terms = np.where(a2 == 0.0, b2, np.where(b2 == 0.0, c * c * a2, moved))
    total: Float = terms.sum(axis=0)
    return total


def joint_turn2(a2: Float, b2: Float, turn2: Float) -> Float:
    """2 (1 - cos) between the concatenated vectors a and b from their members', [P].

    |b/|b| - a/|a||^2 = sum_i (v_i - u_i)^2 + u_i v_i turn2_i, u_i = |a_i| / |a|, v_i = |b_i| / |b|.

    Args:
        a2: |a_i|^2, [members, P].
        b2: |b_i|^2.
        turn2: 2 (1 - cos) of each member; not looked at where it is zero at either end.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = np.sqrt(a2 / a2.sum(axis=0)), np.sqrt(b2 / b2.sum(axis=0))
    turned = np.where(u * v > 0.0, u * v * turn2, 0.0)
    total: Float = (np.square(v - u) + turned).sum(axis=0)
    return total
