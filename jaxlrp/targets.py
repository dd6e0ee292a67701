"""Targets that set a class against the others: a question "why this and not that?".

A target says where an explanation starts. In addition to `"max"`, `"all"`, classes and
callables, `target=` takes these, everywhere.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._operations import wide

__all__ = ["Contrastive", "LogOdds"]


@dataclasses.dataclass(frozen=True)
class Contrastive:
    """A class against the mean of all others: `y_t - sum_j y_j / (N - 1)`, `j != t`.

    The seed is `y_t` at the class and `-y_j / (N - 1)` at each other one.

    Attributes:
      target: the class: an int, an integer array with one for each example, or "max".

    Source: Gu et al. 2018, "Understanding individual decisions of CNNs via contrastive
    backpropagation".

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> f = lambda x: x
      >>> target = jaxlrp.targets.Contrastive("max")
      >>> jaxlrp.lrp(f, target=target)(jnp.array([5.0, 2.0, 4.0])).tolist()
      [5.0, -1.0, -2.0]
    """

    target: Any = "max"

    def multiplier(self, hot: Array, y: Array) -> Array:
        """The seed as a multiplier of `y`, where `hot` is one at the class."""
        return hot - (1 - hot) / (y.shape[-1] - 1)


@dataclasses.dataclass(frozen=True)
class LogOdds:
    """The log-odds of a class: `eta = y_t - log sum_j exp(y_j)`, `j != t`.

    For scores `y` that a softmax turns into probabilities,
    `eta = log(p_t / (1 - p_t))`. The seed is its gradient times the scores,
    `y_j d eta / d y_j`: `y_t` at the class and `-y_j exp(y_j) / sum_k exp(y_k)`,
    `k != t`, at each other one.

    Attributes:
      target: the class: an int, an integer array with one for each example, or "max".

    Source: Montavon et al. 2019, "Layer-wise Relevance Propagation: an overview".

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> target = jaxlrp.targets.LogOdds(0)
      >>> jaxlrp.lrp(lambda x: x, target=target)(jnp.array([5.0, 2.0, 2.0])).tolist()
      [5.0, -1.0, -1.0]
    """

    target: Any = "max"

    def multiplier(self, hot: Array, y: Array) -> Array:
        """The seed as a multiplier of `y`, where `hot` is one at the class."""
        others = jnp.where(hot == 1, -jnp.inf, wide(y))
        return hot - jax.nn.softmax(others, axis=-1).astype(y.dtype)


AGAINST = (Contrastive, LogOdds)
"""Targets that set a class against the others."""


def _flatten(target: Any) -> tuple[tuple[Any, ...], Any]:
    """A name is not a leaf: a target may be an argument of a compiled function."""
    if isinstance(target.target, str):
        return (), target.target
    return (target.target,), None


for _kind in AGAINST:
    jax.tree_util.register_pytree_node(
        _kind,
        _flatten,
        lambda name, leaves, kind=_kind: kind(*leaves) if leaves else kind(name),
    )
