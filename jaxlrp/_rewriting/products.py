"""Products and quotients: which operands are held, and what the others get."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from jax import Array

from jaxlrp import rules
from jaxlrp._operations import (
    denominator,
    divided,
    hold_like,
    route,
    wide,
)
from jaxlrp._reading.facts import is_real
from jaxlrp._reading.steps import Step
from jaxlrp._rewriting.activations import region_of
from jaxlrp._rewriting.attention import fused_attention
from jaxlrp._rewriting.environment import (
    Environment,
    Run,
    bind,
    bounded_operand,
    detached,
)
from jaxlrp._rewriting.norms import Normalisation
from jaxlrp._rewriting.plain import passed_shadows, plain
from jaxlrp.primitives import lookup


def held(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """A product or quotient whose divisor or statistic counts as a constant."""
    if step.path:
        region, x, constants = region_of(step, env)
        whole = Normalisation(region, step.path)
        like = dataclasses.replace(whole, bounded=True)
        y = hold_like(whole, like, x, (x, constants))
        return [y], passed_shadows(step, rule, [y], env)
    if isinstance(rule, rules.Taylor) or not step.held:
        return plain(step, rules.Taylor(), env, run)
    inputs = step.main.inputs
    bind = step.main.bound()
    order = [i for i in range(len(inputs)) if i not in step.held] + list(step.held)
    split = len(inputs) - len(step.held)

    def f(xs: Sequence[Any], held: Sequence[Any]) -> Any:
        operands: list[Any] = [None] * len(inputs)
        for i, x in zip(order, [*xs, *held], strict=True):
            operands[i] = x
        return list(bind(*operands))

    def bounded(xs: Sequence[Any], held: Sequence[Any]) -> Any:
        where = order[split:]
        pairs = zip(where, held, strict=True)
        return f(xs, [bounded_operand(step.main, i, x) for i, x in pairs])

    values = [env.read(inputs[i]) for i in order]
    # A gate is finite, nearly always.
    infinite = step.unbounded or step.role in ("normaliser", "quotient")
    like = bounded if infinite else f
    results = hold_like(f, like, tuple(values[:split]), tuple(values[split:]))
    return results, passed_shadows(step, rule, results, env)


def product(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """A product of active operands: equal parts, or the signal takes all."""
    if step.main.opaque:
        return fused_attention(step, rule, env)
    if isinstance(rule, rules.SignalTakesAll) and step.held:
        return held(step, rule, env, run)
    if isinstance(rule, rules.Taylor):
        return plain(step, rule, env, run)
    if isinstance(rule, rules.Detach):
        return detached(step, env)
    if step.weights:
        return [_weighted(step, env)], [None]
    if step.factors:
        return _of_many(step, env), [None]
    (y,) = _multiplied(step)(*map(env.read, step.main.inputs))
    count = _degree(step, env)
    if not isinstance(rule, rules.UniformSplit) or rule.epsilon is None:
        return [divided(y, count)], [None]
    part = functools.partial(_part_of, rule.stabiliser)
    return [route(part, y, (y,), (rule.epsilon, count))], [None]


def _of_many(step: Step, env: Environment) -> list[Any]:
    """A product of products: an operand of `k` of `n` factors gets `k / n`."""
    total = sum(step.factors)
    operands = [
        divided(env.read(v), total / count)
        for v, count in zip(step.main.inputs, step.factors, strict=True)
    ]
    return _multiplied(step)(*operands)


def _multiplied(step: Step) -> Callable[..., list[Any]]:
    """The product; where nothing arrives nothing passes an infinite factor."""
    bound = step.main.bound()
    if not step.unbounded:
        return bound

    def f(xs: Sequence[Any], _: Any) -> list[Any]:
        return list(bound(*xs))

    def like(xs: Sequence[Any], _: Any) -> list[Any]:
        return f([bounded_operand(step.main, i, x) for i, x in enumerate(xs)], ())

    return lambda *xs: hold_like(f, like, xs, ())


def _weighted(step: Step, env: Environment) -> Any:
    """A mix of values by weights: of what it gets the weights have half, as factors."""
    inputs = step.main.inputs
    operands = [
        divided(env.read(v), 2) if i in step.weights else env.read(v)
        for i, v in enumerate(inputs)
    ]
    (y,) = step.main.bound()(*operands)
    return y


def _part_of(form: str, y: Array, aux: Any) -> tuple[Array]:
    epsilon, count = aux
    return (wide(y) / denominator(count * wide(y), epsilon, (), form),)


def homogeneous(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """Gradient x input over the degree: what Euler's theorem says is the result."""
    results, degree = bind(step.main, env.read), _degree(step, env)
    real = [is_real(y) for y in results]
    given = [divided(y, degree) if r else y for y, r in zip(results, real, strict=True)]
    return given, [None] * len(results)


def _degree(step: Step, env: Environment) -> Any:
    """In its active operands; two for a product of two."""
    entry = lookup(step.main.primitive)
    inputs, params = step.main.inputs, step.main.params
    active = [env.reading.is_active(v) for v in inputs]
    degree = entry.degree(params, active) if entry is not None else None
    return 2 if degree is None else degree(*map(env.read, inputs))
