"""Recognising softmax by what it computes: weights of degree zero in exponentials.

However a softmax is written, its weights are quotients of two values that are both of
degree one in the same exponentials: if all scores grow by `t`, both grow by `exp(t)`,
and the quotient stays. Sums over axes, by segments, by products with ones, in loops or
written out keep the degree, as do scales, gathers, masks and changes of shape. So each
value has a type, which says of what degree it is:

- a `weight` is an exponential, a `total` a sum of these, a `mix` one of values that
  weights multiply; these are of degree one. An `inverse` is one over a total.
- a `part` is a weight over a total: a softmax; a `share` one total over another, what a
  step of an online softmax multiplies by; an `average` a mix over a total. These are of
  degree zero. By a `peak`, their largest, weights may be divided before.
- a `level` is the logarithm of a total, as of logsumexp; a `normal` is a score minus a
  level, of which an exponential is a part, and a `gap` one level minus another, of
  which it is a share. `less` is an exponential minus one, and `fall` minus a level.
- a `maximum` may be subtracted from scores, which makes the `argument` of an
  exponential, or from another maximum (`exponent`, whose exponential is a `factor`).

Everything made of weights alone keeps JAX's derivative. So does what is made of a mix
and weights with respect to the mix; of its relevance the weights get the part that a
product with a value gives them, which is what `p @ v` gives to `p`.

A maximum that is subtracted keeps its derivative too. Where it is joined to others,
`max(m, max(s))`, as a running one or with a sink's score, it counts as a constant if it
cancels. It cancels nowhere if anything without a type comes from it, if it differs
among weights that are summed, or if a constant is added to those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.extend.core import Literal
from jax.extend.core.primitives import custom_jvp_call_p

from jaxlrp import _compat
from jaxlrp._program.axes import axes_of
from jaxlrp._program.bodies import bodies_of, fixpoint
from jaxlrp._program.program import Atom, Equation, Program, Value, flatten
from jaxlrp._reading.context import Context, Joint, Softmaxes
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
NONE: Origins = frozenset()


class Type(NamedTuple):
    """What a value is. `plain` ones are active, and `constant` ones are not.

    Attributes:
      kind: see above; `murky` is made of weights and of something else.
      origins: the maxima that are in it.
      along: the axes along which these may differ.
      exps: the exponentials, logarithms and differences in it.
    """

    kind: str
    origins: Origins = NONE
    along: frozenset[int] = frozenset()
    exps: Origins = NONE


class Made(NamedTuple):
    """What an equation makes of operands that have types.

    Attributes:
      kind: of the result.
      role: what the equation is: arithmetic of weights (`weight`; `dot`, of constants
        that they mix), of a `mix` or an `average`, of a `level`, a difference
        (`argument`), a `joint` of a mix and weights, or nothing that has a role.
      cancels: do maxima that cancel in the operands cancel in the result?
      weights: of a joint, the positions of the weights.
    """

    kind: str
    role: str = ""
    cancels: bool = True
    weights: tuple[int, ...] = ()


PLAIN, CONSTANT = Type("plain"), Type("constant")
_UNTYPED = ("plain", "constant", "unset")
# A carry that begins as a constant is what it becomes: it counts as `unset`.
_STILL = ("constant", "unset")
_PURE = ("weight", "total", "factor")
"""Of degree one, and made of exponentials alone."""
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
      roles: by equation, what it makes and of which exponentials.
      solved: exponentials that a quotient or a logarithm makes a softmax of.
      above: products of weights with constants that some weights divide.
      joined: exponentials in averages that are multiplied by weights once more.
      levels: what was in levels that are subtracted from scores.
      pinned: differences that exponentials are taken of.
      products: exponentials that multiply values element by element; are they gates?
      unread: quotients of exponentials that are no softmax.
      known: the types of what a call makes, by body and what it is given.
    """

    context: Context
    maxima: dict[Value, Origins] = dataclasses.field(default_factory=dict)
    running: set[Equation] = dataclasses.field(default_factory=set)
    escaped: set[Equation] = dataclasses.field(default_factory=set)
    groups: set[Origins] = dataclasses.field(default_factory=set)
    roles: dict[Equation, tuple[Made, Origins]] = dataclasses.field(
        default_factory=dict
    )
    solved: set[Equation] = dataclasses.field(default_factory=set)
    above: set[Equation] = dataclasses.field(default_factory=set)
    joined: set[Equation] = dataclasses.field(default_factory=set)
    levels: set[Equation] = dataclasses.field(default_factory=set)
    pinned: set[Equation] = dataclasses.field(default_factory=set)
    products: dict[Equation, bool] = dataclasses.field(default_factory=dict)
    unread: set[Equation] = dataclasses.field(default_factory=set)
    known: dict[object, list[Type]] = dataclasses.field(default_factory=dict)


def find_softmaxes(
    program: Program, inputs: Sequence[Facts], context: Context
) -> Softmaxes:
    """The softmaxes of a program and of the bodies in it."""
    if not has_exponentials(program, context):
        return Softmaxes()
    sheet = _Sheet(context)
    types = [PLAIN if f.active else CONSTANT for f in inputs]
    for result in _typed(program, inputs, types, sheet):
        sheet.escaped.update(result.origins)  # anyone may read an output
    _spread(sheet.escaped, sheet.groups)
    _spread(sheet.running, sheet.groups)
    found = sheet.running - sheet.escaped
    maxima = {v for v, origins in sheet.maxima.items() if origins & found}
    roles = {
        equation: role
        for equation, (made, exps) in sheet.roles.items()
        if (role := _role(equation, made, exps, sheet))
    }
    joints = {
        equation: _joint(made, exps, sheet)
        for equation, (made, exps) in sheet.roles.items()
        if made.role == "joint" and exps & sheet.solved
    }
    return Softmaxes(frozenset(maxima), roles, joints, frozenset(sheet.unread))


def has_exponentials(program: Program, context: Context) -> bool:
    """Are there exponentials of anything in it or in a body?"""
    return any(
        _may_be_exponential(equation)
        or any(has_exponentials(b, context) for b in body_programs(equation, context))
        for equation in program.equations
    )


def _may_be_exponential(equation: Equation) -> bool:
    entry = lookup(equation.primitive)
    if entry is None:
        return False
    exponential = entry.exponential or entry.exponential_less or entry.raises
    return exponential or _adds_logarithms(equation)


def _spread(members: set[Equation], groups: set[Origins]) -> None:
    """All of a group are members if one is."""
    while new := {o for g in groups if g & members for o in g} - members:
        members |= new


def _role(equation: Equation, made: Made, exps: Origins, sheet: _Sheet) -> str:
    """The role of an equation; nothing where it belongs to no softmax."""
    if made.role == "dot":
        return "softmax" if exps & sheet.solved and equation not in sheet.above else ""
    if made.role == "argument":
        return "softmax" if exps & sheet.pinned else ""
    if made.role == "weight":
        return "softmax" if exps & (sheet.solved | sheet.pinned) else ""
    if made.role == "level":
        return "softmax" if exps & sheet.levels else ""
    if made.role == "mix":
        return "gradient" if exps & sheet.solved else ""
    if made.role == "average":
        return "gradient" if exps & sheet.joined else ""
    return ""


def _joint(made: Made, exps: Origins, sheet: _Sheet) -> Joint:
    gates = [gate for e, gate in sheet.products.items() if e in exps]
    return Joint("product" if gates else "bilinear", made.weights, any(gates))


# ---- programs and bodies -----------------------------------------------------------


def _typed(
    program: Program, inputs: Sequence[Facts], given: Sequence[Type], sheet: _Sheet
) -> list[Type]:
    """The types of a program's outputs, from those of its inputs."""
    facts = analyse(program, inputs, sheet.context)
    types = dict(zip(program.inputs, given, strict=True))
    # The value that a value is an elementwise function of.
    anchors: dict[Value, Value] = {}

    def of(atom: object) -> Type:
        return types.get(atom, CONSTANT) if isinstance(atom, Value) else CONSTANT

    for equation in program.equations:
        operands = [of(v) for v in equation.inputs]
        bodies = body_programs(equation, sheet.context)
        sheet.roles.pop(equation, None)
        if bodies and equation.primitive is not custom_jvp_call_p:
            results = [CONSTANT] * len(equation.outputs)
            if any(t != CONSTANT for t in operands):
                results = _of_bodies(equation, bodies, operands, facts, sheet)
        else:
            _set_anchor(equation, facts, anchors)
            rooted = _Rooted(anchors, types)
            results = [_of_equation(equation, operands, facts, rooted, sheet)]
            results *= len(equation.outputs)
            if _begins(equation, facts):
                results = [PLAIN] * len(equation.outputs)
        for v, result in zip(equation.outputs, results, strict=True):
            still = result.kind == "plain" and not facts[v].active
            result = result if is_real(v.aval) and not still else CONSTANT
            types[v] = result
            if result.kind == "maximum" and not bodies:
                sheet.maxima[v] = result.origins
            if result.origins:
                sheet.groups.add(result.origins)
    return [of(v) for v in program.outputs]


def _begins(equation: Equation, facts: Mapping[Value, Facts]) -> bool:
    """Is it active though nothing that it reads is, as what token ids look up?"""
    known = [facts_of(v, facts) for v in equation.inputs]
    return any(facts[v].active for v in equation.outputs) and not any(
        f.active or f.cut for f in known
    )


def _set_anchor(
    equation: Equation, facts: Mapping[Value, Facts], anchors: dict[Value, Value]
) -> None:
    """The one value that a result is an elementwise function of: itself, if of none."""
    entry = lookup(equation.primitive)
    if entry is None or entry.kind is not Kind.ELEMENTWISE:
        return
    (out,) = equation.outputs
    actives = [
        v for v in equation.inputs if isinstance(v, Value) and facts_of(v, facts).active
    ]
    roots = {anchors.get(v, v) for v in actives}
    if len(roots) == 1 and all(v.aval.shape == out.aval.shape for v in actives):
        (anchors[out],) = roots


@dataclasses.dataclass(frozen=True)
class _Rooted:
    """Of which values others are elementwise functions."""

    anchors: Mapping[Value, Value]
    types: Mapping[Value, Type]

    def are_one(self, atoms: Sequence[Atom]) -> bool:
        """Are they functions, element by element, of one value?"""
        roots = {self.anchors.get(v, v) for v in atoms if isinstance(v, Value)}
        return len(roots) == 1

    def is_function(self, atom: Atom) -> bool:
        """Is it an elementwise function of a value that has no type?"""
        root = self.anchors.get(atom) if isinstance(atom, Value) else None
        return root is not None and self.types.get(root, CONSTANT).kind in _UNTYPED


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
        outs = [_of_call(body, inputs, given, sheet) for body in bodies]
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


def _of_call(
    body: Program, inputs: Sequence[Facts], given: Sequence[Type], sheet: _Sheet
) -> list[Type]:
    """The types of what a body makes that is run once: the same for the same given."""
    key = body, tuple(inputs), tuple(given)
    if key not in sheet.known:
        sheet.known[key] = _typed(body, inputs, given, sheet)
    return sheet.known[key]


def _of_one(stack: Type, sheet: _Sheet) -> Type:
    """The type of one of the slices along the first axis."""
    if 0 in stack.along:  # their own maxima
        sheet.escaped.update(stack.origins)
    along = frozenset(axis - 1 for axis in stack.along if axis > 0)
    return stack._replace(along=along)


def _stacked(one: Type) -> Type:
    if one.kind in _UNTYPED:
        return one
    return one._replace(along=frozenset({0, *(axis + 1 for axis in one.along)}))


def _join(types: Sequence[Type], sheet: _Sheet) -> Type:
    """The type of a value that is one or another; a constant may be any."""
    origins, exps = _of_all(types)
    along = frozenset[int]().union(*(t.along for t in types))
    kind = _common({t.kind for t in types} - {"constant"})
    if kind is None or "plain" in {t.kind for t in types}:
        sheet.escaped.update(origins)
    if kind is None:
        return PLAIN
    return Type(kind, origins, along, exps) if kind else CONSTANT


def _common(kinds: set[str]) -> str | None:
    """The kind of what is of several kinds, '' for none; None where it has no type."""
    if len(kinds) > 1 and kinds <= {*_PURE, "mix"}:
        return "mix" if "mix" in kinds else "total"
    if kinds in ({"level", "plain"}, {"level", "argument"}):
        return "level"  # a score is a level of its own
    if kinds == {"maximum", "plain"}:
        return "maximum"  # and the largest of its kind
    if len(kinds) > 1:
        return "murky" if "murky" in kinds and "plain" not in kinds else None
    return next(iter(kinds), "")


def _of_all(types: Sequence[Type]) -> tuple[Origins, Origins]:
    return (
        NONE.union(*(t.origins for t in types)),
        NONE.union(*(t.exps for t in types)),
    )


# ---- equations ---------------------------------------------------------------------


def _keeps_type(entry: Entry) -> bool:
    """Is it a cast, a copy or a change of shape?"""
    casts = entry.kind is Kind.ELEMENTWISE and not entry.negates
    return entry.kind is Kind.STRUCTURAL or (casts and entry.linear([True]))


def _of_equation(
    equation: Equation,
    operands: Sequence[Type],
    facts: Mapping[Value, Facts],
    rooted: _Rooted,
    sheet: _Sheet,
) -> Type:
    """The type of what an equation without bodies makes."""
    entry = lookup(equation.primitive)
    known = [facts_of(v, facts) for v in equation.inputs]
    if not any(f.active or f.cut for f in known) or not _is_real(equation):
        return CONSTANT
    kinds = [
        "unset" if t == CONSTANT and f.active else t.kind
        for t, f in zip(operands, known, strict=True)
    ]
    origins, exps = _of_all(operands)
    if entry is None:
        sheet.escaped.update(origins)
        return PLAIN
    if entry.kind is Kind.INERT:  # a gradient that is stopped
        return operands[0] if kinds == ["maximum"] else CONSTANT
    if kinds == ["unset"] and _keeps_type(entry):
        return CONSTANT  # a carry that is cast or moved is not yet known either
    if all(kind in _UNTYPED for kind in kinds):
        return _begun(equation, entry, kinds, NONE, rooted, sheet)
    made = _made(equation, entry, kinds, exps)
    if made is not None and _is_no_softmax(equation, made, operands, rooted):
        made = None
    if made is None:
        sheet.escaped.update(origins)
        if _divides_itself(equation, entry, operands, rooted):
            sheet.unread.add(equation)
        elif _keeps_murky(entry, kinds):
            return Type("murky", exps=exps)
        kinds = ["plain" if kind not in _UNTYPED else kind for kind in kinds]
        levels = [t.exps for t in operands if t.kind == "level"]
        return _begun(equation, entry, kinds, NONE.union(*levels), rooted, sheet)
    along = _along(equation, entry, operands)
    if along is None or not made.cancels:
        sheet.escaped.update(origins)
    return _written(equation, entry, made, kinds, operands, along, known, sheet)


def _written(
    equation: Equation,
    entry: Entry,
    made: Made,
    kinds: Sequence[str],
    operands: Sequence[Type],
    along: frozenset[int] | None,
    known: Sequence[Facts],
    sheet: _Sheet,
) -> Type:
    """Writes down what an equation makes; returns its type."""
    origins, exps = _of_all(operands)
    if made.kind == "maximum" and entry.kind is Kind.ELEMENTWISE and entry.picks:
        sheet.running.update(origins)
    if made.kind in ("argument", "exponent") and entry.subtracts:
        exps = exps | {equation}
        if made.kind == "argument":
            # Which differences, not which scores, an exponential is taken of.
            sheet.roles[equation] = made, frozenset({equation})
            return Type(made.kind, origins, along or frozenset(), exps)
    if made.role == "dot" or made.kind == "level":
        exps = exps | {equation}
    if made.kind == "level" and entry.kind is Kind.CALL:
        sheet.solved.update(exps)
    if kinds[0] in ("argument", "exponent") and made.kind in ("weight", "factor"):
        sheet.pinned.update(exps)
        exps = exps | {equation}
    if kinds[0] in ("normal", "gap") and entry.exponential:
        sheet.levels.update(exps)
    if made.kind in ("part", "share", "average") or entry.logarithm:
        common = _in_common(operands)
        sheet.solved.update(common)
        sheet.above.update(_numerator(entry, kinds, operands))
    if made.role == "joint" and "average" in kinds:
        sheet.joined.update(exps)
        sheet.solved.update(exps)
    if made.kind == "mix" and "plain" in kinds and entry.kind is Kind.ELEMENTWISE:
        if not made.role and set(kinds) & set(_PURE):
            signal = known[list(kinds).index("plain")]
            for e in exps:
                sheet.products[e] = sheet.products.get(e, False) or (
                    not signal.nonnegative
                )
    if made.role:
        sheet.roles[equation] = made, exps
    if made.kind in ("part", "share", "average"):
        return Type(made.kind, exps=exps)  # its maxima cancel
    return Type(made.kind, origins, along or frozenset(), exps)


def _in_common(operands: Sequence[Type]) -> Origins:
    """The exponentials that are in all operands that have any.

    In two passes over the scores each has exponentials of its own, of one maximum.
    """
    sets = [t.exps for t in operands if t.exps]
    if not sets:
        return NONE
    maxima = [t.origins for t in operands if t.exps]
    if maxima[0].intersection(*maxima[1:]):
        return sets[0].union(*sets[1:])
    return sets[0].intersection(*sets[1:])


def _numerator(entry: Entry, kinds: Sequence[str], operands: Sequence[Type]) -> Origins:
    """The exponentials in what is divided."""
    if not (entry.is_quotient or "inverse" in kinds):
        return NONE
    below = 1 if entry.is_quotient else list(kinds).index("inverse")
    return NONE.union(*(t.exps for i, t in enumerate(operands) if i != below))


def _begun(
    equation: Equation,
    entry: Entry,
    kinds: Sequence[str],
    levels: Origins,
    rooted: _Rooted,
    sheet: _Sheet,
) -> Type:
    """The type of what is made of operands without types."""
    one, everywhere = frozenset({equation}), all_axes(equation.outputs[0].aval)
    moving = [i for i, kind in enumerate(kinds) if kind in ("plain", "unset")]
    if not moving:
        return CONSTANT if "plain" not in kinds else PLAIN
    if entry.exponential or (entry.raises and moving == [1]):
        sheet.roles[equation] = Made("weight", "weight"), one | levels
        return Type("weight", exps=one | levels)
    if entry.exponential_less:
        sheet.roles[equation] = Made("less", "weight"), one
        return Type("less", exps=one)
    several = len(moving) == 2 and not rooted.are_one(equation.inputs)
    if several and _adds_logarithms(equation):
        sheet.solved.update(one)
        sheet.roles[equation] = Made("level", "weight"), one
        return Type("level", exps=one)
    if entry.kind is Kind.TAYLOR and entry.logarithm:
        return Type("level", exps=one)
    if entry.kind is Kind.SELECTION:
        return Type("maximum", one, everywhere)
    if entry.bounds and several:
        sheet.running.add(equation)
        return Type("maximum", one, everywhere)
    return PLAIN


def _adds_logarithms(equation: Equation) -> bool:
    """Is it `log(exp(a) + exp(b))`, as a function with a derivative of its own?"""
    if equation.primitive is not custom_jvp_call_p or len(equation.inputs) != 2:
        return False
    body = _compat.called_jaxpr(dict(equation.params))
    if body is None:
        return False
    inner = flatten(body, keep_calls=False)
    entries = [(e, lookup(e.primitive)) for e in inner.equations]
    makers = {v: e for e in inner.equations for v in e.outputs}

    def source(atom: Atom) -> Atom:
        """What is spread, by `vmap` say, or cast."""
        while isinstance(atom, Value) and atom in makers:
            maker = makers[atom]
            entry = lookup(maker.primitive)
            if entry is None or len(maker.inputs) != 1 or not entry.linear([True]):
                break
            (atom,) = maker.inputs
        return atom

    joins = any(
        tuple(map(source, e.inputs)) == inner.inputs
        for e, entry in entries
        if entry is not None and entry.bounds and entry.picks
    )
    exponential = any(entry is not None and entry.exponential for _, entry in entries)
    adds_one = any(e.primitive.name == "log1p" for e in inner.equations)
    return joins and exponential and adds_one


def _is_no_softmax(
    equation: Equation, made: Made, operands: Sequence[Type], rooted: _Rooted
) -> bool:
    """A quotient of other exponentials, or a function of each element by itself."""
    if made.kind == "level" and len(operands) == 1:
        return operands[0].kind in _PURE and rooted.is_function(equation.inputs[0])
    divides = made.kind in ("part", "share", "average")
    if not divides or len(operands) != 2:
        return False
    kinds = {t.kind for t in operands}
    if kinds <= {"part", "share", "average", "plain", "constant"}:
        return made.role == "joint" and not _in_common(operands)
    return not _in_common(operands) or (
        rooted.are_one(equation.inputs) and rooted.is_function(equation.inputs[0])
    )


def _divides_itself(
    equation: Equation, entry: Entry, operands: Sequence[Type], rooted: _Rooted
) -> bool:
    """Is an exponential divided by something that it is in, in an unknown way?"""
    if entry.kind is not Kind.ELEMENTWISE or len(operands) != 2:
        return False
    above, below = operands
    ours = {*_PURE, "mix", "murky"}
    return (
        entry.is_quotient
        and above.kind in ours
        and below.kind in ours
        and "murky" in (above.kind, below.kind)
        and bool(above.exps & below.exps)
        and not rooted.are_one(equation.inputs)
    )


def _keeps_murky(entry: Entry, kinds: Sequence[str]) -> bool:
    """Does a linear map make something unknown of weights?"""
    if not {*_PURE, "murky"} & set(kinds):
        return False
    linear = entry.kind in (Kind.STRUCTURAL, Kind.LINEAR)
    sums = entry.kind is Kind.ELEMENTWISE and (
        entry.selects or (len(kinds) == 2 and entry.is_sum)
    )
    scales = entry.kind is Kind.ELEMENTWISE and set(kinds) <= {"murky", *_STILL}
    return linear or sums or (scales and (entry.is_product or entry.linear([True])))


def _along(
    equation: Equation, entry: Entry, operands: Sequence[Type]
) -> frozenset[int] | None:
    """The axes along which maxima in a result may differ; None if it sums over one."""
    everywhere = all_axes(equation.outputs[0].aval)
    found: set[int] = set()
    for i, operand in enumerate(operands):
        if not operand.along:
            continue
        axes = axes_of(equation, i) or {}
        if not operand.along <= set(axes.values()):
            sums = entry.kind in (Kind.LINEAR, Kind.CONTRACTION)
            return None if sums else everywhere
        found |= {out for out, axis in axes.items() if axis in operand.along}
    return everywhere & found


def _is_real(equation: Equation) -> bool:
    return any(is_real(v.aval) for v in equation.outputs)


# ---- kinds -------------------------------------------------------------------------


def _made(
    equation: Equation, entry: Entry, kinds: Sequence[str], exps: Origins
) -> Made | None:
    """What is made of operands of which some have types; None where that has none."""
    own = {kind for kind in kinds if kind not in _UNTYPED}
    if entry.kind is Kind.STRUCTURAL or entry.selects:
        kind = None if "plain" in kinds and own != {"level"} else _common(own)
        if not kind:
            return None
        within = kind in (*_PURE, "inverse") and len(equation.outputs) == 1
        return Made(kind, _arithmetic(kind) if entry.selects or within else "")
    if entry.kind is Kind.SELECTION:
        return _selected(entry, own) if "plain" not in kinds else None
    if entry.kind is Kind.LINEAR:
        return None if "plain" in kinds else _summed(own)
    if entry.kind is Kind.CONTRACTION:
        made = _product(kinds) if len(kinds) == 2 else None
        if made is None:
            return None
        if made.kind not in _PURE:
            # What constants mix, once it is divided, is a layer with its own rule.
            return made._replace(role="") if "constant" in kinds else made
        role = "dot" if "constant" in kinds else "weight"
        return Made("total", role, made.kind != "factor")
    if _adds_logarithms(equation):
        return Made("level", "weight") if own <= {"level", "argument"} else None
    if entry.kind is not Kind.ELEMENTWISE:
        return None
    if len(kinds) == 1:
        return _of_one_operand(equation, entry, kinds[0])
    if entry.raises:
        return _power(equation, kinds)
    if entry.picks:
        return _bounded(equation, kinds, own)
    if len(kinds) != 2:
        return None
    if entry.is_sum:
        return _difference(kinds) if entry.subtracts else _sum(equation, kinds)
    if entry.is_product:
        return _product(kinds)
    return _quotient(kinds) if entry.is_quotient else None


def _arithmetic(kind: str) -> str:
    """The role of linear arithmetic of a kind."""
    if kind in (*_PURE, "inverse", "part", "share", "less"):
        return "weight"
    return kind if kind in ("mix", "average", "argument") else _of_level(kind)


def _of_level(kind: str) -> str:
    return "level" if kind in ("level", "normal", "gap", "fall") else ""


def _selected(entry: Entry, own: set[str]) -> Made | None:
    if own <= {"maximum", "level"}:
        return Made("maximum")
    if own <= set(_PURE):  # the largest weight is of their degree
        kind = "peak" if entry.candidates or entry.bounds else "weight"
        return Made(kind, cancels=False)
    return None


def _summed(own: set[str]) -> Made | None:
    """A linear map of one operand: it keeps the degree."""
    if own <= set(_PURE):
        return Made("total", "weight", "factor" not in own)
    if own in ({"mix"}, {"average"}):
        return Made(next(iter(own)))
    return None


def _of_one_operand(equation: Equation, entry: Entry, kind: str) -> Made | None:
    if entry.exponential:
        made = {"argument": "weight", "exponent": "factor", "normal": "part"}
        made |= {"level": "total", "fall": "inverse", "gap": "share"}
        return Made(made[kind], "weight") if kind in made else None
    if entry.logarithm:
        return Made("level", "weight") if kind == "total" else None
    if entry.negates:
        made = {"weight": "total", "level": "fall", "total": "total", "mix": "mix"}
        made |= {"average": "average"}
        negative = made.get(kind)
        return Made(negative, _arithmetic(negative)) if negative else None
    if entry.linear([True]) or (kind in _PURE and entry.homogeneous([None])):
        return None if kind == "murky" else Made(kind, _arithmetic(kind))
    degree = entry.power(equation.params) if entry.power is not None else None
    return _raised(kind, degree) if isinstance(degree, int) else None


def _power(equation: Equation, kinds: Sequence[str]) -> Made | None:
    exponent = equation.inputs[1]
    if kinds[1] != "constant" or not isinstance(exponent, Literal):
        return None
    return (
        _raised(kinds[0], float(exponent.val)) if np.ndim(exponent.val) == 0 else None
    )


def _raised(kind: str, degree: float) -> Made | None:
    """`e ** c` is the exponential of other scores."""
    if degree == -1:
        made = {"total": "inverse", "weight": "inverse", "inverse": "total"}
        return Made(made[kind], "weight") if kind in made else None
    if kind == "weight" and degree > 0:
        return Made("weight", "weight", False)
    return None


def _bounded(equation: Equation, kinds: Sequence[str], own: set[str]) -> Made | None:
    """The larger or smaller of some."""
    if own <= {"maximum", "level"}:
        return Made("maximum")
    if not own <= set(_PURE) or "plain" in kinds:
        return None
    kind = own.pop() if len(own) == 1 and "constant" in kinds else "total"
    return Made(kind, "weight", _is_guard(equation, kinds))


def _is_guard(equation: Equation, kinds: Sequence[str]) -> bool:
    """Weights and a tiny number, so that their sum is not zero?"""
    if "constant" not in kinds:
        return True
    others = [v for v, kind in zip(equation.inputs, kinds, strict=True)]
    constants = [v for v, k in zip(others, kinds, strict=True) if k == "constant"]
    return all(
        isinstance(v, Literal) and bool(np.all(np.abs(v.val) <= TINY))
        for v in constants
    )


def _sum(equation: Equation, kinds: Sequence[str]) -> Made | None:
    own = {kind for kind in kinds if kind not in _UNTYPED}
    others = {kind for kind in kinds if kind in _UNTYPED}
    if "plain" in others:
        return None
    if own == {"less"}:
        (other,) = [
            v for v, k in zip(equation.inputs, kinds, strict=True) if k != "less"
        ]
        one = isinstance(other, Literal) and bool(np.all(np.asarray(other.val) == 1))
        return Made("weight", "weight") if one else None
    if own in ({"argument"}, {"normal"}, {"level"}):
        (kind,) = own
        return Made(kind, _arithmetic(kind))
    if own == {"level", "maximum"}:
        return Made("level", "level")
    if own == {"average"} and "constant" not in others:
        return Made("average", "average")
    if not own <= {*_PURE, "mix"}:
        return None
    steady = "factor" not in own
    if "constant" not in others:
        kind = "mix" if "mix" in own else "total"
        return Made(kind, _arithmetic(kind), steady)
    if own <= {"total"}:  # as of a score that is a constant
        return Made("total", "weight", _is_guard(equation, kinds))
    tiny = _is_guard(equation, kinds)
    return Made("total", "weight") if own <= set(_PURE) and tiny else None


_SCORES = ("plain", "argument", "constant", "unset")


def _difference(kinds: Sequence[str]) -> Made | None:
    above, below = kinds
    if below == "maximum":
        if above == "maximum":
            return Made("exponent", "argument")
        return Made("argument", "argument") if above in (*_SCORES, "level") else None
    if below == "level":
        made = Made("gap" if above == "level" else "normal", "level")
        return made if above in (*_SCORES, "level", "maximum") else None
    if above in ("argument", "normal", "level") and below in _STILL:
        return Made(above, _arithmetic(above))
    if above == "argument" and below == "plain":
        return Made("argument", "argument")
    if {above, below} <= {*_PURE, "unset"}:
        return Made("total", "weight", False)
    if {above, below} <= {*_PURE, "mix", "unset"}:
        return Made("mix", "mix", False)
    if {above, below} <= {"average", "unset"}:
        return Made("average", "average")
    return None


def _product(kinds: Sequence[str]) -> Made | None:
    for i, j in ((0, 1), (1, 0)):
        made = _times(kinds[i], kinds[j])
        if made is not None:
            return made._replace(weights=(j,)) if made.role == "joint" else made
    return None


def _times(first: str, second: str) -> Made | None:
    """The first by the second, in one of their orders."""
    if second in ("constant", "unset"):
        if first in ("part", "share") and second == "unset":
            return Made("average")
        if first in (*_PURE, "inverse", "part", "share", "argument", "normal"):
            return Made(first, _arithmetic(first))
        if first in ("mix", "average", "exponent"):
            return Made(first, "mix" if first == "mix" else _arithmetic(first))
        return None
    if first == "mix":
        if second == "plain":
            return Made("mix", cancels=False)
        joint = {"factor": "mix", "inverse": "average", "share": "mix"}
        joint |= {"weight": "mix", "total": "mix"}
        return Made(joint[second], "joint") if second in joint else None
    if first == "average":
        joint = {"share": "average", "weight": "mix", "total": "mix"}
        return Made(joint[second], "joint") if second in joint else None
    if second == "inverse":
        made = {"weight": "part", "factor": "part", "total": "share"}
        return Made(made[first], "weight") if first in made else None
    if first in _PURE and second == "factor":
        return Made(first, "weight")
    if first in _PURE and second in ("weight", "total"):
        return Made(
            "total" if "total" in (first, second) else "weight", "weight", False
        )
    if first in _PURE and second == "share":
        return Made(first, "weight")
    if first in _PURE and second == "plain":
        return Made("mix", cancels=first != "factor")
    if first == "share" and second == "share":
        return Made("share", "weight")
    if first in ("part", "share") and second in ("plain", "average"):
        return Made("average") if first == "part" else None
    return None


def _quotient(kinds: Sequence[str]) -> Made | None:
    above, below = kinds
    if below in _PURE:
        made = {"weight": "part", "factor": "part", "total": "share"}
        made |= {"constant": "inverse", "unset": "inverse"}
        if above == "mix":
            return Made("average", "joint", weights=(1,))
        steady = "factor" not in kinds
        return Made(made[above], "weight", steady) if above in made else None
    if below == "peak" and above in _PURE:  # as if a maximum had been subtracted
        return Made(above, "weight", False)
    if below == "inverse" and above in _STILL:
        return Made("total", "weight")
    if below == "constant" and above in ("mix", "average"):
        return Made(above, above)
    if below == "constant" and above != "murky":
        keeps = (*_PURE, "share", "part", "argument", "normal", "exponent")
        return Made(above, _arithmetic(above)) if above in keeps else None
    return None
