"""`smdlens analyze`: a sequence of checkpoints in, a report out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from smdlens.cli import options as o
from smdlens.cli.console import report_console
from smdlens.cli.progress import reading_bar
from smdlens.errors import InputError

if TYPE_CHECKING:
    from smdlens.report.build import Report

EXAMPLES = """[bold]Examples[/]

smdlens analyze runs/resnet50

smdlens analyze runs/resnet50 -o report.json -o intervals.csv

smdlens analyze ckpt_*.pt --optimizer sgd --momentum 0.9 --weight-decay 1e-4 --lr 0.1
"""


def analyze(
    runs: o.Runs,
    output: o.Outputs = None,
    json: o.Json = False,
    optimizer: o.Optimizer = None,
    lr: o.LearningRate = None,
    weight_decay: o.WeightDecay = None,
    momentum: o.Momentum = None,
    dampening: o.Dampening = None,
    nesterov: o.Nesterov = None,
    betas: o.Betas = None,
    schedule: o.Schedule = None,
    steps_per_epoch: o.StepsPerEpoch = None,
    weights: o.Weights = None,
    include: o.Include = None,
    exclude: o.Exclude = None,
    steps: o.Steps = None,
    tolerance: o.Tolerance = None,
    config: o.Config = None,
    device: o.Device = None,
    workers: o.Workers = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Says which weights reached the equilibrium of each stage, and what to do about the rest."""
    if quiet and verbose:
        raise InputError("-q and -v contradict each other", remedy="Leave one of them out.")
    from smdlens.config import find_config
    from smdlens.report.outputs import check_output

    for path in output or ():
        check_output(path)

    import smdlens

    with reading_bar(wanted=not (quiet or no_progress)) as progress:
        report = smdlens.analyze(
            runs[0] if len(runs) == 1 else runs,
            optimizer=optimizer.value if optimizer else None,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            dampening=dampening,
            nesterov=nesterov,
            betas=betas,
            schedule=schedule,
            steps_per_epoch=steps_per_epoch,
            weights=weights,
            include=include or (),
            exclude=exclude or (),
            steps=steps,
            tolerance=tolerance,
            config=config or find_config(Path.cwd()),
            device=device,
            workers=workers,
            progress=progress,
        )
    for path in output or ():
        report.save(path)
    _show(report, json=json, quiet=quiet, verbose=verbose)


def _show(report: Report, *, json: bool, quiet: bool, verbose: bool) -> None:
    if json:
        from smdlens.report.json import dumps

        sys.stdout.write(dumps(report))
        return
    from smdlens.report.terminal import render

    render(report, report_console(), quiet=quiet, verbose=verbose)
