import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_helpers import environment, smdlens, stand_in

import smdlens as package

GIVES_REPORT = "analyze = lambda *a, **k: report_helpers.resnet_report()"


def run(body, *arguments, **options):
    return subprocess.run(
        [*stand_in(body), "analyze", "run", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(**options.pop("env", {})),
        timeout=120,
        check=False,
        **options,
    )


def test_help_imports_nothing_heavy():
    program = (
        "import sys\n"
        "sys.argv = ['smdlens', 'analyze', '--help']\n"
        "from smdlens.cli.app import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'polars', 'numpy', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "    sys.stderr.write(repr(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0
    assert done.stderr == "set()"


@pytest.mark.parametrize("arguments", [("--help",), ("analyze", "--help")])
def test_help_fits_80_columns(arguments):
    done = smdlens(*arguments, COLUMNS="80")
    assert done.returncode == 0 and done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "analyze" in done.stdout and "…" not in done.stdout


def test_help_lists_every_option_and_no_command_that_is_not_built():
    text = smdlens("analyze", "--help", COLUMNS="120").stdout
    options = (
        "json optimizer lr weight-decay momentum dampening nesterov no-nesterov betas schedule "
        "steps-per-epoch weights config include exclude steps tolerance device workers quiet "
        "verbose no-progress output"
    )
    for option in options.split(" "):
        assert f"--{option} " in text
    root = smdlens("--help").stdout
    for command in ("plan", "rescale", "compare", "watch"):
        assert f"│ {command} " not in root


def test_version():
    done = smdlens("--version")
    assert (done.returncode, done.stdout) == (0, f"smdlens {package.__version__}\n")


def test_no_arguments_show_the_help_and_are_a_usage_error():
    done = smdlens()
    assert done.returncode == 2
    assert "Usage" in done.stdout + done.stderr and "Error" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["analyze"], "RUN"),
        (["analyse", "x"], "analyse"),
        (["analyze", "x", "--wieght-decay", "1"], "--weight-decay"),
        (["analyze", "x", "--lr", "fast"], "--lr"),
        (["analyze", "x", "--lr", "-1"], "positive"),
        (["analyze", "x", "--lr", "nan"], "positive"),
        (["analyze", "x", "--momentum", "1"], "[0, 1)"),
        (["analyze", "x", "--dampening", "-0.1"], "[0, 1)"),
        (["analyze", "x", "--weight-decay", "-1e-4"], "0 or more"),
        (["analyze", "x", "--betas", "0.9"], "two numbers"),
        (["analyze", "x", "--betas", "0.9,1.5"], "[0, 1)"),
        (["analyze", "x", "--steps", "9:1"], "FROM:TO"),
        (["analyze", "x", "--steps", "1:9:0"], "FROM:TO"),
        (["analyze", "x", "--steps", "all"], "FROM:TO"),
        (["analyze", "x", "--tolerance", "1.5"], "between 0 and 1"),
        (["analyze", "x", "--workers", "0"], "1 or more"),
        (["analyze", "x", "--steps-per-epoch", "0"], "1 or more"),
        (["analyze", "x", "--optimizer", "sdg"], "sgd"),
        (["analyze", "x", "-q", "-v"], "contradict"),
        (
            ["analyze", "x", "-o", "r.docx"],
            ".json, .html, .md, .xml, .sarif, .parquet, .csv, .pdf, .svg, .png",
        ),
        (["analyze", "x", "-o", "missing/r.json"], "does not exist"),
        (["analyze", "x", "--config", "missing.toml"], "missing.toml"),
    ],
)
def test_usage_errors_are_2_and_say_what_would_be_right(tmp_path, arguments, says):
    done = smdlens(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert says in done.stderr and "Traceback" not in done.stderr


def test_report_goes_to_stdout_without_colour():
    done = run(GIVES_REPORT)
    assert done.returncode == 0 and done.stderr == ""
    assert "Stages 3 and 4 do not reach equilibrium" in done.stdout and "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_columns_are_obeyed():
    done = run(GIVES_REPORT, env={"COLUMNS": "160"})
    assert 120 < max(map(len, done.stdout.splitlines())) <= 160


def test_json_is_the_only_thing_on_stdout():
    done = run(GIVES_REPORT, "--json")
    assert json.loads(done.stdout)["schema_version"] == "1.0" and done.stderr == ""


def test_outputs_are_written(tmp_path):
    done = run(GIVES_REPORT, "-o", "r.json", "-o", "i.csv", "-o", "all/", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["run"]["path"] == "runs/resnet50-a"
    assert {p.name for p in tmp_path.iterdir()} == {"r.json", "i.csv", "all"}


def test_options_reach_the_analysis_and_the_configuration_fills_the_rest(tmp_path):
    (tmp_path / "smdlens.toml").write_text("lr = 0.5\n")
    body = (
        "def analyze(path, **k):\n"
        "    given = {n: str(v) if n == 'config' else v for n, v in k.items() if v}\n"
        "    sys.exit(sys.stderr.write(repr((path, given))) * 0)"
    )
    done = run(
        body,
        "second",
        "--lr",
        "0.1",
        "--betas",
        "0.9,0.99",
        "--no-nesterov",
        "--include",
        "a*",
        cwd=tmp_path,
    )
    path, options = ast.literal_eval(done.stderr)
    assert path == ["run", "second"]
    assert options["lr"] == 0.1 and options["betas"] == "0.9,0.99"
    assert options["include"] == ["a*"] and options["config"].endswith("smdlens.toml")


def test_errors_of_the_analysis_have_their_code_and_no_traceback():
    body = (
        "def analyze(*a, **k):\n"
        "    raise smdlens.errors.NothingToAnalyseError('fewer than two usable snapshots',"
        " subject='run\\x1b[2J', expected='two', found='one', remedy='Save more.')"
    )
    done = run(body)
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr == (
        "Error: run\\x1b[2J: fewer than two usable snapshots\n"
        "  expected two\n  found    one\n  Save more.\n"
    )


@pytest.mark.parametrize(("flags", "traced"), [((), False), (("-v",), True)])
def test_a_defect_is_70_and_asks_for_a_report(flags, traced):
    done = run("def analyze(*a, **k): return {}['x']", *flags)
    assert done.returncode == 70
    assert "Internal error: KeyError" in done.stderr and "report it" in done.stderr
    assert ("Traceback" in done.stderr) is traced


def test_a_full_disk_is_74_and_leaves_nothing(tmp_path):
    body = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n" + GIVES_REPORT
    )
    done = run(body, "-o", "r.json", cwd=tmp_path)
    assert done.returncode == 74, done.stderr
    assert "could not be written" in done.stderr
    assert list(tmp_path.iterdir()) == []


WAITS = """
def analyze(*a, **k):
    import time, threading
    thread = threading.Thread(target=time.sleep, args=(30,))
    thread.start()
    sys.stderr.write("waiting\\n")
    sys.stderr.flush()
    thread.join()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_within_two_seconds_even_beside_a_busy_thread(number, code):
    with subprocess.Popen(
        [*stand_in(WAITS), "analyze", "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stderr.readline() == "waiting\n"
        sent = time.monotonic()
        process.send_signal(number)
        _, rest = process.communicate(timeout=20)
        assert time.monotonic() - sent < 3.0
    assert process.returncode == code
    assert "Traceback" not in rest


INTERRUPTED = """
import signal
def analyze(*a, **k):
    signal.raise_signal(signal.SIGINT)
"""


def test_ctrl_c_says_that_it_was_heard():
    done = run(INTERRUPTED)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "Interrupted; nothing was written half-way.\n"


def test_leaving_spends_no_time_on_a_last_collection():
    watch = (
        "import atexit, gc\natexit.register(lambda: sys.stderr.write(str(gc.get_freeze_count())))\n"
    )
    done = run(watch + GIVES_REPORT, "-q")
    assert done.returncode == 0 and int(done.stderr) > 10_000


def test_a_wrong_value_is_told_without_the_words_of_the_parser():
    done = smdlens("analyze", "run", "--optimizer", "foo")
    assert done.returncode == 2
    assert "Error: Invalid value for '--optimizer': 'foo' is not one of" in done.stderr


@pytest.mark.parametrize("flags", [(), ("-q",), ("--json",)])
def test_a_closed_stdout_ends_quietly(flags):
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen(
        [*stand_in(GIVES_REPORT), "analyze", "run", *flags],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        os.close(write)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (141, "")


def test_what_a_gone_reader_would_still_get_is_dropped_quietly():
    read, write = os.pipe()
    os.close(read)
    program = """
import sys
from smdlens.cli import leaving
sys.stdout.write("buffered")
sys.exit(leaving.flush(0))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is full")
@pytest.mark.parametrize("flags", [(), ("-q",), ("--json",)])
def test_a_full_disk_behind_stdout_is_told_once(flags):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*stand_in(GIVES_REPORT), "analyze", "run", *flags],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    assert done.returncode == 74
    assert done.stderr.startswith("Error: stdout: could not be written (No space left on device)")
    assert done.stderr.count("Error") == 1 and "Traceback" not in done.stderr


def test_closed_stdout_of_help_is_quiet_too():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "smdlens", "analyze", "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("arguments", [("--help",), ("analyze", "--help")])
def test_help_on_a_terminal_without_unicode(arguments):
    done = smdlens(*arguments, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_report_on_a_terminal_without_unicode():
    done = run(GIVES_REPORT, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and "do not reach equilibrium" in done.stdout
