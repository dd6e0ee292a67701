"""Warnings of what is certain about a program, and hardly meant by its user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxlrp import _compat, _targets
from jaxlrp._reading import traps
from jaxlrp._rewriting.backward import Traced
from jaxlrp._warn import warn
from jaxlrp.errors import TargetWarning, TrainingWarning

Warned = set[str]
"""What one transformation has warned of: once is enough."""


def warn_of_program(traced: Traced, target: Any, warned: Warned) -> None:
    """Warns of training mode, and of an output that is a probability."""
    reading = traced.reading
    given = reading, traced.jaxpr, traced.attributed, traced.n_out
    if lines := traps.with_running_statistics(*given):
        _once("statistics", traps.batch_statistics(lines), TrainingWarning, warned)
    if lines := traps.with_dropout(reading):
        _once("dropout", traps.dropout(lines), TrainingWarning, warned)
    if heads := traps.heads(reading, explained(traced, target), _is_whole(target)):
        _once("head", traps.probabilities(heads[0]), TargetWarning, warned)


def _once(kind: str, message: str, category: type[Warning], warned: Warned) -> None:
    if kind not in warned:
        warned.add(kind)
        warn(message, category)


def _is_whole(target: Any) -> bool:
    """Does the target name no class? Then an output may be a picture, not scores."""
    return callable(target) or (isinstance(target, str) and target == "all")


def explained(traced: Traced, target: Any) -> list[bool]:
    """Which leaves of the output the target asks about."""
    outputs = traced.reading.program.outputs[: traced.n_out]
    out = jax.tree.unflatten(traced.out_tree, range(len(outputs)))
    wanted = [False] * len(outputs)

    def mark(target: Any, out: Any) -> None:
        divided = None if isinstance(out, int) else _targets.split(target, out)
        if divided is None:
            for i in jax.tree.leaves(out):
                wanted[i] = True
            return
        for one, part in divided[0]:
            if one is not None:
                mark(one, part)

    mark(target, out)
    return wanted


def warn_of_rows(
    traced: Traced,
    target: Any,
    outs: Sequence[Any],
    relevances: Sequence[Any],
    warned: Warned,
) -> None:
    """Warns of the highest of the examples, where an output has no axis of classes.

    The output and an input have as many rows, and either the program says that each row
    of the output is made of that row of the input, or, outside of `jit`, the relevance
    of all other rows is zero.
    """
    if not (isinstance(target, str) and target == "max") or len(outs) != 1:
        return
    (out,) = outs
    if out.ndim != 1 or not isinstance(out.shape[0], int) or out.shape[0] < 2:
        return
    inputs = [(i, traced.inputs[i]) for i in traced.attributed]
    if not inputs or any(x.ndim < 2 or x.shape[0] != out.shape[0] for _, x in inputs):
        return
    (atom,) = traced.reading.program.outputs[: traced.n_out]
    certain = all(
        traps.has_independent_rows(traced.reading, atom, i) for i, _ in inputs
    )
    if certain or _has_one_row(out, [x for _, x in inputs], relevances):
        message = (
            f"target: got 'max' for an output of shape {out.shape}, a number for each "
            f"example and no axis of classes: the highest of the {out.shape[0]} "
            f'examples alone is explained. target="all" explains each'
        )
        _once("rows", message, TargetWarning, warned)


def _has_one_row(out: Any, inputs: Sequence[Any], relevances: Sequence[Any]) -> bool:
    """Has the input of the highest example alone relevance, where that is known?"""
    known = (out, *inputs, *relevances)
    if not all(_compat.is_known(v) and v.is_fully_addressable for v in known):
        return False
    highest = int(np.asarray(out).argmax())
    rows = [_sizes(r) for r in relevances]
    return all(
        row[highest] > 0 and not np.delete(row, highest).any() and (_sizes(x) > 0).all()
        for row, x in zip(rows, inputs, strict=True)
    )


def _sizes(x: Any) -> np.ndarray:
    """`sum(|x|)` of each row."""
    return np.abs(np.asarray(x).astype(np.complex64)).reshape(x.shape[0], -1).sum(1)
