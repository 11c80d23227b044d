"""Scale symmetry of networks drawn at random, against numeric rescaling."""

from __future__ import annotations

import pytest
from random_networks import random_network
from symmetry_measure import measured

FAST = range(2000, 2008)


def check(seed: int) -> None:
    record = measured(*random_network(seed))
    assert "untraced" not in record, record
    assert record["false"] == [] and record["unsound"] == []
    assert record["missed"] == []


@pytest.mark.parametrize("seed", FAST)
def test_nothing_is_called_invariant_that_is_not(seed: int) -> None:
    check(seed)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(3000, 3060))
def test_the_same_of_more_networks(seed: int) -> None:
    check(seed)
