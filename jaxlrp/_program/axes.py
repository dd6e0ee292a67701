"""Which axes of an equation's result are which axes of its operands."""

from __future__ import annotations

from jaxlrp._program.program import Atom, Equation, aval_of
from jaxlrp.primitives import Kind, lookup


def shape_of(atom: Atom) -> tuple[int, ...]:
    """The shape of an operand; that of a number for what has none."""
    return getattr(aval_of(atom), "shape", ())


def every_axis(atom: Atom) -> frozenset[int]:
    """All axes of an operand."""
    return frozenset(range(len(shape_of(atom))))


def axes_of(equation: Equation, position: int) -> dict[int, int] | None:
    """`{axis of the result: axis of an operand}`; None where that is not known."""
    entry = lookup(equation.primitive)
    if entry is None or not equation.outputs:
        return None
    shapes = [shape_of(v) for v in equation.inputs]
    before, after = shapes[position], shape_of(equation.outputs[0])
    if entry.axes is not None:
        return entry.axes(equation.params, position, shapes, after)
    if entry.kind is Kind.ELEMENTWISE:
        # An axis of size one may be repeated.
        same = len(before) == len(after)
        return {i: i for i, n in enumerate(after) if before[i] == n} if same else {}
    if entry.kind is Kind.CONTRACTION and entry.kernel_axes is not None:
        sizes = tuple(len(shape) for shape in shapes)
        both = [entry.kernel_axes(equation.params, k, sizes) for k in (0, 1)]
        return both[position] if len({*both[0], *both[1]}) == len(after) else None
    if entry.layout is not None and len(shapes) == 1:
        marks = tuple(((i, n, 1),) for i, n in enumerate(before))
        layout = entry.layout(equation.params, marks, after)
        if layout is None:
            return None
        return {out: axis for out, atoms in enumerate(layout) for axis, _, _ in atoms}
    return None
