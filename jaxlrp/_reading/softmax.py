"""Recognising softmax and its kin: log-softmax, logsumexp, masked or not, any axis."""

from __future__ import annotations

from jax.extend.core import Literal

from jaxlrp._program.program import Equation, Value, aval_of
from jaxlrp._reading.claims import Claims
from jaxlrp._reading.steps import Step, Unit
from jaxlrp.composites import Composite
from jaxlrp.primitives import Kind
from jaxlrp.rules import Pass


def claim_softmax(claims: Claims, composite: Composite) -> dict[int, Step]:
    """Exponentials that are summed, and what divides by the sum or takes its log.

    Equation by equation the derivative is the softmax's own, so they must only not be
    taken for activations and normalisers. `x - max(x)` belongs here too: it is exactly
    zero at the largest entry, and no rule may divide by it.

    A rule for the whole softmax (`Pass`) makes it one step, by its last equation.
    """
    steps: dict[int, Step] = {}
    for i, equation in enumerate(claims.program.equations):
        if not claims.active_inputs(equation) or not claims.entry(equation).exponential:
            continue
        members = _members(i, claims)
        roles = _divided_last(i, members, claims)
        for j in members:
            claims.role.setdefault(j, roles.get(j, "softmax"))
        if members:
            steps |= _whole(i, members, claims, composite)
    return steps


def _whole(
    index: int, members: set[int], claims: Claims, composite: Composite
) -> dict[int, Step]:
    """The softmax of an exponential as one step, if its rule asks for that."""
    equation = claims.program.equations[index]
    if not isinstance(composite.rule(claims.place(equation, "softmax")), Pass):
        return {}
    root = equation.inputs[0]
    shift = claims.producer.get(root)  # type: ignore[arg-type]
    if shift in members:  # x - max(x)
        before = claims.active_inputs(claims.program.equations[shift])
        root = next((v for v in before if not claims.facts[v].reduced), root)
    ends = [
        j
        for j in members
        if j > index
        and claims.program.equations[j].outputs[0].aval.shape == aval_of(root).shape
        and not any(
            k in members
            for k in claims.uses.get(claims.program.equations[j].outputs[0], ())
        )
    ]
    assert isinstance(root, Value)
    if len(ends) != 1 or (inside := claims.between(ends[0], root)) is None:
        return {}
    claims.absorb(inside, ends[0])
    equations = tuple(claims.program.equations[j] for j in inside)
    return {ends[0]: Step("softmax", equations, (root,), Unit(root))}


def _members(index: int, claims: Claims) -> set[int]:
    """The equations of the softmax that an exponential belongs to, if it does."""
    equations = claims.program.equations
    numerators, found = _follow(index, claims)
    members: set[int] = set()
    for j in found:
        if not claims.entry(equations[j]).sums:
            continue
        scales, behind = _follow(j, claims)
        ends = {k for k in behind if _is_end(equations[k], numerators, scales, claims)}
        if not ends:
            last = _weighted(found, claims)
            ends = {k for k in behind if _is_end(equations[k], last, scales, claims)}
        if ends:
            members |= {j, *ends, *(k for k in behind if _is_light(k, claims))}
            members.update(*(_of_logarithm(k, claims) for k in ends))
    if not members:
        return members
    shift = claims.producer.get(equations[index].inputs[0])  # type: ignore[arg-type]
    if shift is not None and _is_light(shift, claims, actives=2):
        members.add(shift)
    return members | {index, *(j for j in found if _is_light(j, claims))}


def _heads(found: set[int], claims: Claims) -> set[int]:
    """The contractions among equations."""
    equations = claims.program.equations
    return {j for j in found if claims.entry(equations[j]).kind is Kind.CONTRACTION}


def _weighted(found: set[int], claims: Claims) -> set[Value]:
    """What the contractions among equations make: `exp(x) @ v`."""
    return set().union(*(_follow(j, claims)[0] for j in _heads(found, claims)))


def _divided_last(index: int, members: set[int], claims: Claims) -> dict[int, str]:
    """Roles in `(e @ v) / sum(e)`, a softmax whose division comes last.

    The sum is `e @ 1`. It passes on the part of its relevance that `e @ v` passes to
    `e`, by the same rule, and nothing in the quotient is held: that is softmax's
    derivative.
    """
    equations = claims.program.equations
    found = _follow(index, claims)[1]
    weighted = _weighted(found, claims)
    read = {j: claims.active_inputs(equations[j]) for j in members}
    ends = {j for j in members if not weighted.isdisjoint(read[j])}
    if not ends:
        return {}
    actives = {len(claims.active_inputs(equations[j])) for j in _heads(found, claims)}
    sums = {j for j in members if claims.entry(equations[j]).sums}
    part = "bilinear" if 2 in actives else "softmax"
    return dict.fromkeys(ends, "gradient") | dict.fromkeys(sums, part)


def _of_logarithm(end: int, claims: Claims) -> set[int]:
    """What makes a softmax of a logarithm: `exp(x - log(sum))`, and the shift."""
    equations = claims.program.equations
    if not claims.entry(equations[end]).logarithm:
        return set()
    _, met = _follow(end, claims, actives=2)
    again = {
        j
        for j in met
        if claims.active_inputs(equations[j]) and claims.entry(equations[j]).exponential
    }
    sums = {j for j in met if _is_light(j, claims, actives=2)}
    return again | sums if again else set()


def _follow(
    start: int, claims: Claims, actives: int = 1
) -> tuple[set[Value], set[int]]:
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
            if _is_light(j, claims, actives):
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
    if entry.kind is Kind.STRUCTURAL or entry.totals:
        return True
    if entry.kind is not Kind.ELEMENTWISE or entry.exponential:
        return False
    literals = [v.val if isinstance(v, Literal) else None for v in equation.inputs]
    if entry.linear(active) or entry.homogeneous(literals):
        return True
    # 1 / sum, max(sum, tiny)
    return len(active) == 2 and (entry.is_quotient or entry.bounds)


def _is_end(
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
    if not isinstance(a, Value) or not isinstance(b, Value):
        return False
    return (a in numerators and b in scales) or (
        entry.is_product and b in numerators and a in scales
    )
