"""Complexity: on how few features does an explanation rest?

Functions of one relevance of any shape; `jax.vmap` makes them of many. No relevance at
all gives NaN.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxlrp.evaluation import _checks

__all__ = ["entropy", "sparseness"]


def sparseness(relevance: Any) -> Array:
    """The Gini index of the relevance's magnitudes: high is sparse.

        G = sum_i (2 i - n - 1) |R|_(i) / (n sum_i |R|_i)

    with the magnitudes `|R|_(1) <= ... <= |R|_(n)`: 0 if all are equal, `1 - 1 / n` if
    only one is not zero.

    Args:
      relevance: any shape.

    Returns:
      A number in [0, 1).

    Raises:
      TypeError: if `relevance` is no array of real numbers.
      ValueError: if `relevance` is empty.

    Source: Chalasani et al. 2020, "Concise explanations of neural networks using
    adversarial training".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> float(evaluation.sparseness(jnp.array([0.0, 0.0, -3.0, 0.0])))
      0.75
    """
    shares = _shares(relevance)
    n = shares.size
    weights = (2 * jnp.arange(1, n + 1) - n - 1) / n
    return (weights * jnp.sort(shares)).sum()


def entropy(relevance: Any) -> Array:
    """The entropy of the relevance's magnitudes, in nats: low is simple.

        H = - sum_i p_i log p_i,    p_i = |R_i| / sum_j |R_j|

    Args:
      relevance: any shape.

    Returns:
      A number in [0, log n].

    Raises:
      TypeError: if `relevance` is no array of real numbers.
      ValueError: if `relevance` is empty.

    Source: Bhatt et al. 2020, "Evaluating and aggregating feature-based model
    explanations".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> round(float(evaluation.entropy(jnp.array([1.0, -1.0]))), 4)
      0.6931
    """
    shares = _shares(relevance)
    logs = jnp.log(jnp.where(shares == 0, 1, shares))
    return -(shares * logs).sum()


def _shares(relevance: Any) -> Array:
    """Magnitudes that add up to one."""
    values = _checks.real("relevance", relevance)
    if not values.size:
        raise ValueError(f"relevance: got shape {values.shape}, expected some values")
    sizes = jnp.abs(values.reshape(-1))
    return sizes / sizes.sum()
