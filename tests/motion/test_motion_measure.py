"""`measure` on runs made by hand, against numpy in extended precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from motion_helpers import (
    Saved,
    batch_norm,
    groups_of,
    hyper_of,
    rows,
    symmetry_of,
    write_series,
)

from smdlens.errors import InputError, NothingToAnalyseError
from smdlens.motion.engine import measure
from smdlens.motion.records import PAIR_SCHEMA, SNAPSHOT_SCHEMA
from smdlens.vocabulary import OptimizerKind, Role

L = np.longdouble


def wide(t: torch.Tensor) -> np.ndarray:
    return t.double().numpy().astype(L)


def walk(shape: tuple[int, ...], count: int, seed: int, step: float = 0.05) -> list[torch.Tensor]:
    """A random walk of weights, float32."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(shape, generator=generator)
    out = [w]
    for _ in range(count - 1):
        w = (w + step * torch.randn(shape, generator=generator)) * 1.01
        out.append(w)
    return out


def test_weights_alone(tmp_path: Path) -> None:
    ws = walk((8, 3, 3, 3), 4, 1)
    series = write_series(tmp_path, [Saved(10 * i, {"conv.weight": w}) for i, w in enumerate(ws)])
    motion = measure(
        series, groups_of(symmetry_of("conv.weight", (8, 3, 3, 3))), hyper_of(), device="cpu"
    )
    assert motion.snapshots.schema == pl.Schema(SNAPSHOT_SCHEMA)
    assert motion.pairs.schema == pl.Schema(PAIR_SCHEMA)
    for row, w in zip(motion.snapshots.to_dicts(), ws, strict=True):
        assert row["w2"] == pytest.approx(float((wide(w) ** 2).sum()), rel=1e-14)
        assert row["nonfinite"] == 0
        assert all(row[c] is None for c in ("clock2", "wv", "v2", "wu", "u2", "vhat_sum"))
    assert motion.snapshots["step"].to_list() == [0, 10, 20, 30]
    for row, a, b in zip(motion.pairs.to_dicts(), ws[:-1], ws[1:], strict=True):
        x, y = wide(a).reshape(8, -1), wide(b).reshape(8, -1)
        c = np.sqrt((y**2).sum() / (x**2).sum())
        assert row["dot"] == pytest.approx(float((x * y).sum()), rel=1e-13)
        assert row["chord2"] == pytest.approx(float(((y - c * x) ** 2).sum()), rel=1e-12)
        growth = np.log((y**2).sum(1) / (x**2).sum(1)).astype(float)
        cosine = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
        angle = np.arccos(cosine).astype(float)
        for label, q in (("p05", 0.05), ("p50", 0.5), ("p95", 0.95)):
            assert row[f"growth_{label}"] == pytest.approx(np.quantile(growth, q), rel=1e-10)
            assert row[f"angle_{label}"] == pytest.approx(np.quantile(angle, q), rel=1e-10)
        assert all(row[c] is None for c in ("grad2", "s_w2_from", "s_min_ratio", "leak_shift"))
    assert motion.frozen_statistics == frozenset()
    assert motion.cost.device == "cpu"
    assert motion.cost.bytes_read == 4 * 8 * 27 * 4


def sgd_run(
    count: int, momentum: float, dampening: float, decay: float, lr: float
) -> tuple[list[torch.Tensor], list[torch.Tensor | None], list[torch.Tensor]]:
    """torch's own SGD in float64 on given gradients: weights, buffers, gradients."""
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(6, 5, dtype=torch.float64, generator=generator).requires_grad_()
    sgd = torch.optim.SGD([w], lr=lr, momentum=momentum, dampening=dampening, weight_decay=decay)
    ws, vs, gs = [w.detach().clone()], [None], []
    for _ in range(count):
        w.grad = torch.randn(6, 5, dtype=torch.float64, generator=generator)
        gs.append(w.grad.clone())
        sgd.step()
        ws.append(w.detach().clone())
        vs.append(sgd.state[w]["momentum_buffer"].clone())
    return ws, vs, gs


@pytest.mark.parametrize("dampening", [0.0, 0.3])
def test_gradient_of_consecutive_steps_is_the_one_sgd_saw(tmp_path: Path, dampening: float) -> None:
    ws, vs, gs = sgd_run(4, 0.9, dampening, 1e-2, 0.1)
    saved = [
        Saved(i, {"w": w}, {} if v is None else {"w": {"momentum": v}})
        for i, (w, v) in enumerate(zip(ws, vs, strict=True))
    ]
    hyper = hyper_of(names=["w"], weight_decay=1e-2, dampening=dampening)
    motion = measure(
        write_series(tmp_path, saved, pieces=3),
        groups_of(symmetry_of("w", (6, 5))),
        hyper,
        device="cpu",
    )
    pairs = motion.pairs.to_dicts()
    assert pairs[0]["grad2"] is None  # no buffer at step 0
    for i in (1, 2, 3):
        v = vs[i]
        assert v is not None
        assert pairs[i]["grad2"] == pytest.approx(float((gs[i] ** 2).sum()), rel=1e-12)
        assert pairs[i]["grad_w"] == pytest.approx(float((gs[i] * ws[i]).sum()), rel=1e-11)
        assert pairs[i]["grad_v"] == pytest.approx(float((gs[i] * v).sum()), rel=1e-11)
        row = motion.snapshots.to_dicts()[i]
        assert row["wv"] == pytest.approx(float((ws[i] * v).sum()), rel=1e-12)
        assert row["v2"] == pytest.approx(float((v * v).sum()), rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "steps", "decoupled", "expected"),
    [
        (OptimizerKind.SGD, (1, 2), False, True),
        (OptimizerKind.SGD, (1, 3), False, False),
        (OptimizerKind.LION, (1, 2), False, False),
    ],
)
def test_gradient_only_where_one_sgd_update_lies_between(
    tmp_path: Path, kind: OptimizerKind, steps: tuple[int, int], decoupled: bool, expected: bool
) -> None:
    ws = walk((4, 4), 2, 2)
    saved = [Saved(s, {"w": w}, {"w": {"momentum": w}}) for s, w in zip(steps, ws, strict=True)]
    hyper = hyper_of(kind=kind, names=["w"], decoupled=decoupled)
    motion = measure(
        write_series(tmp_path, saved), groups_of(symmetry_of("w", (4, 4))), hyper, device="cpu"
    )
    assert (motion.pairs["grad2"][0] is not None) is expected


def test_decoupled_decay_is_no_part_of_the_gradient(tmp_path: Path) -> None:
    (a, b), (v_a, v_b) = walk((4, 4), 2, 2), walk((4, 4), 2, 3)
    saved = [
        Saved(5, {"w": a}, {"w": {"momentum": v_a}}),
        Saved(6, {"w": b}, {"w": {"momentum": v_b}}),
    ]
    hyper = hyper_of(names=["w"], decoupled=True, weight_decay=0.3)
    motion = measure(
        write_series(tmp_path, saved), groups_of(symmetry_of("w", (4, 4))), hyper, device="cpu"
    )
    g = wide(v_b) - L(0.9) * wide(v_a)
    assert motion.pairs["grad2"][0] == pytest.approx(float((g**2).sum()), rel=1e-12)


@pytest.mark.parametrize(("axis", "known"), [("steps", True), ("epochs", False)])
def test_moments_are_unbiased_by_the_step_where_no_count_is_saved(
    tmp_path: Path, axis: str, known: bool
) -> None:
    w, m = walk((4, 4), 2, 2)
    slots = {"w": {"first_moment": m, "second_moment": m**2}}
    series = write_series(tmp_path, [Saved(s, {"w": w}, slots) for s in (0, 3)], axis=axis)
    hyper = hyper_of(kind=OptimizerKind.ADAM, names=["w"], betas=(0.5, 0.75))
    motion = measure(series, groups_of(symmetry_of("w", (4, 4))), hyper, device="cpu")
    vhat = float((wide(m) ** 2).sum() / (1 - 0.75**3))
    got = motion.snapshots["vhat_sum"].to_list()
    assert got == [None, pytest.approx(vhat, rel=1e-6) if known else None]


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_direction_is_the_step_torch_took(tmp_path: Path, amsgrad: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    w = torch.randn(7, 6, dtype=torch.float64, generator=generator).requires_grad_()
    adam = torch.optim.AdamW(
        [w], lr=1e-2, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, amsgrad=amsgrad
    )
    saved = [Saved(0, {"w": w.detach().clone()})]
    us: list[torch.Tensor] = []
    scales: list[torch.Tensor] = []
    names = {"exp_avg": "first_moment", "exp_avg_sq": "second_moment"}
    names |= {"max_exp_avg_sq": "max_second_moment"}
    for step in range(1, 9):
        w.grad = torch.randn(7, 6, dtype=torch.float64, generator=generator) * step**0.5
        before = w.detach().clone()
        adam.step()
        state = adam.state[w]
        us.append((before * (1 - 1e-2 * 0.1) - w.detach()) / 1e-2)
        top = state["max_exp_avg_sq" if amsgrad else "exp_avg_sq"]
        scales.append((top / (1 - 0.95**step)).sqrt() + 1e-6)
        slots = {"w": {names[k]: v.clone() for k, v in state.items() if k in names}}
        saved.append(Saved(step * 10, {"w": w.detach().clone()}, slots, {"w": step}))
    hyper = hyper_of(
        kind=OptimizerKind.ADAMW,
        names=["w"],
        betas=(0.8, 0.95),
        eps=1e-6,
        decoupled=True,
        momentum=None,
        amsgrad=amsgrad,
    )
    motion = measure(
        write_series(tmp_path, saved), groups_of(symmetry_of("w", (7, 6))), hyper, device="cpu"
    )
    weights = [wide(s.tensors["w"]) for s in saved]
    for row, w_, u, d in zip(motion.snapshots.to_dicts()[1:], weights[1:], us, scales, strict=True):
        assert row["u2"] == pytest.approx(float((wide(u) ** 2).sum()), rel=1e-10)
        assert row["wu"] == pytest.approx(float((w_ * wide(u)).sum()), rel=1e-9)
        assert row["vhat_sum"] == pytest.approx(float(((wide(d) - L(1e-6)) ** 2).sum()), rel=1e-12)
    assert motion.snapshots["wu"][0] is None
    ends: list[tuple[torch.Tensor | None, torch.Tensor | None]] = [(None, None)]
    ends += list(zip(us, scales, strict=True))
    for i, row in enumerate(motion.pairs.to_dicts()):
        (u_a, d_a), (u_b, d_b) = ends[i], ends[i + 1]
        assert d_b is not None
        assert u_b is not None
        s = wide(d_b) if d_a is None else np.sqrt(wide(d_a) * wide(d_b))
        s = s / s.mean()
        for end, w_, u_ in (("from", weights[i], u_a), ("to", weights[i + 1], u_b)):
            assert row[f"s_w2_{end}"] == pytest.approx(float((s * w_**2).sum()), rel=1e-12)
            if u_ is None:
                assert row[f"s_wu_{end}"] is None
                assert row[f"s_u2_{end}"] is None
                continue
            assert row[f"s_wu_{end}"] == pytest.approx(float((s * w_ * wide(u_)).sum()), rel=1e-9)
            assert row[f"s_u2_{end}"] == pytest.approx(float((s * wide(u_) ** 2).sum()), rel=1e-9)
        assert row["s_min_ratio"] == pytest.approx(float(s.min() / s.max()), rel=1e-12)


def test_moments_without_known_betas_are_left_out(tmp_path: Path) -> None:
    ws = walk((4, 4), 2, 2)
    slots = {"w": {"first_moment": ws[0], "second_moment": ws[0] ** 2}}
    series = write_series(tmp_path, [Saved(i, {"w": w}, slots) for i, w in enumerate(ws)])
    hyper = hyper_of(kind=OptimizerKind.ADAM, names=["w"], betas=None)
    motion = measure(series, groups_of(symmetry_of("w", (4, 4))), hyper, device="cpu")
    assert motion.snapshots["u2"].null_count() == 2


def test_epsilon_leak(tmp_path: Path) -> None:
    ws = walk((6, 2, 3, 3), 3, 4)
    generator = torch.Generator().manual_seed(8)
    saved = []
    for i, w in enumerate(ws):
        gamma, buffer = torch.randn(2, 6, generator=generator)
        tensors = {
            "conv.weight": w,
            "bn.weight": gamma,
            "bn.bias": torch.zeros(6),
            "bn.running_var": torch.rand(6, generator=generator) * 1e-3,
        }
        slots = {"bn.weight": {"momentum": buffer}} if i else {}
        saved.append(Saved(i * 100, tensors, slots))
    groups = groups_of(
        symmetry_of("conv.weight", (6, 2, 3, 3), norm=batch_norm("bn")),
        symmetry_of("bn.weight", (6,), role=Role.NOT_SCALE_INVARIANT, axis=None),
    )
    motion = measure(write_series(tmp_path, saved), groups, hyper_of(epsilon=1e-4), device="cpu")
    assert motion.pairs["tensor"].unique().to_list() == ["conv.weight"]
    for i, row in enumerate(motion.pairs.to_dicts()):
        a, b = saved[i], saved[i + 1]
        f = [1e-4 / (wide(s.tensors["bn.running_var"]) + 1e-4) for s in (a, b)]
        gamma = [wide(s.tensors["bn.weight"]) for s in (a, b)]
        weight = (f[0] * gamma[0] + f[1] * gamma[1]) / 2
        assert row["leak_shift"] == pytest.approx(float((weight * (gamma[0] - gamma[1])).sum()))
        assert row["leak_gamma"] == pytest.approx(float((weight * (gamma[0] + gamma[1])).sum() / 2))
        w2 = [(wide(s.tensors["conv.weight"]) ** 2).sum((1, 2, 3)) for s in (a, b)]
        fraction = ((f[0] * w2[0]).sum() / w2[0].sum() + (f[1] * w2[1]).sum() / w2[1].sum()) / 2
        assert row["eps_fraction"] == pytest.approx(float(fraction))
        if i == 0:
            assert row["leak_buffer"] is None
            assert row["leak_buffer_from"] is None
            continue
        buffer = [wide(s.slots["bn.weight"]["momentum"]) for s in (a, b)]
        assert row["leak_buffer"] == pytest.approx(float((weight * (buffer[1] - buffer[0])).sum()))
        assert row["leak_buffer_from"] == pytest.approx(float((weight * buffer[0]).sum()))
        assert row["leak_buffer_to"] == pytest.approx(float((weight * buffer[1]).sum()))


def test_frozen_statistics(tmp_path: Path) -> None:
    ws = walk((4, 4), 3, 4)
    saved = [
        Saved(
            i,
            {
                "a.weight": w,
                "b.weight": w,
                "bn1.running_var": torch.ones(4),
                "bn2.running_var": torch.ones(4) * (1 + (i == 2) * 2.0**-23),
            },
        )
        for i, w in enumerate(ws)
    ]
    groups = groups_of(
        symmetry_of("a.weight", (4, 4), norm=batch_norm("bn1")),
        symmetry_of("b.weight", (4, 4), norm=batch_norm("bn2")),
    )
    motion = measure(write_series(tmp_path, saved), groups, hyper_of(), device="cpu")
    assert motion.frozen_statistics == {"bn1.running_var"}


def test_statistics_that_stand_still_at_one_end(tmp_path: Path) -> None:
    """By bits of mean and variance; batches counted all the same mean a momentum of 0."""
    ws = walk((4, 4), 6, 4)
    moves = {  # change of the variance, change of the mean, and the counter
        "stops": ([0, 1, 2, 3, 3, 3], [0, 1, 2, 3, 3, 3], [0, 5, 10, 13, 13, 13]),
        "starts": ([0, 0, 0, 1, 2, 3], [0, 0, 0, 0, 0, 0], [0, 0, 0, 4, 9, 14]),
        "mean_moves": ([0, 1, 2, 3, 3, 3], [0, 1, 2, 3, 4, 5], [0, 5, 10, 15, 20, 25]),
        "never": ([0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [7, 7, 7, 7, 7, 7]),
        "counts": ([0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 5, 10, 15, 20, 25]),
    }
    saved = [
        Saved(
            i,
            {
                **{f"{name}.weight": w for name in moves},
                **{f"{n}.running_var": torch.full((4,), 1.0 + m[0][i]) for n, m in moves.items()},
                **{f"{n}.running_mean": torch.full((4,), float(m[1][i])) for n, m in moves.items()},
                **{f"{n}.num_batches_tracked": torch.tensor(m[2][i]) for n, m in moves.items()},
            },
        )
        for i, w in enumerate(ws)
    ]
    groups = groups_of(*(symmetry_of(f"{n}.weight", (4, 4), norm=batch_norm(n)) for n in moves))
    motion = measure(write_series(tmp_path, saved), groups, hyper_of(), device="cpu")
    found = {n.removesuffix(".running_var"): item for n, item in motion.statistics.items()}
    assert {n: (item.still_from, item.still_until) for n, item in found.items()} == {
        "stops": (3, 0),
        "starts": (5, 2),
        "never": (0, 5),
        "counts": (0, 5),
    }
    assert found["stops"].counts == (0, 5, 10, 13, 13, 13)
    assert motion.frozen_statistics == {"never.running_var"}


def test_clocks(tmp_path: Path) -> None:
    heads, biases = walk((10, 6), 2, 1), walk((10,), 2, 2)
    saved = [
        Saved(i, {"fc.weight": h, "fc.bias": b, "conv.bias": b})
        for i, (h, b) in enumerate(zip(heads, biases, strict=True))
    ]
    other = Role.NOT_SCALE_INVARIANT
    groups = groups_of(
        symmetry_of("fc.weight", (10, 6), role=other, axis=None, clock=True),
        symmetry_of("fc.bias", (10,), role=other, axis=None, clock=True),
        symmetry_of("conv.bias", (10,), role=Role.IRRELEVANT, axis=None, clock=True),
    )
    motion = measure(write_series(tmp_path, saved), groups, hyper_of(), device="cpu")
    for i in range(2):
        clock = {n: rows(motion.snapshots, n)[i]["clock2"] for n in groups.tensors}
        assert clock["fc.weight"] == pytest.approx(float((wide(heads[i]).sum(0) ** 2).sum()))
        assert clock["fc.bias"] == pytest.approx(float(wide(biases[i]).sum() ** 2))
        assert clock["conv.bias"] == pytest.approx(float((wide(biases[i]) ** 2).sum()))


def test_what_is_measured(tmp_path: Path) -> None:
    tensors = {
        "bias": torch.randn(4),
        "matrix": torch.randn(4, 4),
        "gain": torch.randn(4),
        "counts": torch.ones(4, 4, dtype=torch.int64),
        "empty": torch.randn(0, 4),
        "reshaped": torch.randn(4, 4),
        "late": torch.randn(4, 4),
    }
    second = {k: v * 0.5 if v.is_floating_point() else v for k, v in tensors.items()}
    second["reshaped"] = torch.randn(8, 2)
    first = {k: v for k, v in tensors.items() if k != "late"}
    series = write_series(tmp_path, [Saved(0, first), Saved(5, second)])
    other = Role.NOT_SCALE_INVARIANT
    groups = groups_of(
        *(
            symmetry_of(k, v.shape, axis=None, role=Role.SCALE_INVARIANT if k == "gain" else other)
            for k, v in tensors.items()
        )
    )
    motion = measure(series, groups, hyper_of(), device="cpu")
    assert motion.pairs["tensor"].to_list() == ["matrix", "gain"]
    assert motion.pairs["chord2"].to_list() == [0.0, 0.0]
    empty = groups_of(symmetry_of("bias", (4,), role=other))
    with pytest.raises(NothingToAnalyseError, match="no tensor left"):
        measure(series, empty, hyper_of(), device="cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "tpu", "cuda:x", ""])
def test_device_that_is_not_there(tmp_path: Path, name: str) -> None:
    if name.startswith("cuda") and torch.cuda.is_available():
        name = "cuda:99"
    series = write_series(tmp_path, [Saved(0, {"w": torch.ones(2, 2)})])
    with pytest.raises(InputError) as caught:
        measure(series, groups_of(symmetry_of("w", (2, 2))), hyper_of(), device=name)
    assert caught.value.exit_code == 2


def test_mps_is_measured_on_the_cpu_with_a_notice(tmp_path: Path) -> None:
    series = write_series(tmp_path, [Saved(0, {"w": torch.ones(2, 2)})])
    motion = measure(series, groups_of(symmetry_of("w", (2, 2))), hyper_of(), device="mps")
    assert motion.cost.device == "cpu"
    assert "mps" in motion.cost.note
    assert motion.snapshots["w2"].to_list() == [4.0]
    assert motion.pairs.height == 0
