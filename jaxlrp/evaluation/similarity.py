"""How similar two relevances are.

All functions are of two arrays of one shape and return one number. `jax.vmap` makes
them of many pairs. Undefined results, such as the correlation with a constant, are NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxlrp.attribution import _checks as checks
from jaxlrp.evaluation import _checks

__all__ = ["MEASURES", "WINDOW", "cosine", "spearman", "ssim"]

WINDOW = 7
"""The side of the window of `ssim`."""


def cosine(a: Any, b: Any) -> Array:
    """The cosine of the angle between two relevances.

        sum a b / (|a| |b|)

    Args:
      a: any shape.
      b: of the same shape.

    Returns:
      A number in [-1, 1]; NaN if one of them is zero.

    Raises:
      TypeError: if `a` or `b` is no array of real numbers.
      ValueError: if `b` has another shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> float(evaluation.cosine(jnp.array([1.0, 0.0]), jnp.array([5.0, 0.0])))
      1.0
    """
    first, second = _checks.pair(a, b)
    # Scaled first: squares of small numbers would vanish.
    first, second = first / jnp.abs(first).max(), second / jnp.abs(second).max()
    norms = jnp.sqrt(jnp.square(first).sum()) * jnp.sqrt(jnp.square(second).sum())
    return (first * second).sum() / norms


def spearman(a: Any, b: Any) -> Array:
    """Spearman's rank correlation.

        the correlation of rank(a) and rank(b)

    Equal values have the mean of their ranks. For the correlation of magnitudes, which
    Adebayo et al. report as well, pass absolute values.

    Args:
      a: any shape.
      b: of the same shape.

    Returns:
      A number in [-1, 1]; NaN if one of them is constant.

    Raises:
      TypeError: if `a` or `b` is no array of real numbers.
      ValueError: if `b` has another shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> a = jnp.array([1.0, 2.0, 3.0])
      >>> round(float(evaluation.spearman(a, a**3)), 4)
      1.0
    """
    first, second = _checks.pair(a, b)
    centre = (first.size - 1) / 2
    first, second = _mean_ranks(first) - centre, _mean_ranks(second) - centre
    norms = jnp.sqrt(jnp.square(first).sum()) * jnp.sqrt(jnp.square(second).sum())
    return jnp.where(norms > 0, (first * second).sum() / norms, jnp.nan)


def ssim(
    a: Any,
    b: Any,
    *,
    window: int | None = None,
    value_range: Any = None,
    axes: Sequence[int] | None = None,
) -> Array:
    """The structural similarity of two relevance maps.

        mean over windows of
        (2 m_a m_b + c_1) (2 s_ab + c_2) / ((m_a^2 + m_b^2 + c_1) (s_a^2 + s_b^2 + c_2))

    with the means `m`, sample variances `s^2` and covariance `s_ab` of each window that
    lies within the map, `c_1 = (0.01 L)^2`, `c_2 = (0.03 L)^2` and the range `L`. The
    numbers are those of scikit-image.

    Args:
      a: a map, `(height, width)`, or of any shape with at least one axis.
      b: of the same shape.
      window: the window's side, odd; by default 7, or the largest odd number that fits.
      value_range: `L`; by default from the smallest to the largest value of both, as in
        Quantus.
      axes: along which the window lies: by default the first two, or the only one.
        Along others, as channels, the result is averaged.

    Returns:
      A number; NaN if both are the same constant.

    Raises:
      TypeError: if `a` or `b` is no array of real numbers, or `window` is no int.
      ValueError: if `a` is a scalar, `b` has another shape, `window` is not odd or does
        not fit, or `axes` are no axes of `a`.

    Source: Wang et al. 2004, "Image quality assessment: from error visibility to
    structural similarity".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> a = jnp.arange(64.0).reshape(8, 8)
      >>> round(float(evaluation.ssim(a, a)), 4)
      1.0
    """
    first, second = _checks.pair(a, b)
    along = _axes(axes, first.ndim)
    side = _side(window, [first.shape[axis] for axis in along])
    if value_range is None:
        low = jnp.minimum(first.min(), second.min())
        value_range = jnp.maximum(first.max(), second.max()) - low
    c1, c2 = jnp.square(0.01 * value_range), jnp.square(0.03 * value_range)

    def mean(value: Array) -> Array:
        dims = [side if axis in along else 1 for axis in range(value.ndim)]
        total = lax.reduce_window(
            value, jnp.zeros((), value.dtype), lax.add, dims, (1,) * value.ndim, "VALID"
        )
        return total / side ** len(along)

    # Variances of what is left without the mean: less cancels.
    centre = (first.mean() + second.mean()) / 2
    x, y = first - centre, second - centre
    mx, my = mean(x), mean(y)
    sample = side ** len(along) / max(side ** len(along) - 1, 1)
    var_x = sample * (mean(x * x) - mx * mx)
    var_y = sample * (mean(y * y) - my * my)
    cov = sample * (mean(x * y) - mx * my)
    mx, my = mx + centre, my + centre
    top = (2 * mx * my + c1) * (2 * cov + c2)
    return jnp.mean(top / ((mx * mx + my * my + c1) * (var_x + var_y + c2)))


MEASURES: dict[str, Callable[[Array, Array], Array]] = {
    "spearman": spearman,
    "ssim": ssim,
    "cosine": cosine,
}
"""The similarities that the sanity checks report, by name."""


def _mean_ranks(values: Array) -> Array:
    """Ranks from 0, the mean rank for equal values; NaN if a value is."""
    flat = values.reshape(-1)
    order = jnp.sort(flat)
    below = jnp.searchsorted(order, flat, side="left")
    upto = jnp.searchsorted(order, flat, side="right")
    mean = (below + upto - 1).astype(flat.dtype) / 2
    return jnp.where(jnp.isnan(flat).any(), jnp.nan, mean)


def _axes(axes: Any, ndim: int) -> tuple[int, ...]:
    if ndim == 0:
        raise ValueError("a: got a scalar, expected an array with axes")
    if axes is None:
        return tuple(range(min(ndim, 2)))
    given = tuple(axes) if isinstance(axes, tuple | list) else (axes,)
    if not given or not all(isinstance(i, int) and -ndim <= i < ndim for i in given):
        raise ValueError(f"axes: got {axes!r}, expected axes of an array with {ndim}")
    return tuple(i % ndim for i in given)


def _side(window: Any, sizes: Sequence[int]) -> int:
    least = min(sizes)
    if window is None:
        return min(WINDOW, least - 1 + least % 2)
    side = checks.natural("window", window)
    if side % 2 == 0 or side > least:
        raise ValueError(
            f"window: got {side}, expected an odd number of at most {least}"
        )
    return side
