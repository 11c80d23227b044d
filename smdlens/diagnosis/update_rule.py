"""From the optimizer a run used to the theory that describes it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from smdlens.hyper.records import Optimizer, ParamGroup
from smdlens.theory.moments import UpdateRule, adam_direction, heavy_ball, nesterov
from smdlens.theory.relaxation import Family
from smdlens.vocabulary import OptimizerKind

# Mean correlation of the gradient with the buffer before it, <v', g> / |g|^2, seen on real networks
# under Nesterov momentum at ratios near 1: -0.02 to -0.2. Norms cannot tell it; without it angles
# come out 1 to 2% low (docs/theory.md §4, §11).
NESTEROV_CORRELATION = -0.07


@dataclass(frozen=True, slots=True)
class Law:
    """How the theory describes one parameter group.

    Attributes:
        rule: Linear recursion, None for Lion (its step has a fixed length).
        decoupled: Weight decay multiplies the weights instead of joining the gradient.
        family: Which relaxation law holds.
        momentum: a, or beta1.
        betas: Adam's and Lion's.
        adaptive: The step is normalised per entry (Adam family).
    """

    rule: UpdateRule | None
    decoupled: bool
    family: Family
    momentum: float
    betas: tuple[float, float] | None
    adaptive: bool

    @property
    def white_rule(self) -> UpdateRule | None:
        """The rule for gradients without correlation: what expectations are stated for."""
        return None if self.rule is None else dataclasses.replace(self.rule, correlation=0.0)

    @property
    def is_heavy_ball(self) -> bool:
        """The buffer is the step, so the boundary identity holds without a model."""
        return self.rule is not None and self.rule.q == 0.0 and not self.adaptive

    @property
    def is_l2_adam(self) -> bool:
        """Adam with L2 decay: equilibrium depends on the gradient."""
        return self.adaptive and not self.decoupled


def law_of(optimizer: Optimizer, group: ParamGroup) -> Law | None:
    """The law of a group, or None where the optimizer is unknown or has no formula."""
    kind = optimizer.kind
    if kind is OptimizerKind.SGD:
        momentum = group.momentum if group.momentum is not None else optimizer.momentum
        if momentum is None:
            return None
        decoupled = bool(optimizer.decoupled)
        if optimizer.nesterov and momentum > 0.0:
            family: Family = "sgdw" if decoupled else "nesterov"
            rule = nesterov(momentum, NESTEROV_CORRELATION)
            return Law(rule, decoupled, family, momentum, None, adaptive=False)
        rule = heavy_ball(momentum, optimizer.dampening or 0.0)
        return Law(rule, decoupled, "sgdw" if decoupled else "sgd", momentum, None, adaptive=False)
    betas = group.betas or optimizer.betas
    if kind in (OptimizerKind.ADAM, OptimizerKind.ADAMW):
        beta1, beta2 = betas or (0.9, 0.999)
        decoupled = kind is OptimizerKind.ADAMW
        return Law(adam_direction(beta1), decoupled, "adamw", beta1, (beta1, beta2), adaptive=True)
    if kind is OptimizerKind.LION:
        beta1, beta2 = betas or (0.9, 0.99)
        return Law(None, True, "lion", beta1, (beta1, beta2), adaptive=True)
    return None
