"""`smdlens inspect`: one checkpoint from its headers alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from smdlens.cli import options as o
from smdlens.cli.console import report_console

EXAMPLES = """[bold]Examples[/]

smdlens inspect runs/resnet50/ckpt_3600.pt

smdlens inspect checkpoint-500 --json

smdlens inspect model.safetensors --manifest manifest.sha256

Exit codes: 0, 2 (usage, or a run folder), 3 (unreadable, or its bytes fail a check).
"""

CheckpointArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A checkpoint file, or the folder of one checkpoint.",
        show_default=False,
    ),
]
Checksums = Annotated[
    bool,
    typer.Option("--checksums", help="Read every byte: check CRC-32 of archives, print SHA-256."),
]
Manifest = Annotated[
    Path | None,
    typer.Option(
        "--manifest",
        metavar="FILE",
        help="Compare with the output of sha256sum; implies --checksums.",
        show_default=False,
    ),
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Every tensor and group; a traceback if it fails.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON to stdout instead.")]


def inspect(
    checkpoint: CheckpointArgument,
    weights: o.Weights = None,
    json: Json = False,
    checksums: Checksums = False,
    manifest: Manifest = None,
    verbose: Verbose = False,
) -> None:
    """Shows what one checkpoint holds and what the trainer used; weights stay on disk."""
    from smdlens.containers.checksums import check_files, corrupt, read_manifest
    from smdlens.report.inspection import inspect_checkpoint

    expected = read_manifest(manifest) if manifest is not None else None
    inspection = inspect_checkpoint(checkpoint, weights=weights)
    checks = (
        list(check_files(inspection.file_paths(), expected))
        if checksums or expected is not None
        else []
    )
    if json:
        from smdlens.report.inspection_json import dumps

        sys.stdout.write(dumps(inspection, checks))
    else:
        from smdlens.report.terminal.inspection import render

        render(inspection, report_console(), checks=checks, verbose=verbose)
    failed = next((check for check in checks if check.failed), None)
    if failed is not None:
        sys.stdout.flush()
        raise corrupt(failed)
