"""Sums of sums: `a + b + c` is one sum of three, however it is bracketed.

Rules that compare the signs of a sum's parts with that of the whole would depend on the
bracket otherwise. A sum that only another sum reads is part of that; constants that are
added or subtracted on the way are parts as well, changes of sign and casts are passed.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from jaxlrp._claims import Claims
from jaxlrp._program import Atom, Equation, Value, aval_of
from jaxlrp._steps import Step
from jaxlrp.composites import Composite
from jaxlrp.primitives import Kind, lookup
from jaxlrp.rules import AlphaBeta, Gamma, GeneralizedGamma, Rule, ZPlus

BY_PARTS = (AlphaBeta, Gamma, GeneralizedGamma, ZPlus)
"""Rules that look at the parts of a sum, one by one."""


def claim_sums(claims: Claims, composite: Composite) -> dict[int, Step]:
    """Sums and shifts under such a rule, by the index of their last equation."""
    lines = (*composite.of_role("sum"), *composite.of_role("shift"))
    if not any(isinstance(a.rule, BY_PARTS) for a in lines):
        return {}
    steps: dict[int, Step] = {}
    equations = claims.program.equations
    for last in reversed(range(len(equations))):
        rule = _rule_of("sum", last, claims, composite)
        if not isinstance(rule, BY_PARTS):
            continue
        members = _members(last, rule, claims, composite)
        role = "sum"
        if all(not _is_sum(equations[i], claims) for i in members):
            # Constants alone are added.
            rule = _rule_of("shift", last, claims, composite)
            if not isinstance(rule, BY_PARTS):
                continue
            role = "shift"
        if role == "sum" and _is_one_map(members, claims):
            claims.role.update(dict.fromkeys(members, "linear"))
            continue
        for i in members:
            claims.role[i] = "chain"
        own = tuple(equations[i] for i in sorted(members))
        found = [v for v, _ in parts(own) if isinstance(v, Value) and claims.active(v)]
        steps[last] = Step(role, own, tuple(dict.fromkeys(found)))
    return steps


def _rule_of(
    role: str, index: int, claims: Claims, composite: Composite
) -> Rule | None:
    """The rule that an equation which adds has in a role; None for others."""
    equation = claims.program.equations[index]
    if index in claims.role or not (
        _is_sum(equation, claims) or _is_shift(equation, claims)
    ):
        return None
    return composite.rule(claims.place(equation, role))


def _members(last: int, rule: Rule, claims: Claims, composite: Composite) -> set[int]:
    """The equations of a sum: its last, and those before it that only it reads."""
    found, queue = {last}, [last]
    while queue:
        index = queue.pop()
        for v in claims.active_inputs(claims.program.equations[index]):
            way = _way_to_sum(v, index, rule, claims, composite)
            found.update(way)
            queue += way[-1:]
    return found


def _way_to_sum(
    value: Value, reader: int, rule: Rule, claims: Claims, composite: Composite
) -> list[int]:
    """Changes of sign and casts, and the sum of the same rule in front of them."""
    way: list[int] = []
    while value in claims.producer and claims.uses[value] == [reader]:
        reader = claims.producer[value]
        way.append(reader)
        if _rule_of("sum", reader, claims, composite) is rule:
            return way
        equation = claims.program.equations[reader]
        if reader in claims.role or not _is_passed(equation, claims):
            break
        (value,) = claims.active_inputs(equation)
    return []


def _is_one_map(members: set[int], claims: Claims) -> bool:
    """Is the sum one linear map of one value, as a rotation `x cos + turned(x) sin` is?

    So is what a statistic of a value is subtracted from. Such a sum is a layer in all
    but name, with weights between different elements.
    """
    equations = claims.program.equations
    own = tuple(equations[i] for i in sorted(members))
    sources, weighted = set(), []
    for v, _ in parts(own):
        if not isinstance(v, Value) or not claims.active(v):
            return False
        source, weights = _source(v, claims)
        sources.add(source)
        weighted.append(weights or claims.facts[v].reduced)
    return len(sources) == 1 and any(weighted)


def _source(value: Value, claims: Claims) -> tuple[Value, bool]:
    """What a value is a scaled, moved or averaged image of; is it scaled?"""
    weights = False
    while value in claims.producer:
        index = claims.producer[value]
        equation = claims.program.equations[index]
        entry = claims.entry(equation)
        active = claims.active_inputs(equation)
        linear = entry.kind in (Kind.STRUCTURAL, Kind.ELEMENTWISE, Kind.LINEAR)
        if len(active) != 1 or not linear or not claims.is_linear(equation):
            break
        if entry.kind is Kind.ELEMENTWISE and len(equation.inputs) == 2:
            if entry.is_sum:
                break
            weights = True
        (value,) = active
    return value, weights


def _is_sum(equation: Equation, claims: Claims) -> bool:
    return _adds(equation, claims) and all(map(claims.active, equation.inputs))


def _is_shift(equation: Equation, claims: Claims) -> bool:
    return _adds(equation, claims) and any(map(claims.active, equation.inputs))


def _adds(equation: Equation, claims: Claims) -> bool:
    entry = claims.entry(equation)
    two = len(equation.inputs) == 2 and entry.kind is Kind.ELEMENTWISE
    return two and entry.is_sum and not entry.selects


def _is_passed(equation: Equation, claims: Claims) -> bool:
    """A change of sign or of the dtype of real numbers."""
    entry = claims.entry(equation)
    one = len(equation.inputs) == 1 and entry.kind is Kind.ELEMENTWISE
    atoms = (*equation.inputs, *equation.outputs)
    real = all(jnp.issubdtype(aval_of(v).dtype, jnp.floating) for v in atoms)
    return one and real and claims.active(equation.inputs[0]) and entry.linear([True])


def parts(equations: Sequence[Equation]) -> list[tuple[Atom, int]]:
    """What the last equation is the sum of, each with its sign."""
    maker = {v: e for e in equations for v in e.outputs}

    def of(atom: Atom, sign: int) -> list[tuple[Atom, int]]:
        equation = maker.get(atom) if isinstance(atom, Value) else None
        if equation is None:
            return [(atom, sign)]
        signs = _signs(equation)
        pairs = zip(equation.inputs, signs, strict=True)
        return [part for v, own in pairs for part in of(v, sign * own)]

    return of(equations[-1].outputs[0], 1)


def _signs(equation: Equation) -> list[int]:
    """The factor of each operand of a sum, a change of sign or a cast."""
    entry = lookup(equation.primitive)
    assert entry is not None
    if len(equation.inputs) == 2:
        return [1, -1 if entry.subtracts else 1]
    return [-1 if entry.negates else 1]
