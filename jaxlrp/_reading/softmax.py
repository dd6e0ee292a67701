"""Claiming what has been recognised as softmax: log-softmax, logsumexp, any spelling.

Which equations belong to one is found by a walk over the whole program, see
`homogeneous.py`. Their derivative is the softmax's own, so they must only not be taken
for activations, layers and normalisers.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxlrp._program.program import Equation, Value, aval_of
from jaxlrp._reading.claims import Claims
from jaxlrp._reading.context import Joint, Softmaxes
from jaxlrp._reading.facts import facts_of
from jaxlrp._reading.steps import Held, Step, Unit
from jaxlrp.composites import Composite
from jaxlrp.primitives import Kind
from jaxlrp.rules import Pass, Taylor


def claim_softmax(
    claims: Claims, found: Softmaxes, composite: Composite
) -> dict[int, Step]:
    """Arithmetic of exponentials, and what meets a mix of values by them.

    A rule for the whole softmax (`Pass`, or `Taylor` at a temperature) makes it one
    step, by its last equation.
    """
    steps: dict[int, Step] = {}
    for i, equation in enumerate(claims.program.equations):
        if i in claims.role:
            continue
        if equation in found.roles:
            claims.role[i] = found.roles[equation]
        elif equation in found.joints:
            steps |= _joint(i, found.joints, claims)
    exponentials = [
        i
        for i, equation in enumerate(claims.program.equations)
        if claims.role.get(i) == "softmax" and claims.entry(equation).exponential
    ]
    for i in exponentials:
        steps |= _whole(i, claims, composite)
    return steps


def _joint(
    index: int, joints: Mapping[Equation, Joint], claims: Claims
) -> dict[int, Step]:
    """A product or quotient of a mix of values and weights."""
    equation = claims.program.equations[index]
    joint = joints[equation]
    signals = tuple(dict.fromkeys(claims.active_inputs(equation)))
    claims.role[index] = joint.role
    active = tuple(i for i in joint.weights if claims.active(equation.inputs[i]))
    if not signals or not active:
        claims.role[index] = "gradient"
        return {}
    held = Held(active if joint.gate else (), weights=active)
    return {index: Step(joint.role, (equation,), signals, held)}


def _whole(index: int, claims: Claims, composite: Composite) -> dict[int, Step]:
    """The softmax of an exponential as one step, if its rule asks for that."""
    equations = claims.program.equations
    equation = equations[index]
    rule = composite.rule(claims.place(equation, "softmax"))
    tempered = isinstance(rule, Taylor) and rule.temperature is not None
    if not tempered and not isinstance(rule, Pass):
        return {}
    members = _members(index, claims)
    root = equation.inputs[0]
    shift = claims.producer.get(root)  # type: ignore[arg-type]
    if shift is not None and claims.role.get(shift) == "softmax":  # x - max(x)
        before = claims.active_inputs(equations[shift])
        root = next((v for v in before if not facts_of(v, claims.facts).reduced), root)
    ends = [
        j
        for j in members - {index}
        if equations[j].outputs[0].aval.shape == aval_of(root).shape
        and not any(k in members for k in claims.uses.get(equations[j].outputs[0], ()))
    ]
    if not isinstance(root, Value) or len(ends) != 1:
        return {}
    if (inside := claims.between(ends[0], root)) is None:
        return {}
    claims.absorb(inside, ends[0])
    own = tuple(equations[j] for j in inside)
    return {ends[0]: Step("softmax", own, (root,), Unit(root))}


def _members(index: int, claims: Claims) -> set[int]:
    """The equations of a softmax from its exponential on."""
    found, queue = {index}, [index]
    while queue:
        for v in claims.program.equations[queue.pop()].outputs:
            for j in claims.uses.get(v, ()):
                if j < 0 or j in found:
                    continue
                entry = claims.entry(claims.program.equations[j])
                if claims.role.get(j) == "softmax" or entry.kind is Kind.STRUCTURAL:
                    found.add(j)
                    queue.append(j)
    return {j for j in found if _leads_on(j, found, claims)}


def _leads_on(index: int, found: set[int], claims: Claims) -> bool:
    """Is it of a softmax itself, or a change of shape between two that are?"""
    if claims.role.get(index) == "softmax":
        return True
    (value, *_) = claims.program.equations[index].outputs
    return any(
        j in found and _leads_on(j, found, claims) for j in claims.uses.get(value, ())
    )
