"""Fused attention: what its operands get, as if it were written out."""

from __future__ import annotations

from typing import Any

from jaxlrp import rules
from jaxlrp._operations import divided, held_constant
from jaxlrp._reading.attention import attention_operands
from jaxlrp._reading.steps import Step
from jaxlrp._rewriting.environment import Environment, detached

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
