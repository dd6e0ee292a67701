"""Selections: an output element is one of the input elements, chosen by value.

The winner takes all. Ties: `reduce_max` shares evenly, `reduce_window_max` (max
pooling) takes the first of the window, `sort` and `top_k` are stable.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp.primitives._book import Entry, Kind, Params, all_nonnegative, enter


def _reduced(params: Params, x: Array, fill: Any) -> Array:
    """The reduced axes, put together in front."""
    axes = tuple(params["axes"])
    x = jnp.moveaxis(x, axes, tuple(range(len(axes))))
    return x.reshape(-1, *x.shape[len(axes) :])


def _windows(params: Params, x: Array, fill: Any) -> Array:
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


enter(
    "reduce_window_max reduce_window_min",
    Entry(Kind.SELECTION, nonnegative=all_nonnegative, candidates=_windows),
)
enter(
    "reduce_max reduce_min",
    Entry(Kind.SELECTION, nonnegative=all_nonnegative, candidates=_reduced),
)
enter(
    "cummax cummin sort top_k approx_top_k",
    Entry(Kind.SELECTION, nonnegative=all_nonnegative),
)
enter(
    "pmax pmin",
    Entry(Kind.REFUSED, reason="JAX has no derivative for a maximum across devices"),
)
