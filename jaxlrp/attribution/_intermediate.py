"""Intermediate values of a call: where they are, and their gradients and relevances."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat, _targets, _trace
from jaxlrp._program.bodies import bodies_of
from jaxlrp._reading.sites import Site, find_sites, select
from jaxlrp._rewriting import capture
from jaxlrp._rewriting.backward import Traced, seed
from jaxlrp._trace import ArgNums
from jaxlrp.attribution._call import Call
from jaxlrp.composites import Composite, Proportional


def find(
    call: Call, pattern: str, name: str, argnums: ArgNums, composite: Composite | None
) -> tuple[Traced, list[Site]]:
    """The call, read, and its sites that a pattern names.

    Without a composite only the network's own derivative can be asked for, and no
    primitive needs a rule.
    """
    if not isinstance(pattern, str):
        raise TypeError(f"{name}: got {pattern!r}, expected a pattern of names")
    args, kwargs = call.arguments(call.xs)
    argnums = _trace.from_front(argnums, len(args))
    traced = _trace.trace(
        call.function,
        args,
        kwargs,
        composite or Proportional(),
        argnums,
        False,
        shadow_outputs=composite is not None,
        strict=composite is not None,
        keep_calls=False,
        by_scope=True,
    )
    return traced, list(select(find_sites(traced.reading), pattern, name))


def own(
    traced: Traced, sites: Sequence[Site], target: Any
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Values at sites, and the gradients of the score, by site name."""

    def multipliers(outs: list[Array]) -> list[Array]:
        out = jax.tree.unflatten(traced.out_tree, outs)
        return jax.tree.leaves(_targets.weights(target, out))

    return capture.values_and_gradients(traced, sites, multipliers)


def values(traced: Traced, sites: Sequence[Site]) -> dict[str, Array]:
    """Values at sites alone, by site name."""

    def nothing(outs: list[Array]) -> list[Array]:
        return [jnp.zeros_like(y) for y in outs]

    return capture.values_and_gradients(traced, sites, nothing)[0]


def relevances(
    traced: Traced, sites: Sequence[Site], composite: Composite, target: Any
) -> dict[str, Array]:
    """Relevances at sites by name, from a relevance of one at the target."""

    def ones(out: Any) -> Any:
        return _targets.weights(target, out)

    of_ones = functools.partial(seed, ones, traced.out_tree)
    return capture.relevances(traced, composite, sites, of_ones)[1]


def in_order(
    sites: Sequence[Site], arrays: Mapping[str, Array]
) -> list[tuple[Site, Array]]:
    """The values of sites as they follow on each other when the program runs.

    A value in a loop is taken apart into its iterations.
    """
    return [(s, arrays[s.name][index]) for s, index in _run(sites, 0, ())]


def _run(
    sites: Sequence[Site], depth: int, index: tuple[int, ...]
) -> list[tuple[Site, tuple[int, ...]]]:
    """Sites, each with the numbers of the iterations around it."""
    found = []
    for step, inside in _together(sites, lambda s: s.address[2 * depth]):
        if len(inside[0].address) == 2 * depth + 1:
            found += [(s, index) for s in inside]
            continue
        if bodies_of(step.main).flow != "scan":
            found += _run(inside, depth + 1, index)
            continue
        for i in _compat.iterations(step.main.params):
            found += _run(inside, depth + 1, (*index, i))
    return found


def _together(
    sites: Sequence[Site], of: Callable[[Site], Any]
) -> list[tuple[Any, list[Site]]]:
    """Neighbours that have the same `of`, which need not be comparable by value."""
    groups: list[tuple[Any, list[Site]]] = []
    for site in sites:
        if groups and groups[-1][0] is of(site):
            groups[-1][1].append(site)
        else:
            groups.append((of(site), [site]))
    return groups
