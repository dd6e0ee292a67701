"""Sums and products over axes and windows.

Sums are linear, so relevance is shared in proportion: `R_j = x_j R / sum_k x_k`, as a
multiplier JAX's transpose, without the division. A product of `n` gives `R / n` to each
factor.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun  # type: ignore[attr-defined]

from jaxlrp.primitives._book import (
    Active,
    Entry,
    Kind,
    Params,
    Shape,
    Shapes,
    all_nonnegative,
    enter,
    first_nonnegative,
    jointly,
    same_axes,
)
from jaxlrp.primitives.selection import windows

__all__ = []


def _reduced_size(params: Params, active: Active) -> Callable[..., Any]:
    """How many factors each product has."""
    return lambda x: math.prod(x.shape[axis] for axis in params["axes"])


def _not_reduced(
    params: Params, position: int, shapes: Shapes, result: Shape
) -> dict[int, int]:
    """The axes that are left."""
    kept = [i for i in range(len(shapes[0])) if i not in params["axes"]]
    return dict(enumerate(kept))


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


def _in_pairs(
    params: Params, stacks: Sequence[Array], starts: Sequence[Array]
) -> list[Array]:
    """Reduces the first axis, after the start, by the body: neighbours in pairs."""
    body = params["jaxpr"]
    if not hasattr(body, "consts"):  # of windows, in older versions
        body = ClosedJaxpr(body, params["consts"])
    function = jax.vmap(jaxpr_as_fun(body))

    def combine(xs: Sequence[Array], ys: Sequence[Array]) -> list[Array]:
        results = function(*(v.reshape(-1) for v in (*xs, *ys)))
        return [r.reshape(x.shape) for r, x in zip(results, xs, strict=True)]

    values = [
        jnp.concatenate([jnp.broadcast_to(start, (1, *x.shape[1:])), x])
        for x, start in zip(stacks, starts, strict=True)
    ]
    while (count := values[0].shape[0]) > 1:
        even = count - count % 2
        pairs = combine([v[:even:2] for v in values], [v[1::2] for v in values])
        rest = [v[even:] for v in values]
        values = [jnp.concatenate(both) for both in zip(pairs, rest, strict=True)]
    return [v[0] for v in values]


def _split(operands: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
    """The arrays, and as many starts after them."""
    half = len(operands) // 2
    return operands[:half], operands[half:]


def _reduced(params: Params) -> Callable[..., Sequence[Array]]:
    """In terms that JAX can differentiate, in the start and in several arrays too."""
    axes = tuple(params["dimensions"])
    if _operation(params):
        over, then = _OPERATIONS[_operation(params)]
        return lambda x, start: [then(over(x, axes), start)]

    def reduced(*operands: Array) -> list[Array]:
        xs, starts = _split(operands)
        front = tuple(range(len(axes)))
        stacks = [jnp.moveaxis(x, axes, front) for x in xs]
        stacks = [x.reshape(-1, *x.shape[len(axes) :]) for x in stacks]
        return _in_pairs(params, stacks, starts)

    return reduced


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


def _reduced_windows(params: Params) -> Callable[..., Sequence[Array]]:
    """In terms of the windows: each begins with the start, once."""
    operation = _operation(params)

    def stack(x: Array, fill: Any) -> Array:
        inside = windows(params, jnp.ones(x.shape, bool), False)
        return jnp.where(inside, windows(params, x, 0), fill).astype(x.dtype)

    def reduced(*operands: Array) -> list[Array]:
        xs, starts = _split(operands)
        if not operation:
            stacks = [stack(x, start) for x, start in zip(xs, starts, strict=True)]
            return _in_pairs(params, stacks, starts)
        (x,), (start,) = xs, starts
        values = stack(x, {"add": 0, "mul": 1}.get(operation, start))
        start = jnp.broadcast_to(start, values.shape[1:])
        return [functools.reduce(_OPERATIONS[operation][1], values, start)]

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


_SUM = Entry(Kind.LINEAR, linear=jointly, nonnegative=all_nonnegative, sums=True)
enter("reduce_sum", dataclasses.replace(_SUM, axes=_not_reduced))
enter("reduce_window_sum", _SUM)
enter(
    "cumsum",
    Entry(Kind.LINEAR, linear=jointly, nonnegative=all_nonnegative, axes=same_axes),
)
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
    Entry(
        Kind.TAYLOR,
        logarithm=True,
        reason="softmax times the input, as in log-softmax",
    ),
)
ANY = "of sums, products, maxima and minima; of another function, the gradient"
enter(
    "reduce",
    Entry(Kind.HOMOGENEOUS, degree=_degree_of_reduction, form=_reduced, reason=ANY),
)
enter(
    "reduce_window",
    Entry(
        Kind.HOMOGENEOUS, degree=_degree_of_window, form=_reduced_windows, reason=ANY
    ),
)
