"""What the rules of all roles share: an environment, and messages.

A message to a value `y` is a multiplier `c` (relevance `R = y c`) or plain relevance
`r` at its shadow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Literal

from jaxlrp._operations import (
    finite,
    held_constant,
    nonzero,
    route,
    wide,
    zero_beside,
)
from jaxlrp._program.kinds import is_real
from jaxlrp._program.program import Equation, Value
from jaxlrp._reading.steps import Reading, Step
from jaxlrp.composites import Composite
from jaxlrp.primitives import Kind, lookup

Observe = Callable[..., tuple[Array, Array | None]]
"""`observe(place, step, value, shadow, weight=None)`: called at every value a step
reads ("in"), at its surrogates ("surrogate") and results ("out"), after a filter of its
relevances ("kept"), at constants that enter the body of a loop or branch ("constant"),
and with weights at a layer's result for the parts of its relevance that have no
contributions to go to ("one-sided"); see `jaxlrp._audit`."""


@dataclasses.dataclass(frozen=True)
class Visits:
    """What is done at named values of a program, and of the bodies in it.

    Attributes:
      visit: `visit(number, arrays, value, shadow)` returns value and shadow, changed.
      numbers: the number of each address. An address is a value, preceded by the steps
        that contain it, each with the number of its body: `(step, 0, value)`.
      arrays: what a visit is given, by number. An array has a leading axis for each
        loop around its value that has not been entered yet.
    """

    visit: Callable[[int, Any, Array, Any], tuple[Array, Any]]
    numbers: Mapping[tuple[Any, ...], int]
    arrays: Mapping[int, Any]

    def inside(self, step: Step, number: int) -> Visits:
        """The visits in a body of `step`."""
        numbers = {
            address[2:]: n
            for address, n in self.numbers.items()
            if address[0] is step and address[1] == number
        }
        arrays = {n: self.arrays[n] for n in numbers.values()}
        return Visits(self.visit, numbers, arrays)

    def at(self, value: Value, x: Array, shadow: Any) -> tuple[Array, Any]:
        """A value and its shadow, visited if they are to be."""
        number = self.numbers.get((value,))
        if number is None:
            return x, shadow
        return self.visit(number, self.arrays[number], x, shadow)


@dataclasses.dataclass(frozen=True)
class Run:
    """What one evaluation shares among all programs in it.

    Attributes:
      composite: the rules, with their hyper-parameters.
      observe: sees every message, or None.
      jitted: the functions of the bodies that are kept as `jit`, by reading, and those
        of blocks, by form.
      visits: what is done at named values, or None.
      without_rules: the derivative is the network's own, JAX's.
      parameters: the relevance of parameters is asked for too: rules whose surrogates
        do not depend on them must give them their part.
      checkpoints: how many carries of a `while` loop are kept on either level.
      quiet: without effects: what is evaluated has been run before.
      remat: what lies between cuts is recomputed in the reverse pass: False, True, or a
        policy of `jax.checkpoint` that says what of it is kept.
      staged: the evaluation is traced, to be compiled: equal blocks are one function.
        None: whether it is traced says.
    """

    composite: Composite
    observe: Observe | None = None
    jitted: dict[Any, Callable[..., Any]] = dataclasses.field(default_factory=dict)
    visits: Visits | None = None
    without_rules: bool = False
    parameters: bool = False
    checkpoints: int = 64
    quiet: bool = False
    remat: bool | Callable[..., bool] = False
    staged: bool | None = None

    @property
    def policy(self) -> Callable[..., bool] | None:
        """What `jax.checkpoint` keeps, or None for nothing."""
        return None if isinstance(self.remat, bool) else self.remat

    def inside(self, step: Step, number: int = 0, arrays: Any = None) -> Run:
        """For a body of `step`: with its visits alone, and `arrays` as theirs."""
        if self.visits is None:
            return self
        visits = self.visits.inside(step, number)
        if arrays is not None:
            visits = dataclasses.replace(visits, arrays=arrays)
        return dataclasses.replace(self, visits=visits)


class Environment:
    """The values, and their shadows, of one program being evaluated."""

    def __init__(self, reading: Reading):
        self.reading = reading
        self.values: dict[Value, Any] = dict(reading.program.constants)
        self.shadows: dict[Value, Array] = {}

    def read(self, atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else self.values[atom]

    def shadow(self, atom: Any) -> Array | None:
        return None if isinstance(atom, Literal) else self.shadows.get(atom)

    def take(self, values: Sequence[Value]) -> tuple[list[Any], list[Array | None]]:
        """Values, and their shadows."""
        return [self.values[v] for v in values], [self.shadows.get(v) for v in values]

    def put(
        self, values: Sequence[Value], xs: Sequence[Any], shadows: Sequence[Any]
    ) -> None:
        """Writes values, and their shadows."""
        self.values.update(zip(values, xs, strict=True))
        pairs = zip(values, shadows, strict=True)
        self.shadows.update((v, s) for v, s in pairs if s is not None)

    def wants_shadow(self, value: Value) -> bool:
        return value in self.reading.shadowed


def as_arrays(atoms: Sequence[Any], outs: Sequence[Any]) -> list[Any]:
    """What a function returns; its program's constants may be numbers of Python's."""
    return [
        y if isinstance(y, Array) else jnp.asarray(y, v.aval.dtype)
        for v, y in zip(atoms, outs, strict=True)
    ]


def bind(equation: Equation, read: Callable[[Any], Any]) -> list[Any]:
    bind = equation.bound()
    return bind(*map(read, equation.inputs))


def run_equations(
    equations: Sequence[Equation],
    given: Mapping[Value, Any],
    read: Callable[[Any], Any] | None = None,
) -> list[Any]:
    """The results of the last of some equations, from given values and from `read`."""
    local = values_of(equations, given, read)
    return [local[v] for v in equations[-1].outputs]


def values_of(
    equations: Sequence[Equation],
    given: Mapping[Value, Any],
    read: Callable[[Any], Any] | None = None,
) -> dict[Value, Any]:
    """The given values and those that some equations make of them and of `read`."""
    local = dict(given)

    def find(atom: Any) -> Any:
        if isinstance(atom, Literal):
            return atom.val
        return local[atom] if atom in local or read is None else read(atom)

    for equation in equations:
        local.update(zip(equation.outputs, bind(equation, find), strict=True))
    return local


def shadow_of(atom: Any, x: Any, wanted: bool, env: Environment) -> Array | None:
    if not wanted:
        return None
    shadow = env.shadow(atom)
    return zero_beside(x) if shadow is None else shadow


def spread(step: Step, x: Array) -> Array:
    """A unit's root, or its shadow, with each element where it is in the result."""
    placement = step.unit.spread if step.unit is not None else None
    if placement is None:
        return x
    axes = [i for i in placement if i is not None]
    x = x.reshape([n for n, i in zip(x.shape, placement, strict=True) if i is not None])
    x = x.transpose(sorted(range(len(axes)), key=axes.__getitem__))
    shape = step.outputs[0].aval.shape
    return lax.broadcast_in_dim(x, shape, sorted(axes))


def bounded_operand(equation: Equation, position: int, x: Any) -> Any:
    """An operand that is held, so that nothing times the equation's slope is nothing.

    `where(s == 0, 0, x / s)` gives the quotient nothing where `s = 0`.
    """
    entry = lookup(equation.primitive)
    if entry is None or entry.kind is not Kind.ELEMENTWISE or not is_real(x):
        return x
    if entry.is_quotient and position == 1:
        return nonzero(x)
    return finite(x) if entry.is_product else x


def take_in(y: Array) -> Array:
    """A shadow for `y` whose relevance `r` becomes a multiplier of `y`: `c = r / y`.

    An integer has none: what arrives at its shadow stays there.
    """
    if not jnp.issubdtype(jnp.result_type(y), jnp.inexact):
        return zero_beside(y)
    return route(_reciprocal_scale, lax.full_like(y, 0), (y,), (y,))


def _reciprocal_scale(zero: Array, aux: tuple[Array]) -> tuple[Array]:
    (y,) = aux
    y = wide(y)
    at_zero = y == 0  # nothing made it: its relevance is dropped
    return (jnp.where(at_zero, 0, 1 / jnp.where(at_zero, 1, y)),)


def detached(step: Step, env: Environment) -> Any:
    """No relevance passes."""
    results = run_equations(step.equations, {}, env.read)
    held = [held_constant(y) if is_real(y) else y for y in results]
    return held, [lax.full_like(y, 0) for y in held]
