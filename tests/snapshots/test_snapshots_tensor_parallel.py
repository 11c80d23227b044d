"""Tensor-parallel slices of Megatron-LM put together; files built from its documented layout.

A whole network is cut here as Megatron cuts it, saved rank by rank, and held against itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

import smdlens
from smdlens.errors import SnapshotCorruptError, SnapshotTruncatedError, SnapshotUnsupportedError

HIDDEN, INNER, VOCABULARY = 8, 16, 12
CORE = {
    "embedding.word_embeddings.weight": (VOCABULARY, HIDDEN),
    "embedding.position_embeddings.weight": (4, HIDDEN),
    "decoder.layers.0.self_attention.linear_qkv.layer_norm_weight": (HIDDEN,),
    "decoder.layers.0.self_attention.linear_qkv.weight": (3 * HIDDEN, HIDDEN),
    "decoder.layers.0.self_attention.linear_qkv.bias": (3 * HIDDEN,),
    "decoder.layers.0.self_attention.linear_proj.weight": (HIDDEN, HIDDEN),
    "decoder.layers.0.self_attention.linear_proj.bias": (HIDDEN,),
    "decoder.layers.0.pre_mlp_layernorm.weight": (HIDDEN,),
    "decoder.layers.0.mlp.linear_fc1.weight": (2 * INNER, HIDDEN),
    "decoder.layers.0.mlp.linear_fc1.bias": (2 * INNER,),
    "decoder.layers.0.mlp.linear_fc2.weight": (HIDDEN, INNER),
    "decoder.layers.0.mlp.linear_fc2.bias": (HIDDEN,),
    "decoder.final_layernorm.weight": (HIDDEN,),
    "output_layer.weight": (VOCABULARY, HIDDEN),
}
OLDER = {
    "language_model.embedding.word_embeddings.weight": (VOCABULARY, HIDDEN),
    "language_model.encoder.layers.0.input_layernorm.weight": (HIDDEN,),
    "language_model.encoder.layers.0.self_attention.query_key_value.weight": (3 * HIDDEN, HIDDEN),
    "language_model.encoder.layers.0.self_attention.dense.weight": (HIDDEN, HIDDEN),
    "language_model.encoder.layers.0.self_attention.dense.bias": (HIDDEN,),
    "language_model.encoder.layers.0.mlp.dense_h_to_4h.weight": (2 * INNER, HIDDEN),
    "language_model.encoder.layers.0.mlp.dense_4h_to_h.weight": (HIDDEN, INNER),
    "language_model.encoder.final_norm.weight": (HIDDEN,),
}
BY_INPUT = ("linear_proj.weight", "linear_fc2.weight", "dense.weight", "dense_4h_to_h.weight")
UNCUT = ("norm", "position_embeddings", "linear_proj.bias", "linear_fc2.bias", "dense.bias")
Tensors = dict[str, torch.Tensor]


def cut(name: str, tensor: torch.Tensor, rank: int, ranks: int, *, gated: bool) -> torch.Tensor:
    if name.endswith(BY_INPUT):
        return tensor.chunk(ranks, 1)[rank].contiguous()
    if any(word in name for word in UNCUT):
        return tensor
    if gated and ("linear_fc1" in name or "dense_h_to_4h" in name):
        gate, value = tensor.chunk(2)
        return torch.cat([gate.chunk(ranks)[rank], value.chunk(ranks)[rank]])
    return tensor.chunk(ranks)[rank].contiguous()


def drawn(shapes: dict[str, tuple[int, ...]]) -> list[Tensors]:
    """Weights and both moments of a network."""
    draw = torch.Generator().manual_seed(0)
    return [{n: torch.randn(s, generator=draw) for n, s in shapes.items()} for _ in range(3)]


def save(
    folder: Path, network: list[Tensors], ranks: int, *, gated: bool = False, **changes: Any
) -> Path:
    for rank in range(ranks):
        parts = [
            {n: cut(n, t, rank, ranks, gated=gated) for n, t in tensors.items()}
            for tensors in network
        ]
        weights = {n: torch.nn.Parameter(t) for n, t in parts[0].items()}
        groups = [
            {"params": [w for w in weights.values() if w.dim() > 1], "weight_decay": 0.0625},
            {"params": [w for w in weights.values() if w.dim() == 1], "weight_decay": 0.0},
        ]
        adam = torch.optim.AdamW(groups, lr=0.125)
        for name, weight in weights.items():
            adam.state[weight] = {
                "step": torch.tensor(3.0),
                "exp_avg": parts[1][name],
                "exp_avg_sq": parts[2][name],
            }
        content = {
            "model": parts[0], "optimizer": {"optimizer": adam.state_dict()}, "iteration": 3,
            "args": argparse.Namespace(swiglu=gated),
        } | changes  # fmt: skip
        place = folder / "iter_0000003" / f"mp_rank_{rank:02d}"
        place.mkdir(parents=True)
        torch.save(content, place / "model_optim_rng.pt")
    return folder / "iter_0000003"


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("shapes", [CORE, OLDER], ids=["core", "older"])
def test_slices_are_joined(tmp_path: Path, shapes: Any, ranks: int, gated: bool) -> None:
    network = drawn(shapes)
    checkpoint = smdlens.open_checkpoint(save(tmp_path, network, ranks, gated=gated))
    assert checkpoint.step == 3 and set(checkpoint.tensors) == set(shapes)
    for name, weight in network[0].items():
        assert torch.equal(checkpoint.read(name), weight), name
    decayed, plain = checkpoint.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.0625, 0.0)
    # Names follow from order and shapes, which decide for all weights or for none.
    slots = {name: checkpoint.slots(name) for name in shapes}
    for name, held in slots.items():
        assert torch.equal(held["first_moment"], network[1][name]), name
        assert torch.equal(held["second_moment"], network[2][name]), name


def test_whether_it_is_gated_must_be_known(tmp_path: Path) -> None:
    folder = save(tmp_path, drawn(CORE), 2, args=None)
    with pytest.raises(SnapshotUnsupportedError, match=r"linear_fc1\.weight' is cut is not known"):
        smdlens.open_checkpoint(folder)


def test_a_tensor_of_another_name_is_not_guessed(tmp_path: Path) -> None:
    folder = save(tmp_path, drawn({**OLDER, "adapter.mixing.weight": (4, 4)}), 2)
    with pytest.raises(SnapshotUnsupportedError, match=r"'adapter\.mixing\.weight' is cut"):
        smdlens.open_checkpoint(folder)


def test_ranks_that_do_not_fit(tmp_path: Path) -> None:
    folder = save(tmp_path, drawn(CORE), 2)
    other = folder / "mp_rank_01" / "model_optim_rng.pt"
    content = torch.load(other, weights_only=False)
    whole = content["model"]
    name = "decoder.final_layernorm.weight"
    for model in (
        {n: t for n, t in whole.items() if n != name},
        whole | {name: torch.zeros(HIDDEN + 1)},
        whole | {"output_layer.weight": torch.zeros(3, HIDDEN + 1)},
        whole | {name: torch.zeros(HIDDEN, dtype=torch.float64)},
        whole | {"extra_layernorm.weight": torch.zeros(2)},
    ):
        torch.save(content | {"model": model}, other)
        with pytest.raises(SnapshotCorruptError, match="do not fit together"):
            smdlens.open_checkpoint(folder)


def test_missing_ranks_and_stages_of_a_pipeline(tmp_path: Path) -> None:
    folder = save(tmp_path, drawn(CORE), 3)
    (folder / "mp_rank_01").rename(folder / "gone")
    with pytest.raises(SnapshotTruncatedError, match="mp_rank_01"):
        smdlens.open_checkpoint(folder)
    (folder / "gone").rename(folder / "mp_rank_00_001")
    with pytest.raises(SnapshotUnsupportedError, match="stages of a pipeline"):
        smdlens.open_checkpoint(folder)
