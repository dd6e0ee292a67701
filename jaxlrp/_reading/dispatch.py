"""Gates that a constant sends to their places, as those of a mixture of experts.

`einsum("tkec,tk,ecd->td", dispatch, gates, y)` is a sum of products of gates and what
experts return, like `(gates[..., None] * y[...]).sum(1)`, and read as such a product:
by the rule of products, which may hold the gates. In attention, `softmax(s) @ v`, the
weights are where the values are, and nothing sends them there.
"""

from __future__ import annotations

from jaxlrp._program.placement import in_place, moved
from jaxlrp._program.program import Atom, Equation, Value, aval_of
from jaxlrp._reading.claims import Claims
from jaxlrp._reading.facts import facts_of
from jaxlrp.primitives import Kind


def dispatched(equation: Equation, claims: Claims) -> tuple[int, ...]:
    """Which operand of a contraction of two is made of gates sent by a constant."""
    if len(equation.inputs) != 2 or equation.inputs[0] is equation.inputs[1]:
        return ()
    found = [i for i, v in enumerate(equation.inputs) if _is_sent(v, claims)]
    if len(found) != 1:
        return ()
    other = facts_of(equation.inputs[1 - found[0]], claims.facts)
    return () if other.nonnegative else (found[0],)


def _is_sent(atom: Atom, claims: Claims) -> bool:
    """Is it made of one nonnegative value, spread over new axes by a constant there?"""
    sent = False
    while isinstance(atom, Value) and atom in claims.producer:
        equation = claims.program.equations[claims.producer[atom]]
        actives = claims.active_inputs(equation)
        if len(actives) != 1:
            break
        entry, (value,) = claims.entry(equation), actives
        if entry.kind is Kind.CONTRACTION:
            if not _sends(equation, claims):
                break
            sent = True
        elif entry.kind is Kind.ELEMENTWISE and len(equation.inputs) == 2:
            if not entry.is_product or not _is_masked(equation, value, claims):
                break
            sent = True
        elif len(equation.inputs) > 1 or not (
            entry.kind is Kind.STRUCTURAL
            or entry.sums
            or (entry.kind is Kind.ELEMENTWISE and entry.linear([True]))
        ):
            break
        atom = value
    return sent and facts_of(atom, claims.facts).nonnegative


def _sends(equation: Equation, claims: Claims) -> bool:
    """Has the constant of a contraction axes of the gates, and axes of its own?"""
    kernel_axes = claims.entry(equation).kernel_axes
    if kernel_axes is None:
        return False
    kernel = 0 if claims.active(equation.inputs[1]) else 1
    ndims = tuple(len(aval_of(v).shape) for v in equation.inputs)
    axes = [set(kernel_axes(equation.params, k, ndims)) for k in (0, 1)]
    return bool(axes[0] & axes[1]) and bool(axes[kernel] - axes[1 - kernel])


def _is_masked(equation: Equation, value: Value, claims: Claims) -> bool:
    """Does a product's constant vary along axes that the gates were spread over?"""
    mask = equation.inputs[1 - equation.inputs.index(value)]
    own = set(_own_axes(value, claims))
    return bool(facts_of(mask, claims.facts).varies - own)


def _own_axes(value: Value, claims: Claims) -> tuple[int | None, ...]:
    """The axes of a value that it was not spread over."""
    index = claims.producer.get(value)
    equation = None if index is None else claims.program.equations[index]
    moves = equation is not None and claims.entry(equation).kind is Kind.STRUCTURAL
    if equation is None or not moves or len(equation.inputs) != 1:
        return in_place(value.aval.shape)
    before = aval_of(equation.inputs[0]).shape
    there = moved(
        equation.primitive,
        equation.params,
        in_place(before),
        before,
        value.aval.shape,
    )
    # A size of one may be repeated in the product itself.
    return in_place(value.aval.shape) if there is None else there
