"""Which weights trainers usually leave without decay, where an optimizer's groups have no names.

Two groups, one with and one without decay, are how Trainer and many loops split a model. Each known
rule splits the names; a split counts only where both groups then have exactly the shapes of their
buffers, and where no other rule gives another split that fits as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

Shape = tuple[int, ...]
_Rule = Callable[[str, Shape, frozenset[str]], bool]

# Hugging Face Trainer since 4.4x: by name.
_TRAINER = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")


def _vectors(name: str, shape: Shape, statistics: frozenset[str]) -> bool:
    return len(shape) < 2


def _trainer_names(name: str, shape: Shape, statistics: frozenset[str]) -> bool:
    return _TRAINER.search(name.lower()) is not None


def _layer_norms(name: str, shape: Shape, statistics: frozenset[str]) -> bool:
    """Biases and layer norms; a norm that has running statistics is a batch norm."""
    module = name.rpartition(".")[0]
    return "bias" in name or (len(shape) < 2 and module not in statistics)


def _trainer_both(name: str, shape: Shape, statistics: frozenset[str]) -> bool:
    return _trainer_names(name, shape, statistics) or _layer_norms(name, shape, statistics)


_RULES: tuple[_Rule, ...] = (_vectors, _trainer_names, _layer_norms, _trainer_both)


def splits(
    parameters: Mapping[str, Shape], statistics: frozenset[str]
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(names with decay, names without) under each rule, every split once.

    Args:
        parameters: Name -> shape of every parameter.
        statistics: Modules that keep running statistics.
    """
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], None] = {}
    for rule in _RULES:
        without = tuple(n for n, shape in parameters.items() if rule(n, shape, statistics))
        left = frozenset(without)
        found[(tuple(n for n in parameters if n not in left), without)] = None
    return list(found)


def split_by_rule(
    wanted: Sequence[Counter[Shape]], parameters: Mapping[str, Shape], statistics: frozenset[str]
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Names of two groups, if the usual rules leave exactly one possibility.

    Args:
        wanted: Shapes of each group's buffers.
        parameters: Name -> shape of every parameter.
        statistics: Modules that keep running statistics.
    """
    if len(wanted) != 2:
        return None
    fitting = [
        split
        for decayed, without in splits(parameters, statistics)
        for split in ((without, decayed), (decayed, without))
        if [Counter(parameters[n] for n in names) for names in split] == list(wanted)
    ]
    return fitting[0] if len(fitting) == 1 else None
