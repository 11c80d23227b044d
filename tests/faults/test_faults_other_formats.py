"""The same faults as everywhere, in the formats of folders and of other frameworks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from faults_helpers import Target
from sharded_helpers import SHARDED
from test_faults_broken_files import fuzz

from smdlens.errors import SnapshotError
from smdlens.snapshots import open_snapshot

# At least 1,000 for each reader; two of them read two kinds of files.
MUTATIONS = dict.fromkeys(
    ("torch-export", "flax-msgpack", "numpy-npz", "onnx", "gguf", "numpy-npy", "mxnet"), 1_000
)
# Archives of torch.save and pickles, which are cut at every byte under another name.
CUT_ELSEWHERE = (
    "megatron-optimizer",
    "deepspeed-pipeline",
    "torch-distributed-slices",
    "paddle-optimizer",
    "megengine",
    "mxnet-states",
)


@pytest.mark.parametrize("name", SHARDED)
def test_every_cut_of_a_part_is_a_clear_error(tmp_path: Path, name: str) -> None:
    target = SHARDED[name](tmp_path)
    data = target.broken.read_bytes()
    first = min(len(data), 4096)
    spread = {first + i * (len(data) - first) // 400 for i in range(400)} - {len(data)}
    every = range(0, first, 5 if name in CUT_ELSEWHERE else 1)
    with target.broken.open("r+b") as file:
        for cut in sorted({*every, *spread}, reverse=True):
            file.truncate(cut)
            with pytest.raises(SnapshotError) as caught:
                open_snapshot(target.opened)
            named = (str(target.opened), str(target.broken))
            assert any(path in str(caught.value) for path in named)


@pytest.mark.parametrize("name", SHARDED)
def test_mutated_parts_are_read_soundly_or_refused(tmp_path: Path, name: str) -> None:
    make: Callable[[Path], Target] = SHARDED[name]
    rounds = MUTATIONS.get(name, 500)
    assert fuzz(tmp_path, make, rounds) > 0.2 * rounds


@pytest.mark.deep
@pytest.mark.parametrize("name", SHARDED)
def test_many_mutations_of_parts(tmp_path: Path, name: str) -> None:
    fuzz(tmp_path, SHARDED[name], 10_000)
