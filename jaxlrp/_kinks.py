"""Kinks that a formula does not show: found by looking at a function of one variable.

`x sign(x)`, a hard swish or a SELU have curvature on both sides of a point where their
slope jumps, and an ELU or `log(1 + exp(-|x|))` are made of parts with kinks and have
none. What the parts are does not decide it, the slope does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Literal
from jax.extend.core import primitives as P

from jaxlrp import _compat
from jaxlrp._program.program import Equation, Value
from jaxlrp._reading.steps import Reading, Step
from jaxlrp._rewriting.environment import run_equations

REACH, POINTS = 32.0, 64_001
"""Slopes are compared at so many points from -REACH to REACH: thresholds of the known
activations are at 1, 3 and 6."""
CLOSER = 256
"""Into so many parts the place of a jump is divided, to tell it from a steep slope."""
LEAST = 1e-3
"""The smallest jump of the slope that counts, beside the slope there or beside 1."""

_STEPS = (
    *(P.sign_p, P.floor_p, P.ceil_p, P.round_p),
    *(P.gt_p, P.ge_p, P.lt_p, P.le_p, P.eq_p, P.ne_p),
    *(P.max_p, P.min_p, P.clamp_p, P.abs_p, P.select_n_p),
)
"""What has kinks or jumps."""


Seen = dict[tuple[Any, ...], bool]
"""What was found of units, by what they are: layers have the same one."""


def kinked(
    step: Step, reading: Reading, seen: Seen, slopes: bool = True
) -> bool | None:
    """Does a unit, a function of one variable, jump anywhere, or with `slopes` these?

    None where the unit is made of parts with kinks or jumps, but cannot be looked at:
    in half precision, whose rounding looks like jumps, or with numbers that are not
    known when `f` is traced.
    """
    x = step.argument
    if x is None:
        return None
    chosen = any(decides(e, reading) for e in step.equations)
    if not chosen and not _has_steps(step.equations):
        return False
    equations = _whole(step, reading)
    if equations is None or x.aval.dtype not in (jnp.float32, jnp.float64):
        return None
    if {v.aval.shape for v in step.outputs} != {x.aval.shape}:
        return None

    key = (slopes, *_form(equations, x))
    if key in seen:
        return seen[key]

    def unit(values: Array) -> Array:
        """Of many values of the variable, `(n,)`."""
        size = max(x.aval.size, 1)
        padded = jnp.resize(values, (-(-values.size // size), *x.aval.shape))
        run = jax.vmap(lambda rows: run_equations(equations, {x: rows})[0])
        return run(padded.astype(x.aval.dtype)).reshape(-1)[: values.size]

    with jax.ensure_compile_time_eval():
        seen[key] = jumps(unit, slopes)
    return seen[key]


def _form(equations: Sequence[Equation], x: Value) -> tuple[Any, ...]:
    """What equations do to `x`: equal for equal ones."""
    numbers: dict[Any, int] = {x: 0}
    lines: list[Any] = [str(x.aval)]
    for equation in equations:
        inputs = [
            f"{v.val}:{v.aval}" if isinstance(v, Literal) else numbers[v]
            for v in equation.inputs
        ]
        for v in equation.outputs:
            numbers[v] = len(numbers)
        lines.append((equation.primitive.name, str(equation.params), *inputs))
    return tuple(lines)


def _whole(step: Step, reading: Reading) -> list[Equation] | None:
    """A unit's equations and those of its constants, None if it has other inputs."""
    makers = {v: e for s in reading.steps for e in s.equations for v in e.outputs}
    found: dict[Equation, None] = {}
    wanted = list(step.equations)
    while wanted:
        equation = wanted.pop()
        found[equation] = None
        for v in equation.inputs:
            if isinstance(v, Literal) or v is step.argument:
                continue
            if v not in makers:
                return None
            if makers[v] not in found:
                wanted.append(makers[v])
    return [e for s in reading.steps for e in s.equations if e in found]


def jumps(g: Callable[[Array], Array], slopes: bool = True) -> bool:
    """Does an elementwise function jump between -32 and 32, or with `slopes` its slope?

    A jump stays as large however close it is looked at. What is steep gets smaller, a
    pole larger.
    """

    @jax.jit
    def apart(x: Array) -> Array:
        """By how much value and slope change more than their derivatives say, `(2, n)`.

        Zero where it is too small to count, or where there is no value.
        """

        def slope(x: Array) -> tuple[Array, Array]:
            value, slope = jax.jvp(g, (x,), (jnp.ones_like(x),))
            return slope, value

        first, second, values = jax.jvp(slope, (x,), (jnp.ones_like(x),), True)
        found = []
        for y, dy in ((values, first), (first, second))[: 1 + slopes]:
            expected = jnp.diff(x) * (dy[1:] + dy[:-1]) / 2
            scale = jnp.maximum(1, jnp.maximum(abs(y[1:]), abs(y[:-1])))
            jump = abs(jnp.diff(y) - expected)
            counts = jnp.isfinite(jump + jnp.diff(values)) & (jump > LEAST * scale)
            found.append(jnp.where(counts, jump, 0))
        return jnp.stack(found)

    # Not at round numbers, where kinks are and JAX has to choose a slope.
    every = np.linspace(-REACH, REACH, POINTS) + REACH / np.pi / POINTS
    found = np.asarray(apart(jnp.asarray(every)))
    # The largest first: what is steep may be so at many places before a kink.
    largest = found.max(0)
    order = np.argsort(-largest, kind="stable")[:8]
    for place in order[largest[order] > 0]:
        near = np.linspace(every[place], every[place + 1], CLOSER)
        closer = np.asarray(apart(jnp.asarray(near)).max(1))
        if ((closer > 0) & (closer < 2 * found[:, place])).any():
            return True
    return False


def _has_steps(equations: Sequence[Any]) -> bool:
    for eqn in equations:
        if eqn.primitive in _STEPS:
            return True
        for body in _compat.bodies_by_name(dict(eqn.params)).values():
            if _has_steps(_compat.open_jaxpr(body)[0].eqns):
                return True
    return False


_GUARDED = ("softmax", "normaliser", "quotient")
"""Roles inside which a choice guards against what is not finite."""


def switches(reading: Reading, seen: Seen) -> Iterator[Equation]:
    """Where the input decides what is made of it: by a comparison, a sign, an index.

    A derivative does not see that it would decide otherwise nearby.
    """
    for step in reading.steps:
        found = [e for e in step.equations if decides(e, reading)]
        if found and step.signals and step.role not in _GUARDED:
            looked_at = step.role == "activation" and kinked(step, reading, seen)
            if looked_at is None or step.role != "activation":
                yield from found
        for body in step.bodies:
            yield from switches(body, seen)


def decides(equation: Equation, reading: Reading) -> bool:
    """Does it join what is attributed with what jumps where the input changes?"""
    values = [v for v in equation.inputs if isinstance(v, Value)]
    cut = [v for v in values if v in reading.facts and reading.facts[v].cut]
    active = any(reading.is_active(v) for v in values)
    return active and bool(cut) and _jump(cut, reading)


_RARE = (P.is_finite_p, P.eq_p, P.ne_p)
"""What is true, or false, at single points alone: a guard."""
_COPIES = (P.broadcast_in_dim_p, P.reshape_p, P.convert_element_type_p)
_LOGIC = (P.and_p, P.or_p, P.not_p)


def _jump(values: Sequence[Value], reading: Reading) -> bool:
    """Is any of these values, through which relevance cannot pass, more than held?

    What `stop_gradient` holds changes smoothly.
    """
    makers = {v: e for s in reading.steps for e in s.equations for v in e.outputs}
    wanted = list(values)
    while wanted:
        maker = makers.get(wanted.pop())
        if maker is None:
            return True
        if maker.primitive in _RARE:
            continue
        if maker.primitive not in (*_COPIES, *_LOGIC, P.stop_gradient_p):
            return True
        wanted += [
            v for v in maker.inputs if isinstance(v, Value) and reading.facts[v].cut
        ]
    return False
