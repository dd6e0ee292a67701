"""Recognising softmax with a running maximum (online attention, sinks).

Attention by chunks keeps a running maximum `m`, a sum `l` and a mix of values `a`:

    m' = max(m, max(s)),  p = exp(s - m'),  f = exp(m - m')
    l' = f l + sum(p),    a' = f a + p v,   and at last a / l

A sink's score takes part in the maximum, `m = max(max(s), c)`, and in the sum. In all
of these `m` is arbitrary: it cancels in the quotient, whatever it is. So it counts as a
constant, and what is left is a softmax that is divided last, across loops.

Whether it cancels is a matter of types. A value is a `maximum`; the `argument` of an
exponential that a maximum is subtracted from; a `weight`, of degree one in `exp(-m)`, a
`total` of these, or a `mix` of values by these; a `factor` between two maxima, or its
`exponent`; an `inverse` of weights; a `share` of one total in another. A weight or a
mix that is divided by a total is a plain value again. A maximum cancels nowhere if
anything without a type comes from it, or if it differs among weights that are summed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.extend.core import Literal

from jaxlrp._program.axes import axes_of
from jaxlrp._program.bodies import bodies_of, fixpoint
from jaxlrp._program.program import Equation, Program, Value
from jaxlrp._reading.context import Context
from jaxlrp._reading.facts import (
    Facts,
    all_axes,
    analyse,
    body_facts,
    body_programs,
    facts_of,
    is_real,
)
from jaxlrp.primitives import Entry, Kind, lookup

Origins = frozenset[Equation]


class Type(NamedTuple):
    """What a value is. `plain` ones are active, and `constant` ones are not.

    Attributes:
      kind: see above.
      origins: the maxima that are in it.
      along: the axes along which these may differ.
    """

    kind: str
    origins: Origins = frozenset()
    along: frozenset[int] = frozenset()


PLAIN, CONSTANT = Type("plain"), Type("constant")
_UNTYPED = ("plain", "constant", "unset")
TINY = 1e-6
"""What is added to a sum of weights so that it is not zero."""


@dataclasses.dataclass(frozen=True)
class _Sheet:
    """What has been found.

    Attributes:
      context: of reading: the programs of bodies are the same as there.
      maxima: by value, the maxima in it.
      running: maxima that are joined to others, or to constants.
      escaped: maxima that do not cancel.
      groups: maxima that belong together.
      roles: by equation, a role and the maxima in what it makes.
    """

    context: Context
    maxima: dict[Value, Origins] = dataclasses.field(default_factory=dict)
    running: set[Equation] = dataclasses.field(default_factory=set)
    escaped: set[Equation] = dataclasses.field(default_factory=set)
    groups: set[Origins] = dataclasses.field(default_factory=set)
    roles: dict[Equation, tuple[str, Origins]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Running:
    """Running maxima: values that are constants, and the roles around them."""

    maxima: frozenset[Value]
    roles: Mapping[Equation, str]


def find_running(
    program: Program, inputs: Sequence[Facts], context: Context
) -> Running:
    """The running maxima of a program and of the bodies in it."""
    if not all(_has(program, context)):
        return Running(frozenset(), {})
    sheet = _Sheet(context)
    types = [PLAIN if f.active else CONSTANT for f in inputs]
    for result in _typed(program, inputs, types, sheet):
        sheet.escaped.update(result.origins)  # anyone may read an output
    _spread(sheet.escaped, sheet.groups)
    _spread(sheet.running, sheet.groups)
    found = sheet.running - sheet.escaped
    maxima = {v for v, origins in sheet.maxima.items() if origins & found}
    mixed = {
        o for role, origins in sheet.roles.values() if role == "mix" for o in origins
    }
    _spread(mixed, sheet.groups)
    roles = {
        equation: _role(role, bool(origins & mixed))
        for equation, (role, origins) in sheet.roles.items()
        if origins & found
    }
    return Running(frozenset(maxima), roles)


def _has(program: Program, context: Context) -> tuple[bool, bool]:
    """Are there exponentials, and maxima of two values, in it or in a body?"""
    exponential = joined = False
    for equation in program.equations:
        entry = lookup(equation.primitive)
        if entry is not None and entry.kind is Kind.ELEMENTWISE:
            exponential |= entry.exponential
            joined |= entry.bounds and entry.picks and not _starts(equation)
        for body in body_programs(equation, context):
            inside = _has(body, context)
            exponential, joined = exponential | inside[0], joined | inside[1]
    return exponential, joined


def _starts(equation: Equation) -> bool:
    """A maximum with minus infinity, where a maximum over axes starts, is of one."""
    literals = [a.val for a in equation.inputs if isinstance(a, Literal)]
    return any(np.ndim(v) == 0 and v == -np.inf for v in literals)


def _spread(members: set[Equation], groups: set[Origins]) -> None:
    """All of a group are members if one is."""
    while new := {o for g in groups if g & members for o in g} - members:
        members |= new


def _role(role: str, mixed: bool) -> str:
    """A sum of weights passes on what the mix passes to them, by the same rule."""
    if role == "sum":
        return "bilinear" if mixed else "softmax"
    return {"weight": "softmax", "mix": "gradient"}[role]


def _typed(
    program: Program, inputs: Sequence[Facts], given: Sequence[Type], sheet: _Sheet
) -> list[Type]:
    """The types of a program's outputs, from those of its inputs."""
    facts = analyse(program, inputs, sheet.context)
    types = dict(zip(program.inputs, given, strict=True))

    def of(atom: object) -> Type:
        return types.get(atom, CONSTANT) if isinstance(atom, Value) else CONSTANT

    for equation in program.equations:
        operands = [of(v) for v in equation.inputs]
        bodies = body_programs(equation, sheet.context)
        sheet.roles.pop(equation, None)
        if bodies and any(t != CONSTANT for t in operands):
            results = _of_bodies(equation, bodies, operands, facts, sheet)
        else:
            results = [_of_equation(equation, operands, facts, sheet)]
            results *= len(equation.outputs)
        for v, result in zip(equation.outputs, results, strict=True):
            plain = result.kind == "plain"
            types[v] = CONSTANT if plain and not facts[v].active else result
            if result.kind == "maximum" and not bodies:
                sheet.maxima[v] = result.origins
            sheet.groups.add(result.origins)
    return [of(v) for v in program.outputs]


def _of_bodies(
    equation: Equation,
    bodies: Sequence[Program],
    operands: Sequence[Type],
    facts: Mapping[Value, Facts],
    sheet: _Sheet,
) -> list[Type]:
    """The types of what a loop, branch or call makes."""
    how = bodies_of(equation)
    known = [facts_of(v, facts) for v in equation.inputs]
    inputs, _ = body_facts(equation, bodies, known, sheet.context)
    given = list(operands[how.given])
    if not how.repeats:
        outs = [_typed(body, inputs, given, sheet) for body in bodies]
        return [_join(types, sheet) for types in zip(*outs, strict=True)]
    (body,) = bodies
    given[how.slices] = [_of_one(t, sheet) for t in given[how.slices]]

    def after(carry: list[Type]) -> tuple[list[Type], None]:
        # The type of a carry is known in the end; until then nothing is written down.
        draft = _Sheet(sheet.context)
        given[how.carried] = carry
        outs = _typed(body, inputs, given, draft)
        return [_join(pair, draft) for pair in zip(carry, outs, strict=False)], None

    carry, _ = fixpoint(after, given[how.carried])
    outs = _typed(body, inputs, given, sheet)
    ends = zip(carry, outs, strict=False)
    return [*(_join(pair, sheet) for pair in ends), *map(_stacked, outs[how.carries :])]


def _of_one(stack: Type, sheet: _Sheet) -> Type:
    """The type of one of the slices along the first axis."""
    if 0 in stack.along:  # their own maxima
        sheet.escaped.update(stack.origins)
        return PLAIN
    return stack._replace(along=frozenset(axis - 1 for axis in stack.along))


def _stacked(one: Type) -> Type:
    if one.kind in _UNTYPED:
        return one
    return one._replace(along=frozenset({0, *(axis + 1 for axis in one.along)}))


def _join(types: Sequence[Type], sheet: _Sheet) -> Type:
    """The type of a value that is one or another; a constant may be any."""
    origins = frozenset[Equation]().union(*(t.origins for t in types))
    along = frozenset[int]().union(*(t.along for t in types))
    kinds = {t.kind for t in types} - {"constant"}
    if len(kinds) > 1 and kinds <= _WEIGHTS:
        kinds = {_most(kinds)}
    if len(kinds) > 1:
        sheet.escaped.update(origins)
        return PLAIN
    return Type(kinds.pop(), origins, along) if kinds else CONSTANT


def _of_equation(
    equation: Equation,
    operands: Sequence[Type],
    facts: Mapping[Value, Facts],
    sheet: _Sheet,
) -> Type:
    """The type of what an equation without bodies makes."""
    entry = lookup(equation.primitive)
    known = [facts_of(v, facts) for v in equation.inputs]
    if not any(f.active or f.cut for f in known) or not _is_real(equation):
        return CONSTANT
    # A carry that begins as a constant is what it becomes: it counts as `unset`.
    kinds = [
        "unset" if t == CONSTANT and f.active else t.kind
        for t, f in zip(operands, known, strict=True)
    ]
    origins = frozenset[Equation]().union(*(t.origins for t in operands))
    if entry is not None and entry.kind is Kind.INERT:  # a gradient that is stopped
        return operands[0] if kinds == ["maximum"] else CONSTANT
    if all(kind in _UNTYPED for kind in kinds):
        picks = entry is not None and entry.kind is Kind.SELECTION
        if picks and entry is not None and entry.candidates:
            everywhere = all_axes(equation.outputs[0].aval)
            return Type("maximum", frozenset({equation}), everywhere)
        return PLAIN
    if entry is None or not (entry.kind is Kind.ELEMENTWISE and entry.is_sum):
        kinds = ["constant" if kind == "unset" else kind for kind in kinds]
    kind = None if entry is None else _kind(equation, entry, kinds)
    along = None if entry is None else _along(equation, entry, operands)
    if kind is None or (along is None and kind != "plain"):
        sheet.escaped.update(origins)
        return PLAIN
    if kind == "maximum" and entry is not None and entry.kind is Kind.ELEMENTWISE:
        if entry.picks:
            sheet.running.update(origins)
    role = _of_role(entry, kinds, kind)
    if role is not None:
        sheet.roles[equation] = role, origins
    return PLAIN if kind == "plain" else Type(kind, origins, along or frozenset())


def _along(
    equation: Equation, entry: Entry, operands: Sequence[Type]
) -> frozenset[int] | None:
    """The axes along which maxima in a result may differ; None if it sums over one."""
    everywhere = all_axes(equation.outputs[0].aval)
    found: set[int] = set()
    for i, operand in enumerate(operands):
        axes = axes_of(equation, i) or {}
        if not operand.along <= set(axes.values()):
            sums = entry.sums or entry.kind is Kind.CONTRACTION
            return None if sums else everywhere
        found |= {out for out, axis in axes.items() if axis in operand.along}
    return everywhere & found


def _is_real(equation: Equation) -> bool:
    return all(is_real(v.aval) for v in equation.outputs)


def _of_role(entry: Entry | None, kinds: Sequence[str], kind: str) -> str | None:
    """Whether an equation is arithmetic of weights, of a mix, or a sum of weights."""
    assert entry is not None
    if entry.sums or entry.kind is Kind.CONTRACTION:
        if kind == "total" and "weight" in kinds:
            return "sum"
        return "mix" if {"inverse", "share"} & set(kinds) else None
    if entry.kind is not Kind.ELEMENTWISE:
        return None
    if kind == "mix" and set(kinds) == {"plain", "weight"}:
        return None  # a product like any other: of a weight and its value
    if kind in ("argument", "weight", "total", "share", "inverse"):
        return "weight"
    mixed = kind == "mix" or {"mix", "share"} & set(kinds)
    if kind == "plain":
        return "mix" if mixed else "weight"
    return "mix" if mixed else None


def _kind(equation: Equation, entry: Entry, kinds: Sequence[str]) -> str | None:
    """The kind of a result, some operands having one; None where there is none."""
    own = [kind for kind in kinds if kind not in _UNTYPED]
    if entry.kind is Kind.STRUCTURAL or entry.selects:
        cases = set(own)
        return own[0] if len(cases) == 1 and "plain" not in kinds else None
    if entry.kind is Kind.SELECTION:
        return "maximum" if kinds == ["maximum"] else None
    if entry.sums:
        return {"weight": "total", "total": "total", "mix": "mix"}.get(own[0])
    if entry.kind is Kind.CONTRACTION:
        kind = _product(kinds)
        return "total" if kind == "weight" else kind
    if entry.kind is not Kind.ELEMENTWISE:
        return None
    if len(kinds) == 1:
        if entry.exponential:
            return {"argument": "weight", "exponent": "factor"}.get(own[0])
        keeps = entry.linear([True]) and entry.nonnegative([True], equation.params)
        return own[0] if keeps else None
    if len(kinds) != 2:
        return None
    if entry.bounds:
        joined = set(own) == {"maximum"} or _is_guard(equation, kinds)
        return own[0] if joined else None
    if entry.is_sum:
        return _sum(equation, entry, kinds)
    if entry.is_product:
        return _product(kinds)
    return _quotient(kinds) if entry.is_quotient else None


def _is_guard(equation: Equation, kinds: Sequence[str]) -> bool:
    """Weights and a tiny number, so that their sum is not zero?"""
    if "constant" not in kinds or not {"weight", "total"} & set(kinds):
        return False
    other = equation.inputs[kinds.index("constant")]
    return isinstance(other, Literal) and bool(np.all(np.abs(other.val) <= TINY))


def _sum(equation: Equation, entry: Entry, kinds: Sequence[str]) -> str | None:
    pair = set(kinds)
    if "unset" in pair and not entry.subtracts:
        return _most(pair) if pair & _WEIGHTS else None
    kinds = ["constant" if kind == "unset" else kind for kind in kinds]
    pair = set(kinds)
    if entry.subtracts and kinds[1] == "maximum":
        return {"maximum": "exponent", "plain": "argument", "constant": "argument"}.get(
            kinds[0]
        )
    if "argument" in pair and pair <= {"argument", *_UNTYPED}:
        return "argument" if not entry.subtracts or kinds[0] == "argument" else None
    if entry.subtracts:
        return None
    if pair <= _WEIGHTS:
        return _most(pair)
    return "total" if _is_guard(equation, kinds) else None


_WEIGHTS = {"weight", "total", "mix"}
"""What is of degree one."""


def _most(kinds: set[str]) -> str:
    return "mix" if "mix" in kinds else "total"


def _product(kinds: Sequence[str]) -> str | None:
    first, second = sorted(kinds, key=_ORDER.index)
    if first in _WEIGHTS:
        if second in ("constant", "factor"):
            return first
        if second == "inverse":
            return "share" if first == "total" else "plain"
        return "mix" if second == "plain" else None
    if first == "factor":
        return "factor" if second in ("factor", "constant") else None
    if first == "share":
        return {"plain": "plain", "constant": "share"}.get(second)
    return first if second == "constant" and first in ("argument", "exponent") else None


_ORDER = (
    "weight",
    "total",
    "mix",
    "share",
    "factor",
    "argument",
    "exponent",
    "maximum",
    "inverse",
    "plain",
    "constant",
)


def _quotient(kinds: Sequence[str]) -> str | None:
    above, below = kinds
    if below in ("weight", "total"):
        results = {"weight": "plain", "mix": "plain", "constant": "inverse"}
        return results.get(above, "share" if above == "total" else None)
    if below == "constant":
        keeps = (*_WEIGHTS, "share", "argument", "exponent")
        return above if above in keeps else None
    return None
