"""Integers that name something: token ids, and what they look up.

An id has no multiple, so its relevance travels beside it, in a shadow of floats. Where
an id looks a value up (a row of a table, an element of a one-hot code), what that value
receives is the id's: `R_id = sum over what it looked up of R`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxlrp._operations import look_up
from jaxlrp._program.program import Equation, Value, aval_of
from jaxlrp._reading.claims import Claims
from jaxlrp._reading.facts import facts_of, moves_symbols
from jaxlrp._reading.steps import Step
from jaxlrp._rewriting.environment import Environment, Run, shadow_of
from jaxlrp.primitives import Kind, lookup
from jaxlrp.rules._base import unbroadcast

# ---- reading -----------------------------------------------------------------------


def claim_symbols(claims: Claims) -> dict[int, Step]:
    """What moves symbols and what looks things up by them, by index."""
    steps: dict[int, Step] = {}
    for i, equation in enumerate(claims.program.equations):
        entry = claims.entry(equation)
        opaque = entry.kind in (Kind.CONTROL, Kind.CALL, Kind.CUSTOM)
        if i in claims.role or opaque or claims.active_inputs(equation):
            continue
        symbols = symbols_of(equation, claims)
        if not symbols or not any(claims.facts[v].carries for v in equation.outputs):
            continue
        operands = [facts_of(v, claims.facts) for v in equation.inputs]
        if moves_symbols(entry, operands):
            role, columns = "structural", ()
            places = entry.linear_in(len(equation.inputs))
            moved = [equation.inputs[i] for i in places]
            symbols = tuple(v for v in symbols if v in moved)
        else:
            role, columns = "lookup", _columns(equation, claims)
        claims.role[i] = role
        steps[i] = Step(role, (equation,), symbols, columns=columns)
    return steps


def symbols_of(equation: Equation, claims: Claims) -> tuple[Value, ...]:
    """The operands that are symbols, each once."""
    operands = [v for v in equation.inputs if isinstance(v, Value)]
    return tuple(dict.fromkeys(v for v in operands if claims.facts[v].symbolic))


def _columns(equation: Equation, claims: Claims) -> tuple[int, ...]:
    """Which columns of an index are symbols, where it was put together of columns.

    `table[rows, ids]` concatenates both, and what it looks up is the ids' alone.
    """
    for v in symbols_of(equation, claims):
        if v not in claims.producer:
            continue
        producer = claims.program.equations[claims.producer[v]]
        if producer.params.get("dimension") != len(v.aval.shape) - 1:
            continue
        widths = [aval_of(a).shape[-1] for a in producer.inputs]
        starts = [sum(widths[:k]) for k in range(len(widths))]
        return tuple(
            start + k
            for a, start, width in zip(producer.inputs, starts, widths, strict=True)
            if facts_of(a, claims.facts).symbolic
            for k in range(width)
        )
    return ()


# ---- evaluation --------------------------------------------------------------------


def find(step: Step, rule: Any, env: Environment, run: Run) -> Any:
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


def moved(step: Step, env: Environment) -> list[Array | None]:
    """The shadows of symbols, moved as the symbols are: moves are linear."""
    equation = step.main
    entry = lookup(equation.primitive)
    assert entry is not None
    operands = [env.read(v) for v in equation.inputs]
    for i in entry.linear_in(len(operands)):
        operands[i] = shadow_of(equation.inputs[i], operands[i], True, env)
    params = dict(equation.params)
    if "fill_value" in params:  # what is out of bounds has no relevance
        params["fill_value"] = 0
    return dataclasses.replace(equation, params=params).bound()(*operands)
