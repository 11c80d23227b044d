"""Ground truth by brute force: rescale a parameter, run the network, compare.

float64, epsilon attributes at 1e-24, batch norms in training mode, all parameters re-randomised
(zero biases and zero gates would make things look invariant that are not), casts down suppressed.
It shares no code with the package.
"""

import copy
import warnings

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

THRESHOLD = 1e-9
FACTORS = (0.5, 2.0, 7.0)


class KeepDouble(TorchFunctionMode):
    """Makes casts to a shorter float do nothing."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        short = (torch.float32, torch.float16, torch.bfloat16)
        args = tuple(torch.float64 if any(a is s for s in short) else a for a in args)
        kwargs = {k: torch.float64 if any(v is s for s in short) else v for k, v in kwargs.items()}
        name = getattr(func, "__name__", "")
        if isinstance(kwargs.get("eps"), float) and name != "cosine_similarity":
            kwargs["eps"] = min(kwargs["eps"], 1e-24)
        if name in ("float", "half", "bfloat16") and isinstance(args[0], torch.Tensor):
            return (
                args[0].double() if args[0].is_floating_point() else func(*args, **kwargs).double()
            )
        return func(*args, **kwargs)


def _prepared(model, seed):
    model = copy.deepcopy(model).double().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.train()
        # A constant of the class (`eps = 1e-5` in its body) is one as well.
        for name in [name for name in dir(module) if "eps" in name]:
            value = getattr(module, name)
            if isinstance(value, float) and 0 < value < 0.1:
                setattr(module, name, 1e-24)
        # Mixtures of experts have a kernel that knows no float64, and a loop that does.
        config = getattr(module, "config", None)
        if hasattr(config, "_experts_implementation"):
            config._experts_implementation = "eager"
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.requires_grad_(True)
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            spread = 0.5 if parameter.dim() < 2 else max(0.3, max(parameter[0].numel(), 1) ** -0.5)
            parameter.copy_(noise * spread)
    return model


def _batch(inputs, options, seed, size):
    generator = torch.Generator().manual_seed(seed)

    def draw(x):
        if not isinstance(x, torch.Tensor):
            return x
        shape = (size, *x.shape[1:])
        if x.is_floating_point():
            return torch.randn(shape, generator=generator, dtype=torch.float64)
        if x.dtype == torch.bool:
            return x.expand(shape).clone()
        return torch.randint(int(x.min()), int(x.max()) + 1, shape, generator=generator)

    return tuple(draw(x) for x in inputs), {name: draw(x) for name, x in options.items()}


def _flat(result):
    if isinstance(result, torch.Tensor):
        return [result.double().flatten()] if result.is_floating_point() else []
    if isinstance(result, dict):
        items = [v for k, v in result.items() if k != "mems" and "past_key" not in k]
        return [t for item in items for t in _flat(item)]
    if isinstance(result, list | tuple):
        return [t for item in result for t in _flat(item)]
    return []


class Oracle:
    """One network at one random point (and at two more where it seems dead)."""

    def __init__(self, model, inputs, options=None, seed=0, batch=4):
        options = options or {}
        self.points = [
            (_prepared(model, seed + at), *_batch(inputs, options, seed + 10 + at, batch))
            for at in range(2)
        ]
        self.base = [self._run(*point) for point in self.points]

    def _run(self, model, inputs, options, gradient=False):
        with torch.set_grad_enabled(gradient), KeepDouble(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.cat(_flat(model(*inputs, **options)))

    def change(self, edits):
        """Largest relative change of the outputs when `edits` (name -> function) are applied."""
        worst = 0.0
        for point, base in zip(self.points, self.base, strict=True):
            parameters = dict(point[0].named_parameters())
            saved = {name: parameters[name].detach().clone() for name in edits}
            with torch.no_grad():
                for name, edit in edits.items():
                    parameters[name].copy_(edit(saved[name]))
            after = self._run(*point)
            with torch.no_grad():
                for name, value in saved.items():
                    parameters[name].copy_(value)
            scale = float(base.abs().max()) or 1.0
            difference = float((after - base).abs().max()) / scale
            worst = max(worst, difference if difference == difference else float("inf"))
            if worst > THRESHOLD:
                break
        return worst

    def is_invariant(self, name):
        return all(self.change({name: lambda w, k=k: w * k}) < THRESHOLD for k in FACTORS)

    def is_irrelevant(self, name):
        """Whether other numbers of the same signs do as well; no training step sees more."""
        generator = torch.Generator().manual_seed(5)

        def other(w):
            noise = torch.randn(w.shape, generator=generator, dtype=w.dtype).abs()
            return torch.where(w < 0, -noise, noise)

        return self.change({name: other}) < THRESHOLD

    def euler(self):
        """<w, dL/dw> / |L|, and beside it |w| |dL/dw| / |L|, of each parameter.

        A row per point, a column per index of the first axis.

        L is a random linear function of the outputs. No derivative, no entry.
        """
        found = {}
        for point in self.points:
            outputs = self._run(*point, gradient=True)
            generator = torch.Generator().manual_seed(9)
            weights = torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)
            parameters = dict(point[0].named_parameters())
            gradients = torch.autograd.grad(
                (outputs * weights).sum(), list(parameters.values()), allow_unused=True
            )
            size = float((outputs.detach() * weights).abs().sum())
            for (name, w), g in zip(parameters.items(), gradients, strict=True):
                if g is not None:
                    flat, slope = w.detach().reshape(len(w) if w.dim() else 1, -1), g.reshape(-1)
                    slope = slope.reshape(flat.shape)
                    pair = ((flat * slope).sum(1), flat.norm(dim=1) * slope.norm(dim=1))
                    found.setdefault(name, []).append(torch.stack(pair) / size)
        return {name: torch.stack(rows, dim=1) for name, rows in found.items()}

    def keeps(self, name, axis, factors):
        """Whether factors per index along an axis leave the outputs alone."""
        return self.keep_together({name: (axis, factors)})

    def keep_together(self, scalings):
        """The same for several parameters at once: name -> (axis, factors)."""

        def scaling(axis, factors):
            factors = torch.as_tensor(factors, dtype=torch.float64)
            return lambda w: w * factors.reshape([-1 if at == axis else 1 for at in range(w.dim())])

        return self.change({name: scaling(*item) for name, item in scalings.items()}) < THRESHOLD

    def names(self):
        return [name for name, _ in self.points[0][0].named_parameters()]
