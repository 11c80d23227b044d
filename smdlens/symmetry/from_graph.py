"""Scale groups of a run from the network's graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from smdlens.errors import GraphError
from smdlens.snapshots.records import MEASURED_DTYPES, SnapshotSeries, TensorRef
from smdlens.symmetry.frozen import frozen_statistics
from smdlens.symmetry.match import matched_names
from smdlens.symmetry.model_graph import ModelGraph
from smdlens.symmetry.records import Evidence, NormBehind, ScaleGroups, TensorSymmetry
from smdlens.symmetry.scale_symmetry import ScaleSymmetry, symmetry_of_graph
from smdlens.vocabulary import EvidenceKind, Role

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def scale_groups_from_graph(series: SnapshotSeries, graph: ModelGraph) -> ScaleGroups:
    """Role of every parameter of a run by its place in the graph.

    Tensors of the file that are not in the graph are of role unknown.

    Raises:
        GraphError: No tensor of the run is in the graph.
    """
    tensors = series.snapshots[-1].tensors
    shapes = {p.name: p.shape for p in graph.parameters.values()}
    for parameter in graph.parameters.values():
        shapes.update(dict.fromkeys(parameter.aliases, parameter.shape))
    names = matched_names(shapes, {name: ref.shape for name, ref in tensors.items()})
    if not names:
        raise GraphError(
            "no tensor of the run is in the graph",
            expected=f"names and shapes such as {_example(shapes)}",
            found=_example({name: ref.shape for name, ref in tensors.items()}),
            remedy="Check that --model or --graph is the network of this run.",
        )
    to_file = {own: name for name, own in names.items()}
    rename = _renamer(to_file)
    back = {rename(c.name): c.name for c in graph.constants.values() if c.name}
    frozen = {back[name] for name in frozen_statistics(series) if name in back}
    symmetry = symmetry_of_graph(graph, frozen=frozen)
    found: dict[str, TensorSymmetry] = {}
    for name, ref in tensors.items():
        if ref.dtype not in MEASURED_DTYPES or name.rsplit(".", 1)[-1] in _STATISTICS:
            continue
        own = names.get(name)
        canonical = symmetry.aliases.get(own, own) if own is not None else None
        if canonical is None or canonical not in symmetry.tensors:
            found[name] = _unknown(name, ref)
        else:
            found[name] = _renamed(symmetry.tensors[canonical], name, ref, rename, names, symmetry)
    return ScaleGroups(found, source="graph")


def _renamer(to_file: Mapping[str, str]) -> Callable[[str], str]:
    """Graph name -> file name; buffers follow the parameters' prefixes."""
    own, name = next(iter(to_file.items()))
    cut = len(own)
    while cut and not name.endswith(own[len(own) - cut :]):
        cut -= 1
    removed, added = own[: len(own) - cut], name[: len(name) - cut]

    def rename(item: str) -> str:
        if item in to_file:
            return to_file[item]
        return added + item[len(removed) :] if item.startswith(removed) else item

    return rename


def _renamed(
    symmetry: TensorSymmetry,
    name: str,
    ref: TensorRef,
    rename: Callable[[str], str],
    names: Mapping[str, str],
    whole: ScaleSymmetry,
) -> TensorSymmetry:
    norm = symmetry.norm
    if norm is not None:
        norm = NormBehind(
            norm.kind,
            *(None if n is None else rename(n) for n in (norm.gamma, norm.beta, norm.running_var)),
        )
    first = _first_alias(name, names, whole)
    if first is not None:
        return dataclasses.replace(
            symmetry, name=name, dtype=ref.dtype, norm=norm, role=symmetry.role,
            evidence=(*symmetry.evidence, Evidence(EvidenceKind.GRAPH, f"tied to `{first}`")),
            joint_with=tuple(map(rename, symmetry.joint_with)),
        )  # fmt: skip
    return dataclasses.replace(
        symmetry,
        name=name,
        dtype=ref.dtype,
        norm=norm,
        joint_with=tuple(map(rename, symmetry.joint_with)),
    )


def _first_alias(name: str, names: Mapping[str, str], whole: ScaleSymmetry) -> str | None:
    own = names[name]
    return whole.aliases.get(own)


def _unknown(name: str, ref: TensorRef) -> TensorSymmetry:
    return TensorSymmetry(
        name=name,
        shape=ref.shape,
        dtype=ref.dtype,
        role=Role.UNKNOWN,
        granularity=None,
        axis=0 if ref.shape else None,
        groups=1,
        evidence=(Evidence(EvidenceKind.GRAPH, "not in the graph"),),
    )


def _example(shapes: Mapping[str, tuple[int, ...]]) -> str:
    shown = [f"{name} {'x'.join(map(str, shape))}" for name, shape in list(shapes.items())[:2]]
    return ", ".join(shown) if shown else "none"
