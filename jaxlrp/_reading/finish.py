"""The end of reading: where relevance is needed, and which values carry a shadow.

One pass backwards over a program's steps. It drops dead steps, marks those that no
relevance reaches, reads the bodies of control flow for what their results receive, and
places shadows: zeros alongside values, for rules that are not multiples of the value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from jax.extend.core import Literal

from jaxlrp import _compat, rules
from jaxlrp._program.bodies import bodies_of, fixpoint
from jaxlrp._program.program import Equation, Program, Value, flatten
from jaxlrp._reading.context import Context
from jaxlrp._reading.facts import Facts, body_facts, body_programs, facts_of
from jaxlrp._reading.saved import with_saved
from jaxlrp._reading.steps import Inside, Reading, Step
from jaxlrp.composites import Composite
from jaxlrp.primitives import lookup
from jaxlrp.rules import Rule

ReadBody = Callable[
    [Program, Sequence[Facts], tuple[bool, ...], tuple[bool, ...]], Reading
]
"""Reads a body, for the outputs that receive relevance and that return shadows."""


def finish(
    program: Program,
    facts: Mapping[Value, Facts],
    steps: Sequence[Step],
    composite: Composite,
    relevant: tuple[bool, ...],
    shadow_outputs: tuple[bool, ...],
    context: Context,
    read_body: ReadBody,
) -> Reading:
    """One pass backwards: drops dead steps, marks detached ones, places shadows."""
    alive: set[Value] = {v for v in program.outputs if isinstance(v, Value)}
    receives: set[Value] = set()
    shadowed: set[Value] = set()
    for v, r, s in zip(program.outputs, relevant, shadow_outputs, strict=True):
        if isinstance(v, Value) and facts[v].carries:
            receives |= {v} if r else set()
            shadowed |= {v} if s else set()
    # What is read by anything but a ReLU, so that relevance may arrive below zero.
    below: set[Value] = {v for v in program.outputs if isinstance(v, Value)}
    done: list[Step] = []
    for step in reversed(steps):
        if alive.isdisjoint(step.outputs) and not any(
            e.effectful for e in step.equations
        ):
            continue
        reached = not receives.isdisjoint(step.outputs) or _writes(step)
        if step.signals and not reached:
            blind = _is_blind(step, facts, context, read_body)
            role = "unreached" if blind else "detached"
            step = dataclasses.replace(step, role=role, slot=None, signals=())
        elif step.role in ("control", "call"):
            step = _with_bodies(step, facts, receives, shadowed, context, read_body)
        rule = step.rule(composite)
        receivers = step.receivers(rule)
        receives.update(receivers)
        shadowed.update(_shadows(step, rule, receivers, shadowed))
        alive.update(step.operands)
        below.update(_read_below(step, rule))
        arriving = below | shadowed  # at zeros, too, relevance passes a ReLU
        if step.layer is not None and arriving.isdisjoint(step.outputs):
            step = dataclasses.replace(step, rectified=True)
        done.append(step)
    told = with_saved(_with_passing(done[::-1], composite), composite)
    return Reading(program, facts, told, frozenset(shadowed))


def _with_passing(steps: Sequence[Step], composite: Composite) -> list[Step]:
    """A ReLU need not repeat what the factor of the layer before it does: cut.

    Of rectified layers all readers are ReLUs that have the derivative's rule.
    """
    cut = {v for s in steps if s.rectified and _cuts(s, composite) for v in s.outputs}
    return [
        dataclasses.replace(step, passing=True)
        if step.role == "activation"
        and step.argument in cut
        and len(step.equations) == 1
        and is_rectifier(step.main)
        else step
        for step in steps
    ]


def _cuts(step: Step, composite: Composite) -> bool:
    """Is there a factor of the layer's, zero where its result is not positive?"""
    rule = step.rule(composite)
    has_shares = isinstance(rule, rules.LayerRule) and not isinstance(rule, rules.LRP0)
    filtered = step.fraction(composite) is not None
    return has_shares and not step.by_relevance(rule) and not filtered


def _read_below(step: Step, rule: Rule | None) -> set[Value]:
    """The operands to which relevance may go where they are negative."""
    cuts = step.role == "activation" and not step.by_relevance(rule)
    return {
        v
        for e in step.equations
        for v in e.inputs
        if isinstance(v, Value)
        and not (cuts and is_rectifier(e) and (step.exact or step.argument is not v))
    }


def is_rectifier(equation: Equation) -> bool:
    """Is it `max(x, 0)`, directly or as `jax.nn.relu`?"""
    body = _compat.called_jaxpr(dict(equation.params))
    if body is not None and len(equation.inputs) == 1:
        inner = flatten(body, keep_calls=False)
        if len(inner.equations) == 1 and not inner.constants:
            (only,) = inner.equations
            return only.outputs == inner.outputs and is_rectifier(only)
        return False
    entry = lookup(equation.primitive)
    if entry is None or not entry.bounds:
        return False
    literals = [a.val if isinstance(a, Literal) else None for a in equation.inputs]
    # A minimum with zero is negative where its operand is.
    grows = entry.nonnegative([v is not None for v in literals], equation.params)
    return grows and entry.homogeneous(literals)


def _is_blind(
    step: Step, facts: Mapping[Value, Facts], context: Context, read_body: ReadBody
) -> bool:
    """Does it hold, itself or in a body, what JAX may not be able to differentiate?"""
    if step.role not in ("control", "call"):
        return step.role == "unexplained" and not _writes(step)
    bodies = _with_bodies(step, facts, set(), set(), context, read_body).bodies
    return any(s.role == "unreached" for body in bodies for s in body.steps)


def _writes(step: Step) -> bool:
    """Is a value written where it may be read again, unseen?"""
    entry = lookup(step.main.primitive)
    return bool(step.signals) and entry is not None and entry.writes


PASSING = frozenset({"structural", "selection", "scale"})
"""Roles that act on a shadow elementwise, as on the value, under any rule."""


def _shadows(
    step: Step,
    rule: Rule | None,
    receivers: Sequence[Value],
    shadowed: set[Value],
) -> set[Value]:
    """The operands that need a shadow because of this step."""
    if step.role == "lookup":
        return set(receivers)
    if rule is not None and (rule.needs_shadow or step.by_relevance(rule)):
        return set(receivers)
    if step.bodies:
        return _body_shadows(step)
    if step.role == "custom":
        entry = lookup(step.main.primitive)
        return set(step.signals) if entry is not None and entry.shadows else set()
    if shadowed.isdisjoint(step.outputs) or not passes_shadow(step, rule):
        return set()
    return set(receivers)


def passes_shadow(step: Step, rule: Rule | None) -> bool:
    """Does the step pass its output's shadow on to its signals' shadows?

    All others consume relevance: they turn it into a multiplier of their output.
    """
    if step.role in PASSING or step.exact:
        return True
    if isinstance(rule, rules.Pass):
        return rule.epsilon is None  # with one, relevance is not passed unchanged
    return step.by_elements and bool(step.held_under(rule))


def _with_bodies(
    step: Step,
    facts: Mapping[Value, Facts],
    receives: set[Value],
    shadowed: set[Value],
    context: Context,
    read_body: ReadBody,
) -> Step:
    """Reads the bodies of control flow, for the relevance that its results receive."""
    equation = step.main
    programs = body_programs(equation, context)
    operands = [facts_of(v, facts) for v in equation.inputs]
    inputs, _ = body_facts(equation, programs, operands, context)
    how = bodies_of(equation)
    arriving = [(v in receives, v in shadowed) for v in equation.outputs]

    def read_bodies(
        carried: list[tuple[bool, bool]],
    ) -> tuple[list[tuple[bool, bool]], tuple[Reading, ...]]:
        """What arrives at what a body was given, and the bodies as they are read."""
        ends = (*carried, *arriving[how.carries :])
        relevant, shadows = tuple(r for r, _ in ends), tuple(s for _, s in ends)
        bodies = tuple(read_body(p, inputs, relevant, shadows) for p in programs)
        # A carry receives relevance, and a shadow, if the next step's carry does.
        needs = (f.carries for f in inputs[how.carried])
        wants = bodies[0].shadowed_inputs[how.carried] if how.carries else ()
        again = [
            (relevant or need, shadow or want)
            for (relevant, shadow), need, want in zip(
                carried, needs, wants, strict=True
            )
        ]
        return again, bodies

    # Backwards along the loop: what a carry needs before a step it needs after the step
    # before that, too.
    _, bodies = fixpoint(read_bodies, arriving[: how.carries])
    return dataclasses.replace(step, form=Inside(bodies))


def _body_shadows(step: Step) -> set[Value]:
    """The operands of which some body needs a shadow."""
    inputs = step.main.inputs[bodies_of(step.main).given]
    return {
        v
        for body in step.bodies
        for v, wanted in zip(inputs, body.shadowed_inputs, strict=True)
        if wanted and isinstance(v, Value)
    }
