"""Integers that name something: token ids, and what they look up.

An id has no multiple, so its relevance travels in a shadow of floats. Where an id looks
a value up (a row of a table, an element of a one-hot code), what that value receives is
the id's: `R_id = sum over what it looked up of R`.
"""

from __future__ import annotations

from jaxlrp import _compat
from jaxlrp._program.program import Equation, Value, aval_of
from jaxlrp._reading.claims import Claims
from jaxlrp._reading.facts import facts_of, moves_symbols, names
from jaxlrp._reading.steps import LookUp, Step
from jaxlrp.primitives import Kind

# ---- reading -----------------------------------------------------------------------


def claim_symbols(claims: Claims) -> dict[int, Step]:
    """What moves symbols and what looks things up by them, by index."""
    steps: dict[int, Step] = {}
    for i, equation in enumerate(claims.program.equations):
        entry = claims.entry(equation)
        opaque = entry.kind in (Kind.CONTROL, Kind.CALL, Kind.CUSTOM)
        if i in claims.role or opaque:
            continue
        if claims.active_inputs(equation):
            if names(equation, entry):  # ids that travel among floats
                claims.role[i] = "lookup"
                signals = tuple(claims.active_inputs(equation))
                steps[i] = Step("lookup", (equation,), signals, LookUp())
            continue
        symbols = symbols_of(equation, claims)
        if not symbols or not any(claims.facts[v].carries for v in equation.outputs):
            continue
        operands = [facts_of(v, claims.facts) for v in equation.inputs]
        if moves_symbols(entry, operands):
            role, columns = "structural", ()
            places = entry.linear_in(len(equation.inputs))
            moved_symbols = [equation.inputs[i] for i in places]
            symbols = tuple(v for v in symbols if v in moved_symbols)
        else:
            role, columns = "lookup", _columns(equation, claims)
        claims.role[i] = role
        steps[i] = Step(role, (equation,), symbols, LookUp(columns))
    return steps


def symbols_of(equation: Equation, claims: Claims) -> tuple[Value, ...]:
    """The operands that are symbols, each once."""
    operands = [v for v in equation.inputs if isinstance(v, Value)]
    return tuple(dict.fromkeys(v for v in operands if claims.facts[v].symbolic))


def _columns(equation: Equation, claims: Claims) -> tuple[int, ...]:
    """Which columns of an index are symbols, where it was joined from columns.

    `table[rows, ids]` concatenates both, and what it looks up is the ids' alone.
    """
    for v in symbols_of(equation, claims):
        if v not in claims.producer:
            continue
        producer = claims.program.equations[claims.producer[v]]
        if _compat.joined_axis(producer.params) != len(v.aval.shape) - 1:
            continue
        widths = [aval_of(a).shape[-1] for a in producer.inputs]
        starts = [sum(widths[:k]) for k in range(len(widths))]
        return tuple(
            start + k
            for a, start, width in zip(producer.inputs, starts, widths, strict=True)
            if facts_of(a, claims.facts).symbolic
            for k in range(width)
        )
    return ()
