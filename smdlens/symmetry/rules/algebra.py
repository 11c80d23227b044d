"""Sums, products, quotients and powers."""

from __future__ import annotations

from fractions import Fraction

from smdlens.symmetry.forms import Coefficient
from smdlens.symmetry.rules.call import Call, NotCovered, Result, rule
from smdlens.symmetry.values import Term, Value, joined_labels, renewed

# What keeps a root or a quotient finite. Larger numbers are part of the function.
LARGEST_EPSILON = 1e-4
# Scores this low have the weight exp(score) = 0, as -inf has (half precision ends at -65504).
_MASKED = -1e4


def is_epsilon(value: Value, number: float | None) -> bool:
    """Whether a number beside a sum of squares only guards against zero."""
    return value.moment and number is not None and 0.0 < number <= LARGEST_EPSILON


@rule("add", "_add", "sub", "rsub", "subtract")
def add(call: Call) -> Result:
    """A sum; a difference has the same degrees. x - mean(x) subtracts the mean."""
    names = ("self", "other")
    engine = call.engine
    for this, other in (names, names[::-1]):
        number = None if call.is_tensor(other) else call.number(other)
        if number is None:
            continue
        value = call.value(this)
        if number == 0.0:
            return engine.broadcast(value, call.shape)
        if call.node.op == "add" and is_epsilon(value, number):
            engine.ignored_epsilons.append((call.node, number))
            return Value(value.shape, engine.single(value).terms, True, True)
    a, b = call.value("self"), call.value("other")
    if "sub" in call.node.op and call.number("alpha", 1.0) == 1.0:
        for whole, mean in ((a, b), (b, a)):
            if mean.mean_of is not None and mean.mean_of[0] is whole and whole.shape == call.shape:
                return engine.centre(whole, mean.mean_of[1])
        return engine.subtract(a, b, call.shape)
    result = engine.add(a, b, call.shape)
    if "sub" not in call.node.op and a.moment and b.moment:
        return Value(result.shape, result.terms, moment=True)
    return result


@rule("mul", "multiply")
def mul(call: Call) -> Result:
    """A product; a plain number changes no degree unless it is zero."""
    a, b = call.value("self"), call.value("other")
    for value, name in ((a, "other"), (b, "self")):
        number = None if call.is_tensor(name) else call.number(name)
        if number is not None:
            if number == 0.0:
                return call.engine.scalar(call.shape, 0.0)
            wide = call.engine.broadcast(value, call.shape)
            return Value(wide.shape, renewed(wide.terms), value.moment and number > 0)
    return call.engine.multiply(a, b, call.shape)


@rule("div", "divide", "true_divide")
def div(call: Call) -> Result:
    """A quotient; the divisor must be of one degree at each place."""
    if call.node.arguments.get("rounding_mode") is not None:
        raise NotCovered
    engine = call.engine
    a, b = call.value("self"), call.value("other")
    if not call.is_tensor("other"):
        wide = engine.broadcast(a, call.shape)
        return Value(wide.shape, renewed(wide.terms), a.moment)
    divisor = engine.one_term(engine.broadcast(b, call.shape))
    a = engine.broadcast(a, call.shape)
    terms = [
        Term(
            engine.minus(t.degree, divisor.degree),
            joined_labels(t, divisor),
            t.taint | divisor.taint,
        )
        for t in a.terms
    ]
    engine.met_normaliser(divisor.degree)
    return engine.sum_of(call.shape, terms)


@rule("addcmul", "addcdiv")
def add_combined(call: Call) -> Result:
    """C + a * b or c + a / b."""
    engine = call.engine
    a, b = call.value("tensor1"), call.value("tensor2")
    if call.node.op == "addcdiv":
        b = engine.power(b, -1)
    return engine.add(call.value("self"), engine.multiply(a, b, call.shape), call.shape)


@rule("lerp")
def lerp(call: Call) -> Result:
    """A + w (b - a): both ends of one degree, the weight of degree zero."""
    engine = call.engine
    taint = 0
    if call.is_tensor("weight"):
        taint = engine.require_zero(call.value("weight"))
    both = engine.one_term(engine.add(call.value("self"), call.value("end"), call.shape))
    return Value(call.shape, (Term(both.degree, None, both.taint | taint),))


@rule("pow")
def power(call: Call) -> Result:
    """x^n multiplies the degree by n."""
    if not call.is_tensor("self") or call.is_tensor("exponent"):
        raise NotCovered
    exponent = call.number("exponent")
    if exponent is None:
        raise NotCovered
    value = call.value("self")
    even = exponent in (2.0, 4.0) or (value.moment and exponent > 0)
    return call.engine.power(value, exact(exponent), moment=even)


def exact(number: float) -> Coefficient:
    """A float as the simple fraction it stands for."""
    fraction = Fraction(number).limit_denominator(1 << 16)
    if float(fraction) != number:
        raise NotCovered
    return int(fraction) if fraction.denominator == 1 else fraction


@rule("square", "sqrt", "rsqrt", "reciprocal")
def fixed_power(call: Call) -> Result:
    """Powers with a name of their own."""
    value = call.value("self")
    powers: dict[str, Coefficient] = {
        "square": 2, "sqrt": Fraction(1, 2), "rsqrt": Fraction(-1, 2), "reciprocal": -1,
    }  # fmt: skip
    exponent = powers[call.node.op]
    moment = call.node.op == "square" or (value.moment and exponent > 0)
    if exponent < 0:
        call.engine.met_normaliser(value.terms[0].degree)
    return call.engine.power(value, exponent, moment=moment)


@rule("neg", "negative")
def negative(call: Call) -> Result:
    """A sign changes no degree."""
    value = call.value("self")
    return Value(value.shape, renewed(value.terms))


@rule("abs", "relu", "leaky_relu", "_prelu_kernel_", "threshold_", "rrelu")
def homogeneous(call: Call) -> Result:
    """f(k x) = k f(x) for k > 0, element by element."""
    return call.engine.power(call.value("self"), 1, moment=call.node.op == "abs")


@rule("prelu", "_prelu_kernel")
def prelu(call: Call) -> Result:
    """Homogeneous in its input; the slope beside the slope 1 is not."""
    taint = call.engine.require_zero(call.value("weight"))
    term = call.engine.one_term(call.value("self"))
    return Value(call.shape, (Term(term.degree, None, term.taint | taint),))


@rule("sign", "sgn", "isnan", "isinf", "logical_not")
def sign(call: Call) -> Result:
    """Only the sign matters, which no positive factor changes."""
    term = call.engine.one_term(call.value("self"))
    return call.engine.constant(call.shape, taint=term.taint)


@rule("eq", "ne", "lt", "le", "gt", "ge")
def compare(call: Call) -> Result:
    """A comparison with zero, or of two values of one degree, sees no scale."""
    engine = call.engine
    if call.is_tensor("other"):
        both = engine.one_term(engine.add(call.value("self"), call.value("other"), call.shape))
        return engine.constant(call.shape, taint=both.taint)
    if call.number("other") != 0.0:
        raise NotCovered
    return engine.constant(call.shape, taint=engine.one_term(call.value("self")).taint)


@rule("maximum", "minimum", "fmax", "fmin")
def extremum_of_two(call: Call) -> Result:
    """The larger of two values of one degree."""
    both = call.engine.one_term(
        call.engine.add(call.value("self"), call.value("other"), call.shape)
    )
    return Value(call.shape, (Term(both.degree, None, both.taint),))


@rule("clamp", "clamp_min", "clamp_max", "hardtanh", "relu6", "clip")
def clamp(call: Call) -> Result:
    """Homogeneous only where the bounds are absent, zero or infinite, or guard against zero."""
    defaults: dict[str, float] = {}
    low_name, high_name = "min", "max"
    if call.node.op == "hardtanh":
        low_name, high_name, defaults = "min_val", "max_val", {"min_val": -1.0, "max_val": 1.0}
    if call.node.op == "relu6":
        raise NotCovered
    value = call.value("self")
    for name in (low_name, high_name):
        if name not in defaults and not call.has(name):
            continue
        # A bound that is only known at run time is a bound.
        bound = call.number(name, defaults.get(name))
        if bound is None:
            raise NotCovered
        if bound in (0.0, float("inf"), float("-inf")):
            continue
        if name == low_name and is_epsilon(value, bound):
            call.engine.ignored_epsilons.append((call.node, bound))
            return Value(value.shape, call.engine.single(value).terms, True, True)
        raise NotCovered
    return call.engine.power(value, 1, moment=value.moment)


@rule("where")
def where(call: Call) -> Result:
    """One or the other: of one degree; the condition of degree zero."""
    engine = call.engine
    taint = engine.require_zero(call.value("condition"))
    for name in ("self", "other"):
        if not call.is_tensor(name) and call.number(name) not in (0.0,):
            raise NotCovered
    both = engine.one_term(engine.add(call.value("self"), call.value("other"), call.shape))
    return Value(call.shape, (Term(both.degree, None, both.taint | taint),))


@rule("masked_fill")
def masked_fill(call: Call) -> Result:
    """Some elements replaced by zero or infinity, which have every degree."""
    engine = call.engine
    filling = None if call.is_tensor("value") else call.number("value")
    if filling is not None and filling <= _MASKED:
        filling = float("-inf")
    if filling not in (0.0, float("inf"), float("-inf")):
        raise NotCovered
    taint = engine.require_zero(call.value("mask"))
    if filling == float("-inf"):  # -inf plus anything finite is -inf: summands stay apart
        value = engine.broadcast(call.value("self"), call.shape)
        return Value(
            call.shape, tuple(Term(t.degree, t.labels, t.taint | taint) for t in value.terms)
        )
    term = engine.one_term(engine.broadcast(call.value("self"), call.shape))
    return Value(call.shape, (Term(term.degree, None, term.taint | taint),))
