"""Neighbouring intervals measured as one where each alone is too short for its norms to tell.

A norm that moved by less than its boundary terms, or than rounding to the storage dtype, says
nothing of its own interval; the norms at the ends of several do. Clipping each alone at zero would
also leave their mean too large.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from smdlens.diagnosis.error_terms import follows_jump, holds_jump, storage_error
from smdlens.diagnosis.estimate import Ratios, bounds
from smdlens.diagnosis.leak import Leak
from smdlens.diagnosis.one_step import OneStep
from smdlens.diagnosis.rates import IntervalRates
from smdlens.diagnosis.tracks import Tracks
from smdlens.diagnosis.update_rule import Law
from smdlens.theory.uncertainty import momentum_factor
from smdlens.vocabulary import Method

Array = NDArray[np.float64]
Blocks = list[NDArray[np.intp]]
Found = tuple[OneStep, Array, Ratios]
Measure = Callable[[Tracks, Law, IntervalRates, Leak], Found]

# Intervals are merged until boundary terms make 5% of the squared ratio, and rounding 0.2 of it.
_UPDATES_PER_FACTOR = 20.0
_STORAGE = 0.2

# What the leak needs of a longer interval: sums over it, or what its first or last one holds.
_SUMS = ("leak_shift", "leak_buffer")
_FIRST, _LAST = ("leak_buffer_from",), ("leak_buffer_to",)
_MEANS = ("leak_gamma", "eps_fraction")


def with_short_intervals_merged(
    found: Found, tracks: Tracks, law: Law, rates: IntervalRates, leak: Leak, measure: Measure
) -> Found:
    """Replaces what intervals too short for their norms say by what several of them say together.

    Angles of single updates stay. Where boundary terms were saved, and are no part of the error,
    only rounding asks for longer intervals.

    Args:
        found: Every interval measured alone.
        tracks: The tensors.
        law: Theory of their optimizer.
        rates: Recorded rates.
        leak: Epsilon leak.
        measure: Measures intervals.
    """
    steps = found[0]
    storage = storage_error(tracks, law, rates) * rates.lengths
    rounding = storage[np.isfinite(storage) & rates.known]
    needed = float(np.median(rounding)) / _STORAGE if len(rounding) else 0.0
    by_norms = steps.method == Method.NORM_BALANCE.value
    if by_norms.mean() > 0.5:
        needed = max(needed, _UPDATES_PER_FACTOR * float(momentum_factor(law.momentum)))
    blocks = blocks_of(rates, holds_jump(rates) | follows_jump(rates), needed)
    if len(blocks) == len(rates.lengths):
        return found
    own = owner_of(blocks)
    longer = measure(
        merged_tracks(tracks, blocks),
        law,
        merged_rates(rates, blocks),
        leak.over(blocks, rates.lengths),
    )
    shape = _steady_shape(tracks, law, rates, blocks)
    return _spread(found, longer, own, law, rates, storage / rates.lengths, shape)


def _steady_shape(tracks: Tracks, law: Law, rates: IntervalRates, blocks: Blocks) -> Array:
    """Squared angle of each interval over that of its block, the unit gradient steady, [T, I].

    A step is the rate times what gradients left in the buffer; gradients go as 1 / |w| (SGD).
    """
    power = 1.0 if law.adaptive else 2.0
    w2, n = tracks.at["w2"], np.maximum(rates.count, 1)
    square = np.broadcast_to((rates.lr**2).sum(axis=0) / n, (len(w2), len(n))).copy()
    for block in blocks:
        # Norms of single intervals are too noisy: those at the ends of the block, and between.
        middle = (tracks.steps[block] + tracks.steps[block + 1]) / 2.0
        along = (middle - tracks.steps[block[0]]) / tracks.lengths[block].sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            growth = np.log(w2[:, block[-1] + 1] / w2[:, block[0]])[:, None]
            square[:, block] *= np.exp(-power * growth * along)
            square[:, block] /= np.average(square[:, block], weights=n[block], axis=1)[:, None]
    return square


def _spread(
    found: Found,
    longer: Found,
    own: NDArray[np.intp],
    law: Law,
    rates: IntervalRates,
    storage: Array,
    shape: Array,
) -> Found:
    """What a block says given to each of its intervals, which scatter around it."""
    steps, expected, ratios = found
    block_steps, block_expected, block = longer
    several = np.bincount(own)[own] > 1
    with np.errstate(divide="ignore", invalid="ignore"):
        part = shape * block_expected[:, own] / expected
        blurred = storage > (block.sigma[:, own] * part)
    better = blurred | (steps.method == Method.NORM_BALANCE.value)
    single = (rates.lengths == 1) & (steps.method != Method.NORM_BALANCE.value)
    take = several & np.isfinite(block.q[:, own]) & better & ~single
    q = block.q[:, own] * part
    # |v|^2 is a mean over (1 + a^2) / (1 - a^2) updates already.
    memory = (1.0 + law.momentum**2) / (1.0 - law.momentum**2)
    whole = np.bincount(own, weights=rates.lengths)[own]
    spread = 1.0 / (rates.lengths + memory - 1.0) - 1.0 / (whole + memory - 1.0)
    # The boundary terms hold Student's factor for a scatter that few intervals show: half of it
    # here, in logarithms, where the interval's own draw is the larger part.
    k = float(momentum_factor(law.momentum))
    scatter = block.scatter if k == 0.0 else np.sqrt(block.scatter * block.boundary / k)
    sigma = np.hypot(block.sigma[:, own] * part, scatter[:, None] * q * np.sqrt(spread))

    def choose(theirs: Array, alone: Array) -> Array:
        return np.where(take, theirs, alone)

    new_steps = dataclasses.replace(
        steps,
        turn2=choose(q * expected, steps.turn2),
        method=np.where(take, Method.NORM_BALANCE.value, steps.method),
        drive=choose(block_steps.drive[:, own], steps.drive),
        unit_gradient2=choose(block_steps.unit_gradient2[:, own], steps.unit_gradient2),
        unclosed=choose(block_steps.unclosed[:, own], steps.unclosed),
        below=np.where(take, block_steps.below[:, own], steps.below),
        with_state=np.where(take, block_steps.with_state[:, own], steps.with_state),
    )
    shared = np.sqrt(whole / rates.lengths)
    bias = choose(block.bias_low[:, own], ratios.bias_low)
    chosen = choose(q, ratios.q)
    error = choose(sigma, ratios.sigma)
    low, high = bounds(chosen, error, bias)
    return (
        new_steps,
        expected,
        dataclasses.replace(
            ratios,
            q=chosen,
            low=low,
            high=high,
            sigma=error,
            systematic=choose(block.systematic[:, own] * part, ratios.systematic),
            # The intervals of a block share one draw: pooled, they must not seem several.
            independent=choose(block.independent[:, own] * part * shared, ratios.independent),
            leak_error=choose(block.leak_error[:, own], ratios.leak_error),
            bias_low=bias,
            boundary=np.where(take.any(axis=1), block.boundary, ratios.boundary),
            scatter=np.where(take.any(axis=1), block.scatter, ratios.scatter),
        ),
    )


def blocks_of(rates: IntervalRates, breaks: NDArray[np.bool_], needed: float) -> Blocks:
    """Runs of intervals of at least `needed` updates together, where there are so many.

    Intervals that hold or follow a jump, or whose rates are unknown, stay alone.
    """
    alone = breaks | ~rates.known
    blocks: Blocks = []
    run: list[int] = []
    for i in range(len(alone) + 1):
        if i < len(alone) and not alone[i]:
            run.append(i)
            continue
        blocks += _cut(run, rates.lengths, needed)
        run = []
        if i < len(alone):
            blocks.append(np.array([i], dtype=np.intp))
    return blocks


def _cut(run: list[int], lengths: NDArray[np.int64], needed: float) -> Blocks:
    parts: list[list[int]] = [[]]
    for i in run:
        if parts[-1] and lengths[parts[-1]].sum() >= needed:
            parts.append([])
        parts[-1].append(i)
    if len(parts) > 1 and lengths[parts[-1]].sum() < needed:
        rest = parts.pop()
        parts[-1] += rest
    return [np.array(part, dtype=np.intp) for part in parts if part]


def owner_of(blocks: Blocks) -> NDArray[np.intp]:
    """Block of each interval, [I]."""
    return np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])


def merged_tracks(tracks: Tracks, blocks: Blocks) -> Tracks:
    """The tracks as if only the snapshots at the ends of blocks had been saved.

    What only neighbouring snapshots show (angles, the norm weighted by Adam's moments) is NaN.
    """
    ends = np.array([block[0] for block in blocks] + [blocks[-1][-1] + 1])
    between = {name: np.full((len(tracks.tensors), len(blocks)), np.nan) for name in tracks.between}
    for at, block in enumerate(blocks):
        weight = tracks.lengths[block] / tracks.lengths[block].sum()
        for name in _SUMS:
            between[name][:, at] = tracks.between[name][:, block].sum(axis=1)
        for name in _MEANS:
            between[name][:, at] = (tracks.between[name][:, block] * weight).sum(axis=1)
        for names, end in ((_FIRST, 0), (_LAST, -1)):
            for name in names:
                between[name][:, at] = tracks.between[name][:, block[end]]
    return Tracks(
        tracks.tensors,
        tracks.steps[ends],
        {name: values[:, ends] for name, values in tracks.at.items()},
        between,
        tracks.numel,
        tracks.by_updates,
    )


def merged_rates(rates: IntervalRates, blocks: Blocks) -> IntervalRates:
    """The rates of the intervals of each block, one after the other."""
    lengths = np.array([rates.lengths[block].sum() for block in blocks])
    count = np.array([rates.count[block].sum() for block in blocks])
    lr, decay = (np.zeros((int(lengths.max()), len(blocks))) for _ in range(2))
    for at, block in enumerate(blocks):
        edges = np.concatenate([[0], rates.count[block].cumsum()])
        for i, (low, high) in zip(block, itertools.pairwise(edges.tolist()), strict=True):
            lr[low:high, at] = rates.lr[: high - low, i]
            decay[low:high, at] = rates.decay[: high - low, i]
    place = np.array([(rates.place_error[block] * rates.lengths[block]).sum() for block in blocks])
    curve = np.array([rates.curve_error[block].max() for block in blocks])
    return IntervalRates(lr, decay, count, lengths, place / lengths, curve)
