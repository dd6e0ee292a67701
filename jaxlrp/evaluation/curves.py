"""Perturbation curves: the score as units are removed in order of relevance.

Units are ranked once. The most relevant come first (MoRF) or the least relevant (LeRF);
among equals, in either order, those that come first in the array. So a constant
relevance has the same curve twice, and an area of zero between them. A NaN relevance
gives a NaN curve.

All functions are of one example. `jax.vmap` makes them of many.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp.attribution import _checks as checks
from jaxlrp.evaluation import _checks, units
from jaxlrp.evaluation._chunks import map_over
from jaxlrp.evaluation.scores import Score

__all__ = [
    "BINS",
    "LARGEST_DENOMINATOR",
    "Baseline",
    "Curve",
    "Steps",
    "abpc",
    "area",
    "comprehensiveness",
    "deletion",
    "drop",
    "flipping",
    "insertion",
    "ranks",
    "sufficiency",
]

Baseline = Any
"""An array that broadcasts to `x`, or a function `(x, removed) -> array`."""

Steps = int | Sequence[float] | Sequence[Fraction]
"""A number of equal steps, or fractions."""

ORDERS = ("morf", "lerf")
BINS = (0.01, 0.05, 0.1, 0.2, 0.5)
"""The fractions of tokens of ERASER."""

LARGEST_DENOMINATOR = 10_000
"""Fractions of a number of units that is traced are ratios of integers up to this."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Curve:
    """Scores along a perturbation.

    A pytree: `jax.vmap` gives curves with a leading axis for the examples, and
    `jax.tree.map(lambda v: v.mean(0), curve)` is their mean.

    Attributes:
      fractions: of the units that are removed, or inserted; in [0, 1], ascending.
      scores: the score at each of them.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> curve = evaluation.Curve(jnp.array([0.0, 1.0]), jnp.array([3.0, 1.0]))
      >>> float(evaluation.area(curve))
      2.0
    """

    fractions: Array
    scores: Array


def flipping(
    score: Score,
    x: Any,
    relevance: Any,
    *,
    baseline: Baseline = 0.0,
    order: str = "morf",
    steps: Steps = 10,
    where: Any = None,
    chunk: int = 8,
) -> Curve:
    """The score as more and more units are replaced by a baseline.

    With `n` units, ranked by relevance, and `x_k` the input whose first `k` units are
    the baseline's,

        curve(k / n) = score(x_k)

    Args:
      score: from an array like `x` to a number, or to several, as `logit(f, target)`.
      x: one example: pixels, embeddings, token ids, an attention mask.
      relevance: one value for each unit. It has as many axes as `x`, with sizes that
        divide `x`'s: a unit is a block of `x`. See `pool`.
      baseline: a number or an array that broadcasts to `x`, or a function
        `(x, removed) -> array` of the input and a mask of its shape. See `baselines`.
      order: `"morf"`, the most relevant first, or `"lerf"`, the least relevant.
      steps: an int `m` for the fractions 0, 1/m, ..., 1, or the fractions themselves,
        ascending. `floor(fraction n)` units are removed.
      where: booleans of the relevance's shape: the units that count, as tokens that are
        no padding. The others stay as they are, and `n` does not count them.
      chunk: how many inputs are evaluated at once. It bounds the memory; the result
        does not depend on it.

    Returns:
      The curve. Its fractions are those that were removed, `floor(fraction n) / n`.

    Raises:
      TypeError: if `score` is no function, `x`, `relevance` or `baseline` is no array
        of real numbers, `steps` is neither an int nor fractions, `where` is not of
        booleans, or `chunk` is no int.
      ValueError: if `relevance` or `baseline` does not fit `x`, `order` is none of its
        names, `steps` is below 1 or no ascending fractions in [0, 1], `where` has
        another shape, or `chunk` is below 1.

    Source: Bach et al. 2015, "On pixel-wise explanations for non-linear classifier
    decisions by layer-wise relevance propagation"; Samek et al. 2017, "Evaluating the
    visualization of what a deep neural network has learned".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> x = jnp.array([1.0, 4.0, 2.0])
      >>> curve = evaluation.flipping(jnp.sum, x, x, steps=3)
      >>> curve.scores.tolist()
      [7.0, 3.0, 1.0, 0.0]
    """
    _checks.one_of("order", order, ORDERS)
    return _curve(score, x, relevance, baseline, order, steps, where, chunk, False)


def deletion(
    score: Score,
    x: Any,
    relevance: Any,
    *,
    baseline: Baseline = 0.0,
    steps: Steps = 10,
    where: Any = None,
    chunk: int = 8,
) -> Curve:
    """`flipping`, the most relevant first: low is good.

    Args:
      score: as for `flipping`; a probability in the paper.
      x: as for `flipping`.
      relevance: as for `flipping`.
      baseline: as for `flipping`.
      steps: as for `flipping`.
      where: as for `flipping`.
      chunk: as for `flipping`.

    Returns:
      The curve; `area` is the paper's number.

    Raises:
      TypeError: if `score` is no function, `x`, `relevance` or `baseline` is no array
        of real numbers, `steps` is neither an int nor fractions, `where` is not of
        booleans, or `chunk` is no int.
      ValueError: if `relevance` or `baseline` does not fit `x`, `steps` is below 1 or
        no ascending fractions in [0, 1], `where` has another shape, or `chunk` is below
        1.

    Source: Petsiuk et al. 2018, "RISE: randomized input sampling for explanation of
    black-box models".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> x = jnp.array([1.0, 4.0])
      >>> evaluation.deletion(jnp.sum, x, x, steps=2).scores.tolist()
      [5.0, 1.0, 0.0]
    """
    return _curve(score, x, relevance, baseline, "morf", steps, where, chunk, False)


def insertion(
    score: Score,
    x: Any,
    relevance: Any,
    *,
    baseline: Baseline = 0.0,
    steps: Steps = 10,
    where: Any = None,
    chunk: int = 8,
) -> Curve:
    """The score as units are inserted into a baseline, the most relevant first.

    With `x_k` the baseline that has the input's values in the `k` most relevant units,

        curve(k / n) = score(x_k)

    High is good.

    Args:
      score: as for `flipping`; a probability in the paper.
      x: as for `flipping`.
      relevance: as for `flipping`.
      baseline: as for `flipping`; a blurred image in the paper.
      steps: as for `flipping`, of the units that are inserted.
      where: as for `flipping`; units that do not count are there from the start.
      chunk: as for `flipping`.

    Returns:
      The curve, of the fractions that are inserted; `area` is the paper's number.

    Raises:
      TypeError: if `score` is no function, `x`, `relevance` or `baseline` is no array
        of real numbers, `steps` is neither an int nor fractions, `where` is not of
        booleans, or `chunk` is no int.
      ValueError: if `relevance` or `baseline` does not fit `x`, `steps` is below 1 or
        no ascending fractions in [0, 1], `where` has another shape, or `chunk` is below
        1.

    Source: as for `deletion`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> x = jnp.array([1.0, 4.0])
      >>> evaluation.insertion(jnp.sum, x, x, steps=2).scores.tolist()
      [0.0, 4.0, 5.0]
    """
    return _curve(score, x, relevance, baseline, "morf", steps, where, chunk, True)


def area(curve: Curve) -> Array:
    """The area under a curve: its mean height, by the trapezoidal rule.

        A = sum_i (q_{i+1} - q_i) (s_i + s_{i+1}) / 2 / (q_last - q_first)

    for fractions `q` and scores `s`, in the score's units. A curve from 0 to 1 has the
    usual area; one from 0.1 to 0.9, as Chefer's, is divided by its width of 0.8.

    Args:
      curve: of one example, or of many as `jax.vmap` gives them.

    Returns:
      One number for each example; NaN where the curve has no width.

    Raises:
      TypeError: if `curve` is no `Curve`.
      ValueError: if `curve` has one point, or not one score for each fraction.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> fractions, scores = jnp.array([0.0, 0.5, 1.0]), jnp.array([4.0, 2.0, 2.0])
      >>> float(evaluation.area(evaluation.Curve(fractions, scores)))
      2.5
    """
    q, s, axis = _points(curve)
    if q.shape[axis] < 2:
        raise ValueError("curve: got a single point, expected at least two")
    low, high = _ends(q, axis, slice(None, -1)), _ends(q, axis, slice(1, None))
    left, right = _ends(s, axis, slice(None, -1)), _ends(s, axis, slice(1, None))
    widths = (high - low).reshape(*low.shape, *(1,) * (s.ndim - q.ndim))
    total = jnp.sum(widths * (left + right) / 2, axis)
    return total / jnp.sum(widths, axis)


def abpc(morf: Curve, lerf: Curve) -> Array:
    """The area between the perturbation curves: high is good.

        ABPC = A(LeRF) - A(MoRF)

    the mean gap, in the score's units; zero for a random order, on average. Published
    numbers have other units, see `protocols`.

    Args:
      morf: the curve of `flipping(..., order="morf")`.
      lerf: the curve of `flipping(..., order="lerf")`.

    Returns:
      One number for each example.

    Raises:
      TypeError: if `morf` or `lerf` is no `Curve`.
      ValueError: if `morf` or `lerf` has one point, or not one score for each fraction.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> x = jnp.array([1.0, 3.0])
      >>> curves = [
      ...     evaluation.flipping(jnp.sum, x, x, steps=2, order=order)
      ...     for order in ("morf", "lerf")
      ... ]
      >>> float(evaluation.abpc(*curves))
      1.0
    """
    return area(lerf) - area(morf)


def drop(curve: Curve) -> Array:
    """What the score loses along a curve, on average.

        D = s_first - A

    For a MoRF curve this is a comprehensiveness, high is good; for a LeRF curve a
    sufficiency, low is good. Their difference is the ABPC.

    Args:
      curve: as for `area`, beginning with the whole input.

    Returns:
      One number for each example.

    Raises:
      TypeError: if `curve` is no `Curve`.
      ValueError: if `curve` has one point, or not one score for each fraction.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> float(evaluation.drop(evaluation.flipping(jnp.sum, jnp.ones(4), jnp.ones(4))))
      2.0
    """
    _, s, axis = _points(curve)
    return jax.lax.index_in_dim(s, 0, axis, keepdims=False) - area(curve)


def comprehensiveness(
    score: Score,
    x: Any,
    relevance: Any,
    *,
    baseline: Baseline = 0.0,
    bins: Sequence[float] = BINS,
    where: Any = None,
    chunk: int = 8,
) -> Array:
    """What the score loses without the most relevant units: high is good.

        C = mean over bins q of score(x) - score(x without the top q n units)

    Args:
      score: as for `flipping`; a probability in the paper.
      x: as for `flipping`.
      relevance: as for `flipping`.
      baseline: as for `flipping`.
      bins: the fractions, ascending. `floor(q n)` units are removed, so that a bin of
        less than one unit removes none.
      where: as for `flipping`.
      chunk: as for `flipping`.

    Returns:
      A number.

    Raises:
      TypeError: if `score` is no function, `x`, `relevance` or `baseline` is no array
        of real numbers, `bins` has no fractions, `chunk` is no int, or `where` is not
        of booleans.
      ValueError: if `relevance` or `baseline` does not fit `x`, `bins` is not of
        ascending fractions in [0, 1], `where` has another shape, or `chunk` is below 1.

    Source: DeYoung et al. 2020, "ERASER: a benchmark to evaluate rationalized NLP
    models".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> x = jnp.array([1.0, 4.0, 2.0])
      >>> float(evaluation.comprehensiveness(jnp.sum, x, x, bins=(1 / 3, 2 / 3)))
      5.0
    """
    curve = _curve(
        score, x, relevance, baseline, "morf", (0, *bins), where, chunk, False
    )
    return curve.scores[0] - curve.scores[1:].mean(0)


def sufficiency(
    score: Score,
    x: Any,
    relevance: Any,
    *,
    baseline: Baseline = 0.0,
    bins: Sequence[float] = BINS,
    where: Any = None,
    chunk: int = 8,
) -> Array:
    """What the score loses with the most relevant units alone: low is good.

        S = mean over bins q of score(x) - score(the top q n units of x)

    Args:
      score: as for `comprehensiveness`.
      x: as for `comprehensiveness`.
      relevance: as for `comprehensiveness`.
      baseline: as for `comprehensiveness`.
      bins: as for `comprehensiveness`; `floor(q n)` units are kept.
      where: as for `comprehensiveness`; units that do not count are kept.
      chunk: as for `comprehensiveness`.

    Returns:
      A number.

    Raises:
      TypeError: if `score` is no function, `x`, `relevance` or `baseline` is no array
        of real numbers, `bins` has no fractions, `chunk` is no int, or `where` is not
        of booleans.
      ValueError: if `relevance` or `baseline` does not fit `x`, `bins` is not of
        ascending fractions in [0, 1], `where` has another shape, or `chunk` is below 1.

    Source: as for `comprehensiveness`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> x = jnp.array([1.0, 4.0, 2.0])
      >>> float(evaluation.sufficiency(jnp.sum, x, x, bins=(1 / 3, 2 / 3)))
      2.0
    """
    curve = _curve(
        score, x, relevance, baseline, "morf", (*bins, 1), where, chunk, True
    )
    return curve.scores[-1] - curve.scores[:-1].mean(0)


def ranks(relevance: Array, order: str, where: Array | None) -> Array:
    """The place of each unit in the order, from 0; units that do not count are last."""
    values = -relevance if order == "morf" else relevance
    flat = values.reshape(-1)
    if where is None:
        first = jnp.argsort(flat, stable=True)
    else:
        # By relevance, then those that count before the others: both sorts are stable.
        first = jnp.argsort(flat, stable=True)
        first = first[jnp.argsort(~where.reshape(-1)[first], stable=True)]
    return jnp.argsort(first).astype(jnp.int32).reshape(relevance.shape)


def _curve(
    score: Score,
    x: Any,
    relevance: Any,
    baseline: Baseline,
    order: str,
    steps: Steps,
    where: Any,
    chunk: int,
    insert: bool,
) -> Curve:
    """Scores along the order; `insert` begins with everything that counts removed."""
    _checks.function("score", score)
    checks.natural("chunk", chunk)
    whole = _checks.array("x", x)
    values = _checks.real("relevance", relevance)
    units.check("relevance", values, whole.shape)
    counted = None
    if where is not None:
        counted = _checks.mask("where", where, values.shape, "the relevance")
    replace = _replacement(whole, baseline)
    place = ranks(values, order, counted)
    counts, fractions = _counts(steps, values.size if counted is None else counted)

    def at(count: Array) -> Array:
        gone = place >= count if insert else place < count
        gone = gone if counted is None else gone & counted
        result = jnp.asarray(score(replace(units.spread(gone, whole.shape))))
        return result.astype(jnp.promote_types(result.dtype, jnp.float32))

    scores = map_over(at, counts, chunk)
    unknown = jnp.isnan(values) if counted is None else jnp.isnan(values) & counted
    scores = jnp.where(unknown.any(), jnp.nan, scores)
    return Curve(fractions, scores)


def _replacement(x: Array, baseline: Baseline) -> Callable[[Array], Array]:
    """From what is removed to the input without it."""
    if callable(baseline):
        return lambda removed: _replaced(x, removed, baseline(x, removed))
    value = _checks.array("baseline", baseline)
    return lambda removed: _replaced(x, removed, value)


def _replaced(x: Array, removed: Array, value: Any) -> Array:
    shape = jnp.shape(value)
    try:
        fits = jnp.broadcast_shapes(shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"baseline: got shape {shape}, expected one that broadcasts to that of x, "
            f"{x.shape}"
        )
    return jnp.where(removed, jnp.asarray(value).astype(x.dtype), x)


def _counts(steps: Any, units: int | Array) -> tuple[Array, Array]:
    """How many units each step removes, `floor(fraction n)`, and the part that this is.

    Of units that count or not, `n` may be traced.
    """
    ratios = _ratios(steps)
    if isinstance(units, int):
        exact = [units * r.numerator // r.denominator for r in ratios]
        parts = [count / max(units, 1) for count in exact]
        return jnp.asarray(exact, jnp.int32), jnp.asarray(parts, jnp.float32)
    small = [r.limit_denominator(LARGEST_DENOMINATOR) for r in ratios]
    p = jnp.asarray([r.numerator for r in small], jnp.int32)
    q = jnp.asarray([r.denominator for r in small], jnp.int32)
    n = units.sum(dtype=jnp.int32)
    # floor(n p / q), without the product, which may be too large.
    counts = n // q * p + n % q * p // q
    return counts, counts.astype(jnp.float32) / jnp.maximum(n, 1)


def _ratios(steps: Any) -> list[Fraction]:
    """The fractions, exactly: 0.1 is one tenth."""
    if isinstance(steps, str) or not isinstance(steps, Sequence | np.ndarray):
        m = checks.natural("steps", steps)
        return [Fraction(i, m) for i in range(m + 1)]
    given = list(steps)
    numbers = all(
        isinstance(q, int | float | np.number | Fraction) and math.isfinite(q)
        for q in given
    )
    if not given or not numbers:
        raise TypeError(f"steps: got {steps!r}, expected an int or fractions in [0, 1]")
    ratios = [
        q if isinstance(q, Fraction) else Fraction(float(q)).limit_denominator(10**6)
        for q in given
    ]
    if sorted(ratios) != ratios or ratios[0] < 0 or ratios[-1] > 1:
        raise ValueError(
            f"steps: got {steps!r}, expected fractions in [0, 1], ascending"
        )
    return ratios


def _points(curve: Any) -> tuple[Array, Array, int]:
    """Fractions, scores, and the axis of the steps."""
    if not isinstance(curve, Curve):
        raise TypeError(f"curve: got {curve!r}, expected a Curve, as of `flipping`")
    q, s = jnp.asarray(curve.fractions), jnp.asarray(curve.scores)
    if not q.ndim or s.shape[: q.ndim] != q.shape:
        raise ValueError(
            f"curve: got fractions of shape {q.shape} and scores of shape {s.shape}, "
            f"expected one score for each fraction"
        )
    return q, s, q.ndim - 1


def _ends(values: Array, axis: int, part: slice) -> Array:
    return values[(slice(None),) * axis + (part,)]
