"""Which leaves of the arguments constants come from: that is what layers are called.

A constant that is made of leaves, by casts, changes of shape, indices, sums and
products with other leaves (a low-rank update, a scale of integers), comes from all of
them. Where one index along the first axis picks a part, the name says which:
`kernel[3]`; `kernel[:]` of stacked weights that a scan goes over, one by one;
`kernel[*]` where the index is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jax.extend.core import Literal

from jaxlrp import _compat
from jaxlrp._names import MOST, Origin
from jaxlrp._program.program import Equation, Value, aval_of
from jaxlrp.primitives import Kind, lookup

Origins = tuple[Origin, ...]


def joined(origins: Iterable[Origins]) -> Origins:
    """All of them, each once."""
    return tuple(dict.fromkeys(o for each in origins for o in each))


def of_constants(equation: Equation, operands: Sequence[Origins]) -> Origins:
    """The leaves that an equation's constants come from, if they are parameters.

    What takes the parameters of a whole program, as a loop does, has no name.
    """
    if not any(operands):
        return ()
    entry = lookup(equation.primitive)
    whole = entry is not None and entry.kind in (Kind.CALL, Kind.CONTROL)
    if whole and not equation.opaque:
        return ()
    return joined(o for o in operands if len(o) <= MOST)


def of_result(equation: Equation, out: Value, operands: Sequence[Origins]) -> Origins:
    """The leaves that a constant is made of. What only decides is no parameter."""
    if not any(operands) or out.aval.dtype == np.bool_:
        return ()
    pairs = zip(equation.inputs, operands, strict=True)
    made = (_moved(equation, i, origins, out) for i, (_, origins) in enumerate(pairs))
    return joined(made)


def _moved(equation: Equation, position: int, origins: Origins, out: Value) -> Origins:
    """What an equation makes of one operand's origins."""
    if not origins:
        return ()
    index = _index(equation, out) if position == 0 else None
    if index is not None:
        return tuple(o.part(index) for o in origins)
    if _stays(equation, position, out):
        return origins
    return tuple(o.changed() for o in origins)


_PARTS = ("split", "unstack")


def _index(equation: Equation, out: Value) -> str | None:
    """The one index along the first axis that it picks, `*` if that is computed."""
    name, params = equation.primitive.name, equation.params
    before, after = aval_of(equation.inputs[0]).shape, out.aval.shape
    if len(before) < 1 or before[0] == 1:
        return None
    one = (1, *before[1:])
    if name == "slice" and after == one:
        return str(_compat.slice_starts(params)[0])
    if name == "dynamic_slice" and after == one:
        start = equation.inputs[1]
        return str(int(start.val)) if isinstance(start, Literal) else "*"
    if name == "gather" and after == before[1:]:
        if _compat.gathered_sizes(params) == one:
            return "*"
    if name in _PARTS and after in (one, before[1:]):
        return str(equation.outputs.index(out))
    return None


def _stays(equation: Equation, position: int, out: Value) -> bool:
    """Does each index along the first axis stay where it is?"""
    shape = aval_of(equation.inputs[position]).shape
    entry = lookup(equation.primitive)
    if equation.primitive.name == "squeeze":
        return _compat.squeezed_axes(equation.params) == (0,)
    by_elements = entry is not None and (entry.kind is Kind.ELEMENTWISE or entry.still)
    return by_elements and out.aval.shape == shape
