"""Normalisations that a graph spells out as arithmetic, put back together.

Exporters of Keras 3, Flax and others write a batch norm as x a + (beta - m a) with
a = gamma / sqrt(v + eps) and the running mean m and variance v, and a layer norm likewise with the
mean and variance of x. Each value is expanded into a sum of products of what cannot be expanded;
where x k - m k stands in such a sum it is (x - m) k, and a batch norm if m and v are statistics
and k holds 1 / sqrt(v + eps). mean(x^2) - mean(x)^2 is the variance of x. Nothing is guessed: a sum
that is not exactly of this form stays as it is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from smdlens.symmetry.model_graph import ModelGraph, Node, Ref, Shape
from smdlens.symmetry.norm_nodes import Emission
from smdlens.symmetry.products import (
    Factor,
    Product,
    Sum,
    added,
    is_near,
    multiplied,
    placed,
    quotient,
    reordered,
    reshaped,
    scaled,
    without,
)

_LARGEST_EPSILON = 1e-2  # beside a variance; the largest that frameworks use
Along = tuple[str, tuple[int, ...]]  # of which value, over which axes
_MOST_SUMMANDS = 7
# Names under which running statistics are shown; whether they move is asked of these.
_STATISTICS = ("running_mean", "running_var", "moving_mean", "moving_variance")
_RESHAPES = ("view", "reshape", "unsqueeze", "squeeze")


def with_norms(graph: ModelGraph, untrained: frozenset[str] = frozenset()) -> ModelGraph:
    """The same function with its normalisations as operators.

    Args:
        graph: A network.
        untrained: Parameters that the trainer leaves alone: a batch norm with one of these is
            frozen, and its statistics are constants.
    """
    finder = _Finder(graph, untrained)
    nodes = [made for node in graph.nodes for made in finder.rewritten(node)]
    return dataclasses.replace(graph, nodes=tuple(nodes))


class _Finder:
    """One pass over the nodes."""

    def __init__(self, graph: ModelGraph, untrained: frozenset[str]) -> None:
        self.shapes: dict[str, Shape] = {n: p.shape for n, p in graph.parameters.items()}
        self.shapes.update({n: c.shape for n, c in graph.constants.items()})
        self.statistics = {n for n, c in graph.constants.items() if c.name.endswith(_STATISTICS)}
        self.parameters = set(graph.parameters)
        self.untrained = untrained
        self.sums: dict[str, Sum] = {}
        self.named: dict[frozenset[tuple[Product, float]], str] = {}
        self.roots: dict[Factor, str] = {}  # 1 / sqrt(v + eps) -> v
        self.means: dict[str, Along] = {}
        self.variances: dict[str, Along] = {}
        self.spreads: dict[Factor, Along] = {}  # 1 / sqrt(variance of x + eps) -> x
        self.squares: dict[str, str] = {}

    def rewritten(self, node: Node) -> list[Node]:
        """The node, or what takes its place."""
        if node.listed or not node.shapes:
            return [node]
        self.shapes[node.name] = node.shapes[0]
        self._note(node)
        variance = self._variance(node)
        if variance is not None:
            self._note(variance)
            return [variance]
        found = self._sum(node)
        if found is None:
            return [node]
        made = next(self._norms(node, found), None)
        if made is not None:
            return made
        # A long sum is a value of its own: its norm has room for the mean and the shift beside it.
        if sum(not self._is_mean(product) for product in found) > _MOST_SUMMANDS:
            return [node]
        self.sums[node.name] = found
        self.named.setdefault(frozenset(found.items()), node.name)
        return [node]

    def _is_mean(self, product: Product) -> bool:
        return any(f.name in self.statistics or f.name in self.means for f in product)

    def _of(self, argument: object) -> Sum | None:
        """An argument as a sum of products."""
        if isinstance(argument, int | float):
            return {(): float(argument)} if argument else {}
        if not isinstance(argument, Ref) or argument.name not in self.shapes:
            return None
        name = argument.name
        return self.sums.get(name) or {(Factor(name, placed(self.shapes[name])),): 1.0}

    def _note(self, node: Node) -> None:
        """Remembers means, squares and roots of variances."""
        given = node.arguments
        source = given.get("self")
        if not isinstance(source, Ref):
            return
        axes, power = given.get("dim"), given.get("exponent")
        if node.op == "mean" and isinstance(axes, list):
            self.means[node.name] = (source.name, tuple(axes))
            self._note_variance(node.name, source.name, tuple(axes))
        if node.op == "var" and isinstance(axes, list):
            self.variances[node.name] = (source.name, tuple(axes))
        never_negative = node.op == "relu" or (node.op == "clamp" and "max" not in given)
        if never_negative and given.get("min", 0.0) == 0.0 and source.name in self.variances:
            self.variances[node.name] = self.variances[source.name]
        square = node.op == "square" or (node.op == "pow" and power == 2.0)
        if square or (node.op == "mul" and given.get("other") == source):
            self.squares[node.name] = source.name
        inverse = {"rsqrt": False, "sqrt": True}.get(node.op)
        if node.op == "pow" and power in (-0.5, 0.5):
            inverse = power == 0.5
        inner = dict(self._of(source) or {})
        epsilon = inner.pop((), 0.0)
        if inverse is None or len(inner) != 1 or not 0.0 <= epsilon <= _LARGEST_EPSILON:
            return
        (product, number), = inner.items()  # fmt: skip
        if number != 1.0 or len(product) != 1 or product[0].inverse:
            return
        root = Factor(node.name, placed(self.shapes[node.name]), inverse)
        if product[0].name in self.statistics:
            self.roots[root] = product[0].name
        elif product[0].name in self.variances:
            self.spreads[root] = self.variances[product[0].name]

    def _note_variance(self, name: str, squared: str, axes: tuple[int, ...]) -> None:
        """mean((x - mean(x))^2)."""
        whole = self.sums.get(self.squares.get(squared, ""), {})
        for product, number in whole.items():
            mean = self.means.get(product[0].name) if len(product) == 1 else None
            if mean is None or number not in (1.0, -1.0) or mean[1] != axes:
                continue
            rest = {p: n * -number for p, n in whole.items() if p != product}
            if rest == self._of(Ref(mean[0])):
                self.variances[name] = mean

    def _sum(self, node: Node) -> Sum | None:
        """The node's value as a sum of products; None where it is none."""
        given = node.arguments
        a = self._of(given.get("self"))
        if a is None:
            return None
        if node.op in ("add", "sub", "mul", "div"):
            b = self._of(given.get("other"))
            if b is None or given.get("alpha", 1) != 1 or given.get("rounding_mode") is not None:
                return None
            if node.op == "mul":
                return multiplied(a, b)
            if node.op == "div":
                return quotient(a, b)
            return added(a, scaled(b, -1.0) if node.op == "sub" else b)
        if node.op == "neg":
            return scaled(a, -1.0)
        source = given["self"]
        if node.op in _RESHAPES and isinstance(source, Ref):
            return reshaped(a, self.shapes[source.name], node.shapes[0])
        if node.op == "permute" and isinstance(order := given.get("dims"), list):
            return reordered(a, order)
        return a if node.op == "expand" else None

    def _variance(self, node: Node) -> Node | None:
        """mean(x^2) - mean(x)^2."""
        if node.op != "sub":
            return None
        first, second = node.arguments.get("self"), node.arguments.get("other")
        if not isinstance(first, Ref) or not isinstance(second, Ref):
            return None
        of_squares = self.means.get(first.name)
        mean = self.means.get(self.squares.get(second.name, ""))
        if of_squares is None or mean is None or of_squares[1] != mean[1]:
            return None
        source = mean[0]
        shape = node.shapes[0]
        if self.squares.get(of_squares[0]) != source or self.shapes[first.name] != shape:
            return None
        keep = len(shape) == len(self.shapes[source])
        arguments = {"self": Ref(source), "dim": list(mean[1]), "keepdim": keep}
        return dataclasses.replace(node, op="var", arguments=arguments)

    def _norms(self, node: Node, found: Sum) -> Iterator[list[Node]]:
        """Each way in which the sum is a normalisation."""
        for product, number in found.items():
            for factor in product:
                if factor.name in self.statistics:
                    yield from self._batch_norm(node, found, product, factor)
                elif factor.name in self.means:
                    yield from self._centred(node, found, product, factor, -number)

    def _batch_norm(
        self, node: Node, found: Sum, product: Product, mean: Factor
    ) -> Iterator[list[Node]]:
        """Where -m k r and x k r stand in the sum and r = 1 / sqrt(v + eps)."""
        for root in product:
            variance = self.roots.get(root._replace(place=placed(self.shapes[root.name])))
            around = without(product, (mean, root))
            if variance is None or around is None:
                continue
            if not self._is_statistic(mean, root, variance):
                continue
            scale = -found[product]
            group = {p: n for p, n in found.items() if p != product and root in p}
            inner = {without(p, (*around, root)): n / scale for p, n in group.items()}
            rest = {p: n for p, n in found.items() if p != product and root not in p}
            x = None if None in inner else self._node_of({p: n for p, n in inner.items() if p})
            if x is None or len(inner) != len([p for p in inner if p]):
                continue
            used = {f.name for p in (around, *rest) for f in p}
            if used & (self.untrained | self.statistics):
                continue  # frozen with its statistics, or something else altogether
            gain, shift = self._vector(mean, {around: scale}), self._vector(mean, rest)
            if gain is None and (around or scale != 1.0):
                shift = None  # what is left of the factors would scale it
            emission = Emission(node, self.shapes)
            if not emission.batch_norm(x, mean, variance, gain, shift):
                continue
            if gain is not None:
                around, scale = (), 1.0
            if shift is not None:
                rest = {}
            if emission.times(scale, around) and emission.plus(rest):
                yield emission.finished()

    def _vector(self, mean: Factor, only: Sum) -> str | None:
        """A trained vector that is all of a sum and lies as the mean does."""
        for product, number in only.items():
            if len(only) == len(product) == 1 and number == 1.0:
                factor = product[0]
                own = factor.name in self.parameters and factor.place == mean.place
                return factor.name if own and not factor.inverse else None
        return None

    def _is_statistic(self, mean: Factor, root: Factor, variance: str) -> bool:
        shape = self.shapes[mean.name]
        return (
            not mean.inverse
            and len([n for n in shape if n > 1]) == len(shape) == 1
            and mean.name != variance
            and self.shapes[variance] == shape
            and [at for at in root.place if at] == list(mean.place)
        )

    def _centred(
        self, node: Node, found: Sum, product: Product, mean: Factor, scale: float
    ) -> Iterator[list[Node]]:
        """Where x k and -mean(x) k stand in the sum."""
        source, axes = self.means[mean.name]
        around = without(product, (mean,))
        spread = next((f for f in around or () if self.spreads.get(f) == (source, axes)), None)
        if spread is None and node.op not in ("add", "sub"):
            return
        whole = self._of(Ref(source))
        if mean.inverse or around is None or whole is None or not scale:
            return
        if mean.place != placed(self.shapes[mean.name]) or len(mean.place) != len(
            self.shapes[source]
        ):
            return
        target = multiplied(whole, {around: scale})
        if target is None or not all(is_near(found.get(p), n) for p, n in target.items()):
            return
        rest = {p: n for p, n in found.items() if p != product and p not in target}
        if node.op == "sub" and not around and not rest:
            return  # it is written so
        emission = Emission(node, self.shapes)
        if spread is None:
            emission.difference(source, mean.name)
        else:
            emission.normalised(source, axes)
            around = without(around, (spread,)) or ()
        if emission.times(scale, around) and emission.plus(rest):
            yield emission.finished()

    def _node_of(self, wanted: Sum) -> str | None:
        """A value that is this sum."""
        if len(wanted) == 1:
            (product, number), = wanted.items()  # fmt: skip
            if len(product) == 1 and number == 1.0 and not product[0].inverse:
                only = product[0]
                if only.place == placed(self.shapes[only.name]):
                    return only.name
        return self.named.get(frozenset(wanted.items()))
