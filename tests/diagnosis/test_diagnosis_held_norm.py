"""Held or free norms, and sawteeth: against sequences drawn from what each really is."""

import numpy as np
import pytest

from smdlens.diagnosis.held_norm import Norm, norm_of
from smdlens.diagnosis.verdict import _teeth

ROUNDING = 5e-4
STEPS = np.arange(12) * 400.0
DRAWS = 200


def free(draw, pull, scatter, steps=STEPS):
    """The norm's own law, update by update: pushed by the gradients' scatter, drawn back."""
    x, every = 0.0, int(steps[1] - steps[0])
    keep, push = 1.0 - 2.0 * pull, pull * scatter
    seen = []
    for _ in range(len(steps) + 20):
        for kick in draw.standard_normal(every):
            x = keep * x + push * kick
        seen.append(x)
    return np.array(seen[20:])


def called(draw, norms, pull):
    error = np.full(len(norms), ROUNDING)
    return norm_of(norms + ROUNDING * draw.standard_normal(len(norms)), error, STEPS, pull)


def test_a_held_norm_is_told_from_a_free_one_through_rounding():
    draw = np.random.default_rng(1)
    held = [called(draw, np.zeros(len(STEPS)), 1e-3) for _ in range(DRAWS)]
    assert np.mean([norm is Norm.HELD for norm in held]) > 0.97
    assert Norm.FREE not in held
    moving = [called(draw, free(draw, 1e-3, 0.6), 1e-3) for _ in range(40)]
    assert np.mean([norm is Norm.FREE for norm in moving]) > 0.95
    assert Norm.HELD not in moving


def test_what_moves_less_than_rounding_is_neither():
    draw = np.random.default_rng(2)
    for norms in (np.zeros(len(STEPS)), free(draw, 2e-6, 0.6)):
        assert called(draw, norms, 2e-6) is Norm.UNCLEAR


def test_a_norm_that_drifts_is_free():
    draw = np.random.default_rng(3)
    assert called(draw, np.linspace(0.0, 0.1, len(STEPS)), 1e-3) is Norm.FREE


@pytest.mark.parametrize(
    ("q", "teeth"),
    [
        ([0.01, 0.01, 0.02, 5.0, 0.01, 0.01, 0.02, 5.0], 2),
        # A climb over two intervals is one tooth.
        ([0.01, 0.02, 0.6, 6.0, 0.01, 0.02, 0.7, 6.0, 0.01], 2),
        ([0.01, 0.1, 0.4, 1.0, 1.1, 0.9, 1.0, 1.0], 1),
        ([1.0, 1.1, 0.9, 1.2, 0.8, 1.0, 1.1, 1.0], 0),
        ([0.01, 5.0, 4.0, 3.0, 5.0, 4.0, 3.0, 2.0], 1),
    ],
)
def test_teeth_of_a_sawtooth(q, teeth):
    q = np.array(q)
    assert _teeth(q, 0.9 * q, 1.1 * q) == teeth


def test_what_is_not_resolved_is_no_tooth():
    """Noise clipped at zero, with intervals that reach from zero to five."""
    q = np.array([0.0, 2.0, 0.0, 3.0, 0.0, 2.5, 0.0, 2.0])
    assert _teeth(q, np.zeros(8), q + 3.0) == 0
