"""One table, operator -> rule; each file enters its own. What is in none gets the sound default."""

from smdlens.symmetry.rules import (
    algebra,
    assembly,
    attention,
    contract,
    movement,
    normalise,
    reduce,
    regrouping,
)
from smdlens.symmetry.rules.call import RULES, Call, NotCovered, Result, sound_default

__all__ = [
    "RULES",
    "Call",
    "NotCovered",
    "Result",
    "algebra",
    "assembly",
    "attention",
    "contract",
    "movement",
    "normalise",
    "reduce",
    "regrouping",
    "sound_default",
]
