"""Activations: a region of elementwise equations as a function of one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax import Array, lax

from jaxlrp import rules
from jaxlrp._operations import (
    Keeping,
    hold,
    secant,
    send,
)
from jaxlrp._program.program import Equation, Value
from jaxlrp._reading.steps import Step
from jaxlrp._rewriting.environment import (
    Environment,
    Run,
    detached,
    spread,
    values_of,
)
from jaxlrp._rewriting.plain import passed_shadows
from jaxlrp.primitives import Kind, lookup


def activation(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """`y = phi(x)`: the identity, relevance passes unchanged."""
    if isinstance(rule, rules.Detach):
        return detached(step, env)
    phi, x, constants = region_of(step, env)
    same_shape = x.shape == step.outputs[0].aval.shape
    watched = run.observe is not None or run.visits is not None
    if step.passing and same_shape and not watched:
        y = send(_as_it_is, phi(x, constants), (x,), ())
    elif step.exact or isinstance(rule, rules.Taylor) or not same_shape:
        leaks = any(env.reading.is_active(v) for v in phi.held)
        y = hold(phi, x, constants) if leaks else phi(x, constants)
    else:
        epsilon = rule.epsilon if isinstance(rule, rules.Pass) else None
        keeping, sources = _keeping(step, phi, env)
        y = secant(phi, x, constants, epsilon, keeping, sources)
    return [y], passed_shadows(step, rule, [y], env)


def _as_it_is(y: Array, aux: Any, c: Array) -> tuple[Array]:
    return (c,)


def _keeping(
    step: Step, phi: Region, env: Environment
) -> tuple[Keeping, tuple[Any, ...]]:
    """What is kept of an activation, and what its root is recomputed from."""
    entries = [lookup(e.primitive) for e in phi.equations]
    last = entries[-1]
    points = all(e is not None and e.kind is Kind.ELEMENTWISE for e in entries)
    points = points and phi.placement is None
    scalars = all(v.aval.shape == () for v in phi.held)
    sources = step.sources

    def origin(*xs: Any) -> Array:
        assert step.argument is not None
        values = values_of(step.recipe, dict(zip(sources, xs, strict=True)))
        return spread(step, values[step.argument])

    keeping = Keeping(
        origin if sources else None,
        result=step.saved and last is not None and last.by_result,
        by_points=points and scalars,
        chooses=any(e is None or e.selects or e.kind is Kind.CALL for e in entries),
    )
    return keeping, tuple(map(env.read, sources))


def region_of(step: Step, env: Environment) -> tuple[Region, Array, tuple[Any, ...]]:
    """A unit as a function of its root, the root's value, and what it holds."""
    assert step.argument is not None
    held = tuple(v for v in step.operands if v is not step.argument)
    back = None
    if step.unit is not None and step.unit.spread is not None:
        back = step.unit.spread
    phi = Region(step.argument, held, step.equations, back)
    return phi, spread(step, env.read(step.argument)), tuple(map(env.read, held))


def _gathered(x: Array, placement: tuple[int | None, ...], shape: Any) -> Array:
    """What was spread, as it was: the first of each element's copies."""
    axes = [i for i in placement if i is not None]
    others = [i for i in range(x.ndim) if i not in axes]
    for axis in reversed(others):
        x = lax.index_in_dim(x, 0, axis, keepdims=False)
    order = sorted(axes)
    return x.transpose([order.index(i) for i in axes]).reshape(shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Region:
    """An elementwise region as a function of its argument and of what it holds.

    Where the argument is repeated on the way, of copies, one for each element of the
    result; `placement` is where its axes lie.
    """

    argument: Value
    held: tuple[Value, ...]
    equations: tuple[Equation, ...]
    placement: tuple[int | None, ...] | None = None

    def __call__(self, x: Array, constants: Sequence[Any]) -> Array:
        return self.all_values(x, constants)[self.equations[-1].outputs[0]]

    def all_values(self, x: Array, constants: Sequence[Any]) -> dict[Value, Any]:
        """Every value inside, by name."""
        if self.placement is not None:
            x = _gathered(x, self.placement, self.argument.aval.shape)
        given = {self.argument: x, **dict(zip(self.held, constants, strict=True))}
        return values_of(self.equations, given)
