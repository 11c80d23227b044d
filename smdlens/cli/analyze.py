"""`smdlens analyze`: a sequence of checkpoints in, a report out."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smdlens.cli import network_options as network
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
    epsilon: o.Epsilon = None,
    steps_per_epoch: o.StepsPerEpoch = None,
    weights: o.Weights = None,
    include: o.Include = None,
    exclude: o.Exclude = None,
    steps: o.Steps = None,
    tolerance: o.Tolerance = None,
    metrics: o.Metrics = None,
    metric: o.MetricName = None,
    metric_goal: o.MetricGoal = None,
    all_pairs: o.AllPairs = False,
    model: network.Model = None,
    inputs: network.InputShapes = None,
    input_fn: network.InputFunction = None,
    graph: network.GraphFile = None,
    model_optional: network.ModelOptional = False,
    config: o.Config = None,
    device: o.Device = None,
    workers: o.Workers = None,
    cache_dir: o.CacheDir = None,
    no_cache: o.NoCache = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    no_progress: o.NoProgress = False,
) -> None:
    """Says which weights reached the equilibrium of each stage, and what to do about the rest."""
    if quiet and verbose:
        raise InputError("-q and -v contradict each other", remedy="Leave one of them out.")
    from smdlens.report.outputs import check_output

    for path in output or ():
        check_output(path)
    report = read_run(
        runs,
        show_progress=not (quiet or no_progress),
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum,
        dampening=dampening,
        nesterov=nesterov,
        betas=betas,
        schedule=schedule,
        epsilon=epsilon,
        steps_per_epoch=steps_per_epoch,
        weights=weights,
        include=include,
        exclude=exclude,
        steps=steps,
        tolerance=tolerance,
        metrics=metrics,
        metric=metric,
        metric_goal=metric_goal,
        all_pairs=all_pairs or None,
        model=model,
        inputs=inputs,
        input_fn=input_fn,
        graph=graph,
        model_optional=model_optional,
        config=config,
        device=device,
        workers=workers,
        cache_dir=cache_dir,
        no_cache=no_cache,
    )
    for path in output or ():
        report.save(path)
    _show(report, json=json, quiet=quiet, verbose=verbose)


def read_run(runs: list[str], *, show_progress: bool, **options: Any) -> Report:
    """Analyses `runs` with the options of the command line as typer hands them over.

    Without `config` the file of the current folder fills in what is left out.
    """
    import smdlens
    from smdlens.config import find_config

    given = {
        name: value.value if isinstance(value, Enum) else value
        for name, value in options.items()
        if value is not None
    }
    if given.pop("no_cache", False):
        given["cache"] = False
    given.setdefault("config", find_config(Path.cwd()))
    with reading_bar(wanted=show_progress) as progress:
        return smdlens.analyze(runs[0] if len(runs) == 1 else runs, progress=progress, **given)


def _show(report: Report, *, json: bool, quiet: bool, verbose: bool) -> None:
    if json:
        from smdlens.report.json import dumps

        sys.stdout.write(dumps(report))
        return
    from smdlens.report.terminal import render

    render(report, report_console(), quiet=quiet, verbose=verbose)
