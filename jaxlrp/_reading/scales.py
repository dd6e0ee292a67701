"""Scales that are divided out and multiplied in again: `s (round(x / s) . w)`.

Whatever `s` is made of, it cancels, so that the product's relevance is the other
factor's. Quantised layers are written so, with `s` the largest size in `x`, and an
offset that is added before the rounding and subtracted after it.
"""

from __future__ import annotations

import dataclasses

from jaxlrp import _compat
from jaxlrp._program.program import Atom, Equation, Value
from jaxlrp._reading.claims import Claims
from jaxlrp._reading.products import contracts
from jaxlrp._reading.steps import Held, Step
from jaxlrp.primitives import Entry, Kind, lookup


@dataclasses.dataclass(frozen=True)
class _Change:
    """A factor or a term that a value has, until it is taken back.

    Attributes:
      origin: what it is, but for its shape; of a factor also but for constants.
      inverse: a factor that was divided by, a term that was subtracted.
      place: the equation and the position of the operand that are held once it is; None
        where the equation holds it anyway.
      again: a second time, as in the product of `x / s` with itself.
    """

    origin: Atom
    inverse: bool
    place: tuple[int, int] | None = None
    again: bool = False


@dataclasses.dataclass(frozen=True)
class _History:
    """What has been done to a value on its way."""

    factors: frozenset[_Change] = frozenset()
    terms: frozenset[_Change] = frozenset()


_NOTHING = _History()


def find_scales(claims: Claims) -> dict[int, int]:
    """Products and sums with an operand that cancels: its position, by index."""
    held: dict[int, int] = {}
    known: dict[Value, _History] = {}
    for i, equation in enumerate(claims.program.equations):
        if i in claims.role or len(equation.outputs) != 1:
            continue
        history = _after(i, equation, known, held, claims)
        if history != _NOTHING:
            known[equation.outputs[0]] = history
    return held


def claim_scales(claims: Claims) -> dict[int, Step]:
    """These as steps, but for those that are part of a layer."""
    steps: dict[int, Step] = {}
    for i, position in claims.scales.items():
        equation = claims.program.equations[i]
        # Divisors are held in any case.
        if i not in claims.role and not claims.entry(equation).is_quotient:
            claims.role[i] = "normaliser"
            signals = tuple(claims.active_inputs(equation))
            steps[i] = Step("normaliser", (equation,), signals, Held((position,)))
    return steps


def _after(
    index: int,
    equation: Equation,
    known: dict[Value, _History],
    held: dict[int, int],
    claims: Claims,
) -> _History:
    """The history of an equation's result; writes down what is held in it."""
    entry, signals = claims.entry(equation), set(claims.active_inputs(equation))
    if len(signals) == 1:
        (signal,) = signals
        return _kept(known.get(signal, _NOTHING), equation, entry, claims)
    before = [known.get(v, _NOTHING) for v in claims.active_inputs(equation)]
    if entry.kind is Kind.STRUCTURAL and before or entry.selects and before:
        return _History(_of_all(before))
    if len(signals) != 2 or len(before) != 2:
        return _NOTHING
    if _only_multiplies(equation, entry, claims):
        return _of_product(index, equation, before, held, claims)
    if entry.kind is Kind.CONTRACTION:  # it has the scales of either
        a, b = (h.factors for h in before)
        twice = (dataclasses.replace(f, again=True) for f in a & b)
        return _History(a | b | frozenset(twice))
    if entry.kind is not Kind.ELEMENTWISE:
        return _NOTHING
    if entry.is_quotient:
        origin, inverse = _factor(equation.inputs[1], claims)
        change = _Change(origin, not inverse)
        undone = _take_back(change, before[0].factors, held)
        if undone is None:
            return _History(before[0].factors | {change})
        held[index] = 1
        return _History(_without(undone, before[0].factors))
    return _of_sum(index, equation, before, held, claims) if entry.is_sum else _NOTHING


def _only_multiplies(equation: Equation, entry: Entry, claims: Claims) -> bool:
    """Is it a product, or a contraction that sums over nothing: one in all but name?"""
    if entry.kind is Kind.CONTRACTION:
        return not equation.opaque and not contracts(equation, claims)
    return entry.kind is Kind.ELEMENTWISE and entry.is_product


def _take_back(
    change: _Change, made: frozenset[_Change], held: dict[int, int]
) -> _Change | None:
    """What a change undoes, which is then held where it was made."""
    undone = [
        other
        for other in made
        if other.origin is change.origin and other.inverse != change.inverse
    ]
    if not undone:
        return None
    # Of several the last: a set has no order, and a reading must not depend on one.
    last = max(undone, key=lambda other: other.place or (-1, -1))
    if last.place is not None:
        held[last.place[0]] = last.place[1]
    return last


def _without(undone: _Change, made: frozenset[_Change]) -> frozenset[_Change]:
    """What is left: of a product one factor is taken back, the other one stays."""
    if undone.place is None:
        return made - {undone}
    index = undone.place[0]
    return frozenset(c for c in made if c.place is None or c.place[0] != index)


def _of_product(
    index: int,
    equation: Equation,
    before: list[_History],
    held: dict[int, int],
    claims: Claims,
) -> _History:
    changes = [_Change(*_factor(v, claims), (index, p)) for p, v in _both(equation)]
    for position in (1, 0):
        other = before[1 - position].factors
        undone = _take_back(changes[position], other, held)
        if undone is not None:
            held[index] = position
            return _History(_without(undone, other))
    return _History(before[0].factors | before[1].factors | frozenset(changes))


def _of_sum(
    index: int,
    equation: Equation,
    before: list[_History],
    held: dict[int, int],
    claims: Claims,
) -> _History:
    subtracts = claims.entry(equation).subtracts
    changes = [
        _Change(_unmoved(v, claims), subtracts and p == 1, (index, p))
        for p, v in _both(equation)
    ]
    for position in (1, 0):
        other = before[1 - position]
        if _takes_back_term(position, subtracts):
            undone = _take_back(changes[position], other.terms, held)
            if undone is not None:
                held[index] = position
                return _History(other.factors, other.terms - {undone})
    made = frozenset(c for p, c in enumerate(changes) if _takes_back_term(p, subtracts))
    return _History(_of_all(before), before[0].terms | before[1].terms | made)


def _of_all(before: list[_History]) -> frozenset[_Change]:
    """The factors that all have, of those that are held in any case."""
    own = [frozenset(f for f in h.factors if f.place is None) for h in before]
    return own[0].intersection(*own[1:])


def _takes_back_term(position: int, subtracts: bool) -> bool:
    """May the operand be an offset? In `a - b`, `b` alone: the rest would be `-b`."""
    return position == 1 or not subtracts


def _both(equation: Equation) -> list[tuple[int, Atom]]:
    return list(enumerate(equation.inputs))


def _kept(
    history: _History, equation: Equation, entry: Entry, claims: Claims
) -> _History:
    """What is left of a history after an equation of one active operand."""
    if _moves(equation, entry, claims) or entry.rounds or entry.picks:
        return history
    linear = claims.is_linear(equation) and not equation.opaque
    return _History(history.factors) if linear else _NOTHING


def _moves(equation: Equation, entry: Entry, claims: Claims) -> bool:
    """Is the result the active operand, but for its shape and type?"""
    if entry.kind is Kind.CALL:
        return is_cast(equation)
    alone = entry.kind is Kind.ELEMENTWISE and len(equation.inputs) == 1
    copies = alone and claims.is_linear(equation) and not entry.negates
    return entry.kind is Kind.STRUCTURAL or copies


def is_cast(equation: Equation) -> bool:
    """A call of nothing but casts."""
    body = _compat.called_jaxpr(dict(equation.params))
    inner = _compat.open_jaxpr(body)[0].eqns if body is not None else ()
    entries = [lookup(e.primitive) for e in inner]
    return bool(inner) and all(
        e is not None and e.linear([True]) and not e.negates for e in entries
    )


def _made_by(atom: Atom, claims: Claims) -> Equation | None:
    index = claims.producer.get(atom) if isinstance(atom, Value) else None
    return None if index is None else claims.program.equations[index]


def _unmoved(atom: Atom, claims: Claims) -> Atom:
    """What a value is, but for its shape and type."""
    while (equation := _made_by(atom, claims)) is not None:
        signals = claims.active_inputs(equation)
        if len(signals) != 1 or not _moves(equation, claims.entry(equation), claims):
            break
        (atom,) = signals
    return atom


def _factor(atom: Atom, claims: Claims) -> tuple[Atom, bool]:
    """What a factor is, but for its shape and constants; is it one over that?"""
    inverse = False
    while (equation := _made_by(atom := _unmoved(atom, claims), claims)) is not None:
        entry, signals = claims.entry(equation), claims.active_inputs(equation)
        known = entry.kind is Kind.ELEMENTWISE and not entry.is_sum
        known = known or _only_multiplies(equation, entry, claims)
        if len(signals) != 1 or not known:
            break
        power = entry.power is not None and entry.power(equation.params) == -1
        if entry.is_quotient and signals[0] is equation.inputs[1] or power:
            inverse = not inverse
        elif not claims.is_linear(equation):
            break
        (atom,) = signals
    return atom, inverse
