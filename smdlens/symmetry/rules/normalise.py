"""Normalisers: whatever scale comes in, none goes out but the gain's own."""

from __future__ import annotations

from collections.abc import Sequence

from smdlens.symmetry.engine import Engine
from smdlens.symmetry.model_graph import Ref
from smdlens.symmetry.rules.algebra import LARGEST_EPSILON
from smdlens.symmetry.rules.call import Call, NotCovered, Result, rule
from smdlens.symmetry.rules.contract import with_bias
from smdlens.symmetry.rules.movement import reshaped
from smdlens.symmetry.values import INPUT, Term, Value, constant_along, uniform


def _gain_and_bias(call: Call, value: Value, axis: int) -> Value:
    """Gamma * value + beta along one axis."""
    gain = call.optional("weight")
    if gain is not None:
        one = call.engine.scalar(tuple(1 for _ in value.shape))
        value = call.engine.multiply(
            value, with_bias_shape(call.engine, one, gain, axis), value.shape
        )
    return with_bias(call.engine, value, call.optional("bias"), axis)


def with_bias_shape(engine: Engine, like: Value, vector: Value, axis: int) -> Value:
    """A vector lying along one axis of values of that rank."""
    rank = len(like.shape)
    sizes = [-1 if at == axis % rank else 1 for at in range(rank)]
    terms = tuple(
        Term(
            t.degree.reshape(sizes), None if t.labels is None else t.labels.reshape(sizes), t.taint
        )
        for t in vector.terms
    )
    shape = tuple(vector.shape[0] if size == -1 else 1 for size in sizes)
    return Value(shape, terms)


def _batch_normalised(call: Call, x: Value) -> Value:
    """Per channel over everything else; in training the batch holds more than one sample."""
    axes = [axis for axis in range(len(x.shape)) if axis != 1]
    kept: list[Term] = []
    for term in x.terms:
        constant = constant_along(term, x.shape, axes)
        # A traced batch of one hides what varies along it; what reads no input does not.
        if x.shape[0] == 1 and term.taint & INPUT:
            constant = False
        # One element per channel and sample is still several in a batch.
        if all(x.shape[axis] == 1 for axis in axes) and term.taint & INPUT:
            constant = False
        if constant:
            call.engine.drop(term)
        else:
            kept.append(term)
    if not kept:
        return call.engine.scalar(x.shape, 0.0)
    value = Value(x.shape, tuple(kept))
    return call.engine.normalise(value, axes, subtracts_mean=False)


def _first(call: Call, *names: str) -> Value:
    for name in names:
        if call.has(name):
            return call.value(name)
    raise NotCovered


def _is_frozen(call: Call) -> bool:
    running = call.node.arguments.get("running_var")
    return isinstance(running, Ref) and running.name in call.engine.frozen


@rule("batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit",
      "_native_batch_norm_legit_functional", "native_batch_norm", "cudnn_batch_norm",
      "_batch_norm_with_update", "_batch_norm_no_update", "batch_norm_with_update",
      "_batch_norm_impl_index", "sync_batch_norm")  # fmt: skip
def batch_norm(call: Call) -> Result:
    """Batch normalisation, whatever mode it was traced in: training is what matters."""
    x = call.value("input")
    engine = call.engine
    if _is_frozen(call):
        # Statistics that never move are constants: (x - mean) * scale has a degree only if zero.
        result = engine.constant(x.shape, taint=engine.require_zero(x))
    else:
        result = _batch_normalised(call, x)
    result = _gain_and_bias(call, result, 1)
    if not call.node.listed:
        return result
    return [result, *(engine.constant(shape) for shape in call.node.shapes[1:])]


@rule("instance_norm")
def instance_norm(call: Call) -> Result:
    """Per sample and channel over space."""
    x = call.value("input")
    result = call.engine.normalise(x, range(2, len(x.shape)), subtracts_mean=True)
    return _gain_and_bias(call, result, 1)


@rule("layer_norm", "native_layer_norm")
def layer_norm(call: Call) -> Result:
    """Over the last axes, with the mean subtracted."""
    x = call.value("input")
    count = len(call.integers("normalized_shape"))
    result = call.engine.normalise(x, _last(x, count), subtracts_mean=True)
    result = _affine(call, result)
    if not call.node.listed:
        return result
    return [result, *(call.engine.constant(shape) for shape in call.node.shapes[1:])]


@rule("rms_norm", "_fused_rms_norm")
def rms_norm(call: Call) -> Result:
    """Over the last axes, the mean stays."""
    x = call.value("input")
    count = len(call.integers("normalized_shape"))
    result = call.engine.normalise(x, _last(x, count), subtracts_mean=False)
    result = _affine(call, result)
    if not call.node.listed:
        return result
    return [result, *(call.engine.constant(shape) for shape in call.node.shapes[1:])]


def _last(x: Value, count: int) -> Sequence[int]:
    return range(len(x.shape) - count, len(x.shape))


def _affine(call: Call, value: Value) -> Value:
    gain, bias = call.optional("weight"), call.optional("bias")
    if gain is not None:
        value = call.engine.multiply(value, call.engine.broadcast(gain, value.shape), value.shape)
    return value if bias is None else call.engine.add(value, bias, value.shape)


@rule("group_norm", "native_group_norm")
def group_norm(call: Call) -> Result:
    """Per sample over space and the channels of a group."""
    x = call.value("input")
    if "num_groups" in call.node.arguments:
        groups = call.integer("num_groups", 1)
    else:
        groups = call.integer("group", 1)
    n, channels = x.shape[:2]
    split = (n, groups, channels // groups, *x.shape[2:])
    terms = tuple(
        Term(
            reshaped(t.degree, x.shape, split),
            None if t.labels is None else reshaped(t.labels, x.shape, split),
            t.taint,
        )
        for t in x.terms
    )
    inner = call.engine.normalise(Value(split, terms), range(2, len(split)), subtracts_mean=True)
    term = inner.terms[0]
    result = Value(
        x.shape, (Term(uniform(len(x.shape), int(term.degree.flat[0])), None, term.taint),)
    )
    result = _gain_and_bias(call, result, 1)
    if not call.node.listed:
        return result
    return [result, *(call.engine.constant(shape) for shape in call.node.shapes[1:])]


@rule("cosine_similarity")
def cosine_similarity(call: Call) -> Result:
    """<a, b> / (|a| |b|) along one axis."""
    engine = call.engine
    a, b = call.value("x1"), call.value("x2")
    axis, epsilon = call.integer("dim", 1), call.number("eps", 1e-8)
    if epsilon is None or epsilon > LARGEST_EPSILON:
        raise NotCovered
    rank = max(len(a.shape), len(b.shape))
    axis %= rank
    taint = 0
    for value in (a, b):
        own = axis - (rank - len(value.shape))
        if own < 0:
            raise NotCovered
        taint |= engine.normalise(value, (own,), subtracts_mean=False).terms[0].taint
    return engine.constant(call.shape, taint=taint)


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(call: Call) -> Result:
    """G v / |v|, the length taken over all axes but one."""
    direction, length = call.value("v"), call.value("g")
    rank = len(direction.shape)
    axis = call.integer("dim", 0)
    over = [at for at in range(rank) if axis == -1 or at != axis % rank]
    unit = call.engine.normalise(direction, over, subtracts_mean=False)
    result = call.engine.multiply(unit, length, direction.shape)
    if not call.node.listed:
        return result
    return [result, *(call.engine.constant(shape) for shape in call.node.shapes[1:])]
