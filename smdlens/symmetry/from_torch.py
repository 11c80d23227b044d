"""torch.export -> `ModelGraph`. Importing and tracing a model runs the user's own code."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from smdlens.errors import GraphError
from smdlens.symmetry.model_graph import Constant, ModelGraph, Node, Parameter, Ref, Shape

# Outputs that are memory between calls, not something a loss is computed from.
_NO_LOSS = ("past_key_values", "cache", "mems")


def graph_of_module(
    model: nn.Module, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None
) -> ModelGraph:
    """Traces a module in eval form with `torch.export` and translates the graph.

    Args:
        model: The network; its mode is restored afterwards.
        args: Positional inputs, as for a call of the model.
        kwargs: Keyword inputs.

    Raises:
        GraphError: The model cannot be traced, or gives no tensor.
    """
    if not isinstance(model, nn.Module):
        raise GraphError(
            "this is no model", expected="a torch.nn.Module", found=type(model).__name__
        )
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with _uncached(model):
            program = _exported(model, tuple(args), dict(kwargs or {}))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return graph_of_program(program, _aliases(model))


def _exported(model: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
    """Traces with a batch of at least two: a batch of one hides what depends on the sample."""
    attempts = [(_doubled(args), _doubled(kwargs)), (args, kwargs)]
    if attempts[0][0] is args and attempts[0][1] is kwargs:
        attempts = attempts[1:]
    failure: Exception | None = None
    for some_args, some_kwargs in attempts:
        try:
            with warnings.catch_warnings(), torch.no_grad(), _quiet():
                warnings.simplefilter("ignore")
                program = torch.export.export(model, some_args, some_kwargs, strict=False)
                return _functional(program)
        except Exception as error:
            failure = error
    raise GraphError(
        f"the model cannot be traced: {_first_line(failure)}",
        subject=type(model).__name__,
        expected="a forward that torch.export can follow (strict=False) on the given inputs",
        remedy="Check --input or --input-fn; data-dependent control flow has no graph. "
        "`smdlens analyze --model-optional` goes on from names.",
    ) from failure


@contextmanager
def _uncached(model: nn.Module) -> Iterator[None]:
    """Hugging Face's models return their key-value cache, a type that torch.export cannot name."""
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    asked = [c for c in configs.values() if getattr(c, "use_cache", None) is True]
    try:
        for config in asked:
            config.use_cache = False
        yield
    finally:
        for config in asked:
            config.use_cache = True


@contextmanager
def _quiet() -> Iterator[None]:
    """Whatever fails is told in our words; torch logs pages about it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _functional(program: Any) -> Any:
    """The program without writes into views, which would hide dependences.

    Where torch fails to rewrite it (buffers that are one tensor) it may have none to begin with.
    """
    try:
        return program.run_decompositions({})
    except KeyError:
        schemas = [getattr(node.target, "_schema", None) for node in program.graph.nodes]
        if any(schema is not None and schema.is_mutable for schema in schemas):
            raise
        return program


def _first_line(error: BaseException | None) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


def _doubled(inputs: Any) -> Any:
    """The inputs with a batch of two where all of them have a batch of one."""
    leaves, spec = torch.utils._pytree.tree_flatten(inputs)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if not tensors or any(t.dim() == 0 or t.shape[0] != 1 for t in tensors):
        return inputs
    twice = [torch.cat([x, x]) if isinstance(x, torch.Tensor) else x for x in leaves]
    return torch.utils._pytree.tree_unflatten(twice, spec)


def _aliases(model: nn.Module) -> dict[str, str]:
    """Name of each parameter -> first name of the same tensor (or of the same storage)."""
    first: dict[object, str] = {}
    names: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        key: object = id(parameter)
        if parameter.device.type != "meta" and parameter.numel():
            key = (parameter.data_ptr(), tuple(parameter.shape), parameter.stride())
        names[name] = first.setdefault(key, name)
    return names


def graph_of_program(program: Any, aliases: Mapping[str, str] | None = None) -> ModelGraph:
    """Translates an exported program."""
    signature = program.graph_signature
    aliases = aliases or {}
    parameters: dict[str, Parameter] = {}
    constants: dict[str, Constant] = {}
    nodes: list[Node] = []
    outputs: tuple[str, ...] = ()
    user_inputs = set(signature.user_inputs)
    same = _further_names(aliases)
    unsized: set[str] = set()
    for node in program.graph.nodes:
        if node.op == "placeholder":
            shape = _shape(node.meta.get("val"))
            if node.name in signature.inputs_to_parameters:
                target = signature.inputs_to_parameters[node.name]
                name = aliases.get(target, target)
                dtype = str(node.meta["val"].dtype).removeprefix("torch.")
                parameters[node.name] = Parameter(name, shape, dtype, same.get(name, ()))
            else:
                buffer = signature.inputs_to_buffers.get(node.name, "")
                constants[node.name] = Constant(buffer, shape, node.name in user_inputs)
        elif node.op == "call_function":
            nodes.append(_translated(node, unsized))
        elif node.op == "get_attr":
            constants[node.name] = Constant(str(node.target), _shape(node.meta.get("val")))
        elif node.op == "output":
            outputs = _loss_outputs(program, node)
    if not outputs:
        raise GraphError(
            "the model gives no floating-point tensor",
            expected="a tensor, or a tuple or dict of tensors",
            remedy="Wrap the model so that its forward returns what the loss is computed from.",
        )
    return ModelGraph(parameters, constants, tuple(nodes), outputs, "torch.export")


def _further_names(aliases: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    further: dict[str, tuple[str, ...]] = {}
    for name, first in aliases.items():
        if name != first:
            further[first] = (*further.get(first, ()), name)
    return further


def _loss_outputs(program: Any, node: fx.Node) -> tuple[str, ...]:
    """Floating outputs, without caches; with a loss among them nothing but the loss."""
    flat: list[object] = list(node.args[0])  # type: ignore[arg-type]
    user = set(program.graph_signature.user_outputs)
    paths = _output_paths(program, len([x for x in flat if _name(x) in user or x is None]))
    names: list[tuple[str, str]] = []
    at = 0
    for item in flat:
        if isinstance(item, fx.Node) and item.name not in user:
            continue
        path = paths[at] if at < len(paths) else ""
        at += 1
        if isinstance(item, fx.Node) and _is_floating(item.meta.get("val")):
            names.append((path, item.name))
    losses = [name for path, name in names if path == "['loss']" or path == "loss"]
    if losses:
        return tuple(losses)
    return tuple(
        dict.fromkeys(n for path, n in names if not any(word in path for word in _NO_LOSS))
    )


def _output_paths(program: Any, count: int) -> list[str]:
    """Path of each flat output in what the model returned."""
    try:
        spec = program.call_spec.out_spec
        tree = torch.utils._pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
        leaves, _ = torch.utils._pytree.tree_flatten_with_path(tree)
        return [torch.utils._pytree.keystr(path) for path, _ in leaves]
    except Exception:
        return [""] * count


def _name(item: object) -> str:
    return item.name if isinstance(item, fx.Node) else ""


def _shape(value: object) -> Shape:
    """Sizes; -1 where only the data decides."""
    return tuple(map(_size, value.shape)) if isinstance(value, torch.Tensor) else ()


def _size(size: Any) -> int:
    try:
        return int(size)
    except RuntimeError:
        return -1


def _is_floating(value: object) -> bool:
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def _translated(node: fx.Node, unsized: set[str]) -> Node:
    """One node; what is or reads a value without a size of its own is left without a rule.

    Args:
        node: A call of an operator.
        unsized: Names of such values, to which this one may be added.
    """
    value = node.meta.get("val")
    listed = isinstance(value, list | tuple)
    items: list[object] = list(value) if isinstance(value, list | tuple) else [value]
    target = node.target
    schema = getattr(target, "_schema", None)
    if schema is not None:
        op = schema.name.removeprefix("aten::").replace("::", ".")
        names = [argument.name for argument in schema.arguments]
    else:
        op = getattr(target, "__name__", str(target))
        names = ["self", "index"] if op == "getitem" else []
        if op != "getitem":  # Python's own `add` and `mul`, of sizes
            op = f"python.{op}"
    names += [f"argument{at}" for at in range(len(names), len(node.args))]
    arguments = {name: _plain(item) for name, item in zip(names, node.args, strict=False)}
    arguments.update({name: _plain(item) for name, item in node.kwargs.items()})
    shapes = tuple(_shape(item) for item in items)
    sizeless = any(-1 in shape for shape in shapes)
    if sizeless:
        unsized.add(node.name)
    if sizeless or any(source.name in unsized for source in node.all_input_nodes):
        op = f"{op} on sizes known only from the data"
    return Node(
        name=node.name,
        op=op,
        arguments=arguments,
        shapes=tuple(tuple(1 if size < 0 else size for size in shape) for shape in shapes),
        module=_module_path(node),
        floating=_is_floating(items[0]) if not listed else True,
        listed=listed,
    )


def _plain(item: object) -> object:
    if isinstance(item, fx.Node):
        return Ref(item.name)
    if isinstance(item, list | tuple):
        return [_plain(inner) for inner in item]
    if item is None or isinstance(item, bool | int | float | str):
        return item
    return str(item)


def _module_path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = next(reversed(stack.values()))[0]
    return path if isinstance(path, str) else ""
