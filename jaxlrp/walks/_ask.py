"""A function, traced, and what passes its levels."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp import _targets
from jaxlrp._arguments import axis as axis_number
from jaxlrp._operations import wide
from jaxlrp._reading.sites import Site
from jaxlrp._rewriting.backward import Traced, seed
from jaxlrp._rewriting.capture import Question, backward_at, values_and_gradients
from jaxlrp._rewriting.environment import Run
from jaxlrp._rewriting.transfers import transfers
from jaxlrp._trace import ArgNums, checked, trace
from jaxlrp.composites import Composite
from jaxlrp.walks._levels import Level, find_levels
from jaxlrp.walks._search import Chain

Axis = int | Sequence[int]


@dataclasses.dataclass(frozen=True)
class Asked:
    """A function, traced, whose walks are asked for."""

    traced: Traced
    composite: Composite
    target: Any
    levels: tuple[Level, ...]

    @property
    def nodes(self) -> int:
        """How many nodes each level has."""
        return self.levels[0].nodes

    @property
    def sites(self) -> tuple[Site, ...]:
        """The values that the levels are of."""
        return tuple({v.site.address: v.site for v in self.levels}.values())

    def passing(self, masks: Array) -> Array:
        """What passes the first level, by node, with factors (levels, nodes)."""
        conditions = {
            site.address: (self._condition(site, masks),) for site in self.sites
        }
        first = self.levels[0]
        question = Question((first.site,), conditions)
        once, by_name = backward_at(self.traced, Run(self.composite), question)
        _, collected = once.relevance(*self.seed(once.outs))
        found = by_name(collected)[first.site.name][first.index]
        by_node = jnp.moveaxis(wide(found), first.axis, 0)
        return by_node.reshape(self.nodes, -1).sum(-1)

    def seed(self, outs: list[Array]) -> Any:
        """Where the relevance begins."""
        return seed(self.target, self.traced.out_tree, outs)

    def of_sets(self, factors: Array, chunk: int) -> Array:
        """What passes with the same factors on each level: (sets, nodes) to (sets,)."""
        count = len(self.levels)

        def one(mask: Array) -> Array:
            return self.passing(jnp.broadcast_to(mask, (count, self.nodes))).sum()

        return over(one, factors, chunk)

    def _condition(self, site: Site, masks: Array) -> tuple[Array, int]:
        """The factors at a value: with an axis for each loop around it, all or none."""
        rows = [i for i, v in enumerate(self.levels) if v.site.address == site.address]
        loops, axis = len(site.lengths), self.levels[rows[0]].axis
        shape = [1] * len(site.value.aval.shape)
        shape[axis] = self.nodes
        if not loops:
            return masks[rows[0]].reshape(shape), 0
        every_one = jnp.ones((*site.lengths, self.nodes), masks.dtype)
        places = tuple(np.array([self.levels[i].index for i in rows]).T)
        every_one = every_one.at[places].set(masks[np.array(rows)])
        return every_one.reshape(*site.lengths, *shape), loops

    def chain(self, chunk: int, memory: int, neurons: bool) -> Chain:
        """The matrices between the levels, the last message and the first values."""
        sizes = [self._features(v) for v in self.levels]
        n = self.nodes
        needed = sum(4 * n * a * n * b for a, b in itertools.pairwise(sizes))
        if needed > memory:
            raise ValueError(
                f"most_bytes: got {memory}, but the matrices between {len(sizes)} "
                f"levels of {n} nodes with {max(sizes)} features need {needed} bytes; "
                f"walks.relevance takes chosen walks, in chunks"
            )
        highest = max(n * s for s in sizes[1:]) if len(sizes) > 1 else 1

        def one(number: Array) -> list[Array]:
            sent = {
                s.name: (jnp.zeros(s.shape, s.dtype), jnp.zeros(s.shape, s.dtype))
                for s in self.sites
            }
            for level, size in zip(self.levels, sizes, strict=True):
                unit = jnp.arange(n * size) == number
                sent[level.site.name] = self._placed(level, sent[level.site.name], unit)
            run = Run(self.composite)
            arrived = transfers(self.traced, run, self.sites, self.seed, sent)
            return [self._message(v, arrived[v.site.name]) for v in self.levels]

        def columns(numbers: Array) -> tuple[list[Array], Array]:
            found = over(one, numbers, chunk)
            return found[:-1], found[-1][0]

        below, last = jax.jit(columns)(jnp.arange(highest))
        matrices = [
            np.asarray(m[: n * size], np.float64).reshape(n, size, n, -1)
            for m, size in zip(below, sizes[1:], strict=True)
        ]
        first = self.levels[0]
        values, _ = values_and_gradients(
            self.traced, (first.site,), lambda outs: list(map(jnp.zeros_like, outs))
        )
        value = values[first.site.name]
        start = np.asarray(self._message(first, (value, jnp.ones_like(value))))
        end = np.asarray(last, np.float64).reshape(n, -1)
        start = start.astype(np.float64).reshape(n, -1)
        if neurons:
            matrices = [m.reshape(-1, 1, n * m.shape[3], 1) for m in matrices]
            start, end = start.reshape(-1, 1), end.reshape(-1, 1)
        return Chain(start, tuple(matrices), end)

    def _is_shadowed(self, level: Level) -> bool:
        reading = self.traced.reading
        for step, body in zip(*[iter(level.site.address[:-1])] * 2, strict=True):
            reading = step.bodies[body]
        return level.site.value in reading.shadowed

    def _features(self, level: Level) -> int:
        """The length of a node's message: its features, twice where it has shadows."""
        size = math.prod(level.site.value.aval.shape) // max(1, self.nodes)
        return 2 * size if self._is_shadowed(level) else size

    def _message(self, level: Level, both: tuple[Array, Array]) -> Array:
        """That of a level, out of all iterations, as (nodes * features,)."""
        count = 2 if self._is_shadowed(level) else 1
        parts = [p[level.index] for p in both[:count]]
        by_node = [jnp.moveaxis(p, level.axis, 0) for p in parts]
        rows = [p.reshape(self.nodes, -1) for p in by_node]
        return jnp.concatenate(rows, axis=1).reshape(-1)

    def _placed(
        self, level: Level, into: tuple[Array, Array], message: Array
    ) -> tuple[Array, Array]:
        """The inverse of `_message`, in the arrays of all iterations."""
        rows = message.reshape(self.nodes, -1)
        parts = jnp.split(rows, 2, axis=1) if self._is_shadowed(level) else [rows]
        shape = level.site.value.aval.shape
        moved = (self.nodes, *shape[: level.axis], *shape[level.axis + 1 :])
        made = list(into)
        for i, part in enumerate(parts):
            one = jnp.moveaxis(part.reshape(moved), 0, level.axis).astype(into[i].dtype)
            made[i] = into[i].at[level.index].set(one) if level.index else one
        return made[0], made[1]


def starter(
    f: Callable[..., Any],
    composite: Composite | None,
    sites: Any,
    axis: Any,
    argnums: ArgNums,
    target: Any,
) -> Callable[[tuple, dict], Asked]:
    """From packed arguments to what can be asked; checks at once what can be."""
    rules = checked(f, composite, argnums, target)
    patterns = (sites,) if isinstance(sites, str) else sites
    if (
        not isinstance(patterns, tuple | list)
        or not patterns
        or not all(isinstance(p, str) for p in patterns)
    ):
        raise TypeError(f"sites: got {sites!r}, expected names or patterns of names")
    if isinstance(axis, tuple | list):
        if len(axis) != len(patterns):
            raise ValueError(
                f"axis: got {len(axis)} of them, expected one for each of the "
                f"{len(patterns)} entries of sites"
            )
        axes = [axis_number("axis", a) for a in axis]
    else:
        axes = [axis_number("axis", axis)] * len(patterns)

    def start(args: tuple, kwargs: dict) -> Asked:
        traced = trace(
            f,
            args,
            kwargs,
            rules,
            argnums,
            False,
            shadow_outputs=_targets.is_plain(target),
            keep_calls=False,
            by_scope=True,
        )
        return Asked(traced, rules, target, find_levels(traced, patterns, axes))

    return start


def over(one: Callable[[Array], Any], inputs: Array, chunk: int) -> Any:
    """`one` of each entry along the leading axis, at most `chunk` at once."""
    number = len(inputs)
    if number <= chunk:
        return jax.vmap(one)(inputs)
    size = math.ceil(number / math.ceil(number / chunk))
    filled = jnp.concatenate([inputs, inputs[-1:].repeat(-number % size, 0)])
    return jax.tree.map(lambda v: v[:number], lax.map(one, filled, batch_size=size))


def with_question(name: str, args: tuple) -> tuple:
    if len(args) < 2:
        raise TypeError(
            f"{name}: got {len(args)} positional arguments, expected those of f and, "
            f"after them, {name}"
        )
    return args


def as_array(name: str, given: Any) -> Array:
    try:
        return jnp.asarray(given)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name}: got {given!r}, expected an array") from None
