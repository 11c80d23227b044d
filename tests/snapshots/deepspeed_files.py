"""DeepSpeed's checkpoint folders, built with torch.save from the documented layout.

No DeepSpeed runs here: the files have the keys and the flattening that its ZeRO stages 1 to 3
write, and foreign classes where it leaves its own.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch


class ZeroStageEnum:
    """Pickles as an enum member does: its class called with its value."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return (ZeroStageEnum, (self.value,))


class LossScaler:
    def __init__(self) -> None:
        self.cur_scale = 1.0


Groups = list[list[str]]
SETTINGS = [{"lr": 1e-3, "weight_decay": 0.05}, {"lr": 1e-3, "weight_decay": 0.0}]


def _model(net: torch.nn.Module, groups: Groups, step: int, ranks: int) -> dict[str, Any]:
    parameters = dict(net.named_parameters())
    return {
        "module": {
            n: t.to(torch.bfloat16) if n in parameters else t for n, t in net.state_dict().items()
        },
        "buffer_names": [n for n, _ in net.named_buffers()],
        "optimizer": None,
        "param_shapes": [{n: parameters[n].shape for n in group} for group in groups],
        "frozen_param_shapes": None,
        "shared_params": {},
        "lr_scheduler": {"last_batch_iteration": step},
        "global_steps": step,
        "dp_world_size": ranks,
        "mp_world_size": 1,
        "args_of_the_caller": {"seed": 1},
    }


def _slots(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    state = optimizer.state[parameter]
    return {k: v for k, v in state.items() if torch.is_tensor(v) and v.shape == parameter.shape}


def _save_optim(folder: Path, rank: int, state: dict[str, Any]) -> None:
    content = {"optimizer_state_dict": state, "ds_config": {"zero": 1}, "ds_version": "0.19.8"}
    torch.save(content, folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")


def save_partitioned(
    folder: Path,
    net: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    groups: Groups,
    step: int,
    ranks: int,
    *,
    old: bool = False,
    settings: list[dict[str, float]] = SETTINGS,
) -> None:
    """Stages 1 and 2: flat groups, aligned and cut into consecutive parts."""
    folder.mkdir(parents=True)
    parameters = dict(net.named_parameters())
    torch.save(_model(net, groups, step, ranks), folder / "mp_rank_00_model_states.pt")

    def parts(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        flat = torch.cat([t.detach().reshape(-1) for t in tensors])
        pad = -len(flat) % (2 * ranks)
        padded = torch.cat([flat, torch.full((pad,), 77.0)])
        cut = [p.clone() for p in padded.chunk(ranks)]
        if old:  # the elastic form leaves the padding out
            cut[-1] = cut[-1][: len(cut[-1]) - pad].clone()
        return cut

    for rank in range(ranks):
        state: dict[int, dict[str, Any]] = {}
        for number, group in enumerate(groups):
            held = [_slots(optimizer, parameters[n]) for n in group]
            state[number] = {slot: parts([h[slot] for h in held])[rank] for slot in held[0]}
            if "exp_avg" in state[number]:
                state[number]["step"] = step
        base: Any = list(state.values())
        if not old:
            numbered = [{**s, "params": [i]} for i, s in enumerate(settings)]
            base = {"state": state, "param_groups": numbered}
        _save_optim(
            folder,
            rank,
            {
                "loss_scaler": LossScaler(),
                "dynamic_loss_scale": False,
                "base_optimizer_state": base,
                "zero_stage": ZeroStageEnum(2),
                "group_paddings": [0] * len(groups),
                "partition_count": [ranks] * len(groups),
                "single_partition_of_fp32_groups": [
                    parts([parameters[n] for n in group])[rank] for group in groups
                ],
            },
        )


def save_spread(
    folder: Path,
    net: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    groups: Groups,
    step: int,
    ranks: int,
    frozen: dict[str, torch.Tensor] | None = None,
    settings: list[dict[str, float]] = SETTINGS,
) -> None:
    """Stage 3: every parameter cut into equal parts; two flat groups on every rank."""
    folder.mkdir(parents=True)
    parameters = dict(net.named_parameters())
    order = [n for group in groups for n in group]

    def share(tensor: torch.Tensor, rank: int) -> torch.Tensor:
        flat = tensor.detach().reshape(-1)
        size = math.ceil(len(flat) / ranks)
        padded = torch.cat([flat, torch.full((size * ranks - len(flat),), 77.0)])
        return padded[rank * size : (rank + 1) * size].clone()

    half = len(order) // 2
    for rank in range(ranks):
        model = _model(net, groups, step, ranks)
        for name in order:
            model["module"][name] = torch.empty(0, dtype=torch.bfloat16)
        if frozen:
            model["frozen_param_shapes"] = {n: t.shape for n, t in frozen.items()}
            model["frozen_param_fragments"] = {n: share(t, rank) for n, t in frozen.items()}
        torch.save(model, folder / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
        state = {}
        flats = []
        for number, names in enumerate((order[:half], order[half:])):
            flats.append(torch.cat([share(parameters[n], rank) for n in names]))
            held = {n: _slots(optimizer, parameters[n]) for n in names}
            state[number] = {
                slot: torch.cat([share(held[n][slot], rank) for n in names])
                for slot in held[names[0]]
            }
            if "exp_avg" in state[number]:
                state[number]["step"] = torch.tensor(float(step))
        numbered = [{**s, "params": [i]} for i, s in enumerate(settings)]
        _save_optim(
            folder,
            rank,
            {
                "zero_stage": 3,
                "loss_scaler": LossScaler(),
                "partition_count": ranks,
                "optimizer_state_dict": {"state": state, "param_groups": numbered},
                "fp32_flat_groups": flats,
            },
        )
