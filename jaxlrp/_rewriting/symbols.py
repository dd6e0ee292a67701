"""Look-ups by integers that name something, and moves of such integers.

All relevance of what a symbol looked up goes to its shadow, which moves as it does.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp._operations import look_up
from jaxlrp._program.program import Equation
from jaxlrp._reading.steps import Step
from jaxlrp._rewriting.environment import Environment, Run, shadow_of
from jaxlrp.primitives import Entry, Kind, lookup
from jaxlrp.rules._base import unbroadcast

# ---- evaluation --------------------------------------------------------------------


def looked_up(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """A look-up: all relevance of the result goes to the symbols."""
    equation = step.main
    operands = tuple(env.read(v) for v in equation.inputs)
    shadows = tuple(shadow_of(v, env.read(v), True, env) for v in step.signals)
    share = functools.partial(_shares, step)
    y, shadow = look_up(share, equation.bound(), operands, shadows)
    return [y], [shadow]


def _shares(step: Step, operands: Sequence[Any], relevance: Array) -> tuple[Array, ...]:
    """What each symbol looked up, in equal parts where several did it together."""
    equation = step.main
    entry = lookup(equation.primitive)
    assert entry is not None
    positions = [i for i, v in enumerate(equation.inputs) if v in step.signals]
    given: dict[Any, Array] = {}
    for i in positions:
        shape = jnp.shape(operands[i])
        if entry.origin is None and entry.kind in (Kind.LINEAR, Kind.CONTRACTION):
            part = _summed(equation, entry, operands, i, relevance)
        elif entry.origin is None:
            part = unbroadcast(relevance, shape)
        else:
            bound = equation.bound()
            part = entry.origin(bound, equation.params, operands, i, relevance)
            if part.ndim < len(shape):
                part = part[..., None] * _weights(step.columns, shape[-1])
        v = equation.inputs[i]
        part = part / len(positions)
        given[v] = given[v] + part if v in given else part
    return tuple(given[v] for v in step.signals)


def _summed(
    equation: Equation,
    entry: Entry,
    operands: Sequence[Any],
    position: int,
    relevance: Array,
) -> Array:
    """Equal shares to all that a sum, weighted or not, was made of: `8 a + b`."""
    params = {**equation.params, **entry.of_dtype(equation.params, jnp.float32)}
    bind = _compat.primitive_bind(equation.primitive, params)
    added = entry.linear_in(len(operands))
    ones = [
        jnp.ones(jnp.shape(x), jnp.float32) if i in added else x
        for i, x in enumerate(operands)
    ]

    def total(x: Array) -> Array:
        return bind(*ones[:position], x, *ones[position + 1 :])[0]

    count, shares = jax.vjp(total, ones[position])
    return shares(relevance / jnp.where(count == 0, 1, count))[0]


def _weights(columns: Sequence[int], count: int) -> Array:
    """Equal shares of the columns that are symbols; of all where that is unknown."""
    chosen = list(columns) or list(range(count))
    return jnp.zeros(count).at[jnp.array(chosen)].set(1 / len(chosen))


def moved_symbols(step: Step, env: Environment) -> list[Array | None]:
    """The shadows of symbols, moved as the symbols are: moves are linear."""
    equation = step.main
    entry = lookup(equation.primitive)
    assert entry is not None
    operands = [env.read(v) for v in equation.inputs]
    for i in entry.linear_in(len(operands)):
        operands[i] = shadow_of(equation.inputs[i], operands[i], True, env)
    # What is out of bounds has no relevance.
    params = _compat.with_zeros_outside(equation.params)
    return dataclasses.replace(equation, params=params).bound()(*operands)
