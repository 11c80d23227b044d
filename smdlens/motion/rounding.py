"""The variance that rounding to the storage dtype leaves: sum of ulp(w)^2 / 12.

Rounding to nearest leaves an error uniform in +-ulp/2, so of variance ulp^2/12 per element. The
ulp of a value is a power of two read off its exponent bits; subnormals and zero have the smallest
one. Exponents of every storage dtype survive the conversion to float64.

It is a noise floor, so a large tensor gives it by a sample: the sampled variance over the sampled
squared norm, times the squared norm. An ulp^2 is the square of its value but for a factor within 4,
so this ratio varies little: by a per cent for Gaussian weights (docs/theory.md, section 13).
"""

from __future__ import annotations

import numpy as np
import torch

from smdlens.motion import lag_sample
from smdlens.motion.geometry import Float, Geometry, Slab
from smdlens.motion.layout import Block
from smdlens.motion.plan import SMALL_TENSOR, TensorPlan
from smdlens.motion.sums import SnapshotSum
from smdlens.motion.tensors import storage_dtype
from smdlens.motion.workspace import Workspace

# Mantissa bits and smallest normal exponent.
_FORMATS: dict[torch.dtype, tuple[int, int]] = {
    torch.float64: (52, -1022),
    torch.float32: (23, -126),
    torch.bfloat16: (7, -126),
    torch.float16: (10, -14),
    torch.float8_e4m3fn: (3, -6),
    torch.float8_e5m2: (2, -14),
}
_EXPONENT = 0x7FF0000000000000
_SAMPLE = 4096
# Sampled weights whose exponents are looked at in one go: 8 MB, and as much twice more meanwhile.
_AT_ONCE = 1 << 20


def sampling_step(numel: int) -> int:
    """Every so-manieth element of a tensor is sampled: a prime that does not divide its size.

    So the sample meets every channel, and every place in a kernel, equally often.
    """
    step = max(numel // _SAMPLE, 1)
    while step > 1 and not (_is_prime(step) and numel % step):
        step += 1
    return step


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % k for k in range(2, int(n**0.5) + 1))


def leading_powers(values: torch.Tensor, stored: torch.dtype) -> torch.Tensor:
    """The power of two at or below the size of each element, or of the smallest normal number.

    Args:
        values: Elements as float64, any shape.
        stored: The dtype they are stored in.

    Returns:
        float64, contiguous, of the same shape; infinite where an element is not finite.
    """
    _, exponent = _FORMATS[stored]
    bits = values.view(torch.int64).bitwise_and(_EXPONENT)
    return bits.view(torch.float64).clamp_(min=2.0**exponent)


def variance_of_power(stored: torch.dtype) -> float:
    """ulp^2 / 12 of a number over the square of its leading power of two."""
    mantissa, _ = _FORMATS[stored]
    return 4.0**-mantissa / 12


class RoundingSample:
    """Keeps sampled weights of alike blocks until their exponents are looked at, all at once.

    Args:
        plan: The tensor.
        blocks: The blocks.
        geometry: Their shape.
        space: Scratch.
    """

    def __init__(
        self,
        plan: TensorPlan,
        blocks: tuple[Block, ...],
        geometry: Geometry,
        space: Workspace,
    ) -> None:
        self._dtypes = [storage_dtype(s.weights.dtype) for s in plan.snapshots]
        self._geometry = geometry
        small = plan.joined is not None or plan.numel <= SMALL_TENSOR
        step = 1 if small else sampling_step(plan.numel)
        self._blocks, self._step = blocks, step
        self._numel = None if plan.joined is not None else plan.numel
        self._places: list[tuple[slice, slice]] = []
        count = 0
        for block in blocks:
            here = slice(-block.low % step, None, step)
            size = len(range(*here.indices(block.size)))
            self._places.append((here, slice(count, count + size)))
            count += size
        snapshots = len(plan.snapshots)
        self._kept = space.buffer("sample", snapshots * count).view(snapshots, count)
        self._has_bad = False
        self._values = self._kept.numpy() if self._kept.device.type == "cpu" else None

    def add(self, block: int, index: int, w: Slab, bad: torch.Tensor | None) -> None:
        """One more block of one snapshot, and which of its weights are not finite."""
        here, place = self._places[block]
        if self._values is not None:
            # Half of what torch takes to copy so little.
            self._values[index, place] = w.values[here]
        else:
            self._kept[index, place].copy_(w.flat[here])
        if bad is not None:
            self._kept[index, place].masked_fill_(bad[here], torch.nan)
            self._has_bad = True

    def room(self, block: int) -> tuple[slice, list[Float]]:
        """Which elements of a block are kept, and where they go for each snapshot; on the CPU."""
        here, place = self._places[block]
        assert self._values is not None, "numpy sees the memory"
        return here, list(self._values[:, place])

    def sample(self) -> Float:
        """The weights that are kept for angles at long lags, [S, slots]; before `summed`."""
        kept = self._kept.cpu().numpy()
        if self._numel is None:
            return kept[:, self._geometry.strided(lag_sample.MOST_KEPT)]
        stride = lag_sample.stride_of(self._numel, self._step)
        out = np.zeros((len(kept), lag_sample.slots_of(self._numel, self._step)))
        for block, (_, here) in zip(self._blocks, self._places, strict=True):
            chosen, slots = lag_sample.places(block, self._step, stride)
            out[:, slots] = kept[:, here][:, chosen]
        return out

    def summed(self, snapshot: Float) -> None:
        """Write the sums into `TensorSums.snapshot`."""
        most = max(_AT_ONCE // max(self._kept.shape[1], 1), 1)
        first = 0
        while first < len(self._dtypes):
            dtype = self._dtypes[first]
            last = first + 1
            while last < min(len(self._dtypes), first + most) and self._dtypes[last] == dtype:
                last += 1
            kept = self._kept[first:last]
            power = leading_powers(kept, dtype)
            if self._has_bad:
                bad = kept.isnan()
                power.masked_fill_(bad, 0.0)
                kept.masked_fill_(bad, 0.0)
            here = snapshot[first:last]
            power2 = self._geometry.square_sums(power)
            here[..., SnapshotSum.ROUND2] = power2 * variance_of_power(dtype)
            here[..., SnapshotSum.SAMPLED] = self._geometry.square_sums(kept)
            first = last
