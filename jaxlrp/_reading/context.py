"""What reading is told, what it has found, and what it need not compute twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxlrp._program.program import Equation, Program, Value, flatten


@dataclasses.dataclass(frozen=True)
class Options:
    """What reading is asked for.

    Attributes:
      constants: patterns of scopes in which nothing carries relevance.
      strict: raise where relevance meets a primitive without a rule.
      by_scope: distinguish the scopes of calls that are kept.
      by_depth: count the layers before each value.
      keep_calls: keep large calls that are repeated; else all are inlined.
    """

    constants: tuple[str, ...] = ()
    strict: bool = True
    by_scope: bool = False
    by_depth: bool = False
    keep_calls: bool = True


@dataclasses.dataclass(frozen=True)
class Joint:
    """A product or quotient of a mix of values and of weights.

    Attributes:
      role: of the products that made the mix.
      weights: the positions of the weights.
      gate: do weights count as gates there?
    """

    role: str
    weights: tuple[int, ...]
    gate: bool


@dataclasses.dataclass(frozen=True)
class Softmaxes:
    """What is known of the softmaxes of a program and of its bodies.

    Attributes:
      maxima: running maxima, which are constants.
      roles: by equation.
      joints: by equation; these have no other role.
      unread: divisions of an exponential by something made of it that are no softmax.
    """

    maxima: frozenset[Value] = frozenset()
    roles: Mapping[Equation, str] = dataclasses.field(default_factory=dict)
    joints: Mapping[Equation, Joint] = dataclasses.field(default_factory=dict)
    unread: frozenset[Equation] = frozenset()


@dataclasses.dataclass(frozen=True)
class Findings:
    """What walks over the whole program have found, its bodies included.

    Attributes:
      softmaxes: their equations, and maxima that are constants.
      coefficients: for products of a state space, the position of the coefficient.
      recurrent: the layers that lie in a recurrence.
    """

    softmaxes: Softmaxes = Softmaxes()
    coefficients: Mapping[Equation, int] = dataclasses.field(default_factory=dict)
    recurrent: frozenset[Equation] = frozenset()


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """Options and findings, with the caches that hold for them.

    Attributes:
      options: what was asked for.
      findings: so far; facts and readings depend on them.
      programs: of bodies, by jaxpr and scope; each with its jaxpr, whose identity is
        part of the key and must stay taken.
      facts: by program and the facts of its inputs.
      readings: by program, the facts of its inputs and what arrives at its outputs.
    """

    options: Options
    findings: Findings = Findings()
    programs: dict[Any, tuple[Any, Program]] = dataclasses.field(default_factory=dict)
    facts: dict[Any, Any] = dataclasses.field(default_factory=dict)
    readings: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def found(self, **findings: Any) -> Context:
        """The same with more findings. Of these, facts depend on the maxima alone."""
        more = dataclasses.replace(self.findings, **findings)
        same = more.softmaxes.maxima == self.findings.softmaxes.maxima
        return Context(self.options, more, self.programs, self.facts if same else {})

    def program(self, jaxpr: Any, scope: str) -> Program:
        """The program of a body; the same for the same jaxpr and scope."""
        key = id(jaxpr), scope
        if key not in self.programs:
            program = flatten(jaxpr, scope, self.options.keep_calls)
            self.programs[key] = jaxpr, program
        return self.programs[key][1]
