"""Calls, branches, loops and rematerialisation: emitted again, bodies rewritten."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import Array, lax

from jaxlrp import _compat
from jaxlrp._operations import zero_beside
from jaxlrp._program.bodies import bodies_of
from jaxlrp._reading.steps import Reading, Step
from jaxlrp._rewriting.environment import Environment, Run, shadow_of, take_in
from jaxlrp._rewriting.while_loop import run_loop
from jaxlrp.composites import Composite

Evaluate = Callable[..., tuple[list[Any], list[Array | None]]]
"""`evaluate.evaluate`, passed down so that bodies can be evaluated."""


def _body(
    evaluate: Evaluate,
    reading: Reading,
    run: Run,
    inputs: Sequence[Any],
    shadows: Sequence[Any],
) -> tuple[list[Any], list[Array]]:
    """Evaluates a body; shadows travel as flat lists of those that are there."""
    # JAX's loops and calls take arrays only: without a shadow there is no slot.
    slots = iter(shadows)
    placed = [next(slots) if wanted else None for wanted in reading.shadowed_inputs]
    outs, out_shadows = evaluate(reading, run, inputs, placed)
    return outs, [s for s in out_shadows if s is not None]


def _given(
    step: Step, atoms: Sequence[Any], env: Environment, run: Run
) -> tuple[list[Any], list[Array | None]]:
    """What the bodies are given, and the shadows that any of them needs.

    Constants that meet relevance inside are observed.
    """
    inputs = [env.read(v) for v in atoms]
    wanted = [
        any(w) for w in zip(*(b.shadowed_inputs for b in step.bodies), strict=True)
    ]
    shadows = [
        shadow_of(v, x, w, env) for v, x, w in zip(atoms, inputs, wanted, strict=True)
    ]
    if run.observe is None:
        return inputs, shadows
    for i, atom in enumerate(atoms):
        inside = any(b.facts[b.program.inputs[i]].carries for b in step.bodies)
        if inside and not env.reading.carries(atom):
            observed = run.observe("constant", step, inputs[i], shadows[i])
            inputs[i], shadows[i] = observed
    return inputs, shadows


def _there(shadows: Sequence[Array | None]) -> list[Array]:
    return [s for s in shadows if s is not None]


def _placed(reading: Reading, shadows: Sequence[Array]) -> list[Array | None]:
    slots = iter(shadows)
    return [next(slots) if wanted else None for wanted in reading.shadowed_outputs]


def call(step: Step, rule: Any, env: Environment, run: Run, evaluate: Evaluate) -> Any:
    """A `jit` that is kept: one function for all equations that share its reading."""
    (reading,) = step.bodies
    inputs, entering = _given(step, step.main.inputs, env, run)
    shadows = _there(entering)
    if run.observe is not None or run.visits is not None:
        outs, out_shadows = _body(evaluate, reading, run.inside(step), inputs, shadows)
        return outs, _placed(reading, out_shadows)
    if id(reading) not in run.jitted:
        # The composite is an argument, since its numbers may be tracers.
        def body(composite: Composite, inputs: Any, shadows: Any) -> Any:
            inner = dataclasses.replace(run, composite=composite, jitted={})
            return _body(evaluate, reading, inner, inputs, shadows)

        run.jitted[id(reading)] = jax.jit(body)
    outs, out_shadows = run.jitted[id(reading)](run.composite, inputs, shadows)
    return outs, _placed(reading, out_shadows)


def control(
    step: Step, rule: Any, env: Environment, run: Run, evaluate: Evaluate
) -> Any:
    """Control flow, emitted again with rewritten bodies."""
    return _BY_FLOW[bodies_of(step.main).flow](step, env, run, evaluate)


def _shard_map(step: Step, env: Environment, run: Run, evaluate: Evaluate) -> Any:
    """A map over the shards of a mesh; a shadow lies like its value."""
    (reading,) = step.bodies
    parts = _compat.shard_map_parts(step.main.params)
    inputs, entering = _given(step, step.main.inputs, env, run)
    beside = [p for p, s in zip(parts.inputs, entering, strict=True) if s is not None]
    wanted = zip(parts.outputs, reading.shadowed_outputs, strict=True)
    body = jax.shard_map(
        functools.partial(_body, evaluate, reading, run.inside(step)),
        mesh=parts.mesh,
        in_specs=(list(parts.inputs), beside),
        out_specs=(list(parts.outputs), [p for p, w in wanted if w]),
        axis_names=parts.axes,
        check_vma=parts.checked,
    )
    # Traced as a whole: what the rules close over goes in as arguments.
    outs, out_shadows = jax.jit(body)(inputs, _there(entering))
    return outs, _placed(reading, out_shadows)


def _remat(step: Step, env: Environment, run: Run, evaluate: Evaluate) -> Any:
    (reading,) = step.bodies
    params = step.main.params
    run = dataclasses.replace(run, remat=False)  # the network says so itself
    inputs, entering = _given(step, step.main.inputs, env, run)
    shadows = _there(entering)
    if step.main.effectful and not run.quiet:
        # JAX would run them again with what is recomputed.
        step.main.bound()(*map(lax.stop_gradient, inputs))
        run = dataclasses.replace(run, quiet=True, jitted={})
    body = jax.checkpoint(
        functools.partial(_body, evaluate, reading, run.inside(step)),
        **_compat.remat_options(params),
    )
    outs, out_shadows = body(inputs, shadows)
    return outs, _placed(reading, out_shadows)


def _cond(step: Step, env: Environment, run: Run, evaluate: Evaluate) -> Any:
    """Every branch is given the shadows that any branch needs, and returns all."""
    index, *atoms = step.main.inputs
    inputs, shadows = _given(step, atoms, env, run)
    asked = [env.wants_shadow(v) for v in step.outputs]

    def branch(number: int, reading: Reading) -> Callable[..., Any]:
        def run_branch(inputs: Any, shadows: Any) -> Any:
            own = [
                s if w else None
                for s, w in zip(shadows, reading.shadowed_inputs, strict=True)
            ]
            outs, given = evaluate(reading, run.inside(step, number), inputs, own)
            given = [
                (zero_beside(y) if s is None else s) if w else None
                for y, s, w in zip(outs, given, asked, strict=True)
            ]
            return outs, given

        return run_branch

    branches = [branch(i, b) for i, b in enumerate(step.bodies)]
    return lax.switch(env.read(index), branches, inputs, shadows)


def _give_carries(
    inputs: Sequence[Any],
    shadows: list[Array | None],
    asked: Sequence[bool],
    start: int,
) -> None:
    """A carry that returns a shadow takes one too.

    A body that consumes relevance never reads it. The carries begin at `start`.
    """
    for k, wanted in enumerate(asked, start):
        if wanted and shadows[k] is None:
            shadows[k] = take_in(inputs[k])


def _filled(
    values: Sequence[Any], shadows: Sequence[Array | None], wanted: Sequence[bool]
) -> list[Array | None]:
    """The shadows, with zeros where one is needed and there is none."""
    return [
        zero_beside(y) if s is None and w else s
        for y, s, w in zip(values, shadows, wanted, strict=True)
    ]


def _scan(step: Step, env: Environment, run: Run, evaluate: Evaluate) -> Any:
    (reading,) = step.bodies
    params = dict(step.main.params)
    consts, carries = _compat.scan_split(params)
    split = consts + carries
    atoms = step.main.inputs
    inputs, shadows = _given(step, atoms, env, run)
    asked = reading.shadowed_outputs
    _give_carries(inputs, shadows, asked[:carries], consts)

    visits = run.inside(step).visits
    arrays = None if visits is None else visits.arrays

    inner = dataclasses.replace(run, remat=False)

    def body(carry: Any, x: Any) -> Any:
        (values, value_shadows), (xs, x_shadows, visited) = carry, x
        outs, given = evaluate(
            reading,
            inner.inside(step, 0, visited),
            [*inputs[:consts], *values, *xs],
            [*shadows[:consts], *value_shadows, *x_shadows],
        )
        carried = [s is not None for s in shadows[consts:split]]
        given = _filled(outs, given, [*carried, *asked[carries:]])
        return (outs[:carries], given[:carries]), (outs[carries:], given[carries:])

    if run.remat and not step.main.effectful:
        body = jax.checkpoint(body, policy=run.policy, prevent_cse=False)
    (values, value_shadows), (ys, y_shadows) = lax.scan(
        body,
        (inputs[consts:split], shadows[consts:split]),
        (inputs[split:], shadows[split:], arrays),
        **_compat.scan_options(params),
    )
    return [*values, *ys], [*value_shadows, *y_shadows]


def _while_loop(step: Step, env: Environment, run: Run, evaluate: Evaluate) -> Any:
    (reading,) = step.bodies
    params = dict(step.main.params)
    parts = _compat.while_parts(params)
    consts = parts.constants
    atoms = step.main.inputs[parts.test_constants :]
    inputs, shadows = _given(step, atoms, env, run)
    _give_carries(inputs, shadows, reading.shadowed_outputs, consts)
    inside = dataclasses.replace(run.inside(step), quiet=True, remat=False, jitted={})

    def explained(
        constants: Sequence[Any],
        constant_shadows: Sequence[Any],
        carry: Sequence[Any],
        carry_shadows: Sequence[Any],
    ) -> tuple[list[Any], list[Any]]:
        outs, given = evaluate(
            reading,
            inside,
            [*constants, *carry],
            [*constant_shadows, *carry_shadows],
        )
        return outs, _filled(outs, given, [s is not None for s in carry_shadows])

    return run_loop(
        params,
        step.main.line,
        explained,
        [env.read(v) for v in step.main.inputs[: parts.test_constants]],
        inputs[:consts],
        shadows[:consts],
        inputs[consts:],
        shadows[consts:],
        run.checkpoints,
        run.quiet,
    )


_BY_FLOW = {
    "branch": _cond,
    "scan": _scan,
    "while": _while_loop,
    "shard_map": _shard_map,
    "checkpoint": _remat,
}
"""What control flow becomes, by its kind."""
