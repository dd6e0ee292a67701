"""Calls that are not compiled, again: what was read once is not read anew.

Outside of `jit` a call traces `f`, reads what was traced, and takes it apart under
`jax.vjp`, equation by equation. The first is cheap, and has to be done: what `f` reads
besides its arguments may be another thing by now. The others depend on the program's
form alone. So a transformation remembers the forms of its last calls. When one comes
again its reading is taken over, and what the evaluation did is written down as a jaxpr,
of which weights and inputs are arguments; from then on that is evaluated. It holds the
same operations in the same order, so that not a bit differs.

Nothing is remembered that Python could change behind its back: rules, targets and
entries of the rule book that users wrote, and functions with derivatives of their own,
are asked each time.
"""

from __future__ import annotations

import dataclasses
import enum
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Literal
from jax.extend.core.primitives import custom_jvp_call_p

from jaxlrp import _compat
from jaxlrp._operations import own_settings
from jaxlrp._reading.steps import Reading
from jaxlrp._rewriting.backward import Traced
from jaxlrp._rewriting.environment import Run
from jaxlrp.primitives import Kind, lookup
from jaxlrp.primitives._book import pages

LIMIT = 8
"""So many forms are remembered by one transformation."""

COMPUTED = 2
"""So many calls are computed before one is written down, which takes a moment."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
"""Types of numbers and texts that nobody can change."""

_NO_FUNCTIONS = (type, jax.sharding.Mesh)
"""What can be called and is a parameter like any other."""


@dataclasses.dataclass
class Memory:
    """What is remembered of one form.

    Attributes:
      form: the form.
      reading: of the program, without the arrays that it had; None before it was read.
      calls: how many there were.
      evaluation: what was done, as a closed jaxpr, and the structure of its results;
        None before there is one.
    """

    form: Any
    reading: Reading | None = None
    calls: int = 0
    evaluation: tuple[Any, Any] | None = None

    def read(self, jaxpr: Any, read: Callable[[], Reading]) -> Reading:
        """The reading of a jaxpr of this form, by `read` where there is none yet."""
        _, consts = _compat.open_jaxpr(jaxpr)
        if self.reading is not None:
            return with_arrays(self.reading, consts)
        reading = read()
        # A package's own primitive may have constants in what it computes.
        if len(reading.program.constants) == len(consts):
            self.reading = with_arrays(reading, [None for _ in consts])
        return reading


@dataclasses.dataclass(frozen=True)
class Memories:
    """Of the last forms, the latest first."""

    kept: list[Memory] = dataclasses.field(default_factory=list)
    lock: Any = dataclasses.field(default_factory=threading.Lock)

    def of(self, jaxpr: Any, inputs: Sequence[Any], more: Any) -> Memory | None:
        """The memory of a form, a new one where there is none.

        Args:
          jaxpr: the program, closed.
          inputs: what it takes.
          more: what else its reading depends on, to be compared.

        Returns:
          None where calls may differ though the form is the same.
        """
        _, consts = _compat.open_jaxpr(jaxpr)
        if _compat.is_debugged() or not _all_here([*inputs, *consts]):
            return None
        try:
            form = form_of(jaxpr), more, pages(), _compat.all_settings()
        except _Unlike:
            return None
        with self.lock:
            found = next((m for m in self.kept if _equal(m.form, form)), Memory(form))
            others = [m for m in self.kept if m is not found]
            self.kept[:] = [found, *others][:LIMIT]
            found.calls += 1
        return found


def is_fixed(value: Any) -> bool:
    """Is it plain data, or a rule or target of this package made of such?"""
    if type(value) in _PLAIN or isinstance(value, np.generic | enum.Enum):
        return True
    if type(value) is tuple:
        return all(map(is_fixed, value))
    own = type(value).__module__.partition(".")[0] == "jaxlrp"
    if not own or not dataclasses.is_dataclass(value):
        return False
    fields = dataclasses.fields(value)
    return all(is_fixed(getattr(value, f.name)) for f in fields)


def _all_here(arrays: Sequence[Any]) -> bool:
    """Are all values known, on the device where others are made? Nor is this traced."""
    here = _compat.constants_go()
    return here is not None and all(
        isinstance(x, np.ndarray)
        or (isinstance(x, Array) and _compat.is_known(x) and x.sharding == here)
        for x in arrays
    )


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:  # what pytrees of users hold may raise anything
        return False


# ---- forms ---------------------------------------------------------------------------


class _Unlike(Exception):
    """No other program equals this one."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Same:
    """Equal to the same object alone, which is kept: no other takes its place."""

    value: Any

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def form_of(jaxpr: Any) -> tuple[Any, ...]:
    """What a closed jaxpr computes, whatever its constants: equal for equal programs.

    Names of scopes take part, lines do not.

    Raises:
      _Unlike: if it has effects, or arrays that are none of its own constants.
    """
    open_, consts = _compat.open_jaxpr(jaxpr)
    # One array that is two constants may be read as a recurrence.
    places = [id(c) for c in consts]
    return _form(open_), tuple(map(places.index, places))


def _form(jaxpr: Any) -> tuple[Any, ...]:
    if jaxpr.effects:
        raise _Unlike
    numbers: dict[Any, int] = {}

    def made(variables: Sequence[Any]) -> tuple[Any, ...]:
        for v in variables:
            numbers[v] = len(numbers)
        return tuple(v.aval for v in variables)

    def read(atom: Any) -> Any:
        return _literal(atom) if isinstance(atom, Literal) else numbers[atom]

    form: list[Any] = [made(_compat.constvars(jaxpr)), made(jaxpr.invars)]
    for eqn in jaxpr.eqns:
        operands = tuple(map(read, eqn.invars))
        scope = str(eqn.source_info.name_stack)
        what = eqn.primitive, _params(eqn), eqn.ctx, scope
        form.append((*what, operands, made(eqn.outvars)))
    form.append(tuple(map(read, jaxpr.outvars)))
    return tuple(form)


def _literal(atom: Literal) -> Any:
    """By its bits: 0.0 and -0.0 are equal, but not the same."""
    value = np.asarray(atom.val)
    if value.ndim or value.dtype.hasobject:
        raise _Unlike
    return atom.aval, type(atom.val), value.dtype, value.tobytes()


def _params(eqn: Any) -> Any:
    if eqn.primitive is custom_jvp_call_p:
        # Its derivative is a new function each time, but JAX's own is known by place.
        body = _compat.called_jaxpr(eqn.params)
        place = _compat.own_derivative(eqn.params)
        others = tuple(v for v in eqn.params.values() if type(v) in _PLAIN)
        return _Same(eqn) if place is None else (place, _part(body), others)
    if any(
        callable(v) and not isinstance(v, _NO_FUNCTIONS) for v in eqn.params.values()
    ):
        return _Same(eqn)
    return tuple((name, _part(v)) for name, v in sorted(eqn.params.items()))


def _part(value: Any) -> Any:
    if _compat.is_jaxpr(value):
        open_, consts = _compat.open_jaxpr(value)
        if consts:  # those of a `jit`: they would be kept alive, and are no arguments
            raise _Unlike
        return _form(open_)
    if isinstance(value, tuple | list):
        return type(value), *map(_part, value)
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return type(value), repr(value) if isinstance(value, float) else value


# ---- evaluations ---------------------------------------------------------------------


def with_arrays(reading: Reading, consts: Sequence[Any]) -> Reading:
    """The reading of a program of equal form that has these constants.

    The calls in it have none of their own.
    """
    pairs = zip(reading.program.constants, consts, strict=True)
    constants = tuple((v, c) for (v, _), c in pairs)
    program = dataclasses.replace(reading.program, constants=constants)
    return dataclasses.replace(reading, program=program)


def asks_users(reading: Reading) -> bool:
    """Does a rule in it come from a user?"""
    for step in reading.steps:
        entries = (lookup(e.primitive) for e in step.equations)
        if any(e is None or e.kind is Kind.CUSTOM for e in entries):
            return True
        if any(map(asks_users, step.bodies)):
            return True
    return False


def replayed(compute: Callable[[Any, Any], Any], traced: Traced, run: Run) -> Any:
    """What `compute(traced, run)` returns, a pytree of arrays.

    The first times it is computed. Then it is written down, operation by operation as
    it was, of all arrays, and that is evaluated.
    """
    memory = traced.memory
    if memory is None or memory.reading is None or memory.calls <= COMPUTED:
        return compute(traced, run)
    if asks_users(memory.reading):
        return compute(traced, run)
    _, consts = _compat.open_jaxpr(traced.jaxpr)
    given, count = [*traced.inputs, *consts], len(traced.inputs)
    if memory.evaluation is None:
        by_steps = dataclasses.replace(run, staged=False)
        trees: list[Any] = []

        def flat(*arrays: Any) -> list[Any]:
            reading = with_arrays(traced.reading, arrays[count:])
            own = dataclasses.replace(traced, reading=reading, inputs=arrays[:count])
            leaves, tree = jax.tree.flatten(compute(own, by_steps))
            trees[:] = [tree]
            return leaves

        memory.evaluation = jax.make_jaxpr(flat)(*given), trees[0]
    jaxpr, tree = memory.evaluation
    with own_settings():
        leaves = _compat.evaluate(jaxpr, given)
        atoms = _compat.open_jaxpr(jaxpr)[0].outvars
        return jax.tree.unflatten(tree, list(map(_as_array, atoms, leaves)))


def _as_array(atom: Any, y: Any) -> Array:
    """A result; a jaxpr has a number of its own as NumPy's, of whatever type it is."""
    if isinstance(y, Array):
        return y
    if atom.aval.weak_type and np.ndim(y) == 0:
        number = jnp.asarray(np.asarray(y).item())
        if number.dtype == atom.aval.dtype:
            return number
    return jnp.asarray(y, atom.aval.dtype)
