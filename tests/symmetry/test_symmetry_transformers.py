"""Published architectures with random weights, against numeric rescaling (needs transformers)."""

import pytest
import torch
from symmetry_measure import assert_agrees, measured
from transformers_corpus import CORPUS


@pytest.mark.deep
@pytest.mark.parametrize("name", sorted(CORPUS))
def test_architecture_agrees_with_rescaling(name):
    torch.manual_seed(0)
    model, inputs = CORPUS[name]()
    assert_agrees(measured(model, inputs, {}))
