"""The run of reference.npz as torch 2.13.0 saves it from one FSDP2 rank and from two, over gloo.

`dcp_N` (torch.distributed.checkpoint, weights and optimizer) and `dcp_hf_N` (its sharded Hugging
Face export: weights) for N ranks. Run once; the result is kept in the repository.
"""

import os
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from make_reference import Net
from reference import DECAY, HERE, MOMENTUM, STEPS, learning_rate, state
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

# The metadata hold the path they were saved under: that of a neutral folder.
WORK = Path("/tmp/golden/one_network")


def save(rank, ranks):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29613", RANK=str(rank))
    os.environ["WORLD_SIZE"] = str(ranks)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    net = Net()
    fully_shard(net, mesh=init_device_mesh("cpu", (ranks,)))
    sgd = torch.optim.SGD(net.parameters(), lr=0.0625, momentum=MOMENTUM, weight_decay=DECAY)
    for step in STEPS:
        weights, buffers = ({n: torch.tensor(a) for n, a in d.items()} for d in state(step))
        whole = StateDictOptions(full_state_dict=True, strict=False)
        set_model_state_dict(net, weights, options=whole)
        for name, parameter in net.named_parameters():
            assert isinstance(parameter, DTensor)
            buffer = distribute_tensor(buffers[name], parameter.device_mesh, parameter.placements)
            sgd.state[parameter]["momentum_buffer"] = buffer
        sgd.param_groups[0]["lr"] = learning_rate(step)
        model, optim = get_state_dict(net, sgd)
        content = {"model": model, "optim": optim, "train_state": {"step": step}}
        dcp.save(content, checkpoint_id=str(WORK / f"dcp_{ranks}/step-{step}"))
        writer = HuggingFaceStorageWriter(
            str(WORK / f"dcp_hf_{ranks}/step-{step}"), save_distributed=True
        )
        weights_only = {n: t for n, t in model.items() if "num_batches" not in n}
        dcp.save(weights_only, storage_writer=writer)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    for ranks in (1, 2):
        torch.multiprocessing.spawn(save, (ranks,), nprocs=ranks)
    for folder in WORK.iterdir():
        shutil.copytree(folder, HERE / folder.name, dirs_exist_ok=True)
