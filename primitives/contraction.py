"""Contractions: bilinear maps of a signal and a kernel.

With one active operand they are layers (dense or convolution), with two they are
bilinear products, as in attention.
"""

from __future__ import annotations

from jaxlrp.primitives._book import (
    Entry,
    Kind,
    Params,
    all_nonnegative,
    each,
    enter,
)


def dot_kernel_axes(params: Params, kernel: int, ndims: tuple[int, int]) -> dict:
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


def _meets_itself(params: Params) -> bool:
    """The same axes are contracted, and the same are batched, in both operands."""
    contracting, batch = params["dimension_numbers"]
    return contracting[0] == contracting[1] and batch[0] == batch[1]


def conv_kernel_axes(params: Params, kernel: int, ndims: tuple[int, int]) -> dict:
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
    ),
)
enter(
    "ragged_dot_general",
    Entry(Kind.LINEAR, linear=lambda active: not any(active[2:]) and each(active)),
)
enter(
    "scaled_matmul scaled_matmul_wrapper scaled_dot",
    Entry(
        Kind.REFUSED,
        reason="JAX has no derivative for block-scaled matrix products; "
        "multiply by the scales and use dot_general",
    ),
)
