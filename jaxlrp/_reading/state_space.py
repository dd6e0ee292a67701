"""Recognising the coefficients of a state space: its matrices, computed from the input.

A selective state space is a chain of products, `y = sum_n C_n A_n (x B_n)`, with
recurrences between them, in which `x` is the signal. What distinguishes `B` and `C`
from it are their axes. `C` is summed over the state's axis `n` with a state that was
made by an outer product along `n`: of the signal, which has an axis that `C` lacks and
lacks `n`, and of `B`, which has `n` and lacks that axis.

So from each sum of products over an axis a walk goes backwards from either factor,
through whatever keeps the axes apart, loops and calls too, and looks for such an outer
product. Where there is one behind one factor alone, the other is a coefficient, and so
is what the signal meets in the outer product.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from jaxlrp import _compat
from jaxlrp._program.axes import axes_of, every_axis, shape_of
from jaxlrp._program.bodies import bodies_of, fixpoint
from jaxlrp._program.opaque import is_elementwise
from jaxlrp._program.program import Atom, Equation, Program, Value
from jaxlrp._reading.claims import held_operands
from jaxlrp._reading.context import Context
from jaxlrp._reading.facts import Facts, analyse, body_facts, body_programs, facts_of
from jaxlrp.primitives import Entry, Kind, lookup


@dataclasses.dataclass(frozen=True)
class _Walk:
    """Where a walk begins, and what it looks for.

    Attributes:
      equation: a product, or a sum over an axis whose product has not been met yet.
      position: which factor it goes through.
      axis: the axis of the sum, in that factor or in the result.
      own: the axes of the result that the signal has and the other factor lacks.
      seeks: does it look for a value that has `axis` and lacks `own`? Others look for
        the product of such a value and of one that has `own` and lacks `axis`.
    """

    equation: Equation
    position: int
    axis: int
    own: frozenset[int] = frozenset()
    seeks: bool = False


@dataclasses.dataclass(frozen=True)
class _Mark:
    """What an axis is to a walk: `summed` over, or the signal's `own`.

    That of a sum is `pending` until the product that it is taken of is met.
    """

    walk: _Walk
    axis: int
    kind: str


Marks = frozenset[_Mark]
Factor = tuple[Equation, int]


@dataclasses.dataclass(frozen=True)
class _Sheet:
    """What the walks have found.

    Attributes:
      context: of reading: the programs of bodies are the same as there.
      found: the walks that have found what they look for.
      around: by walk, the walks that have found it if this one has.
      gates: by walk, the factors that are constants if it has found it.
      done: the marks of a program's inputs, by program and marks of its outputs.
    """

    context: Context
    found: set[_Walk]
    around: dict[_Walk, set[_Walk]]
    gates: dict[_Walk, set[Factor]]
    done: dict


@dataclasses.dataclass(frozen=True)
class _Page:
    """One program on the way back.

    Attributes:
      facts: what is known of its values.
      spread: the axes along which a value is not merely repeated.
      producer: the equations by result.
      sheet: shared by all programs.
    """

    facts: Mapping[Value, Facts]
    spread: Mapping[Value, frozenset[int]]
    producer: Mapping[Value, Equation]
    sheet: _Sheet

    def active(self, equation: Equation) -> list[bool]:
        return [facts_of(v, self.facts).active for v in equation.inputs]

    def axes(self, equation: Equation, position: int) -> dict[int, int]:
        """`{axis of the result: axis of an operand}`, where it is not a repetition."""
        own = _spread_of(equation.inputs[position], self.spread)
        found = axes_of(equation, position) or {}
        return {out: axis for out, axis in found.items() if axis in own}


def find_coefficients(
    program: Program, inputs: Sequence[Facts], context: Context
) -> dict[Equation, int]:
    """The position of the factor that is held, by product; in bodies too."""
    sheet = _Sheet(context, set(), defaultdict(set), defaultdict(set), {})
    spread = [every_axis(v) for v in program.inputs]
    _walk_back(program, inputs, spread, [frozenset()] * len(program.outputs), sheet)
    found, queue = set(sheet.found), list(sheet.found)
    while queue:
        new = sheet.around[queue.pop()] - found
        found |= new
        queue += new
    states: dict[Equation, set[int]] = defaultdict(set)
    for walk in found:
        if not walk.seeks:
            states[walk.equation].add(walk.position)
    held = {e: 1 - min(places) for e, places in states.items() if len(places) == 1}
    for walk in found:
        held.update(sheet.gates[walk])
        if walk.seeks:
            held[walk.equation] = walk.position
    return held


# ---- axes --------------------------------------------------------------------------


def _spread_of(atom: Atom, spread: Mapping[Value, frozenset[int]]) -> frozenset[int]:
    return spread[atom] if isinstance(atom, Value) else every_axis(atom)


def _spread(
    program: Program, inputs: Sequence[frozenset[int]]
) -> dict[Value, frozenset[int]]:
    """The axes along which each value of a program is not merely repeated."""
    spread = dict(zip(program.inputs, inputs, strict=True))
    spread.update((v, every_axis(v)) for v, _ in program.constants)
    for equation in program.equations:
        axes = [axes_of(equation, i) for i in range(len(equation.inputs))]
        known = [(v, a) for v, a in zip(equation.inputs, axes, strict=True) if a]
        for out in equation.outputs:
            spread[out] = every_axis(out)
            if axes and None not in axes:
                spread[out] = frozenset(
                    o
                    for v, moved in known
                    for o, axis in moved.items()
                    if axis in _spread_of(v, spread)
                    or shape_of(v)[axis] != shape_of(out)[o]
                )
    return spread


# ---- the way back ------------------------------------------------------------------


def _walk_back(
    program: Program,
    inputs: Sequence[Facts],
    spread: Sequence[frozenset[int]],
    outputs: Sequence[Marks],
    sheet: _Sheet,
) -> list[Marks]:
    """From the marks of a program's outputs to those of its inputs."""
    key = (id(program), tuple(inputs), tuple(spread), tuple(outputs))
    if key in sheet.done:
        return sheet.done[key]
    page = _Page(
        analyse(program, inputs, sheet.context),
        _spread(program, spread),
        {v: e for e in program.equations for v in e.outputs},
        sheet,
    )
    marks: dict[Value, Marks] = defaultdict(frozenset)
    for v, given in zip(program.outputs, outputs, strict=True):
        if isinstance(v, Value):
            marks[v] |= given
    for equation in reversed(program.equations):
        given = [marks[v] for v in equation.outputs]
        for v, received in _back(equation, given, page):
            if isinstance(v, Value) and page.facts[v].active:
                marks[v] |= received
    sheet.done[key] = [marks[v] for v in program.inputs]
    return sheet.done[key]


def _back(
    equation: Equation, given: Sequence[Marks], page: _Page
) -> Iterator[tuple[Atom, Marks]]:
    """What an equation passes on to its operands of the marks of its results."""
    entry = lookup(equation.primitive)
    active = page.active(equation)
    if entry is None or not any(active):
        return
    bodies = body_programs(equation, page.sheet.context)
    if bodies:
        body = _compat.called_jaxpr(dict(equation.params))
        if entry.kind is Kind.CONTROL or not is_elementwise(body):
            yield from _through_bodies(equation, bodies, given, page)
        return
    marks: Marks = frozenset().union(*given)
    if is_product(equation, entry, active):
        yield from _through_product(equation, entry, marks, page)
        return
    divides = entry.kind is Kind.ELEMENTWISE and entry.is_quotient
    if not entry.linear(active) and not (divides and active[0]):
        return
    places = [0] if divides else [i for i, a in enumerate(active) if a]
    if len(places) > 1:  # a sum is not a product, wherever its terms come from
        marks = frozenset(m for m in marks if not m.walk.seeks)
    for i in places:
        begun = _begun(equation, i) if entry.sums else frozenset()
        yield equation.inputs[i], begun | _handed(equation, i, marks, page)


def is_product(equation: Equation, entry: Entry, active: Sequence[bool]) -> bool:
    """A product of two active values, elementwise or as a contraction."""
    if list(active) != [True, True] or equation.inputs[0] is equation.inputs[1]:
        return False
    if entry.kind is Kind.CONTRACTION:
        return axes_of(equation, 0) is not None
    return entry.kind is Kind.ELEMENTWISE and entry.is_product


def _begun(equation: Equation, position: int) -> Marks:
    """The axes that a sum is taken over."""
    axes = axes_of(equation, position)
    if axes is None:
        return frozenset()
    gone = every_axis(equation.inputs[position]) - set(axes.values())
    return frozenset(
        _Mark(_Walk(equation, position, axis), axis, "pending") for axis in gone
    )


def _handed(equation: Equation, position: int, marks: Marks, page: _Page) -> Marks:
    """Marks of a result as those of an operand: of walks that go on there."""
    axes = page.axes(equation, position)
    moved = [dataclasses.replace(m, axis=axes[m.axis]) for m in marks if m.axis in axes]
    return _going_on(moved, page.sheet)


def _going_on(marks: Sequence[_Mark], sheet: _Sheet) -> Marks:
    """Without the walks that end: at what they seek, or where an axis is lost."""
    summed = {m.walk for m in marks if m.kind == "summed"}
    own = {m.walk for m in marks if m.kind == "own"}
    sheet.found.update(w for w in summed - own if w.seeks)
    both = summed & own
    return frozenset(m for m in marks if m.kind == "pending" or m.walk in both)


def _through_bodies(
    equation: Equation,
    bodies: Sequence[Program],
    given: Sequence[Marks],
    page: _Page,
) -> Iterator[tuple[Atom, Marks]]:
    """Into a loop, branch or call, and out of it to its operands."""
    how = bodies_of(equation)
    operands = [facts_of(v, page.facts) for v in equation.inputs]
    inputs, _ = body_facts(equation, bodies, operands, page.sheet.context)
    atoms = equation.inputs[how.given]
    spread = [_spread_of(v, page.spread) for v in atoms]
    if not how.repeats:
        for body in bodies:
            received = _walk_back(body, inputs, spread, given, page.sheet)
            yield from zip(atoms, received, strict=True)
        return
    (body,) = bodies
    spread[how.carried] = [every_axis(v) for v in atoms[how.carried]]
    spread[how.slices] = [
        frozenset(i - 1 for i in axes if i) for axes in spread[how.slices]
    ]
    each = [_shifted(marks, -1, page.sheet) for marks in given[how.carries :]]

    def before(ends: list[Marks]) -> tuple[list[Marks], list[Marks]]:
        received = _walk_back(body, inputs, spread, [*ends, *each], page.sheet)
        pairs = zip(ends, received[how.carried], strict=True)
        return [a | b for a, b in pairs], list(received)

    _, received = fixpoint(before, list(given[: how.carries]))
    received[how.slices] = [
        _shifted(marks, 1, page.sheet) for marks in received[how.slices]
    ]
    yield from zip(atoms, received, strict=True)


def _shifted(marks: Marks, by: int, sheet: _Sheet) -> Marks:
    """Marks of a loop's stacked values as those of one iteration, or back."""
    moved = [
        dataclasses.replace(m, axis=m.axis + by) for m in marks if m.axis + by >= 0
    ]
    return _going_on(moved, sheet)


# ---- products ----------------------------------------------------------------------


def _through_product(
    equation: Equation, entry: Entry, marks: Marks, page: _Page
) -> Iterator[tuple[Atom, Marks]]:
    axes = [page.axes(equation, k) for k in (0, 1)]
    given: tuple[set[_Mark], set[_Mark]] = (set(), set())
    pending = [m for m in marks if m.kind == "pending"]
    sums = _sums(equation, entry, pending, axes)
    for k in (0, 1):
        given[k].update(_begin(equation, k, sums, axes))
    alone = frozenset(m for m in pending if not all(m.axis in a for a in axes))
    walks: dict[_Walk, set[_Mark]] = defaultdict(set)
    for mark in marks - set(pending):
        walks[mark.walk].add(mark)
    for walk, own in walks.items():
        if sums and not all(
            m.axis in a for m in own if m.kind == "summed" for a in axes
        ):
            continue  # a matrix product: its factors differ only in their order
        for k, handed in _factors(equation, entry, walk, frozenset(own), axes, page):
            given[k].update(handed)
    for k in (0, 1):
        handed = _handed(equation, k, alone, page)
        yield equation.inputs[k], handed | _going_on(list(given[k]), page.sheet)


def _sums(
    equation: Equation,
    entry: Entry,
    pending: Sequence[_Mark],
    axes: Sequence[dict[int, int]],
) -> list[tuple[int, int]]:
    """The pairs of axes, one in each factor, that the product is summed over."""
    pairs = [
        (axes[0][m.axis], axes[1][m.axis])
        for m in pending
        if all(m.axis in a for a in axes)
    ]
    if entry.kind is not Kind.CONTRACTION or entry.input_axes is None:
        return pairs
    sizes = tuple(len(shape_of(v)) for v in equation.inputs)
    met = entry.input_axes(equation.params, 1, sizes)
    kept = set((axes_of(equation, 0) or {}).values())
    return pairs + [(a, b) for a, b in met.items() if a not in kept]


def _begin(
    equation: Equation,
    position: int,
    sums: Sequence[tuple[int, int]],
    axes: Sequence[dict[int, int]],
) -> Iterator[_Mark]:
    """The marks of the walks that begin at a factor of a sum of products.

    Its own axes are those that the other lacks.
    """
    mine, other = axes[position], axes[1 - position]
    own = {out for out in mine if out not in other}
    for pair in sums:
        walk = _Walk(equation, position, pair[position], frozenset(own))
        yield _Mark(walk, walk.axis, "summed")
        for out in own:
            yield _Mark(walk, mine[out], "own")


def _factors(
    equation: Equation,
    entry: Entry,
    walk: _Walk,
    marks: Marks,
    axes: Sequence[dict[int, int]],
    page: _Page,
) -> Iterator[tuple[int, Sequence[_Mark]]]:
    """Where a walk continues at a product that it meets, and as what."""
    along = next(m.axis for m in marks if m.kind == "summed")
    own = frozenset(m.axis for m in marks if m.kind == "own")

    def moved(k: int, of: _Walk, kept: Marks = marks) -> tuple[int, list[_Mark]]:
        return k, [
            _Mark(of, axes[k][m.axis], m.kind) for m in kept if m.axis in axes[k]
        ]

    if walk.seeks:
        yield from (moved(k, walk) for k in (0, 1))
        return
    places = [k for k in (0, 1) if along in axes[k]]
    gate = _gate(equation, entry, page)
    if len(places) == 2:
        for k in places:  # a coefficient of any sign is recognised as `C` is
            if k == gate:
                continue
            # One walk for all that come here: there are few, however many sums.
            inner = _Walk(equation, k, along, own)
            page.sheet.around[inner].add(walk)
            yield moved(k, inner)
        return
    if not places:
        return
    (other,) = places
    signal = 1 - other
    shared = frozenset(m for m in marks if m.kind == "summed" or m.axis in axes[signal])
    if len(shared) == 1:  # it has no own axis
        verdict = "gate" if gate == signal else "factor"
    else:
        verdict = _verdict(equation, other, along, own, axes, gate == signal, page)
    if verdict == "signal":
        seek = _Walk(equation, other, along, own.intersection(axes[signal]), seeks=True)
        page.sheet.around[seek].add(walk)
        yield moved(other, seek, shared)
        return
    if verdict == "gate":
        page.sheet.gates[walk].add((equation, signal))
    yield moved(other, walk)


def _gate(equation: Equation, entry: Entry, page: _Page) -> int | None:
    """The factor that is a scale made of a statistic, or `>= 0` where no other is."""
    held = held_operands(equation, entry, page.facts)
    if held:
        return held[0]
    signs = [facts_of(v, page.facts).nonnegative for v in equation.inputs]
    return signs.index(True) if sum(signs) == 1 else None


def _verdict(
    equation: Equation,
    other: int,
    along: int,
    own: frozenset[int],
    axes: Sequence[dict[int, int]],
    is_gate: bool,
    page: _Page,
) -> str:
    """Is a factor without the state's axis the `signal`, a `gate`, or a mere `factor`?

    In `dt (x B)` and `(dt B) x` there are two of them. The signal is the one that may
    be negative, as a step size may not.
    """
    lacks = own.isdisjoint(axes[other])
    if lacks:
        return "signal"
    mine = frozenset(axes[other][o] for o in own if o in axes[other])
    signs, known = _inner(equation.inputs[other], axes[other][along], mine, page)
    if is_gate and (not known or not all(signs)):
        return "gate"
    if not signs or (all(signs) and not is_gate):
        return "signal"
    return "factor"


def _inner(
    atom: Atom, along: int, own: frozenset[int], page: _Page
) -> tuple[list[bool], bool]:
    """The factors inside a value that have one of its own axes and lack the state's.

    Whether each is `>= 0`, and whether it is known what the value is made of.
    """
    equation = page.producer.get(atom) if isinstance(atom, Value) else None
    if equation is None:
        return [], False
    entry = lookup(equation.primitive)
    active = page.active(equation)
    if entry is None or entry.kind in (Kind.CALL, Kind.CONTROL):
        return [], False
    places = [i for i, a in enumerate(active) if a]
    product = is_product(equation, entry, active)
    if not product and (len(places) > 1 or not entry.linear(active)):
        return [], True
    if product and _sums(equation, entry, (), ()):
        return [], True
    signs: list[bool] = []
    known = True
    for i in places:
        axes = page.axes(equation, i)
        mine = frozenset(axes[o] for o in own if o in axes)
        if along in axes:
            inside = _inner(equation.inputs[i], axes[along], mine, page)
            signs, known = signs + inside[0], known and inside[1]
        elif mine:
            signs.append(facts_of(equation.inputs[i], page.facts).nonnegative)
    return signs, known
