"""Options that commands share, each written once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_TRAINER = "What the trainer used (only where the files do not say, or say it wrongly)"
_LOOK = "What to look at"
_RUNNING = "Running"
_OUTPUT = "Output"


class OptimizerName(StrEnum):
    """Values of --optimizer."""

    SGD = "sgd"
    SGDW = "sgdw"
    ADAM = "adam"
    ADAMW = "adamw"
    LION = "lion"


Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN",
        help="A run folder, or two or more checkpoints of one run.",
        show_default=False,
    ),
]
Outputs = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write .html (to look at), .json (all), .md, .xml (JUnit), .sarif, .parquet or .csv "
        "(intervals), .pdf, .svg or .png (figure), or DIR/ (all tables). Repeatable.",
        rich_help_panel=_OUTPUT,
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="JSON to stdout instead.", rich_help_panel=_OUTPUT)
]
Optimizer = Annotated[
    OptimizerName | None,
    typer.Option(
        "--optimizer",
        metavar="NAME",
        help="sgd, sgdw, adam, adamw or lion.",
        rich_help_panel=_TRAINER,
        show_default=False,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--lr",
        metavar="RATE",
        help="Learning rate, if constant.",
        rich_help_panel=_TRAINER,
        show_default=False,
    ),
]
WeightDecay = Annotated[
    float | None,
    typer.Option(
        "--weight-decay",
        metavar="RATE",
        help="Weight decay.",
        rich_help_panel=_TRAINER,
        show_default=False,
    ),
]
Momentum = Annotated[
    float | None,
    typer.Option(
        "--momentum",
        metavar="A",
        help="SGD: 0 or more, below 1.",
        rich_help_panel=_TRAINER,
        show_default=False,
    ),
]
Dampening = Annotated[
    float | None,
    typer.Option(
        "--dampening",
        metavar="A",
        help="SGD: 0 or more, below 1.",
        rich_help_panel=_TRAINER,
        show_default=False,
    ),
]
Nesterov = Annotated[
    bool | None,
    typer.Option(
        "--nesterov/--no-nesterov",
        help="Nesterov's momentum.",
        rich_help_panel=_TRAINER,
        show_default=False,
    ),
]
Betas = Annotated[
    str | None,
    typer.Option(
        "--betas",
        metavar="B1,B2",
        help="Adam's decay rates.",
        rich_help_panel=_TRAINER,
        show_default=False,
    ),
]
Schedule = Annotated[
    Path | None,
    typer.Option(
        "--schedule",
        metavar="FILE",
        help="CSV: step,lr[,weight_decay].",
        rich_help_panel=_TRAINER,
        show_default=False,
    ),
]
Epsilon = Annotated[
    float | None,
    typer.Option(
        "--epsilon",
        metavar="E",
        help="Of batch norm, not of Adam. \\[default: the files', else 1e-5]",
        rich_help_panel=_TRAINER,
        show_default=False,
    ),
]
StepsPerEpoch = Annotated[
    int | None,
    typer.Option(
        "--steps-per-epoch",
        metavar="N",
        help="Iterations per epoch.",
        rich_help_panel=_TRAINER,
        show_default=False,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="KEY",
        help="Weight tree inside the files, such as ema.module.",
        rich_help_panel=_LOOK,
        show_default=False,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="GLOB",
        help="Only tensors that match. Repeatable.",
        rich_help_panel=_LOOK,
        show_default=False,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="GLOB",
        help="Not tensors that match. Repeatable.",
        rich_help_panel=_LOOK,
        show_default=False,
    ),
]
Steps = Annotated[
    str | None,
    typer.Option(
        "--steps",
        metavar="FROM:TO:STRIDE",
        help="Steps, ends included; every STRIDE-th snapshot.",
        rich_help_panel=_LOOK,
        show_default=False,
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="E",
        help="Ratios within E of 1 hold equilibrium. \\[default: 0.1]",
        rich_help_panel=_LOOK,
        show_default=False,
    ),
]
Metrics = Annotated[
    Path | None,
    typer.Option(
        "--metrics",
        metavar="FILE",
        help="Test metric: CSV, TensorBoard events or trainer_state.json.",
        rich_help_panel=_LOOK,
        show_default=False,
    ),
]
MetricName = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="Which column or tag of it. \\[default: by name]",
        rich_help_panel=_LOOK,
        show_default=False,
    ),
]
MetricGoal = Annotated[
    str | None,
    typer.Option(
        "--metric-goal",
        metavar="up|down",
        help="Which is better. \\[default: by name]",
        rich_help_panel=_LOOK,
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML with these options. \\[default: smdlens.toml, or \\[tool.smdlens] in "
        "pyproject.toml, here]",
        rich_help_panel=_RUNNING,
        show_default=False,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda or cuda:N: where the sums are made.",
        rich_help_panel=_RUNNING,
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        help="Parallel readers.",
        rich_help_panel=_RUNNING,
        show_default=False,
    ),
]
AllPairs = Annotated[
    bool,
    typer.Option(
        "--all-pairs",
        help="Also the angle between any two of up to 64 snapshots, beside a random walk.",
        rich_help_panel=_LOOK,
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        help="Where measurements are kept. \\[default: $SMDLENS_CACHE, or the user's cache folder]",
        rich_help_panel=_RUNNING,
        show_default=False,
    ),
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Measure everything again and keep nothing.",
        rich_help_panel=_RUNNING,
    ),
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="The verdict only.", rich_help_panel=_OUTPUT)
]
Verbose = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", help="All tensors; a traceback if it fails.", rich_help_panel=_OUTPUT
    ),
]
NoProgress = Annotated[
    bool, typer.Option("--no-progress", help="No progress bar.", rich_help_panel=_OUTPUT)
]
