"""TorchScript's operators on tensors: nodes of the graph, with shapes that torch computes.

Shapes come from the operator itself on tensors without storage ("meta"), for operators of a list
of our own; nothing else is ever looked up by a name from a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from smdlens.errors import GraphError
from smdlens.symmetry.model_graph import Constant, Node, Parameter, Ref, Shape
from smdlens.symmetry.rules import RULES
from smdlens.symmetry.torchscript_values import DTYPES, Box, Device, boxes

_MOST_NODES = 200_000
_MOST_PIECES = 4096
# Smooth functions and others without a rule, which see every scale.
_WITHOUT_RULE = frozenset({
    "argsort", "histc", "bucketize", "searchsorted", "__and__", "__or__", "__xor__", "bitwise_xor",
    "logical_not",
    "gelu", "silu", "sigmoid", "tanh", "exp", "expm1", "log", "log1p", "log2", "log10", "erf",
    "erfc", "elu", "selu", "celu", "softplus", "softsign", "hardswish", "hardsigmoid", "mish",
    "glu", "log_sigmoid", "sin", "cos", "tan", "atan", "sinh", "cosh", "floor", "ceil", "round",
    "trunc", "frac", "logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or",
    "bitwise_not", "cumprod", "logsumexp", "lstm", "gru", "rnn_tanh", "rnn_relu", "remainder",
    "fmod", "floor_divide", "isfinite", "nan_to_num", "hardshrink", "softshrink", "tanhshrink",
    "threshold", "nll_loss", "scatter", "scatter_add", "index_add", "meshgrid", "one_hot", "any",
    "all", "masked_select", "movedim", "rot90", "bilinear", "cosine_similarity",
    "pairwise_distance",
    "cdist", "local_response_norm", "fold", "grid_sampler", "logit", "std_mean", "outer", "cross",
    "diff", "unfold", "col2im", "im2col", "adaptive_max_pool1d", "adaptive_max_pool3d",
})  # fmt: skip
_RENAMED = {"_convolution": "convolution", "_convolution_mode": "convolution"}
_NEVER = frozenset({"sym_size", "size", "is_pinned", "getitem", "fill", "copy"})
_VIEWS = frozenset({
    "view", "reshape", "slice", "select", "transpose", "permute", "expand", "squeeze", "unsqueeze",
    "split", "chunk", "unbind", "t", "flatten", "unflatten", "alias", "detach", "diagonal",
    "narrow", "view_as", "expand_as", "split_with_sizes", "movedim", "contiguous", "to", "unfold",
    "numpy_T", "tensor_split", "type_as", "reshape_as", "swapaxes", "dropout", "feature_dropout",
    "alpha_dropout", "float", "double", "half", "bfloat16", "cpu", "positive", "conj",
    "resolve_conj", "lift_fresh", "_to_copy", "broadcast_to", "real", "imag", "mT", "adjoint",
    "view_as_real", "view_as_complex",
})  # fmt: skip
_PIECES = ("unbind", "split", "chunk", "tensor_split", "split_with_sizes", "unsafe_split",
           "unsafe_chunk")  # fmt: skip


class Tensors:
    """The graph while the program is followed."""

    def __init__(self) -> None:
        self.parameters: dict[str, Parameter] = {}
        self.constants: dict[str, Constant] = {}
        self.nodes: list[Node] = []
        self.module = ""

    def leaf(self, name: str, shape: Shape, dtype: str, *, trained: bool = False) -> Box:
        """A parameter, or a buffer or constant."""
        kind = getattr(torch, dtype)
        meta = torch.empty(shape, dtype=kind, device="meta")
        trained = trained and meta.is_floating_point()
        key = name if trained else f"buffer:{name}"
        if trained:
            self.parameters.setdefault(key, Parameter(name, shape, dtype))
        else:
            self.constants.setdefault(key, Constant(name, shape))
        return Box(key, meta)

    def source(self, name: str, shape: Shape, dtype: str) -> Box:
        """An input."""
        key = f"input:{name}"
        self.constants[key] = Constant("", shape, is_input=True)
        return Box(key, torch.empty(shape, dtype=getattr(torch, dtype), device="meta"))

    def called(self, op: str, arguments: Sequence[Any], named: dict[str, Any]) -> Any:
        """The result of an operator.

        Raises:
            GraphError: It is not one that is read, or does not fit its arguments.
        """
        written = op.endswith("_") and not op.startswith("__")
        base = op.rstrip("_") if written else op
        known = (base in RULES or base in _WITHOUT_RULE or base in _RENAMED) and base not in _NEVER
        packet = getattr(torch.ops.aten, base, None) if known else None
        if packet is None:
            raise GraphError(
                f"the operator torch.{op} is not read",
                remedy="Export the model with torch.export, or name it with --model.",
            )
        if base in _PIECES and max(arguments[0].meta.shape, default=0) > _MOST_PIECES:
            raise GraphError("a tensor taken into too many pieces")
        result, names = _resolved(packet, arguments, named)
        given = dict(zip(names, arguments, strict=False)) | named
        made = self._noted(_RENAMED.get(base, base), given, result)
        if written and isinstance(arguments[0], Box) and isinstance(made, Box):
            first = arguments[0]
            first.used()
            first.written(made.name)
            first.meta = made.meta
            return first
        if base in _VIEWS and arguments and isinstance(arguments[0], Box):
            for box in boxes(made):
                box.view_of(arguments[0])
        return made

    def _noted(self, op: str, given: dict[str, Any], result: Any) -> Any:
        if len(self.nodes) > _MOST_NODES:
            raise GraphError("too many operators")
        arguments = {key: _argument(value) for key, value in given.items()}
        name = f"{self.module or 'model'}:{len(self.nodes)}"
        if isinstance(result, torch.Tensor):
            shape = tuple(int(n) for n in result.shape)
            floating = result.is_floating_point() or result.is_complex()
            self.nodes.append(Node(name, op, arguments, (shape,), self.module, floating))
            return Box(name, result)
        if not isinstance(result, tuple | list) or not all(
            isinstance(item, torch.Tensor) for item in result
        ):
            raise GraphError(f"torch.{op} gives no tensor")
        shapes = tuple(tuple(int(n) for n in item.shape) for item in result)
        whole = f"{name}!"
        self.nodes.append(Node(whole, op, arguments, shapes, self.module, True, True))
        made = []
        for at, item in enumerate(result):
            own = f"{name}.{at}"
            pick: dict[str, object] = {"self": Ref(whole), "index": at}
            self.nodes.append(Node(own, "getitem", pick, (shapes[at],), self.module))
            made.append(Box(own, item))
        return made if isinstance(result, list) else tuple(made)


def _argument(value: Any) -> object:
    if isinstance(value, Box):
        return Ref(value.used())
    if isinstance(value, list | tuple):
        return [_argument(item) for item in value]
    return None if isinstance(value, Device) else value


def _resolved(
    packet: Any, arguments: Sequence[Any], named: dict[str, Any]
) -> tuple[Any, list[str]]:
    """The result on tensors without storage, and the names of the positional arguments."""
    given = [_meta(value) for value in arguments]
    first: Exception | None = None
    for overload in sorted(packet.overloads(), key=lambda name: name != "default"):
        if "out" in overload:
            continue
        function = getattr(packet, overload)
        names = [argument.name for argument in function._schema.arguments]
        options = {key: _option(key, value) for key, value in named.items()}
        options = {key: value for key, value in options.items() if value is not None}
        if "device" in names and names.index("device") >= len(given):
            options["device"] = "meta"
        try:
            with torch.no_grad():
                return function(*given, **options), names
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError,
                AssertionError, KeyError) as error:  # fmt: skip
            first = first or error
    brief = str(first).strip().splitlines()
    raise GraphError(
        f"{packet} does not fit what it is given", found=brief[0][:200] if brief else None
    )


def _meta(value: Any) -> Any:
    if isinstance(value, Box):
        return value.meta
    if isinstance(value, list | tuple):
        return [_meta(item) for item in value]
    return torch.device("meta") if isinstance(value, Device) else value


def _option(key: str, value: Any) -> Any:
    if key == "dtype" and isinstance(value, int):
        return getattr(torch, DTYPES.get(value, "float32"))
    if key in ("device", "layout", "pin_memory"):
        return None
    return _meta(value)
