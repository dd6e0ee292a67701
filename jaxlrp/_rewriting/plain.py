"""Steps whose rule is JAX's own derivative, and rules that users registered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import rules
from jaxlrp._program.program import Value
from jaxlrp._reading.facts import is_real
from jaxlrp._reading.finish import passes_shadow
from jaxlrp._reading.steps import Step
from jaxlrp._rewriting.environment import (
    Environment,
    Run,
    bind,
    detached,
    spread,
)
from jaxlrp._rewriting.symbols import moved_symbols
from jaxlrp.errors import RuleError
from jaxlrp.primitives import lookup


def plain(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """JAX's own derivative is the rule."""
    if isinstance(rule, rules.Detach):
        return detached(step, env)
    results = bind(step.main, env.read)
    return results, passed_shadows(step, rule, results, env)


def passed_shadows(
    step: Step, rule: Any, results: Sequence[Array], env: Environment
) -> list[Array | None]:
    """The results' shadows, for a step that passes shadows on."""
    if not any(env.wants_shadow(v) for v in step.outputs):
        return [None] * len(results)
    if not passes_shadow(step, rule):
        return [None] * len(results)
    if not any(is_real(y) for y in results):
        return moved_symbols(step, env)
    inputs = step.main.inputs
    if step.argument is not None or step.held or _maps_one_value(step):
        shadow = env.shadow(_kept_signal(step))
        if shadow is None:
            return [lax.full_like(y, 0) for y in results]
        (y,) = results
        shadow = spread(step, shadow)
        return [jnp.broadcast_to(shadow, y.shape).astype(y.dtype)]
    # Copies and selections move the shadow as they move the value.
    positions = [i for i, v in enumerate(inputs) if env.shadow(v) is not None]
    operands = [env.read(v) for v in inputs]
    bind = step.main.bound()

    def moved(*xs: Any) -> list[Any]:
        full = list(operands)
        for i, x in zip(positions, xs, strict=True):
            full[i] = x
        return bind(*full)

    primals = [operands[i] for i in positions]
    tangents = [env.shadow(inputs[i]) for i in positions]
    if not positions:
        return [lax.full_like(y, 0) for y in results]
    return list(jax.jvp(moved, primals, tangents)[1])


def _maps_one_value(step: Step) -> bool:
    """Elementwise, of one value and at most a constant: `-x`, `a x`, `x + b`."""
    return step.by_elements and len(step.signals) == 1 and len(step.main.inputs) <= 2


def _kept_signal(step: Step) -> Value:
    """The one operand that relevance goes to."""
    if step.argument is not None:
        return step.argument
    held = [step.main.inputs[i] for i in step.held]
    (signal,) = [v for v in step.signals if v not in held]
    return signal


def gradient(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """No own rule: gradient x input."""
    results = bind(step.main, env.read)
    return results, [None] * len(results)


def custom(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """A rule that the user registered."""
    equation = step.main
    entry = lookup(equation.primitive)
    assert entry is not None and entry.rule is not None
    active = tuple(env.reading.is_active(v) for v in equation.inputs)
    operands = [env.read(v) for v in equation.inputs]
    shadows = [env.shadow(v) for v in equation.inputs]
    results, out_shadows = entry.rule(
        equation.bound(),
        active,
        operands,
        shadows,
        dict(equation.params),
    )
    where = equation.line
    name = equation.primitive.name
    if len(results) != len(equation.outputs):
        raise RuleError(
            f"the rule of primitive {name!r} returned {len(results)} results, expected "
            f"{len(equation.outputs)}, at {where}"
        )
    for y, v in zip(results, equation.outputs, strict=True):
        if jnp.shape(y) != v.aval.shape or jnp.result_type(y) != v.aval.dtype:
            raise RuleError(
                f"the rule of primitive {name!r} returned {jnp.result_type(y)}"
                f"{list(jnp.shape(y))}, expected {v.aval.str_short()}, at {where}"
            )
    return results, out_shadows
