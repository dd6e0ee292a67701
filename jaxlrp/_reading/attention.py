"""Calls that cannot be read, and fused attention among them.

A function with its own derivative (`jax.custom_vjp`, `jax.custom_jvp`) in which
something cannot be read, a kernel or a callback, is kept whole, as is attention in a
loop over chunks. Only its derivative is known: relevance is gradient x input.

For attention that would be wrong: of `softmax(q k^T) v` half goes to the values and a
quarter to queries and keys, while the derivative would give each of them all. Such a
call is taken for attention by its shapes and its name.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxlrp import _compat, rules
from jaxlrp._program.opaque import attention_places
from jaxlrp._program.program import Equation, Value, aval_of
from jaxlrp._reading.claims import Claims
from jaxlrp._reading.steps import Held, Step
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
    return Step("bilinear", (equation,), tuple(signals), Held(held))


def attention_operands(equation: Equation) -> tuple[int, int, int] | None:
    """The positions of queries, keys and values, if the call is attention.

    It has the shapes, and it, a kernel in it or a scope around it is called attention.
    """
    operands = [aval_of(v) for v in equation.inputs]
    results = [v.aval for v in equation.outputs]
    names = (equation.scope, *_compat.names_of(equation.params))
    return attention_places(operands, results, names)
