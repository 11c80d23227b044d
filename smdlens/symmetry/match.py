"""Names of a graph <-> names in a file: the one place that brings them together."""

from __future__ import annotations

from collections.abc import Mapping

Shape = tuple[int, ...]
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")


def matched_names(graph: Mapping[str, Shape], file: Mapping[str, Shape]) -> dict[str, str]:
    """File name -> graph name, for tensors whose shapes agree.

    The prefix that fits most tensors is added to, or taken off, all graph names; a file may hold
    the network as a part of something larger and the other way round.

    Args:
        graph: Names and shapes of the graph's parameters (tied ones under each name).
        file: Names and shapes of the file's tensors.
    """
    best: dict[str, str] = {}
    for added, removed in _prefixes(graph, file):
        found: dict[str, str] = {}
        for name, shape in graph.items():
            if not name.startswith(removed):
                continue
            own = added + name[len(removed) :]
            if file.get(own) == shape:
                found[own] = name
        if len(found) > len(best):
            best = found
    return best


def _prefixes(graph: Mapping[str, Shape], file: Mapping[str, Shape]) -> list[tuple[str, str]]:
    """(prefix to add, prefix to take off), the most likely first."""
    pairs = [("", "")]
    pairs += [(prefix, "") for prefix in _leading(file, graph)]
    pairs += [("", prefix) for prefix in _leading(graph, file)]
    pairs += [(prefix, "") for prefix in _WRAPPERS] + [("", prefix) for prefix in _WRAPPERS]
    return list(dict.fromkeys(pairs))


def _leading(longer: Mapping[str, Shape], shorter: Mapping[str, Shape]) -> list[str]:
    """Prefixes that, put in front of the first names of one side, give names of the other."""
    found: dict[str, None] = {}
    for name in list(shorter)[:3]:
        for other in longer:
            if other.endswith(f".{name}"):
                found.setdefault(other[: -len(name)])
                if len(found) > 20:
                    return list(found)
    return list(found)
