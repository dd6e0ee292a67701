"""Indexing by integers: the indices decide where relevance goes.

They receive none, unless they are what is attributed (token ids) and what they look up
is not.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
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
    Signs,
    enter,
    first_nonnegative,
    only,
    same_axes,
)

__all__ = []


def _gathered(
    bind: Callable, params: Params, operands: Any, position: int, relevance: Array
) -> Array:
    """What each index has taken out: a slice of the operand."""
    return relevance.sum(params["dimension_numbers"].offset_dims)


def _sliced(
    bind: Callable, params: Params, operands: Any, position: int, relevance: Array
) -> Array:
    """A single slice."""
    return relevance.sum()


def _put_in(bind: Callable, operands: Any, position: int, received: Array) -> Array:
    """What each element of the operand that was put in received, by its transpose."""
    full = list(operands)
    full[0] = jnp.zeros(operands[0].shape, received.dtype)

    def put(update: Array) -> Array:
        return bind(*full[:position], update, *full[position + 1 :])[0]

    update = jnp.zeros(operands[position].shape, received.dtype)
    return jax.vjp(put, update)[1](received)[0]


def _updated(
    bind: Callable, params: Params, operands: Any, position: int, relevance: Array
) -> Array:
    """What remains of a slice that was put in."""
    return _put_in(bind, operands, 1, relevance).sum()


def _scattered(
    bind: Callable, params: Params, operands: Any, position: int, relevance: Array
) -> Array:
    """What remains of the slice that each index has put in."""
    put = _put_in(bind, operands, 2, relevance)
    return put.sum(params["dimension_numbers"].update_window_dims)


def _added(
    sign: int,
    bind: Callable,
    params: Params,
    operands: Any,
    position: int,
    relevance: Array,
) -> Array:
    """The part of the sum that the slice of each index makes.

    Where the sum is one of symbols, as of an offset and ids, all of it is theirs.
    """
    where, indices, updates = operands
    how = _scattering(params)  # of floats, whatever is counted

    def add(x: Array, indices: Array, update: Array) -> list[Array]:
        return [lax.scatter_add(x, indices, update, **how)]

    if position == 0:
        return relevance
    if position == 2:
        return _put_in(add, operands, 2, relevance)
    update = jnp.asarray(updates, relevance.dtype)
    y = bind(where, indices, updates)[0].astype(relevance.dtype)
    share = jnp.where(y == 0, 0, relevance / jnp.where(y == 0, 1, y))
    put = sign * update * _put_in(add, operands, 2, share)
    return put.sum(params["dimension_numbers"].update_window_dims)


def _scattering(params: Params) -> dict[str, Any]:
    """The parameters that all scatters share."""
    names = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    return {name: params[name] for name in names}


def _combined_in(params: Params, dtype: Any) -> Params:
    """The function that combines what was there and what is added, of another type."""
    body = params["update_jaxpr"]
    if body is None:
        return {}
    number = jax.ShapeDtypeStruct((), dtype)
    combine = jaxpr_as_fun(ClosedJaxpr(body, params["update_consts"]))
    closed = jax.make_jaxpr(combine)(number, number)
    return {"update_jaxpr": closed.jaxpr, "update_consts": tuple(closed.consts)}


def _factors(params: Params, active: Active) -> Callable[..., Array]:
    """How many active factors each element of the product has."""

    def degree(x: Array, indices: Array, updates: Array) -> Array:
        none, ones = jnp.zeros(x.shape), jnp.ones(updates.shape)
        written = lax.scatter_add(none, indices, ones, **_scattering(params))
        return written * active[2] + active[0]

    return degree


def _multiplied(params: Params) -> Callable[..., Array]:
    """JAX differentiates it by factors only where no two meet."""
    how = _scattering(params)

    @jax.custom_jvp
    def product(x: Array, indices: Array, updates: Array) -> Array:
        return lax.scatter_mul(x, indices, updates, **how)

    @product.defjvp
    def _(primals, tangents):
        (x, indices, updates), (dx, _, du) = primals, tangents
        y = product(x, indices, updates)
        # The product of the others is y / u; where u = 0, no relevance passes.
        share = jnp.where(updates == 0, 0, du / jnp.where(updates == 0, 1, updates))
        by_factors = lax.scatter_add(jnp.zeros_like(y), indices, share, **how)
        return y, lax.scatter_mul(dx, indices, updates, **how) + y * by_factors

    return product


def _gathers_nonnegative(signs: Signs, params: Params) -> bool:
    """What lies out of bounds may be filled with a value of any sign."""
    fill = params.get("fill_value")
    return signs[0] and (fill is None or fill >= 0)


def _kept_by_gather(
    params: Params, position: int, shapes: Shapes, result: Shape
) -> dict[int, int]:
    """What is not indexed keeps its axes, and so do the indices."""
    numbers = params["dimension_numbers"]
    if position == 1:
        batch = [o for o in range(len(result)) if o not in numbers.offset_dims]
        return dict(zip(batch, range(len(shapes[1]) - 1), strict=True))
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [i for i in range(len(shapes[0])) if i not in gone]
    return dict(zip(numbers.offset_dims, kept, strict=True))


def _applies_a_function(params: Params, active: Active) -> str:
    """`x.at[i].apply(f)` is this primitive, too."""
    why = (
        "JAX has no derivative for a function that is applied in place "
        "(x.at[i].apply(f)); use x.at[i].set(f(x[i]))"
    )
    return "" if params["update_jaxpr"] is None else why


enter(
    "gather",
    Entry(
        Kind.STRUCTURAL,
        linear=only(0),
        nonnegative=_gathers_nonnegative,
        origin=_gathered,
        axes=_kept_by_gather,
    ),
)
enter(
    "dynamic_slice",
    Entry(
        Kind.STRUCTURAL,
        linear=only(0),
        nonnegative=first_nonnegative,
        origin=_sliced,
        axes=same_axes,
    ),
)
# `operand.at[...].set(update)`: both carry relevance, each where it remains.
enter(
    "dynamic_update_slice",
    Entry(Kind.STRUCTURAL, linear=only(0, 1), origin=_updated, axes=same_axes),
)
enter(
    "scatter",
    Entry(
        Kind.STRUCTURAL,
        linear=only(0, 2),
        origin=_scattered,
        refuses=_applies_a_function,
    ),
)
ADDED, SUBTRACTED = (functools.partial(_added, sign) for sign in (1, -1))
_SUMMED = Entry(Kind.LINEAR, linear=only(0, 2), origin=ADDED, of_dtype=_combined_in)
enter("scatter-add", _SUMMED)
enter("scatter-sub", dataclasses.replace(_SUMMED, origin=SUBTRACTED))
enter(
    "scatter-mul",
    Entry(
        Kind.HOMOGENEOUS,
        linear=only(0),
        role="product",
        degree=_factors,
        form=_multiplied,
    ),
)
enter(
    "scatter-min scatter-max",
    Entry(Kind.SELECTION, bounds=True, decides=(1,), of_dtype=_combined_in),
)
