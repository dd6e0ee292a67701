"""What is known to let relevance grow before anything runs: rules in context.

Shares by signed contributions, `x w / z`, have no bound where the contributions cancel.
A loop that applies the same weights repeatedly turns a small excess into a large one:
so does the identity on an activation that saturates, where a gradient would vanish.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence

from jaxlrp._program.bodies import bodies_of
from jaxlrp._program.program import Value
from jaxlrp._reading.steps import Reading, Step
from jaxlrp.primitives import lookup
from jaxlrp.rules import LRP0, Epsilon, Norm, Pass, Rule

_SIGNED = (LRP0, Epsilon, Norm)
"""Rules whose shares are signed contributions over their sum."""


def reason(step: Step, rule: Rule | None, reading: Reading, recurrent: bool) -> str:
    """Why a step may make relevance grow under its rule, in words; or nothing.

    `recurrent`: it lies on a recurrence's cycle, see `in_recurrences`.
    """
    why = _why(step, rule, reading, recurrent)
    return f"{type(rule).__name__} {why}" if why else ""


def _why(step: Step, rule: Rule | None, reading: Reading, recurrent: bool) -> str:
    if step.role == "sum" and isinstance(rule, Pass):
        return "on sums, a copy to each term"
    if step.role == "sum" and isinstance(rule, _SIGNED) and _may_cancel(step, reading):
        return "on sums whose terms may cancel"
    if recurrent and step.role in ("dense", "convolution"):
        return "on layers in a recurrence" if isinstance(rule, _SIGNED) else ""
    if recurrent and step.role == "activation" and not step.exact:
        saturates = "on activations that may saturate, in a recurrence"
        return saturates if isinstance(rule, Pass) else ""
    return ""


def _may_cancel(step: Step, reading: Reading) -> bool:
    """Can the terms differ in sign? Subtracting a mean does not count."""
    facts = [reading.facts[v] for v in step.signals]
    if any(f.reduced for f in facts):
        return False
    entry = lookup(step.main.primitive)
    adds = entry is not None and not entry.subtracts
    return not (adds and all(f.nonnegative for f in facts))


def in_recurrences(reading: Reading) -> frozenset[int]:
    """The steps, by identity, of recurrences, whether in loops or unrolled."""
    loops = (_in_loop(step) for step in reading.steps if step.bodies)
    return frozenset().union(_written_out(reading), *loops)


def _written_out(reading: Reading) -> frozenset[int]:
    """Layers that follow one another with the same weights, and what is between."""
    users = collections.defaultdict(list)
    for step in reading.steps:
        if step.layer is not None and isinstance(step.layer.kernel, Value):
            users[step.layer.kernel].append(step)
    found: set[int] = set()
    for layers in users.values():
        if len(layers) == 1:
            continue
        starts = tuple(v for layer in layers for v in layer.outputs)
        ends = tuple(v for layer in layers for v in layer.signals)
        between = [id(step) for step in _between(reading, starts, ends)]
        if between:
            found.update(between, map(id, layers))
    return frozenset(found)


def _in_loop(step: Step) -> frozenset[int]:
    """The steps that a loop runs through again with the same weights.

    Those on the path from its carry to its carry, bodies included, if a layer on that
    path has the weights of the iteration before. A loop over stacked layers has
    different ones.
    """
    how = bodies_of(step.main)
    if not how.repeats:
        return frozenset()
    (reading,) = step.bodies
    program = reading.program
    before, after = program.inputs[how.carried], program.outputs[: how.carries]
    around = _between(reading, before, after)
    moved = [
        v
        for v, w in zip(before, after, strict=True)
        if v is not w and not reading.carries(v)
    ]
    other = _made_of(reading, [*moved, *program.inputs[how.slices]])
    if not any(_repeats(s, other) for s in around):
        return frozenset()
    return frozenset(id(s) for s in _with_inner(around))


def _between(
    reading: Reading, start: tuple[Value, ...], end: tuple[object, ...]
) -> list[Step]:
    """The steps on relevance's path from some values to others."""
    reached = {v for v in start if reading.carries(v)}
    ahead = []
    for step in reading.steps:
        if not reached.isdisjoint(step.signals):
            reached.update(step.outputs)
            ahead.append(step)
    wanted = {v for v in end if isinstance(v, Value)}
    found = []
    for step in reversed(ahead):
        if not wanted.isdisjoint(step.outputs):
            wanted.update(step.signals)
            found.append(step)
    return found[::-1]


def _made_of(reading: Reading, values: list[Value]) -> set[Value]:
    """The constants of relevance that some values are in."""
    made = set(values)
    for equation in reading.program.equations:
        if any(isinstance(v, Value) and v in made for v in equation.inputs):
            made.update(v for v in equation.outputs if not reading.carries(v))
    return made


def _repeats(step: Step, other: set[Value]) -> bool:
    """Is there a layer in it whose weights depend on none of those values?"""
    if step.role in ("dense", "convolution") and step.layer is not None:
        kernel = step.layer.kernel
        return not (isinstance(kernel, Value) and kernel in other)
    given = step.main.inputs[bodies_of(step.main).given]
    for body in step.bodies:
        pairs = zip(body.program.inputs, given, strict=True)
        inside = [v for v, w in pairs if isinstance(w, Value) and w in other]
        if any(_repeats(s, _made_of(body, inside)) for s in body.steps):
            return True
    return False


def _with_inner(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        for body in step.bodies:
            yield from _with_inner(list(body.steps))


def in_words(reasons: Mapping[str, Sequence[str]]) -> list[str]:
    """Reasons, each with its lines: how many, and where the first is."""
    lines = []
    for why, places in reasons.items():
        count = "" if len(places) == 1 else f"{len(places)} steps, the first "
        lines.append(f"{why}: {count}at {places[0]}")
    return lines
