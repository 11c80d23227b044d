"""A graph while a front end writes it down: operators of our table, each with its shape.

Values are names of nodes or leaves, or arrays of known numbers (shapes, axes, epsilons) that need
no node. An operator that is asked for in a form that does not fit raises `NotTranslated`, and the
front end falls back on `Tape.unknown`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from smdlens.symmetry.keras_call import NotTranslated
from smdlens.symmetry.model_graph import Constant, ModelGraph, Node, Parameter, Ref, Shape

Known = NDArray[Any]
Operand = str | Known
_MOST_ELEMENTS = 1 << 40  # of one value: no real network comes near
_MOST_AXES = 16


class Tape:
    """Leaves and nodes so far."""

    def __init__(self) -> None:
        self.parameters: dict[str, Parameter] = {}
        self.constants: dict[str, Constant] = {}
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {}
        self.module = ""
        self._count = 0
        self._sums: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._means: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.exponents: dict[str, str] = {}  # exp(x) -> x
        self.logarithms: dict[str, str] = {}  # log(x) -> x
        self._peaks: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._differences: dict[str, tuple[str, str]] = {}
        self._expanded: dict[str, str] = {}
        self._turned: dict[tuple[str, tuple[int, ...]], str] = {}
        self._inverse_roots: dict[str, str] = {}
        self.stopped: dict[str, str] = {}  # result of a stopped gradient -> what it was

    def graph(self, outputs: Sequence[str], source: str) -> ModelGraph:
        """What was written."""
        return ModelGraph(
            self.parameters, self.constants, tuple(self.nodes), tuple(outputs), source
        )

    def parameter(self, name: str, shape: Shape, dtype: str, order: Sequence[int] = ()) -> str:
        """A trained tensor, with its axes as the network has them.

        Args:
            name: Its name in the file.
            shape: Its shape as the file's reader shows it.
            dtype: Its type.
            order: Axes of `shape` in the order in which the network uses them.
        """
        if name not in self.parameters:
            self.parameters[name] = Parameter(name, shape, dtype)
            self.shapes[name] = shape
        key = (name, tuple(order))
        if order and key not in self._turned:
            self._turned[key] = self.permute(name, order)
        return self._turned[key] if order else name

    def constant(self, name: str, shape: Shape, *, is_input: bool = False) -> str:
        """A tensor that is not trained."""
        key = f"{'input' if is_input else 'constant'}:{name}"
        self.constants[key] = Constant("" if is_input else name, checked(shape), is_input)
        self.shapes[key] = shape
        return key

    def shape(self, x: Operand) -> Shape:
        """Shape of a value."""
        return self.shapes[x] if isinstance(x, str) else x.shape

    def ref(self, x: Operand) -> object:
        """A value as an argument; one known number stays a number."""
        if isinstance(x, str):
            return Ref(x)
        number = single(x)
        return Ref(self.leaf(x)) if number is None else float(number)

    def leaf(self, x: Operand) -> str:
        """Name of a value; known numbers become a constant."""
        if isinstance(x, str):
            return x
        key = f"known:{len(self.constants)}"
        number = single(x)
        zero = not number if number is not None else x.dtype.kind in "fiub" and not bool(x.any())
        self.constants[key] = Constant("", checked(x.shape), is_zero=zero)
        self.shapes[key] = x.shape
        return key

    def node(
        self, op: str, arguments: Mapping[str, Any], shape: Shape, *, floating: bool = True
    ) -> str:
        """Add an operator; returns the name of its result."""
        name = f"{self.module or 'model'}:{self._count}"  # never given twice, not even after undo
        self._count += 1
        given = {key: value for key, value in arguments.items() if value is not None}
        self.nodes.append(Node(name, op, given, (checked(shape),), self.module, floating))
        self.shapes[name] = shape
        return name

    def undo(self, length: int) -> None:
        """Takes back the operators that were added since there were `length` of them."""
        gone = {node.name for node in self.nodes[length:]}
        del self.nodes[length:]
        self._turned = {key: name for key, name in self._turned.items() if name not in gone}

    def unknown(self, op: str, inputs: Sequence[Operand], shape: Shape) -> str:
        """A function of all its inputs that sees every scale."""
        used = [Ref(x) for x in inputs if isinstance(x, str)]
        return self.node(op, {"inputs": used}, shape)

    def alone(self, op: str, x: Operand, **more: Any) -> str:
        """An operator on one value that keeps its shape."""
        name = self.leaf(x)
        made = self.node(op, {"self": Ref(name), **more}, self.shape(x))
        if op == "rsqrt":
            self._inverse_roots[made] = name
        return made

    def binary(self, op: str, a: Operand, b: Operand) -> str:
        """An elementwise operator on two values."""
        number = self.ref(b)
        shape = broadcast(self.shape(a), self.shape(b))
        if op in ("div", "mul") and isinstance(number, float) and isinstance(a, str):
            whole = self._sums.get(a)
            if whole is not None and shape == self.shapes[a]:
                count = math.prod(self.shapes[whole[0]][axis] for axis in whole[1])
                if math.isclose(number, count if op == "div" else 1 / count, rel_tol=1e-5):
                    keep = len(shape) == len(self.shapes[whole[0]])
                    return self.reduce("mean", whole[0], whole[1], keep=keep)
        if op in ("maximum", "minimum"):
            for x, y in ((a, b), (b, a)):
                bound = self.ref(y) if not isinstance(y, str) else None
                if isinstance(bound, float) and isinstance(x, str) and self.shape(x) == shape:
                    source = self._inverse_roots.get(x) if op == "minimum" else None
                    if source is not None and bound > 1.0:  # 1 / max(root, eps), written as a bound
                        return self.alone("rsqrt", self.alone("clamp", source, min=bound**-2))
                    side = "min" if op == "maximum" else "max"
                    return self.alone("clamp", x, **{side: bound})
        made = self.node(op, {"self": self.ref(a), "other": number}, shape)
        if op == "sub" and isinstance(a, str) and isinstance(b, str):
            self._differences[made] = a, b
        return made

    def reduce(self, op: str, x: Operand, axes: Sequence[int], *, keep: bool) -> str:
        """A reduction over axes (counted from either end)."""
        own = self.shape(x)
        over = tuple(sorted({at % len(own) for at in axes})) if own else ()
        if any(not -len(own) <= at < len(own) for at in axes):
            raise NotTranslated
        name = self.leaf(x)
        if not over:
            return name
        shape = tuple(1 if at in over else n for at, n in enumerate(own) if keep or at not in over)
        arguments = {"self": Ref(name), "dim": list(over), "keepdim": keep}
        result = self.node(op, arguments, shape)
        known = {"sum": self._sums, "mean": self._means, "amax": self._peaks}.get(op)
        if known is not None:
            known[result] = name, over
        return result

    def mean_of(self, name: str) -> str | None:
        """What a value is the mean of."""
        return self._means.get(name, (None,))[0]

    def view(self, x: Operand, shape: Shape) -> str:
        """The same elements in another shape."""
        name, own = self.leaf(x), self.shape(x)
        if own == shape:
            return name
        if math.prod(own) != math.prod(shape) or len(shape) > _MOST_AXES:
            raise NotTranslated
        for table, op in (
            (self._means, "mean"), (self._sums, "sum"), (self._peaks, "amax"),
        ):  # fmt: skip
            if name in table:
                source, over = table[name]
                full = self.shapes[source]
                kept = tuple(1 if at in over else n for at, n in enumerate(full))
                if shape == kept:  # as if the axes had never been dropped
                    return self.reduce(op, source, over, keep=True)
        return self.node("view", {"self": Ref(name)}, shape)

    def permute(self, x: Operand, order: Sequence[int]) -> str:
        """Axes in another order."""
        name, own = self.leaf(x), self.shape(x)
        if sorted(order) != list(range(len(own))):
            raise NotTranslated
        if list(order) == sorted(order):
            return name
        arguments = {"self": Ref(name), "dims": list(order)}
        return self.node("permute", arguments, tuple(own[axis] for axis in order))

    def expand(self, x: Operand, shape: Shape) -> str:
        """Repeated to a larger shape."""
        name = self.leaf(x)
        if self.shape(x) == shape:
            return name
        if broadcast(self.shape(x), shape) != shape:
            raise NotTranslated
        made = self.node("expand", {"self": Ref(name)}, shape)
        self._expanded[made] = name
        return made

    def sum_of(self, name: str) -> tuple[str, tuple[int, ...]] | None:
        """What a value, or what was repeated to make it, is the sum of, with axes kept."""
        source = self._expanded.get(name, name)
        found = self._sums.get(source)
        return found if found and len(self.shapes[source]) == len(self.shapes[found[0]]) else None

    def logarithm_of(self, name: str) -> str | None:
        """x, where a value, or what was repeated to make it, is log(x)."""
        return self.logarithms.get(self._expanded.get(name, name))

    def without_peak(self, name: str, axes: tuple[int, ...]) -> str:
        """x, where a value is x - max(x) over axes; else the value itself."""
        whole, peak = self._differences.get(name, (name, ""))
        source = self._peaks.get(self._expanded.get(peak, peak))
        return whole if source == (whole, axes) else name

    def cat(self, parts: Sequence[Operand], axis: int) -> str:
        """One after the other."""
        shapes = [self.shape(part) for part in parts]
        axis = place(axis, len(shapes[0]))
        if any((*s[:axis], *s[axis + 1 :]) != (*shapes[0][:axis], *shapes[0][axis + 1 :])
               for s in shapes):  # fmt: skip
            raise NotTranslated
        shape = (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])
        tensors = [Ref(self.leaf(part)) for part in parts]
        return self.node("cat", {"tensors": tensors, "dim": axis}, shape)

    def slice(self, x: Operand, axis: int, start: int, end: int, step: int = 1) -> str:
        """A range of positions along one axis."""
        own = self.shape(x)
        axis = place(axis, len(own))
        length = len(range(own[axis])[start:end:step]) if step > 0 else -1
        if length < 0:
            raise NotTranslated
        if length == own[axis]:
            return self.leaf(x)
        low, high, _ = slice(start, end, step).indices(own[axis])
        shape = (*own[:axis], length, *own[axis + 1 :])
        arguments = {
            "self": Ref(self.leaf(x)), "dim": axis, "start": low, "end": high, "step": step,
        }  # fmt: skip
        return self.node("slice", arguments, shape)


def single(x: Known) -> float | int | bool | None:
    """The number that stands in all places; None where there are several."""
    if x.size == 0 or x.dtype.kind not in "fiub" or (x.size > 1 and any(x.strides)):
        return None
    found: float | int | bool = x.flat[0].item()
    return found


def checked(shape: Shape) -> Shape:
    """The shape; ValueError where it is none that a network could have."""
    if len(shape) > _MOST_AXES or any(n < 0 for n in shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError("an impossible shape")
    return shape


def broadcast(a: Shape, b: Shape) -> Shape:
    """Shape of two values together."""
    rank = max(len(a), len(b))
    wide = [(1,) * (rank - len(s)) + s for s in (a, b)]
    if any(m != n and 1 not in (m, n) for m, n in zip(*wide, strict=True)):
        raise NotTranslated
    return tuple(n if m == 1 else m for m, n in zip(*wide, strict=True))


def place(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < rank:
        raise NotTranslated
    return axis % rank
