"""TorchScript's source followed, against torch.export of the same networks and against scaling."""

from __future__ import annotations

import io
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from micro_models import MICRO
from rescaling_oracle import Oracle
from strangers import NETS
from torch import Tensor, nn

import smdlens
from smdlens.errors import GraphError, SmdlensError
from smdlens.snapshots import open_series
from smdlens.symmetry.find import find_scale_groups
from smdlens.symmetry.from_torchscript import graph_of_torchscript
from smdlens.symmetry.records import TensorSymmetry
from smdlens.symmetry.scale_symmetry import symmetry_of_graph
from smdlens.vocabulary import EvidenceKind, Role

for _name in ("attention", "backbones", "convolutional", "cosine", "normalised", "sequences"):
    __import__(f"strangers_{_name}")

CHOSEN = (
    "conv_act_bn", "depthwise_bn", "conv_gn", "transposed_bn", "linear_rms_bias", "SqueezeExcite",
    "SkipMeetsBranch", "Recurrent", "attention_fused_rms", "GroupedQueries", "TiedEmbedding",
    "WeightStandardised", "MaxWithIndices",
)  # fmt: skip
# Networks that writes into views, or torch's own refusal, leave without a graph.
WITHOUT = ("WriteIntoView", "WriteIntoViewThenNorm")
pytestmark = pytest.mark.filterwarnings("ignore")


def _saved(kind: str, model: nn.Module, inputs: Any, path: Path) -> bool:
    """Saves the model; False where torch cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if kind == "trace":
                program = torch.jit.trace(model, inputs, check_trace=False)
            else:
                program = torch.jit.script(model)
        except Exception:
            return False
        torch.jit.save(program, path)
    return True


def _said(tensor: TensorSymmetry) -> tuple[Any, ...]:
    joint = tuple(sorted(tensor.joint_with))
    return tensor.role, tensor.granularity, tensor.groups, tensor.axis, joint, tensor.parts


def _same_as_live(kind: str, model: nn.Module, inputs: Any, path: Path) -> bool | None:
    """Asserts the answer of torch.export; None where there is no archive."""
    if not _saved(kind, model, inputs, path):
        return None
    shapes = [(tuple(x.shape), str(x.dtype).partition(".")[2]) for x in inputs]
    found = symmetry_of_graph(graph_of_torchscript(path, shapes)).tensors
    live = smdlens.scale_symmetry(model, inputs).tensors
    assert {n: _said(t) for n, t in found.items()} == {n: _said(t) for n, t in live.items()}
    return True


@pytest.mark.parametrize("kind", ["trace", "script"])
@pytest.mark.parametrize("name", CHOSEN)
def test_the_answer_of_torch_export(tmp_path: Path, name: str, kind: str) -> None:
    factory, inputs = MICRO[name]
    torch.manual_seed(0)
    saved = _same_as_live(kind, factory().eval(), inputs, tmp_path / "m.pt")
    assert saved or kind == "script", "everything chosen can be traced"


@pytest.mark.deep
@pytest.mark.parametrize("kind", ["trace", "script"])
def test_the_whole_corpus(tmp_path: Path, kind: str) -> None:
    refused, same = [], 0
    nets = {name: (lambda f=f, i=i: (f().eval(), i)) for name, (f, i) in MICRO.items()}
    nets |= {name: (lambda b=b: b()[:2]) for name, b in NETS.items()}
    for name, build in nets.items():
        torch.manual_seed(0)
        model, inputs = build()
        try:
            same += bool(_same_as_live(kind, model, inputs, tmp_path / "m.pt"))
        except GraphError:
            refused.append(name)
    assert same > 120, same
    assert set(WITHOUT) <= set(refused) and len(refused) < 15, refused


class Small(nn.Module):
    """Residual convolutions, depthwise, dense with layer norm; a sum that mixes; a free head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.bn2 = nn.BatchNorm2d(6)
        self.left = nn.Conv2d(6, 4, 1, bias=False)
        self.right = nn.Conv2d(6, 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4)
        self.dense = nn.Linear(4, 5)
        self.norm = nn.LayerNorm(5)
        self.free = nn.Linear(5, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.stem(x)))
        x = torch.relu(x + self.bn2(self.deep(x)))
        x = self.bn3(self.left(x) + self.right(x))
        x = self.norm(self.dense(x.mean((2, 3))))
        return torch.softmax(self.head(torch.tanh(self.free(x))), -1)


@pytest.mark.parametrize("kind", ["trace", "script"])
def test_every_tensor_against_scaling(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model, inputs = Small(), (torch.randn(2, 3, 8, 8),)
    oracle = Oracle(model, inputs)
    assert _saved(kind, model.eval(), inputs, tmp_path / "m.pt")
    found = smdlens.scale_symmetry(tmp_path / "m.pt").tensors  # sizes are found or kept
    for name in oracle.names():
        alone = found[name].role in (Role.SCALE_INVARIANT, Role.IRRELEVANT)
        assert alone == oracle.is_invariant(name), name
    assert {n for n, t in found.items() if t.role == Role.SCALE_INVARIANT} == {
        "stem.weight", "deep.weight",
    }  # fmt: skip
    assert found["deep.weight"].groups == 6 and found["left.weight"].joint_with == ("right.weight",)
    factors = torch.rand(6) + 0.5
    assert oracle.keeps("deep.weight", 0, factors)


def test_a_run_needs_no_option(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = Small().eval(), (torch.randn(2, 3, 8, 8),)
    for step in (1, 2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
            for norm in (model.bn1, model.bn2, model.bn3):
                assert norm.running_var is not None
                norm.running_var.mul_(1.5)
        _saved("trace", model, inputs, tmp_path / f"step_{step}.pt")
    groups = find_scale_groups(open_series(tmp_path))
    assert groups.source == "graph"
    stem = groups.tensors["stem.weight"]
    assert stem.role == Role.SCALE_INVARIANT and stem.norm is not None
    assert stem.norm.running_var == "bn1.running_var"
    assert groups.tensors["free.weight"].role == Role.NOT_SCALE_INVARIANT


class Masked(nn.Module):
    """Masks made of masks, sizes reckoned with, padding by name: what transformers write."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv1d(4, 6, 3, padding="same", bias=False)
        self.norm = nn.LayerNorm(6)
        self.value = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.same(x).transpose(1, 2))
        places = torch.arange(x.shape[1])
        seen = (places[:, None] >= places[None]) & (places[None] >= 0)
        scores = (x @ x.transpose(1, 2)).masked_fill(~seen, float("-inf"))
        y: Tensor = torch.softmax(scores, -1) @ self.value(x) * (1 - x.shape[1] / 100)
        return y


@pytest.mark.parametrize("kind", ["trace", "script"])
def test_masks_and_sizes(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model, inputs = Masked().eval(), (torch.randn(2, 4, 5),)
    assert _same_as_live(kind, model, inputs, tmp_path / "m.pt")
    found = smdlens.scale_symmetry(tmp_path / "m.pt", inputs).tensors
    assert found["same.weight"].role == Role.SCALE_INVARIANT


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x)
        if bool(y.sum() > 0):
            y = y * 2
        return y


def test_a_branch_on_values_has_no_graph(tmp_path: Path) -> None:
    assert _saved("script", Branches(), (torch.randn(2, 4),), tmp_path / "step_1.pt")
    with pytest.raises(GraphError, match="depends on the numbers"):
        graph_of_torchscript(tmp_path / "step_1.pt")
    _saved("script", Branches(), (torch.randn(2, 4),), tmp_path / "step_2.pt")
    groups = find_scale_groups(open_series(tmp_path))
    assert groups.source == "names"
    evidence = groups.tensors["fc.weight"].evidence
    assert any(e.kind == EvidenceKind.NAMES and "no graph" in e.detail for e in evidence)


@pytest.mark.parametrize("name", WITHOUT)
def test_writes_into_views_are_refused(tmp_path: Path, name: str) -> None:
    factory, inputs = MICRO[name]
    assert _saved("trace", factory().eval(), inputs, tmp_path / "m.pt")
    with pytest.raises(GraphError, match=r"torch\.copy_ is not read|writes into a view"):
        graph_of_torchscript(tmp_path / "m.pt")


def test_shapes_that_are_not_in_the_file_can_be_given(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Flatten(1), nn.Linear(18, 2)).eval()
    path = tmp_path / "m.pt"
    assert _saved("script", model, (torch.randn(2, 3, 4),), path)
    with pytest.raises(GraphError, match="--input"):
        smdlens.scale_symmetry(path)
    found = smdlens.scale_symmetry(path, (torch.zeros(2, 3, 4),)).tensors
    assert set(found) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def _archive(tmp_path: Path, change: Callable[[str], str]) -> Path:
    """A scripted network with other source."""
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.LayerNorm(6))
    held = io.BytesIO()
    torch.jit.save(torch.jit.trace(model.eval(), (torch.randn(2, 4),)), held)
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(held) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if "/linear" in name and name.endswith(".py"):
                data = change(data.decode()).encode()
            target.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("_9 = open('{mark}', 'w')", "not read|no value"),
        ("_9 = __import__('os').system('touch {mark}')", "not read|no value"),
        ("_9 = torch.from_file('{mark}', True, 10)", "not known|not read"),
        ("_9 = torch.save(weight, '{mark}')", "is not read"),
        ("_9 = ().__class__.__bases__", "is not in the archive"),
        ("while True:\n      pass", "takes too long"),
        ("_9 = (self).forward(weight, )", "without end"),
        ("_9 = torch.zeros([99999999999, 99999999999])\n    x = torch.unbind(_9)", "pieces|fit"),
        ("_9 = torch.mul([1], 99999999999)", "too long a list|large"),
        ("_9 = torch.pow(9, 99999999)", "too large"),
        ("_9 = " + "(" * 190 + ")" * 190, "nests too deeply"),
        ("_9 = " + "not " * 5000 + "True", "not what torch writes|form that is not known"),
        ("_9 = lambda: 1", "not read"),
        ("import os", "not read"),
        ("_9 = unheard", "has no value"),
    ],
)
def test_hostile_source_is_never_run(tmp_path: Path, line: str, match: str) -> None:
    mark = tmp_path / "mark"
    own = line.replace("{mark}", str(mark))

    def change(source: str) -> str:
        assert source.count("    weight = self.weight\n") == 1
        return source.replace(
            "    weight = self.weight\n", f"    weight = self.weight\n    {own}\n"
        )

    assert graph_of_torchscript(_archive(tmp_path, lambda source: source)).nodes
    with pytest.raises(GraphError, match=match) as caught:
        graph_of_torchscript(_archive(tmp_path, change))
    assert str(tmp_path / "m.pt") in str(caught.value)
    assert not mark.exists()


def test_a_pickle_without_an_end_is_said(tmp_path: Path) -> None:
    path = _archive(tmp_path, lambda source: source)
    whole = tmp_path / "cut.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(whole, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data[:-1] if name.endswith("/data.pkl") else data)
    with pytest.raises(GraphError, match=r"cut\.pt: .*has no end"):
        graph_of_torchscript(whole)


def test_cut_and_mutated_archives(tmp_path: Path) -> None:
    path = _archive(tmp_path, lambda source: source)
    data = path.read_bytes()
    draw = random.Random(0)
    for cut in range(0, len(data) - 1, max(1, len(data) // 100)):
        path.write_bytes(data[:cut])
        with pytest.raises(SmdlensError) as caught:
            smdlens.scale_symmetry(path)
        assert str(path) in str(caught.value)
    refused = 0
    for _ in range(200):
        broken = bytearray(data)
        for _ in range(draw.choice((1, 4, 30))):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        path.write_bytes(broken)
        try:
            smdlens.scale_symmetry(path)
        except SmdlensError:
            refused += 1
    assert refused > 100
