"""What the forward pass keeps for the reverse pass, where there is a choice.

JAX keeps what the reverse pass reads. An activation's factor is `y / x`: it reads its
root `x`, or what `x` is recomputed from, and its result or what that is computed from.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from jaxlrp import rules
from jaxlrp._program.program import Equation, Value, aval_of
from jaxlrp._reading.steps import Step, Unit
from jaxlrp.composites import Composite
from jaxlrp.primitives import Kind, lookup

_FAR = 4
"""So many equations are enough to spread and scale a value."""

_IN_PLACE = (Kind.STRUCTURAL, Kind.ELEMENTWISE)

_NEAR = 5
"""So many steps in a row are enough from an activation to the layers before it."""


def with_saved(steps: Sequence[Step], composite: Composite) -> tuple[Step, ...]:
    """What roots are remade from (`Step.recipe`), which results stay (`saved`)."""
    makers = {v: step for step in steps for v in step.outputs}
    factors = _factors(steps, composite)
    results = {v for s in steps if _keeps_result(s, composite) for v in s.outputs}

    def told(step: Step) -> Step:
        stays = not factors.isdisjoint(step.outputs)
        step = dataclasses.replace(step, saved=True) if stays else step
        if step.role != "activation" or step.exact or step.passing:
            return step
        assert isinstance(step.form, Unit)
        recipe = _of_less(step.form.argument, makers)
        recipe = recipe or _of_kept(
            step.form.argument, makers, factors | results, composite
        )
        unit = dataclasses.replace(step.form, recipe=recipe)
        return dataclasses.replace(step, form=unit) if recipe else step

    return tuple(map(told, steps))


def _factors(steps: Sequence[Step], composite: Composite) -> set[Value]:
    """The factors of products: both receive relevance, as multiples of the other."""
    found: set[Value] = set()
    for step in steps:
        if step.role in ("product", "bilinear"):
            receivers = step.receivers(step.rule(composite))
            found.update(receivers if len(receivers) > 1 else ())
    return found


def _keeps_result(step: Step, composite: Composite) -> bool:
    """Does a layer's rule divide by the result, as it is?"""
    rule = step.rule(composite)
    plain = step.layer is not None and not step.rectified
    return plain and type(rule) is rules.Epsilon and rule.bias == "absorb"


def _of_less(root: Value, makers: Mapping[Value, Step]) -> tuple[Equation, ...]:
    """Equations that compute the root from a value of at most half its size, if any do.

    In `exp(step * decay)` it is the product of a step for each channel and a decay for
    each channel and state: to keep the step costs nothing, to keep the root does.
    """
    path: tuple[Equation, ...] = ()
    value = root
    while len(path) < _FAR:
        step = makers.get(value)
        if step is None or step.role not in ("structural", "scale"):
            return ()
        entry = lookup(step.main.primitive)
        on_one_device = entry is not None and entry.kind in _IN_PLACE
        if len(step.equations) > 1 or len(step.signals) != 1 or not on_one_device:
            return ()
        path = (step.main, *path)
        (value,) = step.signals
        if 2 * _size(value) <= _size(root):
            return path
    return ()


def _size(value: Value) -> int:
    shape = value.aval.shape
    return math.prod(shape) if all(isinstance(n, int) for n in shape) else 1


def _of_kept(
    root: Value, makers: Mapping[Value, Step], kept: set[Value], composite: Composite
) -> tuple[Equation, ...]:
    """Equations that compute the root from what is kept anyway, if any do.

    These are factors of products, and what layers give under epsilon. In a recurrent
    network gates are functions of parts of `W x + U h`, and the state's is one of
    `f c + i g`.
    """

    def made(value: Value, most: int) -> tuple[Equation, ...] | None:
        if value in kept:
            return ()
        step = makers.get(value)
        if step is None or most == 0 or not _is_made_again(step, composite):
            return None
        equations: list[Equation] = []
        for operand in step.main.inputs:
            if not isinstance(operand, Value):
                continue
            found = made(operand, most - 1)
            if found is None:
                return None
            equations += found
        return (*equations, step.main)

    return tuple(dict.fromkeys(made(root, _NEAR) or ()))


def _is_made_again(step: Step, composite: Composite) -> bool:
    """Is it little work, and on one device, to recompute the result?"""
    if len(step.equations) > 1 or step.layer is not None or step.bodies:
        return False
    if step.role == "structural":
        entry = lookup(step.main.primitive)
        moves = entry is not None and entry.kind is Kind.STRUCTURAL
        # What keeps the shape may move to other devices, or mark a position.
        shapes = {aval_of(v).shape for v in (step.main.inputs[0], *step.outputs)}
        return moves and len(shapes) > 1
    sums = step.role == "sum" and isinstance(step.rule(composite), rules.LRP0)
    return sums or step.role == "product"
