"""Headers only: a file of 20 GB on a disk that holds none of it, inspected in seconds."""

import json
import struct
import time
import zipfile

import pytest
import torch
from inspect_helpers import CountedReads, json_of, text_of

GIB = 1 << 30


def sparse_safetensors(path, tensors, nbytes):
    """A safetensors file whose tensors are a hole: written sizes, no bytes behind them."""
    header, at = {}, 0
    for name in tensors:
        header[name] = {"dtype": "BF16", "shape": [nbytes // 2], "data_offsets": [at, at + nbytes]}
        at += nbytes
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + at)


def test_twenty_gigabytes_of_safetensors(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    names = [f"model.layers.{i}.mlp.weight" for i in range(40)]
    sparse_safetensors(path, names, GIB // 2)
    assert path.stat().st_size > 20 * 10**9
    reads = CountedReads(monkeypatch)
    start = time.perf_counter()
    text = text_of(path)
    seconds = time.perf_counter() - start
    assert "21.5 GB" in text and "0–39" in text and "40 alike" in text
    assert reads.nbytes < 1e-4 * path.stat().st_size
    assert seconds < 5.0


def test_twenty_gigabytes_of_torch(tmp_path, monkeypatch):
    """torch's own zip of small storages, rewritten with each storage blown up to 0.5 GiB."""
    small = tmp_path / "small.pt"
    state = {f"blocks.{i}.weight": torch.empty(GIB // 8, device="meta") for i in range(40)}
    fakes = {name: torch.zeros(1).expand(1) for name in state}
    torch.save({"model": fakes, "step": 7}, small)
    large = tmp_path / "large.pt"
    _blow_up(small, large, GIB // 2)
    assert large.stat().st_size > 20 * 10**9
    reads = CountedReads(monkeypatch)
    start = time.perf_counter()
    found = json_of(large)
    seconds = time.perf_counter() - start
    assert found["step"] == 7 and len(found["tensors"]) == 40
    assert reads.nbytes < 1e-4 * large.stat().st_size
    assert seconds < 5.0


def _blow_up(small, large, nbytes):
    """Copies a stored zip with every storage grown to `nbytes` by a hole; zip64 offsets."""
    entries = []
    with zipfile.ZipFile(small) as archive, large.open("wb") as out:
        for info in archive.infolist():
            data = archive.read(info)
            size = nbytes if "/data/" in info.filename else len(data)
            at, name = out.tell(), info.filename.encode()
            out.write(
                struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, size, size, len(name), 0)
            )
            out.write(name + data)
            out.seek(size - len(data), 1)
            entries.append((name, size, at))
        start = out.tell()
        for name, size, at in entries:
            extra = struct.pack("<2HQ", 1, 8, at)
            out.write(
                struct.pack(
                    "<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, size, size, len(name),
                    len(extra), 0, 0, 0, 0, 0xFFFFFFFF,
                ) + name + extra
            )  # fmt: skip
        end = out.tell()
        count = len(entries)
        out.write(struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count,
                              end - start, start))  # fmt: skip
        out.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        out.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF,
                              0))  # fmt: skip


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_twenty_thousand_tensors_take_about_a_second(tmp_path, kind):
    path = tmp_path / f"many.{kind}"
    names = [f"layers.{i // 20}.part{i % 20}.weight" for i in range(20_000)]
    if kind == "safetensors":
        sparse_safetensors(path, names, 64)
    else:
        torch.save({"model": {name: torch.zeros(4) for name in names}, "step": 1}, path)
    from smdlens.snapshots.series import open_snapshot

    seconds = []
    for _ in range(2):
        start = time.process_time()
        assert len(open_snapshot(path).tensors) == 20_000
        seconds.append(time.process_time() - start)
    # About a second here; the bound leaves room for a machine three times as slow.
    assert min(seconds) < 4.0
    assert "0–999" in text_of(path)
