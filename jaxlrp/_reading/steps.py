"""What reading makes of a program: steps with roles, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jax.extend.core import Literal

from jaxlrp._program.placement import Placement, in_place
from jaxlrp._program.program import Atom, Equation, Program, Value
from jaxlrp._reading.facts import Facts, names_of
from jaxlrp.composites import DEFAULTS, Composite
from jaxlrp.primitives import Kind, lookup
from jaxlrp.primitives.structural import Layout
from jaxlrp.rules import (
    Absolute,
    Detach,
    Flat,
    Gradient,
    Norm,
    Pass,
    RelevanceRule,
    Rule,
    SignalTakesAll,
    Taylor,
    TopK,
    UniformSplit,
    WinnerTakesAll,
)

_BY_RELEVANCE: dict[str, tuple[type[Rule], ...]] = {
    "dense": (Pass,),
    "convolution": (Pass,),
    "sum": (Pass, UniformSplit),
    "softmax": (Pass,),
    "normaliser": (Pass,),
    "selection": (Flat, Norm),
}

_HOLDING = (Detach, SignalTakesAll)
"""Rules under which a divisor, a statistic or a gate counts as a constant."""


@dataclasses.dataclass(frozen=True)
class Link:
    """One equation of the affine chain after a layer.

    Attributes:
      equation: the equation.
      position: which of its operands is the chain's own value.
      kind: `structural`, `scale` (a constant factor), `shift` (a constant term), `held`
        (a factor that was divided out of the layer's input), `across` (a sum over
        devices) or `blocks` (a sum over blocks of the layer).
      layout: the axes of the chain's value before the equation.
    """

    equation: Equation
    position: int
    kind: str
    layout: Layout


@dataclasses.dataclass(frozen=True)
class LayerForm:
    """A linear head and the affine chain after it: `y = S(W x s) + b`.

    Attributes:
      head: the contraction or sum.
      position: which of its operands is the signal.
      links: the chain, in order.
      layout: the axes of the result, those of the kernel marked.
    """

    head: Equation
    position: int
    links: tuple[Link, ...]
    layout: Layout

    @property
    def kernel(self) -> Any | None:
        """The weights, or None for a sum."""
        others = [v for i, v in enumerate(self.head.inputs) if i != self.position]
        return others[0] if len(others) == 1 else None

    @property
    def held(self) -> tuple[Atom, ...]:
        """The factors that count as constants."""
        links = (link for link in self.links if link.kind == "held")
        return tuple(link.equation.inputs[1 - link.position] for link in links)


@dataclasses.dataclass(frozen=True)
class Unit:
    """Several equations that are one function of one value.

    Attributes:
      argument: that value, which relevance goes to.
      exact: JAX's derivative already is the role's rule.
      path: for a whole normalisation, the equations on its signal's path.
      recipe: equations of other steps that recompute the argument from something less.
      spread: the result's axes where those of the argument lie, if that is repeated or
        moved.
    """

    argument: Value
    exact: bool = False
    path: tuple[Equation, ...] = ()
    recipe: tuple[Equation, ...] = ()
    spread: Placement | None = None


def unit_of(argument: Value, result: Value) -> Unit:
    """A unit of one elementwise equation: a number may be spread over the result."""
    same = argument.aval.shape == result.aval.shape
    return Unit(argument, spread=None if same else in_place(argument.aval.shape))


@dataclasses.dataclass(frozen=True)
class Held:
    """Operands of a product or quotient that count as constants.

    Attributes:
      positions: which, under `Detach` (normaliser, quotient) or `SignalTakesAll`
        (products).
      factors: of a product, of how many factors each operand is one, if of several.
      weights: which are weights of a softmax that meet a mix of values, not values. The
        mix takes all, and the weights get beside it what a product gives a factor.
    """

    positions: tuple[int, ...] = ()
    factors: tuple[int, ...] = ()
    weights: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class LookUp:
    """Values picked by integers that name something.

    Attributes:
      columns: which columns of the index are such integers, if not all are.
    """

    columns: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Inside:
    """Control flow.

    Attributes:
      readings: of its bodies.
    """

    readings: tuple[Reading, ...] = ()


def _operands(equations: Sequence[Equation]) -> tuple[Value, ...]:
    """The values that they read and do not make, in the order of their use."""
    made = {v for e in equations for v in e.outputs}
    read = (v for e in equations for v in e.inputs if isinstance(v, Value))
    return tuple(v for v in dict.fromkeys(read) if v not in made)


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One thing that the interpreter does.

    Attributes:
      role: what it is, see `jaxlrp.composites`; or `structural`, `lookup` (of what an
        attributed integer names), `control`, `call`, `custom`, `linear`, `homogeneous`
        (the local gradient over the degree), `gradient` (no rule but the local
        gradient), `inactive` (no relevance), `detached` (none arrives), `unreached`
        (none arrives, and JAX could not differentiate it), `unexplained` (no rule).
      equations: what it evaluates, in order; the last gives its results.
      signals: the active values that it reads and that may receive relevance.
      first: does no layer lie between it and the attributed inputs?
      slot: the composite's assignment that applies, or None for the role's default.
      form: what is known of a layer or average, of a unit of several equations, of
        held operands, of a look-up or of control flow; None where there is nothing.
      rectified: of a layer: all that read its result are ReLUs, so that no relevance
        arrives where it is negative. Rules may rely on that; what they hand on has to
        be zero there, since the ReLU may be `passing`.
      passing: of a ReLU: the layer in front of it is rectified, and the factor of its
        rule is zero where the result is negative. The ReLU then hands on whatever
        arrives, and its mask need not be kept.
      saved: the result is a factor of a product whose reverse pass keeps it.
      constant: its results count as constants, though the input is in them.
      residual: a sum of a value and of what is made of it.
      unbounded: of a scale: its constant may be infinite, or a divisor zero; of a
        product: a factor may be infinite.
      unread: divides an exponential by something made of it, and is no softmax.
    """

    role: str
    equations: tuple[Equation, ...]
    signals: tuple[Value, ...]
    form: LayerForm | Unit | Held | LookUp | Inside | None = None
    first: bool = False
    slot: int | None = None
    rectified: bool = False
    passing: bool = False
    saved: bool = False
    constant: bool = False
    residual: bool = False
    unbounded: bool = False
    unread: bool = False

    @property
    def layer(self) -> LayerForm | None:
        """The parts of a layer or average."""
        return self.form if isinstance(self.form, LayerForm) else None

    @property
    def unit(self) -> Unit | None:
        """What several equations are as one function."""
        return self.form if isinstance(self.form, Unit) else None

    @property
    def argument(self) -> Value | None:
        """The value that a unit is a function of."""
        return self.form.argument if isinstance(self.form, Unit) else None

    @property
    def path(self) -> tuple[Equation, ...]:
        """The signal's path through a whole normalisation."""
        return self.form.path if isinstance(self.form, Unit) else ()

    @property
    def recipe(self) -> tuple[Equation, ...]:
        """What recomputes a unit's root."""
        return self.form.recipe if isinstance(self.form, Unit) else ()

    @property
    def exact(self) -> bool:
        """Is JAX's derivative already the role's rule?"""
        return isinstance(self.form, Unit) and self.form.exact

    @property
    def held(self) -> tuple[int, ...]:
        """The operands that count as constants under rules that hold some."""
        return self.form.positions if isinstance(self.form, Held) else ()

    @property
    def factors(self) -> tuple[int, ...]:
        """Of how many factors each operand of a product is one, if of several."""
        return self.form.factors if isinstance(self.form, Held) else ()

    @property
    def weights(self) -> tuple[int, ...]:
        """The operands that are weights of a softmax beside a mix of values."""
        return self.form.weights if isinstance(self.form, Held) else ()

    @property
    def columns(self) -> tuple[int, ...]:
        """The columns of a look-up's index that name something, if not all do."""
        return self.form.columns if isinstance(self.form, LookUp) else ()

    @property
    def bodies(self) -> tuple[Reading, ...]:
        """The readings of the bodies of control flow."""
        return self.form.readings if isinstance(self.form, Inside) else ()

    @property
    def main(self) -> Equation:
        """The equation that names the step: a layer's head, else the last one."""
        return self.layer.head if self.layer else self.equations[-1]

    @property
    def named_by(self) -> tuple[Equation, ...]:
        """The equations whose parameters name it: of a layer its head alone."""
        return (self.layer.head,) if self.layer else self.equations

    def names(self, facts: Mapping[Value, Facts]) -> tuple[tuple[str, ...], ...]:
        """Its parameters, each with the names that it goes by, where known."""
        return names_of(self.named_by, facts)

    @property
    def by_elements(self) -> bool:
        """Is its main equation elementwise?"""
        entry = lookup(self.main.primitive)
        return entry is not None and entry.kind is Kind.ELEMENTWISE

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The results."""
        return self.equations[-1].outputs

    @property
    def sources(self) -> tuple[Value, ...]:
        """What the root is recomputed from, where it is."""
        return _operands(self.recipe)

    @property
    def operands(self) -> tuple[Value, ...]:
        """The values of other steps that its equations read."""
        return _operands(self.equations)

    @property
    def reads(self) -> tuple[Value, ...]:
        """The values of other steps that it reads, in the order of their use."""
        return tuple(dict.fromkeys((*self.sources, *self.operands)))

    def rule(self, composite: Composite) -> Rule | None:
        """The rule that `composite` gives, or None where there is no choice.

        The identity on a softmax is for one claimed as a unit; a piece has the default.
        """
        rule = self._assigned(composite)
        if rule is None:
            return DEFAULTS.get(self.role)
        if self.role == "softmax" and self.argument is None and isinstance(rule, Pass):
            return DEFAULTS[self.role]
        return rule.rule if isinstance(rule, TopK) else rule

    def _assigned(self, composite: Composite) -> Rule | None:
        """The rule of the line that applies, its filter included."""
        return None if self.slot is None else composite.assignments[self.slot].rule

    def fraction(self, composite: Composite) -> Any | None:
        """The fraction of its relevances that a filter lets pass, or None."""
        rule = self._assigned(composite)
        return rule.keep if isinstance(rule, TopK) else None

    def held_under(self, rule: Rule | None) -> tuple[int, ...]:
        """The positions that count as constants under this rule."""
        return self.held if isinstance(rule, _HOLDING) else ()

    def receivers(self, rule: Rule | None) -> tuple[Value, ...]:
        """The values that relevance goes to under this rule."""
        if isinstance(rule, Detach) and not (self.held or self.path):
            return ()
        # A normaliser not claimed as one unit passes relevance to its signal.
        if self.held and isinstance(rule, (*_HOLDING, Pass)):
            inputs = self.main.inputs
            others = [v for i, v in enumerate(inputs) if i not in self.held]
            return tuple(v for v in self.signals if v in others)
        return self.signals

    def by_relevance(self, rule: Rule | None) -> bool:
        """Does the rule give relevances, to shadows, in this role?

        Others give multipliers; relevance is the value times the multiplier.
        """
        if isinstance(rule, Gradient):
            # A selection moves relevance as it moves a gradient.
            return self.role != "selection"
        if isinstance(rule, RelevanceRule):
            return True
        if isinstance(rule, Taylor):
            return rule.root is not None
        if isinstance(rule, WinnerTakesAll):
            return rule.ties == "share"
        if isinstance(rule, Absolute):
            return self.layer is None and not rule.joint
        return isinstance(rule, _BY_RELEVANCE.get(self.role, ()))


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """A program that has been read.

    Attributes:
      program: the program.
      facts: what is known of each value.
      steps: what to do, in order.
      shadowed: the values that carry a shadow.
    """

    program: Program
    facts: Mapping[Value, Facts]
    steps: tuple[Step, ...]
    shadowed: frozenset[Value]

    def is_active(self, atom: Any) -> bool:
        """Can relevance pass through this operand?"""
        return not isinstance(atom, Literal) and self.facts[atom].active

    def carries(self, atom: Any) -> bool:
        """Can relevance pass through this operand, or its shadow?"""
        return not isinstance(atom, Literal) and self.facts[atom].carries

    @property
    def shadowed_inputs(self) -> tuple[bool, ...]:
        """Which inputs need a shadow."""
        return tuple(v in self.shadowed for v in self.program.inputs)

    @property
    def shadowed_outputs(self) -> tuple[bool, ...]:
        """Which outputs return a shadow."""
        return tuple(
            isinstance(v, Value) and v in self.shadowed for v in self.program.outputs
        )
