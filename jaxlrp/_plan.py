"""The plan: what each equation of a program is, and which rule it gets, as a table."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

from jaxlrp import _html, _tables
from jaxlrp._program.program import Equation
from jaxlrp._reading import traps
from jaxlrp._reading.amplifies import in_recurrences, in_words, reason
from jaxlrp._reading.facts import is_real
from jaxlrp._reading.steps import Reading, Step
from jaxlrp._trace import ArgNums, checked, trace
from jaxlrp.composites import Composite
from jaxlrp.rules import Rule

P = ParamSpec("P")

EXACTNESS = {
    "structural": "exact",
    "lookup": "exact",
    "linear": "exact",
    "homogeneous": "proportional",
    "gradient": "Taylor",
    "custom": "custom",
    "detached": "none",
    "inactive": "none",
    "unexplained": "none",
    "unreached": "none",
}
"""How exact the roles are that leave no choice of rule."""

_COLUMNS = ("role", "rule", "from", "exact?", "layer", "line")
"""Of the printed table, after the equations and their shapes under their dtype."""

_DTYPE = re.compile(r"\b(bfloat|float|complex|uint|int|bool)\d*(?=\[)")
_BRIEF = {"bfloat": "bf", "float": "f", "complex": "c", "uint": "u", "int": "i"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One step of a plan.

    Attributes:
      primitives: the primitives of its equations, in order.
      line: the user's line.
      scope: the named scopes around it.
      role: what it is.
      rule: the rule that it gets.
      won: the composite's line that gave it, by role and conditions, or `default`.
      exactness: `exact`, `proportional`, `Taylor`, `none` or `custom`.
      shape: the shape and dtype of its result.
      depth: how many loops or branches it lies in.
      amplifies: why relevance may grow in it, in words, or nothing.
      unread: does it divide an exponential by something made of it, and is no softmax?
      parameter: the path of its kernel, or other parameter, in the arguments of `f`.
      brief: the rule without what it has by default, as the printed table shows it.
    """

    primitives: tuple[str, ...]
    line: str
    scope: str
    role: str
    rule: str
    won: str
    exactness: str
    shape: str
    depth: int
    amplifies: str = ""
    unread: bool = False
    parameter: str = ""
    brief: str = ""

    def kin(self) -> object:
        """Neighbouring rows with the same kin are shown as one; a layer never is."""
        if self.role in ("structural", "softmax", "detached"):
            return (self.role, self.rule, self.scope, self.depth)
        return object()

    @property
    def layer(self) -> str:
        """What it is called: its scopes, else its parameter's path; or nothing."""
        return self.scope or self.parameter

    def cells(self) -> tuple[str, ...]:
        """The row as it is printed: without what goes without saying.

        Of several primitives the first is named. A composite's line for the row's very
        role is told by its conditions, a default by nothing.
        """
        shown = self.primitives[0] + (" …" if len(set(self.primitives)) > 1 else "")
        won = "" if self.won in ("-", "default") else self.won
        won = "its role" if won == self.role else won.removeprefix(f"{self.role} ")
        return (
            "  " * self.depth + shown,
            self.shape,
            self.role,
            "" if self.rule == "-" else self.brief or self.rule,
            won,
            "prop." if self.exactness == "proportional" else self.exactness,
            self.layer,
            self.line,
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What LRP does with a program; prints as a table, in a notebook a folded one.

    A printed table has 100 columns at most. `rows` have all in full, and HTML more.

    Attributes:
      composite: the composite's name.
      rows: the steps that relevance passes, in the program's order.
      traps: what is hardly meant, in words: statistics of a batch and dropout, as in
        training, and an output that is a probability.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> f = lambda w, x: jnp.tanh(x @ w)
      >>> plan = jaxlrp.plan(f)(jnp.ones((2, 2)), jnp.ones(2))
      >>> [(row.role, row.parameter) for row in plan.rows], plan.unexplained
      ([('dense', 'w'), ('activation', '')], ())
    """

    composite: str
    rows: tuple[Row, ...]
    traps: tuple[str, ...] = ()

    @property
    def coverage(self) -> float:
        """The fraction of equations on relevance's path that have a rule, 0 to 1."""
        total = sum(len(r.primitives) for r in self.rows)
        missing = sum(len(r.primitives) for r in self.unexplained)
        return 1.0 if total == 0 else 1.0 - missing / total

    @property
    def unexplained(self) -> tuple[Row, ...]:
        """The rows that have no rule; `lrp` refuses a program with such a row."""
        return tuple(r for r in self.rows if r.role == "unexplained")

    @property
    def amplifying(self) -> tuple[Row, ...]:
        """The rows in which relevance may grow, whatever the numbers say.

        It does where contributions cancel: `jaxlrp.check` measures by how much.
        """
        return tuple(r for r in self.rows if r.amplifies)

    def __str__(self) -> str:
        short = _tables.places(r.line for r in self.rows)
        dtype = _usual_dtype(self.rows)
        cells = [
            (name, _brief_shape(shape, dtype), *more, short[row.line])
            for row in self.rows
            for name, shape, *more, _ in [row.cells()]
        ]
        lines = _tables.table(
            ("equations", dtype, *_COLUMNS),
            cells,
            whole=("role", "exact?"),
            ends=("layer", "line"),
            least={"equations": 12, dtype: 10, "rule": 15, "from": 10, "layer": 13},
        )
        by = collections.Counter(r.exactness for r in self.rows)
        summary = ", ".join(f"{n} {name}" for name, n in by.most_common())
        title = (
            f"Plan ({self.composite}): {len(self.rows)} steps, "
            f"coverage {self.coverage:.1%} ({summary})"
        )
        return "\n".join([title, *lines, *self._notes()])

    def _repr_html_(self) -> str:
        return _html.plan(self)

    def _notes(self) -> list[str]:
        """What may amplify, one line for each reason, and what is hardly meant."""
        short = _tables.places(r.line for r in self.rows)
        places: dict[str, list[str]] = {}
        for row in self.amplifying:
            places.setdefault(row.amplifies, []).append(short[row.line])
        notes = [n for note in in_words(places) for n in _tables.wrapped(note)]
        amplifying = ["may amplify relevance:", *notes] if notes else []
        lines = dict.fromkeys(short[row.line] for row in self.rows if row.unread)
        head = "exponentials divided by something made of them, not read as softmax:"
        unread = [head, *(f"  at {line}" for line in lines)] if lines else []
        traps = [line for note in self.traps for line in _tables.wrapped(note)]
        unlikely = ["hardly meant:", *traps] if traps else []
        return [*amplifying, *unread, *unlikely]


def plan(
    f: Callable[P, Any],
    composite: Composite | None = None,
    argnums: ArgNums = -1,
    *,
    has_aux: bool = False,
) -> Callable[P, Plan]:
    """What `lrp(f, composite, argnums=argnums)` would do, read without running `f`.

    Args:
      f: as for `lrp`.
      composite: as for `lrp`.
      argnums: as for `lrp`.
      has_aux: as for `lrp`.

    Returns:
      A function of `f`'s arguments, arrays or `jax.ShapeDtypeStruct`s, that returns
      the plan. Nothing is allocated: a model larger than memory can be read.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w = jax.ShapeDtypeStruct((4, 2), jnp.float32)
      >>> x = jax.ShapeDtypeStruct((3, 4), jnp.float32)
      >>> plan = jaxlrp.plan(lambda w, x: jax.nn.gelu(x @ w))(w, x)
      >>> [row.role for row in plan.rows], plan.coverage
      (['dense', 'activation'], 1.0)
    """
    rules = checked(f, composite, argnums, has_aux=has_aux)

    def of(*args: Any, **kwargs: Any) -> Plan:
        traced = trace(
            f, args, kwargs, rules, argnums, has_aux, strict=False, by_scope=True
        )
        found = traps.found(traced.reading, traced.attributed, traced.n_out)
        known = tuple(f"{kind}: {message}" for kind, message in found)
        return Plan(rules.name, tuple(rows(traced.reading, rules, 0)), known)

    return of


def rows(
    reading: Reading,
    composite: Composite,
    depth: int,
    recurrent: frozenset[int] = frozenset(),
) -> Iterator[Row]:
    """The rows of a reading, those of its bodies included; like neighbours in one.

    `recurrent` are the steps that lie in a recurrence, by identity.
    """
    last: Row | None = None
    for row in _single_rows(reading, composite, depth, recurrent):
        if last is not None and last.kin() == row.kin():
            joined = (*last.primitives, *row.primitives)
            last = dataclasses.replace(last, primitives=joined, shape=row.shape)
            continue
        if last is not None:
            yield last
        last = row
    if last is not None:
        yield last


def _single_rows(
    reading: Reading, composite: Composite, depth: int, recurrent: frozenset[int]
) -> Iterator[Row]:
    """One row for each step."""
    recurrent = recurrent | in_recurrences(reading)
    for step in reading.steps:
        if not any(_on_the_way(e, reading) for e in step.equations):
            continue
        for body in step.bodies:
            yield from rows(body, composite, depth + 1, recurrent)
        if step.bodies:
            continue
        rule = step.rule(composite)
        yield Row(
            tuple(e.primitive.name for e in step.equations),
            step.main.line,
            step.main.scope,
            step.role,
            _name_of(rule, step),
            _won(rule, step, composite),
            _exactness(rule, step),
            ", ".join(v.aval.str_short() for v in step.outputs),
            depth,
            reason(step, rule, reading, id(step) in recurrent),
            step.unread and bool(step.signals),
            next((n[0] for n in step.names(reading.facts)), ""),
            _brief(rule),
        )


def _won(rule: Rule | None, step: Step, composite: Composite) -> str:
    """The line of the composite that a step's rule comes from."""
    if step.slot is None:
        return "-" if rule is None else "default"
    line = composite.assignments[step.slot]
    condition = line.condition()
    return f"{line.role} [{condition}]" if condition else line.role


def _exactness(rule: Rule | None, step: Step) -> str:
    if rule is None:
        return EXACTNESS[step.role]
    # The divisor counts as a constant; the signal's relevance passes in full.
    return "proportional" if step.held and rule.exactness == "none" else rule.exactness


def _name_of(rule: Any, step: Step) -> str:
    if rule is not None:
        return str(rule)
    own = {"custom": "its own", "gradient": "Taylor()", "homogeneous": "by degree"}
    return own.get(step.role, "-")


def _usual_dtype(rows: tuple[Row, ...]) -> str:
    """The dtype that most results have."""
    found = collections.Counter(m[0] for r in rows for m in _DTYPE.finditer(r.shape))
    return found.most_common(1)[0][0] if found else "shape"


def _brief_shape(shape: str, usual: str) -> str:
    """A shape without the usual dtype; others are named as in jaxprs."""
    return _DTYPE.sub(
        lambda m: "" if m[0] == usual else m[0].replace(m[1], _BRIEF.get(m[1], m[1])),
        shape,
    )


def _brief(rule: Any) -> str:
    """A rule's name and the options that do not have their default; or nothing."""
    if not dataclasses.is_dataclass(rule):
        return ""
    default = {f.name: f.default for f in dataclasses.fields(rule)}
    shown = []
    for position, (name, usual) in enumerate(default.items()):
        value = getattr(rule, name)
        if repr(value) != repr(usual):
            shown.append(repr(value) if position == 0 else f"{name}={value!r}")
    name = type(rule).__name__
    return f"{name}({', '.join(shown)})" if shown else name


def _on_the_way(equation: Equation, reading: Reading) -> bool:
    """Does the equation pass on what an attributed input was?"""
    return any(reading.carries(v) for v in equation.inputs) and any(
        is_real(v.aval) or reading.carries(v) for v in equation.outputs
    )
