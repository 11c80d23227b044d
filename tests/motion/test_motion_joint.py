"""Sums of a jointly invariant set from its members', against the concatenated vectors."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from smdlens.motion.joint import joint_at, joint_between, joint_chord2, joint_turn2
from smdlens.motion.records import PAIR_SCHEMA, SNAPSHOT_SCHEMA


def exact(vectors: list[np.ndarray]) -> list[mpmath.mpf]:
    return [mpmath.mpf(float(x)) for v in vectors for x in v]


def exact_chord2(a: list[mpmath.mpf], b: list[mpmath.mpf]) -> mpmath.mpf:
    c = mpmath.sqrt(mpmath.fsum(y * y for y in b) / mpmath.fsum(x * x for x in a))
    return mpmath.fsum((y - c * x) ** 2 for x, y in zip(a, b, strict=True))


def members(turn: float, growth: tuple[float, float], seed: int):
    """A weight of 40 entries and a bias of 5, much smaller, both ends."""
    rng = np.random.default_rng(seed)
    a = [rng.standard_normal(40), 0.03 * rng.standard_normal(5)]
    b = [g * (x + turn * rng.standard_normal(len(x)) * abs(x).mean()) for g, x in zip(growth, a)]
    return a, b


def measured(a: list[np.ndarray], b: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """|a_i|^2, |b_i|^2 and each member's own chord, correctly rounded, [members, 1]."""
    with mpmath.workdps(50):
        a2 = [float(mpmath.fsum(x * x for x in exact([v]))) for v in a]
        b2 = [float(mpmath.fsum(x * x for x in exact([v]))) for v in b]
        chord = [float(exact_chord2(exact([x]), exact([y]))) for x, y in zip(a, b)]
    return tuple(np.array(values)[:, None] for values in (a2, b2, chord))


@pytest.mark.parametrize("turn", [1e-9, 1e-6, 1e-3, 0.3])
@pytest.mark.parametrize("growth", [(1.0, 1.0), (0.98, 1.05), (1.0, 3.0)])
def test_joint_chord_is_that_of_the_concatenation(turn, growth) -> None:
    a, b = members(turn, growth, seed=3)
    a2, b2, chord = measured(a, b)
    with mpmath.workdps(50):
        true = float(exact_chord2(exact(a), exact(b)))
    # Norms known to 1e-16 give the difference of two ratios to 1e-16 over the turn.
    assert joint_chord2(a2, b2, chord)[0] == pytest.approx(true, rel=max(1e-12, 1e-20 / turn))


@pytest.mark.parametrize("turn", [1e-6, 0.3])
def test_joint_turn_is_that_of_the_concatenation(turn) -> None:
    a, b = members(turn, (0.98, 1.05), seed=4)
    a2, b2, chord = measured(a, b)
    with mpmath.workdps(50):
        x, y = exact(a), exact(b)
        true = float(exact_chord2(x, y) / mpmath.fsum(v * v for v in y))
    assert joint_turn2(a2, b2, chord / b2)[0] == pytest.approx(true, rel=1e-12)


def test_a_bias_that_starts_at_zero_counts_by_what_it_becomes() -> None:
    w = np.array([3.0, 4.0])
    a2, b2 = np.array([[25.0], [0.0]]), np.array([[25.0], [1.0]])
    found = joint_chord2(a2, b2, np.array([[0.0], [np.nan]]))[0]
    a, b = np.append(w, 0.0), np.append(w, 1.0)
    c = np.linalg.norm(b) / np.linalg.norm(a)
    assert found == pytest.approx(((b - c * a) ** 2).sum(), rel=1e-14)
    back = joint_chord2(b2, a2, np.array([[0.0], [np.nan]]))[0]
    assert back == pytest.approx(((a - b / c) ** 2).sum(), rel=1e-14)
    turned = joint_turn2(a2, b2, np.array([[0.0], [np.nan]]))[0]
    assert turned == pytest.approx(found / (b @ b), rel=1e-14)


def test_sums_add_and_the_chord_is_moved() -> None:
    a, b = members(0.1, (0.98, 1.05), seed=6)
    a2, b2, chord = measured(a, b)
    between = {name: np.full((2, 1), np.nan) for name in PAIR_SCHEMA}
    between["dot"] = np.array([[x @ y] for x, y in zip(a, b)])
    between["chord2"] = chord
    found = joint_between(between, np.concatenate([a2, b2], axis=1))
    x, y = np.concatenate(a), np.concatenate(b)
    assert found["dot"][0] == pytest.approx(x @ y, rel=1e-13)
    c = np.linalg.norm(y) / np.linalg.norm(x)
    assert found["chord2"][0] == pytest.approx(((y - c * x) ** 2).sum(), rel=1e-12)
    assert np.isnan(found["angle_p50"]).all()


def test_what_is_no_sum_stays_unknown() -> None:
    at = {name: np.ones((2, 3)) for name in SNAPSHOT_SCHEMA}
    found = joint_at(at)
    assert found["w2"].tolist() == [2.0, 2.0, 2.0]
    assert np.isnan(found["clock2"]).all()
    at["v2"][1, 0] = np.nan
    assert np.isnan(joint_at(at)["v2"]).tolist() == [True, False, False]
