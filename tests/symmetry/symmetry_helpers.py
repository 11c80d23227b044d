"""Compares the solver's answer for one network with rescaling."""

import numpy as np
from rescaling_oracle import THRESHOLD, Oracle

from smdlens.vocabulary import Role

ALONE = (Role.SCALE_INVARIANT, Role.IRRELEVANT)


def compare(symmetry, model, inputs, *, missed=(), basis=True):
    """Asserts no false positive at any level; what is missed must be listed.

    Args:
        symmetry: The solver's answer.
        model: The network.
        inputs: Its inputs.
        missed: Names that the solver is known to miss.
        basis: Whether each vector of the null space is confirmed as well.

    Returns:
        Numbers of (tensors, invariant and relevant ones, those found).
    """
    oracle = Oracle(model, inputs)
    assert set(symmetry.tensors) == set(oracle.names())
    relevant = found = 0
    for name, tensor in symmetry.tensors.items():
        invariant = oracle.is_invariant(name)
        irrelevant = invariant and oracle.is_irrelevant(name)
        said = tensor.role in ALONE
        assert invariant or not said, f"{name} is not invariant"
        if invariant and not irrelevant:
            relevant += 1
            found += said
            assert said or name in missed, f"{name} is missed: {tensor.evidence}"
        if tensor.role == Role.IRRELEVANT:
            assert irrelevant, f"{name} matters"
        _check_pieces(oracle, tensor, irrelevant)
    if basis:
        for vector in symmetry.basis:
            edits = {
                name: (lambda w, e=float(exponent): w * 2.0**e) for name, exponent in vector.items()
            }
            assert oracle.change(edits) < THRESHOLD, f"unsound: {vector}"
    return len(symmetry.tensors), relevant, found


def _check_pieces(oracle, tensor, irrelevant):
    rng = np.random.default_rng(0)
    if tensor.role == Role.SCALE_INVARIANT and tensor.axis is not None:
        length = tensor.shape[tensor.axis]
        # Heads and groups are runs of equal length in all networks of the corpora.
        factors = np.repeat(rng.uniform(0.5, 2.0, tensor.groups), length // tensor.groups)
        assert oracle.keeps(tensor.name, tensor.axis, factors), f"{tensor.name}: pieces"
    if tensor.role == Role.PARTLY_SCALE_INVARIANT:
        factors = np.ones(tensor.shape[tensor.axis])
        for number, part in enumerate(tensor.parts):
            if part.role in ALONE:
                factors[part.index_from : part.index_to] = 0.6 + 0.3 * number
        assert oracle.keeps(tensor.name, tensor.axis, factors), f"{tensor.name}: parts"
    if tensor.role == Role.JOINTLY_SCALE_INVARIANT:
        together = (tensor.name, *tensor.joint_with)
        change = oracle.change({name: (lambda w: w * 3.0) for name in together})
        assert change < THRESHOLD, f"{together}: together"
