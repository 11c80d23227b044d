"""The graph of objects that TensorFlow saves beside variables: who holds which variable.

Message numbers from tensorflow/core/protobuf/trackable_object_graph.proto.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from smdlens.containers.protobuf import fields, raw, text, whole

_CHILDREN, _ATTRIBUTES = 1, 2
# Lists of variables, and objects that hold a model's variables once more.
_COPIES = frozenset(
    {"_trainable_variables", "_variables", "_all_variables", "variables", "trainable_variables",
     "non_trainable_variables", "optimizer", "_optimizer", "keras_api", "signatures"}
)  # fmt: skip
_TRAINED = "_trainable_variables"
# Lists of an optimizer of Keras 3, in the order of the variables it trains.
_SLOT_LISTS = {"momentums": "momentum", "_momentums": "momentum", "_velocities": "velocity",
               "_velocity_hats": "velocity_hat"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """An object: its children by name, and the key and own name of the variable it is."""

    children: Mapping[str, int]
    key: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class ObjectGraph:
    """All objects, the root first; `places` are their numbers by the key of a variable."""

    nodes: Sequence[Node] = ()
    places: Mapping[str, int] = field(default_factory=dict)

    def name(self, key: str) -> str:
        """A variable's own name, "" where it is not in the graph."""
        return self.nodes[self.places[key]].name if key in self.places else ""

    def paths(self) -> dict[str, tuple[str, ...]]:
        """The shortest way of attributes from the root to each variable of a model, by key."""
        found: dict[str, tuple[str, ...]] = {}
        seen = {0}
        pending: deque[tuple[int, tuple[str, ...]]] = deque([(0, ())] if self.nodes else [])
        while pending:
            number, path = pending.popleft()
            node = self.nodes[number]
            if node.key:
                found[node.key] = path
            for name, child in node.children.items():
                if name not in _COPIES and child < len(self.nodes) and child not in seen:
                    seen.add(child)
                    pending.append((child, (*path, name)))
        return found

    def slots(self) -> list[tuple[str, str, str]]:
        """(key of a weight, name of a slot, key of the slot) where an optimizer lists both."""
        found = []
        for node in self.nodes:
            trained = self._listed(node, _TRAINED)
            for name, slot in _SLOT_LISTS.items():
                held = self._listed(node, name)
                if trained and len(held) == len(trained):
                    found += [(w, slot, s) for w, s in zip(trained, held, strict=True) if w and s]
        return found

    def kind(self) -> str:
        """The family of the one optimizer by the lists it keeps: "sgd", "lion", "adam" or "".

        Adam's and AdamW's are the same; RMSprop's have other names, Nadam's a product beside them.
        """
        kinds = set()
        for node in self.nodes:
            held = node.children.keys()
            if "_iterations" not in held or "_u_product" in held:
                continue
            first = next(iter(self._listed(node, "_momentums")), "")
            if "momentums" in held:
                kinds.add("sgd")
            elif "_velocities" in held and self.name(first).startswith("m/"):
                kinds.add("adam")
            elif "_momentums" in held and "_velocities" not in held:
                kinds.add("lion")
        return kinds.pop() if len(kinds) == 1 else ""

    def _listed(self, node: Node, name: str) -> list[str]:
        """Keys of the variables of a list that a node holds under a name."""
        place = node.children.get(name)
        if place is None or place >= len(self.nodes):
            return []
        items = self.nodes[place].children
        numbers = [items.get(str(number), len(self.nodes)) for number in range(len(items))]
        return [self.nodes[n].key if n < len(self.nodes) else "" for n in numbers]


def parse_graph(data: bytes) -> ObjectGraph:
    """The graph from its message; raises ProtobufError."""
    nodes = [_node(raw(item)) for number, item in fields(data) if number == 1]
    return ObjectGraph(nodes, {n.key: place for place, n in enumerate(nodes) if n.key})


def _node(data: bytes) -> Node:
    children: dict[str, int] = {}
    key = name = ""
    for number, item in fields(data):
        if number == _CHILDREN:
            child = dict(fields(raw(item)))
            children[text(child.get(2, b""))] = whole(child.get(1, 0))
        elif number == _ATTRIBUTES:
            named = {n: text(v) for n, v in fields(raw(item)) if n in (2, 3)}
            if 3 in named:
                key, name = named[3], named.get(2, "")
    return Node(children, key, name)
