"""Baselines: what replaces the units that are removed.

A constant needs no function: `baseline=0.0`, an array that broadcasts to the input, or
for token ids the id of a mask or padding token. The functions of this module make
arrays of the input's shape from it; `inpaint` asks what was removed and is passed as it
is. To take tokens out of the attention, flip the attention mask, `x=mask`,
`baseline=0`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp.attribution import _checks as checks
from jaxlrp.evaluation import _checks

__all__ = ["blur", "inpaint", "mean", "noise"]

IMAGE = (-3, -2)
"""The axes of height and width, with channels last."""

PADDINGS = ("reflect", "edge", "zero")
NEIGHBOURS = {
    (i, j): 1 / 6 if 0 in (i, j) else 1 / 12
    for i in (-1, 0, 1)
    for j in (-1, 0, 1)
    if (i, j) != (0, 0)
}
"""The weight of each neighbour in an imputed pixel."""


def mean(x: Any, axes: Sequence[int] = IMAGE) -> Array:
    """The mean over some axes, in `x`'s shape.

        b_i = mean of x over `axes`

    Args:
      x: the input, floating-point.
      axes: height and width by default, so that each channel has its own mean.

    Returns:
      An array of `x`'s shape and dtype.

    Raises:
      TypeError: if `x` is no array of real numbers.
      ValueError: if `axes` are no axes of `x`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.evaluation import baselines
      >>> baselines.mean(jnp.array([1.0, 3.0]), axes=(0,)).tolist()
      [2.0, 2.0]
    """
    image = _image(x, axes)
    wide = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    value = wide.mean(tuple(axes), keepdims=True)
    return jnp.broadcast_to(value, image.shape).astype(image.dtype)


def blur(
    x: Any,
    kernel: int = 51,
    sigma: float = 20.0,
    axes: Sequence[int] = IMAGE,
    padding: str = "reflect",
) -> Array:
    """A Gaussian blur.

        b_p = sum_d w_d x_{p+d},    w_d = exp(-d^2 / (2 sigma^2)) / sum

    along each of the axes, for `|d| <= (kernel - 1) / 2`.

    Args:
      x: the input, floating-point.
      kernel: the number of weights, odd.
      sigma: the standard deviation, in pixels.
      axes: height and width by default.
      padding: `"reflect"`, as in torchvision, `"edge"` or `"zero"`.

    Returns:
      An array of `x`'s shape and dtype, computed in at least float32.

    Raises:
      TypeError: if `x` is no array of real numbers, or `kernel` is no int.
      ValueError: if `kernel` is not an odd number above 0, `sigma` is not above 0,
        `axes` are not two axes of `x`, or `padding` is none of its names.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.evaluation import baselines
      >>> x = jnp.array([0.0, 0.0, 1.0, 0.0, 0.0])
      >>> b = baselines.blur(x, kernel=3, sigma=100.0, axes=(0,))
      >>> [round(float(v), 2) for v in b]
      [0.0, 0.33, 0.33, 0.33, 0.0]
    """
    image = _image(x, axes)
    _checks.one_of("padding", padding, PADDINGS)
    if checks.natural("kernel", kernel) % 2 == 0:
        raise ValueError(f"kernel: got {kernel}, expected an odd number")
    if not isinstance(sigma, int | float) or not sigma > 0:
        raise ValueError(f"sigma: got {sigma!r}, expected a number above 0")
    value = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    for axis in axes:
        matrix = jnp.asarray(
            _blurring(value.shape[axis], kernel, float(sigma), padding), value.dtype
        )
        moved = jnp.moveaxis(value, axis, -1)
        moved = jnp.matmul(moved, matrix.T, precision=jax.lax.Precision.HIGHEST)
        value = jnp.moveaxis(moved, -1, axis)
    return value.astype(image.dtype)


def noise(key: Array, x: Any, sigma: Any = 1.0, location: Any = 0.0) -> Array:
    """Gaussian noise.

        b_i ~ N(location, sigma^2)

    Args:
      key: a key of `jax.random`.
      x: the input, floating-point.
      sigma: the standard deviation; a number or an array that broadcasts to `x`.
      location: the mean; `location=mean(x)` is noise around each channel's mean.

    Returns:
      An array of `x`'s shape and dtype.

    Raises:
      TypeError: if `key` is no PRNG key, or `x` is no array of real numbers.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp.evaluation import baselines
      >>> baselines.noise(jax.random.key(0), jnp.zeros((2, 3)), sigma=0.0).sum()
      Array(0., dtype=float32)
    """
    checks.check_key(key)
    image = _image(x, ())
    drawn = jax.random.normal(key, image.shape, image.dtype)
    return (location + sigma * drawn).astype(image.dtype)


def inpaint(
    x: Any,
    removed: Any,
    *,
    axes: Sequence[int] = IMAGE,
    iterations: int = 500,
    tolerance: float = 1e-5,
    key: Array | None = None,
    sigma: float = 0.01,
) -> Array:
    """What is removed, imputed from its neighbours.

    Each removed pixel becomes the weighted mean of its eight neighbours in the image,

        b_p = sum_n w_n b_n / sum_n w_n    where p is removed,    b_p = x_p elsewhere,

    with weights 1/6 for neighbours along the axes and 1/12 along the diagonals. The
    linear system is solved by conjugate gradients, for each image of the other axes.
    Where nothing is left to impute from, the result is zero.

    This is a baseline as `flipping` takes one: pass the function itself, or
    `functools.partial(inpaint, axes=...)`.

    Args:
      x: the input, floating-point.
      removed: booleans of `x`'s shape.
      axes: height and width.
      iterations: how many steps of conjugate gradients are made at most.
      tolerance: of the residual, relative to the right-hand side.
      key: for the noise that is added to what was imputed; none is added without one.
      sigma: the noise's standard deviation.

    Returns:
      An array of `x`'s shape and dtype.

    Raises:
      TypeError: if `x` is no array of real numbers, `removed` is not of booleans,
        `iterations` is no int, or `key` is no PRNG key.
      ValueError: if `removed` has another shape, `axes` are not two axes of `x`, or
        `iterations` is below 1.

    Source: Rong et al. 2022, "A consistent and efficient evaluation strategy for
    attribution methods" (ROAD), noisy linear imputation.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.evaluation import baselines
      >>> x = jnp.array([[0.0, 9.0, 2.0]])
      >>> removed = jnp.array([[False, True, False]])
      >>> baselines.inpaint(x, removed, axes=(0, 1)).round(3)
      Array([[0., 1., 2.]], dtype=float32)
    """
    image = _image(x, axes)
    gone = _checks.mask("removed", removed, image.shape, "x")
    checks.natural("iterations", iterations)
    if len(axes) != 2:
        raise ValueError(f"axes: got {tuple(axes)}, expected two axes")
    value = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    known = jnp.where(gone, 0, value)
    # The weights that lie inside the image; rows of places that are known are identity.
    weights = _stencil(jnp.ones_like(value), axes)

    def matrix(v: Array) -> Array:
        return jnp.where(gone, weights * v - _stencil(v, axes), v)

    def masked(v: Array) -> Array:
        return matrix(jnp.where(gone, v, 0))

    rhs = jnp.where(gone, _stencil(known, axes), 0)
    counted = jnp.maximum((~gone).sum(tuple(axes), keepdims=True), 1)
    start = known.sum(tuple(axes), keepdims=True) / counted
    solved, _ = jax.scipy.sparse.linalg.cg(
        masked, rhs, jnp.where(gone, start, 0), tol=tolerance, maxiter=iterations
    )
    if key is not None:
        checks.check_key(key)
        solved = solved + sigma * jax.random.normal(key, solved.shape, solved.dtype)
    return jnp.where(gone, solved, value).astype(image.dtype)


def _image(x: Any, axes: Sequence[int]) -> Array:
    """A floating-point array that has the axes."""
    value = _checks.array("x", x)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"x: got dtype {value.dtype}, expected a floating-point one")
    if not isinstance(axes, tuple | list) or not all(
        isinstance(a, int) and -value.ndim <= a < value.ndim for a in axes
    ):
        raise ValueError(
            f"axes: got {axes!r}, expected axes of an array of shape {value.shape}"
        )
    return value


def _blurring(size: int, kernel: int, sigma: float, padding: str) -> np.ndarray:
    """The blur along one axis as a matrix, its padding within."""
    radius = kernel // 2
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    where = np.pad(
        np.arange(size), radius, mode="reflect" if padding == "reflect" else "edge"
    )
    matrix = np.zeros((size, size))
    for i in range(size):
        for d in range(kernel):
            outside = not radius <= i + d < radius + size
            if not (outside and padding == "zero"):
                matrix[i, where[i + d]] += weights[d]
    return matrix


def _stencil(value: Array, axes: Sequence[int]) -> Array:
    """The weighted sum over the eight neighbours; there are none outside."""
    total = jnp.zeros_like(value)
    for offset, weight in NEIGHBOURS.items():
        moved = value
        for axis, step in zip(axes, offset, strict=True):
            moved = _shifted(moved, axis, step)
        total = total + weight * moved
    return total


def _shifted(value: Array, axis: int, step: int) -> Array:
    """Each place's neighbour along an axis, zero beyond the end."""
    if not step:
        return value
    pads = [(0, 0)] * value.ndim
    pads[axis] = (1, 0) if step < 0 else (0, 1)
    size = value.shape[axis]
    begin = 0 if step < 0 else 1
    return jax.lax.slice_in_dim(
        jnp.pad(value, pads), begin, begin + size, axis=axis % value.ndim
    )
