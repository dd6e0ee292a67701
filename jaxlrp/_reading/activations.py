"""Recognising activations: elementwise regions between a value and what it becomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.core import Literal
from jax.extend.core.primitives import custom_vjp_call_p

from jaxlrp import _compat
from jaxlrp._program.opaque import elementwise_places
from jaxlrp._program.placement import Placement, fits, in_place, moved
from jaxlrp._program.program import Equation, Value, aval_of
from jaxlrp._reading.claims import Claims, held_operands
from jaxlrp._reading.facts import facts_of
from jaxlrp._reading.steps import Step, Unit, unit_of
from jaxlrp.primitives import Kind, lookup


def claim_regions(claims: Claims) -> dict[int, Step]:
    """Activations, by the index of the equation that gives their result.

    A region is what one value (the anchor) becomes through elementwise equations.
    `dominators[v]` lists, from the anchor on, the values that every path to `v`
    passes and that are piecewise linear in the anchor, hence exact by their derivative,
    each with the place of its elements in `v`; the last of them is the root of the
    activation that ends in `v`.
    """
    equations = claims.program.equations
    inner = _inner_moves(claims)
    sheet = _Sheet(claims, {}, {}, frozenset())
    inside: dict[int, Value] = {}
    for v in [*claims.program.inputs, *(v for v, _ in claims.program.constants)]:
        sheet.start(v, exact=True)
    for i, equation in enumerate(equations):
        found = None
        if i not in claims.role and (i in inner or not _moves(equation, claims)):
            found = _joined(equation, sheet)
        if found is None:
            sheet.start_all(equation)
            continue
        (out,) = equation.outputs
        inside[i] = out
        actives = dict.fromkeys(claims.active_inputs(equation))
        exact = all(sheet.exact[v] for v in actives) and _is_exact(equation, claims)
        # What is scaled alone passes relevance unchanged, whatever made it.
        exact = exact and not (sheet.is_bent(actives) and _is_shift(equation, claims))
        sheet.exact[out] = exact
        own = ((out, in_place(out.aval.shape)),) if exact else ()
        sheet.dominators[out] = (*found, *own)
    steps: dict[int, Step] = {}
    moves = _left_moves(inside, sheet)
    for i, out in inside.items():
        if i in inner:
            continue
        if sheet.exact[out]:
            # max(x, 0), abs(x), where(x > 0, x, 0)
            if not claims.is_linear(equations[i]) or _saturates(equations[i], claims):
                x, *others = dict.fromkeys(claims.active_inputs(equations[i]))
                if others:  # a selection between several: structural
                    continue
                form = dataclasses.replace(unit_of(x, out), exact=True)
                steps[i] = Step("activation", (equations[i],), (x,), form)
            continue
        if not _leaves(out, inside, moves, sheet):
            continue
        root, placement = sheet.dominators[out][-1]
        members = claims.between(i, root)
        assert members is not None, "a dominator lies on every path"
        cone = tuple(equations[j] for j in members)
        same = root.aval.shape == out.aval.shape and placement == in_place(
            root.aval.shape
        )
        form = Unit(root, spread=None if same else placement)
        steps[i] = Step("activation", cone, (root,), form)
    # What only lies inside activations is not its own step.
    for i, out in inside.items():
        if i not in steps and not sheet.exact[out] and i not in moves:
            claims.role[i] = "chain"
    return steps


Dominators = tuple[tuple[Value, Placement], ...]


@dataclasses.dataclass
class _Sheet:
    """What is known of the regions so far.

    Attributes:
      claims: the program's.
      dominators: of each value, see `claim_regions`.
      exact: is the value piecewise linear in its anchor?
      bent: the anchors that are not exact in what they are a copy of.
    """

    claims: Claims
    dominators: dict[Value, Dominators]
    exact: dict[Value, bool]
    bent: frozenset[Value]

    def start(self, value: Value, exact: bool) -> None:
        """The value is an anchor."""
        self.dominators[value] = ((value, in_place(value.aval.shape)),)
        self.exact[value] = True
        self.bent = self.bent if exact else self.bent | {value}

    def start_all(self, equation: Equation) -> None:
        """So are the results; a copy remembers what it is a copy of."""
        actives = dict.fromkeys(self.claims.active_inputs(equation))
        exact = True
        if _moves(equation, self.claims):
            exact = all(self.exact[v] for v in actives) and not self.is_bent(actives)
        for v in equation.outputs:
            self.start(v, exact)

    def anchor(self, value: Value) -> Value:
        """The value that it is made of."""
        return self.dominators[value][0][0]

    def is_bent(self, values: Iterable[Value]) -> bool:
        """Do they come from an anchor that is itself a function?"""
        return any(self.anchor(v) in self.bent for v in values)


def _joined(equation: Equation, sheet: _Sheet) -> Dominators | None:
    """The common dominators of the operands, if it continues their region."""
    claims = sheet.claims
    actives = list(dict.fromkeys(claims.active_inputs(equation)))
    if not actives or len(equation.outputs) != 1:
        return None
    (out,) = equation.outputs
    if not claims.facts[out].active or len({sheet.anchor(v) for v in actives}) != 1:
        return None
    own = _is_embedding(equation, claims) or _is_mask(equation, claims)
    if own and (not all(sheet.exact[v] for v in actives) or sheet.is_bent(actives)):
        return None
    if _moves(equation, claims):
        return _moved(equation, sheet.dominators[actives[0]])
    entry = claims.entry(equation)
    if entry.kind is Kind.CALL:  # an elementwise function with its own derivative?
        if equation.primitive is custom_vjp_call_p:  # it has no forward derivative
            return None
        body = _compat.called_jaxpr(dict(equation.params))
        places = elementwise_places(body) if len(actives) == 1 else None
        if not places:
            return None
        found = {places.get(i) for i, v in enumerate(equation.inputs) if v in actives}
        there = found.pop() if len(found) == 1 else None
        return None if there is None else _behind(sheet.dominators[actives[0]], there)
    if entry.kind is not Kind.ELEMENTWISE:
        return None
    if not all(fits(v.aval.shape, out.aval.shape) for v in actives):
        return None
    if held_operands(equation, entry, claims.facts):
        return None
    return _common_prefix([sheet.dominators[v] for v in actives]) or None


def _moves(equation: Equation, claims: Claims) -> bool:
    """Does it move or repeat whole axes of one value?"""
    kind = claims.entry(equation).kind
    return kind is Kind.STRUCTURAL and len(equation.inputs) == 1


def _moved(equation: Equation, dominators: Dominators) -> Dominators | None:
    """The dominators, at their new places."""
    (x,), (out,) = equation.inputs, equation.outputs
    before, after = aval_of(x).shape, out.aval.shape
    found = []
    for value, placement in dominators:
        there = moved(equation.primitive, equation.params, placement, before, after)
        if there is None:
            return None
        found.append((value, there))
    return tuple(found)


def _behind(dominators: Dominators, there: Placement) -> Dominators:
    """The dominators of an operand that lies there in the result."""
    return tuple(
        (value, tuple(None if axis is None else there[axis] for axis in placement))
        for value, placement in dominators
    )


def _inner_moves(claims: Claims) -> frozenset[int]:
    """Spreads and moves that not all paths through their region pass.

    They cannot be set apart: in `x * log(x)` of an `x` that is spread for the product
    alone, the activation begins in front of the spreading. Others end the region, which
    begins again behind them, where the values may be many more.
    """
    equations = claims.program.equations
    if not any(
        _moves(e, claims) and claims.active(e.outputs[0])
        for e in equations
        if e.outputs
    ):
        return frozenset()
    sheet = _Sheet(claims, {}, {}, frozenset())
    # The immediate dominator of each value, and how many it has.
    above: dict[Value, Value] = {}
    height: dict[Value, int] = {}
    move: dict[Value, int] = {}
    inner: set[int] = set()
    for v in [*claims.program.inputs, *(v for v, _ in claims.program.constants)]:
        sheet.start(v, exact=True)
    for i, equation in enumerate(equations):
        found = None if i in claims.role else _joined(equation, sheet)
        if found is None:
            for v in equation.outputs:
                sheet.start(v, exact=True)
            continue
        (out,) = equation.outputs
        if _moves(equation, claims):
            move[out] = i
        sheet.dominators[out], sheet.exact[out] = found, True
        first, *others = dict.fromkeys(claims.active_inputs(equation))
        for v in others:
            w, passed = v, set()
            while first is not w:
                if height.get(first, 0) >= height.get(w, 0):
                    passed.add(first)
                    first = above[first]
                else:
                    passed.add(w)
                    w = above[w]
            inner.update(move[u] for u in passed if u in move)
        above[out], height[out] = first, height.get(first, 0) + 1
    return frozenset(inner)


def _left_moves(inside: Mapping[int, Value], sheet: _Sheet) -> frozenset[int]:
    """The moves inside of regions that are read outside, too: steps of their own."""
    equations = sheet.claims.program.equations
    left: set[int] = set()
    for i in sorted(inside, reverse=True):
        if _moves(equations[i], sheet.claims):
            if _leaves(inside[i], inside, frozenset(left), sheet):
                left.add(i)
    return frozenset(left)


def _is_embedding(equation: Equation, claims: Claims) -> bool:
    """Is a constant added that is not known beforehand? Not part of a function.

    It may vary by position, and for each example if the function is mapped over.
    """
    entry = claims.entry(equation)
    active = [claims.active(v) for v in equation.inputs]
    if entry.kind is not Kind.ELEMENTWISE or sum(active) != 1 or len(active) != 2:
        return False
    facts = facts_of(equation.inputs[active.index(False)], claims.facts)
    return (bool(facts.varies) or not facts.known) and entry.is_sum


def _is_shift(equation: Equation, claims: Claims) -> bool:
    """Is a constant added?"""
    one = sum(map(claims.active, equation.inputs)) == 1
    return one and len(equation.inputs) == 2 and claims.entry(equation).is_sum


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


def _common_prefix(chains: Sequence[Dominators]) -> Dominators:
    common = chains[0]
    for chain in chains[1:]:
        n = 0
        while n < min(len(common), len(chain)) and common[n] == chain[n]:
            n += 1
        common = common[:n]
    return common


def _leaves(
    value: Value, inside: Mapping[int, Value], moves: frozenset[int], sheet: _Sheet
) -> bool:
    """Is the value read outside its region, or moved for what is outside?"""
    anchor = sheet.anchor
    return any(
        j < 0 or j not in inside or j in moves or anchor(inside[j]) is not anchor(value)
        for j in sheet.claims.uses.get(value, ())
    )
