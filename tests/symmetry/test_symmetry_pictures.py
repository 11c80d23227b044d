"""Pictures of a deep network: equal blocks once, scales followed to where they end."""

from __future__ import annotations

import io
import re

import pytest
import torch
from rich.console import Console
from torch import nn

import smdlens
from smdlens.report.scale_graph import dot, html, tree
from smdlens.report.scale_graph.blocks import repeats
from smdlens.report.scale_graph.picture import places
from smdlens.report.scale_graph.shortened import relative


class Block(nn.Module):
    def __init__(self, width, *, odd=False):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=odd)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x))) + x


class Deep(nn.Module):
    """A stem, twelve equal blocks with one odd one among them, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.trunk = nn.ModuleDict(
            {"blocks": nn.ModuleList(Block(4, odd=i == 5) for i in range(12))}
        )
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.trunk["blocks"]:
            x = block(x)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def symmetry():
    return smdlens.scale_symmetry(Deep(), (torch.randn(2, 3, 8, 8),))


def shown(symmetry, width, **options):
    stream = io.StringIO()
    tree.render(symmetry, Console(file=stream, width=width), "deep", **options)
    return stream.getvalue()


def test_equal_blocks_are_one_and_an_odd_one_parts_them(symmetry):
    found = repeats(symmetry)
    assert [(r.first, r.others[0], r.others[-1]) for r in found] == [
        ("trunk.blocks.0", "trunk.blocks.1", "trunk.blocks.4"),
        ("trunk.blocks.6", "trunk.blocks.7", "trunk.blocks.11"),
    ]


@pytest.mark.parametrize("width", [80, 160])
def test_tree_fits_and_says_every_block(symmetry, width):
    text = shown(symmetry, width)
    assert max(map(len, text.splitlines())) <= width
    assert "1 to 4  like 0" in text and "7 to 11  like 6" in text
    assert "conv.weight  4x4x3x3  scale invariant (4 pieces, per channel)" in text
    assert "trunk.blocks" in text and "normalised by batch norm `..norm`" in text
    whole = shown(symmetry, width, verbose=True)
    assert "like" not in whole and whole.count("weight  4x4x3x3") == 12


def test_picture_draws_each_kind_of_block_once(symmetry):
    drawn = places(symmetry)
    repeated = [p for p in drawn if not p.op]
    assert [p.module for p in repeated] == [
        "trunk.blocks.1 to 4, like trunk.blocks.0", "trunk.blocks.7 to 11, like trunk.blocks.6",
    ]  # fmt: skip
    names = {p.name for p in drawn}
    order = {p.name: at for at, p in enumerate(drawn)}
    for place in drawn:
        assert set(place.inputs) <= names
        assert all(order[name] < order[place.name] for name in place.inputs)
    ends = {name: p.op for p in drawn for name in p.ends}
    assert "batch_norm" in ends["trunk.blocks.0.conv.weight"]
    # The odd block's bias does not matter; every drawn convolution is followed by its norm.
    assert sum(p.op.startswith("conv") for p in drawn) == 4


def test_page_and_dot_hold_what_is_drawn(symmetry):
    page = html.dumps(symmetry, "deep")
    main, _, rest = page.partition("<details>")
    assert main.count("conv.weight</td>") == 3 and rest.count("conv.weight</td>") == 12
    assert "trunk.blocks.1 to 4: like trunk.blocks.0" in main
    text = dot.dumps(symmetry)
    assert text.count("shape=box3d") == 2
    declared = set(re.findall(r'^  ("[^"]+") \[', text, re.M))
    used = set(re.findall(r'("[^"]+") -> ("[^"]+")', text))
    assert {name for edge in used for name in edge} <= declared


def test_shared_parts_of_names_are_left_out():
    assert relative("meets `a.b.c.norm` with `a.x`", "a.b.c.conv.weight") == (
        "meets `..norm` with `a.x`"
    )
    assert relative("alone", "a.b") == "alone"
