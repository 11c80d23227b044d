"""One network measured against rescaling: what the graph says, what the names say, how long.

`held_out.py` adds the records up; `assert_agrees` is what the tests ask of one.
"""

import time

import numpy as np
import torch
from rescaling_oracle import THRESHOLD, Oracle

from smdlens.snapshots.records import Extent, TensorRef
from smdlens.symmetry.from_names import scale_groups_from_names
from smdlens.symmetry.from_torch import graph_of_module
from smdlens.symmetry.scale_symmetry import symmetry_of_graph
from smdlens.symmetry.solve import solve
from smdlens.vocabulary import Role

ALONE = (Role.SCALE_INVARIANT, Role.IRRELEVANT)
EULER = 1e-10


def measured(model, inputs, options):
    """A record of one network (a dict of numbers and lists of names)."""
    oracle = Oracle(model, inputs, options)
    assert all(bool(torch.isfinite(base).all()) for base in oracle.base), "outputs not finite"
    invariant = {name for name in oracle.names() if oracle.is_invariant(name)}
    irrelevant = {name for name in invariant if oracle.is_irrelevant(name)}
    rows = oracle.euler()
    record = {
        "tensors": len(oracle.names()),
        "relevant": len(invariant - irrelevant),
        "irrelevant": len(irrelevant),
        # Where gradients pass no detach, both tests must agree.
        "euler_disagrees": sorted(
            name
            for name in invariant
            if name in rows and float(rows[name][0].sum(1).abs().max()) > 1e-8
        ),
        **_names(model, invariant, irrelevant),
    }
    try:
        start = time.process_time()
        graph = graph_of_module(model, inputs, options)
        traced = time.process_time()
        symmetry = symmetry_of_graph(graph)
        record |= {"trace_s": traced - start, "solve_s": time.process_time() - traced}
    except Exception as error:
        return record | {"untraced": f"{type(error).__name__}: {str(error)[:200]}"}
    assert set(symmetry.tensors) == set(oracle.names())
    roles = {name: tensor.role for name, tensor in symmetry.tensors.items()}
    alone = {name for name, role in roles.items() if role in ALONE}
    called = {name for name, role in roles.items() if role == Role.IRRELEVANT}
    record |= {
        "false": sorted((alone - invariant) | (called - irrelevant)),
        "missed": sorted(invariant - irrelevant - alone),
        "irrelevant_found": len(irrelevant & called),
        "irrelevant_missed": sorted(irrelevant - called),
        "partly": sum(role == Role.PARTLY_SCALE_INVARIANT for role in roles.values()),
        "jointly": sum(role == Role.JOINTLY_SCALE_INVARIANT for role in roles.values()),
        "basis": len(symmetry.basis),
        "unsound": [
            {name: str(e) for name, e in vector.items()}
            for vector in symmetry.basis
            if oracle.change({n: _power(float(e)) for n, e in vector.items()}) > THRESHOLD
        ],
    }
    return record | _pieces(oracle, graph, symmetry, rows)


def assert_agrees(record, missed=()):
    """No false positive at any level, every vector sound, nothing missed but what is listed."""
    assert "untraced" not in record, record["untraced"]
    assert not record["false"] and not record["false_pieces"] and not record["unsound"], record
    assert set(record["missed"]) <= set(missed), record["missed"]


def _power(exponent):
    return lambda w: w * 1.7**exponent


def _pieces(oracle, graph, symmetry, rows):
    """Channel level: pieces claimed and those that may not be scaled apart; pieces not found."""
    solution = solve(graph)
    claimed, false, per_channel, coarse = 0, [], 0, []
    partly = []
    for name, tensor in symmetry.tensors.items():
        free = _free(rows, tensor)
        known = tensor.role in (*ALONE, Role.PARTLY_SCALE_INVARIANT)
        if not known and len(tensor.shape) > 1 and bool(free.any()):
            partly.append(name)
    rng = np.random.default_rng(0)
    for at, pieces in solution.channels.items():
        tensor = symmetry.tensors[solution.parameters[at].name]
        if not tensor.shape or (pieces.classes < 0).all():
            continue
        factors = _factors(pieces.classes, rng)
        claimed += len(np.unique(pieces.classes[pieces.classes >= 0]))
        if not oracle.keeps(tensor.name, pieces.axis, factors):
            false.append(tensor.name)
        if tensor.parts and not oracle.keeps(tensor.name, tensor.axis, _of_parts(tensor)):
            false.append(f"parts of {tensor.name}")
        free = _free(rows, tensor)
        if tensor.role == Role.SCALE_INVARIANT and pieces.axis == 0 and bool(free.all()):
            per_channel += 1
            if len(np.unique(pieces.classes)) < tensor.shape[0]:
                coarse.append(tensor.name)
    for members in solution.joint_channels.values():
        factor = {}
        scalings = {}
        for at, pieces in members.items():
            for label in np.unique(pieces.classes[pieces.classes >= 0]).tolist():
                factor.setdefault(label, rng.uniform(0.5, 2.0))
            factors = [factor.get(label, 1.0) for label in pieces.classes.tolist()]
            if solution.parameters[at].shape:
                scalings[solution.parameters[at].name] = (pieces.axis, factors)
            else:
                scalings[solution.parameters[at].name] = (0, factors[0])
        claimed += len(factor)
        if not oracle.keep_together(scalings):
            false.append(" + ".join(scalings))
    return {
        "pieces": claimed, "false_pieces": false, "per_channel": per_channel, "coarse": coarse,
        "partly_missed": partly,
    }  # fmt: skip


def _of_parts(tensor):
    factors = np.ones(tensor.shape[tensor.axis])
    for number, part in enumerate(tensor.parts):
        if part.role in ALONE:
            factors[part.index_from : part.index_to] = 0.6 + 0.3 * number
    return factors


def _free(rows, tensor):
    """Indices of the first axis that have a gradient, along which Euler's identity holds alone."""
    if tensor.name not in rows:
        return torch.zeros(1, dtype=torch.bool)
    product, size = rows[tensor.name]
    return (product.abs().max(0).values < EULER) & (size.min(0).values > 1e-6)


def _factors(classes, rng):
    own = {label: rng.uniform(0.5, 2.0) for label in np.unique(classes).tolist()}
    return [own[label] if label >= 0 else 1.0 for label in classes.tolist()]


def _names(model, invariant, irrelevant):
    """The answer from names alone, for weights of two and more axes that are not irrelevant."""
    state = {n: t for n, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    refs = {
        n: TensorRef(n, tuple(t.shape), str(t.dtype).split(".")[-1], (Extent("x", 0, 1),))
        for n, t in state.items()
    }
    found = scale_groups_from_names(refs).tensors
    parameters = dict(model.named_parameters())
    weights = {n for n, p in parameters.items() if p.dim() >= 2 and n not in irrelevant}
    said = {n for n in weights if n in found and found[n].role == Role.SCALE_INVARIANT}
    biases = {n for n in parameters if n in found and found[n].role == Role.IRRELEVANT}
    return {
        "names_right": len(said & invariant),
        "names_false": sorted(said - invariant),
        "names_missed": sorted((weights & invariant) - said),
        "names_irrelevant_right": len(biases & irrelevant),
        "names_irrelevant_false": sorted(biases - irrelevant),
    }
