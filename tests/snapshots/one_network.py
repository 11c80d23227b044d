"""One training run in every format: where each folder comes from, and what each format gives.

The runs of the frameworks lie in tests/golden/one_network, with the scripts that made them; those
that torch and NumPy can write are written when the tests run. A new format is one entry of `RUNS`.

`python tests/snapshots/one_network.py` writes the table into docs/formats.md. Read the difference.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import one_network_writers as write

from smdlens.motion.tensors import load
from smdlens.snapshots import open_series
from smdlens.snapshots.records import Snapshot, SnapshotSeries, TensorRef
from smdlens.symmetry.find import find_scale_groups
from smdlens.vocabulary import Role

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "one_network"
PAGE = ROOT / "docs" / "formats.md"
STEPS = (40, 80, 120, 160, 161, 200)
CUT, RATES, MOMENTUM, DECAY = 120, (0.0625, 0.015625), 0.9, 5e-3
BEGIN, END = "<!-- one network: begin -->\n", "<!-- one network: end -->\n"


@dataclass(frozen=True)
class Run:
    """The run in one format.

    Attributes:
        title: What the table calls it.
        source: Who wrote the files.
        write: Writes the run into a folder; None where the files lie in `golden`.
        golden: Folder of files that a framework wrote.
        prefix: What stands in front of every name of a tensor.
        graph: File in the folder that holds the network's graph; "inside": each checkpoint.
    """

    title: str
    source: str
    write: Callable[[Path], None] | None = None
    golden: str = ""
    prefix: str = ""
    graph: str = ""

    def place(self, folder: Path) -> Path:
        """The run's folder; `folder` takes files that have to be written first."""
        if self.write is None:
            return GOLDEN / self.golden
        self.write(folder)
        return folder


_TORCH, _LAYOUT = "torch", "the documented layout"
_PADDLE = "../paddle_program.json"
RUNS = (
    Run("torch.save", _TORCH, write.torch_zip),
    Run("torch.save, weights alone", _TORCH, write.torch_weights),
    Run("torch.save before 1.6", _TORCH, write.torch_legacy),
    Run("torch.save before 0.1.10", _LAYOUT, write.torch_tar),
    Run("TorchScript", _TORCH, write.torch_script, graph="inside"),
    Run("torch.export .pt2", _TORCH, write.torch_export, graph="inside"),
    Run("safetensors", "safetensors", write.safetensors),
    Run("Hugging Face folder", "safetensors, torch", write.hf_folder),
    Run("torch.distributed, 1 rank", "torch 2.13 (FSDP2)", golden="dcp_1"),
    Run("torch.distributed, 2 ranks", "torch 2.13 (FSDP2)", golden="dcp_2"),
    Run("torch.distributed, safetensors, 2 ranks", "torch 2.13 (FSDP2)", golden="dcp_hf_2"),
    Run("DeepSpeed ZeRO 2, 3 ranks", _LAYOUT, write.zero_2),
    Run("DeepSpeed ZeRO 3, 2 ranks", _LAYOUT, write.zero_3),
    Run("Megatron-LM", _LAYOUT, write.megatron),
    Run("Megatron-LM, distributed optimizer", _LAYOUT, write.megatron_distributed),
    Run("ONNX", "onnx", write.onnx_file, graph="inside"),
    Run("NumPy .npz", "NumPy", write.npz),
    Run("pickle of protocol 2", "NumPy", write.pickle_2),
    Run("Flax", "Flax 0.12", golden="flax", graph="../flax_program.mlir"),
    Run("Orbax", "Orbax 0.12", golden="orbax", graph="../flax_program.mlir"),
    Run("Keras .keras", "Keras 3.15", golden="keras_v3", graph="inside"),
    Run("Keras .h5", "Keras 3.15", golden="keras_h5", graph="inside"),
    Run("Keras .weights.h5", "Keras 3.15", golden="keras_weights"),
    Run("Keras in tf.train.Checkpoint", "TensorFlow 2.21", golden="tensorflow_keras"),
    Run("SavedModel", "TensorFlow 2.21", golden="tensorflow_saved_model", graph="inside"),
    Run("TensorFlow 1", "TensorFlow 2.21 (v1 saver)", golden="tensorflow_1"),
    Run("MLX safetensors", "MLX 0.32", golden="mlx_safetensors"),
    Run("MLX .npz", "MLX 0.32", golden="mlx_npz"),
    Run("MLX GGUF", "MLX 0.32", golden="mlx_gguf"),
    Run("PaddlePaddle", "PaddlePaddle 3.3", golden="paddle", graph=_PADDLE),
    Run("PaddlePaddle, one file", "PaddlePaddle 3.3", golden="paddle_one_file", graph=_PADDLE),
    Run("PaddlePaddle, arrays in parts", "PaddlePaddle 3.3", golden="paddle_parts", graph=_PADDLE),
    Run("MegEngine", _LAYOUT, golden="megengine_layout"),
    Run("MXNet Gluon", "MXNet 1.9", golden="mxnet_gluon", prefix="net_"),
    Run("MXNet Module", "MXNet 1.9", golden="mxnet_module", graph="inside"),
)  # fmt: skip


@cache
def reference() -> Mapping[str, np.ndarray]:
    """Every array of the run: `STEP/weights/NAME` and `STEP/momentum/NAME`."""
    with np.load(GOLDEN / "reference.npz") as archive:
        return {key: archive[key] for key in archive.files}


def part(step: int, kind: str) -> dict[str, np.ndarray]:
    """The weights or momentum buffers of a step by torch's names."""
    start = f"{step}/{kind}/"
    return {k.removeprefix(start): v for k, v in reference().items() if k.startswith(start)}


@dataclass(frozen=True)
class Gives:
    """What reading a run found, each a cell of the table."""

    format: str
    weights: str
    slots: str
    settings: str
    step: str
    graph: str
    lazy: str


def what_it_gives(run: Run, folder: Path) -> Gives:
    """Read everything and hold it against the reference; an assertion fails where it differs."""
    series = open_series(folder)
    assert series.steps == STEPS, (run.title, series.steps)
    slots = set()
    for snapshot in series.snapshots:
        weights = part(snapshot.step or 0, "weights")
        found = {n.removeprefix(run.prefix): ref for n, ref in snapshot.tensors.items()}
        held = {n: ref for n, ref in found.items() if not n.endswith("num_batches_tracked")}
        assert set(held) == set(weights), run.title
        for name, ref in held.items():
            assert np.array_equal(load(ref).numpy(), weights[name]), (run.title, name)
        slots.add(_slots(run, snapshot))
    (found_slots,) = slots
    last = series.snapshots[-1]
    graph = _graph(run, folder, series)
    words = ("bit for bit", found_slots, _settings(last), _step(last), graph, _lazy(series))
    return Gives(last.format, *words)


def _graph(run: Run, folder: Path, series: SnapshotSeries) -> str:
    """Whether the graph in the run's folder says what names say, and more surely."""
    if not run.graph:
        return "-"
    own = run.graph == "inside"
    groups = find_scale_groups(series, graph=None if own else folder / run.graph)
    assert groups.source != "names"
    for layer, channels in (("conv1", 6), ("conv2", 8)):
        found = groups.tensors[f"{run.prefix}{layer}.weight"]
        assert (found.role, found.groups) == (Role.SCALE_INVARIANT, channels), (run.title, layer)
    return "inside" if own else "--graph"


def _slots(run: Run, snapshot: Snapshot) -> str:
    held = snapshot.optimizer.slots if snapshot.optimizer is not None else {}
    if not held:
        return "-"
    expected = part(snapshot.step or 0, "momentum")
    assert {n.removeprefix(run.prefix) for n in held} == set(expected), run.title
    words = "momentum"
    for name, slots in held.items():
        momentum = load(slots["momentum"]).numpy()
        array = expected[name.removeprefix(run.prefix)]
        if not np.array_equal(momentum, array):
            words = "momentum, converted"
            assert np.allclose(momentum, array, rtol=1e-6, atol=0), (run.title, name)
    return words


def _settings(snapshot: Snapshot) -> str:
    """Settings of the group of the first convolution; each must be the run's own."""
    groups = snapshot.optimizer.groups if snapshot.optimizer is not None else ()
    expected = {"lr": RATES[1], "momentum": MOMENTUM, "weight_decay": DECAY}
    words = {"lr": "rate", "momentum": "momentum", "weight_decay": "decay"}
    values = groups[0].values if groups else {}
    found = [key for key in expected if key in values]
    for key in found:
        assert math.isclose(values[key], expected[key], rel_tol=1e-6), (snapshot.format, key)
    return ", ".join(words[key] for key in found) or "-"


def _step(snapshot: Snapshot) -> str:
    return "file name" if snapshot.step_source.startswith("name") else "inside"


def _lazy(series: SnapshotSeries) -> str:
    refs: list[TensorRef] = [ref for s in series.snapshots for ref in s.tensors.values()]
    packed = any(getattr(e, "packed", None) is not None for ref in refs for e in ref.extents)
    assert all(ref.extents for ref in refs if ref.numel)
    return "unpacked in pieces" if packed else "byte ranges"


def table(found: Mapping[str, Gives]) -> str:
    """The table of docs/formats.md."""
    head = ("run", "read as", "weights", "slots", "settings", "step", "graph", "read by",
            "written by")  # fmt: skip
    rows = [head, ("---",) * len(head)]
    for run in RUNS:
        g = found[run.title]
        rows.append((run.title, f"{g.format}", g.weights, g.slots, g.settings, g.step,
                     g.graph, g.lazy, run.source))  # fmt: skip
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def on_the_page(text: str) -> str:
    """The table that a page holds."""
    return text.partition(BEGIN)[2].partition(END)[0]


def schedule_file(folder: Path) -> Path:
    """The run's learning rates, as a user would give them."""
    path = folder / "schedule.csv"
    path.write_text(f"step,lr\n0,{RATES[0]}\n{CUT},{RATES[1]}\n")
    return path


def compared(report: Any, prefix: str) -> dict[str, Any]:
    """The parts of a report that must not depend on the format, tensors under torch's names."""
    content = report.to_dict()
    kept = {k: content[k] for k in ("tensors", "intervals", "stages", "decays", "summary")}
    return {key: _plain(value, prefix) for key, value in kept.items()}


def _plain(value: Any, prefix: str) -> Any:
    if isinstance(value, dict):
        return {
            k: v.removeprefix(prefix) if k in ("name", "tensor") else _plain(v, prefix)
            for k, v in value.items()
            # Why a tensor has its role, and the number of its group, are told in the file's terms.
            if k not in ("evidence", "group", "headline")
        }
    if isinstance(value, list):
        named = [_plain(v, prefix) for v in value]
        by_name = all(isinstance(v, dict) and ("name" in v or "tensor" in v) for v in named)
        if by_name:
            named.sort(key=lambda v: (v.get("name", v.get("tensor")), v.get("step_from", 0)))
        return named
    return value


def differences(found: Any, expected: Any, place: str = "") -> list[str]:
    """Places where two reports differ by more than 1e-6."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = sorted(set(found) ^ set(expected))
        inner = [
            d
            for k in expected.keys() & found.keys()
            for d in differences(found[k], expected[k], f"{place}.{k}")
        ]
        return [f"{place}.{key}: in one alone" for key in keys] + inner
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return [f"{place}: {len(found)} entries, not {len(expected)}"]
        pairs = enumerate(zip(found, expected, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{place}[{i}]")]
    if isinstance(expected, float) and isinstance(found, (int, float)):
        close = math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-9)
        return [] if close else [f"{place}: {found}, not {expected}"]
    return [] if found == expected else [f"{place}: {found}, not {expected}"]


def main() -> None:
    """Write the table into the page."""
    found = {}
    for run in RUNS:
        folder = Path(tempfile.mkdtemp())
        found[run.title] = what_it_gives(run, run.place(folder))
        shutil.rmtree(folder)
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "the page has lost its marks"
    PAGE.write_text(before + begin + table(found) + end + after)


if __name__ == "__main__":
    main()
