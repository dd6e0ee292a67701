"""What is known of each value before anything runs: activity, signs, statistics.

One pass forwards over a program. It is abstract: shapes, no numbers.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxlrp import _compat
from jaxlrp._names import Origin, fits_any
from jaxlrp._program.bodies import bodies_of, fixpoint
from jaxlrp._program.kinds import is_real
from jaxlrp._program.program import Atom, Equation, Program, Value, aval_of
from jaxlrp._reading import origins
from jaxlrp._reading.context import Context
from jaxlrp.primitives import Entry, Kind, lookup


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of one value.

    Attributes:
      active: relevance can pass through it to an attributed input.
      symbolic: the same of an integer or boolean (a token's id), instead: it names what
        is looked up, and relevance cannot be a multiple of it.
      cut: it depends on an attributed input, but relevance cannot pass.
      layered: a layer lies between it and every attributed input.
      depth: how many layers lie on the longest path to it, if that is asked for.
      nonnegative: it is `>= 0` whatever the numbers.
      at_most_one: it is `<= 1` whatever the numbers.
      is_one, is_zero: it is 1, or 0, everywhere.
      is_nan: it is true where some number is NaN and nowhere else.
      reduced: it is a statistic: all that is active in it came through a reduction.
      rooted: it is a statistic turned into a scale by a root or a reciprocal.
      varies: the axes along which an inactive value is not constant.
      known: it is made of numbers that stand in the program.
      origins: the leaves of the arguments that an inactive value is made of, if names
        are asked for.
    """

    active: bool = False
    symbolic: bool = False
    cut: bool = False
    layered: bool = False
    nonnegative: bool = False
    at_most_one: bool = False
    is_one: bool = False
    is_zero: bool = False
    is_nan: bool = False
    reduced: bool = False
    rooted: bool = False
    varies: frozenset[int] = frozenset()
    known: bool = False
    depth: int = 0
    origins: tuple[Origin, ...] = ()

    @property
    def carries(self) -> bool:
        """Can relevance pass, as a multiple of it or in its shadow?"""
        return self.active or self.symbolic

    def join(self, other: Facts) -> Facts:
        """What is known of a value that is one or the other."""
        active = self.active or other.active
        return Facts(
            active=active,
            symbolic=self.symbolic or other.symbolic,
            cut=self.cut or other.cut,
            # An inactive alternative brings no path without a layer.
            layered=(self.layered or not self.active)
            and (other.layered or not other.active)
            and active,
            nonnegative=self.nonnegative and other.nonnegative,
            at_most_one=self.at_most_one and other.at_most_one,
            is_one=self.is_one and other.is_one,
            is_zero=self.is_zero and other.is_zero,
            reduced=self.reduced and other.reduced,
            rooted=self.rooted and other.rooted,
            varies=self.varies | other.varies,
            known=self.known and other.known,
            depth=max(self.depth, other.depth),
            origins=() if active else origins.joined((self.origins, other.origins)),
        )


FactsOf = Mapping[Value, Facts]


def facts_of(atom: Atom, facts: FactsOf) -> Facts:
    """The facts of an operand; a literal's are read off its value."""
    if isinstance(atom, Literal):
        return Facts(
            nonnegative=_holds(np.greater_equal, atom.val, 0),
            at_most_one=_holds(np.less_equal, atom.val, 1),
            is_one=_holds(np.equal, atom.val, 1),
            is_zero=_holds(np.equal, atom.val, 0),
            known=True,
        )
    return facts[atom]


def _holds(test: Callable[..., Any], literal: Any, bound: int) -> bool:
    try:
        return bool(np.all(test(np.asarray(literal), bound)))
    except (TypeError, ValueError):  # a key, say
        return False


def is_symbol(aval: Any) -> bool:
    """Can a value of this type name something: an integer or a boolean?"""
    dtype = getattr(aval, "dtype", None)
    return dtype is not None and (
        jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)
    )


def all_axes(aval: Any) -> frozenset[int]:
    """The axes of a value that are not of size one."""
    shape = getattr(aval, "shape", ())
    return frozenset(i for i, n in enumerate(shape) if not _is_one(n))


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def input_facts(aval: Any, active: bool, origin: Origin | None = None) -> Facts:
    """The facts of a program's input."""
    named = () if origin is None or active else (origin,)
    symbolic = active and is_symbol(aval)
    active = active and is_real(aval)
    varies = frozenset() if active else all_axes(aval)
    return Facts(active=active, symbolic=symbolic, varies=varies, origins=named)


def analyse(
    program: Program, inputs: Sequence[Facts], context: Context
) -> dict[Value, Facts]:
    """The facts of every value of `program`, given those of its inputs."""
    # A body is asked about by every walk, and by the fixpoint of each loop around it.
    key = program, tuple(inputs)
    if key not in context.facts:
        context.facts[key] = _analyse(program, inputs, context)
    return context.facts[key]


def _analyse(
    program: Program, inputs: Sequence[Facts], context: Context
) -> dict[Value, Facts]:
    """One pass forwards."""
    maxima = context.findings.softmaxes.maxima
    facts: dict[Value, Facts] = dict(zip(program.inputs, inputs, strict=True))
    for value, _ in program.constants:
        varies = all_axes(value.aval)
        facts[value] = Facts(varies=varies, known=not varies)
    for equation in program.equations:
        operands = [facts_of(atom, facts) for atom in equation.inputs]
        results = _equation_facts(equation, operands, context)
        held = is_constant(equation, facts, context.options.constants)
        pairs = zip(results, equation.outputs, strict=True)
        results = [_as_constant(f, v) if held or v in maxima else f for f, v in pairs]
        facts.update(zip(equation.outputs, results, strict=True))
    return facts


def is_constant(equation: Equation, facts: FactsOf, constants: Sequence[str]) -> bool:
    """Does a composite hold what is computed in this scope, or with this parameter?"""
    if not constants:
        return False
    if any(fnmatch.fnmatchcase(equation.scope, pattern) for pattern in constants):
        return True
    names = names_of((equation,), facts)
    return any(fits_any(p, each) for p in constants for each in names)


def names_of(
    equations: Iterable[Equation], facts: FactsOf
) -> tuple[tuple[str, ...], ...]:
    """The parameters of some equations, each with the names that it goes by."""
    found = origins.joined(
        origins.of_constants(e, [facts_of(v, facts).origins for v in e.inputs])
        for e in equations
    )
    return tuple(dict.fromkeys(o.names for o in found))


def _as_constant(f: Facts, value: Value) -> Facts:
    if not f.carries:
        return f
    return Facts(cut=True, varies=all_axes(value.aval), nonnegative=f.nonnegative)


def _equation_facts(
    equation: Equation, operands: Sequence[Facts], context: Context
) -> list[Facts]:
    entry = lookup(equation.primitive)
    if entry is not None and entry.decides:
        operands = [
            dataclasses.replace(f, active=False, cut=f.cut or f.active)
            if i in entry.decides
            else f
            for i, f in enumerate(operands)
        ]
    depends = any(f.carries or f.cut for f in operands)
    if not any(f.carries for f in operands):
        return [_inactive(equation, entry, out, operands) for out in equation.outputs]
    bodies = body_programs(equation, context)
    if not bodies and not any(f.active for f in operands):
        return [_named(equation, entry, out, operands) for out in equation.outputs]
    if entry is not None and _is_fixed(entry, equation, operands):
        return [
            Facts(
                cut=depends,
                varies=all_axes(out.aval),
                is_nan=entry.differs and equation.inputs[0] is equation.inputs[1],
                nonnegative=entry.nonnegative(
                    [f.nonnegative for f in operands], equation.params
                ),
            )
            for out in equation.outputs
        ]
    if names(equation, entry):
        return [Facts(symbolic=True, varies=all_axes(equation.outputs[0].aval))]
    if bodies:
        results = body_facts(equation, bodies, operands, context)[1]
    else:
        depth = _depth(entry, operands, context)
        results = [
            dataclasses.replace(_active(equation, entry, out, operands), depth=depth)
            for out in equation.outputs
        ]
    return [
        f
        if is_real(out.aval) or (bodies and f.symbolic)
        else Facts(cut=depends, varies=all_axes(out.aval), nonnegative=f.nonnegative)
        for f, out in zip(results, equation.outputs, strict=True)
    ]


def names(equation: Equation, entry: Entry | None) -> bool:
    """Does a cast make an integer of a quantity, to look something up by it?

    What arithmetic makes of such integers is computed in floats (`_program.quantised`).
    """
    if not _casts(entry, equation.inputs):
        return False
    return jnp.issubdtype(equation.outputs[0].aval.dtype, jnp.integer)


def _is_fixed(entry: Entry, equation: Equation, operands: Sequence[Facts]) -> bool:
    """Is the result one that no relevance passes, `x**0` among them?"""
    if entry.kind is Kind.INERT or entry.fixed(equation.params):
        return True
    return entry.raises and operands[1].is_zero


def _casts(entry: Entry | None, operands: Sequence[Any]) -> bool:
    """Is it a copy of one operand, in another dtype perhaps, or its opposite?"""
    if entry is None or entry.kind is not Kind.ELEMENTWISE or len(operands) != 1:
        return False
    return entry.linear([True])


def _inactive(
    equation: Equation, entry: Entry | None, out: Value, operands: Sequence[Facts]
) -> Facts:
    nonnegative = entry is not None and entry.nonnegative(
        [f.nonnegative for f in operands], equation.params
    )
    still = entry is not None and entry.kind is Kind.STRUCTURAL and len(operands) == 1
    cut = _is_cut(entry, out, operands)
    return Facts(
        cut=cut,
        nonnegative=nonnegative or _is_rest_of_one(entry, operands),
        at_most_one=_is_at_most_one(entry, operands),
        is_one=still and operands[0].is_one,
        is_zero=(still or _casts(entry, operands)) and operands[0].is_zero,
        varies=_varies(equation, entry, out, operands),
        known=all(f.known for f in operands),
        origins=() if cut else _made_of(equation, out, operands),
    )


def _made_of(
    equation: Equation, out: Value, operands: Sequence[Facts]
) -> tuple[Origin, ...]:
    """The leaves that a constant is made of."""
    for f in operands:  # mostly none, where nobody asks for names
        if f.origins:
            return origins.of_result(equation, out, [f.origins for f in operands])
    return ()


def _is_cut(entry: Entry | None, out: Value, operands: Sequence[Facts]) -> bool:
    """Does an inactive result depend on the input? What an index picks is constant."""
    if entry is not None and entry.origin is not None and is_real(out.aval):
        return any(operands[i].cut for i in entry.linear_in(len(operands)))
    return any(f.cut or f.symbolic for f in operands)


def _named(
    equation: Equation, entry: Entry | None, out: Value, operands: Sequence[Facts]
) -> Facts:
    """A result of symbols and constants: a symbol again, or what one looks up."""
    known = _inactive(equation, entry, out, operands)
    if not passes_symbols(equation, entry, operands):
        return known
    if is_real(out.aval):
        return Facts(active=True, nonnegative=known.nonnegative)
    return dataclasses.replace(known, symbolic=is_symbol(out.aval), cut=False)


def passes_symbols(
    equation: Equation, entry: Entry | None, operands: Sequence[Facts]
) -> bool:
    """Is what the equation makes of symbols still about what they name?

    A comparison is where it looks for them in a list that lies along its own axis, as a
    one-hot code does; a test for one value (a mask) is not.
    """
    if entry is None or entry.kind is Kind.REFUSED:
        return True  # to be explained, or refused
    if entry.kind is Kind.CUSTOM:
        return entry.shadows
    if entry.matches:
        symbols = [f for f in operands if f.symbolic]
        others = [f for f in operands if not f.symbolic]
        own = frozenset().union(*(f.varies for f in symbols))
        return len(symbols) == 1 and any(f.varies - own for f in others)
    if entry.kind is Kind.STRUCTURAL and moves_symbols(entry, operands):
        return True
    elementwise = entry.kind is Kind.ELEMENTWISE or entry.combines
    adds_up = entry.kind in (Kind.LINEAR, Kind.CONTRACTION)
    return elementwise or adds_up or entry.origin is not None


def moves_symbols(entry: Entry, operands: Sequence[Facts]) -> bool:
    """Are symbols among the values that it moves, not only among its indices?"""
    moved = entry.kind is Kind.STRUCTURAL or entry.selects
    return moved and any(operands[i].symbolic for i in entry.linear_in(len(operands)))


def _varies(
    equation: Equation, entry: Entry | None, out: Value, operands: Sequence[Facts]
) -> frozenset[int]:
    """The axes along which an inactive result is not constant."""
    everywhere = all_axes(out.aval)
    if entry is None or not operands:
        return everywhere
    if entry.kind is Kind.ELEMENTWISE:
        return frozenset().union(*(f.varies for f in operands)) & everywhere
    if entry.kind is not Kind.STRUCTURAL or len(operands) != 1:
        return everywhere
    (operand,) = operands
    if not operand.varies or entry.still:
        return operand.varies
    params = equation.params
    moved = _compat.broadcast_axes(params)
    if moved is not None:
        return frozenset(moved[axis] for axis in operand.varies)
    if entry.layout is not None:
        shape = aval_of(equation.inputs[0]).shape
        marks = tuple(
            ((i if i in operand.varies else None, n, 1),) for i, n in enumerate(shape)
        )
        layout = entry.layout(params, marks, out.aval.shape)
        if layout is not None:
            marked = [any(a is not None for a, _, _ in atoms) for atoms in layout]
            return frozenset(i for i, mark in enumerate(marked) if mark)
    return everywhere


def _active(
    equation: Equation, entry: Entry | None, out: Value, operands: Sequence[Facts]
) -> Facts:
    actives = [f for f in operands if f.active]
    layered = all(f.layered for f in actives)
    if entry is None:
        return Facts(active=True, layered=layered)
    signs = [f.nonnegative for f in operands]
    if entry.selects and operands[0].is_nan:
        signs = [True, signs[1], True]  # the sign of a NaN is arbitrary
    nonnegative = entry.nonnegative(signs, equation.params)
    nonnegative = nonnegative or _is_rest_of_one(entry, operands)
    same = len({id(v) for v in equation.inputs}) == 1
    if entry.kind is Kind.CONTRACTION:
        squares = same and _is_sum_of_squares(equation, entry)
        return Facts(
            active=True,
            layered=layered or len(actives) == 1,
            nonnegative=nonnegative or squares,
            reduced=squares,
        )
    reduced = rooted = False
    if entry.kind is Kind.STRUCTURAL or entry.totals:
        reduced = all(f.reduced for f in actives)
        rooted = reduced and all(f.rooted for f in actives)
    elif entry.kind in (Kind.LINEAR, Kind.SELECTION):
        before = aval_of(equation.inputs[0]).shape
        reduced = entry.sums or len(before) > len(out.aval.shape)
    elif entry.kind is Kind.ELEMENTWISE:
        reduced = all(f.reduced for f in actives)
        is_root = entry.takes_root(equation.params) or _is_reciprocal(entry, operands)
        rooted = reduced and (is_root or any(f.rooted for f in actives))
        # x * x, by whatever primitive
        nonnegative = nonnegative or (same and len(operands) == 2 and entry.is_product)
    return Facts(
        active=True,
        layered=layered,
        nonnegative=nonnegative,
        at_most_one=_is_at_most_one(entry, operands),
        reduced=reduced,
        rooted=rooted,
    )


def _is_rest_of_one(entry: Entry | None, operands: Sequence[Facts]) -> bool:
    """Is it `1 - x` of an `x` that is at most one, a gate's counterpart?"""
    subtracts = entry is not None and entry.subtracts
    return subtracts and operands[0].is_one and operands[1].at_most_one


def _is_at_most_one(entry: Entry | None, operands: Sequence[Facts]) -> bool:
    """Is the result known to be at most one?"""
    if entry is None or not operands or entry.at_most_one:
        return entry is not None and entry.at_most_one
    if entry.kind is Kind.STRUCTURAL:
        moved = entry.linear_in(len(operands))
        return bool(moved) and all(operands[i].at_most_one for i in moved)
    if entry.kind is not Kind.ELEMENTWISE:
        return False
    if entry.selects:
        return all(f.at_most_one for f in operands[1:])
    if entry.subtracts:
        return operands[0].at_most_one and operands[1].nonnegative
    if entry.negates:
        return operands[0].nonnegative
    if len(operands) == 1:  # a copy, a cast
        return entry.linear([True]) and operands[0].at_most_one
    within = all(f.nonnegative and f.at_most_one for f in operands)
    return len(operands) == 2 and entry.is_product and within


def _depth(entry: Entry | None, operands: Sequence[Facts], context: Context) -> int:
    """One more after a layer; zero where no rule asks: equal blocks stay equal."""
    if not context.options.by_depth:
        return 0
    actives = [f for f in operands if f.active]
    is_contraction = entry is not None and entry.kind is Kind.CONTRACTION
    is_layer = is_contraction and len(actives) == 1
    return max(f.depth for f in actives) + is_layer


def _is_sum_of_squares(equation: Equation, entry: Entry) -> bool:
    """Is a contraction of `x` with itself `x.x`, not a matrix of all products?"""
    assert entry.kernel_axes is not None
    ndims = tuple(len(aval_of(v).shape) for v in equation.inputs)
    axes = [entry.kernel_axes(equation.params, k, ndims) for k in (0, 1)]
    return axes[0] == axes[1] and entry.squares(equation.params)


def _is_reciprocal(entry: Entry, operands: Sequence[Facts]) -> bool:
    """A constant divided by what is active: linear in the first, not the second."""
    if len(operands) != 2 or operands[0].active or not operands[1].active:
        return False
    return entry.is_quotient


# ---- equations with bodies ---------------------------------------------------------


def body_programs(equation: Equation, context: Context) -> tuple[Program, ...]:
    """The programs inside an equation that is emitted again with its bodies."""
    entry = lookup(equation.primitive)
    if entry is None or entry.kind not in (Kind.CALL, Kind.CONTROL) or equation.opaque:
        return ()
    bodies = _compat.inner_jaxprs(equation.params)
    # Calls that are kept share one program, unless rules may differ between scopes.
    shared = entry.kind is Kind.CALL and not context.options.by_scope
    scope = "" if shared else equation.scope
    return tuple(context.program(b, scope) for b in bodies)


def body_facts(
    equation: Equation,
    bodies: Sequence[Program],
    operands: Sequence[Facts],
    context: Context,
) -> tuple[list[Facts], list[Facts]]:
    """(facts of the bodies' inputs, facts of the equation's results)."""
    how = bodies_of(equation)
    inputs = list(operands[how.given])
    if how.flow == "branch":
        outs = [_outputs(b, inputs, context) for b in bodies]
        joined = outs[0]
        for other in outs[1:]:
            joined = [a.join(b) for a, b in zip(joined, other, strict=True)]
        if operands[0].active or operands[0].cut:
            joined = [dataclasses.replace(f, cut=f.cut or not f.active) for f in joined]
        return inputs, joined
    (body,) = bodies
    if how.repeats:
        inputs, results = _loop_facts(equation, body, inputs, context)
        if how.flow == "while":
            results = _of_decided(equation, operands, inputs, results, context)
        return inputs, results
    results = _outputs(body, inputs, context)
    if how.flow == "shard_map":  # it may vary from shard to shard
        pairs = zip(results, equation.outputs, strict=True)
        results = [
            f if f.active else dataclasses.replace(f, varies=all_axes(v.aval))
            for f, v in pairs
        ]
    return inputs, results


def _outputs(body: Program, inputs: Sequence[Facts], context: Context) -> list[Facts]:
    facts = analyse(body, inputs, context)
    return [facts_of(v, facts) for v in body.outputs]


def _drop_axis(f: Facts) -> Facts:
    return dataclasses.replace(
        f,
        varies=frozenset(axis - 1 for axis in f.varies if axis > 0),
        origins=tuple(o.part(":") for o in f.origins),
    )


def _loop_facts(
    equation: Equation, body: Program, given: Sequence[Facts], context: Context
) -> tuple[list[Facts], list[Facts]]:
    """A fixpoint over the carry: it is active if it is after any step."""
    how = bodies_of(equation)
    constants, slices = list(given[: how.constants]), list(given[how.slices])
    slices = [_drop_axis(f) for f in slices]

    def after(carry: list[Facts]) -> tuple[list[Facts], list[Facts]]:
        outs = _outputs(body, [*constants, *carry, *slices], context)
        # The layers of a loop count once, not once for each iteration.
        joined = [
            dataclasses.replace(a.join(b), depth=a.depth)
            for a, b in zip(carry, outs, strict=False)
        ]
        return joined, outs

    carry, outs = fixpoint(after, list(given[how.carried]))
    ends, stacks = outs[: how.carries], outs[how.carries :]
    stacked = [
        dataclasses.replace(f, varies=all_axes(v.aval) if not f.active else frozenset())
        for f, v in zip(stacks, equation.outputs[how.carries :], strict=True)
    ]
    final = [
        dataclasses.replace(
            a.join(b),
            depth=b.depth if b.active else a.depth,
            varies=all_axes(v.aval) if not (a.active or b.active) else a.varies,
        )
        for a, b, v in zip(carry, ends, equation.outputs, strict=False)
    ]
    return [*constants, *carry, *slices], [*final, *stacked]


def _of_decided(
    equation: Equation,
    operands: Sequence[Facts],
    inputs: Sequence[Facts],
    results: list[Facts],
    context: Context,
) -> list[Facts]:
    """A `while` loop's results: no relevance passes through the number of steps."""
    parts = _compat.while_parts(dict(equation.params))
    carry = inputs[bodies_of(equation).carried]
    test = context.program(parts.test, "")
    (holds,) = _outputs(test, [*operands[: parts.test_constants], *carry], context)
    if not (holds.cut or holds.carries):
        return results
    return [dataclasses.replace(f, cut=f.cut or not f.active) for f in results]
