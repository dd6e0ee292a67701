"""Localisation: does relevance lie where the object is?

Measures of a relevance map and a boolean mask of its shape. All are of one example;
`jax.vmap` makes them of many. An empty mask, or a NaN relevance, gives NaN.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxlrp._arguments import flag
from jaxlrp.evaluation import _checks
from jaxlrp.evaluation.curves import ranks

__all__ = [
    "average_precision",
    "confusion",
    "mean_iou",
    "pixel_accuracy",
    "pointing_game",
    "relevance_mass",
    "relevance_rank",
    "segment",
]


def pointing_game(relevance: Any, mask: Any, *, tolerance: float = 0.0) -> Array:
    """Whether the most relevant place lies in the mask, or near it.

        1 if |p - q| <= tolerance for some q in the mask, else 0;  p = argmax_p R_p

    with the Euclidean distance. Among equal maxima the first one is `p`.

    Args:
      relevance: a map, `(height, width)`, or of any shape.
      mask: booleans of its shape.
      tolerance: in pixels; 15 in the paper. It may be traced.

    Returns:
      0.0 or 1.0; NaN for an empty mask.

    Raises:
      TypeError: if `relevance` is no array of real numbers, or `mask` is not of
        booleans.
      ValueError: if `relevance` is empty, or `mask` has another shape.

    Source: Zhang et al. 2018, "Top-down neural attention by excitation backprop".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> relevance = jnp.array([[0.0, 9.0, 1.0]])
      >>> mask = jnp.array([[False, False, True]])
      >>> float(evaluation.pointing_game(relevance, mask))
      0.0
      >>> float(evaluation.pointing_game(relevance, mask, tolerance=1.0))
      1.0
    """
    values, inside = _both(relevance, mask)
    at = jnp.unravel_index(jnp.argmax(values), values.shape)
    squares = jnp.zeros(values.shape, jnp.float32)
    for axis, place in enumerate(at):
        along = jnp.arange(values.shape[axis]).reshape(
            [-1 if i == axis else 1 for i in range(values.ndim)]
        )
        squares = squares + jnp.square((along - place).astype(jnp.float32))
    hit = (inside & (squares <= jnp.square(jnp.asarray(tolerance, jnp.float32)))).any()
    return _known(hit.astype(values.dtype), values, inside)


def relevance_mass(relevance: Any, mask: Any) -> Array:
    """The part of the relevance that lies in the mask.

        sum of R_p over p in the mask / sum of R_p

    Args:
      relevance: a map of any shape, nonnegative in the paper, which squares or cuts off
        what is negative first: `jnp.maximum(R, 0)`. With signs the result may lie
        outside [0, 1].
      mask: booleans of its shape.

    Returns:
      A number; NaN for an empty mask or no relevance.

    Raises:
      TypeError: if `relevance` is no array of real numbers, or `mask` is not of
        booleans.
      ValueError: if `relevance` is empty, or `mask` has another shape.

    Source: Arras et al. 2022, "CLEVR-XAI: a benchmark dataset for the ground truth
    evaluation of neural network explanations".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> mask = jnp.array([True, False])
      >>> float(evaluation.relevance_mass(jnp.array([3.0, 1.0]), mask))
      0.75
    """
    values, inside = _both(relevance, mask)
    share = jnp.where(inside, values, 0).sum() / values.sum()
    return _known(share, values, inside)


def relevance_rank(relevance: Any, mask: Any) -> Array:
    """How many of the `K` most relevant places lie in the mask, which has `K` places.

        |top K & mask| / K

    Among equals the first ones in the array are taken.

    Args:
      relevance: a map of any shape.
      mask: booleans of its shape.

    Returns:
      A number in [0, 1]; NaN for an empty mask.

    Raises:
      TypeError: if `relevance` is no array of real numbers, or `mask` is not of
        booleans.
      ValueError: if `relevance` is empty, or `mask` has another shape.

    Source: as for `relevance_mass`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> mask = jnp.array([True, True, False])
      >>> float(evaluation.relevance_rank(jnp.array([3.0, 1.0, 2.0]), mask))
      0.5
    """
    values, inside = _both(relevance, mask)
    size = inside.sum()
    hits = (inside & (ranks(values, "morf", None) < size)).sum()
    return _known(hits / size, values, inside)


def segment(relevance: Any) -> Array:
    """A segmentation: the places that are more relevant than the mean.

        p is in it if R_p > mean R

    Scaling the map to [0, 1] first, as the source does, changes nothing.

    Args:
      relevance: a map of any shape.

    Returns:
      Booleans of its shape.

    Raises:
      TypeError: if `relevance` is no array of real numbers.

    Source: Chefer et al. 2021, "Transformer interpretability beyond attention
    visualization".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> evaluation.segment(jnp.array([0.0, 1.0, 5.0])).tolist()
      [False, False, True]
    """
    values = _checks.real("relevance", relevance)
    return values > values.mean()


def confusion(predicted: Any, mask: Any, *, where: Any = None) -> Array:
    """How many places of each class are taken for each class.

        C_tp = number of places of class t taken for class p,    0 outside, 1 inside

    The matrices of a dataset are added up before `pixel_accuracy` and `mean_iou`.

    Args:
      predicted: booleans, as from `segment`.
      mask: booleans of its shape.
      where: booleans of its shape: the places that have a label.

    Returns:
      Integers of shape `(2, 2)`.

    Raises:
      TypeError: if `predicted`, `mask` or `where` is not of booleans.
      ValueError: if `predicted`, `mask` or `where` has another shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> predicted = jnp.array([True, True, False])
      >>> mask = jnp.array([True, False, False])
      >>> evaluation.confusion(predicted, mask).tolist()
      [[1, 1], [0, 1]]
    """
    given = _checks.array("predicted", predicted)
    found = _checks.mask("predicted", given, given.shape, "itself")
    inside = _checks.mask("mask", mask, found.shape, "predicted")
    counted = jnp.ones_like(inside)
    if where is not None:
        counted = _checks.mask("where", where, found.shape, "predicted")
    rows = [
        [(counted & (inside == t) & (found == p)).sum() for p in (False, True)]
        for t in (False, True)
    ]
    return jnp.asarray(rows)


def pixel_accuracy(confusion: Any) -> Array:
    """The fraction of places that are classified correctly.

        (C_00 + C_11) / sum C

    Args:
      confusion: of `confusion`, added up over a dataset.

    Returns:
      A number in [0, 1].

    Raises:
      TypeError: if `confusion` is no array of real numbers.
      ValueError: if `confusion` is not 2 x 2.

    Source: as for `segment`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> float(evaluation.pixel_accuracy(jnp.array([[2, 1], [0, 1]])))
      0.75
    """
    counts = _confusion(confusion)
    return jnp.trace(counts) / counts.sum()


def mean_iou(confusion: Any) -> Array:
    """The intersection over union of inside and outside, on average.

        (C_00 / (C_00 + C_01 + C_10) + C_11 / (C_11 + C_01 + C_10)) / 2

    Args:
      confusion: of `confusion`, added up over a dataset.

    Returns:
      A number in [0, 1]; a class that occurs in neither has 0, as in the source.

    Raises:
      TypeError: if `confusion` is no array of real numbers.
      ValueError: if `confusion` is not 2 x 2.

    Source: as for `segment`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> float(evaluation.mean_iou(jnp.array([[1, 1], [0, 1]])))
      0.5
    """
    counts = _confusion(confusion)
    same = jnp.diagonal(counts)
    union = counts.sum(0) + counts.sum(1) - same
    return (same / jnp.maximum(union, 1)).mean()


def average_precision(relevance: Any, mask: Any, *, both: bool = False) -> Array:
    """The average precision of the relevance as a score for lying in the mask.

        AP = sum_n (r_n - r_{n-1}) p_n

    with the recall `r_n` and precision `p_n` at the n-th distinct value of the
    relevance from above, as in scikit-learn. The mean over a dataset is the mAP.

    Args:
      relevance: a map of any shape.
      mask: booleans of its shape.
      both: whether the outside is scored, too, as the source does: the map is scaled
        to [0, 1], and `1 - R` is the score for lying outside.

    Returns:
      A number in [0, 1]; NaN for an empty mask.

    Raises:
      TypeError: if `relevance` is no array of real numbers, or `mask` is not of
        booleans.
      ValueError: if `relevance` is empty, or `mask` has another shape.

    Source: as for `segment`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> mask = jnp.array([True, False, True])
      >>> relevance = jnp.array([3.0, 2.0, 1.0])
      >>> round(float(evaluation.average_precision(relevance, mask)), 4)
      0.8333
    """
    flag("both", both)
    values, inside = _both(relevance, mask)
    whole, of_interest = values, inside
    if both:
        low, high = values.min(), values.max()
        unit = (values - low) / (high - low)
        values, inside = jnp.stack([1 - unit, unit]), jnp.stack([~inside, inside])
    flat, hits = values.reshape(-1), inside.reshape(-1)
    order = jnp.argsort(-flat)
    down = -flat[order]
    # Equal values are one threshold: each counts what is there at the last of them.
    last = jnp.searchsorted(down, down, side="right")
    found = jnp.cumsum(hits[order])
    precision = found[last - 1] / last
    result = jnp.where(hits[order], precision, 0).sum() / hits.sum()
    return _known(result, whole, of_interest)


def _both(relevance: Any, mask: Any) -> tuple[Array, Array]:
    values = _checks.real("relevance", relevance)
    if not values.size:
        raise ValueError(f"relevance: got shape {values.shape}, expected some places")
    return values, _checks.mask("mask", mask, values.shape, "the relevance")


def _known(result: Array, values: Array, inside: Array) -> Array:
    """NaN where there is nothing to find, or nothing to find it by."""
    known = inside.any() & ~jnp.isnan(values).any()
    return jnp.where(known, result, jnp.nan)


def _confusion(given: Any) -> Array:
    counts = _checks.array("confusion", given)
    if counts.shape != (2, 2):
        raise ValueError(f"confusion: got shape {counts.shape}, expected (2, 2)")
    return counts
