"""Verification: right answers are confirmed piece by piece, every wrong one is caught."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from micro_models import MICRO
from transformers_corpus import CORPUS

import smdlens
from smdlens.symmetry.records import TensorPart
from smdlens.symmetry.verify import verified
from smdlens.vocabulary import EvidenceKind, Granularity, Role

# Networks in which the experiment finds more freedom than the solver, and what it is.
MORE_THAN_SAID = {
    # The mean over all positions of what instance norm gives is beta, whatever the weights are.
    "conv_in": {"layers.0.weight", "layers.1.weight"},
    # Each token has its own row, and layer norm looks at one token at a time.
    "EmbeddingAloneThenNorm": {"embed.weight"},
    # The value is invariant, but its gradient is cut off at the length.
    "DetachedLength": {"a.weight"},
}
# The same in the architectures, by a part of the name.
KNOWN = {
    "poolformer": "before_norm.bias",  # pooling minus its input: nothing depends on it
    "levit": "attention_biases",  # cached in eval mode, so the experiment cannot reach it
    # The inputs hold the padding token, whose row gets no gradient.
    **dict.fromkeys(("bert", "albert", "electra"), ".embeddings."),
    "glm4": "",  # and the gains in one set with the embedding
}


def network(name):
    torch.manual_seed(0)
    if name in MICRO:
        factory, inputs = MICRO[name]
        return factory(), inputs
    return CORPUS[name]()


def answer(name):
    model, inputs = network(name)
    return smdlens.scale_symmetry(model, inputs), model, inputs


QUICK = (
    "conv_bn", "conv_gn", "linear_ln", "attention_fused_rms", "TiedEmbedding", "PreActivation",
    "ShuffledChannels", "Windows", *MORE_THAN_SAID,
)  # fmt: skip


def each(quick, every):
    """All names; those that are not quick run with the deep tests."""
    return [n if n in quick else pytest.param(n, marks=pytest.mark.deep) for n in every]


@pytest.mark.parametrize("name", each(QUICK, [*MICRO, *CORPUS]))
def test_the_solver_is_confirmed(name):
    symmetry, model, inputs = answer(name)
    found = verified(symmetry, model, inputs)
    against = {d.tensor for d in found.disagreements}
    if name in MICRO:
        assert against == MORE_THAN_SAID.get(name, set())
    else:
        assert all(name in KNOWN and KNOWN[name] in tensor for tensor in against)
    for tensor in found.tensors.values():
        assert tensor.evidence[-1].kind is EvidenceKind.NUMERIC


def wrong_answers(tensor):
    """What could be said of a tensor, and is not true; with a word on what is wrong."""

    def said(role, granularity=None, groups=1, **others):
        return dataclasses.replace(
            tensor, role=role, granularity=granularity, groups=groups, joint_with=(), **others
        )

    length = tensor.shape[tensor.axis or 0] if tensor.shape else 1
    per_channel = (Granularity.CHANNEL, length)
    if tensor.role is Role.SCALE_INVARIANT:
        yield "not invariant", said(Role.NOT_SCALE_INVARIANT)
        yield "irrelevant", said(Role.IRRELEVANT)
        if tensor.groups < length:
            yield "too fine", said(Role.SCALE_INVARIANT, *per_channel)
        if tensor.groups > 1:
            yield "too coarse", said(Role.SCALE_INVARIANT, Granularity.TENSOR)
    elif tensor.role is Role.IRRELEVANT:
        yield "invariant", said(Role.SCALE_INVARIANT, *per_channel)
        yield "not invariant", said(Role.NOT_SCALE_INVARIANT)
    elif tensor.role is Role.NOT_SCALE_INVARIANT:
        yield "invariant", said(Role.SCALE_INVARIANT, Granularity.TENSOR)
        yield "irrelevant", said(Role.IRRELEVANT)
        if length > 1:
            first = TensorPart(0, length // 2, Role.SCALE_INVARIANT, Granularity.TENSOR)
            rest = TensorPart(length // 2, length, Role.NOT_SCALE_INVARIANT, None)
            yield "in part", said(Role.PARTLY_SCALE_INVARIANT, Granularity.TENSOR,
                                  parts=(first, rest))  # fmt: skip
    elif tensor.role is Role.PARTLY_SCALE_INVARIANT:
        yield "invariant", said(Role.SCALE_INVARIANT, Granularity.TENSOR, parts=())
        yield "not invariant", said(Role.NOT_SCALE_INVARIANT, parts=())
        yield "too fine", dataclasses.replace(
            tensor, granularity=Granularity.CHANNEL,
            groups=sum(p.index_to - p.index_from for p in tensor.parts
                       if p.role is Role.SCALE_INVARIANT),
        )  # fmt: skip
        moved = tuple(
            dataclasses.replace(p, index_from=max(p.index_from - 1, 0), index_to=p.index_to - 1)
            for p in tensor.parts[1:]
        )
        first = dataclasses.replace(tensor.parts[0], index_to=tensor.parts[0].index_to - 1)
        yield "other rows", dataclasses.replace(tensor, parts=(first, *moved))
    elif tensor.role is Role.JOINTLY_SCALE_INVARIANT:
        yield "alone", said(Role.SCALE_INVARIANT, Granularity.TENSOR)
        yield "not with all", dataclasses.replace(tensor, joint_with=tensor.joint_with[1:])
        if tensor.groups < length:
            yield (
                "too fine",
                dataclasses.replace(tensor, granularity=Granularity.CHANNEL, groups=length),
            )


@pytest.mark.parametrize(
    "name",
    [
        "conv_bn", "conv_gn", "conv_gn_nobias", "transposed_bn", "attention_fused_rms",
        "SkipMeetsBranch", *each((), ("resnet_basic", "qwen3", "convnext", "gemma3")),
    ],
)  # fmt: skip
def test_every_wrong_answer_is_caught(name):
    symmetry, model, inputs = answer(name)
    caught = 0
    for tensor in symmetry.tensors.values():
        for what, wrong in wrong_answers(tensor):
            changed = dataclasses.replace(
                symmetry, tensors={**symmetry.tensors, tensor.name: wrong}
            )
            found = verified(changed, model, inputs)
            assert tensor.name in {d.tensor for d in found.disagreements}, (tensor.name, what)
            result = found.tensors[tensor.name]
            assert "the graph says" in result.evidence[-1].detail
            if what == "too coarse":
                assert result.role is wrong.role and result.granularity is None
            else:
                assert result.role is Role.UNKNOWN, (tensor.name, what)
            caught += 1
    assert caught >= 8
