"""torch.distributed.checkpoint folders against torch's own reader, whole and in pieces."""

from __future__ import annotations

import io
import itertools
import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from snapshots_helpers import read_tensor, same, small_net, train
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

from smdlens.containers.limits import Limits
from smdlens.errors import (
    SnapshotCorruptError,
    SnapshotError,
    SnapshotTruncatedError,
    SnapshotUnsafeError,
)
from smdlens.motion.tensors import load
from smdlens.snapshots import open_series, open_snapshot
from smdlens.snapshots.readers import read_checkpoint

GOLDEN = Path(__file__).parent.parent / "golden" / "fsdp2"
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed:UserWarning")


def _net_after(steps: int, kind: str = "adamw") -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    net = small_net()
    if kind == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    else:
        decay = [p for p in net.parameters() if p.dim() > 1]
        rest = [p for p in net.parameters() if p.dim() == 1]
        groups = [{"params": decay, "weight_decay": 1e-3}, {"params": rest, "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    train(net, optimizer, steps)
    return net, optimizer


def _save(state: dict[str, Any], folder: Path) -> None:
    dcp.save(state, checkpoint_id=str(folder), no_dist=True)


@pytest.mark.parametrize("form", ["nested", "flat", "level", "numbered"])
def test_weights_slots_settings_and_step(tmp_path: Path, form: str) -> None:
    net, optimizer = _net_after(3, "sgd")
    options = StateDictOptions(flatten_optimizer_state_dict=form in ("flat", "level"))
    model, optim = get_state_dict(net, optimizer, options=options)
    if form == "flat":  # as torchtitan keeps it: weights at the top, settings by parameter
        _save({**model, "optimizer": optim, "train_state": {"step": 3}}, tmp_path / "step-3")
    elif form == "level":
        _save({**model, **optim, "step": 3}, tmp_path / "step-3")
    elif form == "nested":
        _save({"model": model, "optim": optim, "step": 3}, tmp_path / "step-3")
    else:
        plain = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": 3}
        _save(plain, tmp_path / "step-3")
    snapshot = open_snapshot(tmp_path / "step-3")
    assert snapshot.format == "torch-distributed" and snapshot.step == 3
    assert list(snapshot.tensors) == list(net.state_dict())
    for name, value in net.state_dict().items():
        assert same(snapshot.tensors[name], value)
    record = snapshot.optimizer
    assert record is not None
    settings = {frozenset(g.names or ()): g.values for g in record.groups}
    decayed = frozenset(n for n, p in net.named_parameters() if p.dim() > 1)
    others = frozenset(n for n, p in net.named_parameters() if p.dim() == 1)
    if form == "numbered":  # equal shapes in two groups: some names stay open, none is wrong
        assert [(g.count, g.values["weight_decay"]) for g in record.groups] == [(3, 1e-3), (6, 0)]
    else:
        assert set(settings) == {decayed, others}
        assert settings[decayed]["weight_decay"] == 1e-3 and settings[others]["weight_decay"] == 0
        assert len(record.slots) == 9
    assert record.groups[0].values["lr"] == 0.1 and record.groups[0].values["momentum"] == 0.9
    for name, slots in record.slots.items():
        buffer = optimizer.state[net.get_parameter(name)]["momentum_buffer"]
        assert list(slots) == ["momentum"] and same(slots["momentum"], buffer)


def test_two_ranks_of_fsdp2() -> None:
    snapshot = open_snapshot(GOLDEN / "step-3")
    full = load_file(GOLDEN / "full.safetensors")
    assert snapshot.step == 3 and snapshot.optimizer is not None
    assert len(snapshot.tensors["0.weight"].extents) == 2, "joined from both ranks"
    for name, ref in snapshot.tensors.items():
        assert same(ref, full[name]), name
    slots = snapshot.optimizer.slots
    assert set(slots) == {"0.weight", "1.weight", "1.bias", "3.weight"}
    for name, found in slots.items():
        assert same(found["momentum"], full[f"momentum/{name}"]), name
    assert snapshot.optimizer.groups[0].values["weight_decay"] == 5e-4


class Folder:
    """A folder of several ranks, written by hand from torch's own metadata classes."""

    def __init__(self, path: Path, ranks: int) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.files = [io.BytesIO() for _ in range(ranks)]
        self.turn = itertools.cycle(range(ranks))
        self.state: dict[str, Any] = {}
        self.storage: dict[MetadataIndex, _StorageInfo] = {}

    def _store(self, index: MetadataIndex, value: Any) -> None:
        rank = next(self.turn)
        file, data = self.files[rank], io.BytesIO()
        torch.save(value, data)
        name = f"__{rank}_0.distcp"
        self.storage[index] = _StorageInfo(name, file.tell(), data.tell())
        file.write(data.getvalue())

    def tensor(self, name: str, value: torch.Tensor, cuts: list[list[int]]) -> None:
        edges = [[0, *sorted(c), n] for c, n in zip(cuts, value.shape, strict=True)]
        chunks = []
        for box in itertools.product(*(list(itertools.pairwise(e)) for e in edges)):
            part = value[tuple(slice(low, high) for low, high in box)]
            dense = torch.empty_like(part)  # keeps channels last, drops what lies around
            dense.copy_(part)
            offsets = torch.Size([low for low, _ in box])
            chunks.append(ChunkStorageMetadata(offsets, part.shape))
            self._store(MetadataIndex(name, offsets), dense)
        properties = TensorProperties(dtype=value.dtype)
        self.state[name] = TensorStorageMetadata(properties, value.shape, chunks)

    def value(self, name: str, value: Any) -> None:
        self.state[name] = BytesStorageMetadata()
        self._store(MetadataIndex(name), value)

    def close(self) -> Path:
        for rank, file in enumerate(self.files):
            (self.path / f"__{rank}_0.distcp").write_bytes(file.getvalue())
        metadata = Metadata(self.state, storage_data=self.storage)
        (self.path / ".metadata").write_bytes(pickle.dumps(metadata))
        return self.path


def test_pieces_cut_anywhere_against_torch(tmp_path: Path) -> None:
    draw = random.Random(3)
    torch.manual_seed(0)
    folder = Folder(tmp_path / "step-1", 3)
    tensors: dict[str, torch.Tensor] = {}
    dtypes = [torch.float32, torch.bfloat16, torch.float64]
    for number in range(40):
        shape = [draw.randrange(1, 7) for _ in range(draw.randrange(1, 5))]
        value = torch.randn(shape).to(draw.choice(dtypes))
        if len(shape) == 4 and draw.random() < 0.5:
            value = value.to(memory_format=torch.channels_last)
        cuts = [
            draw.sample(range(1, n), draw.randrange(0, min(3, n))) if n > 1 else [] for n in shape
        ]
        tensors[f"t{number}"] = value
        folder.tensor(f"t{number}", value, cuts)
    # What FSDP2 leaves of a channels-last convolution: rows on every rank, permuted inside.
    tensors["conv"] = torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last)
    folder.tensor("conv", tensors["conv"], [[2, 4], [], [], []])
    folder.value("epoch", 4)
    path = folder.close()
    into = {name: torch.zeros_like(value) for name, value in tensors.items()}
    dcp.load(into, checkpoint_id=str(path), no_dist=True)
    raw = read_checkpoint(path)
    assert raw.root["epoch"] == 4
    for name, value in into.items():
        assert torch.equal(value, tensors[name])
        assert same(raw.root[name], value), name
        assert torch.equal(load(raw.root[name]), value), "as motion/ reads it"
    assert raw.root["conv"].strides is not None and len(raw.root["conv"].extents) == 3


def _two_pieces(path: Path) -> Path:
    folder = Folder(path, 2)
    folder.tensor("model.w", torch.arange(24.0).view(6, 4), [[2], []])
    folder.value("step", 5)
    return folder.close()


def _rewrite(path: Path, change: Any) -> None:
    metadata = pickle.loads((path / ".metadata").read_bytes())
    change(metadata)
    (path / ".metadata").write_bytes(pickle.dumps(metadata))


def _storage(metadata: Any) -> list[Any]:
    return list(metadata.storage_data.values())


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "__0_0.distcp/../../x", "a\0b", ""])
def test_metadata_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    path = _two_pieces(tmp_path / "run" / "step-5")
    _rewrite(path, lambda m: setattr(_storage(m)[0], "relative_path", name))
    with pytest.raises(SnapshotUnsafeError, match="outside its own folder"):
        open_snapshot(path)


def test_claims_are_checked_before_anything_is_allocated(tmp_path: Path) -> None:
    def chunk(m: Any) -> Any:
        return m.state_dict_metadata["model.w"].chunks[1]

    cases: list[tuple[Any, type[SnapshotError]]] = [
        (lambda m: setattr(_storage(m)[1], "length", 1 << 50), SnapshotTruncatedError),
        (lambda m: setattr(_storage(m)[1], "offset", 1 << 50), SnapshotTruncatedError),
        (lambda m: setattr(_storage(m)[1], "offset", -4), SnapshotCorruptError),
        (lambda m: setattr(chunk(m), "sizes", torch.Size([1 << 40, 4])), SnapshotCorruptError),
        (lambda m: setattr(chunk(m), "offsets", torch.Size([3, 0])), SnapshotCorruptError),
        (lambda m: m.state_dict_metadata["model.w"].chunks.pop(), SnapshotCorruptError),
        (lambda m: m.storage_data.popitem(), SnapshotCorruptError),
        (
            lambda m: setattr(m.state_dict_metadata["model.w"], "size", torch.Size([1 << 40, 4])),
            SnapshotCorruptError,
        ),
        (lambda m: setattr(m, "state_dict_metadata", None), SnapshotCorruptError),
    ]
    for number, (change, error) in enumerate(cases):
        path = _two_pieces(tmp_path / str(number))
        if number == 6:
            _rewrite(path, lambda m: m.storage_data.pop(MetadataIndex("step")))
        _rewrite(path, change)
        with pytest.raises(error) as caught:
            open_snapshot(path)
        assert str(path) in str(caught.value)


def test_a_tensor_cut_into_too_many_pieces(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "step-1", 2)
    folder.tensor("w", torch.randn(300, 8), [[], [4]])
    path = folder.close()
    assert len(read_checkpoint(path).root["w"].extents) == 600
    with pytest.raises(SnapshotUnsafeError, match="too many pieces"):
        read_checkpoint(path, Limits(tensor_pieces=500))


class _Evil:
    def __reduce__(self) -> Any:
        return (open, ("/tmp/smdlens-must-not-exist", "w"))


def test_neither_metadata_nor_slices_run(tmp_path: Path) -> None:
    path = _two_pieces(tmp_path / "a")
    (path / ".metadata").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(SnapshotError, match="not the metadata"):
        open_snapshot(path)
    folder = Folder(tmp_path / "b", 1)
    folder.tensor("w", torch.ones(2, 2), [[], []])
    folder.value("step", _Evil())
    assert open_snapshot(folder.close()).tensors["w"].shape == (2, 2)
    assert not Path("/tmp/smdlens-must-not-exist").exists()


def test_a_run_of_sharded_folders(tmp_path: Path) -> None:
    for steps in (2, 10):
        net, optimizer = _net_after(steps)
        model, optim = get_state_dict(net, optimizer)
        _save({"model": model, "optim": optim}, tmp_path / "checkpoint" / f"step-{steps}")
    unfinished = tmp_path / "checkpoint" / "step-20"
    unfinished.mkdir()
    (unfinished / "__0_0.distcp").write_bytes(b"x" * 500)
    series = open_series(tmp_path)
    assert series.steps == (2, 10)
    assert [(s.file, s.reason.value) for s in series.skipped] == [
        ("checkpoint/step-20", "unfinished")
    ]
    last = series.snapshots[1]
    assert last.optimizer is not None
    assert read_tensor(last.optimizer.slots["0.weight"]["first_moment"]).abs().sum() > 0
    assert set(last.optimizer.updates.values()) == {10}


def test_the_trainer_with_fsdp(tmp_path: Path) -> None:
    for steps in (2, 4):
        net, optimizer = _net_after(steps)
        folder = tmp_path / f"checkpoint-{steps}"
        model, optim = get_state_dict(net, optimizer)
        _save({"model": model}, folder / "pytorch_model_fsdp_0")
        _save({"optimizer": optim}, folder / "optimizer_0")
        state = {"global_step": steps, "log_history": []}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    (tmp_path / "checkpoint-6" / "pytorch_model_fsdp_0").mkdir(parents=True)
    series = open_series(tmp_path)
    assert series.steps == (2, 4)
    assert [s.file for s in series.skipped] == ["checkpoint-6"]
    last = series.snapshots[1]
    assert last.format == "fsdp-folder" and last.step_source == "key 'trainer_state.global_step'"
    assert last.optimizer is not None and len(last.optimizer.slots) == 9
    for name, value in net.state_dict().items():
        assert same(last.tensors[name], value)


GOLDEN_EXPORT = Path(__file__).parent.parent / "golden" / "one_network" / "dcp_hf_2" / "step-40"


def test_the_safetensors_export_without_a_rank(tmp_path: Path) -> None:
    folder = tmp_path / "step-40"
    shutil.copytree(GOLDEN_EXPORT, folder)
    first = folder / "shard-00001-model-00001-of-00001.safetensors"
    whole = first.read_bytes()
    first.unlink()
    with pytest.raises(SnapshotTruncatedError, match="expected shard-00001"):
        open_snapshot(folder)
    # The same piece from both ranks leaves a gap behind it.
    other = "shard-00002-model-00001-of-00001.safetensors"
    first.write_bytes((folder / other).read_bytes())
    with pytest.raises(SnapshotCorruptError, match="leave gaps"):
        open_snapshot(folder)
    for old, new in (
        (b"saved_offsets", b"other_offsets"),
        (b"DCP_SHARDING_INFO", b"DCP_SHARDING_NONE"),
        (b"[0, 0]}", b"[0,-1]}"),
    ):
        first.write_bytes(whole.replace(old, new))
        with pytest.raises(SnapshotCorruptError, match="not a sound shard"):
            open_snapshot(folder)
