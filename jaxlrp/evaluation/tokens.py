"""Tokens against an answer or a rationale: are the most relevant ones part of it?

All functions are of one sequence. Among equals the token that comes first is taken
first. A NaN relevance, or an empty answer, gives NaN.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxlrp.evaluation import _checks
from jaxlrp.evaluation.curves import ranks

__all__ = ["top_k_accuracy", "top_k_f1", "top_k_iou"]


def top_k_accuracy(
    relevance: Any, answer: Any, k: Any = 1, *, where: Any = None
) -> Array:
    """How many of the `k` most relevant tokens are part of the answer.

        a = |T_k & A| / |T_k|

    with the `k` most relevant tokens `T_k`, or all if there are fewer, and those of the
    answer `A`.

    Args:
      relevance: one value for each token, of any shape.
      answer: booleans of the relevance's shape.
      k: how many tokens; it may be traced.
      where: booleans of the relevance's shape: the tokens that count, as those of the
        context.

    Returns:
      A number in [0, 1].

    Raises:
      TypeError: if `relevance` is no array of real numbers, `answer` or `where` is not
        of booleans, or `k` is no int.
      ValueError: if `answer` or `where` has another shape.

    Source: Achtibat et al. 2024, "AttnLRP: attention-aware layer-wise relevance
    propagation for transformers".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> answer = jnp.array([False, True, True])
      >>> float(evaluation.top_k_accuracy(jnp.array([1.0, 3.0, 0.0]), answer, k=2))
      0.5
    """
    hits, taken, _ = _overlap(relevance, answer, k, where)
    return hits / taken


def top_k_iou(
    relevance: Any, answer: Any, k: Any = None, *, where: Any = None
) -> Array:
    """Intersection over union of the most relevant tokens and the answer.

        IoU = |T_k & A| / |T_k | A|

    dynamicLRP reports another number under this name: `a / (2 - a)` of the
    `top_k_accuracy` `a` with `k = 2`, for all answers together. Its strict numbers use
    the first and the last token of the answer for `A`.

    Args:
      relevance: as for `top_k_accuracy`.
      answer: as for `top_k_accuracy`.
      k: as for `top_k_accuracy`; by default as many as the answer has.
      where: as for `top_k_accuracy`.

    Returns:
      A number in [0, 1].

    Raises:
      TypeError: if `relevance` is no array of real numbers, `answer` or `where` is not
        of booleans, or `k` is no int.
      ValueError: if `answer` or `where` has another shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> answer = jnp.array([False, True, True])
      >>> round(float(evaluation.top_k_iou(jnp.array([1.0, 3.0, 0.0]), answer)), 3)
      0.333
    """
    hits, taken, size = _overlap(relevance, answer, k, where)
    return hits / (taken + size - hits)


def top_k_f1(relevance: Any, answer: Any, k: Any = None, *, where: Any = None) -> Array:
    """Token F1 of the most relevant tokens against a rationale.

        F1 = 2 |T_k & A| / (|T_k| + |A|)

    Args:
      relevance: as for `top_k_accuracy`.
      answer: as for `top_k_accuracy`: the tokens of the rationale.
      k: as for `top_k_accuracy`, 5, 10, ..., 80 in the paper; by default as many as the
        rationale has.
      where: as for `top_k_accuracy`.

    Returns:
      A number in [0, 1].

    Raises:
      TypeError: if `relevance` is no array of real numbers, `answer` or `where` is not
        of booleans, or `k` is no int.
      ValueError: if `answer` or `where` has another shape.

    Source: Chefer et al. 2021, "Transformer interpretability beyond attention
    visualization".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> answer = jnp.array([False, True, True])
      >>> float(evaluation.top_k_f1(jnp.array([1.0, 3.0, 0.0]), answer))
      0.5
    """
    hits, taken, size = _overlap(relevance, answer, k, where)
    return 2 * hits / (taken + size)


def _overlap(
    relevance: Any, answer: Any, k: Any, where: Any
) -> tuple[Array, Array, Array]:
    """Of the top `k` and the answer: how many they share, and their sizes."""
    values = _checks.real("relevance", relevance)
    inside = _checks.mask("answer", answer, values.shape, "the relevance")
    counted = jnp.ones_like(inside)
    if where is not None:
        counted = _checks.mask("where", where, values.shape, "the relevance")
    inside = inside & counted
    size = inside.sum()
    number = size if k is None else _number(k)
    top = (ranks(values, "morf", counted) < number) & counted
    unknown = (jnp.isnan(values) & counted).any() | (size == 0)
    hits = jnp.where(unknown, jnp.nan, (top & inside).sum().astype(values.dtype))
    return hits, top.sum(), size


def _number(k: Any) -> Array:
    value = _checks.array("k", k)
    if value.ndim or not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"k: got {k!r}, expected an int")
    return value
