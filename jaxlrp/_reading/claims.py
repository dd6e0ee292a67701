"""The work sheet of a program while its equations are being claimed by roles."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.core import Literal

from jaxlrp._program.program import Atom, Equation, Program, Value
from jaxlrp._reading.facts import Facts, names_of
from jaxlrp.composites import Place
from jaxlrp.primitives import Entry, Kind, lookup


@dataclasses.dataclass(frozen=True)
class Claims:
    """The work sheet of one program while its equations are being claimed.

    Attributes:
      program: the program.
      facts: of its values.
      uses: the equations that read a value; -1 for the program's outputs.
      producer: the equation that makes a value.
      role: of the equations that are claimed.
      recurrent: the layers that lie in a recurrence.
      scales: products and sums with an operand that cancels, and its position.
      named: are layers asked for by name?
    """

    program: Program
    facts: Mapping[Value, Facts]
    uses: dict[Value, list[int]]
    producer: dict[Value, int]
    role: dict[int, str]
    recurrent: frozenset[Equation] = frozenset()
    scales: Mapping[int, int] = dataclasses.field(default_factory=dict)
    named: bool = False

    def active(self, atom: Any) -> bool:
        return isinstance(atom, Value) and self.facts[atom].active

    def active_inputs(self, equation: Equation) -> list[Value]:
        return [v for v in equation.inputs if isinstance(v, Value) and self.active(v)]

    def entry(self, equation: Equation) -> Entry:
        """The rule book's entry; refused where there is none."""
        return lookup(equation.primitive) or Entry(Kind.REFUSED)

    def is_linear(self, equation: Equation) -> bool:
        """Is it linear in its active operands together?"""
        active = [self.active(v) for v in equation.inputs]
        return self.entry(equation).linear(active)

    def place(
        self,
        equation: Equation,
        role: str,
        signals: Iterable[Value] | None = None,
        activated: bool = False,
        residual: bool = False,
        members: Sequence[Equation] = (),
    ) -> Place:
        """What a composite is told about a step with this main equation.

        Of a step of several equations that is no layer, `members` are all of them.
        """
        paths = names_of(members or (equation,), self.facts) if self.named else ()
        sources = self.active_inputs(equation) if signals is None else list(signals)
        return Place(
            role,
            not any(self.facts[v].layered for v in sources),
            equation.scope,
            equation.primitive.name,
            max((self.facts[v].depth for v in sources), default=0),
            activated,
            self.lies_in_recurrence(equation, role),
            residual,
            tuple(itertools.chain.from_iterable(paths)),
        )

    def lies_in_recurrence(self, equation: Equation, role: str) -> bool:
        """Is it one of its layers, or a shift by its first state behind its weights?"""
        if role != "shift":
            return equation in self.recurrent
        while self.recurrent and self._shifts(equation):
            constants = [v for v in equation.inputs if not self.active(v)]
            layers = (e for v in constants for e in self.layers_of(v))
            if any(e in self.recurrent for e in layers):
                return True
            (signal,) = self.active_inputs(equation)
            if signal not in self.producer:
                return False
            # A bias comes after the state, `(W x + U h) + b`.
            equation = self.program.equations[self.producer[signal]]
        return False

    def _shifts(self, equation: Equation) -> bool:
        entry = self.entry(equation)
        adds = entry.kind is Kind.ELEMENTWISE and entry.is_sum
        return adds and len(self.active_inputs(equation)) == 1

    def layers_of(self, constant: Atom) -> Iterator[Equation]:
        """The layers that a constant is computed with, as from a first state."""
        seen, queue = set(), [constant] if isinstance(constant, Value) else []
        while queue:
            index = self.producer.get(queue.pop())
            if index is None or index in seen:
                continue
            seen.add(index)
            equation = self.program.equations[index]
            if self.entry(equation).kind is Kind.CONTRACTION:
                yield equation
            queue += [v for v in equation.inputs if isinstance(v, Value)]

    def between(self, last: int, root: Value) -> tuple[int, ...] | None:
        """The active equations from `root` to `last`, if all of it comes from there."""
        found: set[int] = set()
        queue = [last]
        while queue:
            index = queue.pop()
            if index in found:
                continue
            if self.role.get(index) in ("unexplained", "lookup"):
                return None
            found.add(index)
            for v in self.active_inputs(self.program.equations[index]):
                if v is root:
                    continue
                if v not in self.producer:
                    return None
                queue.append(self.producer[v])
        return tuple(sorted(found))

    def absorb(self, members: Iterable[int], last: int) -> None:
        """Marks what only lies inside a unit that ends in equation `last`."""
        inside = set(members)
        # An equation whose result is read outside, too, stays its own step.
        while outside := {
            j
            for j in inside - {last}
            for v in self.program.equations[j].outputs
            if not inside.issuperset(self.uses.get(v, ()))
        }:
            inside -= outside
        for j in inside:
            self.role[j] = "chain"


def held_operands(
    equation: Equation, entry: Entry, facts: Mapping[Value, Facts]
) -> tuple[int, ...]:
    """Operands of a product or quotient of two active values that are held constant.

    A divisor always; a factor where it is a statistic turned into a scale (the `rsqrt`
    of a variance) and the other is not.
    """
    if entry.kind is not Kind.ELEMENTWISE or len(equation.inputs) != 2:
        return ()
    a, b = equation.inputs
    if not all(isinstance(v, Value) and facts[v].active for v in (a, b)) or a is b:
        return ()
    if entry.is_quotient:
        return (1,)
    if entry.is_product:
        rooted = [facts[v].rooted for v in (a, b)]  # type: ignore[index]
        if rooted == [False, True]:
            return (1,)
        if rooted == [True, False]:
            return (0,)
    return ()


def may_be_infinite(equation: Equation, claims: Claims) -> bool:
    """Is a constant factor made of a count, or a divisor one, which may be zero?

    A row that is all padding has a count of zero. `x / 0` is not selected then, and
    what is not selected passes nothing.
    """
    entry = claims.entry(equation)
    if entry.kind is not Kind.ELEMENTWISE or len(equation.inputs) != 2:
        return False
    if entry.is_quotient:
        divisor = equation.inputs[1]
        return not claims.active(divisor) and may_be_zero(divisor, claims)
    if not entry.is_product:
        return False
    constants = [v for v in equation.inputs if not claims.active(v)]
    makers = [_maker(v, claims) for v in constants]
    return any(isinstance(m, Equation) and may_be_infinite(m, claims) for m in makers)


def has_infinite_factor(equation: Equation, claims: Claims) -> bool:
    """Is a factor a logarithm, a quotient or a power, of what may be zero?"""
    makers = [_maker(v, claims) for v in equation.inputs]
    entries = [claims.entry(m) for m in makers if isinstance(m, Equation)]
    return any(
        e.kind is Kind.ELEMENTWISE and (e.logarithm or e.is_quotient or e.raises)
        for e in entries
    )


def may_be_zero(atom: Any, claims: Claims) -> bool:
    """Is it zero, a sum of constants or a mask, and nothing is added to that?"""
    made = _maker(atom, claims)
    if not isinstance(made, Equation):
        return isinstance(made, Literal) and bool(np.any(np.asarray(made.val) == 0))
    entry = claims.entry(made)
    return entry.sums or entry.kind is Kind.INERT


def _maker(atom: Any, claims: Claims) -> Equation | Literal | None:
    """What a value comes from, behind casts and changes of shape."""
    while isinstance(atom, Value) and atom in claims.producer:
        equation = claims.program.equations[claims.producer[atom]]
        entry = claims.entry(equation)
        if len(equation.inputs) != 1:
            return equation
        casts = entry.kind is Kind.ELEMENTWISE and entry.linear([True])
        if not casts and entry.kind is not Kind.STRUCTURAL:
            return equation
        (atom,) = equation.inputs
    return atom if isinstance(atom, Literal) else None
