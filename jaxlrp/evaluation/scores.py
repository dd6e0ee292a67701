"""Scores: what is measured about the output while the input is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp.evaluation import _checks

Score = Callable[[Array], Array]
"""From one example to the number that is measured."""


def logit(f: Callable[[Any], Array], target: Any) -> Score:
    """The output at a class: `s(x) = f(x)_t`.

    Args:
      f: from one example to the scores of the classes, along the last axis.
      target: the class, an int or an integer scalar; it may be traced.

    Returns:
      A function of `x`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> float(evaluation.logit(lambda x: x, 1)(jnp.array([1.0, 3.0])))
      3.0
    """
    _checks.function("f", f)
    return lambda x: _at(f(x), target)


def probability(f: Callable[[Any], Array], target: Any) -> Score:
    """The softmax at a class: `s(x) = exp(f(x)_t) / sum_j exp(f(x)_j)`.

    Args:
      f: as for `logit`.
      target: as for `logit`.

    Returns:
      A function of `x`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> float(evaluation.probability(lambda x: x, 1)(jnp.array([2.0, 2.0])))
      0.5
    """
    _checks.function("f", f)
    return lambda x: _at(jax.nn.softmax(f(x)), target)


def accuracy(f: Callable[[Any], Array], target: Any) -> Score:
    """Whether a class is the highest: `s(x) = 1 if argmax_j f(x)_j = t else 0`.

    The mean over a dataset is the accuracy.

    Args:
      f: as for `logit`.
      target: as for `logit`.

    Returns:
      A function of `x`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> float(evaluation.accuracy(lambda x: x, 1)(jnp.array([1.0, 3.0])))
      1.0
    """
    _checks.function("f", f)
    return lambda x: (jnp.argmax(f(x), -1) == target).astype(jnp.float32)


KINDS = {"logit": logit, "probability": probability, "accuracy": accuracy}
"""Scores by name."""


def _at(out: Any, target: Any) -> Array:
    value = _checks.array("f: its output", out)
    if value.ndim != 1:
        raise ValueError(
            f"f: its output has shape {value.shape}, expected (classes,): measures are "
            f"of one example, and jax.vmap makes them of many"
        )
    return jnp.take(value, jnp.asarray(target), axis=0)
