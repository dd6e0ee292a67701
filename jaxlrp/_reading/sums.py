"""Sums of sums: `a + b + c` is one sum of three, however it is bracketed.

Rules that compare the signs of a sum's parts with that of the whole would depend on the
bracket otherwise. A sum that only another sum reads is part of that one; constants that
are added or subtracted on the way are parts as well, changes of sign and casts are
passed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TypeAlias

import jax.numpy as jnp

from jaxlrp._program.program import Atom, Equation, Value, aval_of
from jaxlrp._reading.claims import Claims
from jaxlrp._reading.scales import is_cast
from jaxlrp._reading.steps import Step
from jaxlrp.composites import Composite
from jaxlrp.primitives import Kind, lookup
from jaxlrp.rules import Rule


def claim_sums(
    claims: Claims, composite: Composite, units: Collection[int]
) -> dict[int, Step]:
    """Sums and shifts under rules that ask, by the index of their last equation.

    What ends one of the `units`, such as an activation in primitives, is not one.
    """
    lines = (*composite.of_role("sum"), *composite.of_role("shift"))
    if not any(a.rule.compares_parts or a.residual is not None for a in lines):
        return {}
    steps: dict[int, Step] = {}
    made: _Made = {}
    for last in reversed(range(len(claims.program.equations))):
        if last in claims.role or last in units or not _adds(last, claims):
            continue
        members = _members(last, claims, composite, units)
        if not any(_is_sum(i, claims) for i in members):
            members, role, residual = {last}, "shift", False
            rule = _rules_of(last, claims, composite, "shift")[0]
        else:
            role, residual = "sum", _is_residual(members, claims)
            rule = _rules_of(last, claims, composite)[residual]
        if not rule.compares_parts:
            if role == "sum":
                steps |= _one_by_one(members, residual, claims)
            continue
        if _is_complex(last, claims) or (
            role == "sum" and _is_one_map(members, claims, made)
        ):
            claims.role.update(dict.fromkeys(members, "linear"))
            continue
        claims.role.update(dict.fromkeys(members, "chain"))
        own = _equations(members, claims)
        steps[last] = Step(role, own, _signals(own, claims), residual=residual)
    return steps


def _one_by_one(members: set[int], residual: bool, claims: Claims) -> dict[int, Step]:
    """A step for each addition: all are residual if the whole is, in any bracket."""
    steps = {}
    for index in filter(lambda i: _adds(i, claims), members):
        claims.role[index] = "chain"
        own = _equations({index}, claims)
        steps[index] = Step("sum", own, _signals(own, claims), residual=residual)
    return steps


def _equations(members: set[int], claims: Claims) -> tuple[Equation, ...]:
    """The equations of a sum, in order."""
    return tuple(claims.program.equations[i] for i in sorted(members))


def _signals(equations: Sequence[Equation], claims: Claims) -> tuple[Value, ...]:
    """The active parts of a sum."""
    atoms = (v for v, _ in parts(equations))
    active = (v for v in atoms if isinstance(v, Value) and claims.active(v))
    return tuple(dict.fromkeys(active))


def _rules_of(
    index: int, claims: Claims, composite: Composite, role: str = "sum"
) -> tuple[Rule, Rule]:
    """The rules of an equation that adds, if it is not and if it is residual."""
    equation = claims.program.equations[index]
    places = [claims.place(equation, role, residual=r) for r in (False, True)]
    return composite.rule(places[0]), composite.rule(places[1])


def _members(
    last: int, claims: Claims, composite: Composite, units: Collection[int]
) -> set[int]:
    """The equations of a sum: its last, and those before it that only it reads."""
    rules = _rules_of(last, claims, composite)
    found, queue = {last}, [last]
    if not any(rule.compares_parts for rule in rules):
        return found
    while queue:
        index = queue.pop()
        for v in claims.active_inputs(claims.program.equations[index]):
            way = _way_to_sum(v, index, rules, claims, composite, units)
            found.update(way)
            queue += way[-1:]
    return found


def _way_to_sum(
    value: Value,
    reader: int,
    rules: tuple[Rule, Rule],
    claims: Claims,
    composite: Composite,
    units: Collection[int],
) -> list[int]:
    """Changes of sign and casts, and the sum of the same rules before them."""
    way: list[int] = []
    while value in claims.producer and claims.uses[value] == [reader]:
        reader = claims.producer[value]
        if reader in claims.role or reader in units:
            break
        way.append(reader)
        if _adds(reader, claims) and _rules_of(reader, claims, composite) == rules:
            return way
        equation = claims.program.equations[reader]
        if not _is_passed(equation, claims):
            break
        (value,) = claims.active_inputs(equation)
    return []


def _is_residual(members: set[int], claims: Claims) -> bool:
    """Is some part of the sum computed from another, as in `x + f(x)`?"""
    signals = _signals(_equations(members, claims), claims)
    sources = {_unmoved(v, claims) for v in signals}
    if len(sources) < len(signals):
        return True
    return any(_is_made_of(v, sources - {v}, claims) for v in sources)


def _unmoved(value: Value, claims: Claims) -> Value:
    """What a value is a cast, a negative, a spread or another layout of.

    How a value is laid out or spread over a sum's shape depends on what is mapped over.
    """
    while value in claims.producer:
        equation = claims.program.equations[claims.producer[value]]
        if not _lays_out(equation, claims) and not _is_passed(equation, claims):
            break
        (value,) = claims.active_inputs(equation)
    return value


def _lays_out(equation: Equation, claims: Claims) -> bool:
    """Is every element of one operand in the result, and nothing else?"""
    if claims.entry(equation).kind is not Kind.STRUCTURAL or len(equation.inputs) != 1:
        return False
    (operand,), (*results,) = equation.inputs, equation.outputs
    return len(results) == 1 and results[0].aval.size >= aval_of(operand).size


def _is_made_of(value: Value, others: set[Value], claims: Claims) -> bool:
    """Does any path lead back from a value to one of the others?"""
    if not others:
        return False
    # What was computed before all of them depends on none.
    start = min(claims.producer.get(v, -1) for v in others)
    seen, queue = {value}, [value]
    while queue:
        index = claims.producer.get(queue.pop(), -1)
        if index <= start:
            continue
        for v in claims.active_inputs(claims.program.equations[index]):
            if v in others:
                return True
            if v not in seen:
                seen.add(v)
                queue.append(v)
    return False


def _is_one_map(members: set[int], claims: Claims, made: _Made) -> bool:
    """Is the sum one linear map of one value, as a rotation `x cos + turned(x) sin` is?

    So is what a statistic of a value is subtracted from. Such a sum is a layer in all
    but name, with weights between different elements. So are several sums of the same
    parts of a value, of which `x1 cos - x2 sin` is one, and a layer of which a part is
    quantised, and another one is not.
    """
    signals, constants = [], False
    for v, _ in parts(_equations(members, claims)):
        if isinstance(v, Value) and claims.active(v):
            signals.append(v)
        else:
            constants = True
    chains = [_images(v, claims, made) for v in signals]
    images = _of_one(chains)
    if not images:
        return False
    if any(image.layer or image.held for image in images):
        return any(image.rounded for image in images)
    if constants or not any(image.weights or image.reduced for image in images):
        return False
    whole, (total,) = images[0].value, claims.program.equations[max(members)].outputs
    if total.aval.size >= whole.aval.size:
        return True
    return _share_parts([_last_before(whole, chain) for chain in chains], claims)


def _last_before(whole: Value, chain: dict[Value, _Image]) -> Value:
    """What was made of a value in the first step towards the start of a chain."""
    values = list(chain)
    return values[max(values.index(whole) - 1, 0)]


def _share_parts(together: Sequence[Value], claims: Claims) -> bool:
    """Are there several sums of all of these, scaled?"""
    first, *others = [_sums_of(v, claims) for v in together]
    return len(first.intersection(*others)) > 1


def _sums_of(value: Value, claims: Claims) -> set[int]:
    """The last equations of the sums of which a value is part, scaled and moved."""
    found, queue = set(), [value]
    while queue:
        for index in claims.uses[queue.pop()]:
            if index < 0:
                continue
            equation = claims.program.equations[index]
            if _adds(index, claims):
                found.add(_end_of_sum(index, claims))
            elif _is_scaled(equation, claims):
                queue += equation.outputs
    return found


def _end_of_sum(index: int, claims: Claims) -> int:
    """The last of sums that only one another reads."""
    while True:
        (out,) = claims.program.equations[index].outputs
        readers = claims.uses[out]
        if len(readers) != 1 or readers[0] < 0 or not _adds(readers[0], claims):
            return index
        (index,) = readers


def _is_scaled(equation: Equation, claims: Claims) -> bool:
    """Is the result its one active operand, but for constant factors and layout?"""
    kind = claims.entry(equation).kind
    alone = len(claims.active_inputs(equation)) == 1 and claims.is_linear(equation)
    return alone and kind in (Kind.STRUCTURAL, Kind.ELEMENTWISE)


def _of_one(chains: Sequence[dict[Value, _Image]]) -> list[_Image]:
    """The images of the nearest value that all are made of; none if there is none."""
    first, *others = chains
    for value in first:
        if all(value in chain for chain in others):
            return [chain[value] for chain in chains]
    return []


@dataclasses.dataclass(frozen=True)
class _Image:
    """A value as an image of another one.

    Attributes:
      value: the other one.
      weights: it is scaled, place by place.
      reduced: it is a statistic.
      layer: it is what a layer makes of that.
      held: it is scaled by what counts as a constant.
      rounded: it was rounded on the way.
    """

    value: Value
    weights: bool = False
    reduced: bool = False
    layer: bool = False
    held: bool = False
    rounded: bool = False


_Made: TypeAlias = "dict[Value, _Image | None]"
"""What values are made of in one step, each as its image; None where that ends.

It is filled as it is asked: a value that is joined of several, as an array that steps
of a loop write into, is an image of what all of these are images of, and to find that
anew for each would take twice as long with every step.
"""


def _images(value: Value, claims: Claims, made: _Made) -> dict[Value, _Image]:
    """What a value is an image of: scaled, moved, averaged or a layer's, near first."""
    _fill(value, claims, made)
    return _chain(_Image(value, reduced=claims.facts[value].reduced), made)


def _chain(image: _Image, made: _Made) -> dict[Value, _Image]:
    """What a value is an image of, where that is known."""
    found = {image.value: image}
    while (step := made.get(image.value)) is not None:
        image = found[step.value] = _both(step.value, [image, step], image.reduced)
    return found


def _both(value: Value, images: Sequence[_Image], reduced: bool = False) -> _Image:
    """The image of a value, by all that these are images by."""
    return _Image(
        value,
        weights=any(i.weights for i in images),
        reduced=reduced,
        layer=any(i.layer for i in images),
        held=any(i.held for i in images),
        rounded=any(i.rounded for i in images),
    )


def _fill(value: Value, claims: Claims, made: _Made) -> None:
    """Finds what a value and all before it are made of; these may be thousands."""
    waiting = [value]
    while waiting:
        current = waiting.pop()
        while current in claims.producer:
            if current not in made:
                joined = _joined(current, claims)
                unknown = [v for v in joined if _has_unknown(v, claims, made)]
                if unknown:
                    waiting += [current, *unknown]
                    break
                made[current] = _before(current, claims, made)
            step = made[current]
            if step is None:
                break
            current = step.value


def _joined(value: Value, claims: Claims) -> Sequence[Value]:
    """The parts that a value is joined of, if it is."""
    equation = claims.program.equations[claims.producer[value]]
    active = claims.active_inputs(equation)
    joins = len(active) > 1 and claims.entry(equation).kind is Kind.STRUCTURAL
    return active if joins else ()


def _has_unknown(value: Value, claims: Claims, made: _Made) -> bool:
    while value in claims.producer:
        if value not in made:
            return True
        step = made[value]
        if step is None:
            return False
        value = step.value
    return False


def _before(value: Value, claims: Claims, made: _Made) -> _Image | None:
    """What the value was made of in one step."""
    index = claims.producer[value]
    equation = claims.program.equations[index]
    entry, active = claims.entry(equation), claims.active_inputs(equation)
    if not active:
        return None
    if entry.rounds or entry.kind is Kind.CALL and is_cast(equation):
        return _Image(active[0], rounded=True)
    if len(active) == 2 and entry.kind is Kind.ELEMENTWISE:
        held = 1 if entry.is_quotient else claims.scales.get(index)
        if held is None:
            return None
        signal = equation.inputs[1 - held]
        assert isinstance(signal, Value)
        return _Image(signal, held=True)
    linear = (Kind.STRUCTURAL, Kind.ELEMENTWISE, Kind.LINEAR, Kind.CONTRACTION)
    if entry.kind not in linear or not claims.is_linear(equation):
        return None
    if entry.kind is Kind.CONTRACTION:
        return _Image(active[0], layer=True)
    weights = entry.kind is Kind.ELEMENTWISE and len(equation.inputs) == 2
    if weights and entry.is_sum:
        return None
    if len(active) == 1:
        return _Image(active[0], weights=weights)
    # parts of one value, joined in another order
    if entry.kind is not Kind.STRUCTURAL:
        return None
    found = _of_one([_chain(_Image(v), made) for v in active])
    return _both(found[0].value, found) if found else None


def _adds(index: int, claims: Claims) -> bool:
    """Does an equation add or subtract, something active among it?"""
    equation = claims.program.equations[index]
    entry = claims.entry(equation)
    two = len(equation.inputs) == 2 and entry.kind is Kind.ELEMENTWISE
    adds = two and entry.is_sum and not entry.selects
    return adds and any(map(claims.active, equation.inputs))


def _is_sum(index: int, claims: Claims) -> bool:
    inputs = claims.program.equations[index].inputs
    return _adds(index, claims) and all(map(claims.active, inputs))


def _is_complex(index: int, claims: Claims) -> bool:
    """Of complex numbers, which have no signs to compare: in proportion."""
    (out,) = claims.program.equations[index].outputs
    return jnp.issubdtype(out.aval.dtype, jnp.complexfloating)


def _is_passed(equation: Equation, claims: Claims) -> bool:
    """A change of sign or of the dtype of real numbers."""
    entry = claims.entry(equation)
    one = len(equation.inputs) == 1 and entry.kind is Kind.ELEMENTWISE
    atoms = (*equation.inputs, *equation.outputs)
    real = all(jnp.issubdtype(aval_of(v).dtype, jnp.floating) for v in atoms)
    return one and real and claims.active(equation.inputs[0]) and entry.linear([True])


def parts(equations: Sequence[Equation]) -> list[tuple[Atom, int]]:
    """What the last equation is the sum of, each with its sign."""
    maker = {v: e for e in equations for v in e.outputs}

    found: list[tuple[Atom, int]] = []
    waiting: list[tuple[Atom, int]] = [(equations[-1].outputs[0], 1)]
    # A stack and no recursion: a sum in a loop of Python has thousands of parts.
    while waiting:
        atom, sign = waiting.pop()
        equation = maker.get(atom) if isinstance(atom, Value) else None
        if equation is None:
            found.append((atom, sign))
            continue
        pairs = zip(equation.inputs, _signs(equation), strict=True)
        waiting += [(v, sign * own) for v, own in pairs][::-1]
    return found


def _signs(equation: Equation) -> list[int]:
    """The factor of each operand of a sum, a change of sign or a cast."""
    entry = lookup(equation.primitive)
    assert entry is not None
    if len(equation.inputs) == 2:
        return [1, -1 if entry.subtracts else 1]
    return [-1 if entry.negates else 1]
