"""Structural primitives: every output element copies an input element, or a constant.

Relevance follows the elements: JAX's transpose is the rule, and it is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxlrp.primitives._book import (
    Active,
    Entry,
    Kind,
    Params,
    Shape,
    Shapes,
    all_nonnegative,
    enter,
    jointly,
    only,
    same_axes,
)

__all__ = [
    "Atom",
    "Layout",
    "broadcast_axes",
    "broadcast_layout",
    "is_kernels",
    "reshape_layout",
    "squeeze_layout",
    "structural",
    "transpose_layout",
]

Atom = tuple[int | None, int, int]
"""A piece of an axis: (kernel axis that it comes from or None, size, stride there)."""
Layout = tuple[tuple[Atom, ...], ...]
"""For each axis of an array, the atoms that it is made of, major to minor."""


def is_kernels(atoms: Sequence[Atom]) -> bool:
    """Is an axis made of the kernel's axes alone?"""
    return bool(atoms) and all(axis is not None for axis, _, _ in atoms)


def _size(atoms: Sequence[Atom]) -> int:
    return math.prod(n for _, n, _ in atoms)


def transpose_layout(params: Params, layout: Layout, shape: Sequence[int]) -> Layout:
    """Axes change places."""
    return tuple(layout[axis] for axis in params["permutation"])


def reshape_layout(
    params: Params, layout: Layout, shape: Sequence[int]
) -> Layout | None:
    """Axes merge and split, atoms too; None where a split is uneven.

    >>> merged = reshape_layout({}, (((0, 2, 1),), ((1, 6, 1),)), (12,))
    >>> merged
    (((0, 2, 1), (1, 6, 1)),)
    >>> reshape_layout({}, merged, (2, 1, 3, 2))
    (((0, 2, 1),), (), ((1, 3, 2),), ((1, 2, 1),))
    """
    if params.get("dimensions") is not None or 0 in shape:
        return None
    atoms = [atom for axis in layout for atom in axis if atom[1] != 1]
    result: list[tuple[Atom, ...]] = []
    for size in shape:
        taken: list[Atom] = []
        while _size(taken) != size:
            if not atoms:
                return None
            taken.append(atoms.pop(0))
            if isinstance(size, int) and _size(taken) > size:
                axis, n, stride = taken.pop()
                major, rest = divmod(size, _size(taken))
                if rest or n % major:
                    return None
                minor = n // major
                taken.append((axis, major, stride * minor))
                atoms.insert(0, (axis, minor, stride))
        result.append(tuple(taken))
    return tuple(result)


def squeeze_layout(params: Params, layout: Layout, shape: Sequence[int]) -> Layout:
    """Axes of size one vanish."""
    gone = params["dimensions"]
    return tuple(axis for i, axis in enumerate(layout) if i not in gone)


def broadcast_layout(
    params: Params, layout: Layout, shape: Sequence[int]
) -> Layout | None:
    """New axes of size one; None where elements are repeated."""
    result: list[tuple[Atom, ...]] = [()] * len(shape)
    for axis, target in enumerate(params["broadcast_dimensions"]):
        result[target] = layout[axis]
    if any(_size(a) != n for a, n in zip(result, shape, strict=True)):
        return None
    return tuple(result)


def broadcast_axes(
    params: Params, position: int, shapes: Shapes, result: Shape
) -> dict[int, int]:
    """The axes that are not repeated."""
    moved = enumerate(params["broadcast_dimensions"]) if position == 0 else ()
    return {out: axis for axis, out in moved if shapes[0][axis] == result[out]}


def _only_the_padding(params: Params, active: Active) -> str:
    why = "JAX cannot transpose a padding by an active value around a constant"
    return why if active[1] and not active[0] else ""


def structural(**traits: Any) -> Entry:
    """An entry of what copies all its operands, changed by `traits`."""
    return Entry(Kind.STRUCTURAL, linear=jointly, nonnegative=all_nonnegative, **traits)


enter("transpose", structural(layout=transpose_layout))
enter("reshape", structural(layout=reshape_layout))
enter("squeeze", structural(layout=squeeze_layout))
enter("broadcast_in_dim", structural(layout=broadcast_layout, axes=broadcast_axes))
enter("pad", structural(refuses=_only_the_padding, axes=same_axes))
enter("slice rev concatenate split", structural(axes=same_axes))
# Of kernels, where JAX does not differentiate it.
enter(
    "broadcast_to",
    structural(form=lambda params: lambda x: jnp.broadcast_to(x, params["shape"])),
)
enter(
    "tie",
    Entry(
        Kind.STRUCTURAL,
        linear=only(1),
        nonnegative=lambda signs, params: signs[1],
        decides=(0,),
        reason="the second operand, when there is a first",
    ),
)
enter(
    "stack unstack tile "
    "optimization_barrier name device_put sharding_constraint layout_constraint "
    "relayout reshard with_memory_space_constraint xla_metadata_value from_edtype "
    "to_edtype",
    structural(),
)
