"""Programs that JAX lowered, held against what scaling does in JAX."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

import smdlens
from smdlens.errors import GraphError, SmdlensError
from smdlens.symmetry.from_stablehlo import graph_of_stablehlo
from smdlens.symmetry.records import TensorSymmetry
from smdlens.symmetry.scale_symmetry import symmetry_of_graph
from smdlens.vocabulary import Granularity, Role

GOLDEN = Path(__file__).parent.parent / "golden" / "stablehlo"
TRUTH = json.loads((GOLDEN / "truth.json").read_text())
INVARIANT = (Role.SCALE_INVARIANT, Role.IRRELEVANT)


def _text(name: str) -> str:
    return gzip.decompress((GOLDEN / f"{name}.mlir.gz").read_bytes()).decode()


def _solved(tmp_path: Path, text: str) -> dict[str, TensorSymmetry]:
    (tmp_path / "net.mlir").write_text(text)
    return dict(smdlens.scale_symmetry(tmp_path / "net.mlir").tensors)


@pytest.mark.parametrize("name", ["residual", "residual_training", "transformer"])
def test_every_tensor_against_scaling_in_jax(tmp_path: Path, name: str) -> None:
    found = _solved(tmp_path, _text(name))
    truth = TRUTH[name.partition("_")[0]]
    assert {n: t.role in INVARIANT for n, t in found.items()} == truth
    assert sum(truth.values()) >= 3 and len(truth) - sum(truth.values()) >= 18


@pytest.mark.parametrize("name", ["residual", "residual_training"])
def test_roles_in_a_residual_network(tmp_path: Path, name: str) -> None:
    found = _solved(tmp_path, _text(name))
    deep = found["deep.weight"]
    assert (deep.shape, deep.role) == ((4, 1, 3, 3), Role.SCALE_INVARIANT)
    assert (deep.granularity, deep.axis, deep.groups) == (Granularity.CHANNEL, 0, 4)
    assert found["left.weight"].joint_with == ("right.weight",), "branches that meet in a sum"
    assert found["dense.weight"].joint_with == ("dense.bias",)
    assert found["free.weight"].role == Role.NOT_SCALE_INVARIANT
    norm = deep.norm
    assert norm is not None
    if name == "residual":
        assert (norm.running_var, norm.gamma) == ("bn2.running_var", "bn2.weight")


def test_keys_behind_a_norm_are_free_per_head(tmp_path: Path) -> None:
    found = _solved(tmp_path, _text("transformer"))
    assert (found["key.weight"].role, found["key.weight"].groups) == (Role.SCALE_INVARIANT, 2)
    assert found["plain.key.weight"].role == Role.NOT_SCALE_INVARIANT
    assert found["plain.key.bias"].role == Role.IRRELEVANT


def _program(*lines: str, named: bool = True) -> str:
    """x -> x a -> lines (from %0, giving %y) -> y b."""

    def loc(name: str) -> str:
        return f"""loc("p['params']['{name}']['kernel']")""" if named else "loc(unknown)"

    body = "\n".join(f"    {line}" for line in lines)
    return f"""module @m {{
  func.func public @main(%a: tensor<3x4xf32> {loc("a")}, %b: tensor<4x2xf32> {loc("b")},
 %x: tensor<5x3xf32> loc("x")) -> (tensor<5x2xf32>) {{
    %z = stablehlo.constant dense<0.000000e+00> : tensor<f32>
    %0 = stablehlo.dot_general %x, %a, contracting_dims = [1] x [0] : (tensor<5x3xf32>, tensor<3x4xf32>) -> tensor<5x4xf32>
{body}
    %r = stablehlo.dot_general %y, %b, contracting_dims = [1] x [0] : (tensor<5x4xf32>, tensor<4x2xf32>) -> tensor<5x2xf32>
    return %r : tensor<5x2xf32>
  }}
  func.func private @same(%v: tensor<5x4xf32>) -> tensor<5x4xf32> {{
    return %v : tensor<5x4xf32>
  }}
}}
""".replace(",\n %x", ", %x")  # noqa: E501 - one line in the format


SIZE = (
    "%q = stablehlo.multiply %0, %0 : tensor<5x4xf32>",
    "%s = stablehlo.reduce(%q init: %z) applies stablehlo.add across dimensions = [1] : (tensor<5x4xf32>, tensor<f32>) -> tensor<5xf32>",  # noqa: E501
    "%n = stablehlo.sqrt %s : tensor<5xf32>",
    "%w = stablehlo.broadcast_in_dim %n, dims = [0] : (tensor<5xf32>) -> tensor<5x4xf32>",
)


def test_divided_by_its_own_size(tmp_path: Path) -> None:
    divided = (*SIZE, "%y = stablehlo.divide %0, %w : tensor<5x4xf32>")
    assert _solved(tmp_path, _program(*divided))["a.weight"].role == Role.SCALE_INVARIANT


@pytest.mark.parametrize(
    "lines",
    [
        ("%y = stablehlo.tanh %0 : tensor<5x4xf32>",),
        ("%y = stablehlo.unheard_of %0 : tensor<5x4xf32>",),
        ("%y = call @same(%0) : (tensor<5x4xf32>) -> tensor<5x4xf32>",),
        ('%y = "stablehlo.custom_call"(%0) <{call_target_name = "f"}> : (tensor<5x4xf32>) -> tensor<5x4xf32>',),  # noqa: E501
        # A norm of what is used elsewhere too.
        (*SIZE, "%d = stablehlo.divide %0, %w : tensor<5x4xf32>",
         "%y = stablehlo.add %d, %0 : tensor<5x4xf32>"),
        # A loop uses a value from outside in its region alone.
        (*SIZE, "%d = stablehlo.divide %0, %w : tensor<5x4xf32>",
         "%y = stablehlo.while(%i = %d) : tensor<5x4xf32>",
         "cond {", "  stablehlo.return %z : tensor<f32>", "} do {",
         "  %k = stablehlo.add %i, %0 : tensor<5x4xf32>",
         "  stablehlo.return %k : tensor<5x4xf32>", "}"),
    ],
)  # fmt: skip
def test_nothing_is_claimed_without_a_norm(tmp_path: Path, lines: tuple[str, ...]) -> None:
    found = _solved(tmp_path, _program(*lines))
    assert {t.role for t in found.values()} == {Role.NOT_SCALE_INVARIANT}


def test_only_statistics_are_no_outputs(tmp_path: Path) -> None:
    """What a program gives under another name counts, whatever words the name is made of."""
    divided = (*SIZE, "%y = stablehlo.divide %0, %w : tensor<5x4xf32>")
    last = "return %r : tensor<5x2xf32>"
    text = _program(*divided).replace(last, "return %r, %0 : tensor<5x2xf32>, tensor<5x4xf32>")
    roles = {}
    for name in ("['last_hidden_state']", "['batch_stats']['norm']['mean']"):
        both = '(tensor<5x2xf32> {jax.result_info = "result[0]"}, '
        both += f'tensor<5x4xf32> {{jax.result_info = "result[1]{name}"}})'
        found = _solved(tmp_path, text.replace("(tensor<5x2xf32>) {", f"{both} {{"))
        roles[name] = found["a.weight"].role
    assert list(roles.values()) == [Role.NOT_SCALE_INVARIANT, Role.SCALE_INVARIANT]


def test_an_argument_called_state(tmp_path: Path) -> None:
    divided = (*SIZE, "%y = stablehlo.divide %0, %w : tensor<5x4xf32>")
    text = _program(*divided).replace("p['params']", "state.params")
    assert _solved(tmp_path, text)["a.weight"].role == Role.SCALE_INVARIANT


def test_text_without_the_names_of_arguments(tmp_path: Path) -> None:
    line = "%y = stablehlo.tanh %0 : tensor<5x4xf32>"
    with pytest.raises(GraphError, match="which argument is which parameter"):
        _solved(tmp_path, _program(line, named=False))
    (tmp_path / "net.bin").write_bytes(b"ML\xefR\x01\x02")
    with pytest.raises(GraphError, match="bytecode"):
        smdlens.scale_symmetry(tmp_path / "net.bin")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("%y = call @main(%a, %b, %x) : () -> tensor<5x2xf32>", "without end"),
        ("%y = call @nowhere(%0) : () -> tensor<5x4xf32>", "is not in the text"),
        ("%y = stablehlo.tanh %0 : tensor<?x4xf32>", "only known at run time"),
        ("%y = stablehlo.iota dim = 0 : tensor<99999999x99999999x99999999xf32>", "impossible"),
        ("%y = stablehlo.constant dense<[1.0, 2.0]> : tensor<5x4xf32>", "form that is not known"),
        ("%y = stablehlo.tanh %nothing : tensor<5x4xf32> }", "do not match|ends inside"),
        ("(((", "not read|form that is not known"),
    ],
)
def test_hostile_text(tmp_path: Path, line: str, match: str) -> None:
    with pytest.raises(GraphError, match=match) as caught:
        _solved(tmp_path, _program(line))
    assert str(tmp_path / "net.mlir") in str(caught.value)


def test_repeated_numbers_take_no_memory(tmp_path: Path) -> None:
    lines = (
        "%k = stablehlo.constant dense<2.0> : tensor<400000x900000xf32>",
        "%l = stablehlo.add %k, %k : tensor<400000x900000xf32>",
        "%m = stablehlo.slice %l [0:5, 0:4] : (tensor<400000x900000xf32>) -> tensor<5x4xf32>",
        "%y = stablehlo.multiply %0, %m : tensor<5x4xf32>",
    )
    found = _solved(tmp_path, _program(*lines))
    assert found["a.weight"].role == Role.NOT_SCALE_INVARIANT


def test_cut_and_mutated_text(tmp_path: Path) -> None:
    text = _text("residual")
    path = tmp_path / "net.mlir"
    start = text.index("func.func")
    end = text.rindex("return %", 0, text.index("func.func private"))
    for cut in range(start, end, (end - start) // 60):
        path.write_text(text[:cut])
        with pytest.raises(GraphError) as caught:
            graph_of_stablehlo(path)
        assert str(path) in str(caught.value)
    draw = random.Random(0)
    refused = 0
    for _ in range(100):
        broken = list(text)
        for _ in range(draw.choice((1, 5, 40))):
            broken[draw.randrange(start, end)] = draw.choice('%#<>(){}x0:"9a ')
        path.write_text("".join(broken))
        try:
            symmetry_of_graph(graph_of_stablehlo(path))
        except SmdlensError:
            refused += 1
    assert refused > 30
