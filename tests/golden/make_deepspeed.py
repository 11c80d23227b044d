"""Makes tests/golden/deepspeed with the real framework: deepspeed 0.19.8 with torch 2.13, on CPU.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    DS_ACCELERATOR=cpu python make_deepspeed.py

Two ranks, bfloat16, two groups, a frozen layer; ZeRO 2 and 3. Beside each run lies what DeepSpeed's
own offline tools read from it (zero_to_fp32, ds_to_universal): "weight NAME", "first_moment NAME";
bfloat16 as its bits.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import nn

HERE = Path(__file__).parent / "deepspeed"
SLOTS = {"exp_avg": "first_moment", "exp_avg_sq": "second_moment"}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 5, 2, bias=False), nn.GroupNorm(1, 5)
        self.frozen, self.head = nn.Linear(5, 3), nn.Linear(3, 7)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.head(self.frozen(self.norm(self.conv(x)).mean((2, 3)))).pow(2).mean()


def worker(rank, stage, folder):
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29600 + stage), "WORLD_SIZE": "2"}
    os.environ.update(place | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"})
    import deepspeed

    deepspeed.init_distributed("gloo")
    torch.manual_seed(0)
    net = Net()
    held = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in held if p.dim() > 1], "weight_decay": 0.0625},
        {"params": [p for p in held if p.dim() == 1], "weight_decay": 0.0},
    ]
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    optimizer = torch.optim.AdamW(groups, lr=0.125, betas=(0.5, 0.75))
    engine, *_ = deepspeed.initialize(model=net, optimizer=optimizer, config=config)
    for number in range(3):
        draw = torch.Generator().manual_seed(2 * number + rank)
        engine.backward(engine(torch.randn(2, 2, 4, 4, generator=draw).bfloat16()))
        engine.step()
    engine.save_checkpoint(folder, tag="global_step3")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def expected(folder):
    from deepspeed.checkpoint import ds_to_universal
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    weights = get_fp32_state_dict_from_zero_checkpoint(folder, "global_step3")
    found = {
        f"weight {n}": (t.view(torch.uint16) if t.dtype == torch.bfloat16 else t).detach().numpy()
        for n, t in weights.items()
    }
    with tempfile.TemporaryDirectory() as other:
        how = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False}
        where = {"input_folder": f"{folder}/global_step3", "output_folder": f"{other}/universal"}
        rest = {"strict": True, "inject_missing_state": True}
        ds_to_universal.main(argparse.Namespace(**how, **where, **rest))
        for file in Path(other).rglob("exp_avg*.pt"):
            held = torch.load(file, weights_only=False)
            value = held["param"] if isinstance(held, dict) else held
            name = file.parent.name
            found[f"{SLOTS[file.stem]} {name}"] = (
                value.detach().reshape(weights[name].shape).numpy()
            )
    return found


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for stage in (2, 3):
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(worker, args=(stage, folder), nprocs=2)
            np.savez_compressed(HERE / f"zero_{stage}.expected.npz", **expected(folder))
            shutil.copytree(f"{folder}/global_step3", HERE / f"zero_{stage}" / "global_step3")
