import numpy as np
import pytest
from hyper_helpers import SGD, found_rates, series, snapshot

from smdlens.errors import InputError
from smdlens.hyper.options import DeclaredHyperParameters
from smdlens.hyper.resolve import resolve_hyper_parameters
from smdlens.hyper.schedule_csv import ScheduleRow, read_schedule


def write(folder, text, **how):
    path = folder / "schedule.csv"
    path.write_text(text, **how)
    return path


def test_rows_are_sorted_and_columns_may_stand_in_any_order(tmp_path):
    path = write(tmp_path, " LR ,note, Step\n0.01,cut,200\n\n0.1,start,0\n", encoding="utf-8-sig")
    assert read_schedule(path) == (ScheduleRow(0, 0.1, None), ScheduleRow(200, 0.01, None))


def test_weight_decay_may_be_left_out_of_a_row(tmp_path):
    path = write(tmp_path, "step,lr,weight_decay\n0,1e-1,5e-4\n1e2,0,\n")
    assert read_schedule(path) == (ScheduleRow(0, 0.1, 5e-4), ScheduleRow(100, 0.0, None))


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "an empty file"),
        ("epoch,lr\n0,0.1\n", 1, "step,lr"),
        ("step,rate\n0,0.1\n", 1, "step,lr"),
        ("step,lr\n", 2, "at least one row"),
        ("step,lr\n0,0.1\n100\n", 3, "numbers"),
        ("step,lr\n0,fast\n", 2, "numbers"),
        ("step,lr\n,0.1\n", 2, "numbers"),
        ("step,lr\n-1,0.1\n", 2, "whole step"),
        ("step,lr\n0.5,0.1\n", 2, "whole step"),
        ("step,lr\nnan,0.1\n", 2, "whole step"),
        ("step,lr\ninf,0.1\n", 2, "whole step"),
        ("step,lr\n0,nan\n", 2, "finite"),
        ("step,lr\n0,-0.1\n", 2, "finite"),
        ("step,lr,weight_decay\n0,0.1,inf\n", 2, "finite"),
        ("step,lr\n0,0.1\n5,0.2\n0,0.3\n", 4, "step 0 again"),
    ],
)
def test_mistakes_name_file_line_and_what_would_be_right(tmp_path, text, line, says):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_schedule(path)
    error = caught.value
    assert error.subject == str(path) and f"line {line} " in error.message
    assert says in error.describe() and error.remedy


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00s\x00t", "folder"])
def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path, content):
    path = tmp_path / "schedule.csv"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"schedule\.csv"):
        read_schedule(path)


def test_the_schedule_gives_every_update_its_rate_and_decay(tmp_path):
    path = write(tmp_path, "step,lr,weight_decay\n0,0.1,5e-4\n150,0.02,\n220,0.004,1e-3\n")
    shots = series([snapshot(step) for step in (0, 100, 200, 300)])
    hyper = resolve_hyper_parameters(shots, DeclaredHyperParameters(schedule=path))
    lr, decay = hyper.rates(0, 0, 300)
    np.testing.assert_array_equal(lr, np.repeat([0.1, 0.02, 0.004], [150, 70, 80]))
    np.testing.assert_array_equal(decay, np.repeat([5e-4, 1e-3], [220, 80]))
    assert [cut.step for cut in hyper.cuts] == [150, 220]
    assert all(cut.step_low == cut.step_high for cut in hyper.cuts)
    assert {segment.source for segment in hyper.schedule} == {"option --schedule"}


def test_before_its_first_row_a_schedule_says_nothing(tmp_path):
    path = write(tmp_path, "step,lr\n50,0.1\n")
    hyper = resolve_hyper_parameters(
        series([snapshot(0), snapshot(100)]), DeclaredHyperParameters(schedule=path)
    )
    lr = found_rates(hyper, 0, 100)
    assert np.isnan(lr[:50]).all() and (lr[50:] == 0.1).all()


def test_a_schedule_that_counts_from_one_covers_the_first_update(tmp_path):
    path = write(tmp_path, "step,lr\n1,0.1\n51,0.01\n")
    hyper = resolve_hyper_parameters(
        series([snapshot(0), snapshot(100)]), DeclaredHyperParameters(schedule=path)
    )
    assert found_rates(hyper, 0, 1)[0] == 0.1


def test_groups_with_a_multiplier_keep_it_under_a_declared_schedule(tmp_path):
    path = write(tmp_path, "step,lr\n0,0.1\n100,0.01\n")
    groups = [({**SGD, "lr": 0.01}, ("w",)), ({**SGD, "lr": 0.002}, ("b",))]
    shots = series([snapshot(step, groups, tensors=("w", "b")) for step in (100, 200)])
    hyper = resolve_hyper_parameters(shots, DeclaredHyperParameters(schedule=path))
    np.testing.assert_allclose(found_rates(hyper, 100, 200, 0), 0.01)
    np.testing.assert_allclose(found_rates(hyper, 100, 200, 1), 0.002)


def two_groups(decay):
    """A decayed group and one without decay."""
    groups = [({**SGD, "weight_decay": decay}, ("w",)), ({**SGD, "weight_decay": 0.0}, ("b",))]
    return series([snapshot(step, groups, tensors=("w", "b")) for step in (0, 100, 200)])


@pytest.mark.parametrize("by_schedule", [True, False])
def test_a_declared_decay_spares_groups_saved_without_any(tmp_path, by_schedule):
    """Both ways of declaring say the same: biases and gains beside decayed groups stay spared."""
    path = write(tmp_path, "step,lr,weight_decay\n0,0.1,1e-3\n")
    declared = (
        DeclaredHyperParameters(schedule=path)
        if by_schedule
        else DeclaredHyperParameters(lr=0.1, weight_decay=1e-3)
    )
    hyper = resolve_hyper_parameters(two_groups(5e-4), declared)
    np.testing.assert_array_equal(hyper.rates(0, 0, 200)[1], 1e-3)
    np.testing.assert_array_equal(hyper.rates(1, 0, 200)[1], 0.0)
    (text,) = [message for rule, message, _ in hyper.notes if rule == "SMD010"]
    assert "weight decay" in text and "0.001" in text and "0.0005" in text


@pytest.mark.parametrize("by_schedule", [True, False])
def test_a_declared_decay_speaks_of_all_groups_where_none_was_saved_with_any(tmp_path, by_schedule):
    path = write(tmp_path, "step,lr,weight_decay\n0,0.1,1e-3\n")
    declared = (
        DeclaredHyperParameters(schedule=path)
        if by_schedule
        else DeclaredHyperParameters(lr=0.1, weight_decay=1e-3)
    )
    hyper = resolve_hyper_parameters(two_groups(0.0), declared)
    for group in (0, 1):
        np.testing.assert_array_equal(hyper.rates(group, 0, 200)[1], 1e-3)
        assert hyper.groups[group].weight_decay == 1e-3


def test_a_declared_decay_of_zero_is_used():
    hyper = resolve_hyper_parameters(two_groups(5e-4), DeclaredHyperParameters(weight_decay=0.0))
    np.testing.assert_array_equal(hyper.rates(0, 0, 200)[1], 0.0)
