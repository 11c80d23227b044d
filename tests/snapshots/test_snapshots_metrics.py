"""Training logs of every kind: what is read, and what is refused."""

import json
import math
import struct
from pathlib import Path

import pytest

from smdlens.containers.tfrecord import crc32c, masked_crc32c
from smdlens.errors import InputError
from smdlens.snapshots.metrics import read_metrics

GOLDEN = Path(__file__).parents[1] / "golden" / "tensorboard"
TORCH = GOLDEN / "torch" / "events.out.tfevents.1.host"


def columns(path):
    return {c.name: c for c in read_metrics(path).columns}


def csv_file(folder, text):
    path = folder / "log.csv"
    path.write_text(text)
    return path


def test_crc32c_of_the_standard():
    """Test vectors of RFC 3720, appendix B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283


def test_scalars_that_tensorboard_wrote():
    found = columns(TORCH)
    assert set(found) == {"accuracy/test", "loss/train"}
    test = found["accuracy/test"]
    assert test.axis == "steps"
    assert test.at == tuple(range(10, 101, 10))
    assert test.values == pytest.approx([0.9 * (1 - math.exp(-s / 30)) for s in test.at], rel=1e-6)
    assert columns(TORCH.parent) == found


def test_tensor_valued_scalars_by_epoch_in_sub_folders():
    found = columns(GOLDEN / "keras")
    accuracy, loss = found["validation/epoch_accuracy"], found["validation/epoch_loss"]
    assert accuracy.axis == loss.axis == "epochs"
    assert accuracy.at == (1, 2, 3, 4, 5, 6)
    assert accuracy.values == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], rel=1e-6)
    assert loss.values == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], rel=1e-15)


def test_an_event_file_is_known_by_its_bytes_too(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(TORCH.read_bytes())
    assert columns(path) == columns(TORCH)


@pytest.mark.parametrize("kept", [0.95, 0.5, 0.2])
def test_a_file_cut_short_counts_up_to_there(tmp_path, kept):
    whole = TORCH.read_bytes()
    path = tmp_path / TORCH.name
    path.write_bytes(whole[: int(kept * len(whole))])
    log = read_metrics(path)
    (note,) = log.notes
    assert "ends inside a record" in note
    full = columns(TORCH)
    for column in log.columns:
        assert column.values == full[column.name].values[: len(column.values)]


def records(data):
    at = 0
    while at < len(data):
        (nbytes,) = struct.unpack("<Q", data[at : at + 8])
        yield at, nbytes
        at += 16 + nbytes


def test_every_damaged_byte_is_found(tmp_path):
    """Whichever byte of the first scalar's record is wrong, nothing is read from the file."""
    whole = TORCH.read_bytes()
    start, nbytes = list(records(whole))[1]
    path = tmp_path / TORCH.name
    for at in range(start, start + 16 + nbytes):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="checksum") as error:
            read_metrics(path)
        assert TORCH.name in str(error.value)


def test_a_giant_length_allocates_nothing(tmp_path):
    """A length of an exabyte with a right checksum: the file just ends there."""
    header = struct.pack("<Q", 1 << 60)
    path = tmp_path / TORCH.name
    path.write_bytes(TORCH.read_bytes() + header + struct.pack("<I", masked_crc32c(header)) + b"xx")
    log = read_metrics(path)
    assert log.notes
    assert {c.name: c for c in log.columns} == columns(TORCH)


def record(data):
    header = struct.pack("<Q", len(data))
    return (
        header + struct.pack("<I", masked_crc32c(header)) + data
        + struct.pack("<I", masked_crc32c(data))
    )  # fmt: skip


@pytest.mark.parametrize(
    "message",
    [b"\x2a\xff\xff\xff\xff\x0f", b"\x2a\x04\x0a\x7f\x0a\x01", b"\x10" + b"\xff" * 12, b"\x0b"],
    ids=["reaches beyond", "nested reaches beyond", "endless number", "group"],
)
def test_sound_records_of_broken_messages_are_refused(tmp_path, message):
    path = tmp_path / TORCH.name
    path.write_bytes(TORCH.read_bytes() + record(message))
    with pytest.raises(InputError, match="event file"):
        read_metrics(path)


def test_no_scalar_no_metric(tmp_path):
    path = tmp_path / TORCH.name
    path.write_bytes(record(b"\x1a\x0dbrain.Event:2"))
    with pytest.raises(InputError, match="no scalar"):
        read_metrics(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="no scalar"):
        read_metrics(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no log"):
        read_metrics(tmp_path / "empty")


def test_csv_of_lightning_with_empty_cells(tmp_path):
    found = columns(csv_file(tmp_path, "epoch,step,train_loss,val_acc\n0,49,0.9,\n0,99,,0.5\n"))
    assert set(found) == {"train_loss", "val_acc"}
    assert (found["val_acc"].axis, found["val_acc"].at) == ("steps", (99.0,))
    assert found["val_acc"].values == (0.5,)


@pytest.mark.parametrize(("first", "expected"), [(0, (1.0, 2.0)), (1, (1.0, 2.0))])
def test_csv_by_epoch_counts_finished_epochs(tmp_path, first, expected):
    text = f"epoch, eval_top1 ,note\n{first},70.5,good\n{first + 1},nan,bad\n{first + 1},71,\n"
    found = columns(csv_file(tmp_path, text))
    assert set(found) == {"eval_top1"}
    assert found["eval_top1"].at == expected
    assert found["eval_top1"].values == (70.5, 71.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["column step or epoch", "empty"]),
        ("loss,acc\n1,2\n", ["column step or epoch", "loss, acc"]),
        ("step,acc\nten,2\n", ["line 2", "'ten'"]),
        ("step,acc\n-1,2\n", ["line 2", "'-1'"]),
        ("step,acc,acc\n1,2,3\n", ["twice", "acc"]),
        ("step,acc\n1,high\n", ["no number"]),
    ],
)
def test_csv_that_cannot_be_used(tmp_path, text, words):
    with pytest.raises(InputError) as error:
        read_metrics(csv_file(tmp_path, text))
    for word in [*words, "log.csv"]:
        assert word in str(error.value)


def test_csv_that_is_none(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"\xff\xfe\x00\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_metrics(path)
    with pytest.raises(InputError, match="cannot be"):
        read_metrics(tmp_path / "absent.csv")


def test_trainer_state(tmp_path):
    path = tmp_path / "trainer_state.json"
    history = [
        {"step": 10, "epoch": 1.0, "loss": 2.0},
        {"step": 10, "epoch": 1.0, "eval_accuracy": 0.5, "eval_ok": True, "eval_text": "x"},
        {"step": 20, "epoch": 2.0, "eval_accuracy": 0.6, "eval_loss": float("nan")},
        {"step": 30, "epoch": 3.0, "eval_accuracy": 10**400},
        "no entry",
    ]
    path.write_text(json.dumps({"log_history": history}))
    found = columns(path)
    assert set(found) == {"loss", "eval_accuracy"}
    assert found["eval_accuracy"].at == (10.0, 20.0)
    assert found["eval_accuracy"].values == (0.5, 0.6)


@pytest.mark.parametrize("text", ["{", "[]", '{"log_history": 3}', '{"log_history": []}'])
def test_trainer_state_that_cannot_be_used(tmp_path, text):
    path = tmp_path / "trainer_state.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"trainer_state\.json"):
        read_metrics(path)
