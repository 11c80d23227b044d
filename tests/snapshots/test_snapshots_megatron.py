"""Megatron-LM's distributed optimizer, in files built from its layout: float32 weights by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from snapshots_helpers import read_tensor, small_net, train

from smdlens.motion.tensors import load
from smdlens.snapshots import open_snapshot

ALIGNED, EARLY, BUCKETS = "one per bucket, aligned", "one per bucket, not aligned", "joined"


def _buffers(
    named: dict[str, torch.Tensor], adam: torch.optim.Optimizer, layout: str
) -> dict[Any, Any]:
    """Flat tensors of `param` and the moments; a second bucket begins in the middle."""
    names = list(reversed(named))
    half = len(names) // 2
    made = []
    for bucket in (names[:half], names[half:]):
        flat: dict[str, list[torch.Tensor]] = {"param": [], "exp_avg": [], "exp_avg_sq": []}
        at = 0
        for name in bucket:
            padding = 0 if layout == EARLY else -at % 64
            state = adam.state[named[name]]
            for kind, parts in flat.items():
                value = named[name].detach() if kind == "param" else state[kind]
                parts += [torch.zeros(padding), value.flatten()]
            at += padding + named[name].numel()
        if layout != BUCKETS:
            for parts in flat.values():
                parts.append(torch.zeros(-at % 128))
        made.append({kind: torch.cat(parts) for kind, parts in flat.items()})
    if layout == BUCKETS:
        return {kind: torch.cat([m[kind] for m in made]) for kind in made[0]}
    return dict(enumerate(made))


def _save(folder: Path, layout: str, dtype: torch.dtype, *, other: bool = False) -> Any:
    net = small_net()
    adam = torch.optim.AdamW(net.parameters(), lr=1e-3)
    train(net, adam, 3)
    named = dict(net.named_parameters())
    place = folder / "iter_0000003" / "mp_rank_00"
    place.mkdir(parents=True)
    buffers = _buffers(named, adam, layout)
    torch.save({0: {(dtype, torch.float32): buffers}}, place / "distrib_optim.pt")
    if other:
        train(net, adam, 1)
    groups = [{"lr": 1e-3, "weight_decay": 0.1 * m, "wd_mult": m, "step": 3} for m in (0.0, 1.0)]
    model = {n: t.to(dtype) if n in named else t for n, t in net.state_dict().items()}
    content = {"model": model, "optimizer": {"optimizer": {"param_groups": groups}}}
    torch.save({**content, "iteration": 3}, place / "model_optim_rng.pt")
    return place.parent, named, adam


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [ALIGNED, EARLY, BUCKETS])
def test_the_distributed_optimizer(tmp_path: Path, layout: str, dtype: torch.dtype) -> None:
    folder, named, adam = _save(tmp_path, layout, dtype)
    snapshot = open_snapshot(folder)
    record = snapshot.optimizer
    assert record is not None and set(record.slots) == set(named)
    for name, parameter in named.items():
        assert torch.equal(read_tensor(snapshot.tensors[name]), parameter.detach()), name
        slots = record.slots[name]
        assert torch.equal(load(slots["first_moment"]), adam.state[parameter]["exp_avg"])
        assert torch.equal(load(slots["second_moment"]), adam.state[parameter]["exp_avg_sq"])
    assert snapshot.scalars["weights_source"].startswith("float32 weights of the distributed")
    assert set(record.updates.values()) == {3}
    decays = {g.values["weight_decay"]: g.names for g in record.groups}
    vectors = tuple(n for n in named if named[n].dim() == 1)
    assert decays == {0.0: vectors, 0.1: tuple(n for n in named if n not in vectors)}


def test_buffers_of_other_weights_are_not_taken(tmp_path: Path) -> None:
    folder, named, _ = _save(tmp_path, ALIGNED, torch.bfloat16, other=True)
    snapshot = open_snapshot(folder)
    assert "do not fit the weights" in snapshot.scalars["conversion"]
    assert {snapshot.tensors[n].dtype for n in named} == {"bfloat16"}
    assert snapshot.optimizer is None or not snapshot.optimizer.slots
