"""Contractions: bilinear maps of a signal and a kernel.

With one active operand they are layers (dense or convolution), with two they are
bilinear products, as in attention.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import primitives

from jaxlrp.primitives._book import (
    Entry,
    Kind,
    Params,
    all_nonnegative,
    each,
    enter,
)

__all__ = ["conv_input_axes", "conv_kernel_axes", "dot_input_axes", "dot_kernel_axes"]


def _gives(params: Params, dtype: Any) -> Params:
    """The dtype in which a contraction adds up."""
    return {"preferred_element_type": dtype}


def dot_kernel_axes(
    params: Params, kernel: int, ndims: tuple[int, int]
) -> dict[int, int]:
    """`{axis of the result: axis of operand kernel}`, batch axes included.

    >>> numbers = (((1,), (0,)), ((), ()))
    >>> dot_kernel_axes({"dimension_numbers": numbers}, 1, (2, 2))
    {1: 1}
    """
    contracting, batch = params["dimension_numbers"]
    free = [
        [i for i in range(ndims[k]) if i not in contracting[k] and i not in batch[k]]
        for k in (0, 1)
    ]
    start = len(batch[0]) + (len(free[0]) if kernel == 1 else 0)
    return dict(enumerate(batch[kernel])) | {
        start + i: axis for i, axis in enumerate(free[kernel])
    }


def dot_input_axes(
    params: Params, kernel: int, ndims: tuple[int, int]
) -> dict[int, int]:
    """`{axis of the signal: axis of the kernel}` of the axes that meet.

    >>> numbers = (((1,), (0,)), ((), ()))
    >>> dot_input_axes({"dimension_numbers": numbers}, 1, (2, 2))
    {1: 0}
    """
    contracting, batch = params["dimension_numbers"]
    signal = 1 - kernel
    pairs = ((contracting[signal], contracting[kernel]), (batch[signal], batch[kernel]))
    return {x: w for xs, ws in pairs for x, w in zip(xs, ws, strict=True)}


def conv_input_axes(
    params: Params, kernel: int, ndims: tuple[int, int]
) -> dict[int, int]:
    """`{feature axis of the image: input feature axis of the kernel}`; no groups."""
    if kernel == 0 or not _is_plain(params):
        return {}
    numbers = params["dimension_numbers"]
    return {numbers.lhs_spec[1]: numbers.rhs_spec[1]}


def _is_plain(params: Params) -> bool:
    return params["feature_group_count"] == params["batch_group_count"] == 1


def _dot_as_ones(
    params: Params, ones: int, x: Array, other: tuple[int, ...], shape: tuple[int, ...]
) -> Array:
    """A product in which the operand at `ones`, of the shape `other`, is all ones."""
    contracting, batch = params["dimension_numbers"]
    k = 1 - ones
    free = [i for i in range(x.ndim) if i not in contracting[k] and i not in batch[k]]
    rest = [n for i, n in enumerate(other) if i not in contracting[ones]]
    added = len(rest) - len(batch[ones])
    total = lax.transpose(
        x.sum(contracting[k], keepdims=True), [*batch[k], *free, *contracting[k]]
    )
    kept = [total.shape[i] for i in range(len(batch[k]) + len(free))]
    start = len(batch[k]) if k == 1 else len(kept)
    kept[start:start] = [1] * added
    dtype = params["preferred_element_type"] or x.dtype
    return jnp.broadcast_to(total.reshape(kept), shape).astype(dtype)


def _conv_as_ones(
    params: Params, ones: int, x: Array, other: tuple[int, ...], shape: tuple[int, ...]
) -> Array | None:
    """As for `dot_general`: what is summed is summed first, one feature is left.

    A kernel of ones is then no convolution but sums over windows, and one over ones a
    product with what says where the image ends.
    """
    if not _is_plain(params):
        return None
    numbers = params["dimension_numbers"]
    specs = (numbers.lhs_spec, numbers.rhs_spec)
    total = x.sum(specs[1 - ones][1], keepdims=True)
    if ones == 0:
        return jnp.broadcast_to(_inside(params, total, other, shape), shape)
    if _has_windows(params, x):
        return jnp.broadcast_to(_windows(params, total, other), shape)
    kept = list(other)
    kept[specs[1][0]] = kept[specs[1][1]] = 1  # of a kernel of ones, one feature
    kernel = jnp.ones(kept, x.dtype)
    (y,) = [primitives.conv_general_dilated_p.bind(total, kernel, **params)]
    return jnp.broadcast_to(y, shape)


def _inside(
    params: Params, kernel: Array, image: tuple[int, ...], shape: tuple[int, ...]
) -> Array:
    """Sums of a kernel over its elements that lie inside of an image of ones.

    Each axis of the window says for itself which do, so that this is a small matrix
    product for each; of the image's examples, one is all.
    """
    numbers = params["dimension_numbers"]
    feature, one, *window = numbers.rhs_spec
    y = lax.transpose(kernel, [*window, feature, one])
    last = len(window) - 1
    for d in reversed(range(len(window))):
        places = shape[numbers.out_spec[2 + d]], y.shape[last]
        inside = _is_inside(params, d, image[numbers.lhs_spec[2 + d]], *places)
        # The axis goes to the front, so that the next one is the last of the window.
        y = lax.dot_general(
            inside.astype(y.dtype),
            y,
            (((1,), (last,)), ((), ())),
            precision=params["precision"],
            preferred_element_type=params["preferred_element_type"],
        )
    made = (y.ndim - 1, y.ndim - 2, *range(len(window)))  # example, feature, places
    order = sorted(range(y.ndim), key=lambda i: numbers.out_spec[i])
    y = lax.transpose(y, [made[i] for i in order])
    return y.astype(params["preferred_element_type"] or kernel.dtype)


def _is_inside(params: Params, d: int, size: int, results: int, window: int) -> Array:
    """`[result, element of the window]`: does it meet one of the image's elements?"""
    places = (results, window)
    step, gap = params["window_strides"][d], params["rhs_dilation"][d]
    base, (low, _) = params["lhs_dilation"][d], params["padding"][d]
    result, element = (lax.broadcasted_iota(jnp.int32, places, i) for i in (0, 1))
    place = result * step + element * gap - low
    return (place >= 0) & (place <= (size - 1) * base) & (place % base == 0)


def _has_windows(params: Params, image: Array) -> bool:
    """Real, and nothing is cut off."""
    real = jnp.issubdtype(image.dtype, jnp.floating)
    return real and all(n >= 0 for pads in params["padding"] for n in pads)


def _windows(params: Params, image: Array, kernel: tuple[int, ...]) -> Array:
    """An image of one feature, summed over windows, one axis after the other."""
    numbers = params["dimension_numbers"]
    dtype = params["preferred_element_type"] or image.dtype
    image = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    for d, axis in enumerate(numbers.lhs_spec[2:]):
        size, step, base, gaps = ([1] * image.ndim for _ in range(4))
        padding = [(0, 0)] * image.ndim
        size[axis] = kernel[numbers.rhs_spec[2 + d]]
        step[axis], padding[axis] = params["window_strides"][d], params["padding"][d]
        base[axis], gaps[axis] = params["lhs_dilation"][d], params["rhs_dilation"][d]
        zero = np.zeros((), image.dtype)
        image = lax.reduce_window(image, zero, lax.add, size, step, padding, base, gaps)
    order = dict(zip(numbers.out_spec, numbers.lhs_spec, strict=True))
    image = lax.transpose(image, [order[i] for i in range(image.ndim)])
    return image.astype(dtype)


def _meets_itself(params: Params) -> bool:
    """The same axes are contracted, and the same are batched, in both operands."""
    contracting, batch = params["dimension_numbers"]
    return contracting[0] == contracting[1] and batch[0] == batch[1]


def conv_kernel_axes(
    params: Params, kernel: int, ndims: tuple[int, int]
) -> dict[int, int]:
    """`{feature axis of the result: output feature axis of the kernel}`."""
    numbers = params["dimension_numbers"]
    if kernel == 0:  # an active kernel: the image's batch axis plays the part
        return {numbers.out_spec[0]: numbers.lhs_spec[0]}
    return {numbers.out_spec[1]: numbers.rhs_spec[0]}


enter(
    "dot_general",
    Entry(
        Kind.CONTRACTION,
        linear=each,
        nonnegative=all_nonnegative,
        role="dense",
        squares=_meets_itself,
        kernel_axes=dot_kernel_axes,
        input_axes=dot_input_axes,
        with_ones=_dot_as_ones,
        of_dtype=_gives,
    ),
)
enter(
    "conv_general_dilated",
    Entry(
        Kind.CONTRACTION,
        linear=each,
        nonnegative=all_nonnegative,
        role="convolution",
        kernel_axes=conv_kernel_axes,
        input_axes=conv_input_axes,
        with_ones=_conv_as_ones,
        of_dtype=_gives,
    ),
)
enter(
    "ragged_dot_general",
    Entry(
        Kind.LINEAR,
        linear=lambda active: not any(active[2:]) and each(active),
        of_dtype=_gives,
    ),
)
enter(
    "scaled_matmul scaled_matmul_wrapper scaled_dot",
    Entry(
        Kind.REFUSED,
        reason="JAX has no derivative for block-scaled matrix products; "
        "multiply by the scales and use dot_general",
    ),
)
