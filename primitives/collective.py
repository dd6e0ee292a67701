"""Collectives: maps across devices, or along a mapped axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive, primitives

from jaxlrp.primitives._book import (
    Entry,
    Kind,
    Params,
    all_nonnegative,
    enter,
    jointly,
)
from jaxlrp.primitives.structural import Layout, structural

__all__ = []


def _same_layout(params: Params, layout: Layout, shape: Sequence[int]) -> Layout:
    """Axes stay where they are."""
    return layout


def _scattered_layout(params: Params, layout: Layout, shape: Sequence[int]) -> Layout:
    """One axis is cut into parts, one for each device, and is no longer the
    kernel's."""
    k = params["scatter_dimension"]
    part = (((None, shape[k], 1),),) if len(shape) == len(layout) else ()
    return (*layout[:k], *part, *layout[k + 1 :])


def _total(layout: Callable[..., Layout]) -> Entry:
    return Entry(
        Kind.LINEAR,
        linear=jointly,
        nonnegative=all_nonnegative,
        totals=True,
        layout=layout,
    )


# Where the weights of a layer are divided among devices, the layer is all of it: its
# stabiliser acts on the sum.
enter("psum psum_invariant unreduced_psum", _total(_same_layout))
enter("reduce_scatter unreduced_reduce_scatter", _total(_scattered_layout))
enter(
    "all_gather all_gather_invariant all_gather_reduced all_to_all ragged_all_to_all "
    "ppermute",
    structural(),
)
# Casts of what is known about the values on different devices.
enter(
    "pbroadcast pbroadcast_dynamic pvary preduced reduced_vary_cast "
    "vary_unreduced_cast",
    structural(still=True),
)


def _winners(
    bind: Callable, active: Any, operands: Any, shadows: Any, params: dict[str, Any]
) -> tuple[list[Array], list[None]]:
    """The greatest across devices: relevance goes to the winners, in equal parts."""
    (x,) = operands
    (greatest,) = bind(x)
    options = {
        "axis_name": params["axes"],
        "axis_index_groups": params.get("axis_index_groups"),
    }
    won = x == greatest
    number = lax.psum(won.astype(x.dtype), **options)
    return [lax.psum(jnp.where(won, x, 0) / number, **options)], [None]


def _without_derivative(primitive: Primitive) -> Callable[[Params], Callable]:
    """The value alone: JAX has no derivative, and a constant needs none."""
    return lambda params: lambda x: primitive.bind(lax.stop_gradient(x), **params)


GREATEST = Entry(
    Kind.CUSTOM,
    rule=_winners,
    form=_without_derivative(primitives.pmax_p),
    nonnegative=all_nonnegative,
)
enter("pmax", GREATEST)
LEAST = _without_derivative(primitives.pmin_p)
enter("pmin", dataclasses.replace(GREATEST, form=LEAST))
