"""Sums and products over axes and windows.

Sums are linear, so relevance is shared in proportion: `R_j = x_j R / sum_k x_k`, as a
multiplier JAX's transpose, without the division. A product of `n` gives `R / n` to each
factor.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxlrp.primitives._book import (
    Active,
    Entry,
    Kind,
    Params,
    all_nonnegative,
    enter,
    first_nonnegative,
    jointly,
)
from jaxlrp.primitives.selection import windows


def _reduced_size(params: Params, active: Active) -> Callable[..., Any]:
    """How many factors each product has."""
    return lambda x: math.prod(x.shape[axis] for axis in params["axes"])


def _position(params: Params, active: Active) -> Callable[..., Array]:
    """The k-th product has k factors."""

    def degree(x: Array) -> Array:
        axis, size = params["axis"], x.shape[params["axis"]]
        shape = [size if i == axis else 1 for i in range(x.ndim)]
        counted = lax.broadcasted_iota(jnp.float32, shape, axis)
        return size - counted if params["reverse"] else counted + 1

    return degree


def _operation(params: Params) -> str:
    """The name of the reduction's body: `add`, `mul`, `max`, `min`, or another."""
    body = getattr(params["jaxpr"], "jaxpr", params["jaxpr"])
    if len(body.eqns) != 1 or len(body.invars) != 2:
        return ""
    (equation,) = body.eqns
    known = equation.primitive.name in _OPERATIONS
    plain = set(map(id, equation.invars)) == set(map(id, body.invars))
    return equation.primitive.name if known and plain else ""


_OPERATIONS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "add": (lax.reduce_sum, lax.add),
    "mul": (lax.reduce_prod, lax.mul),
    "max": (lax.reduce_max, lax.max),
    "min": (lax.reduce_min, lax.min),
}


def _by_name(params: Params) -> Callable[..., Sequence[Array]] | None:
    """In terms of the named reductions, whose start JAX can differentiate."""
    if not _operation(params):
        return None
    over, then = _OPERATIONS[_operation(params)]
    return lambda x, start: [then(over(x, params["dimensions"]), start)]


def _degree_of_reduction(params: Params, active: Active) -> Callable[..., Any] | None:
    operation = _operation(params)
    if not operation:
        return None
    if operation != "mul":
        return lambda x, start: 1
    sizes = params["dimensions"]
    return lambda x, start: (
        math.prod(x.shape[axis] for axis in sizes) * active[0] + active[1]
    )


def _windows_by_name(params: Params) -> Callable[..., Sequence[Array]] | None:
    """In terms of the windows: each begins with the start, once."""
    operation = _operation(params)
    if not operation:
        return None
    _, then = _OPERATIONS[operation]

    def reduced(x: Array, start: Array) -> list[Array]:
        inside = windows(params, jnp.ones(x.shape, bool), False)
        neutral = {"add": 0, "mul": 1}.get(operation, start)
        stack = jnp.where(inside, windows(params, x, 0), neutral).astype(x.dtype)
        start = jnp.broadcast_to(start, stack.shape[1:])
        return [functools.reduce(then, stack, start)]

    return reduced


def _degree_of_window(params: Params, active: Active) -> Callable[..., Any] | None:
    operation = _operation(params)
    if not operation:
        return None
    if operation != "mul":
        return lambda x, start: 1

    def degree(x: Array, start: Array) -> Array:
        inside = windows(params, jnp.ones(x.shape), 0).sum(0)
        return inside * active[0] + active[1]

    return degree


def _other_function(params: Params, active: Active) -> str:
    if _operation(params):
        return ""
    return "JAX has no reverse derivative for windows of an arbitrary function"


enter(
    "reduce_sum reduce_window_sum",
    Entry(Kind.LINEAR, linear=jointly, nonnegative=all_nonnegative, sums=True),
)
enter("cumsum", Entry(Kind.LINEAR, linear=jointly, nonnegative=all_nonnegative))
enter(
    "reduce_prod",
    Entry(
        Kind.HOMOGENEOUS,
        role="product",
        degree=_reduced_size,
        nonnegative=first_nonnegative,
    ),
)
enter(
    "cumprod",
    Entry(
        Kind.HOMOGENEOUS,
        role="product",
        degree=_position,
        nonnegative=first_nonnegative,
    ),
)
enter(
    "cumlogsumexp",
    Entry(Kind.TAYLOR, reason="softmax times the input, as in log-softmax"),
)
ANY = "of sums, products, maxima and minima; of another function, the gradient"
enter(
    "reduce",
    Entry(Kind.HOMOGENEOUS, degree=_degree_of_reduction, form=_by_name, reason=ANY),
)
enter(
    "reduce_window",
    Entry(
        Kind.HOMOGENEOUS,
        degree=_degree_of_window,
        form=_windows_by_name,
        refuses=_other_function,
        reason="of sums, products, maxima and minima",
    ),
)
