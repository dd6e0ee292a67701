"""Quantised arithmetic in floats: integers and small floats that hold quantities.

A quantised layer rounds what it is given to int8, multiplies integers and scales the
result back, `s (round(x / s) . w)`. Integers have no derivative, and the multiplier of
an 8-bit float would be one, too. So what arithmetic makes of such numbers is computed
in floats, from the rounding until it is a float again: `round(x / s)` is then an
activation and the product a layer, as in the network that was quantised.

Only arithmetic is: whatever else is done with integers (indices, comparisons, bits) has
the integers themselves. A program without any such arithmetic stays as it is.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import Literal
from jax.extend.core import primitives as P

from jaxlrp import _compat
from jaxlrp._program.kinds import is_real
from jaxlrp.primitives import Entry, Kind, lookup

_OWN = (P.custom_jvp_call_p, P.custom_vjp_call_p)
"""Calls with their own derivative: what they say they are, if that is no layer."""


def in_floats(jaxpr: Any, active: Sequence[bool], inputs: Sequence[Any]) -> Any:
    """A closed jaxpr whose arithmetic on small numbers is done in floats.

    Args:
      jaxpr: closed.
      active: which of its inputs are attributed.
      inputs: arrays or shapes that it takes.
    """
    if not _meets(jaxpr, active)[1]:
        return jaxpr

    def again(*arrays: Any) -> list[Any]:
        given = [_Number(x, derived=a) for x, a in zip(arrays, active, strict=True)]
        open_, consts = _compat.open_jaxpr(jaxpr)
        return [n.value for n in _write_out(open_, consts, given)]

    return jax.make_jaxpr(again)(*inputs)


# ---- is there anything to do? --------------------------------------------------------


def _meets(jaxpr: Any, derived: Sequence[bool]) -> tuple[list[bool], bool]:
    """(which results are made of what is attributed, is there such arithmetic)."""
    open_, _ = _compat.open_jaxpr(jaxpr)
    known = {v for v, d in zip(open_.invars, derived, strict=True) if d}
    found = False
    for eqn in open_.eqns:
        given = [not isinstance(v, Literal) and v in known for v in eqn.invars]
        if not any(given):
            continue
        entry = lookup(eqn.primitive)
        bodies = _bodies(eqn, entry)
        if bodies:
            # What a body is given is not always as many as the equation is.
            found = found or any(
                _meets(b, _given_to(b, given))[1] for b in bodies.values()
            )
            made = [True] * len(eqn.outvars)
        else:
            found = found or _is_arithmetic(eqn, entry, given)
            made = [not _ends(eqn, entry)] * len(eqn.outvars)
        known.update(v for v, m in zip(eqn.outvars, made, strict=True) if m)
    results = [not isinstance(v, Literal) and v in known for v in open_.outvars]
    return results, found


def _given_to(body: Any, given: Sequence[bool]) -> list[bool]:
    """Which inputs of a body count as attributed: those of a call, else all."""
    count = len(_compat.open_jaxpr(body)[0].invars)
    return list(given) if count == len(given) else [True] * count


def _bodies(eqn: Any, entry: Entry | None) -> dict[str, Any]:
    """The bodies of calls, loops and branches, by name, that are written again."""
    if entry is None or entry.kind not in (Kind.CALL, Kind.CONTROL):
        return {}
    bodies = _compat.bodies_by_name(eqn.params)
    own = eqn.primitive in _OWN and not any(map(_has_layer, bodies.values()))
    return {} if own else bodies


def _has_layer(jaxpr: Any) -> bool:
    """Does it contract small numbers? Rounding alone may be anything's derivative."""
    for eqn in _compat.open_jaxpr(jaxpr)[0].eqns:
        entry = lookup(eqn.primitive)
        contracts = entry is not None and entry.kind is Kind.CONTRACTION
        if contracts and any(_is_small(v.aval) for v in eqn.invars):
            return True
        if any(map(_has_layer, _compat.bodies_by_name(eqn.params).values())):
            return True
    return False


def _is_arithmetic(eqn: Any, entry: Entry | None, derived: Sequence[bool]) -> bool:
    """Does it round to a small number, or sum products of them or them themselves?"""
    if _is_cast(eqn.primitive):
        (x,), (y,) = eqn.invars, eqn.outvars
        return _is_wide(x.aval) and _is_small(y.aval) and not _is_bool(y.aval)
    pairs = zip(eqn.invars, derived, strict=True)
    return _adds_up(entry) and any(d and _is_small(v.aval) for v, d in pairs)


def _ends(eqn: Any, entry: Entry | None) -> bool:
    """Is the result no longer made of the operands? A one-hot code is, of integers."""
    if entry is None or entry.kind is not Kind.INERT:
        return False
    return not (entry.matches and _is_small(eqn.invars[0].aval))


def _adds_up(entry: Entry | None) -> bool:
    """Does it sum over axes? What is elementwise may be done to names as well."""
    return entry is not None and (
        entry.kind is Kind.CONTRACTION or (entry.kind is Kind.LINEAR and entry.sums)
    )


def _is_cast(primitive: Any) -> bool:
    return primitive is P.convert_element_type_p


def _is_small(aval: Any) -> bool:
    """Is it of integers, booleans, or floats of at most eight bits?"""
    dtype = getattr(aval, "dtype", None)
    if dtype is None or jnp.issubdtype(dtype, jax.dtypes.extended):
        return False
    return not jnp.issubdtype(dtype, jnp.inexact) or jnp.finfo(dtype).bits <= 8


def _is_wide(aval: Any) -> bool:
    return is_real(aval) and not _is_small(aval)


def _is_bool(aval: Any) -> bool:
    return jnp.issubdtype(aval.dtype, jnp.bool_)


# ---- the program again ---------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Number:
    """A value of the program.

    Attributes:
      value: as the program has it.
      wide: the same in floats, where arithmetic made it of what is attributed.
      derived: it is made of what is attributed.
      contraction: what `wide` is the contraction of, if it is one.
    """

    value: Any
    wide: Any = None
    derived: bool = False
    contraction: _Contraction | None = None


@dataclasses.dataclass(frozen=True)
class _Contraction:
    """A contraction of two operands, of which the kernel is not attributed."""

    bind: Callable[..., list[Any]]
    params: Any
    operands: tuple[Any, Any]
    kernel: int


def _write_out(jaxpr: Any, consts: Sequence[Any], given: Sequence[_Number]) -> Any:
    """The results of an open jaxpr."""
    known = dict(zip(jaxpr.invars, given, strict=True))
    constants = zip(_compat.constvars(jaxpr), consts, strict=True)
    known.update((v, _Number(c)) for v, c in constants)

    def read(atom: Any) -> _Number:
        return _Number(atom.val) if isinstance(atom, Literal) else known[atom]

    for eqn in jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        scope = _compat.name_stack(eqn.source_info)
        with _compat.equation_context(eqn.source_info, eqn.ctx, scope):
            results = _results(eqn, operands)
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _results(eqn: Any, operands: Sequence[_Number]) -> list[_Number]:
    derived = any(n.derived for n in operands)
    entry = lookup(eqn.primitive)
    if derived and entry is not None:
        results = _of_bodies(eqn, entry, operands) or _of_numbers(eqn, entry, operands)
        if results:
            return results
    ys = _bind(eqn)(*(n.value for n in operands))
    return [_Number(y, derived=derived and not _ends(eqn, entry)) for y in ys]


def _bind(eqn: Any, **changed: Any) -> Callable[..., list[Any]]:
    return _compat.primitive_bind(eqn.primitive, {**eqn.params, **changed})


def _of_bodies(eqn: Any, entry: Entry, operands: Sequence[_Number]) -> list[_Number]:
    """Calls are written out; loops and branches have other bodies.

    Between one iteration and the next, and out of a branch, integers are integers.
    """
    bodies = _bodies(eqn, entry)
    derived = [n.derived for n in operands]
    if entry.kind is Kind.CALL and len(bodies) == 1:
        (body,) = bodies.values()
        goes_on = any(n.wide is not None for n in operands)
        if goes_on or _meets(body, _given_to(body, derived))[1]:
            return _write_out(*_compat.open_jaxpr(body), operands)
    elif any(_meets(b, _given_to(b, derived))[1] for b in bodies.values()):
        if _compat.is_sharded(eqn.params):
            return _of_shards(eqn, operands)
        changed = {name: _other_body(b, derived) for name, b in bodies.items()}
        bind = _bind(eqn, **_compat.with_bodies(eqn.params, changed))
        ys = bind(*(n.value for n in operands))
        return [_Number(y, derived=True) for y in ys]
    return []


def _of_shards(eqn: Any, operands: Sequence[_Number]) -> list[_Number]:
    """A map over the shards of a mesh, with arithmetic in floats on each."""
    parts = _compat.shard_map_parts(eqn.params)
    (body,) = _compat.bodies_by_name(eqn.params).values()
    derived = [n.derived for n in operands]

    def on_shard(*arrays: Any) -> tuple[Any, ...]:
        given = [_Number(x, derived=d) for x, d in zip(arrays, derived, strict=True)]
        return tuple(n.value for n in _write_out(*_compat.open_jaxpr(body), given))

    mapped = jax.shard_map(
        on_shard,
        mesh=parts.mesh,
        in_specs=tuple(parts.inputs),
        out_specs=tuple(parts.outputs),
        axis_names=parts.axes,
        check_vma=parts.checked,
    )
    ys = jax.jit(mapped)(*(n.value for n in operands))
    return [_Number(y, derived=True) for y in ys]


def _other_body(body: Any, derived: Sequence[bool]) -> Any:
    inputs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in _compat.in_avals(body)]
    return in_floats(body, _given_to(body, derived), inputs)


def _of_numbers(eqn: Any, entry: Entry, operands: Sequence[_Number]) -> list[_Number]:
    """Arithmetic in floats; nothing where it is none, or has none of these numbers."""
    if entry.kind not in _ARITHMETIC or len(eqn.outvars) != 1:
        return _shifted(eqn, entry, operands)
    aval = eqn.outvars[0].aval
    if _is_cast(eqn.primitive):
        return _cast(eqn, operands[0])
    own = [i for i in _quantities(entry, operands) if _is_small(_type(operands[i]))]
    known = [operands[i].wide for i in own if operands[i].wide is not None]
    begins = _adds_up(entry) and any(operands[i].derived for i in own)
    if not (known or begins) or _is_bool(aval) and not _is_wide(aval):
        return []
    dtype = jnp.result_type(jnp.float32, *known)
    if _is_wide(aval):
        dtype = jnp.promote_types(dtype, aval.dtype)
    wide = [
        _in_float(n, dtype) if i in own else n.value for i, n in enumerate(operands)
    ]
    if entry.subtracts and (y := _difference(operands)) is not None:
        (value,) = _bind(eqn)(*(n.value for n in operands))
        return [_Number(value, y, derived=True)]
    (y,) = _bind(eqn, **entry.of_dtype(eqn.params, dtype))(*wide)
    if _is_wide(aval):
        return [_Number(lax.convert_element_type(y, aval.dtype), derived=True)]
    if is_real(aval) or _divides(entry):  # of integers, the rest is dropped
        y = as_stored(y, aval.dtype)
    (value,) = _bind(eqn)(*(n.value for n in operands))
    if _may_wrap(entry, aval, operands):
        y = with_value(y, value)
    contraction = _contraction(eqn, entry, operands, wide)
    return [_Number(value, y, derived=True, contraction=contraction)]


def _contraction(
    eqn: Any, entry: Entry, operands: Sequence[_Number], wide: Sequence[Any]
) -> _Contraction | None:
    kernels = [i for i, n in enumerate(operands) if not n.derived]
    if entry.kind is not Kind.CONTRACTION or len(operands) != 2 or len(kernels) != 1:
        return None
    (kernel,) = kernels
    bind = _bind(eqn, **entry.of_dtype(eqn.params, jnp.result_type(*wide)))
    own = operands[kernel].value
    given = (wide[1 - kernel], own)
    return _Contraction(bind, (eqn.primitive, eqn.params), given, kernel)


def _difference(operands: Sequence[_Number]) -> Any | None:
    """`(q - z) w` of `q w - z w`: the offset `z` of a quantised layer is no bias."""
    a, b = (n.contraction for n in operands)
    if a is None or b is None or a.params != b.params or a.kernel != b.kernel:
        return None
    if a.operands[1] is not b.operands[1]:
        return None
    x, y = (c.operands[0] for c in (a, b))
    if x.shape != y.shape or x.dtype != y.dtype:
        return None
    pair = [x - y, _in_float(_Number(a.operands[1]), x.dtype)]
    return a.bind(*(pair if a.kernel == 1 else pair[::-1]))[0]


_ARITHMETIC = (
    *(Kind.STRUCTURAL, Kind.ELEMENTWISE, Kind.LINEAR),
    *(Kind.CONTRACTION, Kind.SELECTION),
)


def _type(number: _Number) -> Any:
    return jax.typeof(number.value)


def _quantities(entry: Entry, operands: Sequence[_Number]) -> Sequence[int]:
    """The operands that are counted with, not those that say where and whether."""
    if _divides(entry):
        return (0, 1)
    linear = entry.linear_in(len(operands))
    counts = entry.picks or entry.power is not None
    counts = counts or entry.kind is Kind.SELECTION or entry.homogeneous([None])
    others = [i for i in range(len(operands)) if i not in entry.decides]
    return linear or (others if counts else ())


def _divides(entry: Entry) -> bool:
    return entry.kind is Kind.ELEMENTWISE and entry.is_quotient


def _in_float(number: _Number, dtype: Any) -> Any:
    x = number.value if number.wide is None else number.wide
    if isinstance(x, np.ndarray | np.generic | int | float):
        return np.asarray(x, dtype)
    return lax.convert_element_type(x, dtype)


def _cast(eqn: Any, number: _Number) -> list[_Number]:
    """To a small number and back."""
    before, after = eqn.invars[0].aval, eqn.outvars[0].aval
    x = number.wide
    if _is_wide(after):
        return (
            [] if x is None else [_Number(_in_float(number, after.dtype), None, True)]
        )
    if _is_bool(after):
        return []
    if x is None and not _is_wide(before):
        return []
    if x is None:
        x = number.value.astype(jnp.promote_types(before.dtype, jnp.float32))
        x = as_stored(x, after.dtype)
    elif is_real(after):
        x = as_stored(x, after.dtype)
    (value,) = _bind(eqn)(number.value)
    if number.wide is not None and not _holds(after.dtype, before.dtype):
        x = with_value(x, value)
    return [_Number(value, x, derived=True)]


def _holds(dtype: Any, other: Any) -> bool:
    """Does a type of integers hold all that another one does, or is it of floats?"""
    if not jnp.issubdtype(dtype, jnp.integer):
        return True
    if not jnp.issubdtype(other, jnp.integer):
        return False
    a, b = jnp.iinfo(dtype), jnp.iinfo(other)
    return int(a.min) <= int(b.min) and int(b.max) <= int(a.max)


def _may_wrap(entry: Entry, aval: Any, operands: Sequence[_Number]) -> bool:
    """May the integers of a result be too large for their type, and come back below?

    Those of 32 bits and a sign are taken to be wide enough, as sums of products of
    int8 are; but not for products with a large constant, as a hash has.
    """
    counts = entry.kind not in (Kind.STRUCTURAL, Kind.SELECTION)
    if is_real(aval) or not counts or entry.picks or entry.selects:
        return False
    if _divides(entry):
        return False
    limits = jnp.iinfo(aval.dtype)
    if limits.bits < 32 or limits.min == 0:
        return True
    return entry.is_product and any(_is_large(n.value) for n in operands)


def _is_large(constant: Any) -> bool:
    known = isinstance(constant, np.ndarray | np.generic | int)
    return known and bool((np.abs(np.asarray(constant, float)) >= 2**15).any())


def _shifted(eqn: Any, entry: Entry, operands: Sequence[_Number]) -> list[_Number]:
    """`x << n` and `x >> n` of a number: times or over a power of two."""
    if not entry.shifts or operands[0].wide is None or operands[1].derived:
        return []
    x, n = operands[0].wide, _in_float(operands[1], operands[0].wide.dtype)
    y = x * 2.0 ** (entry.shifts * n)
    y = y if entry.shifts > 0 else jnp.floor(y)
    (value,) = _bind(eqn)(*(n.value for n in operands))
    # Bits are lost on the left; on the right a sign may become one of them.
    if entry.shifts > 0 or eqn.primitive is P.shift_right_logical_p:
        y = with_value(y, value)
    return [_Number(value, y, derived=True)]


@jax.custom_jvp
def with_value(x: Array, integers: Array) -> Array:
    """`integers` in floats, where they are `x` but for overflow; derivative of `x`."""
    y = lax.convert_element_type(integers, x.dtype)
    return lax.select(x == y, x, y)


@with_value.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> Any:
    return with_value(*primals), tangents[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def as_stored(x: Array, dtype: Any) -> Array:
    """`x` as a smaller type holds it; its derivative is the identity's."""
    return lax.convert_element_type(lax.convert_element_type(x, dtype), x.dtype)


@as_stored.defjvp
def _(dtype: Any, primals: tuple[Array], tangents: tuple[Array]) -> Any:
    return as_stored(primals[0], dtype), tangents[0]
