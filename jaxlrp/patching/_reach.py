"""Which values are added to which: the edges that a program has.

An edge goes from a value `u` to a value `v` if what is added to `u` arrives at `v` as
it is, by a path of sums, copies, casts and changes of shape: the residual stream. A
loop's carry takes it from one iteration to later ones.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from jaxlrp import _compat
from jaxlrp._program.bodies import Bodies, bodies_of
from jaxlrp._program.program import Equation, Value
from jaxlrp._reading.steps import Reading
from jaxlrp.patching._sites import Group
from jaxlrp.primitives import Kind, lookup

Source = tuple[int, ...]
"""A value of a group: its number there, and the iterations around it."""


def reaches(reading: Reading, source: Group, target: Group) -> np.ndarray:
    """Which values of one group arrive at which of another, `(sources, targets)`."""
    starts, ends = _places(source), _places(target)
    found = np.zeros((len(starts), len(ends)), bool)
    for row, start in enumerate(starts):
        walk = _Walk(start, dict(zip(ends, range(len(ends)), strict=True)), set())
        _run(reading, (), (), [False] * len(reading.program.inputs), walk)
        found[row, sorted(walk.met)] = True
    return found


def _places(group: Group) -> list[tuple[Any, ...]]:
    """Of each value in the stack: the steps around it, the iterations, and itself."""
    every = []
    for part in group.parts:
        for index in itertools.product(*map(range, part.lengths)):
            every.append((part.address, index))
    if group.order is None:
        return every
    places: list[Any] = [None] * len(every)
    for place, what in zip(group.order, every, strict=True):
        places[place] = what
    return places


class _Walk:
    """One walk forwards: from one value, to those asked about, and what was met."""

    def __init__(self, start: Any, ends: dict[Any, int], met: set[int]):
        self.start, self.ends, self.met = start, ends, met
        self.begun = False


def _run(
    reading: Reading,
    path: tuple[Any, ...],
    index: tuple[int, ...],
    marked: list[bool],
    walk: _Walk,
) -> list[bool]:
    """Which outputs what was marked arrives at; `marked` are the inputs."""
    program = reading.program
    reached = {v for v, m in zip(program.inputs, marked, strict=True) if m}
    bodies = {s.main: s for s in reading.steps if s.bodies}

    def is_reached(atom: Any) -> bool:
        return isinstance(atom, Value) and atom in reached

    def here(v: Value) -> None:
        place = ((*path, v), index)
        if v in reached and place in walk.ends:
            walk.met.add(walk.ends[place])
        if place == walk.start:
            walk.begun = True
            reached.add(v)

    for equation in program.equations:
        step = bodies.get(equation)
        if step is None:
            flags = [is_reached(v) for v in equation.inputs]
            if any(flags) and _hands_on(equation, flags):
                reached.update(equation.outputs)
        else:
            flags = [is_reached(v) for v in equation.inputs]
            if any(flags) or _inside(walk.start, path, step):
                outs = _flow(step, equation, path, index, flags, walk)
                reached.update(
                    v for v, m in zip(equation.outputs, outs, strict=True) if m
                )
        for v in equation.outputs:
            here(v)
    return [is_reached(v) for v in program.outputs]


def _inside(start: Any, path: tuple[Any, ...], step: Any) -> bool:
    address = start[0]
    return address[: len(path)] == path and address[len(path)] is step


def _flow(
    step: Any,
    equation: Equation,
    path: tuple[Any, ...],
    index: tuple[int, ...],
    flags: list[bool],
    walk: _Walk,
) -> list[bool]:
    way: Bodies = bodies_of(equation)
    given = flags[way.given]
    if way.flow == "scan":
        (body,) = step.bodies
        carried = given[way.carried]
        stacks = [False] * (len(equation.outputs) - way.carries)
        inner = (*path, step, 0)
        for i in _compat.iterations(equation.params):
            # Of a stack that is gone over nobody knows which slices were marked.
            marked = [*given[: way.constants], *carried, *given[way.slices]]
            outs = _run(body, inner, (*index, i), marked, walk)
            carried = outs[: way.carries]
            rest = outs[way.carries :]
            stacks = [a or b for a, b in zip(stacks, rest, strict=True)]
        return [*carried, *stacks]
    if way.flow in ("while", "shard_map"):
        return [False] * len(equation.outputs)
    every = [
        _run(body, (*path, step, number), index, given, walk)
        for number, body in enumerate(step.bodies)
    ]
    return [any(column) for column in zip(*every, strict=True)]


_COPIES = ("name", "copy", "copy_p", "convert_element_type", "optimization_barrier")
_MOVES = ("reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims")
_SUMS = ("add", "add_any", "reduce_sum", "sharding_constraint", "slice", "pad")


def _hands_on(equation: Equation, flags: list[bool]) -> bool:
    """Does what arrives at an operand arrive at the result as it is?"""
    name = equation.primitive.name
    if name == "sub":
        return flags[0]
    if name in (*_COPIES, *_MOVES, *_SUMS):
        return True
    entry = lookup(equation.primitive)
    return entry is not None and entry.kind is Kind.STRUCTURAL
