"""Rules that are stated on relevances: what they give goes to the shadows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import rules
from jaxlrp._operations import (
    redistribute,
)
from jaxlrp._program.program import Equation, Value
from jaxlrp._reading.steps import Step, Unit
from jaxlrp._rewriting.activations import Region, region_of
from jaxlrp._rewriting.environment import (
    Environment,
    Run,
    run_equations,
    shadow_of,
    spread,
)
from jaxlrp._rewriting.plain import plain
from jaxlrp._rewriting.products import product
from jaxlrp.primitives import Kind, lookup
from jaxlrp.rules import Operation
from jaxlrp.rules._base import unbroadcast


def redistributed(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """Any role under a rule that is stated on relevances: they go to the shadows."""
    if step.role == "selection":
        if step.by_elements:  # of two values, whatever the rule
            return plain(step, rule, env, run)
        _check_candidates(step.main, rule)
    if step.layer is not None and isinstance(rule, rules.Pass):
        _check_one_shape(step, rule)
    of_axes = step.role == "product" and not step.by_elements
    if of_axes and isinstance(rule, rules.Absolute):
        return product(step, rules.UniformSplit(), env, run)
    if len(step.outputs) > 1:
        return plain(step, rules.Taylor(), env, run)
    if step.argument is not None or len(step.equations) > 1:
        if step.argument is None:
            step = dataclasses.replace(step, form=Unit(step.signals[0]))
        region, x, constants = region_of(step, env)
        f = _Joined(region, step.path)
        signals, xs, held = (step.argument,), (x,), constants
    else:
        equation = step.main
        atoms = equation.inputs
        receivers = step.receivers(rule)
        positions = [i for i, v in enumerate(atoms) if v in receivers]
        others = [i for i in range(len(atoms)) if i not in positions]
        signals = tuple(atoms[i] for i in positions)
        f = _Operands(equation, tuple(positions), tuple(others))
        xs = tuple(env.read(v) for v in signals)
        held = tuple(env.read(atoms[i]) for i in others)
    shadows = (shadow_of(v, env.read(v), True, env) for v in signals)
    zeros = tuple(spread(step, s) for s in shadows if s is not None)
    y, shadow = redistribute(_relevances, f, xs, zeros, held, rule)
    return [y], [shadow]


def _check_candidates(equation: Equation, rule: Any) -> None:
    entry = lookup(equation.primitive)
    if entry is None or entry.candidates is None:
        raise TypeError(
            f"rule {rule!r} on primitive {equation.primitive.name!r} at "
            f"{equation.line}: this rule needs a maximum or minimum over axes or "
            f"windows; give others WinnerTakesAll() by Composite.on(primitive=...)"
        )


def _check_one_shape(step: Step, rule: Any) -> None:
    x, y = step.signals[0].aval.shape, step.outputs[0].aval.shape
    if x != y:
        raise TypeError(
            f"rule {rule!r} on a layer with inputs of shape {x} and results of shape "
            f"{y}, at {step.main.line}: relevance passes unchanged only where these "
            f"are one shape; name such layers by Composite.on(scope=...)"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Joined:
    """A unit of several equations as a function of (operands, constants)."""

    region: Region
    path: tuple[Equation, ...] = ()

    def __call__(self, xs: Sequence[Array], held: Sequence[Any]) -> Array:
        return self.region(xs[0], held)

    def moved_back(self, x: Array, held: Sequence[Any], relevance: Array) -> Array:
        """The relevance of the result's elements, at their positions in the root."""
        given = self.region.all_values(x, held)
        values = (self.region.argument, *(e.outputs[0] for e in self.path[:-1]))
        for value, equation in reversed(list(zip(values, self.path, strict=True))):
            relevance = _moved_by(equation, value, given, relevance)
        return relevance


def _moved_by(
    equation: Equation, value: Value, given: Mapping[Value, Any], relevance: Array
) -> Array:
    """Through an equation on a signal's path: arithmetic passes relevance through."""
    x = given[value]
    entry = lookup(equation.primitive)
    if entry is None or entry.kind is not Kind.STRUCTURAL:
        return unbroadcast(relevance, x.shape).astype(x.dtype)

    def move(x: Array) -> Array:
        return run_equations((equation,), {**given, value: x})[0]

    return jax.vjp(move, x)[1](relevance)[0]


@dataclasses.dataclass(frozen=True, eq=False)
class _Operands:
    """An equation as a function of (active operands, other operands)."""

    equation: Equation
    positions: tuple[int, ...]
    others: tuple[int, ...]

    def __call__(self, xs: Sequence[Array], held: Sequence[Any]) -> Array:
        operands: list[Any] = [None] * (len(xs) + len(held))
        for i, x in zip((*self.positions, *self.others), (*xs, *held), strict=True):
            operands[i] = x
        return self.equation.bound()(*operands)[0]


def _relevances(
    rule: Any, f: Any, xs: Any, held: Any, y: Array, relevance: Array
) -> Sequence[Array]:
    """What a rule gives to each operand of `y = f(xs, held)`."""
    candidates = None
    constants: tuple[Any, ...] = ()
    if isinstance(f, _Operands):
        entry = lookup(f.equation.primitive)
        constants = tuple(
            v for v in held if jnp.issubdtype(jnp.result_type(v), jnp.inexact)
        )
        if entry is not None and entry.candidates is not None:
            candidates = functools.partial(entry.candidates, f.equation.params)
    elif f.path:
        relevance = f.moved_back(xs[0], held, relevance.astype(y.dtype))
    operation = Operation(tuple(xs), y, lambda *xs: f(xs, held), constants, candidates)
    return rule.relevances(operation, relevance.astype(y.dtype))
