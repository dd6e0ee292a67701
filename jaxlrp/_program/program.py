"""A program: a jaxpr with its calls inlined, ready to be read.

A jaxpr nests: `jit`, `custom_jvp_call` and their like carry their own jaxprs, and what
LRP calls one layer may lie in several of them. `flatten` inlines the calls into one
list of equations. Two kinds are kept whole: a `jit` whose jaxpr is large and appears
more than once (tracing it once is much cheaper), and an elementwise function with its
own derivative (`jax.nn.relu`).
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.extend.core import Literal, Primitive
from jax.extend.core import primitives as P

from jaxlrp import _compat
from jaxlrp._program.opaque import has_only_a_derivative, is_elementwise, is_opaque
from jaxlrp.primitives import Kind, lookup

KEEP_SIZE = 12
"""A repeated `jit` with a contraction and at least so many equations is kept."""


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A variable of a program; compared by identity."""

    aval: Any


def aval_of(atom: Atom) -> Any:
    """The shape and dtype of an operand."""
    return atom.aval


Atom = Value | Literal


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
    """One equation.

    Attributes:
      primitive: the primitive.
      params: its parameters, as the jaxpr has them.
      inputs: the operands.
      outputs: the results.
      source: where it comes from in the user's code.
      context: the mesh and configuration under which it was traced.
      scope: the named scopes around it, `outer/inner`.
      caller: where the outermost call that it was inlined from comes from.
      effectful: must it run even where nothing reads its results?
      opaque: is it a call, or a package's own primitive, that is kept, since what is in
        it cannot be read? It has its own derivative.
    """

    primitive: Primitive
    params: Mapping[str, Any]
    inputs: tuple[Atom, ...]
    outputs: tuple[Value, ...]
    source: Any
    context: Any
    scope: str
    caller: Any = None
    effectful: bool = False
    opaque: bool = False

    def bound(self) -> Callable[..., list[Any]]:
        """The equation's own map, from its operands to a list of its results."""
        entry = lookup(self.primitive)
        form = entry.form(self.params) if entry is not None else None
        if form is None:
            return _compat.primitive_bind(self.primitive, dict(self.params))
        if self.primitive.multiple_results:
            return form
        return lambda *operands: [form(*operands)]

    def quiet(self) -> Equation:
        """The same without the effects of the bodies in it."""
        params = _compat.quiet_params(self.params)
        return dataclasses.replace(self, params=params)

    @property
    def line(self) -> str:
        """The user's line, `file:line (function)`; the call's where JAX wrote it."""
        line = _compat.summarize(self.source)
        return line or (_compat.summarize(self.caller) if self.caller else "")


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Inputs, constants, equations in order, outputs; the scopes around all of it."""

    inputs: tuple[Value, ...]
    constants: tuple[tuple[Value, Any], ...]
    equations: tuple[Equation, ...]
    outputs: tuple[Atom, ...]
    scope: str = ""

    def inner_scope(self, equation: Equation) -> str:
        """The scopes of an equation, without those around the whole program."""
        return equation.scope.removeprefix(self.scope).strip("/")


def flatten(
    jaxpr: Any,
    scope: str = "",
    keep_calls: bool = True,
    apart: bool = True,
    opened: Sequence[Primitive] | None = None,
    live: bool = True,
) -> Program:
    """The program of a jaxpr, its calls inlined and dead equations dropped.

    Args:
      jaxpr: open or closed.
      scope: the named scopes around all of it.
      keep_calls: keep large calls that are repeated; else all are inlined.
      apart: equal equations of different scopes are not one.
      opened: the calls that are inlined; None: all that can be read.
      live: drop what neither an output nor an effect depends on.
    """
    kept = _repeated(jaxpr) if keep_calls else set()
    open_, consts = _compat.open_jaxpr(jaxpr)
    inputs = tuple(Value(v.aval) for v in open_.invars)
    sheet = _Sheet(kept, [], [], {}, apart, opened)
    outputs = _write_out(open_, consts, inputs, scope, None, sheet)
    equations = _live(sheet.equations, outputs) if live else tuple(sheet.equations)
    return Program(inputs, tuple(sheet.constants), equations, tuple(outputs), scope)


@dataclasses.dataclass(frozen=True)
class _Sheet:
    """What a program is written on.

    Attributes:
      kept: identities of the jaxprs that are not inlined.
      constants: so far.
      equations: so far.
      known: the results of equations by what they compute.
      apart: does their scope distinguish them?
      opened: the calls that are inlined, or None.
    """

    kept: set[int]
    constants: list[tuple[Value, Any]]
    equations: list[Equation]
    known: dict[Any, tuple[Value, ...]]
    apart: bool
    opened: Sequence[Primitive] | None


def _write_out(
    jaxpr: Any,
    consts: Sequence[Any],
    inputs: Sequence[Atom],
    scope: str,
    caller: Any,
    sheet: _Sheet,
) -> list[Atom]:
    """Writes down the equations of `jaxpr`, applied to `inputs`; returns its outputs.

    Equal equations are written once: `exp(x) / sum(exp(x))` is a softmax.
    """
    environment: dict[Any, Atom] = dict(zip(jaxpr.invars, inputs, strict=True))
    for variable, const in zip(_compat.constvars(jaxpr), consts, strict=True):
        value = Value(variable.aval)
        environment[variable] = value
        sheet.constants.append((value, const))

    def read(atom: Any) -> Atom:
        return atom if isinstance(atom, Literal) else environment[atom]

    for eqn in jaxpr.eqns:
        operands = tuple(read(v) for v in eqn.invars)
        inner_scope = _join(scope, _compat.name_stack(eqn.source_info))
        body = _body(eqn, sheet)
        if body is not None:
            open_, inner_consts = _compat.open_jaxpr(body)
            outs = _write_out(
                open_,
                inner_consts,
                operands,
                inner_scope,
                caller or eqn.source_info,
                sheet,
            )
            environment.update(zip(eqn.outvars, outs, strict=True))
            continue
        key = _key(eqn, operands, inner_scope if sheet.apart else None)
        outputs = sheet.known.get(key) if key is not None else None
        if outputs is None:
            outputs = tuple(Value(v.aval) for v in eqn.outvars)
            equation = Equation(
                eqn.primitive,
                eqn.params,
                operands,
                outputs,
                eqn.source_info,
                eqn.ctx,
                inner_scope,
                caller,
                bool(eqn.effects),
                is_opaque(eqn),
            )
            sheet.equations.append(equation)
            if key is not None:
                sheet.known[key] = outputs
        environment.update(zip(eqn.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _key(eqn: Any, operands: Sequence[Atom], scope: str | None) -> Any | None:
    """What an equation computes; None where that is unknown or has effects.

    Literals by what they print as: 0.0 and -0.0 are equal, but not the same. Where
    scopes distinguish, so does every place that counts (`iota`) from nothing.
    """
    if eqn.effects or not (operands or scope is None):
        return None
    inputs = tuple(
        (a.aval, repr(a.val)) if isinstance(a, Literal) else a for a in operands
    )
    key = (eqn.primitive, scope, inputs, tuple(sorted(eqn.params.items())))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _join(outer: str, inner: str) -> str:
    return f"{outer}/{inner}" if outer and inner else outer or inner


def _body(eqn: Any, sheet: _Sheet) -> Any | None:
    """The jaxpr to inline for a call, or None to leave the equation."""
    if sheet.opened is not None:
        opens = eqn.primitive in sheet.opened
        return _compat.called_jaxpr(eqn.params) if opens else None
    entry = lookup(eqn.primitive)
    if entry is None:
        body = _compat.implementation(eqn)
        return None if has_only_a_derivative(eqn, body) else body
    if entry.kind is not Kind.CALL:
        return None
    body = _compat.called_jaxpr(eqn.params)
    if body is None or id(body) in sheet.kept or is_opaque(eqn):
        return None
    activation = eqn.primitive is P.custom_jvp_call_p and is_elementwise(body)
    if activation and _compat.open_jaxpr(body)[0].eqns:
        return None
    return body


def _repeated(jaxpr: Any) -> set[int]:
    """Identities of the inner jaxprs of `jit` that are worth keeping whole."""
    counts: collections.Counter[int] = collections.Counter()
    worth: dict[int, bool] = {}

    def count(open_: Any) -> None:
        for eqn in open_.eqns:
            entry = lookup(eqn.primitive)
            if entry is None or entry.kind is not Kind.CALL:
                continue
            body = _compat.called_jaxpr(eqn.params)
            if body is None:
                continue
            if eqn.primitive is P.jit_p:
                counts[id(body)] += 1
                if counts[id(body)] > 1:
                    continue
                size, contractions = _size(body)
                worth[id(body)] = size >= KEEP_SIZE and contractions > 0
            count(_compat.open_jaxpr(body)[0])

    count(_compat.open_jaxpr(jaxpr)[0])
    return {key for key, n in counts.items() if n > 1 and worth[key]}


def _size(jaxpr: Any) -> tuple[int, int]:
    """(equations, contractions), the bodies of calls included."""
    size = contractions = 0
    for eqn in _compat.open_jaxpr(jaxpr)[0].eqns:
        entry = lookup(eqn.primitive)
        body = _compat.called_jaxpr(eqn.params)
        if entry is not None and entry.kind is Kind.CALL and body is not None:
            inner = _size(body)
            size, contractions = size + inner[0], contractions + inner[1]
        else:
            size += 1
            contractions += entry is not None and entry.kind is Kind.CONTRACTION
    return size, contractions


def _live(
    equations: Sequence[Equation], outputs: Sequence[Atom]
) -> tuple[Equation, ...]:
    """The equations that an output or an effect depends on, in order."""
    needed = {v for v in outputs if isinstance(v, Value)}
    live: list[Equation] = []
    for equation in reversed(equations):
        if needed.isdisjoint(equation.outputs) and not equation.effectful:
            continue
        live.append(equation)
        needed.update(v for v in equation.inputs if isinstance(v, Value))
    return tuple(reversed(live))
