"""What the radial part of the gradient says about each tensor's role, held against the answer.

kappa = <g, w> / |w|^2 vanishes for a scale-invariant tensor. Gradients of single updates show it
exactly (docs/theory.md §14), momentum buffers in the mean of many snapshots (§12).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.gradient_table import RadialTest, radial_test
from smdlens.diagnosis.measure_group import GroupMeasurement
from smdlens.diagnosis.radial import radial_ratio
from smdlens.diagnosis.records import Finding
from smdlens.diagnosis.unit_gradients import ExactGradients
from smdlens.symmetry.records import Evidence, ScaleGroups, TensorSymmetry
from smdlens.vocabulary import EvidenceKind, Outcome, Role

Array = NDArray[np.float64]

# One buffer's reading scatters by 0.1 or so: this many make a mean worth having.
_READINGS = 10
# Scale-invariant convolutions stay within 0.1 of the decay, classifiers lie beyond 0.2.
_NO_RADIAL = 0.15
# Roles whose tensors are free to have a radial gradient. A jointly invariant set as a whole has
# none, its members may; an irrelevant tensor has no gradient at all.
_FREE = frozenset({Role.NOT_SCALE_INVARIANT, Role.UNKNOWN})
# Gradients that follow the leak this closely differ from it by a factor only.
_SAME_CAUSE = 0.95
_OTHER_EPSILON = 1.5


@dataclass(frozen=True, slots=True)
class RadialReading:
    """What is known of one tensor's radial gradient.

    Attributes:
        exact: The test on gradients of single updates, None without any.
        epsilon_factor: Epsilon that the radial part would need over the one assumed; NaN where the
            leak is not its cause.
        ratio: Mean kappa over the weight decay from buffers, leak taken off; NaN without.
        error: Its standard error.
        readings: How many snapshots it rests on.
    """

    exact: RadialTest | None
    epsilon_factor: float
    ratio: float
    error: float
    readings: int

    @property
    def invariant(self) -> bool | None:
        """What the weights say; None where they do not say."""
        if self.exact is not None:
            return self.exact.holds
        if self.readings >= _READINGS and abs(self.ratio) + 2.0 * self.error < _NO_RADIAL:
            return True
        return None

    @property
    def words(self) -> str:
        """The reading with its numbers."""
        if self.exact is not None:
            return (
                f"cosine of gradient and weights {self.exact.cosine:.2g} over {self.exact.updates} "
                f"updates; a random direction shows {self.exact.random:.2g}"
            )
        return (
            f"radial part of the gradient {self.ratio:+.2f} ± {self.error:.2f} of the weight decay "
            f"over {self.readings} snapshots"
        )


def radial_readings(
    measured: Sequence[GroupMeasurement], gradients: Sequence[ExactGradients]
) -> dict[str, RadialReading]:
    """Readings by tensor name, for tensors of which anything is known."""
    found: dict[str, RadialReading] = {}
    for part, exact in zip(measured, gradients, strict=True):
        ratios = radial_ratio(part) - part.ratios.kappa_ratio
        # A frozen tensor keeps the buffer it had; the first interval begins without one.
        ratios = np.where(part.steps.angle == 0.0, np.nan, ratios)[:, 1:]
        every = np.arange(exact.radial.shape[1])
        # Readings within the buffer's memory are one reading.
        momentum = 0.0 if part.law is None else part.law.momentum
        gap = float(np.mean(part.tracks.lengths)) if len(part.tracks.lengths) else 0.0
        fresh = min(1.0, gap * (1.0 - momentum) / 2.0)
        for row, name in enumerate(part.tracks.tensors):
            test = radial_test(part, exact, row, every)
            own = ratios[row][np.isfinite(ratios[row])]
            if test is not None or len(own):
                count = int(len(own) * fresh)
                found[name] = RadialReading(
                    test,
                    _epsilon_factor(exact, row),
                    float(own.mean()) if count else np.nan,
                    float(own.std() / np.sqrt(count)) if count else np.nan,
                    count,
                )
    return found


def _epsilon_factor(exact: ExactGradients, row: int) -> float:
    """Slope of the radial part over the leak, where the two go together."""
    known = np.isfinite(exact.radial[row])
    radial, leaked = exact.radial[row, known], exact.leaked[row, known]
    both = float(radial @ leaked)
    if both <= _SAME_CAUSE * float(np.linalg.norm(radial) * np.linalg.norm(leaked)) or both == 0.0:
        return np.nan
    return both / float(leaked @ leaked)


def with_radial_evidence(groups: ScaleGroups, readings: dict[str, RadialReading]) -> ScaleGroups:
    """Scale groups with what the gradients say among the evidence; no role changes by it."""
    return dataclasses.replace(
        groups,
        tensors={
            name: _with_evidence(tensor, readings.get(name))
            for name, tensor in groups.tensors.items()
        },
    )


def _with_evidence(tensor: TensorSymmetry, reading: RadialReading | None) -> TensorSymmetry:
    if reading is None or (reading.exact is None and reading.readings < _READINGS):
        return tensor
    detail = Evidence(EvidenceKind.WEIGHTS, reading.words)
    return dataclasses.replace(tensor, evidence=(*tensor.evidence, detail))


def radial_findings(
    groups: ScaleGroups,
    readings: dict[str, RadialReading],
    epsilon: float,
    explained: Collection[str] = (),
) -> Iterator[Finding]:
    """Tensors whose gradients disagree with the answer.

    Args:
        groups: The answer and who gave it.
        readings: What the gradients say.
        epsilon: The normalisation's epsilon as assumed.
        explained: Tensors of which something else is wrong already.
    """
    for name, reading in readings.items():
        tensor = groups.tensors.get(name)
        if tensor is None or name in explained:
            continue
        if tensor.role in _FREE and len(tensor.shape) >= 2 and reading.invariant:
            yield Finding(
                "SMD050",
                Outcome.WARN,
                name,
                f"its gradient has no radial part, as if it were scale-invariant, though "
                f"{groups.source} did not find it so: {reading.words}",
                "If a normalisation follows it, give the network with --model or --graph.",
            )
        elif tensor.on_sphere and reading.invariant is False:
            yield _not_orthogonal(name, reading, groups.source, epsilon)


def _not_orthogonal(name: str, reading: RadialReading, source: str, epsilon: float) -> Finding:
    factor = reading.epsilon_factor
    if np.isfinite(factor) and factor > _OTHER_EPSILON:
        return Finding(
            "SMD051",
            Outcome.WARN,
            name,
            "its gradients are not quite at right angles to it, as if the normalisation's epsilon "
            f"were {factor * epsilon:.1g}, not {epsilon:g}: {reading.words}",
            "Give the network's own with --epsilon; training with a smaller one restores symmetry.",
        )
    return Finding(
        "SMD051",
        Outcome.WARN,
        name,
        f"its gradients are not at right angles to it, which scale invariance ({source}) demands: "
        f"{reading.words}",
        "Check that these checkpoints and the network belong together, and for a penalty on the "
        "weights beside the weight decay.",
    )
