"""Sums whose parts a rule compares: what each part gets of the whole's relevance."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import rules
from jaxlrp._operations import send, wide
from jaxlrp._reading.steps import Step
from jaxlrp._reading.sums import parts
from jaxlrp._rewriting.environment import (
    Environment,
    Run,
    detached,
    run_equations,
)
from jaxlrp._rewriting.layers import no_weights
from jaxlrp._rewriting.shares import observed_share, shared
from jaxlrp.rules import Layer, Share, Total


def by_parts(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """`y = sum_k w_k x_k`: the rule compares its parts; constants keep their share."""
    (y,) = run_equations(step.equations, {}, env.read)
    atoms = parts(step.equations)
    active = [(v, sign) for v, sign in atoms if env.reading.is_active(v)]
    constant = [(v, sign) for v, sign in atoms if not env.reading.is_active(v)]
    hs = tuple(_signed(env.read(v), sign, y) for v, sign in active)
    held = tuple(_signed(env.read(v), sign, y) for v, sign in constant)
    if run.observe is not None:
        hs = tuple(run.observe("surrogate", step, h, None)[0] for h in hs)
    weights = tuple(sign for _, sign in (*active, *constant))
    aux = rule, hs, held
    shadow = None
    if env.wants_shadow(step.outputs[0]):
        of_relevance = functools.partial(_to_parts, weights, False)
        shadow = send(of_relevance, lax.full_like(y, 0), hs, aux)
    return [send(functools.partial(_to_parts, weights, True), y, hs, aux)], [shadow]


def _signed(x: Any, sign: int, y: Array) -> Array:
    """A part with its sign; of size one along an axis where it is constant."""
    x = jnp.broadcast_to(jnp.asarray(x, y.dtype), y.shape)
    return x if sign > 0 else -x


def _to_parts(
    weights: tuple[int, ...], multiple: bool, y: Array, aux: Any, c: Array
) -> Sequence[Array]:
    """The multiplier of each active part, of a multiplier or of relevance."""
    rule, xs, constants = aux
    whole = Total(tuple(map(wide, (*xs, *constants))), weights)
    relevance = whole.y * wide(c) if multiple else wide(c)
    return rule.to_parts(whole, relevance)[: len(xs)]


def total(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """`y = a + b`: in proportion, with a stabiliser, or by the signs of all parts."""
    if isinstance(rule, rules.Detach):
        return detached(step, env)
    if rule.compares_parts:
        return by_parts(step, rule, env, run)
    (y,) = run_equations(step.equations, {}, env.read)
    if isinstance(rule, rules.LRP0):
        return [y], [None]
    unit = Layer(y, y, None, lambda x, _: x, no_weights, False, ())
    shares: Sequence[Share] = rule.shares(unit)
    if run.observe is not None:
        shares = [observed_share(s, step, run.observe) for s in shares]
    y, shadow = shared(y, shares, env.wants_shadow(step.outputs[0]))
    return [y], [shadow]
