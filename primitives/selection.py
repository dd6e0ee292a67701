"""Selections: an output element is one of the input elements, chosen by value.

The winner takes all. Ties: `reduce_max` shares evenly, `reduce_window_max` (max
pooling) takes the first of the window, `sort` and `top_k` are stable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp.primitives._book import Entry, Kind, Params, all_nonnegative, enter

__all__ = ["windows"]


def _reduced(params: Params, x: Array, fill: Any) -> Array:
    """The reduced axes, merged into a leading one."""
    axes = tuple(params["axes"])
    x = jnp.moveaxis(x, axes, tuple(range(len(axes))))
    return x.reshape(-1, *x.shape[len(axes) :])


def windows(params: Params, x: Array, fill: Any) -> Array:
    """One slice of the padded operand for each place in the window."""
    window, strides = params["window_dimensions"], params["window_strides"]
    spread, inner = params["window_dilation"], params["base_dilation"]
    edges = [(*p, d - 1) for p, d in zip(params["padding"], inner, strict=True)]
    x = lax.pad(x, jnp.asarray(fill, x.dtype), edges)
    reach = [(n - 1) * d for n, d in zip(window, spread, strict=True)]
    slices = []
    for place in np.ndindex(*window):
        start = [i * d for i, d in zip(place, spread, strict=True)]
        stop = [i + n - r for i, n, r in zip(start, x.shape, reach, strict=True)]
        slices.append(lax.slice(x, start, stop, strides))
    return jnp.stack(slices)


def _dilated(smallest: bool) -> Callable[[Params], Callable[..., Array] | None]:
    """The first winner, where windows have holes and JAX has no derivative."""

    def form(params: Params) -> Callable[..., Array] | None:
        if all(d == 1 for d in (*params["window_dilation"], *params["base_dilation"])):
            return None

        def pool(x: Array) -> Array:
            known = jnp.finfo if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo
            fill = known(x.dtype).max if smallest else known(x.dtype).min
            stack = windows(params, x, fill)
            chosen = jnp.argmin(stack, 0) if smallest else jnp.argmax(stack, 0)
            return jnp.take_along_axis(stack, chosen[None], 0)[0]

        return pool

    return form


_POOL = Entry(Kind.SELECTION, nonnegative=all_nonnegative, candidates=windows)
enter("reduce_window_max", dataclasses.replace(_POOL, form=_dilated(smallest=False)))
enter("reduce_window_min", dataclasses.replace(_POOL, form=_dilated(smallest=True)))
enter(
    "reduce_max reduce_min",
    Entry(Kind.SELECTION, nonnegative=all_nonnegative, candidates=_reduced),
)
enter(
    "cummax cummin",
    Entry(Kind.SELECTION, nonnegative=all_nonnegative, bounds=True),
)
enter("sort top_k approx_top_k", Entry(Kind.SELECTION, nonnegative=all_nonnegative))
# Sums of a pooling's backward pass: the second operand says which element is meant.
enter(
    "select_and_scatter_add select_and_gather_add",
    Entry(
        Kind.SELECTION,
        decides=(1,),
        reason="the second operand only says where relevance goes",
    ),
)
enter(
    "select_and_scatter",
    Entry(Kind.REFUSED, reason="JAX has no derivative for this scattering"),
)
