"""Look-ups by integers that name something, and moves of such integers.

All relevance of what a symbol looked up goes to its shadow, which moves as it does.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp._operations import look_up
from jaxlrp._reading.steps import Step
from jaxlrp._rewriting.environment import Environment, Run, shadow_of
from jaxlrp.primitives import lookup
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
        if entry.origin is None:
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
