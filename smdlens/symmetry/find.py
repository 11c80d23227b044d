"""The door of the room: which tensors of a run live on a sphere, and who says so."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from smdlens.errors import GraphError, NothingToAnalyseError
from smdlens.snapshots.records import Snapshot, SnapshotSeries
from smdlens.symmetry.from_names import scale_groups_from_names
from smdlens.symmetry.model_graph import ModelGraph
from smdlens.symmetry.records import Evidence, ScaleGroups
from smdlens.vocabulary import EvidenceKind
from smdlens.wording import count_of


def find_scale_groups(
    series: SnapshotSeries,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    model: Any = None,
    inputs: Sequence[object] | None = None,
    input_fn: str | Callable[[], object] | None = None,
    graph: str | os.PathLike[str] | None = None,
    model_optional: bool = False,
) -> ScaleGroups:
    """Scale groups of the tensors that every snapshot of the run holds.

    Args:
        series: The run; names and shapes of its last snapshot decide.
        include: Globs; when given, only tensors that match one are analysed.
        exclude: Globs of tensors to leave out.
        model: "PKG.MOD:FACTORY", a factory or a torch module; its code is imported and run.
        inputs: Shapes or arguments for one call of the model.
        input_fn: "PKG.MOD:FUNC" or a function that gives (args, kwargs).
        graph: A file that holds the network, read without running anything.
        model_optional: Go on from names where the graph cannot be had.

    Raises:
        GraphError: The graph cannot be had (unless `model_optional`).
        NothingToAnalyseError: No tensor is left.
    """
    last = series.snapshots[-1].tensors
    groups = _groups(series, model, inputs, input_fn, graph, model_optional)
    allowed = {
        name: symmetry
        for name, symmetry in groups.tensors.items()
        if not any(fnmatchcase(name, glob) for glob in exclude)
    }
    kept = {
        name: symmetry
        for name, symmetry in allowed.items()
        if not include or any(fnmatchcase(name, glob) for glob in include)
    }
    if not kept:
        raise NothingToAnalyseError(
            "no tensor is left to analyse",
            subject=series.path,
            expected="at least one floating-point weight",
            found=f"{count_of(len(groups.tensors), 'tensor')} before --include and --exclude"
            if groups.tensors
            else f"{count_of(len(last), 'tensor')}, none of a floating-point dtype",
            remedy="Check --include and --exclude, or choose another weight tree with --weights.",
        )
    witnesses = {n: s for n, s in allowed.items() if s.clock and n not in kept}
    return dataclasses.replace(groups, tensors=kept, witnesses=witnesses)


def _described(snapshot: Snapshot, inputs: Sequence[object] | None) -> ModelGraph:
    """The graph in a checkpoint that describes its own network."""
    from smdlens.symmetry.graph_files import program_of

    if (found := program_of(snapshot.format, Path(snapshot.network or ""), inputs)) is not None:
        return found
    from smdlens.symmetry.from_keras import graph_of_keras
    from smdlens.symmetry.from_mxnet import graph_of_mxnet

    if snapshot.format == "tensorflow-saved-model":
        from smdlens.symmetry.from_saved_model import read_saved_model

        return read_saved_model(Path(snapshot.network or "").parent, snapshot.tensors)
    shapes = {name: ref.shape for name, ref in snapshot.tensors.items()}
    read = graph_of_mxnet if snapshot.format == "mxnet" else graph_of_keras
    return read(snapshot.network or "", shapes, snapshot.files[0])


def _with_names_of(graph: ModelGraph, snapshot: Snapshot) -> ModelGraph:
    """The graph with the checkpoint's names, where the two are told apart by a table in it."""
    from smdlens.snapshots.paddle import NAMES
    from smdlens.symmetry.from_paddle import with_file_names

    names = snapshot.scalars.get(NAMES)
    if graph.source != "paddle" or not isinstance(names, Mapping):
        return graph
    return with_file_names(graph, {str(own): str(name) for own, name in names.items()})


def _groups(
    series: SnapshotSeries,
    model: Any,
    inputs: Sequence[object] | None,
    input_fn: str | Callable[[], object] | None,
    graph: str | os.PathLike[str] | None,
    optional: bool,
) -> ScaleGroups:
    by_name = scale_groups_from_names
    last = series.snapshots[-1]
    if model is None and graph is None and last.network is None:
        return by_name(last.tensors)
    from smdlens.symmetry.from_graph import scale_groups_from_graph
    from smdlens.symmetry.graph_files import load_graph
    from smdlens.symmetry.loading import graph_of, load_inputs

    try:
        if graph is not None:
            found = _with_names_of(load_graph(graph, inputs), last)
        elif model is None:
            found = _described(last, inputs)
        else:
            args, kwargs = load_inputs(inputs, input_fn)
            found = graph_of(model, args, kwargs)
        return scale_groups_from_graph(series, found)
    except GraphError as error:
        if not (optional or (model is None and graph is None)):
            raise
        note = Evidence(EvidenceKind.NAMES, f"no graph: {error.message}")
        groups = by_name(series.snapshots[-1].tensors)
        return dataclasses.replace(
            groups,
            tensors={
                name: dataclasses.replace(s, evidence=(*s.evidence, note))
                for name, s in groups.tensors.items()
            },
        )
