"""How long relevance takes to trace, read and compile, over a gradient.

On one deep transformer, with its layers one after the other and with a loop over them;
and on elementwise programs of growing length, which are only traced and read.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

import jaxlrp
from benchmarks.gradient_ratio import COMPOSITES, Row, rows
from tests.models.usual import DEEP

CHOSEN = ("default", "epsilon", "attnlrp")
LENGTHS = (250, 500, 1000, 2000, 4000)


def deep(rounds: int, compiles: int, tiny: bool = False) -> list[Row]:
    """A row for each form of the deep transformer and composite."""
    chosen = {name: COMPOSITES[name] for name in CHOSEN}
    found = []
    for name, network in DEEP.items():
        found += rows(name, network(tiny), chosen, rounds, compiles=compiles)
        jax.clear_caches()
    return found


@dataclasses.dataclass(frozen=True)
class Length:
    """A program of so many equations.

    Attributes:
      program: what kind.
      equations: how many.
      gradient: seconds to trace its gradient.
      relevance: seconds to trace its relevance.
    """

    program: str
    equations: int
    gradient: float
    relevance: float


def chain(equations: int) -> Callable[[Array], Array]:
    """One function after the other: one activation as a whole."""

    def f(x: Array) -> Array:
        for i in range(equations):
            x = jnp.tanh(x) if i % 2 else x * 1.01
        return x

    return f


def residual(equations: int) -> Callable[[Array], Array]:
    """A function and a sum in turn: each is its own step."""

    def f(x: Array) -> Array:
        for _ in range(equations // 2):
            x = x + jnp.tanh(x)
        return x

    return f


PROGRAMS = {"chain": chain, "residual": residual}


def lengths(repeats: int, sizes: Sequence[int] = LENGTHS) -> list[Length]:
    """Medians of `repeats` traces, in processor time: nothing runs in parallel."""
    found = []
    for name, program in PROGRAMS.items():
        for equations in sizes:
            seconds: list[list[float]] = [[], []]
            for _ in range(repeats):
                f, x = program(equations), jnp.ones(4)
                total = lambda x, f=f: f(x).sum()  # noqa: E731
                for side, explained in enumerate(
                    (jax.grad(total), jaxlrp.lrp(f, target="all"))
                ):
                    start = time.process_time()
                    jax.make_jaxpr(explained)(x)
                    seconds[side].append(time.process_time() - start)
            found.append(Length(name, equations, *map(statistics.median, seconds)))
    return found


def doublings(found: Sequence[Length]) -> list[tuple[Length, float]]:
    """Each program and its double: how many times as long that takes."""
    by = {(row.program, row.equations): row for row in found}
    pairs = [(row, by.get((row.program, 2 * row.equations))) for row in found]
    return [(row, twice.relevance / row.relevance) for row, twice in pairs if twice]
