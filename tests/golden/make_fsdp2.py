"""Writes tests/golden/fsdp2: a folder of torch.distributed.checkpoint saved by two FSDP2 ranks.

Run once, with torch 2.13.0, where two processes can talk over gloo: python make_fsdp2.py
The state that was saved lies beside it as full tensors (full.safetensors, by parameter name).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

HERE = Path(__file__).parent
# The metadata hold the path they were saved under: that of a neutral folder.
WORK = Path("/tmp/golden/fsdp2")


def _train(rank: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29611", RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, bias=False),
        torch.nn.BatchNorm2d(5),
        torch.nn.Flatten(),
        torch.nn.Linear(45, 3, bias=False),
    )
    fully_shard(net, mesh=init_device_mesh("cpu", (2,)))
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    # The same data on both ranks: running statistics are not synchronised.
    torch.manual_seed(1)
    for _ in range(3):
        sgd.zero_grad()
        net(torch.randn(4, 3, 5, 5)).square().mean().backward()
        sgd.step()
    model, optim = get_state_dict(net, sgd)
    state = {"model": model, "optim": optim, "train_state": {"step": 3}}
    dcp.save(state, checkpoint_id=str(WORK / "step-3"))
    whole = StateDictOptions(full_state_dict=True)
    model, optim = get_state_dict(net, sgd, options=whole)
    if rank == 0:
        slots = {f"momentum/{n}": s["momentum_buffer"] for n, s in optim["state"].items()}
        full = {n: t.contiguous() for n, t in (model | slots).items()}
        save_file(full, WORK / "full.safetensors")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(_train, nprocs=2)
    shutil.copytree(WORK, HERE / "fsdp2", dirs_exist_ok=True)
