"""Units: the pixels, patches or tokens that are ranked and removed as a whole.

An array with one value for each unit has as many axes as the input. Along each axis its
size divides the input's, and a unit is a block of the input. For images of shape
`(224, 224, 3)`, `(224, 224, 1)` are pixels and `(14, 14, 1)` patches of 16 by 16; for
embeddings of shape `(tokens, width)`, `(tokens, 1)` are tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxlrp.attribution import _checks as checks
from jaxlrp.evaluation import _checks

__all__ = ["REDUCTIONS", "check", "pool", "spread"]

REDUCTIONS = {"sum": jnp.sum, "max": jnp.max, "mean": jnp.mean}
"""How the values in one unit become one."""


def pool(relevance: Any, window: Sequence[int], how: str = "sum") -> Array:
    """One value for each unit: the sum, maximum or mean over a block.

        P_b = sum over i in block b of R_i

    Args:
      relevance: any shape.
      window: the block's size along each axis, a divisor of the axis; -1 is the whole
        axis. `(1, 1, -1)` makes pixels of an image with channels last.
      how: `"sum"`, `"max"` or `"mean"`.

    Returns:
      An array with the same number of axes, one value for each block.

    Raises:
      TypeError: if `relevance` is no array of real numbers, or `window` is no int.
      ValueError: if `window` does not divide the axes, or `how` is none of its names.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> evaluation.pool(jnp.arange(8.0).reshape(2, 4), (-1, 2)).tolist()
      [[10.0, 18.0]]
    """
    value = _checks.array("relevance", relevance)
    _checks.one_of("how", how, REDUCTIONS)
    sizes = _window(window, value.shape)
    split = [n for s, w in zip(value.shape, sizes, strict=True) for n in (s // w, w)]
    return REDUCTIONS[how](value.reshape(split), axis=tuple(range(1, len(split), 2)))


def spread(units: Array, shape: tuple[int, ...]) -> Array:
    """Values of units at each place of an input of `shape`."""
    for axis, (n, size) in enumerate(zip(units.shape, shape, strict=True)):
        if n not in (1, size):
            units = jnp.repeat(units, size // n, axis=axis)
    return jnp.broadcast_to(units, shape)


def check(name: str, units: Array, shape: tuple[int, ...]) -> None:
    """One value for each block of an input of `shape`."""
    fits = units.ndim == len(shape) and all(
        n and size % n == 0 for n, size in zip(units.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name}: got shape {units.shape}, expected one value for each unit of x: "
            f"as many axes as its shape {shape} has, with sizes that divide it (pool "
            f"makes pixels or patches)"
        )


def _window(window: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    if not isinstance(window, tuple | list) or len(window) != len(shape):
        raise ValueError(
            f"window: got {window!r}, expected one size for each axis of shape {shape}"
        )
    sizes = []
    for w, size in zip(window, shape, strict=True):
        w = size if w == -1 else checks.natural("window", w)
        if size % w:
            raise ValueError(
                f"window: got {tuple(window)}, expected sizes that divide {shape}"
            )
        sizes.append(w)
    return tuple(sizes)
