"""How much batch norm's epsilon leaks out of scale invariance, from what the checkpoints hold.

With y = gamma (x - mu) / sqrt(var + eps), exactly <w_c, g_c> = f_c gamma_c dL/dgamma_c with
f_c = eps / (var_c + eps) per output channel c; the mean of dL/dgamma over an interval follows from
gamma's own motion and momentum buffer (derived in docs/theory.md). Here only the sums over
channels are taken; rates enter later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.motion.files import FilePool
from smdlens.motion.tensors import load
from smdlens.snapshots.records import MEASURED_DTYPES, Snapshot, TensorRef
from smdlens.symmetry.records import NormBehind
from smdlens.vocabulary import Slot

Float = NDArray[np.float64]
LEAK_COLUMNS = (
    "leak_shift",
    "leak_buffer",
    "leak_gamma",
    "leak_buffer_from",
    "leak_buffer_to",
    "eps_fraction",
)


@dataclass(frozen=True, slots=True)
class NormValues:
    """One snapshot of a normalisation, float64 [channels] each; None where it is not saved.

    The buffer is the gain's momentum, or Adam's first moment of it.
    """

    variance: Float | None
    gamma: Float | None
    buffer: Float | None


def norm_values(snapshot: Snapshot, norm: NormBehind, channels: int, pool: FilePool) -> NormValues:
    """Read the normalisation behind a tensor of `channels` output channels from one snapshot."""
    slots = snapshot.optimizer.slots if snapshot.optimizer else {}
    gamma = norm.gamma or ""
    buffers = slots.get(gamma, {})
    return NormValues(
        _vector(snapshot.tensors.get(norm.running_var or ""), channels, pool),
        _vector(snapshot.tensors.get(gamma), channels, pool),
        _vector(buffers.get(Slot.MOMENTUM, buffers.get(Slot.FIRST_MOMENT)), channels, pool),
    )


def leak_sums(a: NormValues, b: NormValues, w2_a: Float, w2_b: Float, eps: float) -> Float:
    """The six `LEAK_COLUMNS` of one pair of neighbours; NaN where something is not saved.

    Args:
        a: The normalisation at the start.
        b: The same at the end.
        w2_a: |w_c|^2 at the start, [channels].
        w2_b: The same at the end.
        eps: The normalisation's epsilon.

    Returns:
        With F_c = f_c gamma_c averaged over both ends: sum F (gamma_a - gamma_b),
        sum F (buffer_b - buffer_a), sum F (gamma_a + gamma_b) / 2, sum F buffer_a,
        sum F buffer_b; and the mean over both ends of sum f |w_c|^2 / sum |w_c|^2.
    """
    out = np.full(len(LEAK_COLUMNS), np.nan)
    if a.variance is None or b.variance is None:
        return out
    f_a, f_b = eps / (a.variance + eps), eps / (b.variance + eps)
    if w2_a.sum() > 0 and w2_b.sum() > 0:
        out[5] = (f_a @ w2_a / w2_a.sum() + f_b @ w2_b / w2_b.sum()) / 2
    if a.gamma is None or b.gamma is None:
        return out
    weight = (f_a * a.gamma + f_b * b.gamma) / 2
    out[0] = weight @ (a.gamma - b.gamma)
    out[2] = weight @ (a.gamma + b.gamma) / 2
    if a.buffer is not None:
        out[3] = weight @ a.buffer
    if b.buffer is not None:
        out[4] = weight @ b.buffer
    if a.buffer is not None and b.buffer is not None:
        out[1] = weight @ (b.buffer - a.buffer)
    return out


def _vector(ref: TensorRef | None, length: int, pool: FilePool) -> Float | None:
    if ref is None or ref.numel != length or ref.dtype not in MEASURED_DTYPES:
        return None
    values: Float = load(ref, pool).double().reshape(-1).numpy()
    return values
