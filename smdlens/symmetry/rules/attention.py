"""Attention in one operator: softmax(q k^T) v."""

from __future__ import annotations

import numpy as np

from smdlens.symmetry.forms import IdArray
from smdlens.symmetry.rules.call import Call, NotCovered, Result, rule
from smdlens.symmetry.rules.contract import product
from smdlens.symmetry.rules.movement import moved, sliced
from smdlens.symmetry.values import Term, Value, labelled


def _transposed(array: IdArray) -> IdArray:
    return array.swapaxes(-1, -2)


@rule("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu",
      "_scaled_dot_product_efficient_attention", "_scaled_dot_product_flash_attention")  # fmt: skip
def attention(call: Call) -> Result:
    """Summands of the scores that are constant along the keys vanish in the softmax."""
    engine = call.engine
    query, key, value = call.value("query"), call.value("key"), call.value("value")
    if len(query.shape) < 2 or len(query.shape) != len(key.shape):
        raise NotCovered
    if len(query.shape) > 2 and query.shape[-3] != key.shape[-3]:
        times = query.shape[-3] // key.shape[-3]
        key, value = _repeated(key, times), _repeated(value, times)
    flipped = (*key.shape[:-2], key.shape[-1], key.shape[-2])
    turned = moved(key, flipped, _transposed)
    scores_shape = (*query.shape[:-1], key.shape[-2])
    weights = engine.scalar(scores_shape)
    if key.shape[-2] > 1 or call.has("attn_mask"):
        # A summand of all keys alike adds one number to a row of scores, whatever the query is.
        last = len(scores_shape) - 1
        differing = Value(flipped, engine.without_constants(turned, (last,)))
        scores = engine.scalar(scores_shape, 0.0)
        if differing.terms:
            scores = product(engine, query, differing, scores_shape)
        kept = engine.without_constants(scores, (last,))
        taint = engine.require_zero(Value(scores_shape, kept)) if kept else 0
        if call.has("attn_mask"):
            taint |= engine.require_zero(call.value("attn_mask"))
        weights = engine.constant(scores_shape, taint=taint)
    shape = (*query.shape[:-1], value.shape[-1])
    result = product(engine, weights, engine.single(value), shape)
    if not call.node.listed:
        return result
    return [result, *(engine.constant(s) for s in call.node.shapes[1:])]


def _repeated(value: Value, times: int) -> Value:
    """Each key head once per query head of its group."""
    axis = len(value.shape) - 3
    heads = value.shape[axis] * times
    shape = (*value.shape[:axis], heads, *value.shape[axis + 1 :])
    terms = tuple(Term(t.degree, labelled(t, value.shape), t.taint) for t in value.terms)
    return sliced(Value(value.shape, terms), shape, axis, np.arange(heads) // times)
