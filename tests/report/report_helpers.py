"""A ResNet-50-like run built by hand: 53 convolutions, four stages, three cuts."""

from __future__ import annotations

import itertools
import math

import polars as pl

from smdlens.diagnosis.records import (
    DECAY_TENSOR_SCHEMA,
    INTERVAL_SCHEMA,
    STAGE_TENSOR_SCHEMA,
    Assumption,
    Decay,
    Diagnosis,
    Finding,
    Stage,
)
from smdlens.hyper.records import HyperParameters, Optimizer, ParamGroup, RateSegment
from smdlens.motion.records import PAIR_SCHEMA, SNAPSHOT_SCHEMA, Motion, ReadCost
from smdlens.report.build import Report, build_report
from smdlens.snapshots.records import Skipped, Snapshot, SnapshotSeries
from smdlens.symmetry.records import Evidence, ScaleGroups, TensorSymmetry
from smdlens.vocabulary import (
    EvidenceKind,
    Granularity,
    OptimizerKind,
    Outcome,
    Role,
    SkipReason,
)

STEPS_PER_EPOCH = 5004
CUTS = tuple(e * STEPS_PER_EPOCH for e in (0, 30, 60, 80, 90))
RATES = (0.1, 0.01, 0.001, 0.0001)
RATIOS = (1.00, 0.989, 0.373, 0.119)
STATES = ("equilibrium", "equilibrium", "approaching_from_below", "approaching_from_below")


def resnet_names():
    convs = [("conv1.weight", (64, 3, 7, 7))]
    width_in = 64
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        width = 32 * 2**layer
        for block in range(blocks):
            prefix = f"layer{layer}.{block}"
            convs += [
                (f"{prefix}.conv1.weight", (width, width_in, 1, 1)),
                (f"{prefix}.conv2.weight", (width, width, 3, 3)),
                (f"{prefix}.conv3.weight", (4 * width, width, 1, 1)),
            ]
            if block == 0:
                convs.append((f"{prefix}.downsample.0.weight", (4 * width, width_in, 1, 1)))
            width_in = 4 * width
    return convs


def symmetry(name, shape, role, granularity=None):
    return TensorSymmetry(
        name=name,
        shape=shape,
        dtype="float32",
        role=role,
        granularity=granularity,
        axis=0 if granularity else None,
        groups=shape[0] if granularity else 1,
        evidence=(Evidence(EvidenceKind.NAMES, "followed by batch norm"),),
    )


def scale_groups(convs):
    tensors = {}
    for name, shape in convs:
        tensors[name] = symmetry(name, shape, Role.SCALE_INVARIANT, Granularity.CHANNEL)
        for part in ("weight", "bias"):
            norm = name.replace("conv", "bn").replace("downsample.0", "downsample.1")
            norm = norm.removesuffix("weight") + part
            tensors[norm] = symmetry(norm, (shape[0],), Role.NOT_SCALE_INVARIANT)
    tensors["fc.weight"] = symmetry("fc.weight", (1000, 2048), Role.NOT_SCALE_INVARIANT)
    tensors["fc.bias"] = symmetry("fc.bias", (1000,), Role.NOT_SCALE_INVARIANT)
    return ScaleGroups(tensors, "names")


def series(path="runs/resnet50-a", steps=None, skipped=()):
    steps = steps or tuple(range(0, CUTS[-1] + 1, CUTS[-1] // 40))
    snapshots = tuple(
        Snapshot(
            step=s,
            epoch=s / STEPS_PER_EPOCH,
            step_source="key 'global_step'",
            files=(f"ckpt_{s}.pt",),
            format="torch-zip",
            tensors={},
            tree_key="model",
            tree_note="",
            trees=(("model", 161, False),),
            optimizer=None,
        )
        for s in steps
    )
    return SnapshotSeries(path, snapshots, tuple(skipped))


def hyper(names):
    optimizer = Optimizer(
        OptimizerKind.SGD, None, 0.9, False, 0.0, None, None, False, None, "optimizer state"
    )
    group = ParamGroup(0, "group 0", tuple(names), 1e-4, 0.9, None, "optimizer state")
    schedule = tuple(
        RateSegment(0, CUTS[i], CUTS[i + 1], RATES[i], None, 1e-4, "optimizer state")
        for i in range(4)
    )
    return HyperParameters(optimizer, (group,), schedule)


def spread(i):
    return 1 + 0.04 * math.sin(12.9898 * (i + 1))


def stage_rows(convs):
    rows = []
    for k in range(4):
        for i, (name, _) in enumerate(convs):
            ratio = RATIOS[k] * spread(i)
            reached = CUTS[k] + 91_000 if k == 1 else (12_000 if k == 0 else None)
            rows.append(
                (
                    k + 1,
                    name,
                    0,
                    RATES[k],
                    RATES[k],
                    0.0001,
                    STATES[k],
                    reached,
                    ratio,
                    0.97 * ratio,
                    1.03 * ratio,
                    23.1 * ratio ** (-0.5),
                    23.1,
                    None,
                )
            )
        rows.append(
            (
                k + 1,
                "fc.weight",
                0,
                RATES[k],
                RATES[k],
                0.0001,
                "undetermined",
                None,
                0.8,
                0.7,
                0.9,
                31.0,
                None,
                "not scale-invariant",
            )
        )
    return rows


def interval_rows(convs, steps):
    rows = []
    for i, (name, _) in enumerate([*convs, ("fc.weight", None)]):
        for a, b in itertools.pairwise(steps):
            k = next((k for k in range(4) if CUTS[k] <= a and b <= CUTS[k + 1]), None)
            ratio = None if k is None else RATIOS[k] * spread(i)
            angle = None if k is None else ratio * math.sqrt(2 * RATES[k] * 1e-4 / 1.9)
            rows.append(
                {
                    "tensor": name,
                    "step_from": a,
                    "step_to": b,
                    "norm_from": 23.0,
                    "norm_to": 22.5,
                    "angle_rad": 0.9,
                    "one_step_angle_rad": angle,
                    "one_step_method": None if k is None else "norm_balance",
                    "ratio": ratio,
                    "flags": [] if k is not None else ["holds_cut"],
                    "stage": None if k is None else k + 1,
                }
            )
    return rows


def decay_rows(convs):
    needed, available = (91_000, 900_000, 14_000_000), (150_120, 100_080, 50_040)
    return [
        (
            k,
            name,
            57000,
            57000,
            95000,
            needed[k],
            available[k],
            91000 if k == 0 else None,
            RATIOS[k + 1] * spread(i),
            10**-0.5,
            0.8,
            100_000,
            (0, 800_000, 14_000_000)[k],
            (None, 900_000, 14_000_000)[k],
            (None, 9.0, None)[k],
            (None, 1.7, 1.9)[k],
        )
        for k in range(3)
        for i, (name, _) in enumerate(convs)
    ]


def findings():
    return (
        Finding(
            "SMD001",
            Outcome.FAIL,
            "stage 4",
            "stage 4 ends at 0.12 of its equilibrium angle: the effective learning rate was "
            "lower than you set",
            "A longer stage (14M iterations), or weight decay x 70 in it.",
        ),
        *(
            Finding(
                "SMD004",
                Outcome.WARN,
                f"layer4.{i}.conv3.weight",
                f"momentum has a radial part (kappa -0.{31 - i}); the graph calls it invariant",
                "Check that this checkpoint and the model belong together.",
            )
            for i in range(3)
        ),
        Finding(
            "SMD002",
            Outcome.PASS,
            "fc.weight",
            "weight decay declared 1e-4; the clock measured 1.00e-4",
        ),
    )


def resnet_diagnosis(convs=None, steps=None, extra_findings=()):
    convs = convs or resnet_names()
    steps = steps or series().steps
    return Diagnosis(
        intervals=pl.DataFrame(interval_rows(convs, steps), schema=INTERVAL_SCHEMA),
        stages=tuple(
            Stage(k + 1, CUTS[k], CUTS[k + 1], RATES[k], RATES[k], 1e-4) for k in range(4)
        ),
        stage_tensors=pl.DataFrame(stage_rows(convs), schema=STAGE_TENSOR_SCHEMA, orient="row"),
        decays=tuple(
            Decay(k, CUTS[k + 1], CUTS[k + 1], CUTS[k + 1], RATES[k], RATES[k + 1], 10.0, 0.1)
            for k in range(3)
        ),
        decay_tensors=pl.DataFrame(decay_rows(convs), schema=DECAY_TENSOR_SCHEMA, orient="row"),
        assumptions=(Assumption("small epsilon leak", True, 0.01, 0.02, None, None),),
        findings=(*findings(), *extra_findings),
        groups=scale_groups(convs),
        hyper=hyper(tuple(scale_groups(convs).tensors)),
        tolerance=0.1,
    )


def motion():
    return Motion(
        pl.DataFrame(schema=SNAPSHOT_SCHEMA),
        pl.DataFrame(schema=PAIR_SCHEMA),
        {},
        ReadCost(4_100_000_000, 0.57, "cpu"),
    )


def resnet_report(diagnosis=None, path="runs/resnet50-a") -> Report:
    diagnosis = diagnosis or resnet_diagnosis()
    skipped = (Skipped("ckpt_best.pt", SkipReason.BEST_OR_LAST_COPY, "same step as ckpt_9.pt"),)
    return build_report(
        series(path, skipped=skipped),
        motion(),
        diagnosis,
        command=("smdlens", "analyze", path),
    )


def rendered(report, width=80, *, encoding="utf-8", quiet=False, verbose=False):
    """The terminal report as text, without colour."""
    import io

    from rich.console import Console

    from smdlens.report.terminal import render

    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = Console(file=stream, width=width, color_system=None, force_terminal=False)
    render(report, console, quiet=quiet, verbose=verbose)
    stream.flush()
    return raw.getvalue().decode(encoding)


def with_states(states, *, ratio=1.0, reason=None, roles=None, findings=(), decays=False):
    """A small diagnosis from states[stage][tensor]; tensors are named conv0.weight ..."""
    count = len(states[0])
    convs = [(f"conv{i}.weight", (8, 8, 3, 3)) for i in range(count)]
    rows = [
        (k, name, 0, 0.1, 0.1, 1e-4, state, None, ratio, None, None, 1.0, 1.0, reason)
        for k, row in enumerate(states, start=1)
        for (name, _), state in zip(convs, row, strict=True)
    ]
    tensors = {
        name: symmetry(name, shape, (roles or [Role.SCALE_INVARIANT] * count)[i])
        for i, (name, shape) in enumerate(convs)
    }
    return Diagnosis(
        intervals=pl.DataFrame(schema=INTERVAL_SCHEMA),
        stages=tuple(
            Stage(k, (k - 1) * 1000, k * 1000, 0.1, 0.1, 1e-4) for k in range(1, len(states) + 1)
        ),
        stage_tensors=pl.DataFrame(rows, schema=STAGE_TENSOR_SCHEMA, orient="row"),
        decays=(),
        decay_tensors=pl.DataFrame(schema=DECAY_TENSOR_SCHEMA),
        assumptions=(),
        findings=tuple(findings),
        groups=ScaleGroups(tensors, "names"),
        hyper=hyper(tuple(tensors)),
        tolerance=0.1,
    )
