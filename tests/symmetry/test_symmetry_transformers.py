"""Published architectures with random weights, against numeric rescaling (needs transformers)."""

import pytest
import torch
from symmetry_helpers import compare
from transformers_corpus import CORPUS

from smdlens.symmetry.from_torch import graph_of_module
from smdlens.symmetry.scale_symmetry import symmetry_of_graph


@pytest.mark.deep
@pytest.mark.parametrize("name", sorted(CORPUS))
def test_architecture_agrees_with_rescaling(name):
    torch.manual_seed(0)
    model, inputs = CORPUS[name]()
    compare(symmetry_of_graph(graph_of_module(model, inputs)), model, inputs)
