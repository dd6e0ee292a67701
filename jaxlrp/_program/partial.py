"""Partial evaluation: what known values decide alone, and the rest.

The equations of a program are written on a sheet, each with a level: its results are
known `ONCE` and for all, are known for `EACH` iteration of the loop around it, or are
`OPEN`, dependent on what is not known yet. `jit`s are inlined. The bodies of `scan` and
`checkpoint` have their own sheets. What is known on these moves to the sheet around
them, and the rest is emitted again. What is known for each iteration is mapped over all
of them, so that a loop there and one back, in reverse order, share it. Of equal
equations whose results are known there is one, wherever they occur.

`cut` splits a sheet. The rest reads known values. A move of a smaller value, a
broadcast say, is recomputed in the rest from that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal
from jax.extend.core import primitives as P

from jaxlrp import _compat
from jaxlrp._program.bodies import bodies_of, fixpoint
from jaxlrp._program.program import Atom, Equation, Program, Value, aval_of, flatten
from jaxlrp.primitives import Entry, Kind, lookup

ONCE, EACH, OPEN = range(3)

_WRITTEN_OUT = (P.jit_p, P.closed_call_p)
"""Calls with neither their own derivative nor a place to be run at."""


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """A map from values to values.

    Attributes:
      inputs: the operands.
      outputs: the results.
      run: the map, from operands to a list of results.
      key: what it computes of its operands, or None where that cannot be compared.
      cost: `move` of elements, `cast`, `cheap` elementwise arithmetic, or `full`.
      maps: does `jax.vmap` of it give, bit for bit or rounded, what a loop gives?
    """

    inputs: tuple[Atom, ...]
    outputs: tuple[Value, ...]
    run: Callable[..., list[Any]]
    key: Any = None
    cost: str = "full"
    maps: bool = False


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Operations in order, and the levels of the values that they make.

    Attributes:
      length: of the loop around it, of whose iterations `EACH` speaks.
      levels: of inputs, constants and results.
      operations: so far.
      constants: so far.
      known: results that are known, by what they compute.
    """

    length: int = 1
    levels: dict[Value, int] = dataclasses.field(default_factory=dict)
    operations: list[Operation] = dataclasses.field(default_factory=list)
    constants: list[tuple[Value, Any]] = dataclasses.field(default_factory=list)
    known: dict[Any, tuple[Value, ...]] = dataclasses.field(default_factory=dict)

    def level(self, atom: Atom) -> int:
        return ONCE if isinstance(atom, Literal) else self.levels[atom]

    def put(
        self,
        operation: Operation,
        inputs: Sequence[Atom],
        avals: Sequence[Any],
        level: int | None = None,
    ) -> list[Value]:
        """Writes an operation down for these inputs, or finds that it is there."""
        if level is None:
            level = max(map(self.level, inputs), default=ONCE)
        key = None
        if level < OPEN and operation.key is not None:
            key = (operation.key, *map(_identity, inputs))
            if key in self.known:
                return list(self.known[key])
        outputs = tuple(Value(aval) for aval in avals)
        own = dataclasses.replace(operation, inputs=tuple(inputs), outputs=outputs)
        self.operations.append(own)
        self.levels.update(dict.fromkeys(outputs, level))
        if key is not None:
            self.known[key] = outputs
        return list(outputs)

    def given(self, level: int, avals: Iterable[Any]) -> list[Value]:
        """New inputs of a level."""
        values = [Value(aval) for aval in avals]
        self.levels.update(dict.fromkeys(values, level))
        return values

    def constant(self, aval: Any, array: Any) -> Value:
        """A constant; the same array is written once."""
        for value, found in self.constants:
            if found is array:
                return value
        (value,) = self.given(ONCE, [aval])
        self.constants.append((value, array))
        return value

    def elements(self, value: Value) -> int:
        """How many a value has, in all iterations."""
        repeated = self.length if self.levels[value] == EACH else 1
        return repeated * math.prod(value.aval.shape)


def _identity(atom: Atom) -> Any:
    # Literals by what they print as: 0.0 and -0.0 are equal, but not the same.
    return (atom.aval, repr(atom.val)) if isinstance(atom, Literal) else atom


def opened(jaxpr: Any) -> Program:
    """The program of a jaxpr, in which what has its own derivative is kept."""
    return flatten(jaxpr, keep_calls=False, apart=False, opened=_WRITTEN_OUT)


def write(program: Program, inputs: Sequence[Atom], sheet: Sheet) -> list[Atom]:
    """Writes a program down for some inputs; returns its outputs."""
    written: dict[Value, Atom] = dict(zip(program.inputs, inputs, strict=True))
    for value, array in program.constants:
        written[value] = sheet.constant(value.aval, array)

    def read(atom: Atom) -> Atom:
        return atom if isinstance(atom, Literal) else written[atom]

    for equation in program.equations:
        operands = [read(v) for v in equation.inputs]
        results = _write(equation, operands, sheet)
        written.update(zip(equation.outputs, results, strict=True))
    return [read(v) for v in program.outputs]


def _write(equation: Equation, inputs: list[Atom], sheet: Sheet) -> Sequence[Atom]:
    entry = lookup(equation.primitive)
    avals = [v.aval for v in equation.outputs]
    levels = [sheet.level(v) for v in inputs]
    known = [level < OPEN for level in levels]
    if equation.primitive is _compat.barrier():
        return _each_for_itself(equation, inputs, known, sheet)
    if any(known) and not all(known) and not equation.effectful:
        if entry is not None and entry.kind is Kind.CONTROL:
            flow = bodies_of(equation).flow
            if flow == "scan":
                return _scan(equation, inputs, sheet)
            if flow == "checkpoint":
                return _remat(equation, inputs, sheet)
    held = equation.effectful or not all(map(_compat.is_sized, avals))
    operation = _operation(equation, entry)
    return sheet.put(operation, inputs, avals, OPEN if held else None)


def _operation(equation: Equation, entry: Entry | None) -> Operation:
    key = equation.primitive, tuple(sorted(equation.params.items()))
    try:
        hash(key)
    except TypeError:
        key = None
    cost = _cost(equation, entry)
    maps = cost != "full" or (entry is not None and entry.kind in _MAPPED)
    return Operation((), (), _binder(equation), key, cost, maps)


_MAPPED = (
    Kind.STRUCTURAL,
    Kind.ELEMENTWISE,
    Kind.LINEAR,
    Kind.CONTRACTION,
    Kind.SELECTION,
    Kind.HOMOGENEOUS,
)
"""Not random numbers: a map of a generator need not be the generator of a map."""


def _cost(equation: Equation, entry: Entry | None) -> str:
    if entry is None or len(equation.outputs) != 1:
        return "full"
    if entry.kind is Kind.STRUCTURAL:
        return "move"
    if equation.primitive is P.convert_element_type_p:
        return "cast"
    if entry.kind is Kind.ELEMENTWISE:
        arithmetic = entry.is_sum or entry.is_product or entry.is_quotient
        chooses = entry.selects or entry.picks
        return "cheap" if arithmetic or chooses else "full"
    if entry.kind is not Kind.INERT:
        return "full"
    (out,) = (v.aval for v in equation.outputs)
    shapes = [aval_of(v).shape for v in equation.inputs]
    compares = entry.combines or out.dtype == jnp.dtype(bool)
    elementwise = all(shape in ((), out.shape) for shape in shapes)
    return "cheap" if not shapes or (compares and elementwise) else "full"


def _binder(
    equation: Equation, bind: Callable[..., list[Any]] | None = None
) -> Callable[..., list[Any]]:
    """The equation's map where it was traced, or a replacement."""
    params = dict(equation.params)
    bound = bind or _compat.primitive_bind(equation.primitive, params)
    where = equation.source, equation.context, equation.scope

    def run(*operands: Any) -> list[Any]:
        with _compat.equation_context(*where):
            return bound(*operands)

    return run


def _each_for_itself(
    equation: Equation, inputs: Sequence[Atom], known: Sequence[bool], sheet: Sheet
) -> Sequence[Atom]:
    """What is known passes; the rest goes through together."""
    rest = [v for v, k in zip(inputs, known, strict=True) if not k]
    avals = [v.aval for v, k in zip(equation.outputs, known, strict=True) if not k]
    operation = Operation((), (), _binder(equation))
    passed = iter(sheet.put(operation, rest, avals, OPEN) if rest else ())
    return [v if k else next(passed) for v, k in zip(inputs, known, strict=True)]


# ---- bodies ----------------------------------------------------------------------


def _remat(equation: Equation, inputs: list[Atom], sheet: Sheet) -> Sequence[Atom]:
    """What is recomputed in the reverse pass, without what is known."""
    body = opened(_compat.called_jaxpr(dict(equation.params)))
    inner = Sheet(sheet.length)
    for value, atom in zip(body.inputs, inputs, strict=True):
        inner.levels[value] = sheet.level(atom)
    outs = write(body, body.inputs, inner)
    asked = [v for v in outs if inner.level(v) == OPEN]
    kept, rest = cut(inner, asked)
    if len(asked) == len(outs) and set(kept) <= set(body.inputs):
        return _whole(equation, inputs, sheet)
    outer = _moved(inner, dict(zip(body.inputs, inputs, strict=True)), sheet)
    free = [v for v in body.inputs if inner.levels[v] == OPEN]
    places = {v: i for i, v in enumerate(body.inputs)}
    given = [*kept, *free]

    def run(*operands: Any) -> list[Any]:
        return evaluate(rest, dict(zip(given, operands, strict=True)), asked)

    places = [places.get(v) for v in given]
    bind = _compat.with_body(equation.primitive, equation.params, run, places)
    operation = Operation((), (), _binder(equation, bind))
    operands = [outer[v] for v in kept] + [inputs[body.inputs.index(v)] for v in free]
    results = iter(sheet.put(operation, operands, [aval_of(v) for v in asked], OPEN))
    return [next(results) if inner.level(v) == OPEN else _at(v, outer) for v in outs]


def _whole(equation: Equation, inputs: Sequence[Atom], sheet: Sheet) -> Sequence[Atom]:
    """The equation as it is, from which nothing can be removed."""
    operation = Operation((), (), _binder(equation))
    return sheet.put(operation, inputs, [v.aval for v in equation.outputs], OPEN)


def _at(atom: Atom, outer: Mapping[Value, Atom]) -> Atom:
    return atom if isinstance(atom, Literal) else outer[atom]


def _moved(
    inner: Sheet, outer: dict[Value, Atom], sheet: Sheet, length: int | None = None
) -> dict[Value, Atom]:
    """Writes what is known in a body on the sheet around it; returns where it is.

    With `length` the body is a loop's, and what is known for each iteration is made for
    all of them, stacked.
    """
    outer = dict(outer)
    for value, array in inner.constants:
        outer[value] = sheet.constant(value.aval, array)
    for operation in inner.operations:
        level = inner.levels[operation.outputs[0]] if operation.outputs else OPEN
        if level == OPEN:
            continue
        inputs = [_at(v, outer) for v in operation.inputs]
        avals = [v.aval for v in operation.outputs]
        if length is not None and level == EACH:
            stacked = tuple(inner.level(v) == EACH for v in operation.inputs)
            operation = _mapped(operation, stacked, length)
            avals = [_compat.stack_of(aval, length) for aval in avals]
        made = sheet.put(operation, inputs, avals)
        outer.update(zip(operation.outputs, made, strict=True))
    return outer


def _mapped(operation: Operation, stacked: tuple[bool, ...], length: int) -> Operation:
    """The operation for all iterations of a loop at once."""
    run = operation.run
    if operation.maps:
        axes = tuple(0 if s else None for s in stacked)
        mapped = jax.vmap(run, axes, axis_size=length)
    else:

        def mapped(*operands: Any) -> list[Any]:
            given = list(zip(operands, stacked, strict=True))

            def step(xs: Sequence[Any]) -> list[Any]:
                queue = iter(xs)
                return run(*(next(queue) if s else v for v, s in given))

            return lax.map(step, [v for v, s in given if s])

    key = None if operation.key is None else (operation.key, stacked, length)
    return dataclasses.replace(operation, run=mapped, key=key)


def _scan(equation: Equation, inputs: list[Atom], sheet: Sheet) -> Sequence[Atom]:
    """A loop without what is known, once and for all or for each iteration."""
    params = dict(equation.params)
    length = len(_compat.iterations(params))
    n, m = _compat.scan_split(params)
    program = opened(_compat.called_jaxpr(params))
    known = [sheet.level(v) < OPEN for v in inputs]

    def after(carry: list[bool]) -> tuple[list[bool], tuple[Sheet, list[Atom]]]:
        """A carry is known if it starts and remains so."""
        known[n : n + m] = carry
        inner = Sheet(length)
        for i, value in enumerate(program.inputs):
            inner.levels[value] = (ONCE if i < n else EACH) if known[i] else OPEN
        outs = write(program, program.inputs, inner)
        remains = (inner.level(v) < OPEN for v in outs[:m])
        return [k and r for k, r in zip(carry, remains, strict=True)], (inner, outs)

    _, (inner, outs) = fixpoint(after, known[n : n + m])
    carried = [i for i in range(m) if not known[n + i]]
    stacks = [i for i in range(m, len(outs)) if inner.level(outs[i]) == OPEN]
    asked = [outs[i] for i in (*carried, *stacks)]
    kept, rest = cut(inner, asked)
    counted = [i for i in range(m) if known[n + i]]
    counting, _ = needed(inner.operations, [outs[i] for i in counted])
    little = all(op.cost != "full" for op in counting)
    stacked = len(asked) + len(counted) < len(outs)
    if little and not stacked and set(kept) <= set(program.inputs):
        return _whole(equation, inputs, sheet)

    outer = dict(zip(program.inputs, inputs, strict=True))
    ends: dict[int, Atom] = {}
    if counted:
        ends, starts = _counted(program, inner, outs, counted, inputs, params, sheet)
        outer.update(zip((program.inputs[n + i] for i in counted), starts, strict=True))
    outer = _moved(inner, outer, sheet, length)

    own, each = ([v for v in kept if inner.levels[v] == at] for at in (ONCE, EACH))
    positions = [i for i in range(len(inputs)) if not known[i]]
    parts = [range(n), range(n, n + m), range(n + m, len(inputs))]
    free, carry, xs = (
        [program.inputs[i] for i in positions if i in part] for part in parts
    )
    order = [*own, *free, *carry, *each, *xs]
    split = len(own) + len(free), len(own) + len(free) + len(carry)

    def run(*operands: Any) -> list[Any]:
        fixed, begin, slices = (
            operands[: split[0]],
            operands[split[0] : split[1]],
            operands[split[1] :],
        )

        def step(carry: Any, xs: Any) -> Any:
            given = dict(zip(order, (*fixed, *carry, *xs), strict=True))
            made = evaluate(rest, given, asked)
            return made[: len(carried)], made[len(carried) :]

        return _loop(step, begin, slices, params)

    operation = Operation((), (), _binder(equation, run))
    avals = [equation.outputs[i].aval for i in (*carried, *stacks)]
    operands = [outer[v] for v in order]
    made = iter(sheet.put(operation, operands, avals, OPEN))

    def result(i: int, out: Atom) -> Atom:
        if i in carried or i in stacks:
            return next(made)
        if i in counted:
            return ends[i]
        found = _at(out, outer)
        each = inner.level(out) == EACH
        return found if each else _repeated(found, length, sheet)

    return [result(i, out) for i, out in enumerate(outs)]


def _loop(
    step: Callable[..., Any], begin: Any, slices: Any, params: Mapping[str, Any]
) -> list[Any]:
    options = _compat.scan_options(params)
    ends, stacks = lax.scan(step, list(begin), list(slices), **options)
    return [*ends, *stacks]


def _repeated(atom: Atom, length: int, sheet: Sheet) -> Value:
    """What is the same in all iterations, stacked."""
    aval = _compat.stack_of(aval_of(atom), length)

    def run(x: Any) -> list[Any]:
        return [jnp.broadcast_to(jnp.asarray(x, aval.dtype), aval.shape)]

    operation = Operation((), (), run, ("repeated", length), "move", True)
    return sheet.put(operation, [atom], [aval])[0]


def _counted(
    program: Program,
    inner: Sheet,
    outs: Sequence[Atom],
    counted: Sequence[int],
    inputs: Sequence[Atom],
    params: Mapping[str, Any],
    sheet: Sheet,
) -> tuple[dict[int, Atom], list[Atom]]:
    """The known carries of a loop, such as a counter: their ends, and all they were."""
    n, m = _compat.scan_split(dict(params))
    after = [outs[i] for i in counted]
    carry = [program.inputs[n + i] for i in counted]
    work, read = needed(inner.operations, after)
    constants = {v: sheet.constant(v.aval, a) for v, a in inner.constants}
    places = {v: i for i, v in enumerate(program.inputs)}
    fixed = [v for v in read if inner.levels[v] == ONCE]
    xs = [v for v in read if inner.levels[v] == EACH and v not in carry]

    def run(*operands: Any) -> list[Any]:
        a, b = len(fixed), len(fixed) + len(carry)

        def step(now: Any, x: Any) -> Any:
            values = zip((*fixed, *carry, *xs), (*operands[:a], *now, *x), strict=True)
            return evaluate(work, dict(values), after), now

        return _loop(step, operands[a:b], operands[b:], params)

    atoms = [constants.get(v) or inputs[places[v]] for v in (*fixed, *carry, *xs)]
    avals = [v.aval for v in carry]
    length = len(_compat.iterations(params))
    stacks = [_compat.stack_of(aval, length) for aval in avals]
    made = sheet.put(Operation((), (), run), atoms, [*avals, *stacks])
    ends, starts = made[: len(counted)], made[len(counted) :]
    return dict(zip(counted, ends, strict=True)), list(starts)


# ---- the cut ---------------------------------------------------------------------


def cut(sheet: Sheet, outputs: Sequence[Atom]) -> tuple[list[Value], list[Operation]]:
    """The known values that the rest is given, and the rest, which makes `outputs`."""
    made = {v for op in sheet.operations for v in op.outputs}
    sources: dict[Value, tuple[Value, ...]] = {
        v: (v,) for v in sheet.levels if v not in made
    }
    whole = set(sources)
    """Of values that are moves and casts of their sources."""
    wanted = dict.fromkeys(v for v in outputs if not isinstance(v, Literal))
    for op in sheet.operations:
        if not _is_known(op, sheet):
            wanted.update((v, None) for v in op.inputs if not isinstance(v, Literal))
            continue
        operands = [v for v in op.inputs if not isinstance(v, Literal)]
        base = tuple(dict.fromkeys(s for v in operands for s in sources[v]))
        # What the rest can make again for nothing need not be stored for it.
        moved = whole.issuperset(operands)
        if _remade(op, base, moved, sheet):
            sources[op.outputs[0]] = base
            if moved and op.cost in ("move", "cast"):
                whole.add(op.outputs[0])
        else:
            sources.update((v, (v,)) for v in op.outputs)
            whole.update(op.outputs)
    kept = {s for v in wanted if sheet.levels[v] < OPEN for s in sources[v]}
    again, _ = needed(sheet.operations, list(wanted), kept)
    again = {id(op) for op in again if _is_known(op, sheet)}
    rest = [
        op for op in sheet.operations if id(op) in again or not _is_known(op, sheet)
    ]
    return [v for v in sheet.levels if v in kept], rest


def _is_known(operation: Operation, sheet: Sheet) -> bool:
    return all(sheet.levels[v] < OPEN for v in operation.outputs) and bool(
        operation.outputs
    )


def _remade(
    operation: Operation, base: Sequence[Value], moved: bool, sheet: Sheet
) -> bool:
    """Is a result recomputed from `base`, and not kept?

    If it has the same elements at other positions, or a cast of smaller ones; or if it
    has twice as many as what it is made of.
    """
    if operation.cost == "full":
        return False
    (out,) = operation.outputs
    elements = sheet.elements(out)
    own = sum(map(sheet.elements, base))
    if len(base) == 1 and own == elements and moved:
        (source,) = base
        if operation.cost == "move":
            return True
        if operation.cost == "cast":
            return source.aval.dtype.itemsize < out.aval.dtype.itemsize
    return 2 * own <= elements


def needed(
    operations: Sequence[Operation],
    outputs: Sequence[Atom],
    given: Iterable[Value] = (),
) -> tuple[list[Operation], list[Value]]:
    """The operations that compute `outputs` from the `given`, and what they read."""
    asked = {v for v in outputs if not isinstance(v, Literal)}.difference(given)
    found: list[Operation] = []
    for op in reversed(operations):
        if asked.isdisjoint(op.outputs):
            continue
        found.append(op)
        asked.difference_update(op.outputs)
        own = {v for v in op.inputs if not isinstance(v, Literal)}
        asked.update(own.difference(given))
    made = [v for op in found for v in op.inputs if not isinstance(v, Literal)]
    order = dict.fromkeys([*made, *(v for v in outputs if v in asked)])
    return found[::-1], [v for v in order if v in asked]


def evaluate(
    operations: Sequence[Operation],
    given: Mapping[Value, Any],
    outputs: Sequence[Atom],
) -> list[Any]:
    """The outputs of operations, from given values."""
    values = dict(given)

    def read(atom: Atom) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for op in operations:
        results = op.run(*map(read, op.inputs))
        values.update(zip(op.outputs, results, strict=True))
    return [read(v) for v in outputs]
