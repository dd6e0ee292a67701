"""What the rules of all roles share: an environment, messages, and how to share them.

A message to a value `y` is a multiplier `c` (relevance `R = y c`) or, beside the value,
plain relevance `r` at its shadow.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Literal

from jaxlrp._operations import route, stabilise, wide
from jaxlrp._program import Equation, Value
from jaxlrp._steps import Reading, Step
from jaxlrp.composites import Composite
from jaxlrp.rules import Share

Observe = Callable[[str, Step, Array, Array | None], tuple[Array, Array | None]]
"""`observe(place, step, value, shadow)`: called at every value a step reads
("in"), at its surrogates ("surrogate") and results ("out"), and at constants that
enter the body of a loop or branch ("constant"); see `jaxlrp._audit`."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What one evaluation shares among all programs in it.

    Attributes:
      composite: the rules, with their hyper-parameters.
      observe: sees every message, or None.
      jitted: the functions of the bodies that are kept as `jit`, by reading.
    """

    composite: Composite
    observe: Observe | None = None
    jitted: dict[int, Callable[..., Any]] = dataclasses.field(default_factory=dict)


class Environment:
    """The values, and the shadows beside them, of one program being evaluated."""

    def __init__(self, reading: Reading):
        self.reading = reading
        self.values: dict[Value, Any] = dict(reading.program.constants)
        self.shadows: dict[Value, Array] = {}

    def read(self, atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else self.values[atom]

    def shadow(self, atom: Any) -> Array | None:
        return None if isinstance(atom, Literal) else self.shadows.get(atom)

    def wants_shadow(self, value: Value) -> bool:
        return value in self.reading.shadowed


def bind(equation: Equation, read: Callable[[Any], Any]) -> list[Any]:
    bind = equation.bound()
    return bind(*map(read, equation.inputs))


def run_equations(
    equations: Sequence[Equation],
    given: Mapping[Value, Any],
    read: Callable[[Any], Any] | None = None,
) -> list[Any]:
    """The results of the last of some equations, from given values and from `read`."""
    local = dict(given)

    def find(atom: Any) -> Any:
        if isinstance(atom, Literal):
            return atom.val
        return local[atom] if atom in local or read is None else read(atom)

    results: list[Any] = []
    for equation in equations:
        results = bind(equation, find)
        local.update(zip(equation.outputs, results, strict=True))
    return results


def shadow_of(atom: Any, x: Any, wanted: bool, env: Environment) -> Array | None:
    if not wanted:
        return None
    shadow = env.shadow(atom)
    return lax.full_like(x, 0) if shadow is None else shadow


def take_in(y: Array) -> Array:
    """A shadow for `y` whose relevance `r` becomes a multiplier of `y`: `c = r / y`."""
    return route(_reciprocal_scale, lax.full_like(y, 0), (y,), (y,))


def _reciprocal_scale(zero: Array, aux: tuple[Array]) -> tuple[Array]:
    (y,) = aux
    y = wide(y)
    at_zero = y == 0  # nothing made it: its relevance is dropped
    return (jnp.where(at_zero, 0, 1 / jnp.where(at_zero, 1, y)),)


def shared(
    y: Array, shares: Sequence[Share], wants_shadow: bool
) -> tuple[Array, Array | None]:
    """`y` with its relevance cut into shares, and its shadow."""
    hs = tuple(s.surrogate for s in shares)
    aux = tuple((s.z, s.epsilon, s.part) for s in shares)
    per = tuple(s.per for s in shares)
    shadow = None
    if wants_shadow:
        plain = functools.partial(_plain_scales, per)
        shadow = route(plain, lax.full_like(y, 0), hs, aux)
    return route(functools.partial(_multiple_scales, per), y, hs, aux), shadow


def _multiple_scales(per: Any, y: Array, aux: Any) -> list[Array]:
    """`part * y / s(z)`: what arrives is a multiplier, `R = y c`.

    Where `z = 0` all contributions are zero, and the factor is too: `y / epsilon` could
    overflow before it meets them.
    """
    scales = []
    for axes, (z, epsilon, part) in zip(per, aux, strict=True):
        scale = wide(y) / _denominator(z, epsilon, axes)
        scales.append(_part(jnp.where(z == 0, 0, scale), part))
    return scales


def _plain_scales(per: Any, y: Array, aux: Any) -> list[Array]:
    """`part / s(z)`: what arrives is relevance."""
    return [
        _part(1 / _denominator(z, epsilon, axes), part)
        for axes, (z, epsilon, part) in zip(per, aux, strict=True)
    ]


def _denominator(z: Array, epsilon: Any, per: tuple[int, ...]) -> Array:
    if per:
        square = jnp.abs(wide(z)) ** 2
        mean = jnp.mean(square, axis=per, keepdims=True)
        # The root has no derivative at zero, where any epsilon will do.
        epsilon = epsilon * jnp.sqrt(jnp.where(mean == 0, 1, mean))
    return stabilise(z, epsilon)


def _part(scale: Array, part: Any) -> Array:
    if isinstance(part, float) and part == 1.0:
        return scale
    return scale * jnp.asarray(part, scale.dtype)


def observed_share(share: Share, step: Step, observe: Observe) -> Share:
    surrogate, _ = observe("surrogate", step, share.surrogate, None)
    return dataclasses.replace(share, surrogate=surrogate)


def detached(step: Step, env: Environment) -> Any:
    """No relevance passes."""
    results = run_equations(step.equations, {}, env.read)
    routed = [route(_no_scales, y, (), ()) for y in results]
    return routed, [lax.full_like(y, 0) for y in routed]


def _no_scales(y: Array, aux: Any) -> tuple[Array, ...]:
    return ()
