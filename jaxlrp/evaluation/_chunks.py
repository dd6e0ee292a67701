"""Many evaluations, a few of them at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def map_over(function: Callable[[Array], Any], inputs: Array, chunk: int) -> Any:
    """`function` of each entry along the leading axis, at most `chunk` at once.

    Chunks have one size, and the last is filled up with its last entry: what `function`
    calls, a network maybe, is compiled once.
    """
    number = inputs.shape[0]
    size = math.ceil(number / math.ceil(number / chunk))
    missing = -number % size
    filled = jnp.concatenate([inputs, inputs[-1:].repeat(missing, 0)])
    values = lax.map(function, filled, batch_size=size)
    return jax.tree.map(lambda v: v[:number], values)
