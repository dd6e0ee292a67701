"""Reading: the roles that a program's equations play are recovered from structure.

A jaxpr shows decomposed operations; LRP's rules are stated for layers, activations,
normalisers. `read` turns a program into steps, each an equation or a group of
equations with one role, the values that relevance comes from and goes to, and the
composite's assignment that applies. It is pure and abstract: no array is touched.

Roles are claimed in the order in which `_claim` calls the modules of the constructs.
docs/design.md says what each looks for, and why it comes where it does. What a walk
over the whole program has to find comes before: softmaxes, and, where a composite asks
for these, the coefficients of state spaces and the layers in a recurrence.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxlrp import rules
from jaxlrp._names import CLOSED_OVER, Origin, fits_any, nearest, numbered
from jaxlrp._program.program import Equation, Program, Value, flatten
from jaxlrp._reading.activations import claim_regions
from jaxlrp._reading.attention import opaque_step
from jaxlrp._reading.claims import (
    Claims,
    has_infinite_factor,
    held_operands,
    may_be_infinite,
)
from jaxlrp._reading.context import Context, Options
from jaxlrp._reading.dispatch import dispatched
from jaxlrp._reading.facts import (
    Facts,
    analyse,
    facts_of,
    input_facts,
    is_constant,
    names_of,
)
from jaxlrp._reading.finish import finish
from jaxlrp._reading.homogeneous import find_softmaxes
from jaxlrp._reading.layers import claim_layers
from jaxlrp._reading.norms import claim_batch_norms, claim_norms
from jaxlrp._reading.products import (
    contracts,
    gates,
    hold_gates,
    with_factors,
    with_gates,
)
from jaxlrp._reading.recurrences import find_recurrent
from jaxlrp._reading.scales import claim_scales, find_scales
from jaxlrp._reading.softmax import claim_softmax
from jaxlrp._reading.state_space import find_coefficients
from jaxlrp._reading.steps import Held, Reading, Step, unit_of
from jaxlrp._reading.sums import claim_sums
from jaxlrp._reading.symbols import claim_symbols, symbols_of
from jaxlrp.composites import Composite
from jaxlrp.composites._base import GROUPS
from jaxlrp.errors import UnexplainedPrimitiveError
from jaxlrp.primitives import Entry, Kind, lookup

__all__ = ["Reading", "Step", "read"]


def read(
    jaxpr: Any,
    active: Sequence[bool],
    composite: Composite,
    *,
    relevant: Sequence[bool] | None = None,
    shadow_outputs: bool = False,
    strict: bool = True,
    by_scope: bool = False,
    origins: Sequence[Origin] | None = None,
    keep_calls: bool = True,
) -> Reading:
    """Reads a jaxpr.

    Args:
      jaxpr: as `jax.make_jaxpr` returns it.
      active: which of its inputs are attributed.
      composite: the rules; only their kinds matter here, not their numbers.
      relevant: which outputs relevance comes from; all by default.
      shadow_outputs: relevance arrives in the outputs' shadows, not as a multiple of
        them.
      strict: raise where there is no rule; else such steps have the role `unexplained`.
      by_scope: distinguish the names of calls that are kept, at the price of reading
        each; otherwise only where the composite asks for names.
      origins: what its inputs are called, for names by parameters; None if nobody asks.
      keep_calls: keep large calls that are repeated; else all are inlined.

    Returns:
      The reading.

    Raises:
      UnexplainedPrimitiveError: where relevance meets a primitive without a rule.
    """
    by_scope = by_scope or asks_for_names(composite)
    by_depth = any(a.depth is not None for a in composite.assignments)
    constants = tuple(composite.constants)
    options = Options(constants, strict, by_scope, by_depth, keep_calls)
    context = Context(options)
    program = flatten(jaxpr, keep_calls=keep_calls)
    known = origins or [None] * len(program.inputs)
    inputs = [
        input_facts(v.aval, a, o)
        for v, a, o in zip(program.inputs, active, known, strict=True)
    ]
    softmaxes = find_softmaxes(program, inputs, context)
    context = context.found(softmaxes=softmaxes)
    coefficients, recurrent = {}, frozenset()
    if _asks_for_coefficients(composite):
        coefficients = find_coefficients(program, inputs, context)
    if any(a.recurrent is not None for a in composite.assignments):
        recurrent = find_recurrent(program, inputs, context)
    context = context.found(coefficients=coefficients, recurrent=recurrent)
    if relevant is None:
        relevant = [True] * len(program.outputs)
    reading = _read_program(
        program,
        inputs,
        composite,
        tuple(relevant),
        tuple(shadow_outputs and r for r in relevant),
        context,
    )
    _check_names(composite, reading)
    _check_depths(composite, reading)
    return reading


def _asks_for_coefficients(composite: Composite) -> bool:
    assigned = (a.rule for a in composite.assignments)
    return any(isinstance(r, rules.SignalTakesAll) and r.coefficients for r in assigned)


def asks_for_names(composite: Composite) -> bool:
    """Does a line or a constant name a layer?"""
    return bool(_patterns(composite))


def _patterns(composite: Composite) -> list[str]:
    """The layers that a composite names."""
    own = [a.scope for a in composite.assignments if a.scope is not None]
    return list(dict.fromkeys([*own, *composite.constants]))


def _check_names(composite: Composite, reading: Reading) -> None:
    """Raises for a pattern that matches no step."""
    patterns = _patterns(composite)
    if not patterns:
        return
    scopes = sorted(set(_scopes(reading)))
    names = list(dict.fromkeys(_names(reading)))
    for pattern in patterns:
        by_scope = any(fnmatch.fnmatchcase(scope, pattern) for scope in scopes)
        if by_scope or any(fits_any(pattern, each) for each in names):
            continue
        paths = [each[0] for each in names]
        raise ValueError(
            f"scope: {pattern!r} of composite {composite.name!r} matches none of "
            f"{_count(scopes, 'scope')} and {_count(paths, 'parameter path')} of f; "
            f"{_hints(pattern, scopes, paths, reading)}"
        )


def _count(names: Sequence[str], what: str) -> str:
    return f"the {len(names)} {what}{'' if len(names) == 1 else 's'}"


def _hints(
    pattern: str, scopes: Sequence[str], paths: Sequence[str], reading: Reading
) -> str:
    """What else there is, and why there is nothing of one kind."""
    near = ", ".join(map(repr, nearest(pattern, scopes, paths)))
    hints = [f"the nearest: {near}"] if near else []
    for main, own in _merged(reading):
        if fits_any(pattern, own):
            hints.append(
                f"{own[0]!r} is part of the layer {main!r}, which has its rule"
            )
            break
    stacked = [path for path in paths if _is_one_of(pattern, path)]
    if stacked:
        hints.append(
            f"the iterations of a scan have one rule, that of {stacked[0]!r}: write it "
            f"out as a Python loop for one of their own"
        )
    return "; ".join(hints if paths else [*hints, CLOSED_OVER])


def _is_one_of(pattern: str, path: str) -> bool:
    """Does a pattern name one of stacked weights by its number?"""
    numbers = [(int(n),) * path.count("[:]") for n in re.findall(r"\d+", pattern)]
    parts = [numbered(path, index) for index in numbers if "[:]" in path]
    return fits_any(pattern, (part for part in parts if part is not None))


def _merged(reading: Reading) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Layers, each with the names of a bias or scale that belongs to it."""
    for step in reading.steps:
        kernels = step.names(reading.facts) if step.layer else ()
        rest = names_of(step.equations[1:], reading.facts)
        yield from ((kernel[0], each) for kernel in kernels[:1] for each in rest)
        for body in step.bodies:
            yield from _merged(body)


def _check_depths(composite: Composite, reading: Reading) -> None:
    """Raises for a line whose depths begin beyond the last step of its roles.

    Of a schedule, in which a line begins where another one ends, a network may be too
    shallow for the last ones.
    """
    lines = [a for a in composite.assignments if a.depth is not None and a.depth[0]]
    if not lines:
        return
    found = set(_depths(reading))
    stops = {a.depth[1] for a in composite.assignments if a.depth is not None}
    for line in lines:
        assert line.depth is not None and line.depth[0] is not None
        roles = GROUPS.get(line.role, (line.role,))
        own = [depth for role, depth in found if role in roles]
        if own and max(own) < line.depth[0] and line.depth[0] not in stops:
            raise ValueError(
                f"depth: {line.depth} of composite {composite.name!r} matches none of "
                f"the steps of f with the role {line.role!r}: before the last of them "
                f"lie {max(own)} layers"
            )


def _depths(reading: Reading) -> Iterator[tuple[str, int]]:
    """The role of each step and how many layers lie before it."""
    for step in reading.steps:
        known = [reading.facts[v].depth for v in step.signals if v in reading.facts]
        yield step.role, max(known, default=0)
        for body in step.bodies:
            yield from _depths(body)


def _names(reading: Reading) -> Iterator[tuple[str, ...]]:
    """What the parameters are called of each step that relevance passes, or is held."""
    for step in reading.steps:
        if step.signals or step.constant:
            yield from step.names(reading.facts)
        for body in step.bodies:
            yield from _names(body)


def _scopes(reading: Reading) -> Iterator[str]:
    for step in reading.steps:
        if step.main.scope:
            yield step.main.scope
        for body in step.bodies:
            yield from _scopes(body)


def _read_program(
    program: Program,
    inputs: Sequence[Facts],
    composite: Composite,
    relevant: tuple[bool, ...],
    shadow_outputs: tuple[bool, ...],
    context: Context,
) -> Reading:
    # A call that is kept is read once for all its uses that are known alike; the steps
    # are then the same objects, by which the evaluation knows that one jit will do.
    key = program, tuple(inputs), relevant, shadow_outputs
    if key in context.readings:
        return context.readings[key]

    def read_body(
        body: Program,
        inputs: Sequence[Facts],
        relevant: tuple[bool, ...],
        shadow_outputs: tuple[bool, ...],
    ) -> Reading:
        return _read_program(body, inputs, composite, relevant, shadow_outputs, context)

    facts = analyse(program, inputs, context)
    steps = _claim(program, facts, composite, context)
    reading = finish(
        program, facts, steps, composite, relevant, shadow_outputs, context, read_body
    )
    if context.options.strict:
        _refuse_unexplained(reading)
    context.readings[key] = reading
    return reading


def _refuse_unexplained(reading: Reading) -> None:
    """Raises for the first step without a rule that relevance would have to pass."""
    for step in reading.steps:
        if step.role == "unexplained":
            raise UnexplainedPrimitiveError(_problem(step.main, reading.facts))


def _claim(
    program: Program,
    facts: Mapping[Value, Facts],
    composite: Composite,
    context: Context,
) -> list[Step]:
    uses: dict[Value, list[int]] = {}
    for i, equation in enumerate(program.equations):
        for v in equation.inputs:
            if isinstance(v, Value):
                uses.setdefault(v, []).append(i)
    for v in program.outputs:
        if isinstance(v, Value):
            uses.setdefault(v, []).append(-1)  # an output is a use
    producer = {v: i for i, e in enumerate(program.equations) for v in e.outputs}
    findings, softmaxes = context.findings, context.findings.softmaxes
    claims = Claims(
        program,
        facts,
        uses,
        producer,
        {},
        findings.recurrent,
        named=context.options.by_scope,
    )
    for i, equation in enumerate(program.equations):
        if _refusal(equation, facts):
            claims.role[i] = "unexplained"
        is_maximum = not softmaxes.maxima.isdisjoint(equation.outputs)
        if is_maximum or is_constant(equation, facts, composite.constants):
            claims.role[i] = "constant"
    units = claim_symbols(claims)
    units |= claim_softmax(claims, softmaxes, composite)
    units |= claim_norms(claims, composite)
    claims = dataclasses.replace(claims, scales=find_scales(claims))
    units |= claim_layers(claims, composite)
    units |= claim_batch_norms(claims, composite)
    hold_gates(claims, composite)
    units |= claim_scales(claims)
    units |= claim_regions(claims)
    units |= claim_sums(claims, composite, frozenset(units))
    activated = _activated(units, composite, claims)
    steps = []
    for i, equation in enumerate(program.equations):
        step = units.get(i)
        if step is None and claims.role.get(i) != "chain":
            step = _single(i, equation, claims, composite)
        if step is not None:
            step = _select(step, activated, composite, claims)
            step = with_gates(step, units, composite, findings.coefficients, claims)
            unread = not softmaxes.unread.isdisjoint(step.equations)
            steps.append(dataclasses.replace(step, unread=unread))
    return with_factors(steps, composite)


def _refusal(equation: Equation, facts: Mapping[Value, Facts]) -> str:
    """Why relevance cannot pass the equation, if it cannot."""
    entry = lookup(equation.primitive)
    if entry is None:
        # A derivative of its own will do, but for what an id names.
        known = equation.opaque and any(
            facts_of(v, facts).active for v in equation.inputs
        )
        return "" if known else "no rule"
    if entry.kind is Kind.REFUSED:
        return entry.reason
    active = [facts_of(v, facts).active for v in equation.inputs]
    return entry.refuses(equation.params, active) if any(active) else ""


def _problem(equation: Equation, facts: Mapping[Value, Facts]) -> str:
    """Why relevance cannot pass the equation, and what to do."""
    entry = lookup(equation.primitive)
    name = equation.primitive.name
    where = equation.line
    shapes = ", ".join(v.aval.str_short() for v in equation.inputs)
    if entry is not None:
        reason = _refusal(equation, facts)
        way_out = "" if "custom_lrp" in reason else f"; {_WAY_OUT}"
        return f"primitive {name!r} of ({shapes}) at {where}: {reason}{way_out}."
    return (
        f"primitive {name!r} of ({shapes}) at {where} has no rule, and relevance has "
        f"to pass it. Register one with @jaxlrp.register_rule(primitive), or "
        f"{_WAY_OUT}."
    )


_WAY_OUT = "wrap the function that uses it in jaxlrp.custom_lrp"


def _select(
    step: Step,
    activated: frozenset[Value],
    composite: Composite,
    claims: Claims,
) -> Step:
    """The step with the composite's assignment that wins."""
    follows = step.layer is not None and step.outputs[0] in activated
    place = claims.place(
        step.main, step.role, step.signals, follows, step.residual, step.named_by
    )
    return dataclasses.replace(step, first=place.first, slot=composite.select(place))


def _activated(
    units: Mapping[int, Step], composite: Composite, claims: Claims
) -> frozenset[Value]:
    """The values that only activations read, if a rule asks for that."""
    if all(a.activated is None for a in composite.assignments):
        return frozenset()
    found = set()
    activations = [s for s in units.values() if s.role == "activation"]
    for root in {s.argument for s in activations if s.argument is not None}:
        inside = {id(e) for s in activations if s.argument is root for e in s.equations}
        uses = claims.uses.get(root, ())
        equations = claims.program.equations
        if all(j >= 0 and id(equations[j]) in inside for j in uses):
            found.add(root)
    return frozenset(found)


def _single(
    index: int, equation: Equation, claims: Claims, composite: Composite
) -> Step:
    """A step of one equation."""
    signals = tuple(dict.fromkeys(claims.active_inputs(equation)))
    kind = claims.entry(equation).kind
    opaque = kind in (Kind.CONTROL, Kind.CALL, Kind.REFUSED)
    if claims.role.get(index) == "constant":
        role = "unreached" if opaque else "inactive"
        return Step(role, (equation,), (), constant=True)
    if opaque or (kind is Kind.CUSTOM and claims.entry(equation).shadows):
        signals += symbols_of(equation, claims)
    carries = opaque or any(claims.facts[v].carries for v in equation.outputs)
    if not signals or not carries:
        return Step("inactive", (equation,), ())
    role = claims.role.get(index)
    if role is not None:  # softmax, unexplained
        return Step(role, (equation,), signals)
    if equation.opaque:
        return opaque_step(equation, signals, claims, composite)
    entry = claims.entry(equation)
    if entry.kind is Kind.ELEMENTWISE:
        return _elementwise(equation, entry, signals, claims)
    roles = {
        Kind.STRUCTURAL: "structural",
        Kind.SELECTION: "selection",
        Kind.CONTRACTION: "bilinear",
        Kind.CALL: "call",
        Kind.CONTROL: "control",
        Kind.CUSTOM: "custom",
        Kind.TAYLOR: "gradient",
    }
    if entry.kind in (Kind.LINEAR, Kind.HOMOGENEOUS):
        return _algebraic(equation, entry, signals, claims)
    if entry.kind is Kind.CONTRACTION and (gate := dispatched(equation, claims)):
        return Step("product", (equation,), signals, Held(gate))
    if entry.kind is Kind.CONTRACTION and not contracts(equation, claims):
        return Step("product", (equation,), signals, Held(gates(equation, claims)))
    return Step(roles[entry.kind], (equation,), signals)


def _algebraic(
    equation: Equation, entry: Entry, signals: tuple[Value, ...], claims: Claims
) -> Step:
    """The role of what is linear in some of its operands, or of a degree in them."""
    active = [claims.active(v) for v in equation.inputs]
    held = tuple(entry.held(equation.params, active))
    if held:  # it is linear in the others
        return Step("quotient", (equation,), signals, Held(held))
    if entry.linear(active):
        return Step("linear", (equation,), signals)
    if entry.degree(equation.params, active) is not None:
        return Step(entry.role or "homogeneous", (equation,), signals)
    role = "bilinear" if entry.is_product else "gradient"
    return Step(role, (equation,), signals)


def _elementwise(
    equation: Equation, entry: Entry, signals: tuple[Value, ...], claims: Claims
) -> Step:
    """The role of an elementwise equation that no region has claimed."""
    active = [claims.active(v) for v in equation.inputs]
    if entry.linear(active):
        if len(active) == 1 or entry.selects:  # a sign, a cast, a mask
            return Step("structural", (equation,), signals)
        if not _is_arithmetic(entry):
            return Step("linear", (equation,), signals)
        if not entry.is_sum:
            divides = entry.is_quotient and isinstance(equation.inputs[1], Value)
            unbounded = divides or may_be_infinite(equation, claims)
            return Step("scale", (equation,), signals, unbounded=unbounded)
        role = "sum" if all(active) else "shift"
        return Step(role, (equation,), signals)
    held = held_operands(equation, entry, claims.facts)
    if held:
        statistic = facts_of(equation.inputs[held[0]], claims.facts).reduced
        role = "normaliser" if statistic else "quotient"
        return Step(role, (equation,), signals, Held(held))
    if len(active) == 2 and entry.is_product:
        form = Held(gates(equation, claims))
        unbounded = has_infinite_factor(equation, claims)
        return Step("product", (equation,), signals, form, unbounded=unbounded)
    if entry.picks:
        return Step("selection", (equation,), signals)
    held = tuple(entry.held(equation.params, active))
    if held and entry.linear([a and i not in held for i, a in enumerate(active)]):
        return Step("quotient", (equation,), signals, Held(held))
    if held:  # an activation, with parameters
        parameters = [equation.inputs[i] for i in held]
        (root,) = [v for v in signals if v not in parameters]
        form = unit_of(root, equation.outputs[0])
        return Step("activation", (equation,), (root,), form)
    if entry.degree(equation.params, active) is not None:
        return Step("homogeneous", (equation,), signals)
    return Step("gradient", (equation,), signals)


def _is_arithmetic(entry: Entry) -> bool:
    """A sum, product or quotient of two; linear in the first, whatever the second."""
    return entry.linear([True, False])
