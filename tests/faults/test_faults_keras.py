"""Keras and Orbax cut at every place and mutated at random: a clear error or a sound result."""

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
# Name -> (file, how many bytes at its front and back hold more headers than weights).
FILES = {
    "keras-h5": ("keras/sgd/model-6.h5", 12_000, 20_000),
    "weights-h5": ("keras/sgd/w-3.weights.h5", 10_000, 12_000),
    "keras": ("keras/sgdw/model-3.keras", 30_000, 20_000),
    "hdf5-1.8": ("hdf5/v108.h5", 8_000, 12_000),
    "hdf5-1.10": ("hdf5/v110_chunks.h5", 20_000, 40_000),
}
# A checkpoint's folder, and which of its files to break.
FOLDERS = {
    "manifest": ("orbax/ocdbt_zarr2/checkpoint_2", "manifest.ocdbt"),
    "node": ("orbax/ocdbt_zarr2/checkpoint_2", "ocdbt.process_0/d/*"),
    "names": ("orbax/ocdbt_zarr3/checkpoint_2", "_METADATA"),
    "array": ("orbax/zarr3/checkpoint_2", "params.conv1.kernel/zarr.json"),
    "shard": ("orbax/zarr3/checkpoint_2", "params.conv1.kernel/c/0/0/0/0"),
}


def _target(name: str) -> Callable[[Path], Target]:
    file, front, back = FILES[name]

    def make(folder: Path) -> Target:
        path = folder / Path(file).name
        shutil.copy(GOLDEN / file, path)
        return Target(path, path, front, back)

    return make


def _folder(name: str) -> Callable[[Path], Target]:
    checkpoint, file = FOLDERS[name]

    def make(folder: Path) -> Target:
        path = folder / Path(checkpoint).name
        shutil.copytree(GOLDEN / checkpoint, path)
        if name == "node":  # the leaf that the root of the tree is a copy of
            return Target(path, max((path / "d").iterdir()), 4_000, 4_000)
        if name == "shard":  # chunks, whose bytes may be anything, and an index at the end
            return Target(path, path / file, 1, 24)
        return Target(path, path / file, 8_000, 2_000)

    return make


@pytest.mark.parametrize("name", FOLDERS)
def test_every_cut_of_a_part_is_a_clear_error(tmp_path: Path, name: str) -> None:
    target = _folder(name)(tmp_path)
    size = target.broken.stat().st_size
    with target.broken.open("r+b") as file:
        for cut in sorted({*range(0, min(size, 400), 3), *range(0, size, 23)}, reverse=True):
            file.truncate(cut)
            with pytest.raises(SnapshotError) as caught:
                open_snapshot(target.opened)
            assert str(target.opened) in str(caught.value)


@pytest.mark.parametrize("name", FOLDERS)
def test_mutated_parts_are_read_soundly_or_refused(tmp_path: Path, name: str) -> None:
    assert fuzz(tmp_path, _folder(name), 200) > 20


@pytest.mark.deep
@pytest.mark.parametrize("name", FOLDERS)
def test_many_mutations_of_parts(tmp_path: Path, name: str) -> None:
    fuzz(tmp_path, _folder(name), 10_000)


@pytest.mark.parametrize("name", FILES)
def test_every_cut_is_a_clear_error(tmp_path: Path, name: str) -> None:
    path = _target(name)(tmp_path).broken
    size = path.stat().st_size
    cuts = {*range(0, 4096), *(4096 + i * (size - 4096) // 400 for i in range(400))} - {size}
    with path.open("r+b") as file:
        for cut in sorted(cuts, reverse=True):
            file.truncate(cut)
            with pytest.raises(SnapshotError) as caught:
                open_snapshot(path)
            assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_mutations_are_read_soundly_or_refused(tmp_path: Path, name: str) -> None:
    rounds = 1_000 if name == "keras" else 340  # at least 1,000 for each reader
    assert fuzz(tmp_path, _target(name), rounds) > 0.1 * rounds


@pytest.mark.deep
@pytest.mark.parametrize("name", FILES)
def test_many_mutations(tmp_path: Path, name: str) -> None:
    fuzz(tmp_path, _target(name), 10_000)
