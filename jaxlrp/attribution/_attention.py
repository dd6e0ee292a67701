"""What the attention methods share: heads, layers, products over layers, rows."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxlrp._reading.sites import Site
from jaxlrp.attribution import _intermediate
from jaxlrp.attribution._chunks import accumulator

HeadAxis = int | tuple[int, ...] | None

Layer = tuple[Site, Array]
"""A matrix over tokens, and the map that it comes from."""


def check_head_axis(head_axis: Any) -> None:
    """The axis or axes of heads, counted from the end; None for none."""
    axes = _axes(head_axis)
    if any(isinstance(a, bool) or not isinstance(a, int) or a > -3 for a in axes):
        raise ValueError(
            f"head_axis: got {head_axis!r}, expected ints <= -3 or None: axes are "
            f"counted from the end, and the last two are queries and keys"
        )


def _axes(head_axis: HeadAxis) -> tuple[Any, ...]:
    if head_axis is None:
        return ()
    return head_axis if isinstance(head_axis, tuple) else (head_axis,)


def mean_over_heads(name: str, attention: Array, head_axis: HeadAxis) -> Array:
    """Heads averaged, in at least float32."""
    axes = _axes(head_axis)
    least = max((-a for a in axes), default=2)
    if attention.ndim < least:
        raise ValueError(
            f"head_axis: got {head_axis!r}, but {name!r} has shape {attention.shape}"
        )
    return attention.astype(accumulator(attention)).mean(axes)


def weighted(
    sites: Sequence[Site],
    values: Mapping[str, Array],
    gradients: Mapping[str, Array],
    head_axis: HeadAxis,
) -> list[Layer]:
    """`mean_h max(0, value * gradient)` of each map, in the order in which they run."""
    layers = []
    for (site, value), (_, gradient) in zip(
        _intermediate.in_order(sites, values),
        _intermediate.in_order(sites, gradients),
        strict=True,
    ):
        wide = accumulator(value)
        product = jnp.maximum(value.astype(wide) * gradient.astype(wide), 0)
        layers.append((site, mean_over_heads(site.name, product, head_axis)))
    return layers


def check_square(layers: Sequence[Layer]) -> None:
    """All maps are of one set of tokens upon itself."""
    tokens = {n for _, layer in layers for n in layer.shape[-2:]}
    if len(tokens) > 1:
        shapes = ", ".join(f"{s.name!r}: {a.shape[-2:]}" for s, a in layers)
        raise ValueError(
            f"maps: expected maps of one set of tokens upon itself, got (queries, keys)"
            f" {shapes}; choose them by `maps`, or use `attention_relevancy` with "
            f"`streams`"
        )


def rolled(
    layers: Sequence[Layer], scale: Any, share: Any, normalise: bool, start: int
) -> Array:
    """`B_L ... B_start`, `B = scale A + share I`; `normalise`: rows add up to one."""
    check_square(layers)
    result = None
    for _, layer in layers[chosen("start", start, len(layers)) :]:
        mixed = scale * layer + share * jnp.eye(layer.shape[-1], dtype=layer.dtype)
        if normalise:
            mixed = mixed / mixed.sum(-1, keepdims=True)
        result = mixed if result is None else mixed @ result
    assert result is not None  # `chosen` leaves at least one layer
    return result


def chosen(name: str, number: Any, count: int) -> int:
    """A number in [-count, count), as one in [0, count)."""
    try:
        index = operator.index(number)
    except TypeError:
        raise TypeError(f"{name}: got {number!r}, expected an int") from None
    if not -count <= index < count:
        raise ValueError(f"{name}: got {number!r}, expected one in [{-count}, {count})")
    return index % count


def rows(matrix: Array, token: int | None) -> Array:
    """The row of one token, or the whole matrix."""
    if token is None:
        return matrix
    return matrix[..., chosen("token", token, matrix.shape[-2]), :]
