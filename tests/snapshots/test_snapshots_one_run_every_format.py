"""One run, saved in every format: the same motion table, whichever it is read from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.distributed.checkpoint as dcp
from deepspeed_files import save_partitioned, save_spread
from polars.testing import assert_frame_equal
from snapshots_helpers import small_net, train
from torch.distributed.checkpoint.state_dict import get_state_dict

from smdlens.hyper.resolve import resolve_hyper_parameters
from smdlens.motion.engine import measure
from smdlens.motion.records import Motion
from smdlens.options import gather_options
from smdlens.snapshots import open_series
from smdlens.symmetry.find import find_scale_groups

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed:UserWarning")
Net, Optimizer = torch.nn.Module, torch.optim.Optimizer
SGD = [{"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}] * 2


def _torch(run: Path, net: Net, optimizer: Optimizer, step: int) -> None:
    content = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(content, run / f"ckpt_{step}.pt")


def _distributed(run: Path, net: Net, optimizer: Optimizer, step: int) -> None:
    model, optim = get_state_dict(net, optimizer)
    state = {"model": model, "optim": optim}
    dcp.save(state, checkpoint_id=str(run / f"step-{step}"), no_dist=True)


def _groups(net: Net) -> list[list[str]]:
    return [[n for n, p in net.named_parameters() if (p.dim() == 1) == flat] for flat in (0, 1)]


def _zero_2(run: Path, net: Net, optimizer: Optimizer, step: int) -> None:
    save_partitioned(
        run / f"global_step{step}", net, optimizer, _groups(net), step, 3, settings=SGD
    )


def _zero_3(run: Path, net: Net, optimizer: Optimizer, step: int) -> None:
    save_spread(run / f"global_step{step}", net, optimizer, _groups(net), step, 2, settings=SGD)


_FLAX = {"running_mean": "mean", "running_var": "var"}


def _flax_layout(run: Path, net: Net, optimizer: Optimizer, step: int) -> None:
    """Keys and axes as Flax has them: kernels with their output axis last."""
    arrays = {"step": np.array(step)}

    def put(kind: str, name: str, value: torch.Tensor) -> None:
        layer, _, leaf = name.partition(".")
        array = value.detach().numpy()
        if leaf == "weight":
            leaf = "kernel" if array.ndim > 1 else "scale"
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        arrays[f"{kind}/{layer}/{_FLAX.get(leaf, leaf)}"] = np.ascontiguousarray(array)

    for name, value in net.state_dict().items():
        if "num_batches" not in name:
            put("batch_stats" if "running" in name else "params", name, value)
    for name, parameter in net.named_parameters():
        put("opt_state/0/trace", name, optimizer.state[parameter]["momentum_buffer"])
    np.savez(run / f"checkpoint_{step}.npz", **arrays)


def _measure(run: Path) -> Motion:
    series = open_series(run)
    assert series.steps == (3, 4, 9)
    options = gather_options(None, optimizer="sgd", lr=0.1, weight_decay=1e-3, momentum=0.9)
    hyper = resolve_hyper_parameters(series, options.declared)
    return measure(series, find_scale_groups(series), hyper)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Motion]:
    writers: dict[str, Callable[[Path, Net, Optimizer, int], None]] = {
        "torch": _torch,
        "distributed": _distributed,
        "zero-2": _zero_2,
        "zero-3": _zero_3,
        "flax layout": _flax_layout,
    }
    runs = {name: tmp_path_factory.mktemp(name.replace(" ", "-")) for name in writers}
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    done = 0
    for step in (3, 4, 9):
        train(net, optimizer, step - done)
        done = step
        for name, write in writers.items():
            write(runs[name], net, optimizer, step)
    return {name: _measure(run) for name, run in runs.items()}


@pytest.mark.parametrize("name", ["distributed", "zero-2", "zero-3", "flax layout"])
def test_the_same_table(tables: dict[str, Motion], name: str) -> None:
    for kind, keys in (("snapshots", ["tensor", "snapshot"]), ("pairs", ["tensor", "snapshot_to"])):
        expected: pl.DataFrame = getattr(tables["torch"], kind).sort(keys)
        found: pl.DataFrame = getattr(tables[name], kind).sort(keys)
        assert found["tensor"].n_unique() == 5
        # Sums run in the order of storage, so the last bits may differ.
        assert_frame_equal(found, expected, rel_tol=1e-9, abs_tol=1e-12)
    assert tables[name].snapshots["wv"].null_count() == 0, "momentum was read"
