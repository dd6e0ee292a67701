"""Recognising recurrences: layers that meet the same weights again along a path.

A recurrent network applies one matrix to its own results, whether a loop carries the
state or the steps are unrolled. There, what a rule does is repeated at each step, so
that a small amplification grows without bound. A layer lies in a recurrence if some
path of the program passes its weights twice.

One walk forwards finds for each value the weights on its paths, a set as the bits of an
integer. Weights are the same if they are the same value, or computed in the same way
from the same values. Those that a loop slices in each iteration, as a stack of layers
in a `scan`, differ each time.

A layer whose result is added to that of a recurrent layer lies in the recurrence too:
the input's projection in `tanh(W x + U h)`. It occurs at each step, and where the two
cancel it amplifies as much, wherever it was computed: in the loop or before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

from jax.extend.core import Literal

from jaxlrp._program.bodies import bodies_of, fixpoint
from jaxlrp._program.program import Atom, Equation, Program
from jaxlrp._reading.context import Context
from jaxlrp._reading.facts import Facts, analyse, body_facts, body_programs, facts_of
from jaxlrp.primitives import Entry, Kind, lookup


@dataclasses.dataclass(frozen=True)
class _Known:
    """What is known of a value.

    Attributes:
      passed: the weights on its paths, as bits.
      terms: the weights of the layers that it is a sum of, gated or not, as bits.
      key: how it is computed, if it depends on constants only.
      loops: the loops in whose iterations it is not the same, as bits.
    """

    passed: int = 0
    terms: int = 0
    key: Hashable = None
    loops: int = 0


@dataclasses.dataclass(frozen=True)
class _Sheet:
    """What the walk has found.

    Attributes:
      context: of reading: the programs of bodies are the same as there.
      bits: the bit of each matrix of weights.
      loops: the bit of each loop.
      varying: by loop, the weights that differ in each of its iterations.
      users: the layers of each matrix.
      again: the weights that some path passes twice.
      sums: of each sum of layers, their weights, as bits.
      made: layers of constants, and how their operands are computed.
    """

    context: Context
    bits: dict[Hashable, int] = dataclasses.field(default_factory=dict)
    loops: dict[Equation, int] = dataclasses.field(default_factory=dict)
    varying: dict[int, int] = dataclasses.field(default_factory=dict)
    users: dict[int, set[Equation]] = dataclasses.field(default_factory=dict)
    again: set[int] = dataclasses.field(default_factory=set)
    sums: set[int] = dataclasses.field(default_factory=set)
    made: dict[Equation, set[Hashable]] = dataclasses.field(default_factory=dict)


def find_recurrent(
    program: Program, inputs: Sequence[Facts], context: Context
) -> frozenset[Equation]:
    """The contractions that lie in a recurrence; in bodies too.

    So do those of a first state that is constant with weights of the recurrence.
    """
    sheet = _Sheet(context)
    given = [
        _Known() if f.carries else _Known(key=("input", i))
        for i, f in enumerate(inputs)
    ]
    _walk(program, inputs, given, sheet)
    recurrent = _with_added(sum(sheet.again), sheet.sums)
    users = (own for bit, own in sheet.users.items() if bit & recurrent)
    weights = {key for key, bit in sheet.bits.items() if bit & recurrent}
    first = (e for e, keys in sheet.made.items() if keys & weights)
    return frozenset(first).union(*users)


def _with_added(recurrent: int, sums: set[int]) -> int:
    """And the weights of layers whose results are added to theirs."""
    while True:
        added = recurrent
        for terms in sums:
            if terms & added:
                added |= terms
        if added == recurrent:
            return recurrent
        recurrent = added


def _walk(
    program: Program, inputs: Sequence[Facts], given: Sequence[_Known], sheet: _Sheet
) -> list[_Known]:
    """What is known of the outputs, from what is known of the inputs."""
    facts = analyse(program, inputs, sheet.context)
    known = dict(zip(program.inputs, given, strict=True))
    known.update((v, _Known(key=("constant", id(c)))) for v, c in program.constants)

    def of(atom: Atom) -> _Known:
        if isinstance(atom, Literal):
            return _Known(key=("number", repr(atom.val)))
        return known[atom]

    for equation in program.equations:
        operands = [of(v) for v in equation.inputs]
        bodies = body_programs(equation, sheet.context)
        if bodies:
            own = [facts_of(v, facts) for v in equation.inputs]
            results = _of_bodies(equation, bodies, own, operands, sheet)
        elif any(facts[v].carries for v in equation.outputs):
            active = [facts_of(v, facts).active for v in equation.inputs]
            results = [_passing(equation, active, operands, sheet)]
            results *= len(equation.outputs)
        else:
            results = _made(equation, operands, sheet)
        known.update(zip(equation.outputs, results, strict=True))
    return [of(v) for v in program.outputs]


def _passing(
    equation: Equation,
    active: Sequence[bool],
    operands: Sequence[_Known],
    sheet: _Sheet,
) -> _Known:
    """What an active result has passed; a layer's weights are passed there."""
    passed, terms, _ = _together(operands)
    entry = lookup(equation.primitive)
    layer = entry is not None and entry.kind is Kind.CONTRACTION and sum(active) == 1
    if layer:
        position = active.index(True)
        passed, kernel = operands[position].passed, operands[1 - position]
        bit = sheet.bits.setdefault(kernel.key, 1 << len(sheet.bits))
        sheet.users.setdefault(bit, set()).add(equation)
        for loop in sheet.loops.values():
            if kernel.loops & loop:
                sheet.varying[loop] = sheet.varying.get(loop, 0) | bit
        if passed & bit:
            sheet.again.add(bit)
        passed, terms = passed | bit, bit
    elif entry is None or not _keeps_terms(entry):
        terms = 0
    elif entry.is_sum:
        # Which weights recur is known when the walk is over: the sum is remembered.
        sheet.sums.add(terms)
    return _Known(passed, terms)


def _keeps_terms(entry: Entry) -> bool:
    """Is the result made of the same layers' results, moved, added or gated?"""
    if entry.picks:
        return False
    linear = entry.kind is Kind.ELEMENTWISE and entry.linear([True])
    return entry.kind is Kind.STRUCTURAL or entry.selects or linear


def _made(
    equation: Equation, operands: Sequence[_Known], sheet: _Sheet
) -> list[_Known]:
    """What is computed from constants in the same way is the same constant.

    A first state passes weights as later ones do; which operand those are is not told.
    """
    passed, _, loops = _together(operands)
    entry = lookup(equation.primitive)
    if entry is not None and entry.kind is Kind.CONTRACTION:
        keys = {o.key for o in operands if o.key is not None}
        sheet.made.setdefault(equation, set()).update(keys)
        for key in keys:
            passed |= sheet.bits.setdefault(key, 1 << len(sheet.bits))
    known = _Known(passed, loops=loops)
    moves = entry is not None and entry.kind in (Kind.STRUCTURAL, Kind.ELEMENTWISE)
    if not moves or any(operand.key is None for operand in operands):
        return [dataclasses.replace(known, key=v) for v in equation.outputs]
    params = repr(sorted(equation.params.items(), key=lambda item: item[0]))
    made = equation.primitive.name, params, tuple(operand.key for operand in operands)
    return [
        dataclasses.replace(known, key=(*made, i)) for i in range(len(equation.outputs))
    ]


def _together(operands: Sequence[_Known]) -> tuple[int, int, int]:
    """What has been passed, the terms and the loops of all operands."""
    passed = terms = loops = 0
    for operand in operands:
        passed, terms = passed | operand.passed, terms | operand.terms
        loops |= operand.loops
    return passed, terms, loops


def _of_bodies(
    equation: Equation,
    bodies: Sequence[Program],
    facts: Sequence[Facts],
    operands: Sequence[_Known],
    sheet: _Sheet,
) -> list[_Known]:
    """What is known of the results of a loop, branch or call."""
    inputs, _ = body_facts(equation, bodies, facts, sheet.context)
    how = bodies_of(equation)
    given = list(operands[how.given])
    if how.repeats:
        return _of_loop(equation, bodies[0], inputs, given, sheet)
    outs = [_walk(body, inputs, given, sheet) for body in bodies]
    return [_joined(alike) for alike in zip(*outs, strict=True)]


def _joined(alike: Sequence[_Known]) -> _Known:
    """One of several."""
    first, *others = alike
    same = all(other.key == first.key for other in others)
    joined = dataclasses.replace(first, key=first.key if same else None)
    for other in others:
        joined = dataclasses.replace(
            joined,
            passed=joined.passed | other.passed,
            terms=joined.terms | other.terms,
            loops=joined.loops | other.loops,
        )
    return joined


def _of_loop(
    equation: Equation,
    body: Program,
    inputs: Sequence[Facts],
    given: Sequence[_Known],
    sheet: _Sheet,
) -> list[_Known]:
    """A fixpoint over the carry, of whose paths those of any iteration are part."""
    loop = sheet.loops.setdefault(equation, 1 << len(sheet.loops))
    how = bodies_of(equation)
    consts, split = how.carried.start, how.carried.stop
    inside = [
        one
        if i < consts or (i < split and body.outputs[i - consts] is body.inputs[i])
        else dataclasses.replace(
            one, key=_taken(equation, i, split, one), loops=one.loops | loop
        )
        for i, one in enumerate(given)
    ]

    def after(carry: list[_Known]) -> tuple[list[_Known], list[_Known]]:
        inside[how.carried] = carry
        outs = _walk(body, inputs, inside, sheet)
        # Weights that are others in each iteration are not met again by the next one.
        changing = sheet.varying.get(loop, 0)
        again = [
            dataclasses.replace(
                a,
                passed=a.passed | (b.passed & ~changing),
                terms=a.terms | (b.terms & ~changing),
            )
            for a, b in zip(carry, outs, strict=False)
        ]
        return again, outs

    carry, outs = fixpoint(after, inside[how.carried])
    outer = 0
    for one in given:
        outer |= one.loops
    ends = [_joined(pair) for pair in zip(carry, outs, strict=False)]
    return [
        dataclasses.replace(end, key=("result", equation, i), loops=outer)
        for i, end in enumerate([*ends, *outs[how.carries :]])
    ]


def _taken(equation: Equation, i: int, split: int, stack: _Known) -> Hashable:
    """What an iteration takes: its part of a stack, or the last one's result."""
    if i < split or stack.key is None:
        return "carried", equation, i
    return "taken", stack.key
