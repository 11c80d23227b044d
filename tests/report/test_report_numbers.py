import pytest

from smdlens.report import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (2370, "2.4k"),
        (91_000, "91k"),
        (150_120, "150k"),
        (450_360, "450k"),
        (900_000, "0.9M"),
        (14_000_000, "14M"),
        (2.3e9, "2.3G"),
    ],
)
def test_humanised(value, text):
    assert numbers.humanised(value) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0, 3200, "0–3,200"), (150_120, 300_240, "150–300k"), (400_320, 900_000, "400k–0.9M")],
)
def test_step_range(low, high, text):
    assert numbers.step_range(low, high, widest=11) == text


def test_step_range_is_exact_where_there_is_room():
    assert numbers.step_range(150_120, 300_240, widest=17) == "150,120–300,240"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (0.001, "0.001"),
        (1e-4, "1e-4"),
        (3.333e-5, "3.33e-5"),
        (0.0, "0"),
        (None, "?"),
        (0.30000000000000004, "0.3"),
    ],
)
def test_rate(value, text):
    assert numbers.rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.00"),
        (0.373, "0.37"),
        (0.119, "0.12"),
        (0.0123, "0.012"),
        (0.00001, "1e-5"),
        (0.0, "0.00"),
        (3.16, "3.16"),
        (12.3, "12"),
        (150.0, "1.5e2"),
        (None, "?"),
        (float("nan"), "?"),
    ],
)
def test_ratio(value, text):
    assert numbers.ratio(value) == text
    assert len(text) <= 5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.45249, "0.452"),
        (2.0, "2.00"),
        (434.6, "435"),
        (999.6, "1,000"),
        (1433.0, "1,430"),
        (1.4863e-5, "1.49e-5"),
        (-1.4863e-5, "-1.49e-5"),
        (2.34e7, "2.34e7"),
        (0.0, "0.00"),
        (None, "?"),
        (float("nan"), "?"),
    ],
)
def test_quantity(value, text):
    assert numbers.quantity(value) == text
