"""The size of a relevance, `sum(|R|)`, compared to that of the score it explains.

Relevance adds up to the score however large its parts are. Where they cancel, layer
after layer, they may outgrow it without bound, and what is left is noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _compat, rules
from jaxlrp._warn import warn
from jaxlrp.composites import Composite
from jaxlrp.errors import RelevanceWarning

LIMIT = 100.0
"""A relevance is too large where it is more than so many times the score in size."""


def amplification(relevance: Any, score: Any) -> Array:
    """How many times larger a relevance is than the score: `sum(|R|) / sum(|score|)`.

    One where nothing cancels; a relevance beyond some hundreds is of little use. It can
    be computed anywhere, also under `jit`; for each example by `jax.vmap`.

    Args:
      relevance: what `lrp` returns.
      score: what it explains, the output at the target: an array or a pytree.

    Returns:
      Float[Array, ""]. Infinite for a relevance with a NaN or an infinity in it, and
      for one of a score that is zero, unless it is zero itself.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> @jax.jit
      ... def explain(x):
      ...     scores, relevance = jaxlrp.value_and_lrp(lambda x: x @ w)(x)
      ...     return relevance, jaxlrp.amplification(relevance, scores.max())
      >>> relevance, times = explain(jnp.array([-1.0, 1.0]))
      >>> relevance.round(3).tolist(), round(float(times), 3)
      ([1.0, 0.5], 1.0)
    """
    size, whole = _total(relevance), _total(score)
    none = whole == 0
    times = size / jnp.where(none, 1, whole)
    times = jnp.where(none, jnp.where(size == 0, 1.0, jnp.inf), times)
    return jnp.where(jnp.isfinite(size), times, jnp.inf)


def _total(tree: Any) -> Array:
    """`sum(|x|)` over a pytree, in at least float32."""
    total = jnp.zeros((), jnp.float32)
    for x in map(jnp.asarray, jax.tree.leaves(tree)):
        size = jnp.abs(x)
        total += size.astype(jnp.promote_types(size.dtype, jnp.float32)).sum()
    return total


def ratio(size: float, whole: float) -> float:
    """`size / whole` for sums of absolute values; one for nothing of nothing."""
    if not math.isfinite(size):
        return math.inf
    if whole == 0:
        return 1.0 if size == 0 else math.inf
    return size / whole


def warn_large(
    relevances: Sequence[Any],
    outs: Sequence[Any],
    multipliers: Sequence[Any],
    plain: Sequence[Any] | None,
    composite: Composite,
) -> bool:
    """Warns of a relevance that has outgrown its score; returns whether it did.

    Only where all values are known: under `jit` and `vmap` there is nothing to compare.
    """
    known = (*relevances, *outs, *multipliers, *(plain or ()))
    if not all(map(_at_hand, known)) or _is_gradient(composite):
        return False
    size = sum(map(_size, relevances))
    whole = sum(map(_size, plain or ()))
    whole += sum(map(_size, map(_product, outs, multipliers)))
    times = ratio(size, whole)
    if times <= LIMIT:
        return False
    if math.isfinite(size):
        what = (
            f"the relevance is {times:.3g} times as large as the explained score: "
            f"sum(|R|) is {size:.3g}, the score {whole:.3g}. Its parts cancel, and "
            f"what is left of them may be noise"
        )
    else:
        what = f"the relevance of the score {whole:.3g} is NaN or infinite"
    where = "print(jaxlrp.check(f, composite)(*args)) says where that begins"
    warn(f"{what}. {where}", RelevanceWarning)
    return True


def _at_hand(x: Any) -> bool:
    """Is the value known, and on this machine?"""
    return _compat.is_known(x) and getattr(x, "is_fully_addressable", True)


def _is_gradient(composite: Composite) -> bool:
    """Is what the composite gives a gradient, which has no size to compare with?"""
    return any(
        isinstance(line.rule, rules.Gradient) and line.role in ("any", "layer")
        for line in composite.assignments
    )


def _size(x: Any) -> float:
    return float(np.abs(_wide(x)).sum(dtype=np.float64))


def _product(y: Any, c: Any) -> np.ndarray:
    """`y c`, where a masked score that is not asked for is zero, not NaN."""
    y, c = _wide(y), _wide(c)
    return np.where(c == 0, 0, y) * c


def _wide(x: Any) -> np.ndarray:
    x = np.asarray(x)
    return x if x.dtype.kind in "fc" and x.dtype.itemsize > 2 else x.astype(np.float32)
