"""Graph files: the same answers as from the live model, and refusals."""

import numpy as np
import onnx_writer
import pytest
import torch
from micro_models import MICRO

import smdlens
from smdlens.errors import GraphError
from smdlens.vocabulary import Role


def saved(name, folder, *, functional=True):
    factory, inputs = MICRO[name]
    torch.manual_seed(0)
    model = factory().eval()
    program = torch.export.export(model, inputs, strict=False)
    if functional:
        program = program.run_decompositions({})
    path = folder / f"{name}.pt2"
    torch.export.save(program, path)
    return path, model, inputs


@pytest.mark.parametrize("functional", [True, False])
@pytest.mark.parametrize("name", ["attention_fused_rms", "SqueezeExcite", "TiedEmbedding"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_pt2_gives_the_answer_of_the_live_model(name, functional, tmp_path):
    path, model, inputs = saved(name, tmp_path, functional=functional)
    live, file = smdlens.scale_symmetry(model, inputs), smdlens.scale_symmetry(path)
    assert file.source == "pt2" and set(file.tensors) == set(live.tensors)
    for tensor in live.tensors.values():
        other = file.tensors[tensor.name]
        assert (other.role, other.granularity, other.groups, other.parts) == (
            tensor.role, tensor.granularity, tensor.groups, tensor.parts,
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_pt2_with_writes_into_views_is_refused_with_the_line_that_helps(tmp_path):
    path, _, _ = saved("WriteIntoView", tmp_path, functional=False)
    with pytest.raises(GraphError, match=r"run_decompositions"):
        smdlens.scale_symmetry(path)


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 200, bytes(range(256)) * 4])
def test_broken_files_are_graph_errors(tmp_path, suffix, content):
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(content)
    with pytest.raises(GraphError) as caught:
        smdlens.scale_symmetry(path)
    assert str(path) in str(caught.value)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


CONVOLUTION = ("Conv", ["x", "conv.weight", "conv.bias"], ["c"], {"pads": [1, 1, 1, 1]})
NORM = ("BatchNormalization", ["c", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["n"], {})
TAIL = [
    ("GlobalAveragePool", ["r"], ["p"], {}),
    ("Flatten", ["p"], ["f"], {}),
    ("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], {"transB": 1}),
]
WEIGHTS = {
    "conv.weight": normal(6, 3, 3, 3), "conv.bias": normal(6), "bn.weight": normal(6),
    "bn.bias": normal(6), "bn.mean": normal(6), "bn.var": np.ones(6, np.float32),
    "fc.weight": normal(5, 6), "fc.bias": normal(5),
}  # fmt: skip


def write(path, nodes, weights=None):
    content = onnx_writer.model(
        nodes, {**WEIGHTS, **(weights or {})}, {"x": (2, 3, 8, 8)}, {"y": (2, 5)}
    )
    path.write_bytes(content)
    return path


def test_onnx_convolution_in_front_of_batch_norm(tmp_path):
    nodes = [CONVOLUTION, NORM, ("Relu", ["n"], ["r"], {}), *TAIL]
    tensors = smdlens.scale_symmetry(write(tmp_path / "m.onnx", nodes)).tensors
    weight = tensors["conv.weight"]
    assert (weight.role, weight.groups) == (Role.SCALE_INVARIANT, 6)
    assert weight.norm.running_var == "bn.var"
    assert tensors["conv.bias"].role is Role.IRRELEVANT
    assert tensors["bn.weight"].role is Role.NOT_SCALE_INVARIANT
    assert tensors["fc.weight"].role is Role.NOT_SCALE_INVARIANT
    assert "bn.var" not in tensors


@pytest.mark.parametrize("computed", [False, True])
def test_onnx_bound_that_is_not_a_plain_number_is_a_bound(tmp_path, computed):
    """ReLU6 in front of the norm: its bound may come out of a chain of constants."""
    clip = [("Clip", ["c", "low", "six"], ["k"], {})]
    weights = {"low": np.zeros((), np.float32), "three": np.full((), 3, np.float32)}
    if computed:
        clip = [("Add", ["three", "three"], ["six"], {}), *clip]
    else:
        weights["six"] = np.full((), 6, np.float32)
    norm = (NORM[0], ["k", *NORM[1][1:]], *NORM[2:])
    nodes = [CONVOLUTION, *clip, norm, ("Relu", ["n"], ["r"], {}), *TAIL]
    tensors = smdlens.scale_symmetry(write(tmp_path / "m.onnx", nodes, weights)).tensors
    assert tensors["conv.weight"].role is Role.NOT_SCALE_INVARIANT


def test_onnx_bias_built_from_constants_is_no_bias(tmp_path):
    """Exporters expand a zero into the bias of a convolution without one."""
    chain = [
        ("ConstantOfShape", ["six"], ["zeros"], {}),
        ("Conv", ["x", "conv.weight", "zeros"], ["k"], {}),
        ("Relu", ["k"], ["c"], {}),
    ]
    weights = {"six": np.array([6])}
    nodes = [*chain, NORM, ("Relu", ["n"], ["r"], {}), *TAIL]
    tensors = smdlens.scale_symmetry(write(tmp_path / "m.onnx", nodes, weights)).tensors
    assert tensors["conv.weight"].role is Role.SCALE_INVARIANT


def test_onnx_with_folded_batch_norms_is_refused_with_the_export_line(tmp_path):
    nodes = [CONVOLUTION, ("Relu", ["c"], ["r"], {}), *TAIL]
    with pytest.raises(GraphError, match=r"folded.*optimize=False"):
        smdlens.scale_symmetry(write(tmp_path / "m.onnx", nodes))


@pytest.mark.parametrize("trace", ["output", "weight"])
def test_onnx_with_one_folded_batch_norm_is_refused(tmp_path, trace):
    """The first convolution holds its norm, the second has one: the names give it away."""
    weight, made = ("onnx::Conv_7", "k") if trace == "weight" else ("first.weight", "getitem")
    nodes = [
        ("Conv", ["x", weight, "conv.bias"], [made], {"pads": [1, 1, 1, 1]}),
        ("Conv", [made, "conv.weight", "conv.bias"], ["c"], {"pads": [1, 1, 1, 1]}),
        NORM, ("Relu", ["n"], ["r"], {}), *TAIL,
    ]  # fmt: skip
    weights = {weight: normal(6, 3, 3, 3), "conv.weight": normal(6, 6, 3, 3)}
    with pytest.raises(GraphError, match=r"folded.*1 convolutions"):
        smdlens.scale_symmetry(write(tmp_path / "m.onnx", nodes, weights))
    nodes[0] = ("Conv", ["x", "first.weight", "conv.bias"], [made], {"pads": [1, 1, 1, 1]})
    if trace == "weight":
        weights["first.weight"] = weights.pop(weight)
        smdlens.scale_symmetry(write(tmp_path / "m.onnx", nodes, weights))


def test_onnx_statistics_that_are_stored_as_the_gain_hide_no_parameter(tmp_path):
    """A network exported before training: mean 0 and variance 1 are beta and gamma."""
    norm = ("BatchNormalization", ["c", "bn.weight", "bn.bias", "bn.bias", "bn.weight"], ["n"], {})
    nodes = [CONVOLUTION, norm, ("Relu", ["n"], ["r"], {}), *TAIL]
    tensors = smdlens.scale_symmetry(write(tmp_path / "m.onnx", nodes)).tensors
    assert {"bn.weight", "bn.bias"} <= set(tensors)
    assert tensors["conv.weight"].role is Role.SCALE_INVARIANT


def test_onnx_recurrent_layers_see_every_scale(tmp_path):
    """Rows of the image as a sequence: what the operator gives has a shape, its input a scale."""
    nodes = [
        CONVOLUTION, NORM, ("ReduceMean", ["n", "last"], ["m"], {"keepdims": 0}),
        ("Transpose", ["m"], ["s"], {"perm": [2, 0, 1]}),
        ("GRU", ["s", "gru.weight", "gru.hidden"], ["", "h"], {"hidden_size": 5}),
        ("Squeeze", ["h", "first"], ["z"], {}), ("Trilu", ["z"], ["y"], {}),
    ]  # fmt: skip
    weights = {
        "gru.weight": normal(1, 15, 6), "gru.hidden": normal(1, 15, 5), "last": np.array([3]),
        "first": np.array([0]),
    }  # fmt: skip
    tensors = smdlens.scale_symmetry(write(tmp_path / "m.onnx", nodes, weights)).tensors
    assert tensors["conv.weight"].role is Role.SCALE_INVARIANT
    assert tensors["gru.weight"].role is Role.NOT_SCALE_INVARIANT


def test_onnx_operator_without_a_translation_sees_every_scale(tmp_path):
    nodes = [CONVOLUTION, NORM, ("Relu", ["n"], ["r"], {}), *TAIL[:2]]
    nodes += [(TAIL[2][0], TAIL[2][1], ["z"], TAIL[2][3]), ("Mystery", ["z"], ["y"], {})]
    symmetry = smdlens.scale_symmetry(write(tmp_path / "m.onnx", nodes))
    assert symmetry.tensors["fc.weight"].role is Role.NOT_SCALE_INVARIANT
    assert any("Mystery" in note for note in symmetry.notes)
