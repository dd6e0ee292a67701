"""Is a function twice differentiable, and what it is with softplus for its ReLUs.

A network of ReLUs is piecewise linear: its second derivative is zero wherever it
exists, and says nothing of the kinks that make all its interactions. So what asks for
second derivatives refuses such activations, unless it is told what to make of them.
Which maximum is an activation, and which one only keeps a variance from being negative,
is known by reading the program.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Literal
from jax.extend.core import primitives as P

from jaxlrp import _arguments, _compat, _kinks
from jaxlrp._program.bodies import bodies_of
from jaxlrp._program.program import Equation
from jaxlrp._reading.steps import Reading, Step
from jaxlrp._trace import trace
from jaxlrp._warn import warn
from jaxlrp.composites import Default
from jaxlrp.errors import CurvatureWarning
from jaxlrp.primitives import Kind, lookup
from jaxlrp.rules import UniformSplit

_EVERYWHERE = Default().on("product", UniformSplit())
"""Derivatives go to both factors of a product: with these rules relevance does, too."""

Score = Callable[[list[Array]], Array]
"""From the attributed leaves to one number."""


def check_beta(beta: Any) -> None:
    """A positive number, infinity included, or None."""
    if beta is None:
        return
    _arguments.number("beta", beta, "the steepness of softplus", known=False)
    known = _arguments.known_numbers(beta)
    if known is not None and not (known > 0).all():
        raise ValueError(f"beta: got {beta!r}, expected a positive number or None")


def curved(score: Score, xs: Sequence[Array], beta: Any) -> Score:
    """The score with second derivatives, if it has any.

    Args:
      score: a function of the attributed leaves.
      xs: these leaves, or values of their shapes and dtypes.
      beta: the steepness of the softplus that replaces each piecewise linear
        activation, and each maximum over places; None refuses these, infinity leaves
        them as they are.

    Raises:
      ValueError: for a `while` loop; for a piecewise linear activation if `beta` is
        None, or if it is one that no softplus replaces; for one that has curvature and
        a jump of its slope.

    Warns:
      CurvatureWarning: where the input makes other choices.
    """
    traced = trace(
        score,
        (list(xs),),
        {},
        _EVERYWHERE,
        0,
        False,
        strict=False,
        keep_calls=False,
        floating=True,
    )
    callbacks = [e.line for e in _callbacks(traced.reading)]
    if callbacks:
        raise ValueError(
            f"f: it calls back into Python at {callbacks[0]}, which JAX cannot "
            f"differentiate; expected JAX's own operations, or a jax.custom_jvp around "
            f"the callback whose derivative has one, too"
        )
    loops = [e.line for e in _loops(traced.reading)]
    if loops:
        raise ValueError(
            f"f: it has a while loop at {loops[0]}, through which JAX has no reverse "
            f"derivative and so no second one; expected a loop of known length, as "
            f"jax.lax.scan or fori_loop with numbers"
        )
    if _arguments.known_numbers(beta) is not None and math.isinf(beta):
        return score
    seen: _kinks.Seen = {}
    hidden = list(_hidden(traced.reading, seen))
    if hidden:
        raise ValueError(
            f"f: it is not twice differentiable: the slope of the activation at "
            f"{hidden[0].line} jumps, of which its curvature beside says nothing, and "
            f"no softplus replaces it; expected a smooth one, or beta=jnp.inf, which "
            f"leaves it"
        )
    kinks = list(_bends(traced.reading))
    if kinks and beta is None:
        lines = ", ".join(list(dict.fromkeys(e.line for e in kinks))[:3])
        raise ValueError(
            f"f: it is not twice differentiable: a piecewise linear activation or "
            f"maximum at {lines} has no curvature, and all interactions by it would be "
            f"missed. beta=10.0 puts a softplus in its place, beta=jnp.inf leaves it"
        )
    apart = list(_apart(traced.reading, seen))
    if apart:
        raise ValueError(
            f"f: the activation at {apart[0].line} is piecewise linear, and jumps; a "
            f"softplus replaces what meets at its kinks, as jnp.where(x > 0, x, 0.01 * "
            f"x); beta=jnp.inf leaves it"
        )
    replaced = {id(e) for e in kinks}
    others = (e for e in _kinks.switches(traced.reading, seen) if id(e) not in replaced)
    switches = list(dict.fromkeys(e.line for e in others))
    if switches:
        warn(
            f"f: at {', '.join(switches[:3])} the input decides what is computed, by a "
            f"comparison, a sign, rounding or an index. Second derivatives do not see "
            f"that it would decide otherwise nearby. With beta=jnp.inf nothing is said",
            CurvatureWarning,
        )
    if not kinks:
        return score
    by_mark = {_mark(e.caller, e.source): e for e in kinks}
    marked, jaxpr = frozenset(by_mark), traced.jaxpr
    unknown = marked - _marks(jaxpr, marked, None)
    if unknown:
        eqn = by_mark[min(unknown)]
        raise _unlike_softplus(eqn, eqn.source)
    return lambda xs: _smooth(jaxpr, xs, marked, beta)[0]


_BENT = (P.max_p, P.min_p, P.clamp_p, P.abs_p, P.select_n_p, P.sign_p)
_STRAIGHT = (
    *(P.add_p, P.sub_p, P.mul_p, P.div_p, P.neg_p),
    *(P.broadcast_in_dim_p, P.convert_element_type_p, P.reshape_p),
    *(P.gt_p, P.ge_p, P.lt_p, P.le_p, P.eq_p, P.ne_p, P.and_p, P.or_p, P.not_p),
)


def _hidden(reading: Reading, seen: _kinks.Seen) -> Iterator[Equation]:
    """Activations that have curvature, and kinks besides."""
    for step in reading.steps:
        if step.role == "activation":
            bends = _bent(step.equations, {step.argument, *step.signals})
            if not bends and _kinks.kinked(step, reading, seen):
                yield step.main
        for body in step.bodies:
            yield from _hidden(body, seen)


def _apart(reading: Reading, seen: _kinks.Seen) -> Iterator[Equation]:
    """Activations that are piecewise linear, of parts that do not meet."""
    for step in reading.steps:
        if step.role == "activation":
            bends = _bent(step.equations, {step.argument, *step.signals})
            if bends and _kinks.kinked(step, reading, seen, slopes=False):
                yield step.main
        for body in step.bodies:
            yield from _apart(body, seen)


def _bends(reading: Reading) -> Iterator[Equation]:
    """The kinks of activations that are piecewise linear."""
    for step in reading.steps:
        if step.role == "activation":
            yield from _bent(step.equations, {step.argument, *step.signals}) or ()
        elif step.role == "detached":
            yield from _bends_beside(step, reading)
        elif _chooses(step, reading) or _pools(step, reading):
            yield step.main
        for body in step.bodies:
            yield from _bends(body)


def _bends_beside(step: Step, reading: Reading) -> Iterator[Equation]:
    """The kinks of what relevance does not pass, and derivatives do: of a divisor.

    Its maxima and choices guard against zeros. An absolute value is a kink where a sum
    follows, as in a norm: `x / (1 + |x|)` is smooth, and a threshold adds nothing.
    """
    for eqn in _bent(step.equations, {step.argument}) or ():
        if _inlined(eqn) is not None:
            yield eqn
        elif eqn.primitive is P.abs_p and _is_summed(step, reading):
            yield eqn


def _is_summed(step: Step, reading: Reading) -> bool:
    """Does a sum or a contraction follow, before a step that relevance passes?"""
    reached = set(step.outputs)
    for later in reading.steps[reading.steps.index(step) + 1 :]:
        if later.role == "detached" and not reached.isdisjoint(later.operands):
            entries = [lookup(e.primitive) for e in later.equations]
            if any(e and e.kind in (Kind.LINEAR, Kind.CONTRACTION) for e in entries):
                return True
            reached.update(later.outputs)
    return False


def _chooses(step: Step, reading: Reading) -> bool:
    """Does what is attributed decide between two values, as in a leaky ReLU?"""
    if step.main.primitive is not P.select_n_p or len(step.signals) < 2:
        return False
    return _kinks.decides(step.main, reading)


_POOLS = (
    *(P.reduce_max_p, P.reduce_min_p),
    *(P.reduce_window_max_p, P.reduce_window_min_p),
)


_RANKS = (P.sort_p, P.top_k_p, P.cummax_p, P.cummin_p)


def _pools(step: Step, reading: Reading) -> bool:
    """Is it a maximum over places, or are these put in order?

    What a softmax subtracts cancels, and is no maximum.
    """
    if step.main.primitive in _RANKS:
        return bool(step.signals)
    if step.main.primitive not in _POOLS or not step.signals:
        return False
    reached = set(step.outputs)
    for later in reading.steps[reading.steps.index(step) + 1 :]:
        if reached.intersection(later.signals):
            if later.role == "softmax":
                return False
            if later.role == "structural":
                reached.update(later.outputs)
    return True


def _bent(equations: Sequence[Any], active: set[Any]) -> list[Any] | None:
    """The kinks of elementwise equations, None if there is curvature in these."""
    found = []
    for eqn in equations:
        inputs = eqn.inputs if isinstance(eqn, Equation) else eqn.invars
        outputs = eqn.outputs if isinstance(eqn, Equation) else eqn.outvars
        known = [isinstance(v, Literal) for v in inputs]
        own = [i for i, v in enumerate(inputs) if not known[i] and v in active]
        if not own:
            continue
        active.update(outputs)
        body = _inlined(eqn)
        if body is not None:
            open_, _ = _compat.open_jaxpr(body)
            inside = _bent(open_.eqns, {open_.invars[i] for i in own})
            if inside is None:
                return None
            found += [eqn] if inside else []
        elif eqn.primitive in _BENT:
            dtype = getattr(inputs[own[0]].aval, "dtype", jnp.float32)
            if jnp.issubdtype(dtype, jnp.complexfloating):
                return None  # a modulus
            found.append(eqn)
        elif eqn.primitive not in _STRAIGHT:
            return None
        elif eqn.primitive is P.mul_p and len(own) > 1:
            return None
        elif eqn.primitive is P.div_p and own != [0]:
            return None
    return found


def _loops(reading: Reading) -> Iterator[Equation]:
    """The `while` loops that what is attributed goes through."""
    for step in reading.steps:
        if step.bodies and step.signals and bodies_of(step.main).flow == "while":
            yield step.main
        for body in step.bodies:
            yield from _loops(body)


def _callbacks(reading: Reading) -> Iterator[Equation]:
    """The calls into Python that what is attributed goes through."""
    for step in reading.steps:
        if step.signals and _compat.is_callback(step.main.primitive):
            yield step.main
        for body in step.bodies:
            yield from _callbacks(body)


# ---- softplus in the place of kinks ------------------------------------------------

Mark = tuple[int, int]
"""An equation. Calls of one function share a jaxpr: so with the call around it."""


def _mark(caller: Any, source: Any) -> Mark:
    return id(caller), id(source)


def _inlined(eqn: Any) -> Any | None:
    """The body of a call that reading writes out, if it is one."""
    entry = lookup(eqn.primitive)
    calls = entry is not None and entry.kind is Kind.CALL
    return _compat.called_jaxpr(eqn.params) if calls else None


def _marks(jaxpr: Any, marked: frozenset[Mark], caller: Any) -> set[Mark]:
    """Those of the marked equations that are in a jaxpr or in one inside it."""
    found = set()
    for eqn in _compat.open_jaxpr(jaxpr)[0].eqns:
        own = _mark(caller, eqn.source_info)
        body = _inlined(eqn)
        if own in marked:
            found.add(own)
        elif body is not None:
            found |= _marks(body, marked, caller or eqn.source_info)
        else:
            for body in _compat.bodies_by_name(eqn.params).values():
                found |= _marks(body, marked, None)
    return found


def _smooth(
    jaxpr: Any,
    inputs: Sequence[Any],
    marked: frozenset[Mark],
    beta: Any,
    caller: Any = None,
    inside: bool = False,
    told: Sequence[Told] | None = None,
) -> list[Any]:
    """Evaluates a jaxpr, the marked equations smoothly; all of them `inside` of one."""
    open_, consts = _compat.open_jaxpr(jaxpr)
    values = dict(zip(open_.invars, inputs, strict=True))
    values.update(zip(_compat.constvars(open_), consts, strict=True))
    known = dict(zip(open_.invars, told or [Told()] * len(inputs), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in open_.eqns:
        operands = [read(v) for v in eqn.invars]
        own = [
            Told() if isinstance(v, Literal) else known.get(v, Told())
            for v in eqn.invars
        ]
        body, around = _inlined(eqn), caller or eqn.source_info
        soft = eqn.primitive in _STRAIGHT and any(t.soft for t in own)
        if inside or _mark(caller, eqn.source_info) in marked:
            outs, soft = _softened(eqn, operands, own, body, marked, beta, around), True
        elif body is not None and _marks(body, marked, around):
            outs, soft = _smooth(body, operands, marked, beta, around, told=own), True
        else:
            outs = _as_it_is(eqn, operands, marked, beta)
        values.update(zip(eqn.outvars, outs, strict=True))
        gap = None
        if eqn.primitive in _ABOVE + _BELOW:
            sign = 1 if eqn.primitive in _ABOVE else -1
            gap = sign * (operands[0] - operands[1])
        known.update((v, Told(gap, soft)) for v in eqn.outvars)
    return [read(v) for v in open_.outvars]


_ABOVE, _BELOW = (P.gt_p, P.ge_p), (P.lt_p, P.le_p)


class Told(NamedTuple):
    """What is known of a value besides itself.

    Attributes:
      gap: of a comparison of two values, their difference; positive where it holds.
      soft: is it made of what was made smooth, by linear steps?
    """

    gap: Any = None
    soft: bool = False


def _as_it_is(
    eqn: Any, operands: Sequence[Any], marked: frozenset[Mark], beta: Any
) -> list[Any]:
    """An equation with its own map; what is marked in the bodies of loops is smooth."""
    params = dict(eqn.params)
    bodies = {} if _inlined(eqn) is not None else _compat.bodies_by_name(params)
    if any(_marks(body, marked, None) for body in bodies.values()):
        smooth = {}
        for name, body in bodies.items():

            def evaluate(*xs: Any, body: Any = body) -> list[Any]:
                return _smooth(body, xs, marked, beta)

            smooth[name] = jax.make_jaxpr(evaluate)(*_compat.in_avals(body))
        params |= _compat.with_bodies(params, smooth)
    return _compat.primitive_bind(eqn.primitive, params)(*operands)


def _softened(
    eqn: Any,
    operands: Sequence[Any],
    told: Sequence[Told],
    body: Any,
    marked: frozenset[Mark],
    beta: Any,
    where: Any,
) -> list[Any]:
    """A piecewise linear equation, smoothly; `where` it stands in the user's code."""
    if body is not None:
        return _smooth(body, operands, marked, beta, where, inside=True, told=told)
    if eqn.primitive is P.select_n_p and len(operands) == 3:
        # Of parts that are smooth already it is not known which one is the larger.
        if told[0].gap is not None and not any(t.soft for t in told):
            return [_chosen(told[0].gap, operands[1], operands[2], beta)]
    if eqn.primitive is P.max_p:
        return [_maximum(operands[0], operands[1], beta)]
    if eqn.primitive is P.min_p:
        return [_minimum(operands[0], operands[1], beta)]
    if eqn.primitive is P.clamp_p:
        low, x, high = operands
        return [_minimum(_maximum(x, low, beta), high, beta)]
    if eqn.primitive is P.abs_p:
        return [_maximum(operands[0], -operands[0], beta)]
    if eqn.primitive in _POOLS:
        places = _places(eqn, operands[0])
        if eqn.primitive in (P.reduce_min_p, P.reduce_window_min_p):
            return [-_largest(-places, beta)]
        return [_largest(places, beta)]
    if eqn.primitive in _BENT + _RANKS:
        raise _unlike_softplus(eqn, where)
    return _compat.primitive_bind(eqn.primitive, dict(eqn.params))(*operands)


def _unlike_softplus(eqn: Any, where: Any) -> ValueError:
    return ValueError(
        f"f: {eqn.primitive.name} at {_compat.summarize(where)} is piecewise linear, "
        f"and no softplus replaces it; expected maxima, minima, absolute values and "
        f"choices by one comparison, as jnp.where(x > 0, x, 0.01 * x), or "
        f"beta=jnp.inf, which leaves it"
    )


def _chosen(gap: Array, below: Any, above: Any, beta: Any) -> Array:
    """`where(gap > 0, above, below)` of linear parts that meet where the gap is zero.

    Such a choice is the larger one of both, or the smaller one where the slope falls.
    """
    bends = lax.stop_gradient(gap * (jnp.asarray(above) - jnp.asarray(below)))
    larger, smaller = _maximum(below, above, beta), _minimum(below, above, beta)
    return jnp.where(bends >= 0, larger, smaller)


def _maximum(a: Any, b: Any, beta: Any) -> Array:
    """`log(exp(beta a) + exp(beta b)) / beta`: `max(x, 0)` becomes the softplus."""
    a, b = jnp.broadcast_arrays(jnp.asarray(a), jnp.asarray(b))
    steep = jnp.asarray(beta, a.dtype)
    larger = lax.max(a, b)
    held = lax.stop_gradient(larger)  # so that nothing large is multiplied
    smooth = held + jnp.logaddexp(steep * (a - held), steep * (b - held)) / steep
    return jnp.where(jnp.isfinite(a - b), smooth, larger)


def _places(eqn: Any, x: Array) -> Array:
    """What a maximum is over, along a leading axis; NaN where a window is outside."""
    axes = _compat.reduced_axes(eqn.params)
    if axes is not None:
        moved = jnp.moveaxis(x, tuple(axes), range(len(axes)))
        return moved.reshape(-1, *moved.shape[len(axes) :])
    sizes, steps, apart, config = _compat.windows(eqn.params)
    padded = lax.pad(x, jnp.asarray(jnp.nan, x.dtype), config)
    ends = [
        1 + (n - d * (w - 1) - 1) // s * s
        for n, w, s, d in zip(padded.shape, sizes, steps, apart, strict=True)
    ]
    parts = []
    for place in itertools.product(*map(range, sizes)):
        first = [i * d for i, d in zip(place, apart, strict=True)]
        last = [i + n for i, n in zip(first, ends, strict=True)]
        parts.append(lax.slice(padded, first, last, steps))
    return jnp.stack(parts)


def _largest(places: Array, beta: Any) -> Array:
    """`log(sum exp(beta x)) / beta` along the leading axis, of what is not NaN."""
    steep = jnp.asarray(beta, places.dtype)
    outside = jnp.isnan(places)
    known = jnp.where(outside, -jnp.inf, places)
    held = lax.stop_gradient(known.max(0))
    powers = jnp.exp(steep * (jnp.where(outside, held, places) - held))
    return held + jnp.log(jnp.where(outside, 0, powers).sum(0)) / steep


def _minimum(a: Any, b: Any, beta: Any) -> Array:
    return -_maximum(-jnp.asarray(a), -jnp.asarray(b), beta)
