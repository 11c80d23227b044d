"""Which tensors live on a sphere, at which granularity, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from smdlens.vocabulary import INVARIANT_ROLES, EvidenceKind, Granularity, Role


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reason for a role."""

    kind: EvidenceKind
    detail: str


@dataclass(frozen=True, slots=True)
class NormBehind:
    """The normalisation that makes a tensor scale-invariant, by tensor name.

    `kind` is "batch_norm" where running statistics exist. Names are None where absent.
    """

    kind: str
    gamma: str | None
    beta: str | None
    running_var: str | None


@dataclass(frozen=True, slots=True)
class TensorPart:
    """A range of output indices of a fused tensor with a role of its own."""

    index_from: int
    index_to: int
    role: Role
    granularity: Granularity | None


@dataclass(frozen=True, slots=True)
class TensorSymmetry:
    """The answer for one tensor.

    Attributes:
        axis: Output-channel axis, None where there is none.
        groups: Number of independently rescalable pieces (channels, heads ... or 1).
        joint_with: Other members of a jointly invariant set.
        norm: The normalisation behind it, if one is known.
        clock: True where the sum over the output axis (or the tensor itself) gets no gradient and
            decays as x1^n: a softmax classifier, a bias in front of batch norm (docs/theory.md §3).
        measured_under: First member of the jointly invariant set that is measured as one vector
            with this tensor in it; the vector's motion stands under that name. None elsewhere.
        not_measured: Why a jointly invariant set is not measured as one vector.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: Role
    granularity: Granularity | None
    axis: int | None
    groups: int
    evidence: tuple[Evidence, ...]
    parts: tuple[TensorPart, ...] = ()
    joint_with: tuple[str, ...] = ()
    norm: NormBehind | None = None
    clock: bool = False
    measured_under: str | None = None
    not_measured: str | None = None

    @property
    def on_sphere(self) -> bool:
        """Whether the motion under its name is that of a vector on a sphere."""
        return self.role in INVARIANT_ROLES or self.measured_under == self.name


@dataclass(frozen=True, slots=True)
class ScaleGroups:
    """Every parameter of the run with its role, in file order; `source` says who found them.

    `witnesses` are clocks that --include leaves out of the report: they are measured all the same,
    since they place cuts and check rates.
    """

    tensors: Mapping[str, TensorSymmetry]
    source: str
    witnesses: Mapping[str, TensorSymmetry] = field(default_factory=dict)

    @property
    def unmeasured_sets(self) -> tuple[TensorSymmetry, ...]:
        """Members of jointly invariant sets that no vector is measured for."""
        jointly = Role.JOINTLY_SCALE_INVARIANT
        return tuple(t for t in self.tensors.values() if t.role is jointly and t.not_measured)

    @property
    def measured(self) -> ScaleGroups:
        """The same with the witnesses among the tensors."""
        return ScaleGroups({**self.tensors, **self.witnesses}, self.source)
