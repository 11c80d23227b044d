"""How far each normalisation's epsilon makes invariance approximate, measured on the running model.

With y = gamma (x - mean) / sqrt(var + eps) + beta, scaling x by k leaves y alone only as far as
f = eps / (var + eps) is small: dy / d ln k = f (y - beta), so <w_c, g_c> = f_c gamma_c dL/dgamma_c
for the weights of channel c (derived in docs/theory.md §10). f is read off while the model runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from smdlens.symmetry.scale_symmetry import EpsilonEffect, ScaleSymmetry
from smdlens.symmetry.verify_experiment import Experiment
from smdlens.vocabulary import Role

# From here on the equilibrium is shifted by something one sees (docs/theory.md §10).
NOTABLE = 0.02
_FREE = (Role.SCALE_INVARIANT, Role.PARTLY_SCALE_INVARIANT, Role.JOINTLY_SCALE_INVARIANT)
# Operators that return 1 / sqrt(var + eps), and where.
_RETURNS_RSTD = {
    "native_batch_norm": 2, "_native_batch_norm_legit": 2, "_batch_norm_with_update": 2,
    "native_layer_norm": 2, "native_group_norm": 2, "_fused_rms_norm": 1,
}  # fmt: skip
_ROOTS = ("rsqrt", "sqrt", "pow")
_LARGEST = 1e-2


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes eps / (var + eps) of every normalisation that runs, by the module it runs in."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path: list[str] = [""]
        self.found: dict[str, list[torch.Tensor]] = {}
        self._sums: list[tuple[torch.Tensor, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in _RETURNS_RSTD:
            given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
            eps = given.get("eps", given.get("epsilon"))
            rstd = result[_RETURNS_RSTD[name]]
            if eps is not None and rstd.numel():
                self._note(eps * rstd.detach().double() ** 2)
        elif name in ("add", "add_") and len(args) > 1 and isinstance(args[1], float | int):
            if 0.0 < args[1] <= _LARGEST:
                self._sums.append((result, float(args[1])))
        elif name in _ROOTS and args:
            for total, eps in self._sums:
                if total is args[0]:
                    self._note(eps / total.detach().double())
            self._sums.clear()
        return result

    def _note(self, share: torch.Tensor) -> None:
        self.found.setdefault(self.path[-1], []).append(share.flatten())


@contextmanager
def _watching(model: nn.Module) -> Iterator[_Watch]:
    """Notes the path of the innermost module that runs."""
    watch = _Watch()
    with ExitStack() as stack:
        for name, module in model.named_modules():

            def enter(*_: object, name: str = name) -> None:
                watch.path.append(name)

            def leave(*_: object) -> None:
                watch.path.pop()

            for handle in (
                module.register_forward_pre_hook(enter),
                module.register_forward_hook(leave, always_call=True),
            ):
                stack.callback(handle.remove)
        stack.enter_context(watch)
        yield watch


def epsilon_effects(symmetry: ScaleSymmetry, model: Experiment) -> dict[str, EpsilonEffect]:
    """The effect on each invariant tensor whose normalisation has an epsilon.

    Args:
        symmetry: The graph's answer, which knows the normalisation behind each tensor.
        model: The model as it is.
    """
    with _watching(model.model) as watch:
        model.outputs()
    radial: dict[str, tuple[float, float, float]] = {}
    for name, gradient in model.gradients():
        w = model.parameters[name].detach()
        radial[name] = (
            float((w * gradient).sum()), float(w.square().sum()), float(gradient.square().sum()),
        )  # fmt: skip
    found: dict[str, EpsilonEffect] = {}
    for name, tensor in symmetry.tensors.items():
        if tensor.role not in _FREE:
            continue
        members = [name, *tensor.joint_with]
        places = [symmetry.behind[m] for m in members if m in symmetry.behind]
        shares = [share for place in places[:1] for share in watch.found.get(place, ())]
        if not shares:
            continue
        joined = torch.cat(shares)
        product, w2, g2 = (sum(radial[m][at] for m in members) for at in range(3))
        found[name] = EpsilonEffect(
            float(joined.mean()),
            float(joined.max()),
            product / (w2 * g2) ** 0.5 if w2 * g2 > 0.0 else 0.0,
        )
    return found


def in_words(effect: EpsilonEffect) -> str:
    """`epsilon makes 0.012% of its norm's denominator (at most 0.3%); cos(w, g) = 1e-05`."""
    text = (
        f"epsilon makes {_percent(effect.share)} of its norm's denominator "
        f"(at most {_percent(effect.share_max)}); cos(w, g) = {effect.cosine:.0e}"
    )
    if effect.share < NOTABLE:
        return text
    return f"{text}: invariance is approximate, epsilon pulls at its norm beside the weight decay"


def worst(effects: Mapping[str, EpsilonEffect]) -> str:
    """One sentence over all tensors; empty where nothing was measured."""
    if not effects:
        return ""
    name = max(effects, key=lambda tensor: effects[tensor].share)
    notable = sum(effect.share >= NOTABLE for effect in effects.values())
    text = (
        f"epsilon makes at most {_percent(effects[name].share)} of a norm's denominator "
        f"(mean over its channels; `{name}`) at the weights and inputs the model was given"
    )
    return f"{text}; {notable} tensors are above {_percent(NOTABLE)}" if notable else text


def _percent(share: float) -> str:
    return f"{100.0 * share:.2g}%"
