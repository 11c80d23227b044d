"""Which column is the test metric, which way is better, and where it lies on the run's axis."""

from dataclasses import dataclass

import pytest

from smdlens.errors import InputError
from smdlens.hyper.metrics import goal_of, resolve_metric


@dataclass
class Saved:
    step: int | None
    epoch: float | None


@dataclass
class Series:
    """What the resolution looks at of a run."""

    axis: str = "steps"
    snapshots: tuple[Saved, ...] = (Saved(0, None), Saved(100, None))


def log(folder, text):
    path = folder / "log.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "goal"),
    [
        ("val_acc", "up"), ("eval_top1", "up"), ("Accuracy/test", "up"), ("valAccuracy", "up"),
        ("test/mIoU", "up"), ("F1", "up"), ("val_f1_score", "up"), ("epoch_accuracy", "up"),
        ("eval_loss", "down"), ("validation/epoch_loss", "down"), ("testError", "down"),
        ("top1_err", "down"), ("ppl", "down"), ("WER", "down"), ("val/perplexity", "down"),
        ("lr", None), ("metric", None), ("accelerate", None), ("glossary", None),
    ],
)  # fmt: skip
def test_direction_by_name(name, goal):
    assert goal_of(name) == goal


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("loss,accuracy,val_loss,val_accuracy", "val_accuracy"),
        ("val_accuracy,test_loss", "test_loss"),
        ("train_acc,accuracy", "accuracy"),
        ("eval_top1,eval_top5,eval_loss,lr", "eval_top1"),
    ],
)
def test_the_test_metric_by_name(tmp_path, header, taken):
    path = log(tmp_path, f"step,{header}\n10{',0.5' * (header.count(',') + 1)}\n")
    assert resolve_metric(path, Series()).name == taken


def test_an_option_overrides_name_and_direction(tmp_path):
    path = log(tmp_path, "step,acc,odd\n10,0.5,3\n20,0.6,4\n")
    metric = resolve_metric(path, Series(), "odd", "down")
    assert (metric.name, metric.goal, metric.goal_source) == ("odd", "down", "option --metric-goal")
    assert (metric.at, metric.values) == ((10.0, 20.0), (3.0, 4.0))
    assert resolve_metric(path, Series(), "acc").goal_source == "its name"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("odd", ["odd", "--metric-goal"]),
        ("ac", ["'ac'", "acc, odd", "Did you mean acc?"]),
        ("zzz", ["acc, odd", "--metric"]),
    ],
)
def test_what_cannot_be_told_is_asked_for(tmp_path, name, words):
    path = log(tmp_path, "step,acc,odd\n10,0.5,3\n")
    with pytest.raises(InputError) as error:
        resolve_metric(path, Series(), name)
    for word in [*words, "log.csv"]:
        assert word in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("header", ["train_acc", "loss", "lr"])
def test_no_test_metric_is_no_guess(tmp_path, header):
    with pytest.raises(InputError, match="looks like a test metric"):
        resolve_metric(log(tmp_path, f"step,{header}\n10,0.5\n"), Series())


def test_epochs_become_steps(tmp_path):
    path = log(tmp_path, "epoch,acc\n0,0.5\n1,0.6\n")
    assert resolve_metric(path, Series(), steps_per_epoch=50).at == (50.0, 100.0)
    both = Series(snapshots=(Saved(0, 0.0), Saved(80, 1.0), Saved(160, 2.0)))
    assert resolve_metric(path, both).at == (80.0, 160.0)
    assert resolve_metric(path, Series("epochs")).at == (1.0, 2.0)
    with pytest.raises(InputError, match="--steps-per-epoch"):
        resolve_metric(path, Series())
    uneven = Series(snapshots=(Saved(80, 1.0), Saved(300, 2.0)))
    with pytest.raises(InputError, match="--steps-per-epoch"):
        resolve_metric(path, uneven)


def test_steps_become_epochs(tmp_path):
    path = log(tmp_path, "step,acc\n50,0.5\n100,0.6\n")
    assert resolve_metric(path, Series("epochs"), steps_per_epoch=50).at == (1.0, 2.0)
