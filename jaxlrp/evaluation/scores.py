"""Scores: what is measured about the output while the input is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp.evaluation import _checks

__all__ = ["KINDS", "Score", "accuracy", "logit", "probability"]

Score = Callable[[jax.Array], jax.Array]
"""From one example to the number that is measured."""


def logit(f: Callable[[Any], Array], target: Any) -> Score:
    """The output at a class: `s(x) = f(x)_t`.

    Args:
      f: from one example to the scores of the classes, along the last axis.
      target: the class, an int or an integer scalar; it may be traced. -1 is the last.

    Returns:
      A function of `x`.

    Raises:
      TypeError: if `f` is no function, or `target` is no integer.
      ValueError: when it is called, if `f` has no scores of classes, or `target` is no
        class of `f`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> float(evaluation.logit(lambda x: x, 1)(jnp.array([1.0, 3.0])))
      3.0
    """
    _checks.function("f", f)
    _checks.class_("target", target)
    return lambda x: _at(_scores(f(x)), target)


def probability(f: Callable[[Any], Array], target: Any) -> Score:
    """The softmax at a class: `s(x) = exp(f(x)_t) / sum_j exp(f(x)_j)`.

    Args:
      f: as for `logit`.
      target: as for `logit`.

    Returns:
      A function of `x`.

    Raises:
      TypeError: if `f` is no function, or `target` is no integer.
      ValueError: when it is called, if `f` has no scores of classes, or `target` is no
        class of `f`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> float(evaluation.probability(lambda x: x, 1)(jnp.array([2.0, 2.0])))
      0.5
    """
    _checks.function("f", f)
    _checks.class_("target", target)
    return lambda x: _at(jax.nn.softmax(_scores(f(x))), target)


def accuracy(f: Callable[[Any], Array], target: Any) -> Score:
    """Whether a class is the highest: `s(x) = 1 if argmax_j f(x)_j = t else 0`.

    The mean over a dataset is the accuracy.

    Args:
      f: as for `logit`.
      target: as for `logit`.

    Returns:
      A function of `x`.

    Raises:
      TypeError: if `f` is no function, or `target` is no integer.
      ValueError: when it is called, if `f` has no scores of classes, or `target` is no
        class of `f`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> float(evaluation.accuracy(lambda x: x, 1)(jnp.array([1.0, 3.0])))
      1.0
    """
    _checks.function("f", f)
    _checks.class_("target", target)

    def score(x: Array) -> Array:
        out = _scores(f(x))
        best = jnp.argmax(out, -1) == _checks.index("target", target, out.size)
        return best.astype(jnp.float32)

    return score


KINDS: dict[str, Callable[[Callable[[Any], jax.Array], Any], Score]] = {
    "logit": logit,
    "probability": probability,
    "accuracy": accuracy,
}
"""Scores by name."""


def _scores(out: Any) -> Array:
    """The output of one example, a score for each class."""
    value = _checks.array("f: its output", out)
    if value.ndim != 1:
        raise ValueError(
            f"f: its output has shape {value.shape}, expected (classes,): measures are "
            f"of one example, and jax.vmap makes them of many"
        )
    if not value.size:
        raise ValueError("f: its output has shape (0,), expected at least one class")
    return value


def _at(scores: Array, target: Any) -> Array:
    index = _checks.index("target", target, scores.size)
    return jnp.take(scores, index, axis=0)
