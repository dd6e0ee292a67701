"""The work sheet of a program while its equations are being claimed by roles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlrp._facts import Facts
from jaxlrp._program import Equation, Program, Value
from jaxlrp.primitives import Entry, Kind, lookup


@dataclasses.dataclass(frozen=True)
class Claims:
    """The work sheet of one program while its equations are being claimed."""

    program: Program
    facts: Mapping[Value, Facts]
    uses: dict[Value, list[int]]
    producer: dict[Value, int]
    role: dict[int, str]

    def active(self, atom: Any) -> bool:
        return isinstance(atom, Value) and self.facts[atom].active

    def active_inputs(self, equation: Equation) -> list[Value]:
        return [v for v in equation.inputs if isinstance(v, Value) and self.active(v)]

    def entry(self, equation: Equation) -> Entry:
        """The rule book's entry; refused where there is none."""
        return lookup(equation.primitive) or Entry(Kind.REFUSED)


def is_sum(entry: Entry, active: Sequence[bool]) -> bool:
    return entry.linear([True] * len(active))


def is_product(entry: Entry) -> bool:
    return (
        entry.linear([True, False])
        and entry.linear([False, True])
        and not entry.linear([True, True])
    )


def is_quotient(entry: Entry) -> bool:
    return entry.linear([True, False]) and not entry.linear([False, True])


def held_operands(
    equation: Equation, entry: Entry, facts: Mapping[Value, Facts]
) -> tuple[int, ...]:
    """Operands of a product or quotient of two active values that are held constant.

    A divisor always; a factor where it is a statistic made a scale (the `rsqrt` of a
    variance) and the other is not.
    """
    if entry.kind is not Kind.ELEMENTWISE or len(equation.inputs) != 2:
        return ()
    a, b = equation.inputs
    if not all(isinstance(v, Value) and facts[v].active for v in (a, b)) or a is b:
        return ()
    if is_quotient(entry):
        return (1,)
    if is_product(entry):
        rooted = [facts[v].rooted for v in (a, b)]  # type: ignore[index]
        if rooted == [False, True]:
            return (1,)
        if rooted == [True, False]:
            return (0,)
    return ()
