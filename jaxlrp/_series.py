"""The Taylor series of a function along a line, by `jax.experimental.jet`.

`jet` has rules for most primitives, but none for loops, branches and maxima over
windows, takes no heed of a function's own derivative (so that the softplus has none at
zero), and differs from JAX's derivative where a maximum is tied. Here loops and
branches are run with the coefficients of all that is in them, and where `jet` has no
rule, or not JAX's own, the coefficients are those of the derivative along the curve:

    y(t) = g(x(t)),    y'(t) = jvp(g)(x(t), x'(t)),    y_k = (y')_(k-1) / k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import jet
from jax.extend.core import Literal
from jax.extend.core import primitives as P

from jaxlrp import _compat
from jaxlrp.primitives import Kind, lookup

Terms = list[Array] | None
"""The coefficients of order 1, 2, ... of a value; None: it is constant."""

_NOT_JETS = (
    P.abs_p,
    P.clamp_p,
    P.custom_jvp_call_p,
    P.max_p,
    P.min_p,
    P.pow_p,  # by a logarithm: no negative base
    P.reduce_max_p,
    P.reduce_min_p,
    P.rem_p,
    P.cummax_p,
    P.cummin_p,
    P.cumprod_p,
)


def coefficients(
    function: Callable[[list[Array]], Array],
    xs: Sequence[Array],
    ways: Sequence[Array],
    order: int,
) -> list[Array]:
    """`[c_0, ..., c_order]` with `function(xs + t ways) = sum_k c_k t^k + ...`.

    Raises:
      TypeError: for a primitive without a derivative.
    """
    if order == 0:
        return [function(list(xs))]
    if order == 1:
        return list(jax.jvp(function, (list(xs),), (list(ways),)))
    jaxpr = jax.make_jaxpr(function)(list(xs))
    zeros = [[way, *[jnp.zeros_like(way)] * (order - 1)] for way in ways]
    ((value, terms),) = _evaluate(jaxpr, list(zip(xs, zeros, strict=True)), order)
    return [value, *(terms or [jnp.zeros_like(value)] * order)]


Pair = tuple[Any, Terms]


def _evaluate(jaxpr: Any, inputs: Sequence[Pair], order: int) -> list[Pair]:
    """The results of a jaxpr, with their coefficients."""
    open_, consts = _compat.open_jaxpr(jaxpr)
    values: dict[Any, Pair] = dict(zip(open_.invars, inputs, strict=True))
    pairs = zip(_compat.constvars(open_), consts, strict=True)
    values.update((v, (const, None)) for v, const in pairs)

    def read(atom: Any) -> Pair:
        return (atom.val, None) if isinstance(atom, Literal) else values[atom]

    for eqn in open_.eqns:
        outs = _equation(eqn, [read(v) for v in eqn.invars], order)
        values.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in open_.outvars]


def _equation(eqn: Any, operands: list[Pair], order: int) -> list[Pair]:
    bind = _compat.primitive_bind(eqn.primitive, dict(eqn.params))
    moved = any(terms is not None for _, terms in operands)
    if not moved or not any(map(_is_float, eqn.outvars)):
        return [(y, None) for y in bind(*(x for x, _ in operands))]
    entry = lookup(eqn.primitive)
    calls = entry is not None and entry.kind is Kind.CALL
    body = _compat.called_jaxpr(eqn.params) if calls else None
    if body is not None and eqn.primitive not in _NOT_JETS:
        return _evaluate(body, operands, order)
    if _compat.is_remat(eqn.params):
        return _evaluate(_compat.called_jaxpr(eqn.params), operands, order)
    if _compat.is_loop(eqn.params):
        return _loop(eqn, operands, order)
    if _compat.is_branch(eqn.params):
        return _branch(eqn, operands, order)
    if eqn.primitive in jet.jet_rules and eqn.primitive not in _NOT_JETS:
        return _by_jet(bind, operands, order)
    own = eqn.primitive is P.custom_jvp_call_p
    if not own and not _compat.has_derivative(eqn.primitive):
        raise TypeError(
            f"f: the primitive {eqn.primitive.name!r} at "
            f"{_compat.summarize(eqn.source_info)} has no derivative, so no term of "
            f"order {order} or any other; expected a function that jax.jvp takes"
        )
    return _by_derivative(bind, operands, order)


def _is_float(variable: Any) -> bool:
    return jnp.issubdtype(variable.aval.dtype, jnp.floating)


def _by_jet(bind: Callable[..., list[Any]], operands: list[Pair], order: int) -> Any:
    """By `jet`'s rule for this primitive."""
    places = [i for i, (_, terms) in enumerate(operands) if terms is not None]
    full = [x for x, _ in operands]

    def of_moved(*xs: Any) -> list[Any]:
        return bind(*_with(full, places, xs))

    primals = [full[i] for i in places]
    series = [operands[i][1] for i in places]
    outs, terms = jet.jet(of_moved, primals, series, factorial_scaled=False)
    return list(zip(outs, map(list, terms), strict=True))


def _by_derivative(
    bind: Callable[..., list[Any]], operands: list[Pair], order: int
) -> list[Pair]:
    """By the coefficients of the derivative along the curve."""
    places = [i for i, (_, terms) in enumerate(operands) if terms is not None]
    full = [x for x, _ in operands]
    xs = [full[i] for i in places]
    series: list[list[Array]] = [operands[i][1] or [] for i in places]
    outs = bind(*full)
    real = [i for i, y in enumerate(outs) if jnp.issubdtype(y.dtype, jnp.floating)]

    def derivative(xs: list[Any], ts: list[Any]) -> list[Any]:
        def of_moved(*xs: Any) -> list[Any]:
            ys = bind(*_with(full, places, xs))
            return [ys[i] for i in real]

        return jax.jvp(of_moved, xs, ts)[1]

    speeds = [[(k + 1) * t for k, t in enumerate(terms)] for terms in series]
    if order == 1:
        found: list[Pair] = [(y, None) for y in derivative(xs, [v[0] for v in speeds])]
    else:
        jaxpr = jax.make_jaxpr(derivative)(xs, [v[0] for v in speeds])
        inputs = [(x, s[:-1]) for x, s in zip(xs, series, strict=True)]
        inputs += [(v[0], v[1:]) for v in speeds]
        found = _evaluate(jaxpr, inputs, order - 1)
    results: list[Pair] = [(y, None) for y in outs]
    for i, (first, rest) in zip(real, found, strict=True):
        rest = rest or [jnp.zeros_like(first)] * (order - 1)
        terms = [v / (k + 1) for k, v in enumerate([first, *rest])]
        results[i] = (outs[i], terms)
    return results


def _with(full: list[Any], places: list[int], xs: Sequence[Any]) -> list[Any]:
    """The operands, those at `places` exchanged."""
    changed = list(full)
    for i, x in zip(places, xs, strict=True):
        changed[i] = x
    return changed


# ---- control flow ------------------------------------------------------------------


def _filled(pair: Pair, order: int) -> Pair:
    """With coefficients, if it is a floating-point number; zero of a constant."""
    x, terms = pair
    if terms is None and jnp.issubdtype(jnp.result_type(x), jnp.floating):
        terms = [jnp.zeros_like(x)] * order
    return jnp.asarray(x), terms


def _loop(eqn: Any, operands: list[Pair], order: int) -> list[Pair]:
    """A `scan` that carries the coefficients, too."""
    params = dict(eqn.params)
    constants, carries = _compat.scan_split(params)
    fixed = operands[:constants]
    rest = [_filled(pair, order) for pair in operands[constants:]]
    body = _compat.called_jaxpr(params)

    def step(carry: list[Pair], stacked: list[Pair]) -> Any:
        outs = _evaluate(body, [*fixed, *carry, *stacked], order)
        outs = [_filled(pair, order) for pair in outs]
        return outs[:carries], outs[carries:]

    options = _compat.scan_options(params)
    carry, stacked = lax.scan(step, rest[:carries], rest[carries:], **options)
    return [*carry, *stacked]


def _branch(eqn: Any, operands: list[Pair], order: int) -> list[Pair]:
    """A `cond` or `switch` whose branches give the coefficients, too."""
    (index, _), *rest = operands
    given = [_filled(pair, order) for pair in rest]

    def of(branch: Any) -> Callable[[list[Pair]], list[Pair]]:
        return lambda pairs: [
            _filled(pair, order) for pair in _evaluate(branch, pairs, order)
        ]

    branches = [of(b) for b in _compat.inner_jaxprs(eqn.params)]
    return lax.switch(index, branches, given)
