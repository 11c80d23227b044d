"""Micro-models that each try to break one rule, against numeric rescaling."""

import pytest
import torch
from micro_models import MICRO
from symmetry_measure import assert_agrees, measured

# Quicker ones, one for each rule; the `deep` run takes all.
SHORT = [
    "conv_bn", "conv_act_bn", "conv_relu_bn", "conv_relu6_bn", "conv_leaky_bn", "conv_gn",
    "conv_avgpool_pad_bn", "bn_relu_depthwise_bn", "grouped_conv_bn", "conv_unpadded_bn_chain",
    "conv_padded_bn_chain", "transposed_grouped_bn", "linear_ln", "linear_rms_bias",
    "weight_norm_dim1", "spectral_norm", "pixel_shuffle_bn", "SkipMeetsBranch",
    "ConcatenateThenNorm", "WriteIntoView", "FrozenNorm", "WeightStandardised",
    "StandardisedByBatchNorm", "RegularisedNumerator", "LargeConstantBesideNorm",
    "SameConstantMeetsScale", "MaxWithIndices", "PoolMinusItself", "PreActivation",
    "attention_masked", "attention_fused_rms", "attention_q_rms_bias", "GroupedQueries", "OneToken",
    "TiedEmbedding", "Recurrent", "DeadBranch", "GateBeforeNorm", "InstanceShift", "ThresholdOne",
    "TransposedLinear", "ClassToken",
]  # fmt: skip


def _check(name):
    factory, inputs = MICRO[name]
    torch.manual_seed(0)
    model = factory()
    assert_agrees(measured(model, inputs, {}))


@pytest.mark.parametrize("name", SHORT)
def test_short_corpus_agrees_with_rescaling(name):
    # A mean of what an instance norm centred is zero: `conv_in` is the one accident of the corpus.
    _check(name)


@pytest.mark.deep
@pytest.mark.parametrize("name", sorted(set(MICRO) - set(SHORT) - {"conv_in"}))
def test_whole_corpus_agrees_with_rescaling(name):
    _check(name)


def test_oracle_can_tell():
    """The oracle itself must find what is plain: a weight behind a batch norm, and a head."""
    from rescaling_oracle import Oracle

    factory, inputs = MICRO["conv_bn"]
    oracle = Oracle(factory(), inputs)
    assert oracle.is_invariant("layers.0.weight") and not oracle.is_irrelevant("layers.0.weight")
    assert oracle.is_irrelevant("layers.0.bias")
    assert not oracle.is_invariant("layers.5.weight")
    assert oracle.keeps("layers.0.weight", 0, [1, 2, 3, 4, 5, 6])
    assert not oracle.keeps("layers.0.weight", 1, [1, 2, 3])
