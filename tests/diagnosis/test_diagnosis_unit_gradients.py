"""Exact gradients of a real network against the logged ones, optimizer by optimizer."""

import itertools

import gradient_runs as runs
import numpy as np
import pytest
import torch
from diagnosis_helpers import analyze

SGD = torch.optim.SGD
MAKERS = {
    "plain": lambda groups: SGD(groups, lr=runs.LR),
    "momentum": lambda groups: SGD(groups, lr=runs.LR, momentum=0.9),
    "nesterov": lambda groups: SGD(groups, lr=runs.LR, momentum=0.9, nesterov=True),
    "dampening": lambda groups: SGD(groups, lr=runs.LR, momentum=0.9, dampening=0.3),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=3e-3),
    "amsgrad": lambda groups: torch.optim.AdamW(groups, lr=3e-3, amsgrad=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=3e-3),
}
# name: optimizer, how it is saved, source, error of |g~|, of h~, of <g, w> over |g~|
CASES = {
    "plain": ("plain", {}, "weights", 3e-6, 3e-6, 3e-6),
    "buffers": ("momentum", {}, "buffers", 2e-7, 5e-7, 1e-7),
    "nesterov": ("nesterov", {}, "buffers", 2e-7, 5e-7, 1e-7),
    "dampening": ("dampening", {}, "buffers", 2e-7, 5e-7, 1e-7),
    "weights alone": ("momentum", {"weights_only": True}, "weights", None, 5e-6, 3e-6),
    "bf16 weights": ("momentum", {"dtype": torch.bfloat16}, "buffers", 2e-3, 2e-3, 1e-3),
    "bf16 all": (
        "momentum",
        {"dtype": torch.bfloat16, "buffers": torch.bfloat16},
        "buffers",
        5e-3,
        2e-2,
        4e-3,
    ),
    "adamw": ("adamw", {}, "first_moments", 1e-6, None, 1e-6),
    "adamw, bf16 moments": (
        "adamw",
        {"buffers": torch.bfloat16},
        "first_moments",
        5e-3,
        None,
        4e-3,
    ),
    "amsgrad": ("amsgrad", {}, "first_moments", 1e-6, None, 1e-6),
    "adam with L2": ("adam", {}, "first_moments", 1e-6, None, 1e-6),
}
DECLARED = {"optimizer": "sgd", "lr": runs.LR, "weight_decay": runs.DECAY, "momentum": 0.9}


def run(folder, case):
    maker, saving, *_ = CASES[case]
    logged = runs.train(folder, MAKERS[maker], **saving)
    return logged, analyze(folder, **(DECLARED if saving.get("weights_only") else {}))


def truth(logged, name, case, first):
    """|g~|^2, h~ and <g, w> of every update from the log."""
    a, c = {"momentum": (0.9, 1.0), "nesterov": (0.9, 1.0), "dampening": (0.9, 0.7)}.get(
        CASES[case][0], (0.0, 1.0)
    )
    w2, g2, gw, gv = (
        x[name][first:] for x in (logged.w2, logged.grad2, logged.grad_w, logged.grad_v)
    )
    return g2 * w2, (g2 + 2 * a * gv / c) * w2, gw


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_that_were_logged(case, tmp_path):
    logged, report = run(tmp_path / "run", case)
    _, _, source, error, error_h, error_radial = CASES[case]
    rows = {r["tensor"]: r for r in report.diagnosis.unit_gradients.to_dicts()}
    assert rows.keys() == logged.w2.keys()
    for name, row in rows.items():
        assert row["source"] == source
        # Weights alone show a momentum step from the third snapshot on.
        first = 1 if case == "weights alone" else 0
        assert row["updates"] == runs.SEEN - first
        squared, h, radial = truth(logged, name, case, first)
        size = np.sqrt(squared.mean())
        if error is None:
            assert row["rms"] is None
        else:
            assert row["rms"] == pytest.approx(size, rel=error)
            for level in (5, 25, 50, 75, 95):
                expected = np.quantile(np.sqrt(squared), level / 100)
                assert row[f"p{level:02d}"] == pytest.approx(expected, rel=2 * error)
        if error_h is None:
            assert row["effective_rms"] is None
        else:
            assert row["effective_rms"] == pytest.approx(np.sqrt(h.mean()), rel=error_h)
            assert row["effective_negative"] == pytest.approx((h < 0).mean(), abs=1e-9)
        scale = size if error is not None else np.sqrt(h.mean())
        cosine = np.sqrt((radial**2).mean()) / scale
        assert row["cosine_rms"] == pytest.approx(cosine, rel=0.01, abs=error_radial)
        invariant = name != "head.weight"
        assert row["orthogonal"] is invariant
        if CASES[case][0] in ("adamw", "amsgrad"):
            assert row["radial_ratio"] is None
            continue
        kappa = (radial / logged.w2[name][first:]).mean() / runs.DECAY
        allowed = error_radial * size / logged.w2[name].mean() / runs.DECAY
        assert row["radial_ratio"] == pytest.approx(kappa, rel=1e-4, abs=allowed)


@pytest.mark.parametrize(("maker", "large"), [("momentum", 3e-2), ("adamw", 1e-2)])
def test_epsilon_explains_what_is_left_of_the_cosine(maker, large, tmp_path):
    """At a large epsilon the cosine is real, the leak predicts it, and no false alarm is raised."""
    folder = tmp_path / "run"
    logged = runs.train(folder, MAKERS[maker], eps=large)
    assumed, told = (
        {r["tensor"]: r for r in analyze(folder, epsilon=eps).diagnosis.unit_gradients.to_dicts()}
        for eps in (None, large)
    )
    for name in logged.w2:
        if name == "head.weight":
            continue
        truth = np.sqrt(
            (logged.grad_w[name] ** 2).mean() / (logged.grad2[name] * logged.w2[name]).mean()
        )
        assert told[name]["cosine_rms"] == pytest.approx(truth, rel=1e-3)
        assert told[name]["cosine_epsilon_rms"] == pytest.approx(truth, rel=0.15)
        assert told[name]["orthogonal"] is True
    assert assumed["stages.1.body.conv.weight"]["orthogonal"] is False


def test_what_cannot_be_told_is_said(tmp_path):
    """bf16 weights without buffers are too coarse; Theorems 1 and 2 do not speak of Adam."""
    coarse = tmp_path / "coarse"
    runs.train(coarse, MAKERS["plain"], dtype=torch.bfloat16)
    report = analyze(coarse)
    assert report.diagnosis.unit_gradients.is_empty()
    (row,) = [
        a
        for a in report.diagnosis.assumptions
        if a.name == "gradient_orthogonal" and a.tensor == "stem.body.conv.weight"
    ]
    assert row.holds is None
    assert "only consecutive snapshots" in row.reason
    adam = tmp_path / "adam"
    runs.train(adam, MAKERS["adamw"])
    found = {a.name: a for a in analyze(adam).diagnosis.assumptions}
    assert found["gradient_orthogonal"].holds is True
    assert found["theorem_covers_optimizer"].holds is False
    assert "norm_as_theorem" not in found


@pytest.mark.parametrize("case", ["buffers", "adamw"])
def test_the_distribution_over_channels(case, tmp_path):
    """Against the files themselves: |g_c| |w_c| of every channel in float64."""
    folder = tmp_path / "run"
    runs.train(folder, MAKERS[CASES[case][0]], updates=6)
    rows = {r["tensor"]: r for r in analyze(folder).diagnosis.unit_gradients.to_dicts()}
    files = [torch.load(folder / f"ckpt_{step}.pt", weights_only=True) for step in range(40, 47)]
    name, index = "stages.0.body.conv.weight", 1  # the second of the decayed matrices
    key, a, c, decay = {
        "buffers": ("momentum_buffer", 0.9, 1.0, runs.DECAY),
        "adamw": ("exp_avg", 0.9, 0.1, 0.0),
    }[case]
    found = []
    for before, after in itertools.pairwise(files):
        w = before["model"][name].double()
        v, u = (x["optimizer"]["state"][index][key].double() for x in (before, after))
        g = (u - a * v) / c - decay * w
        found.append((g.flatten(1).norm(dim=1) * w.flatten(1).norm(dim=1)).numpy())
    for level in (5, 50, 95):
        expected = np.median(np.quantile(found, level / 100, axis=1))
        assert rows[name][f"channel_p{level:02d}"] == pytest.approx(expected, rel=1e-6)
    assert rows["head.weight"]["channel_p50"] is None
