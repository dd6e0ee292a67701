"""A warning where the box of a z-box rule does not contain the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxlrp import _compat
from jaxlrp._program.program import Value
from jaxlrp._reading.steps import Reading, Step
from jaxlrp._rewriting.environment import Environment, run_equations
from jaxlrp._warn import warn
from jaxlrp.composites import Composite
from jaxlrp.errors import BoundsWarning
from jaxlrp.rules import ZBox

ROUNDING = 1e-5
"""How far a value may lie outside the box, in units of the box."""


def warn_outside(reading: Reading, inputs: Sequence[Any], composite: Composite) -> None:
    """Warns of each layer with a z-box whose input lies outside its bounds.

    Only where all values are known: under `jit` there is nothing to compare. What lies
    in the bodies of loops and branches is not examined.
    """
    boxed = [
        (step, rule)
        for step in reading.steps
        if isinstance(rule := step.rule(composite), ZBox) and step.signals
    ]
    known = (*inputs, *(leaf for _, rule in boxed for leaf in jax.tree.leaves(rule)))
    if not boxed or not all(map(_compat.is_known, known)):
        return
    signals = [step.signals[0] for step, _ in boxed]
    for signal, (_, rule) in zip(signals, boxed, strict=True):
        rule.check_shapes(signal.aval.shape)
    env = Environment(reading)
    env.values.update(zip(reading.program.inputs, inputs, strict=True))
    for step in _needed(reading, signals):
        results = run_equations(step.equations, {}, env.read)
        env.values.update(zip(step.outputs, results, strict=True))
    for (step, rule), signal in zip(boxed, signals, strict=True):
        problem = _outside(np.asarray(env.read(signal), np.float64), rule)
        if problem:
            warn(
                f"{rule} at {step.main.line}: {problem}",
                BoundsWarning,
            )


def _needed(reading: Reading, values: Sequence[Value]) -> list[Step]:
    """The steps that some values depend on, in order."""
    wanted = set(values)
    steps = []
    for step in reversed(reading.steps):
        if wanted.isdisjoint(step.outputs):
            continue
        steps.append(step)
        for equation in step.equations:
            wanted.update(v for v in equation.inputs if isinstance(v, Value))
    return steps[::-1]


def _outside(x: np.ndarray, rule: ZBox) -> str | None:
    """By how much some values are outside a box, in words."""
    low, high = (np.asarray(v, np.float64) for v in (rule.low, rule.high))
    if (low > high).any():
        return f"low is above high by up to {(low - high).max():.4g}"
    below, above = low - x, x - high
    allowed = ROUNDING * (high - low)
    outside = (below > allowed) | (above > allowed)
    if not outside.any():
        return None
    return (
        f"its input reaches from {x.min():.4g} to {x.max():.4g}, outside of the bounds "
        f"by up to {max(below.max(), 0):.4g} below and {max(above.max(), 0):.4g} above "
        f"({outside.mean():.1%} of it); shares can be negative or large there. Bounds "
        f"are those of the layer's own input, after any normalisation in f"
    )
