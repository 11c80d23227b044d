import numpy as np
import pytest

from smdlens.theory.root_search import find_roots

SHAPES = {
    "linear": lambda x, r: x / r - 1,
    "square": lambda x, r: (x / r) ** 2 - 1,
    "root": lambda x, r: np.sqrt(x / r) - 1,
    "steep": lambda x, r: np.tanh(50 * (x / r - 1)),
    "explodes": lambda x, r: np.exp(np.minimum(5 * (x / r - 1), 700)) - 1,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("start", [1e-6, 1.0, 1e6])
def test_finds_roots_of_any_size(shape, start):
    roots = np.array([1e-9, 0.3, 1.0, 7e4, 1e12])
    calls = []

    def miss(x, who):
        calls.append(len(who))
        with np.errstate(over="ignore"):
            return SHAPES[shape](x[who], roots[who])

    got, at_floor, evaluations = find_roots(miss, np.full(5, start), np.arange(5), 1e-12)
    assert np.allclose(got, roots, rtol=1e-10)
    assert not at_floor.any()
    assert evaluations.sum() == sum(calls)


def test_floor_and_left_out_functions():
    shift = np.array([-1.0, 0.0, 2.0, -4.0])
    which = np.array([2, 0, 1])
    got, at_floor, evaluations = find_roots(
        lambda x, who: x[who] + shift[who], np.full(4, 5.0), which, 1e-12
    )
    assert list(got) == [1.0, 0.0, 0.0, 5.0]
    assert list(at_floor) == [False, True, True, False]
    assert list(evaluations > 0) == [True, True, True, False]
