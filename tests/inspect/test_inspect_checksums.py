"""Damage that headers cannot show: CRC-32, SHA-256 and manifests, through the command line."""

import hashlib
import json
import subprocess

import pytest
import torch
from inspect_helpers import blocks
from safetensors.torch import save_file

from smdlens.snapshots import open_snapshot

# After inspect_helpers, which adds the folder of these.
from cli_helpers import smdlens  # isort: skip


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "ckpt_5.pt"
    torch.save({"model": blocks().state_dict(), "step": 5}, path)
    return path


def flip(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def test_an_intact_file_passes_and_its_sha256_is_true(checkpoint):
    done = smdlens("inspect", checkpoint, "--checksums")
    assert done.returncode == 0 and done.stderr == ""
    assert "CRC-32 of every entry right" in done.stdout
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() in done.stdout


def test_one_flipped_bit_in_the_weights_is_found_and_named(checkpoint):
    weight = open_snapshot(checkpoint).tensors["layers.0.0.weight"]
    flip(checkpoint, weight.extents[0].offset + 100)
    assert smdlens("inspect", checkpoint).returncode == 0
    done = smdlens("inspect", checkpoint, "--checksums", "--json")
    assert done.returncode == 3
    (file,) = json.loads(done.stdout)["files"]
    assert file["crc"] == "mismatch" and file["crc_mismatches"][0].startswith("ckpt_5/data/")
    assert "bytes differ from the CRC-32" in done.stderr and "/data/" in done.stderr


def test_files_written_without_crc_are_not_called_damaged(tmp_path):
    path = tmp_path / "a.pt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"model": blocks().state_dict()}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    done = smdlens("inspect", path, "--checksums")
    assert done.returncode == 0 and "written without CRC-32" in done.stdout


def test_a_manifest_of_sha256sum(tmp_path):
    folder = tmp_path / "checkpoint-9"
    folder.mkdir()
    save_file(blocks().state_dict(), folder / "model.safetensors")
    (folder / "trainer_state.json").write_text('{"global_step": 9}')
    manifest = tmp_path / "manifest.sha256"
    names = ["checkpoint-9/model.safetensors", "checkpoint-9/trainer_state.json"]
    text = subprocess.run(
        ["sha256sum", *names], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    manifest.write_text(text)
    done = smdlens("inspect", folder, "--manifest", manifest)
    assert done.returncode == 0 and done.stdout.count("manifest: ok") == 2
    manifest.write_text(text.splitlines()[0] + "\n")
    done = smdlens("inspect", folder, "--manifest", manifest)
    assert done.returncode == 3 and "does not list it" in done.stderr
    manifest.write_text(text)
    flip(folder / "model.safetensors", -1)
    done = smdlens("inspect", folder, "--manifest", manifest)
    assert done.returncode == 3 and "not the one in the manifest" in done.stderr


@pytest.mark.parametrize("text", ["", "nothing\n", "0" * 64 + "  a\0b\n", None])
def test_a_manifest_that_is_none_is_a_usage_error(checkpoint, tmp_path, text):
    manifest = tmp_path / "manifest"
    if text is not None:
        manifest.write_text(text)
    done = smdlens("inspect", checkpoint, "--manifest", manifest)
    assert done.returncode == 2 and "the manifest cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_exit_codes_of_paths(checkpoint, tmp_path):
    assert smdlens("inspect", tmp_path / "absent.pt").returncode == 3
    assert smdlens("inspect", tmp_path).returncode == 2
    (tmp_path / "noise.pt").write_bytes(b"\x93" * 400)
    done = smdlens("inspect", tmp_path / "noise.pt")
    assert done.returncode == 3 and done.stdout == "" and "Traceback" not in done.stderr
    with checkpoint.open("r+b") as file:
        file.truncate(checkpoint.stat().st_size // 2)
    assert smdlens("inspect", checkpoint).returncode == 3


def test_inspect_imports_neither_torch_nor_polars(checkpoint):
    import sys

    from cli_helpers import environment

    program = (
        "import sys\nfrom smdlens.cli.app import main\n"
        f"try:\n    main(['inspect', {str(checkpoint)!r}])\n"
        "finally:\n    sys.stderr.write(repr({'torch', 'polars', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment()
    )
    assert (done.returncode, done.stderr) == (0, "set()")
