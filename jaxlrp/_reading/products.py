"""Products: which factors are gates, and of how many factors an operand is made.

`(x1 x2) x3` is one product of three, however it is bracketed: each factor gets a third.
So an operand that is a product itself counts as often as it has factors, also through
casts, changes of shape, constant factors and gates that are held. Layers, sums, softmax
and activations make one factor of whatever they are given, but for powers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from jaxlrp import rules
from jaxlrp._program.program import Atom, Equation, Value, aval_of
from jaxlrp._reading.claims import Claims
from jaxlrp._reading.facts import facts_of
from jaxlrp._reading.steps import Held, Step
from jaxlrp.composites import Composite
from jaxlrp.primitives import Kind, lookup
from jaxlrp.rules import Rule

# ---- gates -------------------------------------------------------------------------


def hold_gates(claims: Claims, composite: Composite) -> None:
    """Products of a held gate with what a layer makes of constants are constants.

    In a recurrent network's first step such a constant comes from the initial state; in
    a loop that state is active, and the same product's gate is held.
    """
    for i, equation in enumerate(claims.program.equations):
        entry = claims.entry(equation)
        active = [claims.active(v) for v in equation.inputs]
        elementwise = entry.kind is Kind.ELEMENTWISE and entry.is_product
        if i in claims.role or not elementwise or sorted(active) != [False, True]:
            continue
        gate, constant = sorted(equation.inputs, key=claims.active, reverse=True)
        facts = facts_of(gate, claims.facts)
        if not (facts.nonnegative and facts.at_most_one):
            continue
        rule = composite.rule(claims.place(equation, "product"))
        holds = isinstance(rule, rules.SignalTakesAll) and not rule.activations
        if holds and any(claims.layers_of(constant)):
            claims.role[i] = "constant"


def with_gates(
    step: Step,
    units: Mapping[int, Step],
    composite: Composite,
    coefficients: Mapping[Equation, int],
    claims: Claims,
) -> Step:
    """The step of a product, with the factors that its rule holds."""
    rule = step.rule(composite)
    if not isinstance(rule, rules.SignalTakesAll) or step.main.opaque:
        return step
    held = step.held
    if rule.coefficients and step.main in coefficients:
        held = (coefficients[step.main],)
    elif rule.activations:
        held = _activation_gates(step, units, claims)
    elif step.role == "bilinear" and not contracts(step.main, claims):
        held = gates(step.main, claims)  # a product in all but name
    return dataclasses.replace(step, form=Held(held, weights=step.weights))


def contracts(equation: Equation, claims: Claims) -> bool:
    """Does a contraction sum over anything?"""
    kernel_axes = claims.entry(equation).kernel_axes
    ndims = tuple(len(aval_of(v).shape) for v in equation.inputs)
    return kernel_axes is None or any(
        len(kernel_axes(equation.params, k, ndims)) < n for k, n in enumerate(ndims)
    )


def _activation_gates(
    step: Step, units: Mapping[int, Step], claims: Claims
) -> tuple[int, ...]:
    """Which factor is the result of an activation, if one is and the other is not."""

    def is_activation(atom: Atom) -> bool:
        index = claims.producer.get(atom) if isinstance(atom, Value) else None
        if index is None:
            return False
        if index in units:
            return units[index].role == "activation"
        equation = claims.program.equations[index]
        signals = claims.active_inputs(equation)
        moves = claims.entry(equation).kind is Kind.STRUCTURAL and len(signals) == 1
        return moves and is_activation(signals[0])

    gates = [i for i, v in enumerate(step.main.inputs) if is_activation(v)]
    return (gates[0],) if len(gates) == 1 else step.held


def gates(equation: Equation, claims: Claims) -> tuple[int, ...]:
    """Which factor of a product is a gate: known to be `>= 0` where the other is not.

    A sigmoid, a softmax or a softplus is; a candidate state or a signal is not.
    """
    signs = [facts_of(v, claims.facts).nonnegative for v in equation.inputs]
    if signs == [True, False]:
        return (0,)
    if signs == [False, True]:
        return (1,)
    return ()


# ---- products of products ------------------------------------------------------------


def with_factors(steps: Sequence[Step], composite: Composite) -> list[Step]:
    """The steps of products, with the number of factors of each operand."""
    counts: dict[Value, int] = {}
    found = []
    for step in steps:
        rule = step.rule(composite)
        if _splits(step, rule):
            own = tuple(_count(v, counts) for v in step.main.inputs)
            counts.update((v, sum(own)) for v in step.outputs)
            if max(own) > 1:
                form = step.form if isinstance(step.form, Held) else Held()
                step = dataclasses.replace(
                    step, form=dataclasses.replace(form, factors=own)
                )
        else:
            counts.update((v, _passed(step, rule, counts)) for v in step.outputs)
        found.append(step)
    return found


def _splits(step: Step, rule: Rule | None) -> bool:
    """Does a product of two signals share its relevance evenly?"""
    if step.role not in ("product", "bilinear") or len(step.main.inputs) != 2:
        return False
    if step.main.opaque or step.weights or len(step.outputs) != 1:
        return False
    if isinstance(rule, rules.SignalTakesAll):
        return not step.held
    if not isinstance(rule, rules.UniformSplit):
        return False
    return rule.epsilon is None and not rule.pairwise


_PASSING = (
    *("structural", "linear", "scale"),
    *("quotient", "normaliser", "product", "bilinear"),
)
"""Roles in which a value is moved or scaled by constants, or by what is held."""


def _count(atom: Atom, counts: Mapping[Value, int]) -> int:
    return counts.get(atom, 1) if isinstance(atom, Value) else 1


def _passed(step: Step, rule: Rule | None, counts: Mapping[Value, int]) -> int:
    """The factors of what a step makes that moves or scales one value; else one."""
    if step.role == "activation" and step.argument is not None:
        power = _power(step.equations, step.argument)
        return power * _count(step.argument, counts) if power else 1
    entry = lookup(step.main.primitive)
    if entry is None or len(step.equations) > 1 or step.role not in _PASSING:
        return 1
    adds = len(step.main.inputs) == 2 and entry.is_sum
    if adds or entry.kind not in (Kind.STRUCTURAL, Kind.ELEMENTWISE, Kind.CONTRACTION):
        return 1
    own = {_count(v, counts) for v in step.receivers(rule)}
    return own.pop() if len(own) == 1 else 1


def _power(equations: Sequence[Equation], root: Value) -> int:
    """Of `x * x`, `x ** 3` and the like, the power; of all other functions zero."""
    powers = {root: 1}
    for equation in equations:
        entry = lookup(equation.primitive)
        if entry is None or entry.kind is not Kind.ELEMENTWISE:
            return 0
        own = [powers.get(v, 0) if isinstance(v, Value) else 0 for v in equation.inputs]
        if entry.power is not None:
            power = own[0] * entry.power(equation.params)
        elif len(own) == 2 and entry.is_product:
            power = sum(own)
        elif len(own) == 1 and entry.linear([True]):
            power = own[0]
        else:
            return 0
        powers[equation.outputs[0]] = power
    return max(powers[equations[-1].outputs[0]], 0)
