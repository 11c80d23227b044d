"""`smdlens check`: the same analysis held against a policy, with an exit code CI can trust."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smdlens import atomic
from smdlens.cli import analyze as analyze_command
from smdlens.cli import messages
from smdlens.cli import options as o
from smdlens.cli.borrowed import borrow_options
from smdlens.cli.console import report_console
from smdlens.errors import InputError, NothingToAnalyseError, SnapshotError
from smdlens.names import for_terminal

if TYPE_CHECKING:
    from smdlens.diagnosis.cases import CheckResult
    from smdlens.report.build import Report

EXAMPLES = """[bold]Examples[/]

smdlens check runs/resnet50 -o check.xml

smdlens check runs/resnet50 --policy strict --baseline last.json

smdlens check --init
"""
_POLICY = "What is asked"
_SUMMARY = "GITHUB_STEP_SUMMARY"

Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN",
        help="A run folder, or two or more checkpoints of one run.",
        show_default=False,
    ),
]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="NAME|FILE",
        help="strict, default, report-only, or a TOML file with a table \\[check]. "
        "\\[default: \\[check] of the configuration, else default]",
        rich_help_panel=_POLICY,
        show_default=False,
    ),
]
BaselineOption = Annotated[
    Path | None,
    typer.Option(
        "--baseline",
        metavar="FILE",
        help="JSON report of an earlier run: nothing may be worse.",
        rich_help_panel=_POLICY,
        show_default=False,
    ),
]
Soft = Annotated[
    bool,
    typer.Option(
        "--soft", help="Report failures as skipped, for adoption.", rich_help_panel=_POLICY
    ),
]
AllowInconclusive = Annotated[
    bool,
    typer.Option(
        "--allow-inconclusive",
        help="What cannot be decided does not change the exit code.",
        rich_help_panel=_POLICY,
    ),
]
Init = Annotated[
    bool,
    typer.Option(
        "--init", help="Write a commented smdlens.toml here and leave.", rich_help_panel=_POLICY
    ),
]


@borrow_options(analyze_command.analyze, without=())
def check(
    runs: Runs = None,
    policy: PolicyOption = None,
    baseline: BaselineOption = None,
    soft: Soft = False,
    allow_inconclusive: AllowInconclusive = False,
    init: Init = False,
    output: o.Outputs = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    no_progress: o.NoProgress = False,
    **options: Any,
) -> None:
    """Holds a run against a policy: exit code 0 passed, 1 failed, 3 unreadable, 4 inconclusive."""
    if init:
        _write_policy()
        return
    if not runs:
        raise InputError("no RUN is given", subject="check", remedy="See smdlens check --help")
    if quiet and verbose:
        raise InputError("-q and -v contradict each other", remedy="Leave one of them out.")
    from smdlens.config import find_config
    from smdlens.diagnosis.baseline import read_baseline
    from smdlens.diagnosis.check import check_of_error
    from smdlens.diagnosis.policy_file import resolve_policy
    from smdlens.report.outputs import check_output

    options["config"] = options["config"] or find_config(Path.cwd())
    asked = resolve_policy(policy, options["config"])
    if baseline is not None:
        asked = dataclasses.replace(asked, baseline=str(baseline))
    if asked.baseline is not None:
        read_baseline(asked.baseline)
    if options["tolerance"] is None:
        options["tolerance"] = asked.tolerance
    summary = os.environ.get(_SUMMARY) or None
    for path in output or ():
        check_output(path)
    if summary is not None:
        atomic.check_writable(summary)
    try:
        report = analyze_command.read_run(runs, show_progress=not (quiet or no_progress), **options)
    except (NothingToAnalyseError, SnapshotError) as error:
        _save_error(check_of_error(error, asked.name), runs, output or (), summary)
        raise
    result = report.check(asked, soft=soft, allow_inconclusive=allow_inconclusive)
    words = ["smdlens", "check", *report.command[2:], *_words(policy, baseline)]
    words += ["--soft"] if soft else []
    words += ["--allow-inconclusive"] if allow_inconclusive else []
    report = dataclasses.replace(report, command=tuple(words))
    for path in output or ():
        report.save(path, result)
    if summary is not None:
        _summarise(result, report, summary)
    _show(report, result, json=json, quiet=quiet, verbose=verbose)
    raise typer.Exit(result.exit_code)


def _write_policy() -> None:
    from smdlens.config import FILE_NAME
    from smdlens.diagnosis.policy_file import COMMENTED

    target = Path.cwd() / FILE_NAME
    if target.exists():
        raise InputError(
            "exists already", subject=FILE_NAME, remedy="Add a table [check] to it by hand."
        )
    atomic.check_writable(target)
    atomic.write_bytes(target, COMMENTED.encode())
    sys.stdout.write(f"wrote {FILE_NAME}: every line in it says what it asks\n")


def _words(policy: str | None, baseline: Path | None) -> list[str]:
    """The part of the command line that chose what was asked."""
    words = [] if policy is None else ["--policy", policy]
    return words + ([] if baseline is None else ["--baseline", str(baseline)])


def _save_error(
    result: CheckResult, runs: Sequence[str], output: Sequence[str], summary: str | None
) -> None:
    """A pipeline that reads only our files must see the error too."""
    from smdlens.report.outputs import save_error

    for path in output:
        if not save_error(result, runs[0], path):
            messages.show(f"{for_terminal(path)}: not written, nothing was analysed")
    if summary is not None:
        _summarise(result, None, summary)
    _annotate(result)


def _summarise(result: CheckResult, report: Report | None, path: str) -> None:
    """Adds to what earlier commands of the same CI step have written."""
    from smdlens.report.markdown import markdown

    earlier = Path(path).read_bytes() if Path(path).is_file() else b""
    atomic.write_bytes(path, earlier + markdown(result, report).encode())


def _annotate(result: CheckResult) -> None:
    if os.environ.get("GITHUB_ACTIONS", "").lower() == "true":
        from smdlens.report.github import github_annotations

        sys.stdout.write(github_annotations(result))


def _show(report: Report, result: CheckResult, *, json: bool, quiet: bool, verbose: bool) -> None:
    if json:
        from smdlens.report.json import dumps

        sys.stdout.write(dumps(report, result))
        return
    from smdlens.report.terminal.check import render_check

    render_check(report, result, report_console(), quiet=quiet, verbose=verbose)
    _annotate(result)
