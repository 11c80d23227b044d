"""What a picture of a network shows: operators that matter, repeated blocks as one place each.

Left out are operators that only move data and what no parameter enters (masks, positions); their
readers are joined to what they read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smdlens.report.scale_graph.blocks import Repeat, hidden_by, repeats
from smdlens.symmetry.scale_symmetry import FlowNode, ScaleSymmetry
from smdlens.vocabulary import Role

_MOVES = frozenset({
    "view", "reshape", "permute", "transpose", "t", "expand", "contiguous", "clone", "to",
    "_to_copy", "alias", "unsqueeze", "squeeze", "slice", "select", "getitem", "dropout", "flatten",
    "unflatten", "split", "chunk", "unbind", "split_with_sizes", "expand_as", "type_as", "detach",
    "_unsafe_view", "_assert_tensor_metadata", "movedim", "numpy_T", "dropout_", "feature_dropout",
})  # fmt: skip
_ENDS_HERE = (
    Role.SCALE_INVARIANT,
    Role.PARTLY_SCALE_INVARIANT,
    Role.JOINTLY_SCALE_INVARIANT,
    Role.IRRELEVANT,
)


@dataclass(frozen=True, slots=True)
class Place:
    """One operator, or all repeats of a block.

    Attributes:
        name: Of its result; unique.
        op: Operator; empty for repeats.
        module: Path of its module, or what the repeats are.
        parameters: Tensors that it reads.
        inputs: Places it reads.
        carries: Whether its result grows when some tensor is scaled.
        ends: Invariant tensors whose scale comes in and does not go out.
    """

    name: str
    op: str
    module: str
    parameters: tuple[str, ...]
    inputs: tuple[str, ...]
    carries: bool
    ends: tuple[str, ...]


def places(symmetry: ScaleSymmetry) -> tuple[Place, ...]:
    """What to draw, in order of execution."""
    blocks = repeats(symmetry)
    nodes = {node.name: node for node in symmetry.flow}
    shown: dict[str, Place] = {}
    stands_for: dict[str, tuple[str, ...]] = {}  # value -> places that a reader is joined to
    for node in symmetry.flow:
        parameters = tuple(name for name in node.inputs if name in symmetry.tensors)
        sources = _joined(stands_for.get(name, ()) for name in node.inputs)
        repeat = _repeat_of(blocks, node, parameters)
        if repeat is not None:
            key = f"repeat {repeat.first}"
            before = shown.get(key)
            inputs = tuple(name for name in sources if name != key)
            if before is None:
                label = f"{repeat.label}, like {repeat.first}"
                shown[key] = Place(key, "", label, (), inputs, bool(node.carries), ())
            elif node.carries and not before.carries:
                shown[key] = Place(key, "", before.module, (), before.inputs, True, ())
            stands_for[node.name] = (key,)
        elif not parameters and (not sources or (node.op in _MOVES and len(sources) == 1)):
            stands_for[node.name] = sources
        else:
            shown[node.name] = Place(
                node.name, op_label(node.op), node.module, parameters, sources, bool(node.carries),
                _ends(node, nodes, symmetry),
            )  # fmt: skip
            stands_for[node.name] = (node.name,)
    return tuple(shown.values())


def _joined(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


def _repeat_of(
    blocks: tuple[Repeat, ...], node: FlowNode, parameters: tuple[str, ...]
) -> Repeat | None:
    """The repeat an operator belongs to: by its module, or by the parameter it reads."""
    for name in (node.module, *parameters):
        if name and (found := hidden_by(blocks, name)) is not None:
            return found
    return None


def _ends(node: FlowNode, nodes: dict[str, FlowNode], symmetry: ScaleSymmetry) -> tuple[str, ...]:
    coming = _joined(
        (name,) if name in symmetry.tensors else nodes[name].carries
        for name in node.inputs
        if name in nodes or name in symmetry.tensors
    )
    left = set(node.carries)

    def ends(name: str) -> bool:
        # What carries the scale of one member of a jointly invariant set stands for all of it.
        tensor = symmetry.tensors[name]
        return tensor.role in _ENDS_HERE and left.isdisjoint((name, *tensor.joint_with))

    return tuple(name for name in coming if ends(name))


def op_label(op: str) -> str:
    """`batch_norm` for `_native_batch_norm_legit_no_training`."""
    for word in ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"):
        if word in op:
            return word
    return op.strip("_")


def shortened(names: tuple[str, ...], most: int = 2) -> str:
    """The first names and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
