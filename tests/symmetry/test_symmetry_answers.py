"""What the answer says: granularity, parts, joint sets, the norm behind, reasons, notes."""

from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from micro_models import MICRO
from torch import nn

import smdlens
from smdlens.errors import GraphError, InputError
from smdlens.symmetry.ask import symmetry_of
from smdlens.symmetry.verify import verified
from smdlens.vocabulary import EvidenceKind, Granularity, Role


def answer(name):
    factory, inputs = MICRO[name]
    torch.manual_seed(0)
    return smdlens.scale_symmetry(factory(), inputs)


def test_convolution_in_front_of_batch_norm():
    tensors = answer("conv_bn").tensors
    weight, bias, head = (tensors[f"layers.{n}"] for n in ("0.weight", "0.bias", "5.weight"))
    assert (weight.role, weight.granularity, weight.axis, weight.groups) == (
        Role.SCALE_INVARIANT, Granularity.CHANNEL, 0, 6,
    )  # fmt: skip
    assert weight.norm.kind == "batch_norm"
    assert (weight.norm.gamma, weight.norm.running_var) == (
        "layers.1.weight", "layers.1.running_var",
    )  # fmt: skip
    assert bias.role is Role.IRRELEVANT and bias.clock
    assert head.role is Role.NOT_SCALE_INVARIANT and head.clock


class Remembers(nn.Module):
    """Like Hugging Face's decoders: beside the scores it returns a cache of a type of its own."""

    class Cache:
        pass

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(use_cache=True)
        self.inner = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU())

    def forward(self, x):
        scores = self.inner(x).mean(-1)
        return (scores, self.Cache()) if self.config.use_cache else (scores,)


def test_a_cache_in_the_output_is_switched_off_and_on_again():
    model = Remembers()
    tensors = smdlens.scale_symmetry(model, (torch.randn(2, 2, 8),)).tensors
    assert tensors["inner.0.weight"].role is Role.SCALE_INVARIANT
    assert model.config.use_cache is True


def test_groups_of_a_group_norm():
    weight = answer("conv_gn_nobias").tensors["layers.0.weight"]
    assert (weight.granularity, weight.groups) == (Granularity.GROUP, 3)


def test_output_axis_of_a_transposed_convolution_is_found():
    weight = answer("transposed_bn").tensors["layers.0.weight"]
    assert (weight.granularity, weight.axis, weight.groups) == (Granularity.CHANNEL, 1, 6)


def test_fused_projection_has_parts():
    qkv = answer("attention_fused_rms").tensors["attention.qkv.weight"]
    assert qkv.role is Role.PARTLY_SCALE_INVARIANT and qkv.groups == 4
    assert [(p.index_from, p.index_to, p.role) for p in qkv.parts] == [
        (0, 16, Role.SCALE_INVARIANT), (16, 24, Role.NOT_SCALE_INVARIANT),
    ]  # fmt: skip
    assert qkv.parts[0].granularity is Granularity.HEAD


def test_query_heads():
    q = answer("attention_q_rms").tensors["attention.q.weight"]
    assert (q.role, q.granularity, q.groups) == (Role.SCALE_INVARIANT, Granularity.HEAD, 2)


def test_weight_and_bias_together():
    tensors = answer("conv_leaky_bn").tensors
    weight = tensors["layers.0.weight"]
    assert weight.role is Role.JOINTLY_SCALE_INVARIANT
    assert weight.joint_with == ("layers.0.bias",)
    assert (weight.granularity, weight.groups) == (Granularity.CHANNEL, 6)


def test_rescale_pairs_are_in_the_null_space_and_are_no_joint_set():
    symmetry = answer("pair_no_norm")
    exponents = [v for v in symmetry.basis if "layers.2.weight" in v]
    assert exponents == [
        {"layers.0.weight": Fraction(-1), "layers.0.bias": Fraction(-1), "layers.2.weight": 1}
    ]
    assert all(t.role is Role.NOT_SCALE_INVARIANT for t in symmetry.tensors.values())


def test_the_blocking_node_is_named():
    weight = answer("SkipMeetsBranch").tensors["a.weight"]
    assert any("meets `add` with `b`" in e.detail for e in weight.evidence)
    gelu = answer("conv_act_bn").tensors["layers.0.weight"]
    assert "layers.1.gelu" in gelu.evidence[-1].detail


def test_tied_weights_have_one_name():
    symmetry = answer("TiedEmbedding")
    assert "head.weight" not in symmetry.tensors
    assert symmetry.aliases == {"head.weight": "embed.weight"}


def test_ignored_epsilons_and_operators_without_a_rule_are_noted():
    assert any("epsilon" in note for note in answer("WeightStandardised").notes)
    assert any("silu" in note for note in answer("SqueezeExcite").notes)


def test_the_model_is_left_as_it_was():
    factory, inputs = MICRO["conv_bn"]
    model = factory().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    smdlens.scale_symmetry(model, inputs)
    assert model.training and model.layers[1].training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_batch_of_one_hides_nothing():
    """Traced with one sample, a gate that is constant over the image still depends on it."""
    factory, inputs = MICRO["GateBeforeNorm"]
    symmetry = smdlens.scale_symmetry(factory(), (inputs[0][:1],))
    assert symmetry.tensors["gate.weight"].role is Role.NOT_SCALE_INVARIANT


@pytest.mark.parametrize(
    ("model", "args"),
    [
        (lambda: 1 / 0, ()),
        (lambda: "no model", ()),
        (nn.Linear(3, 2), (torch.zeros(2, 5),)),
        ("nowhere.at_all:model", ()),
    ],
)
def test_what_has_no_graph_is_said(model, args):
    with pytest.raises(GraphError) as caught:
        smdlens.scale_symmetry(model, args)
    assert caught.value.exit_code == 2 and caught.value.subject


class DataDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        y = self.a(x)
        return y if y.sum() > 0 else -y


class GivesNoTensor(DataDependent):
    def forward(self, x):
        return "nothing"


@pytest.mark.parametrize("model", [DataDependent, GivesNoTensor])
def test_control_flow_and_odd_outputs_are_graph_errors(model):
    with pytest.raises(GraphError):
        smdlens.scale_symmetry(model(), (torch.zeros(2, 4),))


def test_verification_confirms():
    factory, inputs = MICRO["conv_bn"]
    model = factory()
    symmetry = verified(smdlens.scale_symmetry(model, inputs), model, inputs)
    weight = symmetry.tensors["layers.0.weight"]
    assert weight.role is Role.SCALE_INVARIANT
    assert weight.evidence[-1].kind is EvidenceKind.NUMERIC
    assert "confirmed" in weight.evidence[-1].detail


def test_disagreement_becomes_unknown_with_both_answers():
    import dataclasses

    factory, inputs = MICRO["conv_bn"]
    model = factory()
    symmetry = smdlens.scale_symmetry(model, inputs)
    head = dataclasses.replace(symmetry.tensors["layers.5.weight"], role=Role.SCALE_INVARIANT)
    wrong = dataclasses.replace(symmetry, tensors={**symmetry.tensors, "layers.5.weight": head})
    found = verified(wrong, model, inputs).tensors["layers.5.weight"]
    assert found.role is Role.UNKNOWN
    assert "graph says scale invariant" in found.evidence[-1].detail


def test_a_detached_length_is_no_sphere():
    """The value is invariant, but the gradient is not orthogonal: the two tests disagree."""
    factory, inputs = MICRO["DetachedLength"]
    model = factory()
    symmetry = smdlens.scale_symmetry(model, inputs)
    assert symmetry.tensors["a.weight"].role is Role.SCALE_INVARIANT
    assert "detach" in " ".join(e.detail for e in symmetry.tensors["a.weight"].evidence)
    found = verified(symmetry, model, inputs).tensors["a.weight"]
    assert found.role is Role.UNKNOWN and "orthogonal" in found.evidence[-1].detail


def test_what_is_neither_a_model_nor_a_graph_is_told_so():
    with pytest.raises(InputError, match="neither a model nor a file") as caught:
        symmetry_of("run/ckpt_100.pth")
    assert caught.value.subject == "run/ckpt_100.pth"
