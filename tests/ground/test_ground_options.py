"""Options as Python callers write them: every slip is one clear error before any file is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from smdlens.errors import InputError
from smdlens.options import gather_options
from smdlens.wording import count_of


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lr", "a", "a number"),
        ("lr", True, "a number"),
        ("tolerance", "x", "a number"),
        ("tolerance", 1.5, "between 0 and 1"),
        ("workers", 1.5, "a whole number"),
        ("workers", 0, "1 or more"),
        ("nesterov", "yes", "true or false"),
        ("betas", (0.9,), "two numbers"),
        ("epsilon", 0.0, "a positive number"),
        ("steps", 5, "FROM:TO"),
        ("steps", (600, 300), "FROM:TO"),
        ("include", 5, "a text"),
        ("exclude", ("a", 5), "a text"),
        ("schedule", 3, "a text"),
        ("graph", 7, "a text"),
        ("device", 3, "a text"),
    ],
)
def test_a_value_of_the_wrong_type_names_the_option(name: str, value: Any, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        gather_options(**{name: value})
    assert caught.value.subject == f"option --{name}"
    assert expected in (caught.value.expected or "")
    assert caught.value.found == repr(value) or name == "steps"


def test_the_forms_python_callers_use() -> None:
    options = gather_options(
        lr=np.float32(0.5), workers=np.int64(2), steps=(300, 600), include="a*", exclude=["b", "c"]
    )
    assert (options.lr, options.workers, options.steps) == (0.5, 2, (300, 600, 1))
    assert (options.include, options.exclude) == (("a*",), ("b", "c"))
    assert type(options.lr) is float and type(options.workers) is int
    assert gather_options(steps=(None, 600, 2)).steps == (None, 600, 2)


def test_counts_agree_with_their_nouns() -> None:
    assert [count_of(n, "tensor") for n in (0, 1, 2, 12345)] == [
        "0 tensors",
        "1 tensor",
        "2 tensors",
        "12,345 tensors",
    ]
