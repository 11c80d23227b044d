"""A copy of a network in float64, at a random point or as it is, to rescale and differentiate."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from smdlens.errors import GraphError

TINY = 1e-24  # what epsilons are lowered to
_SHORT = (torch.float32, torch.float16, torch.bfloat16)
_CASTS = ("float", "half", "bfloat16")
# Where the functions of torch.nn.functional take their epsilon.
_EPSILON_AT = {
    "layer_norm": 4, "group_norm": 4, "rms_norm": 3, "batch_norm": 7, "instance_norm": 7,
    "normalize": 3,
}  # fmt: skip


class _Exact(TorchFunctionMode):
    """Casts to a shorter float do nothing; epsilons given to a function are lowered, if asked.

    Rounding would look like a change, and an epsilon is one.
    """

    def __init__(self, *, lowered: bool) -> None:
        super().__init__()
        self._lowered = lowered

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in _CASTS and args and isinstance(args[0], torch.Tensor):
            return args[0].double() if args[0].is_floating_point() else func(*args).double()
        args = tuple(_lengthened(item) for item in args)
        kwargs = {key: _lengthened(item) for key, item in kwargs.items()}
        at = _EPSILON_AT.get(name) if self._lowered else None
        if at is not None:
            if len(args) > at:
                args = (*args[:at], TINY, *args[at + 1 :])
            else:
                kwargs["eps"] = TINY
        return func(*args, **kwargs)


def _lengthened(item: Any) -> Any:
    return torch.float64 if isinstance(item, torch.dtype) and item in _SHORT else item


class Experiment:
    """The model in float64, batch norms on batch statistics, epsilons lowered.

    Zero biases and gates would look invariant, so no parameter keeps its value.

    Args:
        model: The network; a copy of it is used.
        args: Arguments of one call; floating tensors among them are drawn at random.
        kwargs: Keyword arguments, likewise.
        seed: Of parameters and inputs; None leaves these and every epsilon as they are.

    Raises:
        GraphError: No output is a floating-point tensor.
    """

    def __init__(
        self,
        model: nn.Module,
        args: Sequence[object],
        kwargs: Mapping[str, object] | None,
        seed: int | None = 1,
    ) -> None:
        generator = torch.Generator().manual_seed(seed or 0)
        self._as_it_is = seed is None
        self.model = copy.deepcopy(model).cpu().double().eval()
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.train()
            for name, value in list(vars(module).items()):
                small = "eps" in name and isinstance(value, float) and 0.0 < value < 0.1
                if small and not self._as_it_is:
                    setattr(module, name, TINY)
        self.parameters: dict[str, nn.Parameter] = {}
        with torch.no_grad():
            for name, parameter in self.model.named_parameters(remove_duplicate=False):
                parameter.requires_grad_(True)
                self.parameters[name] = parameter
            for parameter in () if self._as_it_is else self.model.parameters():
                fan_in = max(parameter[0].numel(), 1) if parameter.dim() > 1 else 4
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(noise * max(fan_in**-0.5, 0.1))
        leaves, self._spec = torch.utils._pytree.tree_flatten((tuple(args), dict(kwargs or {})))
        drawn = None if self._as_it_is else generator
        self._leaves = [_in_float64(leaf, drawn) for leaf in leaves]
        self.base = self.outputs()

    def outputs(self, *, gradient: bool = False) -> torch.Tensor:
        """All floating outputs, joined."""
        args, kwargs = torch.utils._pytree.tree_unflatten(self._leaves, self._spec)
        with (
            torch.set_grad_enabled(gradient),
            _Exact(lowered=not self._as_it_is),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            return joined_outputs(self.model(*args, **kwargs))

    def change(self, factors: Mapping[str, torch.Tensor]) -> float:
        """Largest relative change of the outputs when parameters are multiplied; inf for NaN."""
        with torch.no_grad():
            saved = {name: self.parameters[name].clone() for name in factors}
            try:
                for name, factor in factors.items():
                    self.parameters[name].mul_(factor)
                after = self.outputs()
            finally:
                for name, value in saved.items():
                    self.parameters[name].copy_(value)
        difference = (after - self.base).abs().max() / self.base.abs().max()
        return float(difference) if bool(torch.isfinite(difference)) else float("inf")

    def products(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and w * dL/dw / |L| of each parameter, L a random linear function of the outputs."""
        for name, gradient in self.gradients():
            yield name, gradient * self.parameters[name].detach()

    def gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and dL/dw / |L| of each parameter, L a random linear function of the outputs.

        One backward pass. Zeros where the outputs do not depend on it.
        """
        generator = torch.Generator().manual_seed(2)
        outputs = self.outputs(gradient=True)
        weights = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
        size = float((outputs.detach() * weights).abs().sum())
        names = list(self.parameters)
        gradients = list(
            torch.autograd.grad(
                (outputs * weights).sum(),
                [self.parameters[name] for name in names],
                allow_unused=True,
            )
        )
        for name in reversed(names):
            gradient, w = gradients.pop(), self.parameters[name].detach()
            yield name, torch.zeros_like(w) if gradient is None else gradient / size


def joined_outputs(result: object) -> torch.Tensor:
    """All floating tensors of what a model returned, flat and in order.

    Raises:
        GraphError: There is none.
    """
    flat, _ = torch.utils._pytree.tree_flatten(result)
    tensors = [
        item.flatten()
        for item in flat
        if isinstance(item, torch.Tensor) and item.is_floating_point()
    ]
    if not tensors:
        raise GraphError(
            "the model gives no floating-point tensor",
            expected="a tensor, or a tuple or dict of tensors",
            found=type(result).__name__,
        )
    return torch.cat(tensors)


def _in_float64(leaf: object, generator: torch.Generator | None) -> object:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if generator is None:
        return leaf.double() if leaf.is_floating_point() else leaf
    # Batch statistics of two samples are +-1 whatever comes in: four are the least.
    times = max(1, -(-4 // leaf.shape[0])) if leaf.dim() else 1
    if not leaf.is_floating_point():
        return torch.cat([leaf] * times) if times > 1 else leaf
    shape = (leaf.shape[0] * times, *leaf.shape[1:]) if leaf.dim() else leaf.shape
    return torch.randn(shape, generator=generator, dtype=torch.float64)
