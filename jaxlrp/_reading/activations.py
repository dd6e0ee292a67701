"""Recognising activations: elementwise regions between a value and what it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.core import Literal
from jax.extend.core.primitives import custom_vjp_call_p

from jaxlrp import _compat
from jaxlrp._program.opaque import is_elementwise
from jaxlrp._program.program import Equation, Value
from jaxlrp._reading.claims import Claims, held_operands
from jaxlrp._reading.facts import facts_of
from jaxlrp._reading.steps import Step, Unit
from jaxlrp.primitives import Kind, lookup


def claim_regions(claims: Claims) -> dict[int, Step]:
    """Activations, by the index of the equation that gives their result.

    A region is what one value (the anchor) becomes through elementwise equations.
    `dominators[v]` lists, from the anchor on, the values that every path to `v`
    passes and that are piecewise linear in the anchor, hence exact by their derivative;
    the last of them is the root of the activation that ends in `v`.
    """
    equations = claims.program.equations
    anchor: dict[Value, Value] = {}
    dominators: dict[Value, tuple[Value, ...]] = {}
    exact: dict[Value, bool] = {}
    inside: dict[int, Value] = {}

    def start(value: Value) -> None:
        anchor[value], dominators[value], exact[value] = value, (value,), True

    for v in [*claims.program.inputs, *(v for v, _ in claims.program.constants)]:
        start(v)
    for i, equation in enumerate(equations):
        actives = list(dict.fromkeys(claims.active_inputs(equation)))
        if i in claims.role or not _joins(equation, actives, anchor, exact, claims):
            for v in equation.outputs:
                start(v)
            continue
        (out,) = equation.outputs
        inside[i] = out
        anchor[out] = anchor[actives[0]]
        common = _common_prefix([dominators[v] for v in actives])
        exact[out] = all(exact[v] for v in actives) and _is_exact(equation, claims)
        dominators[out] = (*common, out) if exact[out] else common
    steps: dict[int, Step] = {}
    for i, out in inside.items():
        if exact[out]:
            # max(x, 0), abs(x), where(x > 0, x, 0)
            if not claims.is_linear(equations[i]) or _saturates(equations[i], claims):
                x, *others = dict.fromkeys(claims.active_inputs(equations[i]))
                if others:  # a selection between several: structural
                    continue
                step = Step("activation", (equations[i],), (x,), Unit(x, exact=True))
                steps[i] = step
            continue
        if not _leaves(out, inside, anchor, claims):
            continue
        root = dominators[out][-1]
        members = claims.between(i, root)
        assert members is not None, "a dominator lies on every path"
        cone = tuple(equations[j] for j in members)
        steps[i] = Step("activation", cone, (root,), Unit(root))
    # What only lies inside activations is not its own step.
    for i, out in inside.items():
        if i not in steps and not exact[out]:
            claims.role[i] = "chain"
    return steps


def _joins(
    equation: Equation,
    actives: Sequence[Value],
    anchor: Mapping[Value, Value],
    exact: Mapping[Value, bool],
    claims: Claims,
) -> bool:
    """Does the equation continue the region of its active operands?"""
    if not actives or len(equation.outputs) != 1:
        return False
    (out,) = equation.outputs
    if not claims.facts[out].active:
        return False
    if len({anchor[v] for v in actives}) != 1:
        return False
    own = _is_embedding(equation, claims) or _is_mask(equation, claims)
    if own and not all(exact[v] for v in actives):
        return False
    if any(v.aval.shape != out.aval.shape for v in actives):
        return False
    entry = claims.entry(equation)
    if entry.kind is Kind.CALL:  # an elementwise function with its own derivative?
        if equation.primitive is custom_vjp_call_p:  # it has no forward derivative
            return False
        body = _compat.called_jaxpr(dict(equation.params))
        return len(actives) == 1 and is_elementwise(body)
    if entry.kind is not Kind.ELEMENTWISE:
        return False
    return not held_operands(equation, entry, claims.facts)


def _is_embedding(equation: Equation, claims: Claims) -> bool:
    """Is a constant added that varies by position? Not part of a function."""
    entry = claims.entry(equation)
    active = [claims.active(v) for v in equation.inputs]
    if entry.kind is not Kind.ELEMENTWISE or sum(active) != 1 or len(active) != 2:
        return False
    constant = equation.inputs[active.index(False)]
    varies = facts_of(constant, claims.facts).varies
    return bool(varies) and entry.is_sum


def _is_mask(equation: Equation, claims: Claims) -> bool:
    """Is a constant inserted by a predicate that is itself constant?"""
    if not claims.entry(equation).selects:
        return False
    which, *cases = equation.inputs
    constant = not facts_of(which, claims.facts).cut
    return constant and not all(claims.active(v) for v in cases)


def _is_exact(equation: Equation, claims: Claims) -> bool:
    """Is `phi(x) = phi'(x) x` for the equation: linear, or piecewise so through 0?

    A shift by a constant counts too: it is not an activation, its constant absorbs.
    """
    entry = claims.entry(equation)
    if entry.kind is Kind.CALL:
        body = _compat.called_jaxpr(dict(equation.params))
        return _is_homogeneous(_compat.open_jaxpr(body)[0])
    if _saturates(equation, claims):
        return all(_known(v, claims) == 0 for v in _constant_cases(equation, claims))
    if claims.is_linear(equation):
        return True
    return entry.homogeneous(
        [v.val if isinstance(v, Literal) else None for v in equation.inputs]
    )


def _saturates(equation: Equation, claims: Claims) -> bool:
    """A choice, by the values themselves, between them and constants.

    `where(x > 0, x, 0)` is a rectifier and `where(x > 1, 1, x)` saturates, while
    `where(mask, x, -inf)` is a mask, and so is one with the lowest number there is.
    """
    cases = _constant_cases(equation, claims)
    return bool(cases) and all(
        (known := _known(v, claims)) is not None and np.all(np.abs(known) < _HUGE)
        for v in cases
    )


_HUGE = 1e19
"""The root of the largest float32: no value that saturates, and its square is none."""


def _constant_cases(equation: Equation, claims: Claims) -> list[Any]:
    """The inactive cases of a selection by a predicate that depends on the input."""
    if not claims.entry(equation).selects or len(equation.inputs) < 3:
        return []
    which, *cases = equation.inputs
    if not facts_of(which, claims.facts).cut:
        return []
    return [v for v in cases if not claims.active(v)]


def _known(atom: Any, claims: Claims) -> Any | None:
    """The value of a literal, or of a literal spread over a shape."""
    while not isinstance(atom, Literal):
        index = claims.producer.get(atom)
        if index is None:
            return None
        equation = claims.program.equations[index]
        if len(equation.inputs) != 1 or not _spreads(equation, claims):
            return None
        (atom,) = equation.inputs
    return atom.val


def _spreads(equation: Equation, claims: Claims) -> bool:
    entry = claims.entry(equation)
    return entry.kind is Kind.STRUCTURAL or entry.linear([True]) and not entry.sums


def _is_homogeneous(jaxpr: Any) -> bool:
    """A body that is one homogeneous equation, as `max(x, 0)`, calls inlined."""
    if len(jaxpr.eqns) != 1:
        return False
    (eqn,) = jaxpr.eqns
    entry = lookup(eqn.primitive)
    if entry is None:
        return False
    if entry.kind is Kind.CALL:
        body = _compat.called_jaxpr(eqn.params)
        return body is not None and _is_homogeneous(_compat.open_jaxpr(body)[0])
    return entry.homogeneous(
        [v.val if isinstance(v, Literal) else None for v in eqn.invars]
    )


def _common_prefix(chains: Sequence[tuple[Value, ...]]) -> tuple[Value, ...]:
    common = chains[0]
    for chain in chains[1:]:
        n = 0
        while n < min(len(common), len(chain)) and common[n] is chain[n]:
            n += 1
        common = common[:n]
    return common


def _leaves(
    value: Value,
    inside: Mapping[int, Value],
    anchor: Mapping[Value, Value],
    claims: Claims,
) -> bool:
    """Is the value read outside its region?"""
    return any(
        j < 0 or j not in inside or anchor[inside[j]] is not anchor[value]
        for j in claims.uses.get(value, ())
    )
