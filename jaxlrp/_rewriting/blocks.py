"""Equal stretches of steps, such as the layers of a deep network: each is traced once.

A network that stacks its layers in Python repeats the same steps with other weights.
The stretch between two cuts is a *block*; blocks of one form are one function, which
is traced, differentiated and lowered once and then called. The form of a block says
what its steps do and how they are wired, and what is known of the values, so that
equal forms mean equal functions.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import Literal
from jax.extend.core.primitives import custom_jvp_call_p

from jaxlrp import _compat
from jaxlrp._program.program import Equation, Value, aval_of
from jaxlrp._reading.steps import Reading, Step

LEAST = 24
"""Steps in a block. Calling a function costs as much as some steps do."""

_WINDOW = 6
"""This many repeated steps in a row are a sign of a period."""

_TRIED = 4
"""Periods that are tried: parts of a period may repeat more often than the whole."""

_DEPTH = 12
"""How often what lies next to a row of blocks is searched again."""


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A stretch of steps that has an equal in its program.

    Attributes:
      steps: the steps.
      inputs: the values that it reads and does not make, in the order of their use.
      outputs: those that it makes and that are read elsewhere.
      around: the named scopes around all of it, below those of the program.
      scope: the same, with a number if blocks of equal form differ in inner scopes.
      form: equal for equal blocks of one reading.
    """

    steps: tuple[Step, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    around: str
    scope: str
    form: Hashable

    @property
    def reads(self) -> tuple[Value, ...]:
        """The inputs, as of a step."""
        return self.inputs


def arrange(reading: Reading) -> tuple[Step | Block, ...]:
    """The steps of a reading in order, those of equal stretches as blocks."""
    steps = reading.steps
    if len(steps) < 2 * LEAST:
        return steps
    names: dict[Any, int] = {}
    # What has no signature equals nothing else.
    kinds = [
        -i if s is None else names.setdefault(s, len(names) + 1)
        for i, s in enumerate(map(_signature, steps))
    ]
    last = last_uses(steps, reading)
    passing = crossing(steps, last, lambda _: 1)
    found: dict[int, list[Block]] = {}
    for start, stop, size in _rows(kinds, passing, 0, len(steps), _DEPTH):
        row = [
            _block(reading, kinds, i, i + size, last) for i in range(start, stop, size)
        ]
        row = _told_apart(row, reading)
        # Stretches of one kind may still differ, in wiring or in what is known of their
        # values. A block that is alone would only cost a call.
        counts = collections.Counter(b.form for b in row)
        for i, block in zip(range(start, stop, size), row, strict=True):
            if counts[block.form] > 1:
                found[i] = [block]
    arranged: list[Step | Block] = []
    i = 0
    while i < len(steps):
        item = found[i][0] if i in found else steps[i]
        arranged.append(item)
        i += len(item.steps) if isinstance(item, Block) else 1
    return tuple(arranged)


def _rows(
    kinds: Sequence[int], passing: Sequence[int], start: int, stop: int, depth: int
) -> Iterator[tuple[int, int, int]]:
    """Rows of equal stretches, `(first step, step after the last, size of each)`."""
    if depth == 0 or stop - start < 2 * LEAST:
        return
    found = [
        (p, *_longest(kinds, p, start, stop)) for p in _periods(kinds, start, stop)
    ]
    # A whole number of periods in each.
    sizes = [(p * -(-LEAST // p), first, behind) for p, first, behind in found]
    fit = [(b - f, -size, f, b) for size, f, b in sizes if b - f >= 2 * size]
    if not fit:
        return
    # The row that covers most steps; of equal ones the shortest period, which is traced
    # soonest. What is left on either side may repeat by another period.
    _, less, first, behind = max(fit)
    size = -less
    # Cut where the fewest values pass.
    at = min(
        range(first, min(first + size, behind - 2 * size + 1)),
        key=lambda i: (passing[i], -((behind - i) // size), i),
    )
    end = at + (behind - at) // size * size
    yield from _rows(kinds, passing, start, at, depth - 1)
    yield at, end, size
    yield from _rows(kinds, passing, end, stop, depth - 1)


def _periods(kinds: Sequence[int], start: int, stop: int) -> list[int]:
    """The distances at which most windows of steps recur."""
    seen: dict[tuple[int, ...], int] = {}
    distances: collections.Counter[int] = collections.Counter()
    for i in range(start, stop - _WINDOW + 1):
        window = tuple(kinds[i : i + _WINDOW])
        if window in seen:
            distances[i - seen[window]] += 1
        seen[window] = i
    return [distance for distance, _ in distances.most_common(_TRIED)]


def _longest(
    kinds: Sequence[int], period: int, start: int, stop: int
) -> tuple[int, int]:
    """The longest stretch that repeats with a period."""
    best, first = (start, start), start
    for i in range(start, stop - period + 1):
        if i == stop - period or kinds[i] != kinds[i + period]:
            if i > first and i + period - first > best[1] - best[0]:
                best = (first, i + period)
            first = i + 1
    return best


def last_uses(items: Sequence[Step | Block], reading: Reading) -> dict[Value, int]:
    """Which item reads a value last; none after the end reads an output."""
    last = {v: i for i, item in enumerate(items) for v in item.reads}
    end = len(items)
    return last | {v: end for v in reading.program.outputs if isinstance(v, Value)}


def crossing(
    items: Sequence[Step | Block],
    last: Mapping[Value, int],
    weigh: Callable[[Value], int],
    start: int = 0,
) -> list[int]:
    """Before each item: the weight of what earlier ones made and is read later.

    `start` is the position of the first item among those in `last`.
    """
    change = [0] * (len(items) + 2)
    for i, item in enumerate(items):
        for v in item.outputs:
            end = min(max(last.get(v, -1) - start, i), len(items))
            change[i + 1] += weigh(v)
            change[end + 1] -= weigh(v)
    return list(itertools.accumulate(change[: len(items)]))


def _signature(step: Step) -> Hashable | None:
    """What a step does, whatever it reads; None if that cannot be compared.

    All fields take part, so that one that is added to a step is not forgotten. The
    values that it reads are numbered in `_block`.
    """
    if any(e.effectful for e in step.equations):
        return None
    places = {id(e): i for i, e in enumerate(step.equations)}
    fields = (f.name for f in dataclasses.fields(step) if f.name != "equations")
    signature = (
        tuple(map(_equation, step.equations)),
        *(_without_values(getattr(step, name), places) for name in fields),
    )
    try:
        hash(signature)
    except TypeError:
        return None
    return signature


def _without_values(part: Any, places: Mapping[int, int]) -> Hashable:
    """A part of a step; the step's own equations are given by position."""
    if isinstance(part, Value):
        return None
    if isinstance(part, Equation):
        place = places.get(id(part))
        return _equation(part) if place is None else place
    if isinstance(part, Reading):
        return id(part)
    if isinstance(part, tuple):
        return tuple(_without_values(p, places) for p in part)
    if dataclasses.is_dataclass(part):
        fields = (getattr(part, f.name) for f in dataclasses.fields(part))
        return type(part), *(_without_values(p, places) for p in fields)
    return part


def _equation(equation: Equation) -> Hashable:
    kept = equation.primitive is custom_jvp_call_p
    return (
        equation.primitive,
        _body(equation) if kept else tuple(sorted(equation.params.items())),
        tuple(v.aval for v in equation.inputs),
        tuple(v.aval for v in equation.outputs),
        equation.context,
        equation.opaque,
    )


def _body(equation: Equation) -> str:
    """What a function with its own derivative computes, as a text.

    Each call has its own parameters, which equal no other's.
    """
    return str(_compat.called_jaxpr(dict(equation.params)))


def _derivative(equation: Equation) -> str:
    """That derivative, as a text."""
    avals = map(aval_of, equation.inputs)
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    tangent = functools.partial(jax.jvp, lambda *xs: equation.bound()(*xs))
    return str(jax.make_jaxpr(tangent)(shapes, shapes))


def _block(
    reading: Reading,
    kinds: Sequence[int],
    start: int,
    stop: int,
    last: dict[Value, int],
) -> Block:
    """The block of some steps, its values numbered in the order in which they occur."""
    steps = reading.steps[start:stop]
    numbers: dict[Value, int] = {}
    made: set[Value] = set()
    # What a step makes on the way to its results stays inside of it. Another step may
    # read the same value, from whoever has it as a result.
    left: set[Value] = set()
    read: set[Value] = set()
    form: list[Hashable] = []

    def number(atom: Any) -> Hashable:
        if isinstance(atom, Literal):  # 0.0 and -0.0 are equal, but not the same
            return repr(atom.val)
        if atom not in numbers:
            numbers[atom] = len(numbers)
            form.append((*_known(atom, reading), atom in made))
        return numbers[atom]

    for kind, step in zip(kinds[start:stop], steps, strict=True):
        read.update(v for v in step.reads if v not in left)
        left.update(step.outputs)
        form.append(kind)
        for equation in step.recipe:
            form.append(tuple(map(number, equation.inputs)))
        for equation in step.equations:
            made.update(equation.outputs)
            form.append(tuple(map(number, (*equation.inputs, *equation.outputs))))
            if equation.primitive is custom_jvp_call_p:
                form.append(_derivative(equation))
        form.append(None if step.argument is None else number(step.argument))
        form.append(tuple(map(number, step.signals)))
    outputs = tuple(
        v for step in steps for v in step.outputs if last.get(v, -1) >= stop
    )
    form.append(tuple(map(number, outputs)))
    inputs = tuple(v for v in numbers if v in read)
    form.append(tuple(map(number, inputs)))
    scopes = [reading.program.inner_scope(s.main).split("/") for s in steps]
    scope = "/".join(os.path.commonprefix(scopes))
    return Block(steps, inputs, outputs, scope, scope, tuple(form))


def _told_apart(row: Sequence[Block], reading: Reading) -> list[Block]:
    """Blocks whose inner scopes differ are evaluated under those of the first."""
    inner = {tuple(inner_scopes(block, reading)) for block in row}
    if len(inner) == 1:
        return list(row)
    names = [f"{block.scope}/block_{i}".strip("/") for i, block in enumerate(row)]
    pairs = zip(row, names, strict=True)
    return [dataclasses.replace(block, scope=name) for block, name in pairs]


def inner_scopes(block: Block, reading: Reading) -> list[str]:
    """The scopes of a block's steps, below its own."""
    found = (reading.program.inner_scope(s.main) for s in block.steps)
    return [scope.removeprefix(block.around).strip("/") for scope in found]


def _known(value: Value, reading: Reading) -> tuple[bool, ...]:
    """What a rule may ask of a value."""
    f = reading.facts[value]
    return (
        f.active,
        f.symbolic,
        f.nonnegative,
        f.reduced,
        f.rooted,
        value in reading.shadowed,
    )
