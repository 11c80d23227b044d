"""Confirms the graph's answer by running the model: rescaling, and Euler's identity.

L(k w) = L(w) for all k gives <w, grad L> = 0, per tensor and per piece; one backward pass tests
them all. The model is copied to float64 with epsilons at 1e-24, parameters drawn at random (zero
biases and gates would look invariant), batch norms on batch statistics.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from smdlens.errors import GraphError
from smdlens.symmetry.records import Evidence, TensorSymmetry
from smdlens.symmetry.scale_symmetry import ScaleSymmetry
from smdlens.vocabulary import EvidenceKind, Role

SAME = 1e-9  # invariants change by some 1e-14, others by 1e-5 and more
EULER = 1e-10
_FACTORS = (0.5, 3.0)
_SHORT = (torch.float32, torch.float16, torch.bfloat16)


class _KeepFloat64(TorchFunctionMode):
    """Casts to a shorter float do nothing: their rounding would look like a change."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("float", "half", "bfloat16"):
            return args[0].double() if args[0].is_floating_point() else func(*args).double()
        args = tuple(_lengthened(item) for item in args)
        return func(*args, **{key: _lengthened(item) for key, item in kwargs.items()})


def _lengthened(item: Any) -> Any:
    return torch.float64 if isinstance(item, torch.dtype) and item in _SHORT else item


class Experiment:
    """A copy of the model at one random point, to rescale and to differentiate."""

    def __init__(
        self, model: nn.Module, args: Sequence[object], kwargs: Mapping[str, object] | None
    ) -> None:
        generator = torch.Generator().manual_seed(1)
        self.model = copy.deepcopy(model).cpu().double().eval()
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.train()
            for name, value in list(vars(module).items()):
                if "eps" in name and isinstance(value, float) and 0.0 < value < 0.1:
                    setattr(module, name, 1e-24)
        self.parameters: dict[str, nn.Parameter] = {}
        with torch.no_grad():
            for name, parameter in self.model.named_parameters(remove_duplicate=False):
                parameter.requires_grad_(True)
                self.parameters[name] = parameter
            for parameter in self.model.parameters():
                fan_in = max(parameter[0].numel(), 1) if parameter.dim() > 1 else 4
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(noise * max(fan_in**-0.5, 0.1))
        leaves, self._spec = torch.utils._pytree.tree_flatten((tuple(args), dict(kwargs or {})))
        self._leaves = [_in_float64(leaf, generator) for leaf in leaves]
        self.base = self.outputs()

    def outputs(self, *, gradient: bool = False) -> torch.Tensor:
        """All floating outputs, joined."""
        args, kwargs = torch.utils._pytree.tree_unflatten(self._leaves, self._spec)
        with torch.set_grad_enabled(gradient), _KeepFloat64(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = self.model(*args, **kwargs)
        flat, _ = torch.utils._pytree.tree_flatten(result)
        tensors = [
            item.flatten()
            for item in flat
            if isinstance(item, torch.Tensor) and item.is_floating_point()
        ]
        return torch.cat(tensors)

    def change(self, factors: Mapping[str, torch.Tensor | float]) -> float:
        """Largest relative change of the outputs when parameters are multiplied."""
        with torch.no_grad():
            saved = {name: self.parameters[name].clone() for name in factors}
            for name, factor in factors.items():
                self.parameters[name].mul_(factor)
            after = self.outputs()
            for name, value in saved.items():
                self.parameters[name].copy_(value)
        difference = (after - self.base).abs().max() / self.base.abs().max()
        return float(difference) if bool(torch.isfinite(difference)) else float("inf")

    def euler(self) -> dict[str, float]:
        """|<w, grad L>| / |L| per parameter, for a random linear L of the outputs."""
        generator = torch.Generator().manual_seed(2)
        outputs = self.outputs(gradient=True)
        weights = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
        loss = (outputs * weights).sum()
        names = list(self.parameters)
        gradients = torch.autograd.grad(
            loss, [self.parameters[name] for name in names], allow_unused=True
        )
        size = float((outputs.detach() * weights).abs().sum())
        return {
            name: 0.0
            if g is None
            else abs(float((g * self.parameters[name].detach()).sum())) / size
            for name, g in zip(names, gradients, strict=True)
        }


def _in_float64(leaf: object, generator: torch.Generator) -> object:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    # Batch statistics of two samples are +-1 whatever comes in: four are the least.
    times = max(1, -(-4 // leaf.shape[0])) if leaf.dim() else 1
    if not leaf.is_floating_point():
        return torch.cat([leaf] * times) if times > 1 else leaf
    shape = (leaf.shape[0] * times, *leaf.shape[1:]) if leaf.dim() else leaf.shape
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def verified(
    symmetry: ScaleSymmetry,
    model: nn.Module,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
) -> ScaleSymmetry:
    """The answer with numeric evidence; where the two disagree the role becomes unknown.

    Raises:
        GraphError: The model cannot be run.
    """
    try:
        experiment = Experiment(model, args, kwargs)
        euler = experiment.euler()
        tensors = {
            name: _checked(tensor, experiment, euler) for name, tensor in symmetry.tensors.items()
        }
    except GraphError:
        raise
    except Exception as error:
        raise GraphError(
            f"the model cannot be run in float64: {type(error).__name__}: {error}",
            subject=type(model).__name__,
            remedy="Leave out --verify.",
        ) from error
    return dataclasses.replace(symmetry, tensors=tensors)


def _checked(
    tensor: TensorSymmetry, experiment: Experiment, euler: Mapping[str, float]
) -> TensorSymmetry:
    name = tensor.name
    if tensor.role in (Role.SCALE_INVARIANT, Role.IRRELEVANT):
        change = max(experiment.change({name: k}) for k in _FACTORS)
        change = max(change, experiment.change({name: _per_piece(tensor)}))
    elif tensor.role == Role.PARTLY_SCALE_INVARIANT:
        change = experiment.change({name: _per_part(tensor)})
    elif tensor.role == Role.JOINTLY_SCALE_INVARIANT:
        together = [name, *tensor.joint_with]
        change = max(experiment.change(dict.fromkeys(together, k)) for k in _FACTORS)
    else:
        change = max(experiment.change({name: k}) for k in _FACTORS)
        if change > SAME:
            return _with(tensor, f"confirmed: rescaling it changes the outputs by {change:.1e}")
        return _disagreeing(
            tensor, f"the graph says {_said(tensor)}, rescaling changes nothing ({change:.0e})"
        )
    if change > SAME:
        return _disagreeing(
            tensor,
            f"the graph says {_said(tensor)}, rescaling changes the outputs by {change:.1e}",
        )
    detail = f"confirmed: rescaling changes the outputs by {change:.0e}"
    alone = tensor.role in (Role.SCALE_INVARIANT, Role.IRRELEVANT)
    if alone and euler.get(name, 0.0) > EULER:
        return _disagreeing(
            tensor,
            f"the graph says {_said(tensor)} and rescaling agrees, but the gradient is not "
            f"orthogonal to it (<w, g> / L = {euler[name]:.1e})",
        )
    return _with(tensor, f"{detail}; <w, g> / L = {euler.get(name, 0.0):.0e}" if alone else detail)


def _said(tensor: TensorSymmetry) -> str:
    return tensor.role.value.replace("_", " ")


def _per_piece(tensor: TensorSymmetry) -> torch.Tensor:
    """A factor of its own for each piece along the axis, where pieces are runs of equal length."""
    if tensor.axis is None or tensor.groups < 2 or tensor.shape[tensor.axis] % tensor.groups:
        return torch.tensor(0.7, dtype=torch.float64)
    factors = np.random.default_rng(0).uniform(0.5, 2.0, tensor.groups)
    length = tensor.shape[tensor.axis]
    if tensor.groups != length:
        return torch.tensor(0.7, dtype=torch.float64)
    return _along(torch.from_numpy(factors), tensor)


def _per_part(tensor: TensorSymmetry) -> torch.Tensor:
    axis = tensor.axis or 0
    factors = torch.ones(tensor.shape[axis], dtype=torch.float64)
    for number, part in enumerate(tensor.parts):
        if part.role in (Role.SCALE_INVARIANT, Role.IRRELEVANT):
            factors[part.index_from : part.index_to] = 0.6 + 0.3 * number
    return _along(factors, tensor)


def _along(factors: torch.Tensor, tensor: TensorSymmetry) -> torch.Tensor:
    lying = [1] * len(tensor.shape)
    lying[tensor.axis or 0] = -1
    return factors.reshape(lying)


def _with(tensor: TensorSymmetry, detail: str) -> TensorSymmetry:
    evidence = (*tensor.evidence, Evidence(EvidenceKind.NUMERIC, detail))
    return dataclasses.replace(tensor, evidence=evidence)


def _disagreeing(tensor: TensorSymmetry, detail: str) -> TensorSymmetry:
    return dataclasses.replace(
        _with(tensor, detail),
        role=Role.UNKNOWN,
        granularity=None,
        groups=1,
        parts=(),
        joint_with=(),
        norm=None,
        clock=False,
    )
