"""Normalisations as their own steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax import Array

from jaxlrp import rules
from jaxlrp._program.program import Equation, Value
from jaxlrp._reading.steps import Step
from jaxlrp._rewriting.activations import Region, activation
from jaxlrp._rewriting.affine import stabilised
from jaxlrp._rewriting.environment import (
    Environment,
    Run,
    bounded_operand,
    run_equations,
)


def batch_norm(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """`y = a x + b`, one number of each for a feature, as its own layer."""
    if isinstance(rule, rules.Epsilon):
        return stabilised(step, rule, env, run)
    if not isinstance(rule, rules.LRP0):
        return activation(step, rule, env, run)
    return run_equations(step.equations, {}, env.read), [None]


@dataclasses.dataclass(frozen=True, eq=False)
class Normalisation:
    """A whole normalisation, of its signal and of what its statistics are of.

    Attributes:
      region: all of its equations, as a function of the normalised value.
      path: the equations on its signal's path.
      bounded: its factors are finite, also where it divides by zero.
    """

    region: Region
    path: tuple[Equation, ...]
    bounded: bool = False

    def __call__(self, x: Array, held: tuple[Array, Sequence[Any]]) -> Array:
        other, constants = held
        values = self.region.all_values(other, constants)
        for equation in self.path if self.bounded else ():
            moving = {self.region.argument, *(v for e in self.path for v in e.outputs)}
            for i, v in enumerate(equation.inputs):
                if isinstance(v, Value) and v not in moving:
                    values[v] = bounded_operand(equation, i, values[v])
        return run_equations(self.path, {**values, self.region.argument: x})[0]
