from pathlib import Path

import pytest

from smdlens.config import find_config, read_config
from smdlens.errors import InputError
from smdlens.options import AnalysisOptions, gather_options, parse_betas, parse_steps


def write(path, text):
    path.write_text(text)
    return path


def test_every_key_is_read_with_dashes_or_underscores(tmp_path):
    path = write(
        tmp_path / "smdlens.toml",
        """
        optimizer = "sgd"
        lr = 1
        weight-decay = 1e-4
        momentum = 0.9
        dampening = 0.0
        nesterov = true
        betas = [0.9, 0.999]
        schedule = "lr.csv"
        steps_per_epoch = 5004
        weights = "ema"
        include = ["conv*"]
        exclude = "fc*"
        steps = "0:100:2"
        tolerance = 0.2
        device = "cpu"
        workers = 2
        """,
    )
    assert gather_options(path) == AnalysisOptions(
        optimizer="sgd",
        lr=1,
        weight_decay=1e-4,
        momentum=0.9,
        dampening=0.0,
        nesterov=True,
        betas=(0.9, 0.999),
        schedule=tmp_path / "lr.csv",
        steps_per_epoch=5004,
        weights="ema",
        include=("conv*",),
        exclude=("fc*",),
        steps=(0, 100, 2),
        tolerance=0.2,
        device="cpu",
        workers=2,
        source=dict.fromkeys(
            [
                "optimizer",
                "lr",
                "weight_decay",
                "momentum",
                "dampening",
                "nesterov",
                "betas",
                "schedule",
                "steps_per_epoch",
                "weights",
                "include",
                "exclude",
                "steps",
                "tolerance",
                "device",
                "workers",
            ],
            str(path),
        ),
    )


def test_arguments_come_before_the_file_and_sources_say_so(tmp_path):
    path = write(tmp_path / "smdlens.toml", "lr = 0.5\nmomentum = 0.9\n")
    options = gather_options(path, lr=0.1, momentum=None)
    assert (options.lr, options.momentum) == (0.1, 0.9)
    assert options.source == {"momentum": str(path)}
    assert options.declared.said_by("lr") == "option --lr"
    assert options.declared.said_by("momentum") == str(path)


def test_pyproject_table_and_precedence_of_our_own_file(tmp_path):
    pyproject = write(tmp_path / "pyproject.toml", "[tool.smdlens]\nlr = 0.5\n")
    assert find_config(tmp_path) == pyproject and read_config(pyproject) == {"lr": 0.5}
    own = write(tmp_path / "smdlens.toml", "lr = 0.1\n")
    assert find_config(tmp_path) == own


@pytest.mark.parametrize("text", ["[project]\nname = 'x'\n", "not toml at all ["])
def test_a_pyproject_without_us_is_not_our_business(tmp_path, text):
    write(tmp_path / "pyproject.toml", text)
    assert find_config(tmp_path) is None


def test_no_file_no_config(tmp_path):
    assert find_config(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("weight_decy = 1", "Did you mean weight_decay"),
        ("zzz = 1", "Known keys"),
        ("lr = '0.1'", "a number"),
        ("lr = true", "a number"),
        ("steps_per_epoch = 1.5", "a whole number"),
        ("nesterov = 1", "true or false"),
        ("betas = [0.9]", "two numbers"),
        ("include = [1]", "list"),
        ("lr = ", "not valid TOML"),
        ("momentum = 1.5", "[0, 1)"),
        ("tolerance = 2", "tolerance"),
        ("steps = 'x'", "FROM:TO"),
    ],
)
def test_mistakes_name_file_and_remedy(tmp_path, text, says):
    path = write(tmp_path / "smdlens.toml", text)
    with pytest.raises(InputError) as caught:
        gather_options(path)
    assert says in str(caught.value) and caught.value.exit_code == 2


def test_mistakes_of_value_name_the_file(tmp_path):
    path = write(tmp_path / "smdlens.toml", "tolerance = 2")
    with pytest.raises(InputError, match=r"smdlens\.toml"):
        gather_options(path)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("0:100", (0, 100, 1)),
        ("0:100:5", (0, 100, 5)),
        (":100", (None, 100, 1)),
        ("10:", (10, None, 1)),
        ("::3", (None, None, 3)),
    ],
)
def test_steps(text, steps):
    assert parse_steps(text) == steps


@pytest.mark.parametrize("text", ["", "5", "1:2:3:4", "a:b", "5:1", "1:5:0", "1:5:-1", "1.5:3"])
def test_bad_steps(text):
    with pytest.raises(InputError):
        parse_steps(text)


def test_betas():
    assert parse_betas("0.9, 0.999") == (0.9, 0.999)


@pytest.mark.parametrize("text", ["", "0.9", "0.9,0.99,0.999", "a,b"])
def test_bad_betas(text):
    with pytest.raises(InputError):
        parse_betas(text)


def test_the_command_repeats_the_analysis_and_leaves_out_what_cannot_matter():
    options = gather_options(
        None,
        lr=0.1,
        nesterov=False,
        betas="0.9,0.99",
        include=("a*", "b*"),
        steps=":100",
        schedule=Path("lr.csv"),
        workers=7,
    )
    words = options.command(["a.pt", Path("b.pt")])
    assert words == (
        "smdlens",
        "analyze",
        "a.pt",
        "b.pt",
        "--lr",
        "0.1",
        "--no-nesterov",
        "--betas",
        "0.9,0.99",
        "--schedule",
        "lr.csv",
        "--include",
        "a*",
        "--include",
        "b*",
        "--steps",
        ":100:1",
    )
