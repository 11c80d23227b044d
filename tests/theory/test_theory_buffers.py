import numpy as np
import pytest
from theory_helpers import walk

from smdlens.theory import buffers
from smdlens.theory.moments import UpdateRule, adam_direction, heavy_ball
from smdlens.theory.weighted import plain_turn2


def correlated_run(rule, lr, decay):
    # a common drift makes successive gradients anything but white
    return walk(rule, lr, decay, 0.0, start=1.0, drift=2.0, replicas=5, dim=40, keep_vectors=True)


@pytest.mark.parametrize("rule", [heavy_ball(0.9), heavy_ball(0.5, 0.3), heavy_ball(0.0)])
def test_identity_holds_for_correlated_gradients_and_any_schedule(rule):
    decay = 5e-3
    lr = 0.1 * np.where(np.arange(80) < 50, 1.0, 0.1)
    run = correlated_run(rule, lr, decay)
    start, stop = 20, 80
    eta = lr[start:stop, None]
    work = rule.c * np.sum(eta * decay * run.W[start:stop], 0)
    jumps = np.sum(np.diff(lr[start:stop])[:, None] * run.P[start + 1 : stop], 0)
    got = buffers.step_energy_with_buffers(
        run.W[start],
        run.W[stop],
        run.P[start],
        run.P[stop],
        work,
        lr[start],
        lr[stop - 1],
        rule.a,
        jumps,
    )
    want = np.sum(eta**2 * run.V[start + 1 : stop + 1], 0)
    assert np.allclose(got, want, rtol=1e-11)


@pytest.mark.parametrize("rule", [heavy_ball(0.9), heavy_ball(0.5, 0.3)])
def test_mean_angle_from_both_buffers(rule):
    decay, lr = 5e-3, np.full(200, 0.05)
    run = correlated_run(rule, lr, decay)
    got = buffers.mean_turn2_with_buffers(
        run.W[40], run.W[200], run.P[40], run.P[200], 160, 0.05, decay, 0.0, rule.a, 1 - rule.c
    )
    # left over: the norm between the snapshots, and the scatter of single steps
    assert np.allclose(got, run.turn2[40:].mean(0), rtol=0.05)


def test_turn2_from_step_is_exact_for_one_step():
    rule = UpdateRule(0.9, 1.0, 1.0, 0.0, False)
    run = walk(rule, np.full(12, 0.3), 0.05, 0.2, start=1.0, replicas=3, dim=10)
    got = buffers.turn2_from_step(
        0.3**2 * run.V[-1] / run.W[-2], np.log(run.W[-1] / run.W[-2]), 1 - 0.3 * 0.2
    )
    assert np.allclose(got, run.turn2[-1], rtol=1e-10)


def test_plain_sgd_identity_any_gradient_any_schedule():
    lr = np.linspace(0.2, 0.01, 100)
    run = correlated_run(heavy_ball(0.0), lr, 5e-3)
    tan2 = 1 / (1 - run.turn2 / 2) ** 2 - 1
    left = np.sum(np.log1p(tan2), 0)
    logs = np.sum(np.log1p(-lr * 5e-3))
    assert np.allclose(left, np.log(run.W[-1] / run.W[0]) - 2 * logs, rtol=1e-10)
    got = buffers.mean_turn2_plain_sgd(run.W[0], run.W[-1], 100, logs)
    assert np.allclose(got, -2 * np.expm1(-left / 200), rtol=1e-10)
    # unequal steps: the mean chord differs in second order
    assert np.allclose(got, run.turn2.mean(0), rtol=2 * float(run.turn2.max()))


@pytest.mark.parametrize("rule", [heavy_ball(0.9), heavy_ball(0.9, 0.4), adam_direction(0.9)])
@pytest.mark.parametrize("decoupled", [0.0, 0.5])
def test_last_step_from_one_checkpoint(rule, decoupled):
    run = walk(rule, np.full(30, 0.02), 0.01, decoupled, replicas=8, dim=30)
    got = buffers.last_step_angle(run.W[-1], run.P[-1], run.V[-1], 0.02)
    assert np.allclose(4 * np.sin(got / 2) ** 2, run.turn2[-1], rtol=1e-10)


def test_last_step_of_a_buffer_along_the_weights_is_zero():
    assert buffers.last_step_angle(2.0, 3.0, 4.5, 0.1) == 0.0


def test_summed_norm():
    W = 2.0 * np.exp(0.01 * np.arange(101))
    assert buffers.summed_norm2(W[0], W[-1], 100) == pytest.approx(W[:-1].sum(), rel=1e-12)
    assert buffers.summed_norm2(2.0, 2.0, 7) == 14.0


def test_weighted_norm_gives_back_the_plain_angle():
    # Adam's direction has independent unit entries, the weights do not care about S
    rng = np.random.default_rng(0)
    d = 40_000
    S = np.exp(rng.standard_normal(d))
    S /= S.mean()
    w = rng.standard_normal(d) / np.sqrt(S)
    u = 1e-3 * rng.standard_normal(d)

    def turn2(a, b, weight):
        dot, a2, b2 = (np.sum(weight * x * y) for x, y in ((a, b), (a, a), (b, b)))
        return 2 * (1 - dot / np.sqrt(a2 * b2)), a2, b2

    weighted, WS0, WS1 = turn2(w, w + u, S)
    plain, W0, W1 = turn2(w, w + u, np.ones(d))
    assert plain_turn2(weighted, WS0, WS1, W0, W1) == pytest.approx(plain, rel=0.02)
    assert weighted != pytest.approx(plain, rel=0.05)
    assert np.isnan(plain_turn2(1.0, 1.0, 1.0, 0.0, 1.0))
