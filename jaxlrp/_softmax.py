"""Recognising softmax and its kin: log-softmax, logsumexp, masked or not, any axis."""

from __future__ import annotations

from jax.extend.core import Literal

from jaxlrp._claims import Claims, is_product, is_quotient
from jaxlrp._program import Equation, Value
from jaxlrp.primitives import Kind


def claim_softmax(claims: Claims) -> None:
    """Exponentials that are summed, and what divides by the sum or takes its log.

    Equation by equation the derivative is the softmax's own, so they only have to be
    kept from being taken for activations and normalisers. `x - max(x)` belongs here
    too: it is exactly zero at the largest entry, and no rule may divide by it.
    """
    equations = claims.program.equations
    for i, equation in enumerate(equations):
        if not claims.active_inputs(equation):
            continue
        if not claims.entry(equation).exponential or i in claims.role:
            continue
        numerators, found = _follow(i, claims)
        sums = [j for j in found if claims.entry(equations[j]).sums]
        ends: set[int] = set()
        between: set[int] = set()
        for j in sums:
            scales, behind = _follow(j, claims)
            for k in behind:
                role = _softmax_end(equations[k], numerators, scales, claims)
                if role:
                    ends.add(k)
            if ends:
                between |= {k for k in behind if _is_light(k, claims)}
        if not ends:
            continue
        members = {i, *sums, *ends, *between}
        members |= {j for j in found if _is_light(j, claims)}
        shift = claims.producer.get(equation.inputs[0])  # type: ignore[arg-type]
        if shift is not None and _is_light(shift, claims, actives=2):
            members.add(shift)
        for j in members:
            claims.role.setdefault(j, "softmax")


def _follow(start: int, claims: Claims) -> tuple[set[Value], set[int]]:
    """Values reached from an equation through light ones, and all equations met."""
    values = set(claims.program.equations[start].outputs)
    met: set[int] = set()
    queue = list(values)
    while queue:
        for j in claims.uses.get(queue.pop(), ()):
            if j < 0 or j in met:
                continue
            met.add(j)
            equation = claims.program.equations[j]
            if _is_light(j, claims):
                values.update(equation.outputs)
                queue.extend(equation.outputs)
    return values, met


def _is_light(index: int, claims: Claims, actives: int = 1) -> bool:
    """Shape changes, masks, casts, and arithmetic with constants."""
    equation = claims.program.equations[index]
    active = [claims.active(v) for v in equation.inputs]
    if not 1 <= sum(active) <= actives:
        return False
    entry = claims.entry(equation)
    if entry.kind is Kind.STRUCTURAL:
        return True
    if entry.kind is not Kind.ELEMENTWISE or entry.exponential:
        return False
    literals = [v.val if isinstance(v, Literal) else None for v in equation.inputs]
    if entry.linear(active) or entry.homogeneous(literals):
        return True
    # 1 / sum, max(sum, tiny)
    return len(active) == 2 and (is_quotient(entry) or entry.bounds)


def _softmax_end(
    equation: Equation, numerators: set[Value], scales: set[Value], claims: Claims
) -> bool:
    """`exp / sum`, `exp * (1 / sum)`, or `log(sum)`."""
    entry = claims.entry(equation)
    if entry.kind is not Kind.ELEMENTWISE:
        return False
    inputs = equation.inputs
    if len(inputs) == 1:
        return entry.logarithm and inputs[0] in scales
    if len(inputs) != 2 or not entry.linear([True, False]):
        return False
    a, b = inputs
    return (a in numerators and b in scales) or (
        is_product(entry) and b in numerators and a in scales
    )
