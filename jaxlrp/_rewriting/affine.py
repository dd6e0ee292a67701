"""Elementwise scales and shifts that stand alone."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlrp import rules
from jaxlrp._operations import hold_like
from jaxlrp._reading.steps import Step, unit_of
from jaxlrp._rewriting.activations import activation
from jaxlrp._rewriting.environment import (
    Environment,
    Run,
    bounded_operand,
    run_equations,
)
from jaxlrp._rewriting.plain import passed_shadows, plain
from jaxlrp._rewriting.shares import observed_share, shared
from jaxlrp._rewriting.sums import by_parts
from jaxlrp.rules import Share


def scale(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """`y = a x` or `y = x + b` with a constant, standing alone."""
    if isinstance(rule, rules.Epsilon):
        return stabilised(step, rule, env, run)
    if rule.compares_parts:
        return by_parts(step, rule, env, run)
    if step.unbounded and isinstance(rule, rules.LRP0):
        return _bounded(step, env)
    if not isinstance(rule, rules.Pass):
        return plain(step, rule, env, run)
    form = unit_of(step.signals[0], step.outputs[0])
    return activation(dataclasses.replace(step, form=form), rule, env, run)


def stabilised(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """The epsilon rule of an affine map of each element."""
    (y,) = run_equations(step.equations, {}, env.read)
    share = Share(y, y, rule.epsilon, form=rule.stabiliser)
    if run.observe is not None:
        share = observed_share(share, step, run.observe)
    y, shadow = shared(y, [share], env.wants_shadow(step.outputs[0]))
    return [y], [shadow]


def _bounded(step: Step, env: Environment) -> Any:
    """A scale by what may be infinite: nothing passes where nothing arrives."""
    (x,), equation = step.signals, step.main
    place = equation.inputs.index(x)
    held = [i for i in range(len(equation.inputs)) if i != place]

    def f(signal: Any, constants: Any) -> list[Any]:
        operands = [signal] * len(equation.inputs)
        for i, constant in zip(held, constants, strict=True):
            operands[i] = constant
        return list(equation.bound()(*operands))

    def like(signal: Any, constants: Any) -> list[Any]:
        pairs = zip(held, constants, strict=True)
        return f(signal, [bounded_operand(equation, i, c) for i, c in pairs])

    constants = tuple(env.read(equation.inputs[i]) for i in held)
    results = hold_like(f, like, env.read(x), constants)
    return results, passed_shadows(step, rules.LRP0(), results, env)
