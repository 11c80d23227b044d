"""Writes a normalisation found in arithmetic as operators, in the place of one node."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from smdlens.symmetry.model_graph import Node, Ref, Shape
from smdlens.symmetry.products import Factor, Product, Sum


class Emission:
    """The nodes so far; the last one gets the name of the node that they replace.

    Args:
        node: What is replaced.
        shapes: Shapes of all values before it.
    """

    def __init__(self, node: Node, shapes: Mapping[str, Shape]) -> None:
        self.node = node
        self.shapes = dict(shapes)
        self.made: list[Node] = []
        self.last = ""

    def finished(self) -> list[Node]:
        """The nodes."""
        return [*self.made[:-1], dataclasses.replace(self.made[-1], name=self.node.name)]

    def _add(self, op: str, arguments: dict[str, Any], shape: Shape) -> str:
        name = f"{self.node.name}!{len(self.made)}"
        self.made.append(Node(name, op, arguments, (shape,), self.node.module))
        self.shapes[name] = shape
        self.last = name
        return name

    def difference(self, x: str, mean: str) -> None:
        """X - mean(x)."""
        self._add("sub", {"self": Ref(x), "other": Ref(mean)}, self.shapes[x])

    def normalised(self, x: str, axes: tuple[int, ...]) -> None:
        """(x - mean) / sqrt(variance + eps) over axes."""
        shape = self.shapes[x]
        order = [*(axis for axis in range(len(shape)) if axis not in axes), *axes]
        turned = tuple(shape[axis] for axis in order)
        moved = order != sorted(order)
        if moved:
            x = self._add("permute", {"self": Ref(x), "dims": order}, turned)
        sizes = [shape[axis] for axis in axes]
        x = self._add("layer_norm", {"input": Ref(x), "normalized_shape": sizes}, turned)
        if moved:
            back = [order.index(axis) for axis in range(len(shape))]
            self._add("permute", {"self": Ref(x), "dims": back}, shape)

    def batch_norm(
        self, x: str, mean: Factor, variance: str, gain: str | None, shift: str | None
    ) -> bool:
        """A batch norm over all axes but the one of its mean; False where it cannot be."""
        shape = self.shapes[x]
        at = len(shape) + mean.place[-1]
        if at < 1 or len(shape) < 2 or shape[at] != self.shapes[mean.name][0]:
            return False
        order = [0, at, *(axis for axis in range(1, len(shape)) if axis != at)]
        turned = tuple(shape[axis] for axis in order)
        if at != 1:
            x = self._add("permute", {"self": Ref(x), "dims": order}, turned)
        named = {
            "input": x, "weight": gain, "bias": shift, "running_mean": mean.name,
            "running_var": variance,
        }  # fmt: skip
        arguments: dict[str, Any] = {k: Ref(v) for k, v in named.items() if v is not None}
        made = self._add("batch_norm", arguments, turned)
        if at != 1:
            back = [order.index(axis) for axis in range(len(shape))]
            self._add("permute", {"self": Ref(made), "dims": back}, shape)
        return True

    def times(self, number: float, factors: Product) -> bool:
        """Multiplies by a number and factors."""
        shape = self.shapes[self.last]
        whole = self.last
        for factor in factors:
            name = self._lying(factor, len(shape))
            if name is None:
                return False
            op = "div" if factor.inverse else "mul"
            whole = self._add(op, {"self": Ref(whole), "other": Ref(name)}, shape)
        if number != 1.0:
            whole = self._add("mul", {"self": Ref(whole), "other": number}, shape)
        self.last = whole
        return shape == self.node.shapes[0]

    def plus(self, rest: Sum) -> bool:
        """Adds the other summands."""
        shape = self.shapes[self.last]
        whole = self.last
        for product, number in rest.items():
            if not product:
                whole = self._add("add", {"self": Ref(whole), "other": number}, shape)
                continue
            first, *others = sorted(product, key=lambda f: f.inverse)
            name = self._lying(first, len(shape))
            if name is None or first.inverse:
                return False
            for factor in others:
                other = self._lying(factor, len(shape))
                if other is None:
                    return False
                wide = tuple(map(max, self.shapes[name], self.shapes[other]))
                op = "div" if factor.inverse else "mul"
                name = self._add(op, {"self": Ref(name), "other": Ref(other)}, wide)
            if number != 1.0:
                name = self._add("mul", {"self": Ref(name), "other": number}, self.shapes[name])
            whole = self._add("add", {"self": Ref(whole), "other": Ref(name)}, shape)
        self.last = whole
        return True

    def _lying(self, factor: Factor, rank: int) -> str | None:
        """A factor with its axes where they belong; None where they are in another order."""
        own = self.shapes[factor.name]
        axes = [at for at in factor.place if at]
        if axes != sorted(set(axes)) or (axes and axes[0] < -rank):
            return None
        shape = [1] * rank
        for at, n in zip(factor.place, own, strict=True):
            if at:
                shape[at] = n
        if tuple(shape) == own:
            return factor.name
        return self._add("view", {"self": Ref(factor.name)}, tuple(shape))
