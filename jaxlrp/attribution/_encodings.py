"""Where a program puts positions in: constants that differ from place to place.

An encoding is a constant that is not the same at all positions and meets, in a sum, a
product, a quotient or a contraction along positions, a value that has the position's
axis: a learned table, sinusoids, the sines and cosines of a rotation, a bias of
attention by distance. So one walk forwards follows the position's axis through the
program, and another one backwards goes from where a constant meets a value to where
the constant is made, as long as it is only copied, cast and reshaped on the way.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxlrp import _compat
from jaxlrp._names import Origin
from jaxlrp._program.axes import axes_of, shape_of
from jaxlrp._program.bodies import bodies_of
from jaxlrp._program.opaque import is_elementwise
from jaxlrp._program.program import Atom, Equation, Value, aval_of
from jaxlrp._reading.facts import facts_of
from jaxlrp._reading.steps import Reading, Step
from jaxlrp.primitives import Kind, lookup

Axes = frozenset[int]
NONE: Axes = frozenset()


@dataclasses.dataclass(frozen=True, eq=False)
class Encoding:
    """A constant that tells positions apart.

    Attributes:
      name: what it is called, unique in a program.
      address: the steps around it, each with the number of its body, and the value.
      axes: which of its axes are those of positions, without those of loops.
      lengths: of the loops around it.
      added: does it meet values in sums alone?
      line: of the user, where it meets one.
    """

    name: str
    address: tuple[Any, ...]
    axes: tuple[int, ...]
    lengths: tuple[int, ...]
    added: bool
    line: str


@dataclasses.dataclass(frozen=True)
class Found:
    """What the walk has found.

    Attributes:
      encodings: in the order in which they are met.
      lost: lines behind which the position's axis could not be followed, with what
        stands there.
      unread: lines where something counted, as a table of relative positions, is
        multiplied with a value, and neither is known to go along positions.
      masks: the addresses of masks that are added.
    """

    encodings: tuple[Encoding, ...]
    lost: tuple[str, ...]
    unread: tuple[str, ...]
    masks: tuple[tuple[Any, ...], ...]


def find(reading: Reading, axes: Sequence[Axes]) -> Found:
    """The encodings of a program.

    Args:
      reading: the program, read with its calls inlined and with names.
      axes: of each input, the axes of positions.

    Raises:
      ValueError: for an encoding in what cannot be taken apart.
    """
    walk = _Walk({}, {}, {}, {}, {})
    _forwards(reading, (), None, list(axes), [False] * len(axes), walk)
    for one in walk.encodings.values():
        # What no equation makes is replaced wherever it is used.
        value = one.address[-1]
        if value in walk.users:
            page, users = walk.users[value]
            if users != _users(value, page):
                raise ValueError(_ALONE.format(line=one.line))
    counts = collections.Counter(e.name for e in walk.encodings.values())
    seen: dict[str, int] = collections.defaultdict(int)
    named = []
    for one in walk.encodings.values():
        number = seen[one.name]
        seen[one.name] += 1
        name = f"{one.name}#{number}" if counts[one.name] > 1 else one.name
        named.append(dataclasses.replace(one, name=name))
    return Found(tuple(named), tuple(walk.lost), tuple(walk.unread), tuple(walk.masks))


@dataclasses.dataclass(frozen=True)
class _Walk:
    """What has been found, each once; and who uses an encoding that nothing makes."""

    encodings: dict[tuple[Any, ...], Encoding]
    lost: dict[str, None]
    unread: dict[str, None]
    masks: dict[tuple[Any, ...], None]
    users: dict[Value, tuple[Any, set[Any]]]


@dataclasses.dataclass(frozen=True, eq=False)
class _Page:
    """One program of the walk, and where it lies.

    Attributes:
      reading: the program.
      prefix: the steps around it, each with the number of its body.
      outer: the page around it, or None.
      producers: the equations by result.
    """

    reading: Reading
    prefix: tuple[Any, ...]
    outer: _Page | None
    producers: Mapping[Value, Equation]


def _forwards(
    reading: Reading,
    prefix: tuple[Any, ...],
    outer: _Page | None,
    inputs: Sequence[Axes],
    counted: Sequence[bool],
    walk: _Walk,
) -> tuple[list[Axes], list[bool]]:
    """Follows positions through a program.

    Args:
      reading: the program.
      prefix: see `_Page`.
      outer: see `_Page`.
      inputs: of each input, the axes of positions.
      counted: of each input, is it a constant made of counted numbers?
      walk: what has been found.

    Returns:
      The same of the outputs.
    """
    program = reading.program
    producers = {v: e for e in program.equations for v in e.outputs}
    page = _Page(reading, prefix, outer, producers)
    along: dict[Any, Axes] = dict(zip(program.inputs, inputs, strict=True))
    made: dict[Any, bool] = dict(zip(program.inputs, counted, strict=True))
    within = {s.main: s for s in reading.steps if s.bodies}

    def axes(atom: Atom) -> Axes:
        return NONE if isinstance(atom, Literal) else along.get(atom, NONE)

    def is_counted(atom: Atom) -> bool:
        return not isinstance(atom, Literal) and made.get(atom, False)

    for equation in program.equations:
        own = [axes(v) for v in equation.inputs]
        numbers = [is_counted(v) for v in equation.inputs]
        step = within.get(equation)
        if step is not None:
            outs, more = _inside(step, page, own, numbers, walk)
        else:
            _meet(equation, page, own, numbers, walk)
            outs = [
                _moved(equation, v, own, walk) if reading.carries(v) else NONE
                for v in equation.outputs
            ]
            more = [_counts(equation, v, numbers) for v in equation.outputs]
        for v, moved, number in zip(equation.outputs, outs, more, strict=True):
            if reading.carries(v):
                along[v] = moved
            else:
                made[v] = number
    return [axes(v) for v in program.outputs], [is_counted(v) for v in program.outputs]


def _counts(equation: Equation, out: Value, numbers: Sequence[bool]) -> bool:
    """Is a constant made of counted numbers? What is true or false is not."""
    if out.aval.dtype == np.bool_:
        return False
    return equation.primitive.name == "iota" or any(numbers)


def _moved(equation: Equation, out: Value, own: Sequence[Axes], walk: _Walk) -> Axes:
    """The axes of positions of a result."""
    found: set[int] = set()
    for position, axes in enumerate(own):
        if not axes:
            continue
        before = shape_of(equation.inputs[position])
        ways = _ways(equation, position, out)
        if ways is not None:
            found |= {after for after, of in ways.items() if of & axes}
        elif any(before[a] in shape_of(out) for a in axes):
            walk.lost[f"{equation.primitive.name} at {equation.line}"] = None
    return frozenset(found)


def _ways(equation: Equation, position: int, out: Value) -> dict[int, Axes] | None:
    """For each axis of a result the axes of an operand that it is made of."""
    entry = lookup(equation.primitive)
    if entry is not None and entry.kind is Kind.CONTRACTION and position == 0:
        if equation.primitive.name == "conv_general_dilated":
            moved = _compat.image_axes(equation.params)
            moved |= axes_of(equation, position) or {}
            return {o: frozenset({a}) for o, a in moved.items()}
    shape = shape_of(equation.inputs[position])
    if entry is not None and entry.layout is not None and len(equation.inputs) == 1:
        marks = tuple(((i, n, 1),) for i, n in enumerate(shape))
        layout = entry.layout(equation.params, marks, shape_of(out))
        if layout is not None:
            return {
                o: frozenset(a for a, *_ in atoms) for o, atoms in enumerate(layout)
            }
    body = _compat.called_jaxpr(dict(equation.params)) if entry is not None else None
    if body is not None and is_elementwise(body):
        # A function with a derivative of its own, which is kept whole.
        same = len(shape) == len(shape_of(out))
        return {i: frozenset({i}) for i in range(len(shape))} if same else {}
    moved = axes_of(equation, position)
    if moved is None and not shape_of(out):
        return {}
    return None if moved is None else {o: frozenset({a}) for o, a in moved.items()}


def _inside(
    step: Step, page: _Page, own: list[Axes], numbers: list[bool], walk: _Walk
) -> tuple[list[Axes], list[bool]]:
    """Through the bodies of a loop, a branch or a call."""
    equation = step.main
    how = bodies_of(equation)
    given, counted = own[how.given], numbers[how.given]
    if how.flow in ("while", "shard_map"):
        if any(own):
            walk.lost[f"{equation.primitive.name} at {equation.line}"] = None
        return [NONE] * len(equation.outputs), [False] * len(equation.outputs)
    outer = page
    if how.flow != "scan":
        outs: list[Axes] = [NONE] * len(equation.outputs)
        more = [False] * len(equation.outputs)
        for number, body in enumerate(step.bodies):
            prefix = (*page.prefix, step, number)
            found = _forwards(body, prefix, outer, given, counted, walk)
            outs = [a | b for a, b in zip(outs, found[0], strict=True)]
            more = [a or b for a, b in zip(more, found[1], strict=True)]
        return outs, more
    (body,) = step.bodies
    stacks = equation.inputs[how.slices]
    if any(0 in axes for axes in given[how.slices]):
        # Position by position: what comes with each step cannot be seen from inside.
        for atom in stacks:
            if (
                not page.reading.carries(atom)
                and _is_float(atom)
                and _varies(page, atom)
            ):
                walk.lost[f"scan over positions at {equation.line}"] = None
    given[how.slices] = [
        frozenset(a - 1 for a in axes if a > 0) for axes in given[how.slices]
    ]
    prefix = (*page.prefix, step, 0)
    while True:
        # What a first pass finds, another one finds again, and perhaps more.
        found, more = _forwards(body, prefix, outer, given, counted, walk)
        carry = [a | b for a, b in zip(given[how.carried], found, strict=False)]
        count = [a or b for a, b in zip(counted[how.carried], more, strict=False)]
        if carry == given[how.carried] and count == counted[how.carried]:
            break
        given[how.carried], counted[how.carried] = carry, count
    stacked = [frozenset(a + 1 for a in axes) for axes in found[how.carries :]]
    return [*found[: how.carries], *stacked], more


def _varies(page: _Page, atom: Atom) -> Axes:
    return facts_of(atom, page.reading.facts).varies


def _is_float(atom: Atom) -> bool:
    return jnp.issubdtype(aval_of(atom).dtype, jnp.inexact)


# ---- where a constant meets a value ------------------------------------------------


def _meet(
    equation: Equation,
    page: _Page,
    own: Sequence[Axes],
    numbers: Sequence[bool],
    walk: _Walk,
) -> None:
    """Notes the encoding that an equation brings, if it brings one."""
    entry = lookup(equation.primitive)
    if entry is None or len(equation.inputs) != 2 or len(equation.outputs) != 1:
        return
    contraction = entry.kind is Kind.CONTRACTION
    combines = entry.is_sum or entry.is_product or entry.is_quotient
    if not contraction and not (entry.kind is Kind.ELEMENTWISE and combines):
        return
    facts = page.reading.facts
    carrying = [page.reading.carries(v) for v in equation.inputs]
    if sum(carrying) != 1:
        return
    value = carrying.index(True)
    other = 1 - value
    constant = equation.inputs[other]
    if not isinstance(constant, Value) or not _is_float(constant):
        return
    known = facts[constant]
    if not own[value]:
        return
    if _is_mask(constant, page):
        if entry.is_sum and constant in page.producers:
            walk.masks[*page.prefix, constant] = None
        return
    if known.cut:
        return
    out = equation.outputs[0]
    ways = [_ways(equation, i, out) for i in (value, other)]
    if contraction and (ways[0] is None or ways[1] is None):
        return
    axes = _met(ways[0], ways[1], own[value], known.varies, contraction)
    if not axes:
        if contraction and numbers[other]:
            walk.unread[equation.line] = None
        return
    added = not contraction and entry.is_sum
    _note(equation, constant, axes, added, page, walk)


def _met(
    of_value: Any, of_constant: Any, along: Axes, varies: Axes, contraction: bool
) -> Axes:
    """The axes of a constant that vary and meet positions of the value."""
    if not contraction:  # operands of one shape, or of sizes that are repeated
        return along & varies
    return frozenset(
        axis
        for out, axes in of_constant.items()
        for axis in axes
        if axis in varies and of_value.get(out, NONE) & along
    )


def _is_mask(value: Value, page: _Page) -> bool:
    """Is it made of what is true or false, by numbers that are the same everywhere?"""
    if value.aval.dtype == np.bool_:
        return True
    equation = page.producers.get(value)
    if equation is None:
        found = _outwards(value, page)
        return found is not None and _is_mask(*found)
    entry = lookup(equation.primitive)
    if entry is None:
        return False
    varying = [v for v in equation.inputs if _varies(page, v)]
    if entry.selects:
        # Of two constants one: it varies as the mask does.
        return all(not _varies(page, v) for v in equation.inputs[1:])
    if entry.kind not in (Kind.STRUCTURAL, Kind.ELEMENTWISE) or len(varying) != 1:
        return False
    (only,) = varying
    return isinstance(only, Value) and _is_mask(only, page)


def _outwards(value: Value, page: _Page) -> tuple[Value, _Page] | None:
    """What a body's input is outside of it, where it is the same in each step."""
    if page.outer is None or value not in page.reading.program.inputs:
        return None
    step = page.prefix[-2]
    how = bodies_of(step.main)
    place = page.reading.program.inputs.index(value)
    if how.repeats and place >= how.constants:
        return None
    atom = step.main.inputs[how.given][place]
    return (atom, page.outer) if isinstance(atom, Value) else None


def _note(
    equation: Equation,
    constant: Value,
    axes: Axes,
    added: bool,
    page: _Page,
    walk: _Walk,
) -> None:
    """Goes back to where a constant is made, and notes it.

    Raises:
      ValueError: where it is nothing that could be replaced.
    """
    line = equation.line
    value, place, user = constant, page, equation
    made: tuple[Value, _Page, Axes] | None = None
    while True:
        producer = place.producers.get(value)
        if producer is not None:
            made = value, place, axes
            back = _copied(producer, axes)
            if back is None:
                break
            user, (value, axes) = producer, back
            continue
        found = _outwards(value, place)
        if found is None:
            if place.outer is None and (made is None or _users(value, place) == {user}):
                made = value, place, axes  # an argument, or what f closes over
                walk.users.setdefault(value, (place, set()))[1].add(user)
            break
        user = place.prefix[-2].main
        value, place = found
    if made is None:
        raise ValueError(_ALONE.format(line=line))
    value, place, axes = made
    address = (*place.prefix, value)
    old = walk.encodings.get(address)
    if old is not None:
        both = tuple(sorted({*old.axes, *axes}))
        walk.encodings[address] = dataclasses.replace(
            old, axes=both, added=old.added and added
        )
        return
    lengths = [
        len(_compat.iterations(s.main.params))
        for s in place.prefix[::2]
        if bodies_of(s.main).flow == "scan"
    ]
    walk.encodings[address] = Encoding(
        _name(value, place), address, tuple(sorted(axes)), tuple(lengths), added, line
    )


_ALONE = (
    "f: at {line} positions meet a constant that cannot be replaced there alone: it is "
    "used for other things as well, or comes to a loop step by step. Give f a copy of "
    "it, as jnp.array(table), or write the loop out"
)


def _users(value: Value, page: _Page) -> set[Any]:
    """The equations that use a value, and the program where it is an output."""
    program = page.reading.program
    found: set[Any] = {e for e in program.equations if value in e.inputs}
    return found | {program} if value in program.outputs else found


def _copied(equation: Equation, axes: Axes) -> tuple[Value, Axes] | None:
    """The operand that an equation copies, casts or reshapes, and its axes."""
    entry = lookup(equation.primitive)
    if entry is None or len(equation.inputs) != 1:
        return None
    (before,) = equation.inputs
    (after,) = equation.outputs
    if not isinstance(before, Value) or not _is_float(before):
        return None
    size = int(np.prod(shape_of(before)))
    if not size or np.prod(shape_of(after)) % size:
        return None
    cast = entry.kind is Kind.ELEMENTWISE and entry.linear([True]) and not entry.negates
    if not (entry.kind is Kind.STRUCTURAL or cast):
        return None
    ways = _ways(equation, 0, after)
    if ways is None:
        return None
    back: set[int] = set()
    for axis in axes:
        of = {a for a in ways.get(axis, NONE) if shape_of(before)[a] != 1}
        # An axis is one axis again: what splits or joins it is where it is made.
        if len(of) != 1 or shape_of(before)[min(of)] != shape_of(after)[axis]:
            return None
        back |= of
    return before, frozenset(back)


def _name(value: Value, page: _Page) -> str:
    """A parameter's path, else what made it: `cos`, `sin`, `counted`, `constant`."""
    origins: tuple[Origin, ...] = facts_of(value, page.reading.facts).origins
    if origins:
        return origins[0].names[0]
    queue, seen = [value], 0
    while queue and seen < 12:
        equation = page.producers.get(queue.pop(0))
        seen += 1
        if equation is None:
            continue
        if equation.primitive.name in ("cos", "sin"):
            return equation.primitive.name
        queue += [v for v in equation.inputs if isinstance(v, Value)]
    return "positions"
