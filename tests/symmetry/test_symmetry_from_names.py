"""Scale groups from names alone, against the modules that really stand before each batch norm."""

import torch
from torch import nn
from torch.nn.utils import parametrizations

from smdlens.snapshots.records import Extent, TensorRef
from smdlens.symmetry.from_names import scale_groups_from_names
from smdlens.symmetry.modules import is_sorted_file, modules_of, natural_key
from smdlens.vocabulary import EvidenceKind, Granularity, Role

DTYPES = {torch.float32: "float32", torch.int64: "int64", torch.float16: "float16"}


def refs(model, names=None):
    state = model.state_dict()
    return {
        name: TensorRef(name, tuple(t.shape), DTYPES[t.dtype], (Extent("x", 0, 1),))
        for name, t in ((n, state[n]) for n in (names or state))
    }


def invariant(groups):
    return {n for n, t in groups.tensors.items() if t.role is Role.SCALE_INVARIANT}


class Block(nn.Module):
    def __init__(self, wide, narrow, *, shortcut=True):
        super().__init__()
        self.conv1 = nn.Conv2d(wide, narrow, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.downsample = (
            nn.Sequential(nn.Conv2d(wide, narrow, 1, bias=False), nn.BatchNorm2d(narrow))
            if shortcut
            else None
        )


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(*(Block(8, 8, shortcut=i == 0) for i in range(11)))
        self.fc = nn.Linear(8, 10)


def test_a_residual_network():
    groups = scale_groups_from_names(refs(ResNet()))
    convolutions = {n for n, p in ResNet().named_parameters() if p.ndim == 4}
    assert invariant(groups) == convolutions and len(convolutions) == 24
    assert set(groups.tensors) == {n for n, _ in ResNet().named_parameters()}
    assert groups.source == "names"
    first = groups.tensors["layer1.0.downsample.0.weight"]
    assert (first.granularity, first.axis, first.groups) == (Granularity.CHANNEL, 0, 8)
    assert first.norm.running_var == "layer1.0.downsample.1.running_var"
    assert first.norm.gamma == "layer1.0.downsample.1.weight"
    assert first.evidence[0].kind is EvidenceKind.NAMES
    second = groups.tensors["layer1.10.conv2.weight"]
    assert second.norm.running_var == "layer1.10.bn2.running_var"


def test_the_classifier_is_a_clock_and_lives_on_no_sphere():
    groups = scale_groups_from_names(refs(ResNet()))
    for name in ("fc.weight", "fc.bias"):
        assert groups.tensors[name].clock
        assert groups.tensors[name].role is Role.NOT_SCALE_INVARIANT
    assert groups.tensors["fc.weight"].axis == 0
    assert not groups.tensors["conv1.weight"].clock


def test_a_sorted_file_gives_the_same_answer():
    """safetensors files are alphabetical: order says nothing there, names still do."""
    model = ResNet()
    in_order = scale_groups_from_names(refs(model))
    names = sorted(model.state_dict())
    by_name = scale_groups_from_names(refs(model, names))
    assert is_sorted_file(refs(model, names)) and not is_sorted_file(refs(model))
    assert invariant(by_name) == invariant(in_order)
    for name in invariant(in_order):
        assert by_name.tensors[name].norm == in_order.tensors[name].norm


def test_a_pre_activation_network_pairs_no_convolution_with_the_norm_before_it():
    """bn1 stands before conv1: only conv1 -> bn2 is a pair, and only by order."""

    class PreActivation(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn1 = nn.BatchNorm2d(8)
            self.conv1 = nn.Conv2d(8, 8, 3)
            self.bn2 = nn.BatchNorm2d(8)
            self.conv2 = nn.Conv2d(8, 8, 3)

    groups = scale_groups_from_names(refs(PreActivation()))
    assert invariant(groups) == {"conv1.weight"}
    assert groups.tensors["conv1.weight"].norm.running_var == "bn2.running_var"


def test_a_sequence_and_a_bias_before_a_norm():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Linear(8, 5))
    groups = scale_groups_from_names(refs(model))
    assert invariant(groups) == {"0.weight"}
    bias = groups.tensors["0.bias"]
    assert bias.role is Role.IRRELEVANT and bias.clock
    assert groups.tensors["3.weight"].clock


def test_channels_must_agree():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(16))
    assert invariant(scale_groups_from_names(refs(model))) == set()


def test_transposed_convolutions_are_normalised_along_their_second_axis():
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, bias=False), nn.BatchNorm2d(6))
    found = scale_groups_from_names(refs(model)).tensors["0.weight"]
    assert (found.role, found.axis, found.groups) == (Role.SCALE_INVARIANT, 1, 6)


def test_depthwise_and_linear_layers():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.dwconv = nn.Conv2d(8, 8, 3, groups=8, bias=False)
            self.dwconv_bn = nn.BatchNorm2d(8)
            self.linear = nn.Linear(8, 6)
            self.norm = nn.BatchNorm1d(6)

    assert invariant(scale_groups_from_names(refs(Mixed()))) == {"dwconv.weight", "linear.weight"}


def test_layer_norm_has_no_running_statistics_and_is_not_guessed():
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.GroupNorm(2, 8))
    assert invariant(scale_groups_from_names(refs(model))) == set()


def test_batch_norm_without_affine_has_no_gain():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False))
    norm = scale_groups_from_names(refs(model)).tensors["0.weight"].norm
    assert (norm.gamma, norm.beta, norm.running_var) == (None, None, "1.running_var")


def test_weight_norm_in_both_spellings():
    new = parametrizations.weight_norm(nn.Linear(5, 4))
    groups = scale_groups_from_names(refs(new))
    direction = groups.tensors["parametrizations.weight.original1"]
    assert direction.role is Role.SCALE_INVARIANT
    assert (direction.granularity, direction.axis, direction.groups) == (Granularity.CHANNEL, 0, 4)
    length = groups.tensors["parametrizations.weight.original0"]
    assert length.role is Role.NOT_SCALE_INVARIANT
    old = {
        n: TensorRef(n, shape, "float32", (Extent("x", 0, 1),))
        for n, shape in (("m.weight_g", (4, 1)), ("m.weight_v", (4, 5)), ("m.bias", (4,)))
    }
    assert invariant(scale_groups_from_names(old)) == {"m.weight_v"}


def test_query_and_key_norms_per_head_and_across_heads():
    class Attention(nn.Module):
        def __init__(self, norm, *, bias=False):
            super().__init__()
            self.q_proj = nn.Linear(16, 16, bias=bias)
            self.k_proj = nn.Linear(16, 8, bias=bias)
            self.v_proj = nn.Linear(16, 8, bias=bias)
            self.q_norm = nn.RMSNorm(norm)
            self.k_norm = nn.RMSNorm(norm)

    found = scale_groups_from_names(refs(Attention(4))).tensors
    assert (found["q_proj.weight"].granularity, found["q_proj.weight"].groups) == (
        Granularity.HEAD,
        4,
    )
    assert found["k_proj.weight"].groups == 2
    assert found["v_proj.weight"].role is Role.NOT_SCALE_INVARIANT
    biased = scale_groups_from_names(refs(Attention(4, bias=True)))
    assert invariant(biased) == set()


def test_integers_and_statistics_are_no_parameters():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    extra = {**refs(model), "ids": TensorRef("ids", (4,), "int64", (Extent("x", 0, 1),))}
    assert set(scale_groups_from_names(extra).tensors) == {
        "0.weight", "0.bias", "1.weight", "1.bias",
    }  # fmt: skip


def test_nothing_gives_nothing():
    assert scale_groups_from_names({}).tensors == {}


def test_hostile_shapes_do_not_raise():
    odd = {
        name: TensorRef(name, shape, "float32", (Extent("x", 0, 1),))
        for name, shape in (
            ("weight", (0, 3)), ("running_mean", (0,)), ("running_var", (0,)), ("", (2,)),
            ("..weight", (2, 2)), ("a.weight", ()), ("a.running_var", (3,)),
            ("q_norm.weight", (0,)),
            ("q_proj.weight", (4, 4)), ("m.weight_g", ()), ("m.weight_v", (3, 3)),
        )
    }  # fmt: skip
    assert set(scale_groups_from_names(odd).tensors) >= {"q_proj.weight", "m.weight_v"}


def test_modules_and_natural_order():
    tensors = refs(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
    modules = modules_of(tensors)
    assert [m.path for m in modules] == ["0", "1"]
    assert modules[0].weight.shape == (8, 3, 3, 3) and modules[0].batch_norm_channels is None
    assert modules[1].weight is None and modules[1].batch_norm_channels == 8
    assert modules[1].full_name("bias") == "1.bias" and modules[1].parent == ""
    assert sorted(["a.10", "a.9", "a.b"], key=natural_key) == ["a.9", "a.10", "a.b"]
