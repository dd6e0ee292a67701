"""Sums over many evaluations, a few of them at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def accumulator(x: Array) -> Any:
    """The dtype in which sums over samples are taken: at least float32."""
    return jnp.promote_types(x.dtype, jnp.float32)


def sum_over(
    function: Callable[[Any], list[Array]], inputs: Any, chunk: int
) -> list[Array]:
    """The sum of `function` over the leading axis of `inputs`, `chunk` at a time.

    Memory is that of `chunk` evaluations, however many there are.
    """
    count = jax.tree.leaves(inputs)[0].shape[0]
    chunk = min(chunk, count)
    full = count // chunk

    def part(inputs: Any) -> list[Array]:
        values = jax.vmap(function)(inputs)
        return [v.astype(accumulator(v)).sum(0) for v in values]

    def step(total: list[Array], inputs: Any) -> tuple[list[Array], None]:
        return [t + v for t, v in zip(total, part(inputs), strict=True)], None

    head = jax.tree.map(lambda v: v[: full * chunk], inputs)
    head = jax.tree.map(lambda v: v.reshape(full, chunk, *v.shape[1:]), head)
    first = jax.eval_shape(part, jax.tree.map(lambda v: v[0], head))
    total = [jnp.zeros(v.shape, v.dtype) for v in first]
    if full == 1:
        total = part(jax.tree.map(lambda v: v[0], head))
    else:
        total, _ = jax.lax.scan(step, total, head)
    if count % chunk:
        total, _ = step(total, jax.tree.map(lambda v: v[full * chunk :], inputs))
    return total
