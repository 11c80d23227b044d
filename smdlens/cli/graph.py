"""`smdlens graph`: which tensors are scale-invariant, at which granularity, with whom, and why."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from smdlens.atomic import check_writable, write_bytes
from smdlens.cli.console import report_console
from smdlens.errors import ExitCode, InputError

EXAMPLES = """[bold]Examples[/]

smdlens graph models.resnet:resnet50 --input 2x3x224x224

smdlens graph model.pt2 -o graph.html

smdlens graph models.gpt:build --input-fn models.gpt:batch --verify
"""
_SUFFIXES = (".html", ".dot", ".json")


def graph(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="PKG.MOD:FACTORY, or a graph file (.pt2, .onnx, .keras, ...). A factory is "
            "imported and called: that runs your own code. Files are only read.",
            show_default=False,
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="SHAPE",
            help="Shape of an input, such as 2x3x224x224 or 2x16:int64. Repeatable.",
            show_default=False,
        ),
    ] = None,
    input_fn: Annotated[
        str | None,
        typer.Option(
            "--input-fn",
            metavar="PKG.MOD:FUNC",
            help="Function that returns (args, kwargs); imported and called.",
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Confirm by rescaling the weights and running the model."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Show every block, also those that are alike.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON to stdout instead.")] = False,
    output: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write .html or .dot (with a picture of where scales go) or .json. Repeatable.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Shows which tensors are scale-invariant, at which granularity, with whom, and why."""
    for path in output or ():
        if Path(path).suffix.lower() not in _SUFFIXES:
            raise InputError(
                "no picture is written to a file of this name",
                subject=f"-o {path}",
                expected=f"one of {', '.join(_SUFFIXES)}",
            )
        check_writable(path)
    from smdlens.symmetry.ask import symmetry_of

    symmetry = symmetry_of(model, inputs, input_fn, verify=verify)
    from smdlens.report.scale_graph import dot, html, tree
    from smdlens.report.scale_graph import json as as_json

    for path in output or ():
        suffix = Path(path).suffix.lower()
        if suffix == ".html":
            text = html.dumps(symmetry, f"Scale symmetry of {model}")
        else:
            text = dot.dumps(symmetry) if suffix == ".dot" else as_json.dumps(symmetry)
        write_bytes(path, text.encode())
    if json:
        sys.stdout.write(as_json.dumps(symmetry))
    else:
        tree.render(symmetry, report_console(), model, verbose=verbose)
    if symmetry.disagreements:
        raise typer.Exit(ExitCode.INCONCLUSIVE)
