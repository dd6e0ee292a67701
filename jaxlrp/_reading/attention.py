"""Calls that cannot be read, and fused attention among them.

A function with a derivative of its own (`jax.custom_vjp`, `jax.custom_jvp`) in which
something cannot be read, a kernel or a callback, is kept whole, as is attention in a
loop over chunks. Its derivative is what is known of it: relevance is gradient x input.

Attention is no such function by its numbers alone: of `softmax(q k^T) v` half goes to
the values and a quarter to queries and keys, which the derivative would give the whole
each. Such a call is taken for attention by its shapes and its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxlrp import _compat, rules
from jaxlrp._operations import divided, held_constant
from jaxlrp._program.program import Equation, Value, attention_places, aval_of
from jaxlrp._reading.claims import Claims
from jaxlrp._reading.steps import Step
from jaxlrp._rewriting.environment import Environment, detached
from jaxlrp.composites import Composite


def opaque_step(
    equation: Equation, signals: Sequence[Value], claims: Claims, composite: Composite
) -> Step:
    """The step of a call that is kept: `bilinear` if it is attention, or `gradient`.

    Queries and keys are held where the composite passes nothing through a softmax.
    """
    places = attention_operands(equation)
    if places is None:
        return Step("gradient", (equation,), tuple(signals))
    rule = composite.rule(claims.place(equation, "softmax"))
    held = places[:2] if isinstance(rule, rules.Detach) else ()
    return Step("bilinear", (equation,), tuple(signals), held=held)


def attention_operands(equation: Equation) -> tuple[int, int, int] | None:
    """The positions of queries, keys and values, if the call is attention.

    It has the shapes, and it, a kernel in it or a scope around it is called attention.
    """
    operands = [aval_of(v) for v in equation.inputs]
    results = [v.aval for v in equation.outputs]
    names = (equation.scope, *_compat.names_of(equation.params))
    return attention_places(operands, results, names)


_SPLITTING = (rules.UniformSplit, rules.SignalTakesAll)
"""Rules under which both factors of an attention's products get half."""


def fused_attention(step: Step, rule: Any, env: Environment) -> Any:
    """What attention gives its operands when it is written out.

    Under `UniformSplit`, and `SignalTakesAll` where there is no gate, each product
    halves what passes: values get half of gradient x input, queries and keys a quarter,
    a bias on the scores half; the whole where only one operand of a product is active.
    Else all of it.
    """
    if isinstance(rule, rules.Detach):
        return detached(step, env)
    equation = step.main
    places = attention_operands(equation)
    assert places is not None
    active = [env.reading.is_active(v) for v in equation.inputs]
    q, k, v = places
    scores = any(a for i, a in enumerate(active) if i != v)
    operands = []
    for i, atom in enumerate(equation.inputs):
        x = env.read(atom)
        if i in step.held:
            x = held_constant(x)
        elif active[i] and isinstance(rule, _SPLITTING):
            by_weights = scores if i == v else active[v]
            by_scores = i in (q, k) and active[q] and active[k]
            x = divided(x, 2**by_weights * 2**by_scores)
        operands.append(x)
    results = equation.bound()(*operands)
    return results, [None] * len(results)
