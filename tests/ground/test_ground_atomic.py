import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest

from smdlens import atomic
from smdlens.errors import InputError, OutputError


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.endswith(atomic.TEMPORARY_SUFFIX)]


def test_writes_and_replaces(tmp_path):
    target = tmp_path / "r.json"
    atomic.write_bytes(target, b"one")
    atomic.write_bytes(target, b"two")
    assert target.read_bytes() == b"two"
    assert leftovers(tmp_path) == []


def test_mode_follows_umask_and_is_kept(tmp_path):
    target = tmp_path / "r.json"
    old = os.umask(0o027)
    try:
        atomic.write_bytes(target, b"one")
    finally:
        os.umask(old)
    assert target.stat().st_mode & 0o777 == 0o640
    target.chmod(0o600)
    atomic.write_bytes(target, b"two")
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_symbolic_link_stays_a_link(tmp_path):
    (tmp_path / "real.json").write_bytes(b"one")
    link = tmp_path / "link.json"
    link.symlink_to("real.json")
    atomic.write_bytes(link, b"two")
    assert link.is_symlink() and (tmp_path / "real.json").read_bytes() == b"two"


def test_an_error_in_the_block_leaves_the_old_content(tmp_path):
    target = tmp_path / "r.json"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic.open_atomic(target) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_an_output_error_without_a_partial_file(tmp_path):
    target = tmp_path / "r.json"
    target.write_bytes(b"old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limit[1]))
    try:
        with pytest.raises(OutputError) as caught:
            atomic.write_bytes(target, bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.exit_code == 74
    assert str(target) in str(caught.value)
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "missing" / "r.json", "does not exist"),
        (lambda p: p, "is a folder"),
        (lambda p: "/dev/null", "regular file"),
        (lambda p: "/proc/r.json", "cannot be written"),
    ],
)
def test_check_writable_refuses(tmp_path, make, says):
    with pytest.raises(InputError, match=says) as caught:
        atomic.check_writable(make(tmp_path))
    assert caught.value.exit_code == 2


def test_check_writable_refuses_a_fifo(tmp_path):
    os.mkfifo(tmp_path / "r.json")
    with pytest.raises(InputError, match="pipe"):
        atomic.check_writable(tmp_path / "r.json")


def test_check_writable_leaves_nothing_behind(tmp_path):
    atomic.check_writable(tmp_path / "r.json")
    atomic.check_writable_folder(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_check_writable_folder_refuses_a_file(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(InputError, match="not a folder"):
        atomic.check_writable_folder(tmp_path / "out")


WRITER = """
import sys
from smdlens import atomic
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        atomic.write_bytes(sys.argv[1], letter * 2_000_000)
"""


def test_kill_at_random_moments_never_tears_the_file(tmp_path):
    target = tmp_path / "r.json"
    atomic.write_bytes(target, b"a" * 2_000_000)
    chance = random.Random(7)
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE
        )
        with process:
            process.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.05))
            process.kill()
        content = target.read_bytes()
        assert content in (b"a" * 2_000_000, b"b" * 2_000_000)
