"""Roles that are no layers: activations, normalisers, products, what moves elements."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import rules
from jaxlrp._operations import (
    Keeping,
    denominator,
    divided,
    hold,
    redistribute,
    route,
    secant,
    send,
    wide,
)
from jaxlrp._program.program import Equation, Value
from jaxlrp._reading.attention import fused_attention
from jaxlrp._reading.facts import is_real
from jaxlrp._reading.finish import passes_shadow
from jaxlrp._reading.steps import Step
from jaxlrp._reading.symbols import moved
from jaxlrp._rewriting.environment import (
    Environment,
    Run,
    bind,
    detached,
    run_equations,
    shadow_of,
    values_of,
)
from jaxlrp._rewriting.shares import observed_share, shared
from jaxlrp._rewriting.sums import by_parts
from jaxlrp.errors import RuleError
from jaxlrp.primitives import Kind, lookup
from jaxlrp.rules import Operation, Share
from jaxlrp.rules._base import unbroadcast


def plain(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """JAX's own derivative is the rule."""
    if isinstance(rule, rules.Detach):
        return detached(step, env)
    results = bind(step.main, env.read)
    return results, _passed_shadows(step, rule, results, env)


def _passed_shadows(
    step: Step, rule: Any, results: Sequence[Array], env: Environment
) -> list[Array | None]:
    """The results' shadows, for a step that hands shadows on."""
    if not any(env.wants_shadow(v) for v in step.outputs):
        return [None] * len(results)
    if not passes_shadow(step, rule):
        return [None] * len(results)
    if not any(is_real(y) for y in results):
        return moved(step, env)
    inputs = step.main.inputs
    if step.root is not None or step.held or _maps_one_value(step):
        shadow = env.shadow(_kept_signal(step))
        if shadow is None:
            return [lax.full_like(y, 0) for y in results]
        (y,) = results
        return [jnp.broadcast_to(shadow, y.shape).astype(y.dtype)]
    # Copies and selections move the shadow as they move the value.
    positions = [i for i, v in enumerate(inputs) if env.shadow(v) is not None]
    operands = [env.read(v) for v in inputs]
    bind = step.main.bound()

    def moved(*xs: Any) -> list[Any]:
        full = list(operands)
        for i, x in zip(positions, xs, strict=True):
            full[i] = x
        return bind(*full)

    primals = [operands[i] for i in positions]
    tangents = [env.shadow(inputs[i]) for i in positions]
    if not positions:
        return [lax.full_like(y, 0) for y in results]
    return list(jax.jvp(moved, primals, tangents)[1])


def _maps_one_value(step: Step) -> bool:
    """Elementwise, of one value and at most a constant: `-x`, `a x`, `x + b`."""
    return step.by_elements and len(step.signals) == 1 and len(step.main.inputs) <= 2


def _kept_signal(step: Step) -> Value:
    """The one operand that relevance goes to."""
    if step.root is not None:
        return step.root
    held = [step.main.inputs[i] for i in step.held]
    (signal,) = [v for v in step.signals if v not in held]
    return signal


def scale(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """`y = a x` or `y = x + b` with a constant, standing alone."""
    if isinstance(rule, rules.Epsilon):
        return _stabilised(step, rule, env, run)
    if rule.compares_parts:
        return by_parts(step, rule, env, run)
    if not isinstance(rule, rules.Pass):
        return plain(step, rule, env, run)
    return activation(dataclasses.replace(step, root=step.signals[0]), rule, env, run)


def batch_norm(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """`y = a x + b`, one number of each for a feature, as a layer of its own."""
    if isinstance(rule, rules.Epsilon):
        return _stabilised(step, rule, env, run)
    if not isinstance(rule, rules.LRP0):
        return activation(step, rule, env, run)
    return run_equations(step.equations, {}, env.read), [None]


def _stabilised(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """The epsilon rule of an affine map of each element."""
    (y,) = run_equations(step.equations, {}, env.read)
    share = Share(y, y, rule.epsilon, form=rule.stabiliser)
    if run.observe is not None:
        share = observed_share(share, step, run.observe)
    y, shadow = shared(y, [share], env.wants_shadow(step.outputs[0]))
    return [y], [shadow]


def activation(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """`y = phi(x)`: the identity, relevance passes unchanged."""
    if isinstance(rule, rules.Detach):
        return detached(step, env)
    phi, x, constants = _region(step, env)
    same_shape = x.shape == step.outputs[0].aval.shape
    watched = run.observe is not None or run.visits is not None
    if step.passing and same_shape and not watched:
        y = send(_as_it_is, phi(x, constants), (x,), ())
    elif step.plain or isinstance(rule, rules.Taylor) or not same_shape:
        leaks = any(env.reading.is_active(v) for v in phi.held)
        y = hold(phi, x, constants) if leaks else phi(x, constants)
    else:
        epsilon = rule.epsilon if isinstance(rule, rules.Pass) else None
        keeping, sources = _keeping(step, phi, env)
        y = secant(phi, x, constants, epsilon, keeping, sources)
    return [y], _passed_shadows(step, rule, [y], env)


def _as_it_is(y: Array, aux: Any, c: Array) -> tuple[Array]:
    return (c,)


def _keeping(
    step: Step, phi: _Region, env: Environment
) -> tuple[Keeping, tuple[Any, ...]]:
    """What is kept of an activation, and what its root is made of again."""
    entries = [lookup(e.primitive) for e in phi.equations]
    last = entries[-1]
    points = all(e is not None and e.kind is Kind.ELEMENTWISE for e in entries)
    scalars = all(v.aval.shape == () for v in phi.held)
    sources = step.sources

    def origin(*xs: Any) -> Array:
        assert step.root is not None
        return values_of(step.origin, dict(zip(sources, xs, strict=True)))[step.root]

    keeping = Keeping(
        origin if sources else None,
        result=step.kept_on and last is not None and last.by_result,
        by_points=points and scalars,
    )
    return keeping, tuple(map(env.read, sources))


def _region(step: Step, env: Environment) -> tuple[_Region, Array, tuple[Any, ...]]:
    """A unit as a function of its root, the root's value, and what it holds."""
    assert step.root is not None
    held = tuple(v for v in step.operands if v is not step.root)
    phi = _Region(step.root, held, step.equations)
    return phi, env.read(step.root), tuple(map(env.read, held))


@dataclasses.dataclass(frozen=True, eq=False)
class _Region:
    """An elementwise region as a function of its root and of what it holds."""

    root: Value
    held: tuple[Value, ...]
    equations: tuple[Equation, ...]

    def __call__(self, x: Array, constants: Sequence[Any]) -> Array:
        return self.all_values(x, constants)[self.equations[-1].outputs[0]]

    def all_values(self, x: Array, constants: Sequence[Any]) -> dict[Value, Any]:
        """Every value inside, by name."""
        given = {self.root: x, **dict(zip(self.held, constants, strict=True))}
        return values_of(self.equations, given)


@dataclasses.dataclass(frozen=True, eq=False)
class _Centred:
    """A whole normalisation, of its signal and of what its statistics are of."""

    region: _Region
    path: tuple[Equation, ...]

    def __call__(self, x: Array, held: tuple[Array, Sequence[Any]]) -> Array:
        other, constants = held
        statistics = self.region.all_values(other, constants)
        return run_equations(self.path, {**statistics, self.region.root: x})[0]


def held(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """A product or quotient whose divisor or statistic counts as a constant."""
    if step.path:
        region, x, constants = _region(step, env)
        y = hold(_Centred(region, step.path), x, (x, constants))
        return [y], _passed_shadows(step, rule, [y], env)
    if isinstance(rule, rules.Taylor) or not step.held:
        return plain(step, rules.Taylor(), env, run)
    inputs = step.main.inputs
    bind = step.main.bound()
    order = [i for i in range(len(inputs)) if i not in step.held] + list(step.held)
    split = len(inputs) - len(step.held)

    def f(xs: Sequence[Any], held: Sequence[Any]) -> Any:
        operands: list[Any] = [None] * len(inputs)
        for i, x in zip(order, [*xs, *held], strict=True):
            operands[i] = x
        return list(bind(*operands))

    values = [env.read(inputs[i]) for i in order]
    results = hold(f, tuple(values[:split]), tuple(values[split:]))
    return results, _passed_shadows(step, rule, results, env)


def product(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """A product of active operands: equal parts, or the signal takes all."""
    if step.main.opaque:
        return fused_attention(step, rule, env)
    if isinstance(rule, rules.SignalTakesAll) and step.held:
        return held(step, rule, env, run)
    if isinstance(rule, rules.Taylor):
        return plain(step, rule, env, run)
    if isinstance(rule, rules.Detach):
        return detached(step, env)
    (y,) = bind(step.main, env.read)
    count = _degree(step, env)
    if not isinstance(rule, rules.UniformSplit) or rule.epsilon is None:
        return [divided(y, count)], [None]
    part = functools.partial(_part_of, rule.stabiliser)
    return [route(part, y, (y,), (rule.epsilon, count))], [None]


def _part_of(form: str, y: Array, aux: Any) -> tuple[Array]:
    epsilon, count = aux
    return (wide(y) / denominator(count * wide(y), epsilon, (), form),)


def homogeneous(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """Gradient x input over the degree: what Euler's theorem says is the result."""
    results, degree = bind(step.main, env.read), _degree(step, env)
    real = [is_real(y) for y in results]
    given = [divided(y, degree) if r else y for y, r in zip(results, real, strict=True)]
    return given, [None] * len(results)


def _degree(step: Step, env: Environment) -> Any:
    """In its active operands; two for a product of two."""
    entry = lookup(step.main.primitive)
    inputs, params = step.main.inputs, step.main.params
    active = [env.reading.is_active(v) for v in inputs]
    degree = entry.degree(params, active) if entry is not None else None
    return 2 if degree is None else degree(*map(env.read, inputs))


def redistributed(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """Any role under a rule that is stated on relevances: they go to the shadows."""
    if step.role == "selection":
        if step.by_elements:  # of two values, whatever the rule
            return plain(step, rule, env, run)
        _check_candidates(step.main, rule)
    if step.layer is not None and isinstance(rule, rules.Pass):
        _check_one_shape(step, rule)
    of_axes = step.role == "product" and not step.by_elements
    if of_axes and isinstance(rule, rules.Absolute):
        return product(step, rules.UniformSplit(), env, run)
    if len(step.outputs) > 1:
        return plain(step, rules.Taylor(), env, run)
    if step.root is not None or len(step.equations) > 1:
        if step.root is None:
            step = dataclasses.replace(step, root=step.signals[0])
        region, x, constants = _region(step, env)
        f = _Joined(region, step.path)
        signals, xs, held = (step.root,), (x,), constants
    else:
        equation = step.main
        atoms = equation.inputs
        receivers = step.receivers(rule)
        positions = [i for i, v in enumerate(atoms) if v in receivers]
        others = [i for i in range(len(atoms)) if i not in positions]
        signals = tuple(atoms[i] for i in positions)
        f = _Operands(equation, tuple(positions), tuple(others))
        xs = tuple(env.read(v) for v in signals)
        held = tuple(env.read(atoms[i]) for i in others)
    zeros = tuple(shadow_of(v, x, True, env) for v, x in zip(signals, xs, strict=True))
    y, shadow = redistribute(_relevances, f, xs, zeros, held, rule)
    return [y], [shadow]


def _check_candidates(equation: Equation, rule: Any) -> None:
    entry = lookup(equation.primitive)
    if entry is None or entry.candidates is None:
        raise TypeError(
            f"rule {rule!r} on primitive {equation.primitive.name!r} at "
            f"{equation.line}: this rule needs a maximum or minimum over axes or "
            f"windows; give others WinnerTakesAll() by Composite.on(primitive=...)"
        )


def _check_one_shape(step: Step, rule: Any) -> None:
    x, y = step.signals[0].aval.shape, step.outputs[0].aval.shape
    if x != y:
        raise TypeError(
            f"rule {rule!r} on a layer with inputs of shape {x} and results of shape "
            f"{y}, at {step.main.line}: relevance passes unchanged only where these "
            f"are one shape; name such layers by Composite.on(scope=...)"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Joined:
    """A unit of several equations as a function of (operands, constants)."""

    region: _Region
    path: tuple[Equation, ...] = ()

    def __call__(self, xs: Sequence[Array], held: Sequence[Any]) -> Array:
        return self.region(xs[0], held)

    def moved_back(self, x: Array, held: Sequence[Any], relevance: Array) -> Array:
        """The relevance of the result's elements, where they stand in the root."""
        given = self.region.all_values(x, held)
        values = (self.region.root, *(e.outputs[0] for e in self.path[:-1]))
        for value, equation in reversed(list(zip(values, self.path, strict=True))):
            relevance = _moved_by(equation, value, given, relevance)
        return relevance


def _moved_by(
    equation: Equation, value: Value, given: Mapping[Value, Any], relevance: Array
) -> Array:
    """Through an equation on a signal's way: arithmetic hands relevance through."""
    x = given[value]
    entry = lookup(equation.primitive)
    if entry is None or entry.kind is not Kind.STRUCTURAL:
        return unbroadcast(relevance, x.shape).astype(x.dtype)

    def move(x: Array) -> Array:
        return run_equations((equation,), {**given, value: x})[0]

    return jax.vjp(move, x)[1](relevance)[0]


@dataclasses.dataclass(frozen=True, eq=False)
class _Operands:
    """An equation as a function of (active operands, other operands)."""

    equation: Equation
    positions: tuple[int, ...]
    others: tuple[int, ...]

    def __call__(self, xs: Sequence[Array], held: Sequence[Any]) -> Array:
        operands: list[Any] = [None] * (len(xs) + len(held))
        for i, x in zip((*self.positions, *self.others), (*xs, *held), strict=True):
            operands[i] = x
        return self.equation.bound()(*operands)[0]


def _relevances(
    rule: Any, f: Any, xs: Any, held: Any, y: Array, relevance: Array
) -> Sequence[Array]:
    """What a rule gives to each operand of `y = f(xs, held)`."""
    candidates = None
    constants: tuple[Any, ...] = ()
    if isinstance(f, _Operands):
        entry = lookup(f.equation.primitive)
        constants = tuple(
            v for v in held if jnp.issubdtype(jnp.result_type(v), jnp.inexact)
        )
        if entry is not None and entry.candidates is not None:
            candidates = functools.partial(entry.candidates, f.equation.params)
    elif f.path:
        relevance = f.moved_back(xs[0], held, relevance.astype(y.dtype))
    operation = Operation(tuple(xs), y, lambda *xs: f(xs, held), constants, candidates)
    return rule.relevances(operation, relevance.astype(y.dtype))


def gradient(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """No rule of its own: gradient x input."""
    results = bind(step.main, env.read)
    return results, [None] * len(results)


def custom(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """A rule that the user registered."""
    equation = step.main
    entry = lookup(equation.primitive)
    assert entry is not None and entry.rule is not None
    active = tuple(env.reading.is_active(v) for v in equation.inputs)
    operands = [env.read(v) for v in equation.inputs]
    shadows = [env.shadow(v) for v in equation.inputs]
    results, out_shadows = entry.rule(
        equation.bound(),
        active,
        operands,
        shadows,
        dict(equation.params),
    )
    where = equation.line
    name = equation.primitive.name
    if len(results) != len(equation.outputs):
        raise RuleError(
            f"the rule of primitive {name!r} returned {len(results)} results, expected "
            f"{len(equation.outputs)}, at {where}"
        )
    for y, v in zip(results, equation.outputs, strict=True):
        if jnp.shape(y) != v.aval.shape or jnp.result_type(y) != v.aval.dtype:
            raise RuleError(
                f"the rule of primitive {name!r} returned {jnp.result_type(y)}"
                f"{list(jnp.shape(y))}, expected {v.aval.str_short()}, at {where}"
            )
    return results, out_shadows
