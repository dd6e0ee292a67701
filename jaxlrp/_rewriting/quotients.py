"""Evaluation of a reading at two inputs at once, the explained one and a reference.

The result is the program's own value at the explained input. Its derivative, as
`jax.vjp` takes it, is the difference quotient between the two: a step `y = g(x)` with
`y0 = g(x0)` passes the multiplier `c_y` on so that

    sum_i c_i (x_i - x0_i) = c_y (y - y0).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import jaxpr_as_fun
from jax.extend.core import primitives as P

from jaxlrp import _compat
from jaxlrp._program.bodies import bodies_of
from jaxlrp._program.program import Equation, Value
from jaxlrp._reading.facts import is_real
from jaxlrp._reading.steps import Reading, Step
from jaxlrp._rewriting.environment import Environment, Visits, run_equations
from jaxlrp._rewriting.while_loop import Loop, reversible
from jaxlrp.errors import UnexplainedPrimitiveError
from jaxlrp.primitives import Kind, lookup
from jaxlrp.rules._base import unbroadcast

Pairs = tuple[list[Any], list[Array | None]]
"""Values, each with its reference; None where it is the value itself."""


class Options(NamedTuple):
    """How both are evaluated.

    Attributes:
      checkpoints: how many carries of a `while` loop are kept on either level.
      apart: what relevance cannot pass (an index, what `stop_gradient` holds) is each
        input's own, and not that of the explained one for both.
      visits: what is done at named values, none of them in a `while` loop or a
        `shard_map`; in the place of a shadow stands the reference, or None.
      followed: references have JAX's own derivative; otherwise they have none.
    """

    checkpoints: int = 64
    apart: bool = False
    visits: Visits | None = None
    followed: bool = False

    def inside(self, step: Step, number: int = 0, arrays: Any = None) -> Options:
        """For a body of `step`: with its visits alone, and `arrays` as theirs."""
        if self.visits is None:
            return self
        visits = self.visits.inside(step, number)
        if arrays is not None:
            visits = dataclasses.replace(visits, arrays=arrays)
        return self._replace(visits=visits)


def evaluate(
    reading: Reading, inputs: Sequence[Any], references: Any, options: Options
) -> Pairs:
    """Evaluates a reading.

    What relevance cannot pass (an index, what `stop_gradient` holds) is a constant:
    both inputs get that of the explained one, or each its own. A maximum is none,
    though softmax holds it: with that of the other, `exp(x0 - max(x))` could have any
    size. Branches and numbers of steps are those of the explained input. So are
    choices between values, except where one value decides that they are made of.

    Args:
      reading: what to evaluate.
      inputs: the program's inputs.
      references: of each input; None where it is the input itself.
      options: how.

    Returns:
      The program's outputs and their references.
    """
    env = Environment(reading)
    maxima: set[Value] = set()
    chosen = _chosen(reading, options)
    for v, x, reference in zip(reading.program.inputs, inputs, references, strict=True):
        env.values[v] = x
        if reference is not None and (options.apart or reading.is_active(v)):
            env.shadows[v] = reference
    for step in reading.steps:
        for equation in step.equations:
            scope = reading.program.inner_scope(equation)
            with _compat.equation_context(equation.source, equation.context, scope):
                unit = chosen.get(equation)
                _do(step, equation, unit, env, maxima, options)
    outputs = reading.program.outputs
    return [env.read(v) for v in outputs], [env.shadow(v) for v in outputs]


def _do(
    step: Step,
    equation: Equation,
    unit: _Unit | None,
    env: Environment,
    maxima: set[Value],
    options: Options,
) -> None:
    """Evaluates one equation at both, and writes its results."""
    moved = [v for v in equation.inputs if env.shadow(v) is not None]
    passing = [v for v in moved if env.reading.is_active(v) or v in maxima]
    moves = maxima.issuperset(passing) and _moves(equation)
    held = passing and (step.constant or moves)
    if held or (passing and _is_largest(equation)):
        maxima.update(equation.outputs)
    active = [bool(held) or env.reading.is_active(v) for v in equation.outputs]
    if not moved or not (options.apart or any(active)):
        values, references = _once(equation, env), [None] * len(equation.outputs)
    elif unit and passing and env.shadow(unit.argument) is not None:
        by_operands = _twice(equation, env, passing, options)
        values, references = _of_unit(unit, env, options, by_operands)
    elif step.bodies:
        values, references = _control(step, env, options)
    elif not (passing and any(active)):
        values, references = _once(equation, env), _once(equation, _of_references(env))
    elif equation.primitive is P.stop_gradient_p:
        (operand,) = moved
        values, references = [env.read(operand)], [env.shadow(operand)]
    else:
        values, references = _twice(equation, env, passing, options)
    for v, y, reference, carries in zip(
        equation.outputs, values, references, active, strict=True
    ):
        reference = reference if carries or options.apart else None
        if options.visits is not None:
            y, reference = options.visits.at(v, y, reference)
        env.values[v] = y
        if reference is not None:
            env.shadows[v] = _reference(reference, options)


def _reference(x: Any, options: Options) -> Any:
    return x if options.followed else lax.stop_gradient(x)


def _of_references(env: Environment) -> Environment:
    """The same with references as the values."""
    other = Environment(env.reading)
    other.values = env.values | env.shadows
    return other


def _is_largest(equation: Equation) -> bool:
    entry = lookup(equation.primitive)
    return entry is not None and entry.kind is Kind.SELECTION


def _moves(equation: Equation) -> bool:
    """Does it pass a maximum on: copied, held, or chosen if it is finite?"""
    entry = lookup(equation.primitive)
    if entry is None or not any(is_real(v.aval) for v in equation.outputs):
        return False
    holds = equation.primitive is P.stop_gradient_p
    moves = entry.kind is Kind.STRUCTURAL or entry.selects or entry.picks
    return holds or moves


def _once(equation: Equation, env: Environment) -> list[Any]:
    """At the explained input alone, as a constant."""
    constants = {
        v: lax.stop_gradient(env.read(v))
        for v in equation.inputs
        if isinstance(v, Value)
    }
    return run_equations((equation,), constants)


# ---- one equation ------------------------------------------------------------------


def _twice(
    equation: Equation, env: Environment, passing: Sequence[Any], options: Options
) -> Pairs:
    """With a quotient for the operands that `passing` has."""
    where = [i for i, v in enumerate(equation.inputs) if v in passing]
    operands = [jnp.asarray(env.read(v)) for v in equation.inputs]
    before = [
        x if env.shadow(v) is None else jnp.asarray(env.shadow(v))
        for v, x in zip(equation.inputs, operands, strict=True)
    ]
    ends, starts = ([x[i] for i in where] for x in (operands, before))
    still = [i for i in range(len(operands)) if i not in where]
    others, others_before = (
        [lax.stop_gradient(x[i]) for i in still] for x in (operands, before)
    )
    f = _Between(equation, tuple(where))
    values = _paired(f, ends, lax.stop_gradient(starts), others)
    return values, f(_reference(starts, options), others_before)


@dataclasses.dataclass(frozen=True)
class _Between:
    """An equation as a function of the operands that differ, and of the others."""

    equation: Equation
    where: tuple[int, ...]

    def __call__(self, xs: Sequence[Any], others: Sequence[Any]) -> list[Any]:
        moving, still = iter(xs), iter(others)
        count = len(self.equation.inputs)
        operands = [next(moving if i in self.where else still) for i in range(count)]
        return self.equation.bound()(*operands)


@dataclasses.dataclass(frozen=True)
class _Unit:
    """Equations that make a choice, as a function of the one value that decides it."""

    equations: tuple[Equation, ...]
    argument: Value
    constants: tuple[Value, ...]

    def __call__(self, xs: Sequence[Any], others: Sequence[Any]) -> list[Any]:
        constants = dict(zip(self.constants, others, strict=True))
        return run_equations(self.equations, {self.argument: xs[0], **constants})


def _of_unit(
    unit: _Unit, env: Environment, options: Options, by_operands: Pairs
) -> Pairs:
    """The rescale rule: the other input may have chosen otherwise.

    Where one of both is infinite, as behind a mask, there is no quotient, and it is as
    the choice's operands have it.
    """
    end = jnp.asarray(env.read(unit.argument))
    start = jnp.asarray(env.shadow(unit.argument))
    others = [lax.stop_gradient(env.read(v)) for v in unit.constants]
    (y,) = _paired(unit, [end], [lax.stop_gradient(start)], others)
    (y0,) = unit([_reference(start, options)], others)
    known = jnp.isfinite(y) & jnp.isfinite(y0)
    (value,), (reference,) = by_operands
    value = jnp.where(known, y, value)
    return [value], [y0 if reference is None else jnp.where(known, y0, reference)]


def _chosen(reading: Reading, options: Options) -> dict[Equation, _Unit]:
    """Choices of one variable, as a leaky ReLU is: `where(x > 0, x, x / 10)`.

    Operand by operand they would have the choice of the explained input at both.
    """
    equations = [e for step in reading.steps for e in step.equations]
    order = {v: i for i, e in enumerate(equations) for v in e.outputs}
    found = {}
    for equation in equations:
        moving = _dependent(equation, reading)
        if any(map(reading.is_active, moving)) and not all(
            map(reading.is_active, moving)
        ):
            unit = _unit(equation, reading, equations, order, options)
            if unit is not None:
                found[equation] = unit
    return found


def _unit(
    equation: Equation,
    reading: Reading,
    equations: Sequence[Equation],
    order: dict[Value, int],
    options: Options,
) -> _Unit | None:
    """From the choice back to the nearest value that all of it is made of, if any."""
    visited = {} if options.visits is None else options.visits.numbers
    parts: list[Equation] = []
    pending: set[Value] = set(equation.outputs)
    while len(pending) > 1 or not parts:
        last = max(pending, key=lambda v: order.get(v, -1))
        if last not in order:
            return None
        maker = equations[order[last]]
        if not _by_element(maker) or (maker is not equation and (last,) in visited):
            return None
        parts.append(maker)
        pending = (pending - {last}) | _dependent(maker, reading)
    (argument,) = pending
    (y,) = equation.outputs
    real = is_real(argument.aval) and is_real(y.aval)
    if not real or argument.aval.shape != y.aval.shape:
        return None
    if not reading.is_active(argument):
        return None
    made = {argument, *(v for e in parts for v in e.outputs)}
    read = (v for e in parts for v in e.inputs if isinstance(v, Value))
    constants = tuple(v for v in dict.fromkeys(read) if v not in made)
    return _Unit(tuple(parts[::-1]), argument, constants)


def _dependent(equation: Equation, reading: Reading) -> set[Value]:
    """The operands that depend on what is attributed, relevance or not."""
    values = [v for v in equation.inputs if isinstance(v, Value)]
    return {v for v in values if reading.is_active(v) or _is_cut(v, reading)}


def _is_cut(v: Value, reading: Reading) -> bool:
    return v in reading.facts and reading.facts[v].cut


def _by_element(equation: Equation) -> bool:
    """Is each element made of those at its place, and nothing held or hidden?"""
    entry = lookup(equation.primitive)
    if entry is None or equation.opaque or len(equation.outputs) != 1:
        return False
    if equation.primitive is P.stop_gradient_p or entry.kind is Kind.CALL:
        return False
    known = entry.kind in (Kind.ELEMENTWISE, Kind.INERT) or entry.still
    (shape,) = (getattr(v.aval, "shape", None) for v in equation.outputs)
    shapes = (getattr(v.aval, "shape", None) for v in equation.inputs)
    return known and all(s in ((), shape) for s in shapes)


_Function = _Between | _Unit


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _paired(f: _Function, ends: Any, starts: Any, others: Any) -> list[Array]:
    """`f(ends)`; its derivative is the difference quotient from `starts`."""
    return f(ends, others)


def _forward(f: _Function, ends: Any, starts: Any, others: Any) -> Any:
    return f(ends, others), (ends, starts, others)


def _backward(f: _Function, residuals: Any, c: Any) -> Any:
    ends, starts, others = residuals
    quotients = _quotients(f)(f, ends, starts, others, c)
    given = [q.astype(x.dtype) for q, x in zip(quotients, ends, strict=True)]
    return given, *_compat.no_cotangent((starts, others))


_paired.defvjp(_forward, _backward)

Quotients = Callable[[_Function, Any, Any, Any, Any], Sequence[Array]]
"""From a function, both ends and the results' multipliers to those of its operands."""


def _quotients(f: _Function) -> Quotients:
    """By the algebra of the primitive, as the rule book has it."""
    if isinstance(f, _Unit):
        return _of_one_variable
    entry = lookup(f.equation.primitive)
    active = [i in f.where for i in range(len(f.equation.inputs))]
    if entry is None or f.equation.opaque:
        return _on_the_line
    if entry.kind in (Kind.STRUCTURAL, Kind.LINEAR):
        return _linear
    if entry.kind is Kind.CONTRACTION:
        return _linear if sum(active) == 1 else _in_the_middle
    if entry.kind is Kind.SELECTION or (entry.picks and sum(active) > 1):
        return _of_a_choice
    if entry.kind not in (Kind.ELEMENTWISE, Kind.CALL):
        return _on_the_line
    if entry.linear(active):
        return _linear
    if entry.is_product:
        return _in_the_middle
    if entry.is_quotient and sum(active) == 2:
        return _of_a_quotient
    return _of_one_variable if sum(active) == 1 else _on_the_line


def _linear(f: _Function, ends: Any, starts: Any, others: Any, c: Any) -> Any:
    """The derivative, which is the same everywhere."""
    return _pulled(f, ends, others, c)


def _in_the_middle(f: _Function, ends: Any, starts: Any, others: Any, c: Any) -> Any:
    """The derivative half way; exact for products:

    a b - a0 b0 = (a - a0) (b + b0) / 2 + (b - b0) (a + a0) / 2
    """
    return _pulled(f, _between(ends, starts, 0.5), others, c)


def _of_a_quotient(f: _Function, ends: Any, starts: Any, others: Any, c: Any) -> Any:
    """As of a product with `1 / b`, and `1 / b - 1 / b0 = (b0 - b) / (b b0)`."""
    (a, b), (a0, b0), (m,) = ends, starts, c
    wide = jnp.promote_types(m.dtype, jnp.float32)
    a, b, a0, b0, m = (v.astype(wide) for v in (a, b, a0, b0, m))
    by_a = m * (1 / b + 1 / b0) / 2
    by_b = -m * (a + a0) / 2 / b / b0
    return unbroadcast(by_a, a.shape), unbroadcast(by_b, b.shape)


def _of_one_variable(f: _Function, ends: Any, starts: Any, others: Any, c: Any) -> Any:
    """`(y - y0) / (x - x0)`; where the two are nearly one, the derivative's mean.

    The rounding of the quotient and the error of two nodes are least near eps^(1/3).
    """
    (x,), (x0,), (m,) = ends, starts, c
    (y,), (y0,) = f(ends, others), f(starts, others)
    if x.shape != y.shape:  # one number, spread
        return _on_the_line(f, ends, starts, others, c)
    wide = jnp.promote_types(m.dtype, jnp.float32)
    step = jnp.where(x == x0, 0, x - x0).astype(wide)
    size = jnp.maximum(jnp.abs(x), jnp.abs(x0)).astype(jnp.abs(step).dtype)
    near = jnp.abs(step) <= float(jnp.finfo(x.dtype).eps) ** (1 / 3) * size
    if isinstance(f, _Unit):  # one of both may be masked
        known = jnp.isfinite(y) & jnp.isfinite(y0)
        y, y0, near = jnp.where(known, y, 0), jnp.where(known, y0, 0), near | ~known
    (mean,) = _mean(_TWO, f, ends, starts, others, c)
    slope = (y.astype(wide) - y0.astype(wide)) / jnp.where(near, 1, step)
    return (jnp.where(near, mean, (m * slope).astype(mean.dtype)),)


def _of_a_choice(f: _Function, ends: Any, starts: Any, others: Any, c: Any) -> Any:
    """All to one of the winners, the one whose own step is not the shorter one.

    If a maximum grows, `y > y0`, that is the winner of now, `x_j = y`, since
    `x_j - x0_j >= y - y0`; if it falls, the winner before. Anything else has the mean
    on the line.
    """
    steps = [jnp.where(x == x0, 0, x - x0) for x, x0 in zip(ends, starts, strict=True)]
    total = [jnp.zeros_like(x) for x in ends]
    left = list(c)
    for at in (ends, starts):
        _, winners = jax.jvp(lambda xs: f(xs, others), (list(at),), (steps,))
        taken = list(left)
        for k, (y, y0) in enumerate(
            zip(f(ends, others), f(starts, others), strict=True)
        ):
            if not is_real(y):
                continue
            share = jnp.where(y == y0, 0, y - y0) / jnp.where(
                winners[k] == 0, 1, winners[k]
            )
            fits = (share >= 0) & (share <= 1) & ((winners[k] != 0) | (y == y0))
            taken[k] = jnp.where(fits, left[k] * share, 0).astype(y.dtype)
            left[k] = jnp.where(fits, 0, left[k]).astype(y.dtype)
        total = _sums(total, _pulled(f, at, others, taken))
    return _sums(total, _on_the_line(f, ends, starts, others, left))


def _sums(xs: Sequence[Array], ys: Sequence[Array]) -> list[Array]:
    return [x + y for x, y in zip(xs, ys, strict=True)]


def _on_the_line(f: _Function, ends: Any, starts: Any, others: Any, c: Any) -> Any:
    """The derivative's mean between the two, by quadrature."""
    return _mean(_EIGHT, f, ends, starts, others, c)


_TWO, _EIGHT = (np.polynomial.legendre.leggauss(n) for n in (2, 8))


def _mean(
    quadrature: Any, f: _Function, ends: Any, starts: Any, others: Any, c: Any
) -> list[Array]:
    total = [jnp.zeros_like(x) for x in ends]
    for node, weight in zip(*quadrature, strict=True):
        at = _pulled(f, _between(ends, starts, (1 + node) / 2), others, c)
        total = _sums(total, [(weight / 2 * v).astype(v.dtype) for v in at])
    return total


def _between(ends: Sequence[Array], starts: Sequence[Array], t: float) -> list[Array]:
    """At `t` of the way from the start to the end; infinities stay unchanged."""
    return [
        jnp.where(x == x0, x, x0 + t * (x - x0)).astype(x.dtype)
        for x, x0 in zip(ends, starts, strict=True)
    ]


def _pulled(f: _Function, xs: Sequence[Array], others: Any, c: Any) -> list[Array]:
    return list(jax.vjp(lambda xs: f(xs, others), list(xs))[1](list(c))[0])


# ---- control flow ------------------------------------------------------------------

Body = Callable[..., tuple[list, list]]
"""From a body's inputs, their references, and what its visits are given where that is
scanned over, to its results and their references."""


def _control(step: Step, env: Environment, options: Options) -> Pairs:
    """Emitted again; the explained input decides on branches and numbers of steps."""
    params = step.main.params
    inputs = [env.read(v) for v in step.main.inputs]
    references = [env.shadow(v) for v in step.main.inputs]
    bodies = [
        functools.partial(_whole, reading, options, step, number)
        for number, reading in enumerate(step.bodies)
    ]
    flow = bodies_of(step.main).flow
    if flow == "branch":
        return lax.switch(inputs[0], bodies, inputs[1:], references[1:])
    (body,) = bodies
    if flow == "scan":
        visits = options.inside(step).visits
        arrays = None if visits is None else visits.arrays
        return _scan(body, step, inputs, references, arrays)
    if flow == "while":
        return _while_loop(body, step, inputs, references, options.checkpoints)
    if flow == "shard_map":
        parts = _compat.shard_map_parts(params)
        beside = [
            p for p, r in zip(parts.inputs, references, strict=True) if r is not None
        ]
        out = jax.shard_map(
            lambda xs, rs: body(xs, _spread(rs, references)),
            mesh=parts.mesh,
            in_specs=(list(parts.inputs), beside),
            out_specs=(list(parts.outputs), list(parts.outputs)),
            axis_names=parts.axes,
            check_vma=parts.checked,
        )
        return jax.jit(out)(inputs, [r for r in references if r is not None])
    if flow == "checkpoint":
        body = jax.checkpoint(body, **_compat.remat_options(params))
    return body(inputs, references)


def _spread(given: Sequence[Array], like: Sequence[Any]) -> list[Array | None]:
    """In the positions of what is there."""
    slots = iter(given)
    return [None if v is None else next(slots) for v in like]


def _whole(
    reading: Reading,
    options: Options,
    step: Step,
    number: int,
    inputs: Any,
    references: Any,
    arrays: Any = None,
) -> tuple[list, list]:
    """A body, with a reference for each of its results."""
    inner = options.inside(step, number, arrays)
    outs, given = evaluate(reading, inputs, references, inner)
    return outs, [
        lax.stop_gradient(y) if r is None else r
        for y, r in zip(outs, given, strict=True)
    ]


def _scan(
    whole: Body,
    step: Step,
    inputs: Sequence[Any],
    references: Sequence[Any],
    arrays: Any,
) -> Pairs:
    params = dict(step.main.params)
    consts, carries = _compat.scan_split(params)
    split = consts + carries

    def body(carry: Any, x: Any) -> Any:
        (values, beside), (xs, xs_beside, visited) = carry, x
        outs, given = whole(
            [*inputs[:consts], *values, *xs],
            [*references[:consts], *beside, *xs_beside],
            visited,
        )
        return (outs[:carries], given[:carries]), (outs[carries:], given[carries:])

    start = inputs[consts:split], _own(inputs[consts:split], references[consts:split])
    (values, beside), (ys, ys_beside) = lax.scan(
        body,
        start,
        (inputs[split:], list(references[split:]), arrays),
        **_compat.scan_options(params),
    )
    return [*values, *ys], [*beside, *ys_beside]


def _own(values: Sequence[Any], references: Sequence[Any]) -> list[Any]:
    """References, the value itself where there is none."""
    return [
        lax.stop_gradient(x) if r is None else r
        for x, r in zip(values, references, strict=True)
    ]


def _while_loop(
    whole: Body,
    step: Step,
    inputs: Sequence[Any],
    references: Sequence[Any],
    checkpoints: int,
) -> Pairs:
    """A loop whose carry is the values and, after them, their references."""
    parts = _compat.while_parts(step.main.params)
    first, split = parts.test_constants, parts.test_constants + parts.constants
    count = len(inputs) - split
    if _compat.has_effects(parts.test) or _compat.has_effects(parts.body):
        raise UnexplainedPrimitiveError(
            f"while loop at {step.main.line}: it has effects (such as a debug print), "
            f"and has to be evaluated again in the reverse pass. With a baseline "
            f"it has to be without."
        )

    def test(given: Any, carry: list[Any]) -> Array:
        (holds,) = jaxpr_as_fun(parts.test)(*given[0], *carry[:count])
        return holds

    def explained(given: Any, carry: list[Any], shadows: list[Any]) -> Any:
        _, constants, beside = given
        outs, out_beside = whole(
            [*constants, *carry[:count]], [*beside, *carry[count:]]
        )
        return [*outs, *out_beside], shadows

    def move(given: Any, carry: list[Any]) -> list[Any]:
        return explained(given, carry, [])[0]

    loop = Loop(test, move, move, explained, checkpoints)
    given = (
        list(inputs[:first]),
        list(inputs[first:split]),
        list(references[first:split]),
    )
    carry = [*inputs[split:], *_own(inputs[split:], references[split:])]
    outs, _ = reversible(loop, given, carry, [])
    return outs[:count], outs[count:]
