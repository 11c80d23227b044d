"""The fixed words of smdlens: states, outcomes, roles. Other programs rely on the values."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a tensor's weights do at the end of a stage: physics, never policy."""

    EQUILIBRIUM = "equilibrium"
    LAGGING = "lagging"
    APPROACHING_FROM_ABOVE = "approaching_from_above"
    APPROACHING_FROM_BELOW = "approaching_from_below"
    LEAVING = "leaving"
    PERIODIC = "periodic"
    DIVERGING = "diverging"
    EPSILON_LIMITED = "epsilon_limited"
    FIXED_NORM = "fixed_norm"
    NO_DECAY = "no_decay"
    PURE_DECAY = "pure_decay"
    FROZEN = "frozen"
    UNDETERMINED = "undetermined"


HELD_STATES = frozenset({State.EQUILIBRIUM, State.LAGGING})
NOT_HELD_STATES = frozenset(
    {
        State.APPROACHING_FROM_ABOVE,
        State.APPROACHING_FROM_BELOW,
        State.LEAVING,
        State.PERIODIC,
        State.DIVERGING,
    }
)


class Outcome(StrEnum):
    """What a policy makes of a state."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


class Role(StrEnum):
    """How a tensor takes part in the scale symmetries of the network."""

    SCALE_INVARIANT = "scale_invariant"
    PARTLY_SCALE_INVARIANT = "partly_scale_invariant"
    JOINTLY_SCALE_INVARIANT = "jointly_scale_invariant"
    IRRELEVANT = "irrelevant"
    NOT_SCALE_INVARIANT = "not_scale_invariant"
    UNKNOWN = "unknown"


# Roles whose own motion has an equilibrium. A jointly invariant set has one as a whole only: where
# it is measured as one vector, that stands under its first member's name.
INVARIANT_ROLES = frozenset({Role.SCALE_INVARIANT, Role.PARTLY_SCALE_INVARIANT})


class Granularity(StrEnum):
    """The finest piece of a tensor that can be rescaled on its own."""

    CHANNEL = "channel"
    GROUP = "group"
    HEAD = "head"
    TENSOR = "tensor"


class EvidenceKind(StrEnum):
    """Who says that a tensor has its role."""

    GRAPH = "graph"
    NAMES = "names"
    NUMERIC = "numeric"
    WEIGHTS = "weights"
    DECLARED = "declared"


class Method(StrEnum):
    """Where an interval's one-step angle comes from (docs/theory.md §2 to §7)."""

    ADJACENT = "adjacent"
    OPTIMIZER_STATE = "optimizer_state"
    NORM_BALANCE = "norm_balance"


class OptimizerKind(StrEnum):
    """Update rules smdlens has formulas for; `other` is recognised but has none."""

    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"
    LION = "lion"
    OTHER = "other"
    UNKNOWN = "unknown"


class SkipReason(StrEnum):
    """Why a file of the run is not part of the series."""

    UNFINISHED = "unfinished"
    DUPLICATE_STEP = "duplicate_step"
    BEST_OR_LAST_COPY = "best_or_last_copy"
    UNREADABLE = "unreadable"
    DIFFERENT_TENSORS = "different_tensors"
    NOT_A_CHECKPOINT = "not_a_checkpoint"
    AVERAGED = "averaged"


class Slot(StrEnum):
    """Optimizer buffers under one name, whatever the framework calls them."""

    MOMENTUM = "momentum"
    FIRST_MOMENT = "first_moment"
    SECOND_MOMENT = "second_moment"
    MAX_SECOND_MOMENT = "max_second_moment"
