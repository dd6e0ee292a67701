"""Where the elements of a value lie in what is made of it, element by element.

`vmap` spreads what it does not map, at one place of a function or another. So a
function is elementwise in a value if each element of its result depends on one element
of that value alone, whatever the shapes on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxlrp import _compat
from jaxlrp.primitives import Kind, lookup

Shape = tuple[Any, ...]
Placement = tuple[int | None, ...]
"""For each axis of a value the axis where it lies; None for those of size one."""


def is_one(size: Any) -> bool:
    """Is it the number one? A size may be a symbol."""
    return isinstance(size, int) and size == 1


def in_place(shape: Shape) -> Placement:
    """Of a value in itself."""
    return tuple(None if is_one(n) else i for i, n in enumerate(shape))


def fits(before: Shape, after: Shape) -> bool:
    """Does an elementwise result have the operand's elements, or repeat them?"""
    if not before:
        return True
    same = len(before) == len(after)
    return same and all(n == m or is_one(n) for n, m in zip(before, after, strict=True))


def moved(
    primitive: Any,
    params: Mapping[str, Any],
    placement: Placement,
    before: Shape,
    after: Shape,
) -> Placement | None:
    """Behind an equation that moves or repeats whole axes of its operand; else None."""
    entry = lookup(primitive)
    if entry is None or entry.kind is not Kind.STRUCTURAL:
        return None
    to = _moved_axes(entry, params, before, after)
    if to is None:
        return None
    return tuple(None if axis is None else to[axis] for axis in placement)


def _moved_axes(
    entry: Any, params: Mapping[str, Any], before: Shape, after: Shape
) -> dict[int, int] | None:
    """Where in the result axes of the operand lie that are not of size one."""
    if entry.still and before == after:
        return {i: i for i in range(len(before))}
    if (axes := _compat.broadcast_axes(params)) is not None:
        to = dict(enumerate(axes))
    elif entry.layout is not None:
        marks = tuple(((i, n, 1),) for i, n in enumerate(before))
        layout = entry.layout(params, marks, after)
        if layout is None:
            return None
        kept = [[a for a, n, _ in atoms if not is_one(n)] for atoms in layout]
        if any(len(atoms) > 1 for atoms in kept):
            return None
        to = {atoms[0]: out for out, atoms in enumerate(kept) if atoms}
    else:
        return None
    own = [i for i, n in enumerate(before) if not is_one(n)]
    whole = all(i in to and before[i] == after[to[i]] for i in own)
    return {i: int(to[i]) for i in own} if whole else None


def joined(
    places: Sequence[Mapping[Any, Placement]],
) -> dict[Any, Placement] | None:
    """Where all that several operands are made of lies; None where they disagree."""
    result: dict[Any, Placement] = {}
    for place in places:
        for key, placement in place.items():
            if result.setdefault(key, placement) != placement:
                return None
    return result
