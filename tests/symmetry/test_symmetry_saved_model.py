"""SavedModels that TensorFlow and Keras wrote, against what scaling does in these frameworks."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import smdlens
from smdlens.errors import GraphError, SmdlensError
from smdlens.snapshots import open_series
from smdlens.snapshots.series import open_snapshot
from smdlens.symmetry.arithmetic_norms import with_norms
from smdlens.symmetry.find import find_scale_groups
from smdlens.symmetry.from_saved_model import graph_of_saved_model
from smdlens.symmetry.model_graph import Constant, ModelGraph, Node, Parameter, Ref
from smdlens.symmetry.scale_symmetry import symmetry_of_graph
from smdlens.symmetry.tape import Tape
from smdlens.vocabulary import EvidenceKind, Role

GOLDEN = Path(__file__).parent.parent / "golden"
INVARIANT = (Role.SCALE_INVARIANT, Role.IRRELEVANT)


def _truth(which: str) -> dict[str, Any]:
    packed = (GOLDEN / "keras_graphs" / f"{which}.json.gz").read_bytes()
    return {entry["network"]: entry for entry in json.loads(gzip.decompress(packed))}


TRUTH = {which: _truth(which) for which in ("keras", "tf_keras")}
NETWORKS = [(which, name) for which, entries in TRUTH.items() for name in entries]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved_models")
    for which in TRUTH:
        with tarfile.open(GOLDEN / "saved_models" / f"{which}.tar.xz") as archive:
            archive.extractall(folder / which, filter="data")
    return folder


def _name(name: str) -> str:
    """Keras' truth names layers by their models too, and separable kernels by their part."""
    name = name.removeprefix("stem.").removeprefix("tail.")
    return name.replace("separable_conv2d.depthwise_kernel", "separable_conv2d.weight")


@pytest.mark.parametrize("key", NETWORKS, ids="/".join)
def test_every_tensor_against_the_framework(models: Path, key: tuple[str, str]) -> None:
    which, name = key
    solved = symmetry_of_graph(graph_of_saved_model(models / which / name)).tensors
    found = {_name(own): tensor for own, tensor in solved.items()}
    trained = {_name(t["name"]): t for t in TRUTH[which][name]["tensors"] if "invariant" in t}
    assert set(found) == set(trained)
    for own, tensor in trained.items():
        ours = found[own]
        assert (ours.role in INVARIANT) == tensor["invariant"], (own, ours.evidence)
        assert sorted(ours.shape) == sorted(tensor["shape"]), own
        by_channel = ours.role == Role.SCALE_INVARIANT and ours.granularity == "channel"
        if by_channel and ours.axis == 0 and list(ours.shape) == tensor["shape"]:
            assert tensor["channel"], own


def test_a_module_in_tensorflows_own_operators(models: Path) -> None:
    truth = json.loads((GOLDEN / "saved_models" / "module.json").read_text())
    found = symmetry_of_graph(graph_of_saved_model(models / "keras" / "module")).tensors
    assert {n: t.role in INVARIANT for n, t in found.items()} == truth
    assert (found["stem"].granularity, found["stem"].axis, found["stem"].groups) == (
        "channel",
        3,
        4,
    )
    assert found["stem"].norm is not None and found["stem"].norm.gamma == "gain"
    assert found["left"].joint_with == ("right",), "a sum in front of a norm mixes its branches"
    assert found["mix"].role == Role.JOINTLY_SCALE_INVARIANT
    for free in ("free", "late", "out"):
        assert found[free].role == Role.NOT_SCALE_INVARIANT


def test_a_run_needs_no_option(models: Path, tmp_path: Path) -> None:
    for step in (3, 6):
        shutil.copytree(models / "keras" / "resnet", tmp_path / f"step_{step}")
    series = open_series(tmp_path)
    assert series.steps == (3, 6)
    # The statistics are the same in both: as if they were frozen.
    groups = find_scale_groups(series)
    assert groups.source == "graph"
    assert groups.tensors["conv2d.weight"].role == Role.NOT_SCALE_INVARIANT
    _moved(tmp_path / "step_6")
    groups = find_scale_groups(open_series(tmp_path))
    conv = groups.tensors["conv2d.weight"]
    assert (conv.role, conv.groups) == (Role.SCALE_INVARIANT, 4)
    assert conv.norm is not None and conv.norm.running_var == "batch_normalization.running_var"
    assert conv.norm.gamma == "batch_normalization.weight"
    said = smdlens.scale_symmetry(tmp_path / "step_3" / "saved_model.pb")
    assert said.source == "saved-model"
    assert said.tensors["conv2d.weight"].role == Role.SCALE_INVARIANT


def _moved(folder: Path) -> None:
    """Other running variances in a checkpoint."""
    for name, ref in open_snapshot(folder).tensors.items():
        if name.endswith("running_var"):
            (extent,) = ref.extents
            with Path(extent.path).open("r+b") as file:
                file.seek(extent.offset)
                file.write(b"\x3f" * extent.nbytes)


@cache
def _program() -> bytes:
    with tarfile.open(GOLDEN / "saved_models" / "keras.tar.xz") as archive:
        member = archive.extractfile("two_outputs/saved_model.pb")
        assert member is not None
        return member.read()


def test_every_cut_of_the_program_is_a_clear_error(models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "keras" / "two_outputs", tmp_path / "step_1")
    program = folder / "saved_model.pb"
    data = _program()
    for cut in (*range(0, 200, 7), *range(200, len(data), len(data) // 60)):
        program.write_bytes(data[:cut])
        with pytest.raises(GraphError) as caught:
            graph_of_saved_model(folder)
        assert str(folder) in str(caught.value)


def test_mutated_programs_are_understood_or_refused(models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "keras" / "two_outputs", tmp_path / "step_1")
    draw = random.Random(0)
    refused = 0
    for _ in range(150):
        data = bytearray(_program())
        for _ in range(draw.choice((1, 3, 20))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        (folder / "saved_model.pb").write_bytes(data)
        try:
            symmetry_of_graph(graph_of_saved_model(folder))
        except SmdlensError:
            refused += 1
    assert refused > 20


def test_a_program_that_is_not_understood_leaves_the_names(models: Path, tmp_path: Path) -> None:
    for step in (3, 6):
        folder = shutil.copytree(models / "keras" / "resnet", tmp_path / f"step_{step}")
        (folder / "saved_model.pb").write_bytes(b"\x12\x00")
    groups = find_scale_groups(open_series(tmp_path))
    assert groups.source == "names"
    evidence = groups.tensors["conv2d.weight"].evidence
    assert any(e.kind == EvidenceKind.NAMES and "no graph" in e.detail for e in evidence)


def test_a_folder_without_a_program(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="no graph is read from this"):
        smdlens.scale_symmetry(tmp_path)


@pytest.mark.parametrize("what", ["calls itself", "large constant", "loop"])
def test_hostile_programs(models: Path, tmp_path: Path, what: str) -> None:
    folder = shutil.copytree(models / "keras" / "two_outputs", tmp_path / "step_1")
    (folder / "saved_model.pb").write_bytes(_hostile(what))
    with pytest.raises(GraphError, match=r"without end|impossible|wait for each other"):
        graph_of_saved_model(folder)


def _field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    parts = [_field(1, name.encode()), _field(2, op.encode())]
    parts += [_field(3, text.encode()) for text in inputs]
    for key, value in attributes.items():
        parts.append(_field(5, _field(1, key.encode()) + _field(2, value)))
    return b"".join(parts)


def _hostile(what: str) -> bytes:
    call = _node("again", "PartitionedCall", f=_field(10, _field(1, b"f")))
    body = b""
    if what == "calls itself":
        signature = _field(1, b"f") + _field(3, _field(1, b"r"))
        function = _field(1, signature) + _field(3, call)
        function += _field(4, _field(1, b"r") + _field(2, b"again:output:0"))
        body = _field(1, call) + _field(2, _field(1, function))
    elif what == "loop":
        body = _field(1, _node("again", "Neg", "other")) + _field(1, _node("other", "Neg", "again"))
    else:
        dims = b"".join(_field(2, _field(1, 1 << 40)) for _ in range(3))
        constant = _field(8, _field(1, 1) + _field(2, dims))
        body = _field(1, _node("c", "Const", value=constant))
        body += _field(1, _node("again", "Neg", "c"))
    info = _field(1, b"again:0") + _field(2, 1)
    signature = _field(1, b"serve") + _field(2, _field(2, _field(1, b"y") + _field(2, info)))
    return _field(2, _field(2, body) + _field(5, signature))


def test_norms_behind_a_long_residual_sum() -> None:
    """Each summand is a value and its bias: more of them than an expanded sum may have."""
    nodes: list[Node] = []

    def add(op: str, arguments: dict[str, object], shape: tuple[int, ...]) -> Ref:
        nodes.append(Node(f"n{len(nodes)}", op, arguments, (shape,)))
        return Ref(nodes[-1].name)

    names = [f"{kind}{at}" for at in range(9) for kind in ("w", "b")]
    parameters = {n: Parameter(n, (4, 4) if n[0] == "w" else (4,), "float32") for n in names}
    parameters |= {n: Parameter(n, (4,), "float32") for n in ("gain", "shift")}
    parameters["out"] = Parameter("out", (2, 4), "float32")
    constants = {
        "x": Constant("", (5, 4), is_input=True), "m": Constant("bn.running_mean", (4,)),
        "v": Constant("bn.running_var", (4,)),
    }  # fmt: skip
    trunk: Ref | None = None
    for at in range(9):
        y = add("linear", {"input": Ref("x"), "weight": Ref(f"w{at}")}, (5, 4))
        y = add("add", {"self": y, "other": Ref(f"b{at}")}, (5, 4))
        trunk = y if trunk is None else add("add", {"self": trunk, "other": y}, (5, 4))
    root = add("rsqrt", {"self": add("add", {"self": Ref("v"), "other": 1e-3}, (4,))}, (4,))
    factor = add("mul", {"self": root, "other": Ref("gain")}, (4,))
    moved = add("mul", {"self": Ref("m"), "other": factor}, (4,))
    moved = add("sub", {"self": Ref("shift"), "other": moved}, (4,))
    scaled = add("mul", {"self": trunk, "other": factor}, (5, 4))
    normed = add("add", {"self": scaled, "other": moved}, (5, 4))
    last = add("linear", {"input": normed, "weight": Ref("out")}, (5, 2))
    graph = ModelGraph(parameters, constants, tuple(nodes), (last.name,), "test")
    found = symmetry_of_graph(with_norms(graph)).tensors
    assert set(found["w3"].joint_with) == {f"w{at}" for at in range(9) if at != 3}
    assert found["b3"].role == Role.IRRELEVANT
    frozen = with_norms(graph, frozenset({"gain"}))
    assert symmetry_of_graph(frozen).tensors["w3"].role == Role.NOT_SCALE_INVARIANT
    other = {**constants, "v": Constant("something", (4,))}
    unnamed = with_norms(ModelGraph(parameters, other, tuple(nodes), (last.name,), "test"))
    assert symmetry_of_graph(unnamed).tensors["w3"].role == Role.NOT_SCALE_INVARIANT


def test_what_is_known_of_a_value_ends_with_it() -> None:
    """A translation that is given up leaves nothing that another value could be taken for."""
    tape = Tape()
    x = tape.constant("x", (2, 6), is_input=True)
    total = tape.reduce("sum", x, [1], keep=True)
    tape.undo(0)
    again = tape.alone("tanh", x)
    assert again != total and tape.sum_of(again) is None and tape.sum_of(total) is not None
    turned = tape.parameter("w", (3, 2), "float32", [1, 0])
    assert tape.parameter("w", (3, 2), "float32", [1, 0]) == turned
    tape.undo(1)
    assert tape.parameter("w", (3, 2), "float32", [1, 0]) != turned
