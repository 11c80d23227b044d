"""The door: one typer application, and the exit codes of docs/exit-codes.md around it."""

from __future__ import annotations

import gc
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn, cast

import typer

from smdlens.cli import analyze, check, doctor, graph, inspect, leaving, messages
from smdlens.errors import ExitCode, SmdlensError
from smdlens.version import __version__

app = typer.Typer(
    name="smdlens",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"smdlens {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and leave.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Did the normalised weights of a finished run reach their spherical equilibrium?

    Reads checkpoints offline: nothing is trained, and nothing inside a file is run.
    """


app.command(name="analyze", epilog=analyze.EXAMPLES)(analyze.analyze)
app.command(name="check", epilog=check.EXAMPLES)(check.check)
app.command(name="graph", epilog=graph.EXAMPLES)(graph.graph)
app.command(name="inspect", epilog=inspect.EXAMPLES)(inspect.inspect)
app.command(name="doctor", epilog=doctor.EXAMPLES)(doctor.doctor)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and leaves with its exit code; no traceback unless `-v` asks."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    leaving.install()
    # That a home cannot be written slows its import a little, and is no news about a run.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    code = leaving.flush(_run(arguments))
    # The interpreter's last collection would walk all of torch and polars: half a second.
    gc.freeze()
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    # Typer's own base of usage errors; where it lives differs between versions.
    usage_error = cast(type[Exception], typer.BadParameter.__mro__[1])
    try:
        result = typer.main.get_command(app).main(
            arguments, prog_name="smdlens", standalone_mode=False
        )
        code = int(result) if isinstance(result, int) else ExitCode.OK
        if code == ExitCode.INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return code
    except SmdlensError as error:
        messages.show_error(error)
        return error.exit_code
    except usage_error as error:
        messages.show_usage_error(error)
        return ExitCode.USAGE
    except BrokenPipeError:
        return ExitCode.BROKEN_PIPE
    except (KeyboardInterrupt, typer.Abort):
        messages.show("Interrupted; nothing was written half-way.")
        return ExitCode.INTERRUPTED
    except SystemExit as leave:
        if isinstance(leave.__context__, BrokenPipeError):
            return ExitCode.BROKEN_PIPE
        return leave.code if isinstance(leave.code, int) else ExitCode.OK
    except Exception as error:
        if isinstance(error, OSError) and leaving.is_full(error):
            return leaving.stdout_failed(error)
        if any(a in ("-v", "--verbose") for a in arguments):
            traceback.print_exc()
        messages.show_internal_error(error)
        return ExitCode.INTERNAL
