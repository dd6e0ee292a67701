"""How relevance gets from a site to the one below it: a program's parts as matrices.

At each site what arrives is reported, and something else is sent on in its place. With
a unit vector sent on at every site, one reverse pass gives a column of the matrix of
each part of the program, from a site to the one below it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp._reading.sites import Site
from jaxlrp._rewriting.backward import Traced, backward
from jaxlrp._rewriting.environment import Run, Visits

Sent = tuple[Array, Array]
"""A message at a site, a multiplier and a relevance at the shadow: each of the shape
`Site.shape`."""


@jax.custom_vjp
def replace(x: Array, arriving: Array, leaving: Array) -> Array:
    """The value `x`; the zeros `arriving` receive its cotangent, `x` gets `leaving`."""
    return x


def _replace_backward(leaving: Array, c: Array) -> tuple[Array, Array, Any]:
    return leaving.astype(c.dtype), c, _compat.no_cotangent(leaving)


replace.defvjp(lambda x, arriving, leaving: (x, leaving), _replace_backward)


def transfers(
    traced: Traced,
    run: Run,
    sites: Sequence[Site],
    seed: Callable[..., Any],
    leaving: Mapping[str, Sent],
) -> dict[str, Sent]:
    """What arrives at each site when given messages leave those above it.

    Args:
      traced: the function, traced with `keep_calls=False`.
      run: the rules.
      sites: those at which the program is cut.
      seed: from the leaves of the output to their multipliers, and the relevances in
        their shadows or None.
      leaving: by name, what leaves a site downwards.

    Returns:
      By name, what arrives at a site from above: what left the site above it, or at the
      last one the seed. Where a value has no shadow its second part is zero.
    """
    numbers = {s.address: i for i, s in enumerate(sites)}
    sent = {numbers[s.address]: leaving[s.name] for s in sites}
    zeros = {n: jax.tree.map(jnp.zeros_like, both) for n, both in sent.items()}

    def visit(number: int, arrays: Any, x: Array, shadow: Any) -> tuple[Array, Any]:
        (of_value, of_shadow), (c, r) = arrays
        x = replace(x, of_value, c)
        shadow = None if shadow is None else replace(shadow, of_shadow, r)
        return x, shadow

    def with_visits(taps: Mapping[int, Sent]) -> Run:
        arrays = {n: (taps[n], sent[n]) for n in taps}
        return dataclasses.replace(run, visits=Visits(visit, numbers, arrays))

    once = backward(traced, with_visits, zeros)
    _, collected = once.relevance(*seed(once.outs))
    return {s.name: collected[numbers[s.address]] for s in sites}
