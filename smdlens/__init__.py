"""smdlens: did the normalised weights of a finished run reach their spherical equilibrium?

    report = smdlens.analyze("runs/resnet50")
    print(report.summary.headline)
    report.save("report.json")

Importing this package is cheap: numpy, polars and torch load with the first analysis.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from smdlens import errors
from smdlens.checkpoint import Checkpoint, open_checkpoint
from smdlens.options import RunPath, StepRange, gather_options
from smdlens.version import __version__

if TYPE_CHECKING:
    from smdlens.diagnosis.cases import CheckResult
    from smdlens.report.build import Report
    from smdlens.snapshots.records import SnapshotSeries
    from smdlens.symmetry.scale_symmetry import ScaleSymmetry

__all__ = [
    "Checkpoint",
    "Report",
    "__version__",
    "analyze",
    "assert_equilibrium",
    "errors",
    "open_checkpoint",
    "open_series",
    "scale_symmetry",
]


def analyze(
    path: RunPath,
    *,
    optimizer: str | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    momentum: float | None = None,
    dampening: float | None = None,
    nesterov: bool | None = None,
    betas: str | tuple[float, float] | None = None,
    schedule: str | os.PathLike[str] | None = None,
    epsilon: float | None = None,
    steps_per_epoch: int | None = None,
    weights: str | None = None,
    config: str | os.PathLike[str] | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    steps: str | StepRange | None = None,
    tolerance: float | None = None,
    model: Any = None,
    inputs: Sequence[Any] | None = None,
    input_fn: Any = None,
    graph: str | os.PathLike[str] | None = None,
    model_optional: bool = False,
    device: str | None = None,
    metrics: str | os.PathLike[str] | None = None,
    metric: str | None = None,
    metric_goal: str | None = None,
    all_pairs: bool | None = None,
    workers: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    cache: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Analyses the checkpoints of one finished run.

    What is left out is taken from `config`, then from the checkpoints; the report names the source
    of each value.

    Args:
        path: A run folder, or two or more checkpoints of one run.
        optimizer: "sgd", "sgdw", "adam", "adamw" or "lion".
        lr: Learning rate, constant over the run; for others give `schedule`.
        weight_decay: Weight decay, per update as torch has it.
        momentum: Momentum of SGD.
        dampening: Dampening of SGD's momentum.
        nesterov: Whether the momentum is Nesterov's.
        betas: Decay rates of Adam's moments, as numbers or "0.9,0.999".
        schedule: CSV file with the columns step,lr[,weight_decay].
        epsilon: Epsilon of the normalisation layers, 1e-5 unless the files say it; not Adam's.
        steps_per_epoch: Optimizer iterations per epoch, where files know epochs only.
        weights: Dotted path of the weight tree inside the files.
        config: TOML file with any of these options; nothing is read unless given.
        include: Globs; only tensors whose name matches one are looked at.
        exclude: Globs; tensors whose name matches one are left out.
        steps: "FROM:TO:STRIDE" (steps, both ends included; every STRIDE-th snapshot).
        tolerance: How far from 1 the ratio may be in equilibrium; 0.1 unless given.
        model: "PKG.MOD:FACTORY", a factory or a torch module; its code is run to trace a graph.
        inputs: Arguments for one call of the model, or their shapes ("2x3x224x224").
        input_fn: "PKG.MOD:FUNC" or a function that returns (args, kwargs) instead.
        graph: A file that holds the network (docs/formats.md); read, never run.
        model_optional: Go on from names where the network has no graph.
        device: "auto" (unless given), "cpu", "cuda" or "cuda:N".
        metrics: Log of a test metric, whose fall beside a growing angle is marked: CSV,
            TensorBoard event file or folder, trainer_state.json (docs/report.md).
        metric: Its column or tag; by name unless given.
        metric_goal: "up" or "down" is better; by name unless given.
        all_pairs: Also measure the angle between any two of at most 64 snapshots and hold it
            against a random walk, lag by lag (docs/theory.md §9).
        workers: Parallel readers; never changes a result.
        cache_dir: Folder of measurement caches; $SMDLENS_CACHE or the user's cache folder unless
            given. Never changes a result.
        cache: False to measure everything again and remember nothing.
        progress: Called with (bytes done, bytes in all).

    Raises:
        InputError: An option or the configuration cannot be used.
        GraphError: The network cannot be traced or its graph not be read.
        NothingToAnalyseError: No path, fewer than two usable snapshots, or no tensor to measure.
    """
    options = gather_options(
        config,
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
        model=model,
        input=tuple(inputs or ()),
        input_fn=input_fn,
        graph=graph,
        model_optional=model_optional or None,
        device=device,
        metrics=metrics,
        metric=metric,
        metric_goal=metric_goal,
        all_pairs=all_pairs,
        workers=workers,
        cache_dir=cache_dir,
        cache=cache,
    )
    # Heavy imports come after the options are known to be good.
    from smdlens.diagnosis.diagnose import diagnose
    from smdlens.diagnosis.single_snapshot import describe_last_step
    from smdlens.hyper.metrics import resolve_metric
    from smdlens.hyper.resolve import resolve_hyper_parameters
    from smdlens.motion.cache import open_cache
    from smdlens.motion.engine import measure
    from smdlens.report.build import build_report
    from smdlens.snapshots.series import too_few_snapshots
    from smdlens.symmetry.find import find_scale_groups

    series = open_series(
        path,
        weights_key=options.weights,
        steps_per_epoch=options.steps_per_epoch,
        steps=options.steps,
        minimum=1,
    )
    hyper = resolve_hyper_parameters(series, options.declared)
    groups = find_scale_groups(
        series,
        include=options.include,
        exclude=options.exclude,
        model=options.model,
        inputs=options.input,
        input_fn=options.input_fn,
        graph=options.graph,
        model_optional=options.model_optional,
    )
    logged = None
    if options.metrics is not None:
        logged = resolve_metric(
            options.metrics, series, options.metric, options.metric_goal, options.steps_per_epoch
        )
    motion = measure(
        series,
        groups.measured,
        hyper,
        device=options.device,
        workers=options.workers,
        progress=progress,
        cache=open_cache(series, options.cache_dir) if options.cache else None,
        all_pairs=options.all_pairs,
    )
    if len(series.snapshots) == 1:
        raise too_few_snapshots(
            series.path,
            series.snapshots,
            series.skipped,
            minimum=2,
            ranged=options.steps is not None,
            also=describe_last_step(series, motion, hyper, groups, options.declared.lr),
        )
    diagnosis = diagnose(series, motion, hyper, groups, tolerance=options.tolerance, metric=logged)
    return build_report(series, motion, diagnosis, command=options.command(path))


def assert_equilibrium(
    path: RunPath,
    policy: str = "default",
    *,
    baseline: str | os.PathLike[str] | None = None,
    allow_inconclusive: bool = False,
    **options: Any,
) -> CheckResult:
    """Fails a test unless the run at `path` passes a policy; for pytest.

    Args:
        path: A run folder, or two or more checkpoints of one run.
        policy: "strict", "default", "report-only", or a TOML file with a table [check].
        baseline: JSON report of an earlier run that nothing may be worse than.
        allow_inconclusive: Pass what could not be decided.
        options: Options of `analyze`.

    Raises:
        AssertionError: Something failed, could not be read or could not be decided; it says what.
        InputError: An option or the policy cannot be used.
        NothingToAnalyseError: No path, fewer than two usable snapshots, or no tensor to measure.
    """
    from smdlens.diagnosis.policy_file import resolve_policy
    from smdlens.report.case_groups import explain

    asked = resolve_policy(policy, None)
    options.setdefault("tolerance", asked.tolerance)
    result = analyze(path, **options).check(
        asked, baseline=baseline, allow_inconclusive=allow_inconclusive
    )
    if result.exit_code:
        raise AssertionError(explain(result))
    return result


def scale_symmetry(
    model: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> ScaleSymmetry:
    """Every scale symmetry of a network: which tensors live on a sphere, with whom, and why.

    Args:
        model: A torch module, a factory of one, "PKG.MOD:FACTORY", or a graph file.
        args: Positional arguments of one call of the model; it is traced, and not changed.
        kwargs: Keyword arguments.

    Raises:
        GraphError: The model cannot be traced, or the file not be read.
    """
    from smdlens.symmetry.ask import symmetry_of, symmetry_of_call
    from smdlens.symmetry.graph_files import is_graph_file

    if isinstance(model, str | os.PathLike) and is_graph_file(model):
        return symmetry_of(model, args or None)
    return symmetry_of_call(model, args, kwargs)


def open_series(path: RunPath, **options: Any) -> SnapshotSeries:
    """The snapshots of a run in order of their step; headers only, weights stay on disk."""
    from smdlens.snapshots.series import open_series

    return open_series(path, **options)


def __getattr__(name: str) -> Any:
    if name == "Report":
        from smdlens.report.build import Report

        return Report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
