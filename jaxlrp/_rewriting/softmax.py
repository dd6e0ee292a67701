"""Softmax: JAX's derivative, or that at another temperature."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import _compat, rules
from jaxlrp._program.program import aval_of
from jaxlrp._reading.steps import Step
from jaxlrp._rewriting.activations import Region, region_of
from jaxlrp._rewriting.environment import Environment, Run
from jaxlrp._rewriting.plain import passed_shadows, plain
from jaxlrp.errors import RuleError


def softmax(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """A part of a softmax, or a whole one where a rule asks for another temperature."""
    if not isinstance(rule, rules.Taylor) or rule.temperature is None:
        return plain(step, rule, env, run)
    region, x, constants = _whole(step, env)
    axes = _axes(region)
    if axes is None:
        raise RuleError(_REFUSED.format(line=step.main.line))
    y = tempered(_Shifted(region, axes), x, constants, rule.temperature)
    return [y], passed_shadows(step, rule, [y], env)


_REFUSED = (
    "rule Taylor(temperature=...) on role 'softmax' at {line}: this is no softmax that "
    "is written as a whole, as jax.nn.softmax is; give it rules.Taylor() by "
    "Composite.on('softmax', rules.Taylor(), scope=...)"
)


def _whole(step: Step, env: Environment) -> tuple[Region, Array, tuple[Any, ...]]:
    if step.argument is None:
        raise RuleError(_REFUSED.format(line=step.main.line))
    return region_of(step, env)


def _axes(region: Region) -> tuple[int, ...] | None:
    """The axes along which the weights add up to one."""
    shape = region.argument.aval.shape
    sums = [
        _compat.reduced_axes(e.params)
        for e in region.equations
        if e.primitive.name == "reduce_sum" and aval_of(e.inputs[0]).shape == shape
    ]
    return sums[0] if len(sums) == 1 else None


class _Shifted:
    """A softmax as a function of scores and of what it holds, for any temperature.

    What the program subtracts is the maximum of its own scores. Those that were divided
    are shifted to have the same one, which changes no weight and lets none underflow.
    """

    def __init__(self, region: Region, axes: tuple[int, ...]):
        self.region, self.axes = region, axes

    def __call__(self, x: Array, held: Any) -> Array:
        return self.region(x, held)

    def divided(self, x: Array, temperature: Any) -> Array:
        most = lax.stop_gradient(x.max(self.axes, keepdims=True))
        most = jnp.where(jnp.isfinite(most), most, 0)
        return (most + (x - most) / temperature).astype(x.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def tempered(f: Callable[..., Any], x: Array, held: Any, temperature: Any) -> Array:
    """`f(x, held)`, whose multiplier goes to `x` by the derivative at `x / T`."""
    return f(x, held)


@tempered.defjvp
def _(f: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    x, held, temperature = primals
    softer = f.divided(x, temperature)
    _, tangent = jax.jvp(lambda x: f(x, held), (softer,), (tangents[0],))
    return f(x, held), tangent
