"""Attack files under an armed audit hook: nothing they name is imported, run, opened or called."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Reads every file named on stdin after warming up on a harmless one, and reports what happened.
CHILD = r"""
import json, resource, sys
from smdlens.errors import SmdlensError
from smdlens.snapshots import open_series, open_snapshot
from smdlens.snapshots.readers import read_checkpoint

paths = json.loads(sys.stdin.read())
for warm in paths.pop("warm"):
    open_snapshot(warm)
"text".encode("latin-1"); b"\\n".decode("unicode_escape"); b"x".decode("raw-unicode-escape")
b"x".decode("cp437"); b"x".decode("utf-8", "surrogatepass")
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
events = []
current = ""
# Names of harmless events: opening for reading, listing folders, our own objects.
QUIET = ("object.__", "os.listdir", "os.scandir", "sys._getframe", "code.__new__", "builtins.id")

def hook(event, args):
    if event == "open":
        mode, flags = args[1], args[2] or 0
        if mode in (None, "r", "rb") and not flags & 0o3:
            return
    if not event.startswith(QUIET):
        events.append([current, event, repr(args)[:200]])

sys.addaudithook(hook)
results = {}
for name, path in paths["attacks"].items():
    current = name
    for way in (read_checkpoint, open_snapshot):
        try:
            way(path)
            results[name] = "read"
        except SmdlensError as error:
            results[name] = type(error).__name__
            str(error)
armed, current = list(events), None
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"events": armed, "results": results, "peak_kib": peak}))
"""


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def attack_pickles(marker: str) -> dict[str, bytes]:
    """Pickles that would run `touch marker`, or break the process, in a real unpickler."""
    command = f"touch {marker}"
    call = _text(command)
    return {
        "reduce": b"cos\nsystem\n" + call + b"\x85R.",
        "reduce-posix": b"cposix\nsystem\n" + call + b"\x85R.",
        "eval": b"c__builtin__\neval\n" + _text(f"open({marker!r},'w')") + b"\x85R.",
        "exec": b"cbuiltins\nexec\n" + _text(f"open({marker!r},'w')") + b"\x85R.",
        "inst": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + call + b"o.",
        "newobj": b"csubprocess\nPopen\n" + call + b"\x85\x81.",
        "newobj-ex": b"csubprocess\nPopen\n)}" + _text("args") + call + b"s\x92.",
        "stack-global": b"\x80\x04" + _text("os") + _text("system") + b"\x93" + call + b"\x85R.",
        "getattr-chain": b"cbuiltins\ngetattr\ncbuiltins\n__import__\n"
        + _text("os")
        + b"\x85R"
        + _text("system")
        + b"\x86R"
        + call
        + b"\x85R.",
        "dotted-name": b"\x80\x04" + _text("os") + _text("path.os.system") + b"\x93"
        + call + b"\x85R.",
        "extension": b"\x82\x01" + call + b"\x85R.",
        "import-by-name": b"cantigravity\nfly\n)R.",
        "foreign-import": b"csmdlens_attack_module\nrun\n)R.",
        "build-on-function": b"ctorch._utils\n_rebuild_tensor_v2\nN}"
        + _text("__defaults__")
        + b")s\x86b.",
        "build-on-class": b"ccollections\nOrderedDict\n}" + _text("pop") + b"Nsb.",
        "build-on-storage": b"ctorch\nFloatStorage\n}" + _text("dtype") + _text("x") + b"sb.",
        "setstate": b"cargparse\nNamespace\n)\x81}" + _text("__class__") + b"cos\nsystem\nsb.",
        "reconstructor": b"ccopyreg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
        "partial": b"cfunctools\npartial\ncos\nsystem\n" + call + b"\x86R)R.",
        "numpy-object": b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n"
        + _text("O")
        + b"\x85R"
        + _text(command)
        + b"\x86R.",
        "codecs": b"c_codecs\nencode\n" + call + _text("zlib") + b"\x86R.",
        "load-from-bytes": b"ctorch.storage\n_load_from_bytes\nC\x05cos\nx\x85R.",
        "rebuild-from-type": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\ncos\nsystem\n"
        + call
        + b"\x85}tR.",
        "persistent-call": b"(" + _text("module") + b"cos\nsystem\nNNtQ.",
        "long-binput": b"Nr\xff\xff\xff\x7f.",
        "binbytes8-1TB": b"\x8e" + (1 << 40).to_bytes(8, "little") + b"x.",
        "binunicode8": b"\x8d" + (1 << 62).to_bytes(8, "little") + b"x.",
        "bytearray8": b"\x96" + (1 << 40).to_bytes(8, "little") + b"x.",
        "frame": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
        "long4": b"\x8b\xff\xff\xff\x7f" + b"\x01" * 64 + b".",
        "deep-marks": b"(" * 200_000 + b".",
        "deep-lists": b"]" * 100_000 + b"a" * 99_999 + b".",
        "deep-tuples": b")" + b"\x85" * 300_000 + b".",
        "tuple-hash-bomb": b"})" + b"2\x86" * 60 + b"Ns.",
        "laughs": b"](" + b"N" * 10 + b"e" + b"q\x00"
        + b"](h\x00h\x00h\x00h\x00eq\x00" * 60 + b".",
        "self-reference": b"}q\x00" + _text("a") + b"h\x00s" + _text("b") + b"h\x00s.",
        "string-copies": b"X" + (1 << 16).to_bytes(4, "little") + b"y" * (1 << 16) + b"q\x000"
        + b"c_codecs\nencode\nq\x010"
        + (b"h\x01h\x00" + _text("latin1") + b"\x86R0") * 20_000 + b"N.",
        "list-copies": b"](" + b"N" * 10_000 + b"eq\x000cbuiltins\nlist\nq\x010"
        + b"](" + b"h\x01h\x00\x85R" * 20_000 + b"e.",
        "numpy-shape": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
        + b"(K\x01\x8a\x08" + b"\xff" * 7 + b"\x7f\x85cnumpy\ndtype\n" + _text("f8")
        + b"\x85R\x89C\x00tb.",
    }  # fmt: skip


def _tensor(shape: bytes, strides: bytes, offset: bytes = b"K\x00") -> bytes:
    """A state dict of one tensor over a storage of 16 bytes, with any view."""
    pid = (
        b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu") + b"K\x04tQ"
    )
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + offset + shape + strides + b"\x89}tR"
    return b"}" + _text("w") + view + b"s."


def _hash_bomb_in_param_groups() -> bytes:
    """Sound weights beside an optimizer whose parameters are (t0, t0), t0 = (t1, t1) ..."""
    weights = _tensor(b"K\x02\x85", b"K\x01\x85").removesuffix(b".")
    bomb = b")" + b"2\x86" * 60
    groups = b"](}" + _text("params") + b"](" + bomb + b"](Nees" + b"e"
    optimizer = b"}" + _text("state") + b"}s" + _text("param_groups") + groups + b"s"
    return weights + _text("optimizer") + optimizer + b"s."


def _big(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def view_attacks() -> dict[str, bytes]:
    return {
        "view-beyond": _tensor(b"K\x05\x85", b"K\x01\x85"),
        "view-offset": _tensor(b"K\x01\x85", b"K\x01\x85", _big(1 << 60)),
        "view-negative-stride": _tensor(b"K\x02\x85", _big(-1) + b"\x85"),
        "view-negative-offset": _tensor(b"K\x02\x85", b"K\x01\x85", _big(-4)),
        "view-broadcast": _tensor(_big(1 << 40) + b"\x85", b"K\x00\x85"),
        "view-stride": _tensor(b"K\x02\x85", _big(1 << 40) + b"\x85"),
        "view-text": _tensor(_text("4") + b"\x85", b"K\x01\x85"),
        "params-hash-bomb": _hash_bomb_in_param_groups(),
        "view-lengths": _tensor(b"K\x02\x85", b"K\x01K\x01\x86"),
    }


def archive(path: Path, pickled: bytes, *, method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/byteorder", b"little")
        file.writestr("archive/data/0", bytes(16))


def legacy(path: Path, pickled: bytes) -> None:
    import pickle

    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    facts = pickle.dumps({"little_endian": True}, 2)
    path.write_bytes(magic + pickle.dumps(1001, 2) + facts + pickled + pickle.dumps([], 2))


def file_attacks(folder: Path) -> dict[str, str]:
    """Files and folders whose containers lie, rather than their pickles."""
    made: dict[str, Path] = {}

    def new(name: str) -> Path:
        made[name] = folder / f"{name}.pt"
        return made[name]

    archive(new("deflated-bomb"), b"\0" * (64 << 20), method=zipfile.ZIP_DEFLATED)
    # Entries whose declared size is far beyond the file, in both headers.
    path = new("declared-size")
    archive(path, b"N.")
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\3\4", 18), (b"PK\1\2", 20)):
        where = data.index(mark) + at
        data[where : where + 8] = struct.pack("<2I", 0xFFFFFFF0, 0xFFFFFFF0)
    path.write_bytes(data)
    path = new("million-entries")
    path.write_bytes(
        b"PK\3\4" + b"\0" * 22 + b"\x0a\0\0\0a/data.pkl"
        + struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1 << 60, 1 << 60, 1 << 60, 0)
        + struct.pack("<4sIQI", b"PK\6\7", 0, 40, 1)
        + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    )  # fmt: skip
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}})
    new("declared-tensor").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    new("header-length").write_bytes((1 << 39).to_bytes(8, "little") + b"{" + b" " * 100)
    deep = b'{"a":' + b"[" * 2_000_000
    new("json-depth").write_bytes(len(deep).to_bytes(8, "little") + deep)
    index = folder / "escape"
    index.mkdir()
    (index / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": "../../../../../../../etc/passwd"}})
    )
    made["escape"] = index
    fifo = folder / "fifo.safetensors"
    os.mkfifo(fifo)
    made["fifo"] = fifo
    inner = folder / "fifo-shard"
    inner.mkdir()
    os.mkfifo(inner / "model.safetensors")
    made["fifo-shard"] = inner
    made["device"] = Path("/dev/zero")
    new("raw-pickle").write_bytes(b"cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    new("gzip").write_bytes(b"\x1f\x8b" + zlib.compress(b"\0" * 1000))
    return {name: str(path) for name, path in made.items()}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the armed child saw while it read every attack."""
    folder = tmp_path_factory.mktemp("attacks")
    marker = folder / "marker"
    (folder / "smdlens_attack_module.py").write_text(f"open({str(marker)!r}, 'w')")
    attacks = file_attacks(folder)
    for name, pickled in (attack_pickles(str(marker)) | view_attacks()).items():
        for kind, write in (("zip", archive), ("legacy", legacy)):
            path = folder / f"{kind}-{name}.pt"
            write(path, pickled)
            attacks[f"{kind}-{name}"] = str(path)
    warm = folder / "warm.pt"
    archive(warm, _tensor(b"K\x02K\x02\x86", b"K\x02K\x01\x86"))
    # Attack modules must be importable for the test to mean anything.
    path = os.pathsep.join([str(ROOT), str(folder)])
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps({"attacks": attacks, "warm": [str(warm)]}),
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path},
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    result["marker"] = marker.exists()
    result["attacks"] = sorted(attacks)
    return dict(result)


def test_no_attack_makes_anything_happen(report: dict[str, object]) -> None:
    assert report["events"] == []
    assert report["marker"] is False


def test_every_attack_ends_in_a_named_error(report: dict[str, object]) -> None:
    results = report["results"]
    assert isinstance(results, dict) and sorted(results) == report["attacks"]
    read = {name for name, outcome in results.items() if outcome == "read"}
    assert read == {"zip-params-hash-bomb"}, "no other holds sound weights"
    causes = set(results.values())
    assert {"SnapshotUnsafeError", "SnapshotCorruptError", "SnapshotTruncatedError"} <= causes
    expected = {
        "escape": "SnapshotUnsafeError",
        "fifo": "SnapshotUnsafeError",
        "fifo-shard": "SnapshotUnsafeError",
        "device": "SnapshotUnsafeError",
        "deflated-bomb": "SnapshotUnsupportedError",
        "header-length": "SnapshotUnsafeError",
        "json-depth": "SnapshotUnsafeError",
        "declared-tensor": "SnapshotTruncatedError",
        "zip-view-beyond": "SnapshotCorruptError",
        "zip-view-broadcast": "SnapshotUnsafeError",
        "zip-list-copies": "SnapshotUnsafeError",
        "zip-deep-marks": "SnapshotUnsafeError",
    }
    assert {name: results[name] for name in expected} == expected


def test_memory_stays_bounded(report: dict[str, object]) -> None:
    peak = report["peak_kib"]
    assert isinstance(peak, int) and peak < 1536 * 1024


def test_the_hook_would_have_seen_it(tmp_path: Path) -> None:
    """The oracle of this file: a real unpickler under the same hook is caught."""
    attack = tmp_path / "a.pkl"
    attack.write_bytes(b"cos\nsystem\n" + _text(f"touch {tmp_path}/marker") + b"\x85R.")
    child = CHILD.replace(
        "for name, path in paths",
        "import pickle; pickle.load(open(paths['raw'], 'rb'))\nfor name, path in paths",
    )
    done = subprocess.run(
        [sys.executable, "-c", child],
        input=json.dumps({"attacks": {}, "warm": [], "raw": str(attack)}),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    events = {event for _, event, _ in json.loads(done.stdout)["events"]}
    assert {"pickle.find_class", "os.system"} <= events and (tmp_path / "marker").exists()
