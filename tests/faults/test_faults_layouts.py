"""Layouts of several files beside each other, cut and mutated: a clear error or a sound result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from faults_helpers import Target
from test_faults_broken_files import fuzz

from smdlens.errors import SnapshotError
from smdlens.snapshots import open_snapshot

GOLDEN = Path(__file__).parent.parent / "golden"
# Name -> (files that belong together, the one to open, the one to break).
LAYOUTS = {
    "keras-shards": ("keras_layouts/shards*", "shards.weights.json", "shards.weights.json"),
    "keras-shard": ("keras_layouts/shards*", "shards.weights.json", "shards_00001.weights.h5"),
    "object-graph": (
        "keras_layouts/written_ckpt*", "written_ckpt.index", "written_ckpt.data-00000-of-00001"),
    "partitions": (
        "tensorflow_layouts/rmsprop/*", "model.ckpt-4321.index", "model.ckpt-4321.index"),
    "orbax-together": ("orbax_older/together/7/*", "", "checkpoint"),
    "paddle-weights": ("paddle_layouts/program.*", "program.pdiparams", "program.pdiparams"),
    "paddle-program": ("paddle_layouts/program.*", "program.pdiparams", "program.pdmodel"),
    "paddle-pir": ("paddle_layouts/pir.*", "pir.pdiparams", "pir.json"),
    "protocol-2": (
        "paddle_layouts/protocol_2.*", "protocol_2.pdparams", "protocol_2.pdparams"),
}  # fmt: skip


def _layout(name: str) -> Callable[[Path], Target]:
    files, opened, broken = LAYOUTS[name]

    def make(folder: Path) -> Target:
        for file in GOLDEN.glob(files):
            if "expected" not in file.name:
                shutil.copy(file, folder / file.name)
        return Target(folder / opened, folder / broken, 6_000, 6_000)

    return make


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_cut_is_a_clear_error(tmp_path: Path, name: str) -> None:
    target = _layout(name)(tmp_path)
    size = target.broken.stat().st_size
    with target.broken.open("r+b") as file:
        for cut in sorted({*range(0, min(size, 300), 3), *range(0, size, 61)}, reverse=True):
            file.truncate(cut)
            with pytest.raises(SnapshotError) as caught:
                open_snapshot(target.opened)
            assert target.opened.parent.as_posix() in str(caught.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_mutations_are_read_soundly_or_refused(tmp_path: Path, name: str) -> None:
    assert fuzz(tmp_path, _layout(name), 250) > 10


@pytest.mark.deep
@pytest.mark.parametrize("name", LAYOUTS)
def test_many_mutations(tmp_path: Path, name: str) -> None:
    fuzz(tmp_path, _layout(name), 10_000)
