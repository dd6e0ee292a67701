"""The interpreter: evaluates a reading, with LRP's rules attached to its steps.

The result is the program's own value; its derivative, taken by `jax.vjp`, is the
relevance's multiplier. A value whose reading asks for it carries a shadow: zeros whose
cotangent is plain relevance, for rules that are not multiples of the value.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import Array

from jaxlrp import _compat
from jaxlrp._operations import held_constant, hold, zero_beside
from jaxlrp._program.program import Equation, Value
from jaxlrp._reading.facts import is_real
from jaxlrp._reading.steps import Reading, Step
from jaxlrp._rewriting.activations import activation
from jaxlrp._rewriting.affine import scale
from jaxlrp._rewriting.blocks import Block, arrange, inner_scopes
from jaxlrp._rewriting.control import call, control
from jaxlrp._rewriting.environment import (
    Environment,
    Observe,
    Run,
    run_equations,
    shadow_of,
    take_in,
)
from jaxlrp._rewriting.layers import layer, sifted
from jaxlrp._rewriting.norms import batch_norm
from jaxlrp._rewriting.plain import custom, gradient, plain
from jaxlrp._rewriting.products import held, homogeneous, product
from jaxlrp._rewriting.redistributed import redistributed
from jaxlrp._rewriting.segments import Segment, segments
from jaxlrp._rewriting.softmax import softmax
from jaxlrp._rewriting.sums import total
from jaxlrp._rewriting.symbols import looked_up


def evaluate(
    reading: Reading,
    run: Run,
    inputs: Sequence[Any],
    shadows: Sequence[Array | None],
) -> tuple[list[Any], list[Array | None]]:
    """Evaluates a reading.

    Args:
      reading: what to evaluate.
      run: rules and observers.
      inputs: the program's inputs.
      shadows: zeros for the inputs that `reading.shadowed_inputs` names.

    Returns:
      The program's outputs, and the shadows of those that need one.
    """
    env = Environment(reading)
    for v, x, shadow in zip(reading.program.inputs, inputs, shadows, strict=True):
        env.values[v] = x
        if shadow is not None:
            env.shadows[v] = shadow
    watched = run.observe is not None or run.visits is not None
    # A block is a function that hides its steps, and pays only where it is compiled.
    apart = watched or not run.staged or bool(run.composite.constants)
    items = reading.steps if apart else arrange(reading)
    if run.remat:
        for segment in segments(items, reading):
            _do_segment(segment, env, run)
    else:
        _do_all(items, env, run)
    outs = [env.read(v) for v in reading.program.outputs]
    return outs, [
        shadow_of(v, x, wanted, env)
        for v, x, wanted in zip(
            reading.program.outputs, outs, reading.shadowed_outputs, strict=True
        )
    ]


def _do_all(items: Sequence[Step | Block], env: Environment, run: Run) -> None:
    for item in items:
        if isinstance(item, Block):
            _do_block(item, env, run)
        else:
            _do_in_scope(item, env.reading.program.inner_scope(item.main), env, run)


def _do_block(block: Block, env: Environment, run: Run) -> None:
    """Evaluates a block by one function for all blocks of its form."""
    form = id(env.reading), block.form
    if form not in run.jitted:
        inner = dataclasses.replace(run, jitted={})
        scopes = inner_scopes(block, env.reading)

        def equal_steps(composite: Any, values: Any, shadows: Any) -> Any:
            own = _within(env.reading, block.inputs, values, shadows)
            this = dataclasses.replace(inner, composite=composite)
            for step, scope in zip(block.steps, scopes, strict=True):
                _do_in_scope(step, scope, own, this)
            return own.take(block.outputs)

        run.jitted[form] = jax.jit(equal_steps)
    with jax.named_scope(block.scope) if block.scope else contextlib.nullcontext():
        results = run.jitted[form](run.composite, *env.take(block.inputs))
    env.put(block.outputs, *results)


def _do_segment(segment: Segment, env: Environment, run: Run) -> None:
    """Evaluates a segment, with recomputation if it asks for that."""
    if not segment.again:
        return _do_all(segment.items, env, run)

    def again(values: Any, shadows: Any) -> Any:
        own = _within(env.reading, segment.inputs, values, shadows)
        # Functions traced outside hold tracers that must not enter the checkpoint.
        _do_all(segment.items, own, dataclasses.replace(run, jitted={}))
        return own.take(segment.outputs)

    results = jax.checkpoint(again, policy=run.policy)(*env.take(segment.inputs))
    env.put(segment.outputs, *results)


def _within(
    reading: Reading, inputs: Sequence[Value], values: Any, shadows: Any
) -> Environment:
    """An environment of a part of a program, with what that reads."""
    env = Environment(reading)
    env.put(inputs, values, shadows)
    return env


def _do_in_scope(step: Step, scope: str, env: Environment, run: Run) -> None:
    main = step.main
    with _compat.equation_context(main.source, main.context, scope):
        _do(step, env, run)


def _do(step: Step, env: Environment, run: Run) -> None:
    """Evaluates one step and writes its results and their shadows."""
    if run.quiet and step.main.effectful and not step.signals:
        if not step.outputs:
            return
        equations = tuple(e.quiet() for e in step.equations)
        step = dataclasses.replace(step, equations=equations)
    if not step.signals:
        # What lies inside the step stays there: others may have given it a rule.
        run_step = _run_blindly if step.role == "unreached" else run_equations
        results = run_step(step.equations, {}, env.read)
        if step.constant:
            results = [held_constant(y) if is_real(y) else y for y in results]
        env.values.update(zip(step.outputs, results, strict=True))
        return
    seen = env if run.observe is None else _observed_inputs(step, env, run.observe)
    if run.without_rules and not step.bodies:
        results, shadows = _plainly(step, env)
    else:
        rule = step.rule(run.composite)
        by_relevance = step.by_relevance(rule)
        handler = redistributed if by_relevance else _HANDLERS[step.role]
        results, shadows = handler(step, rule, seen, run)
        keep = step.fraction(run.composite)
        if keep is not None:
            results, shadows = sifted(step, results, shadows, keep, env, run)
    for v, y, shadow in zip(step.outputs, results, shadows, strict=True):
        wanted = env.wants_shadow(v)
        if wanted and shadow is None:
            shadow = take_in(y)
        if run.observe is not None and env.reading.carries(v):
            y, shadow = run.observe("out", step, y, shadow if wanted else None)
        if run.visits is not None:
            y, shadow = run.visits.at(v, y, shadow if wanted else None)
        env.values[v] = y
        if wanted and shadow is not None:
            env.shadows[v] = shadow


def _plainly(step: Step, env: Environment) -> Any:
    """No rule: JAX's own derivative."""
    results = run_equations(step.equations, {}, env.read)
    return results, [zero_beside(y) for y in results]


def _run_blindly(
    equations: Sequence[Equation], given: Mapping[Value, Any], read: Callable
) -> list[Any]:
    """Runs what JAX cannot differentiate and relevance does not pass, as a constant."""
    (equation,) = equations
    bound = equation.bound()
    operands = [read(v) for v in equation.inputs]
    return hold(lambda _, held: bound(*held), (), operands)


def _observed_inputs(step: Step, env: Environment, observe: Observe) -> Environment:
    """A view of `env` in which what the step reads is observed, edge by edge."""
    view = Environment(env.reading)
    view.values, view.shadows = env.values.copy(), env.shadows.copy()
    for v in step.signals:
        x, shadow = observe("in", step, env.values[v], env.shadows.get(v))
        view.values[v] = x
        if shadow is not None:
            view.shadows[v] = shadow
    return view


_HANDLERS: Mapping[str, Callable[[Step, Any, Environment, Run], Any]] = {
    "dense": layer,
    "convolution": layer,
    "average": layer,
    "batch_norm": batch_norm,
    "sum": total,
    "scale": scale,
    "shift": scale,
    "activation": activation,
    "normaliser": held,
    "quotient": held,
    "softmax": softmax,
    "bilinear": product,
    "product": product,
    "selection": plain,
    "structural": plain,
    "lookup": looked_up,
    "linear": gradient,
    "gradient": gradient,
    "homogeneous": homogeneous,
    "custom": custom,
    "call": functools.partial(call, evaluate=evaluate),
    "control": functools.partial(control, evaluate=evaluate),
}
"""By role: `(step, rule, environment, run)` to the results and their shadows."""
