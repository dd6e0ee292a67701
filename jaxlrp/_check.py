"""The check: one run, and what a user should know about what is explained and how."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

from jaxlrp import _targets
from jaxlrp._audit import Audit, auditor
from jaxlrp._plan import rows
from jaxlrp._reading import traps
from jaxlrp._reading.amplifies import in_words
from jaxlrp._reading.steps import Reading
from jaxlrp._rewriting.backward import Traced
from jaxlrp._sizes import LIMIT
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums, as_composite
from jaxlrp.composites import Composite

P = ParamSpec("P")

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

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> found = jaxlrp.check(lambda x: x @ w)(jnp.array([1.0, 2.0]))
      >>> print(found)
      explained score                    5
      share at the inputs                1
      sum of |R| over score              1
      nothing stands out
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
    f: Callable[P, Any],
    composite: Composite | None = None,
    argnums: ArgNums = -1,
    *,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Findings]:
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
    return traps.found(traced.reading, traced.attributed, traced.n_out)


# ---- of the target -----------------------------------------------------------------


def _of_target(traced: Traced, target: Any) -> Iterator[tuple[str, str]]:
    """Does the target name one class of each example?"""
    outputs = traps.floats(traced.reading.program, traced.n_out)
    if _targets.is_plain(target) or (isinstance(target, str) and target == "all"):
        return
    if len(outputs) != 1:
        return
    (shape,) = (v.aval.shape for v in outputs)
    batch = traps.batch_of(traced.reading, traced.attributed, traced.n_out)
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
