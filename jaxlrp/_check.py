"""The check: one run, and what a user should know about what is explained and how."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax.extend.core import jaxprs_in_params

from jaxlrp import _compat
from jaxlrp._audit import Audit, auditor
from jaxlrp._plan import rows
from jaxlrp._program.bodies import bodies_of
from jaxlrp._program.program import Equation, Program, Value, aval_of
from jaxlrp._reading.amplifies import in_words
from jaxlrp._reading.facts import is_real
from jaxlrp._reading.steps import Reading, Step
from jaxlrp._rewriting.backward import Traced
from jaxlrp._sizes import LIMIT
from jaxlrp._trace import ArgNums, as_composite
from jaxlrp.composites import Composite
from jaxlrp.primitives import Kind, lookup

CANCELS = 10.0
"""A sum cancels where its terms are so many times larger than it is."""

AWAY = 0.5
"""Relevance is missing, or too much, where that part of the score is."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that a user should know; prints as its message.

    Attributes:
      kind: `explosion`, `zero score`, `share`, `cancellation`, `batch statistics`,
        `random numbers`, `probabilities` or `class axis`.
      message: what it is, where, and what can be done.
    """

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


@dataclasses.dataclass(frozen=True)
class Findings:
    """What one run says about an explanation; prints as a report.

    Attributes:
      audit: the run's audit.
      found: what stands out, the gravest first.
    """

    audit: Audit
    found: tuple[Finding, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of what was found."""
        return tuple(f.kind for f in self.found)

    @property
    def score(self) -> float:
        """What is explained: the relevance that the output starts with."""
        return self.audit.total_out

    @property
    def share(self) -> float:
        """The part of the score that reaches the attributed inputs; NaN of zero."""
        out = self.audit.total_out
        return self.audit.total_in / out if out else math.nan

    @property
    def amplification(self) -> float:
        """`sum(|R|)` of the attributed inputs over that of the output."""
        return self.audit.amplification

    def __str__(self) -> str:
        merge = self.audit.cancellation
        lines = [
            f"explained score         {self.score:>12.6g}",
            f"share at the inputs     {self.share:>12.3g}",
            f"sum of |R| over score   {self.amplification:>12.3g}",
        ]
        if merge is not None:
            lines.append(f"largest cancellation    {merge.cancellation:>12.3g}")
        notes = [_paragraph(f"- {f}") for f in self.found]
        return "\n".join([*lines, *(notes or ["nothing stands out"])])


def _paragraph(text: str) -> str:
    return textwrap.fill(
        text,
        88,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def check(
    f: Callable[..., Any],
    composite: Composite | None = None,
    argnums: ArgNums = -1,
    *,
    target: Any = "max",
    has_aux: bool = False,
) -> Callable[..., Findings]:
    """Runs `lrp(f, ...)` once and says what a user should know about it.

    Of the numbers: relevance that is far larger than the score or not finite, with the
    step in which it grows most; sums whose terms cancel; how much of the score reaches
    the inputs, and what kept the rest. Of the program: normalisers with the statistics
    of a batch, dropout that is on, a softmax or sigmoid at the output, an output
    without an axis of classes.

    Args:
      f: as for `lrp`.
      composite: as for `lrp`.
      argnums: as for `lrp`.
      target: as for `lrp`.
      has_aux: as for `lrp`.

    Returns:
      A function of `f`'s arguments that returns the findings. It compiles as `audit`
      does, costs about twice as much as `lrp`, and cannot be called under `jit`.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> classify = lambda x: jax.nn.softmax(x @ w)
      >>> found = jaxlrp.check(classify)(jnp.array([1.0, 2.0]))
      >>> found.kinds
      ('share', 'probabilities')
    """
    look = auditor(f, composite, argnums, target, has_aux)
    rules = as_composite(composite)

    def checked(*args: Any, **kwargs: Any) -> Findings:
        audit, traced = look(args, kwargs)
        found = [*_of_numbers(audit, traced.reading, rules), *_of_program(traced)]
        found += _of_target(traced, target)
        return Findings(audit, tuple(Finding(*f) for f in found))

    return checked


# ---- of the numbers ----------------------------------------------------------------


def _of_numbers(
    audit: Audit, reading: Reading, composite: Composite
) -> Iterator[tuple[str, str]]:
    times = audit.amplification
    if not times <= LIMIT:
        yield "explosion", _explosion(audit, reading, composite)
    if audit.size_out == 0:
        yield "zero score", "nothing is explained: the output at the target is zero"
    elif times <= LIMIT and not abs(audit.total_in / audit.total_out - 1) <= AWAY:
        amounts = {k: v / audit.total_out for k, v in audit.absorbed.items()}
        most = max(amounts, key=lambda k: abs(amounts[k]))
        yield (
            "share",
            f"{audit.total_in / audit.total_out:.1%} of the score reaches the inputs; "
            f"{amounts[most]:.1%} of it is {most}, see jaxlrp.audit",
        )
    merge = audit.cancellation
    if merge is not None and not (merge.cancellation or 0) <= CANCELS:
        yield (
            "cancellation",
            f"the terms of the sum at {merge.line} are {merge.cancellation:.3g} times "
            f"as large as the sum; relevance leaves it {merge.amplification:.3g} times "
            f"as large",
        )


def _explosion(audit: Audit, reading: Reading, composite: Composite) -> str:
    if math.isfinite(audit.size_in):
        text = (
            f"the relevance is {audit.amplification:.3g} times as large as the score; "
            f"its parts cancel, and what is left of them may be noise"
        )
    else:
        text = f"the relevance is NaN or infinite, by {audit.culprit or 'its size'}"
    if audit.growth is not None:
        text += f". It grows most in {audit.growth}"
    roles = audit.growth_by_role
    if roles:
        role = max(roles, key=lambda r: roles[r].times)
        most = roles[role]
        if audit.growth is None or most.count > audit.growth.count:
            text += (
                f". All {most.count} of role {role} make it {most.times:.3g} times as "
                f"large"
            )
    known: dict[str, list[str]] = {}
    for row in rows(reading, composite, 0):
        if row.amplifies:
            known.setdefault(row.amplifies, []).append(row.line)
    if known:
        text += f". Known to amplify: {'; '.join(in_words(known))}"
    return text


# ---- of the program ----------------------------------------------------------------


def _of_program(traced: Traced) -> Iterator[tuple[str, str]]:
    reading = traced.reading
    lines = list(_with_batch_statistics(reading, _batch(traced)))
    if lines:
        yield (
            "batch statistics",
            f"{_places(lines)} a normaliser takes its statistics over the batch, as in "
            f"training: each explanation depends on the other examples. Evaluate the "
            f"network with its stored statistics",
        )
    lines = list(_with_random_numbers(reading, frozenset()))
    if lines:
        yield (
            "random numbers",
            f"{_places(lines)} random numbers meet what is explained, as by dropout in "
            f"training. Evaluate the network without",
        )
    for atom in reading.program.outputs[: traced.n_out]:
        head = _head(atom, reading)
        if head is not None:
            yield (
                "probabilities",
                f"the output is that of {head}: a probability is explained, and with "
                f"it what speaks for other classes. Explain the scores before it",
            )
            return


def _places(lines: Sequence[str]) -> str:
    different = list(dict.fromkeys(lines))
    more = f" and {len(different) - 1} more lines" if len(different) > 1 else ""
    return f"at {different[0]}{more}"


def _batch(traced: Traced) -> int | None:
    """How many examples there are, if inputs and outputs seem to have an axis of them.

    The first axis of an attributed input of several axes is one if the outputs have it.
    """
    program = traced.reading.program
    inputs = [program.inputs[i].aval.shape for i in traced.attributed]
    outputs = [v.aval.shape for v in _floats(program, traced.n_out)]
    for shape in inputs:
        if len(shape) > 1 and outputs and all(o[:1] == shape[:1] for o in outputs):
            return shape[0]
    return None


def _floats(program: Program, count: int) -> list[Any]:
    return [v for v in program.outputs[:count] if is_real(v.aval)]


def _with_batch_statistics(reading: Reading, batch: int | None) -> Iterator[str]:
    """The lines of the normalisers whose statistics are of all examples."""
    if batch is None:
        return
    producer = {v: e for e in reading.program.equations for v in e.outputs}
    for step in reading.steps:
        for body in step.bodies:
            yield from _with_batch_statistics(body, batch)
        if step.role != "normaliser":
            continue
        inside = [v for e in step.equations for v in e.outputs] if step.path else []
        held = [step.main.inputs[i] for i in step.held]
        if any(_is_of_batch(v, batch, producer, reading) for v in [*held, *inside]):
            yield _where(step.main)


def _where(equation: Equation) -> str:
    """The line, and the scopes around it: the line may be a library's."""
    scope = f" in {equation.scope}" if equation.scope else ""
    return equation.line + scope


def _is_of_batch(
    value: Any, batch: int, producer: dict[Value, Equation], reading: Reading
) -> bool:
    """Is a statistic made by a reduction over the batch's axis?"""
    waiting, seen = [value], set()
    while waiting:
        v = waiting.pop()
        equation = producer.get(v) if isinstance(v, Value) else None
        if equation is None or v in seen or not reading.carries(v):
            continue
        seen.add(v)
        entry = lookup(equation.primitive)
        if entry is not None and entry.kind is Kind.CONTRACTION:
            continue
        axes = _compat.reduced_axes(equation.params)
        if axes is None or not equation.primitive.name.startswith("reduce_"):
            waiting += equation.inputs
        elif 0 in axes and aval_of(equation.inputs[0]).shape[0] == batch:
            return True
    return False


_RANDOM = ("random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform")
"""The primitives that random numbers come from."""


def _is_random(primitive: Any, params: Any) -> bool:
    return primitive.name in _RANDOM or any(
        _is_random(eqn.primitive, eqn.params)
        for body in jaxprs_in_params(params)
        for eqn in body.eqns
    )


def _with_random_numbers(reading: Reading, given: frozenset[Value]) -> Iterator[str]:
    """The lines where random numbers meet active values elementwise.

    `given` are the inputs that are made of random numbers.
    """
    random = set(given)
    for step in reading.steps:
        for equation in step.equations:
            meets = [v for v in equation.inputs if isinstance(v, Value) and v in random]
            active = any(map(reading.carries, equation.inputs))
            if step.bodies:
                yield from _random_inside(step, random)
            elif meets and active and _by_elements(equation):
                yield _where(equation)
            made = bool(meets) or _is_random(equation.primitive, equation.params)
            if made:
                random.update(v for v in equation.outputs if not reading.carries(v))


def _by_elements(equation: Equation) -> bool:
    entry = lookup(equation.primitive)
    return entry is not None and entry.kind in (Kind.ELEMENTWISE, Kind.SELECTION)


def _random_inside(step: Step, random: set[Value]) -> Iterator[str]:
    given = step.main.inputs[bodies_of(step.main).given]
    for body in step.bodies:
        pairs = zip(body.program.inputs, given, strict=True)
        inside = [v for v, w in pairs if isinstance(w, Value) and w in random]
        yield from _with_random_numbers(body, frozenset(inside))


def _head(atom: Any, reading: Reading) -> str | None:
    """The softmax or sigmoid that an output is the result of, or None."""
    made_by = {v: s for s in reading.steps for v in s.outputs}
    while isinstance(atom, Value) and atom in made_by:
        step = made_by[atom]
        last = _last_primitive(step.equations[-1])
        where = _where(step.main)
        if step.role == "softmax":
            return f"a softmax, at {where}"
        if step.role == "activation" and last == "logistic":
            return f"a sigmoid, at {where}"
        if step.role == "sum" and last == "sub":  # x - logsumexp(x)
            subtracted = _head(step.main.inputs[1], reading)
            is_softmax = subtracted is not None and "softmax" in subtracted
            return f"a log-softmax, at {where}" if is_softmax else None
        if step.role == "call" and step.bodies:
            (reading,) = step.bodies
            atom = reading.program.outputs[step.outputs.index(atom)]
            made_by = {v: s for s in reading.steps for v in s.outputs}
            continue
        passes = step.role in ("structural", "shift") or last == "log"
        if not passes or len(step.signals) != 1:
            return None
        (atom,) = step.signals
    return None


def _last_primitive(equation: Equation) -> str:
    """The name of what gives its result, in the body of a call too."""
    body = _compat.called_jaxpr(dict(equation.params))
    if body is None:
        return equation.primitive.name
    eqns = _compat.open_jaxpr(body)[0].eqns
    return eqns[-1].primitive.name if eqns else ""


# ---- of the target -----------------------------------------------------------------


def _of_target(traced: Traced, target: Any) -> Iterator[tuple[str, str]]:
    """Does the target name one class of each example?"""
    outputs = _floats(traced.reading.program, traced.n_out)
    if callable(target) or (isinstance(target, str) and target == "all"):
        return
    if len(outputs) != 1:
        return
    (shape,) = (v.aval.shape for v in outputs)
    batch = _batch(traced)
    if batch is None or batch == 1:
        return
    if len(shape) == 1:
        yield (
            "class axis",
            f"the output, of shape {shape}, has a number for each example and no axis "
            f"of classes: the target {target!r} chooses among the examples. "
            f'target="all" explains each',
        )
    elif len(shape) > 2 and math.prod(shape[1:-1]) > 1:
        yield (
            "class axis",
            f"the output, of shape {shape}, has {math.prod(shape[1:-1])} places for "
            f"each example: the target {target!r} is taken at each of them, and their "
            f"relevances are added up. A callable target, or a function that returns "
            f"one place, explains one",
        )
