"""Relevances, values and gradients at sites, and conditions on what passes there.

An operation is put around the value at each site. It has the value, and in the reverse
pass it reports what passes: the cotangent of an array of zeros alongside it is the
relevance, the value, or the gradient. Where a site lies in a loop, the zeros have an
axis for the loop and are scanned over, so that the cotangents come back stacked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from jaxlrp import _compat
from jaxlrp._names import numbered
from jaxlrp._operations import narrow, wide
from jaxlrp._reading.sites import Site, find_sites, select_parts
from jaxlrp._rewriting.backward import Evaluated, Traced, backward
from jaxlrp._rewriting.environment import Run, Visits
from jaxlrp.composites import Composite

# ---- operations --------------------------------------------------------------------


@jax.custom_vjp
def report(x: Array, t: Array) -> Array:
    """The value `x`; the cotangent of the zeros `t` is `x c`, the relevance."""
    return x


def _report_backward(residuals: tuple[Array, Array], c: Array) -> tuple[Array, Array]:
    x, t = residuals
    # A masked score is -inf and receives nothing: that is zero, not NaN.
    passed = jnp.where(c == 0, 0, wide(x) * wide(c))
    return c, narrow(jnp.real(passed), t.dtype)


report.defvjp(lambda x, t: (x, (x, t)), _report_backward)


@jax.custom_vjp
def report_shadow(shadow: Array, t: Array) -> Array:
    """The zeros `shadow`; the cotangent of the zeros `t` is `r`."""
    return shadow


def _report_shadow_backward(t: Array, r: Array) -> tuple[Array, Array]:
    return r, jnp.real(r).astype(t.dtype)


report_shadow.defvjp(lambda shadow, t: (shadow, t), _report_shadow_backward)


@jax.custom_vjp
def expose(x: Array, value: Array, slope: Array) -> Array:
    """The value `x`; the zeros `value` receive `x`, and `slope` its cotangent."""
    return x


expose.defvjp(lambda x, value, slope: (x, x), lambda x, c: (c, x, c))


@jax.custom_vjp
def expose_both(
    x: Array, reference: Array, value: Array, other: Array, slope: Array
) -> Array:
    """As `expose`; the zeros `other` receive `reference`."""
    return x


def _expose_both_backward(residuals: Any, c: Array) -> Any:
    x, reference = residuals
    return c, _compat.no_cotangent(reference), x, reference, c


expose_both.defvjp(
    lambda x, reference, value, other, slope: (x, (x, reference)), _expose_both_backward
)


@jax.custom_vjp
def admit(x: Array, mask: Array) -> Array:
    """The value `x`; what passes back to it is multiplied by `mask`."""
    return x


def _admit_backward(mask: Array, c: Array) -> tuple[Array, Any]:
    return (c * mask).astype(c.dtype), _compat.no_cotangent(mask)


admit.defvjp(lambda x, mask: (x, mask), _admit_backward)


# ---- relevances --------------------------------------------------------------------

Seed = Callable[[list[Array]], tuple[list[Array], list[Array] | None]]
"""From the leaves of the output to their multipliers, and the relevances in their
shadows or None."""


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked at the sites of a program.

    Attributes:
      captured: the sites whose relevance is wanted.
      conditions: for each address, the factors of what passes: arrays, each with the
        number of leading axes that belong to loops.
      parts: by name, sites of which one iteration is wanted, and its numbers.
    """

    captured: tuple[Site, ...]
    conditions: Mapping[tuple[Any, ...], tuple[tuple[Array, int], ...]]
    parts: Mapping[str, tuple[Site, tuple[int, ...]]] = dataclasses.field(
        default_factory=dict
    )


def ask(
    traced: Traced, capture: Sequence[str], conditions: Mapping[str, Any]
) -> Question:
    """Finds the sites that patterns name.

    Args:
      traced: the function, traced with `keep_calls=False`.
      capture: patterns of sites whose relevance is wanted.
      conditions: by pattern, the factor of the relevance that passes there.

    Returns:
      What is asked, at which values.

    Raises:
      ValueError: for a pattern that names nothing, or a factor of the wrong shape.
    """
    sites = find_sites(traced.reading) if capture or conditions else ()
    captured: dict[str, Site] = {}
    parts: dict[str, tuple[Site, tuple[int, ...]]] = {}
    for pattern in capture:
        for site, index in select_parts(sites, pattern, "capture"):
            if index:
                parts[_name_of_part(site, index)] = site, index
            else:
                captured[site.name] = site
    wanted: dict[tuple[Any, ...], tuple[tuple[Array, int], ...]] = {}
    for pattern, mask in conditions.items():
        for site, index in select_parts(sites, pattern, "conditions"):
            factor = _checked_mask(mask, site, pattern, index)
            wanted[site.address] = (*wanted.get(site.address, ()), factor)
    return Question(tuple(captured.values()), wanted, parts)


def _name_of_part(site: Site, index: tuple[int, ...]) -> str:
    """What a site is called in one iteration, its number among equal names included."""
    name, hash_, number = site.path.partition("#")
    part = numbered(name, index)
    shown = f"{name}[{', '.join(map(str, index))}]" if part is None else part
    return f"{shown}{hash_}{number}"


def _checked_mask(
    mask: Any, site: Site, pattern: str, index: tuple[int, ...] = ()
) -> tuple[Array, int]:
    """A factor as an array, and how many of its axes belong to loops: all or none.

    With an `index` it is the factor in that iteration; it is one in the others.
    """
    try:
        mask = jnp.asarray(mask)
    except (TypeError, ValueError):
        raise TypeError(
            f"conditions[{pattern!r}]: got {mask!r}, expected an array of factors"
        ) from None
    shape, lengths = site.value.aval.shape, site.lengths
    real = jnp.issubdtype(mask.dtype, jnp.floating)
    if not real and not jnp.issubdtype(mask.dtype, jnp.bool_):
        raise TypeError(
            f"conditions[{pattern!r}]: got dtype {mask.dtype}, expected booleans or "
            f"floating-point factors"
        )
    every = mask.ndim == len(shape) + len(lengths) and not index
    loops = len(lengths) if every else 0
    fits = _broadcasts(mask.shape[loops:], shape) and all(
        m in (1, n) for m, n in zip(mask.shape[:loops], lengths, strict=False)
    )
    if not fits:
        each = f", or {site.shape} for each iteration" if lengths and not index else ""
        raise ValueError(
            f"conditions[{pattern!r}]: got shape {mask.shape}, expected one that "
            f"broadcasts to that of {site.name!r}, {shape}{each}"
        )
    if index:
        ones = jnp.ones((*lengths, *mask.shape), mask.dtype)
        return ones.at[index].set(mask), len(lengths)
    return jnp.broadcast_to(mask, (*lengths[:loops], *mask.shape[loops:])), loops


def _broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    if len(shape) > len(to):
        return False
    last = to[len(to) - len(shape) :]
    return all(m in (1, n) for m, n in zip(shape, last, strict=True))


def backward_at(
    traced: Traced, run: Run, question: Question
) -> tuple[Evaluated, Callable[[Any], dict[str, Array]]]:
    """Evaluates a traced function and prepares a reverse pass that answers questions.

    Args:
      traced: the function.
      run: the rules.
      question: what is asked, from `ask`.

    Returns:
      What `backward` returns, and a function from the cotangents of its taps to the
      relevances by site name.
    """
    parts = [site for site, _ in question.parts.values()]
    captured = {s.address: s for s in (*question.captured, *parts)}
    numbers = {a: i for i, a in enumerate({**captured, **question.conditions})}
    fixed = {
        numbers[a]: [m for m, loops in masks if not loops]
        for a, masks in question.conditions.items()
    }
    looped = {
        numbers[a]: [m for m, loops in masks if loops]
        for a, masks in question.conditions.items()
    }

    def visit(number: int, arrays: Any, x: Array, shadow: Any) -> tuple[Array, Any]:
        zeros, masks = arrays
        if zeros is not None:
            x = report(x, zeros)
            shadow = None if shadow is None else report_shadow(shadow, zeros)
        for mask in (*fixed.get(number, ()), *masks):
            x = admit(x, mask)
            shadow = None if shadow is None else admit(shadow, mask)
        return x, shadow

    def with_visits(taps: Mapping[int, Array]) -> Run:
        if not numbers:
            return run
        arrays = {n: (taps.get(n), looped.get(n, [])) for n in numbers.values()}
        return dataclasses.replace(run, visits=Visits(visit, numbers, arrays))

    taps = {numbers[a]: _zeros(s, s.dtype) for a, s in captured.items()}
    once = backward(traced, with_visits, taps)

    def by_name(collected: Mapping[int, Array]) -> dict[str, Array]:
        whole = {s.name: collected[numbers[s.address]] for s in question.captured}
        return whole | {
            name: collected[numbers[s.address]][index]
            for name, (s, index) in question.parts.items()
        }

    return once, by_name


def _zeros(site: Site, dtype: Any) -> Array:
    """Zeros for what a site holds, on the devices where its values are."""
    sharding = site.value.aval.sharding
    if not any(sharding.spec):
        return jnp.zeros(site.shape, dtype)
    spec = PartitionSpec(*[None] * len(site.lengths), *sharding.spec)
    with jax.sharding.use_abstract_mesh(sharding.mesh):
        return jnp.zeros(site.shape, dtype, device=NamedSharding(sharding.mesh, spec))


def relevances(
    traced: Traced, composite: Composite, sites: Sequence[Site], seed: Seed
) -> tuple[list[Array], dict[str, Array]]:
    """The relevance of the attributed leaves and of the values at sites.

    `R_v = v c_v + r_v` for each value `v` at a site, from the reverse pass that gives
    the relevance of the inputs.

    Args:
      traced: the function, traced with `keep_calls=False`.
      composite: the rules; of the kinds that it was traced with.
      sites: from `find_sites(traced.reading)`, those with no `problem`.
      seed: from the leaves of the output to their multipliers and the relevances in
        their shadows, or None for those: `partial(_backward.seed, target, out_tree)`.

    Returns:
      The relevances of the attributed leaves, and those of the sites by name, of the
      shape `site.shape`.
    """
    once, by_name = backward_at(traced, Run(composite), Question(tuple(sites), {}))
    leaves, collected = once.relevance(*seed(once.outs))
    return leaves, by_name(collected)


def values_and_gradients(
    traced: Traced,
    sites: Sequence[Site],
    multipliers: Sequence[Array] | Callable[[list[Array]], Sequence[Array]],
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The values at sites, and the gradient of `sum(multipliers * outputs)` there.

    The gradient is the network's own, JAX's, without rules of LRP: `d/dv sum(m y)`.

    Args:
      traced: the function, traced with `keep_calls=False`; its composite does not
        matter.
      sites: from `find_sites(traced.reading)`, those with no `problem`.
      multipliers: an array for each leaf of the output, or a function from those leaves
        to them.

    Returns:
      `(values, gradients)` by site name, of the shape `site.shape`. In a branch that
      was not taken both are zero.
    """
    numbers = {s.address: i for i, s in enumerate(sites)}
    zeros = {numbers[s.address]: _zeros(s, s.value.aval.dtype) for s in sites}

    def visit(number: int, arrays: Any, x: Array, shadow: Any) -> tuple[Array, Any]:
        return expose(x, *arrays), shadow

    def with_visits(taps: Mapping[int, Any]) -> Run:
        visits = Visits(visit, numbers, taps)
        return Run(Composite("own"), visits=visits, without_rules=True)

    once = backward(traced, with_visits, {n: (t, t) for n, t in zeros.items()})
    seeds = multipliers(once.outs) if callable(multipliers) else multipliers
    _, collected = once.relevance(list(seeds), None)
    found = {s.name: collected[numbers[s.address]] for s in sites}
    values = {name: value for name, (value, _) in found.items()}
    return values, {name: slope for name, (_, slope) in found.items()}
