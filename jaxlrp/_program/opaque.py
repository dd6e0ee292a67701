"""Which calls stay whole, since what is in them cannot be read or would be lost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jax.extend.core import Literal, jaxprs_in_params
from jax.extend.core import primitives as P

from jaxlrp import _compat
from jaxlrp._program.kinds import is_real
from jaxlrp._program.placement import Placement, fits, in_place, joined, moved
from jaxlrp.primitives import Kind, lookup

_OWN = (P.custom_jvp_call_p, P.custom_vjp_call_p)
"""Calls with their own derivative."""


def is_opaque(eqn: Any) -> bool:
    """Does it have its own derivative, and something in it that cannot be read?

    Or does nothing pass it when it is read? A rounding with the derivative of the
    identity is such a function. Or is it attention by chunks in a loop? Whatever joins
    these, its derivative is that of attention.
    """
    if lookup(eqn.primitive) is None:
        return has_only_a_derivative(eqn, _compat.implementation(eqn))
    body = _compat.called_jaxpr(eqn.params) if eqn.primitive in _OWN else None
    if body is None:
        return False
    if _is_unreadable(body) or _is_cut(body, _compat.call_constants(eqn.params)):
        return True
    operands, results = ([v.aval for v in vs] for vs in (eqn.invars, eqn.outvars))
    places = attention_places(operands, results, _compat.names_of(eqn.params))
    return places is not None and _has_loop(body)


def has_only_a_derivative(eqn: Any, body: Any | None) -> bool:
    """Is a package's own primitive differentiable, though what it is written in is not?

    Something in it is refused; or it does not read an operand that its derivative is
    about, as a linear solver that is given the matrix and its decomposition. `body` is
    the implementation. Where that is not written in JAX nothing is known of what the
    primitive is, and it is refused as any other without a rule.
    """
    if body is None or not _compat.has_derivative(eqn.primitive):
        return False
    if _is_unreadable(body):
        return True
    open_, _ = _compat.open_jaxpr(body)
    read = _needed(open_, [True] * len(open_.outvars))
    pairs = zip(open_.invars, read, strict=True)
    unread = any(is_real(v.aval) and not needed for v, needed in pairs)
    # One that hands an operand on is what it seems: a choice that is not mapped over.
    return unread and any(e.outvars and _computes(e) for e in open_.eqns)


def _computes(eqn: Any) -> bool:
    """Does an equation do more than move values?"""
    entry = lookup(eqn.primitive)
    return entry is None or entry.kind is not Kind.STRUCTURAL


def _needed(jaxpr: Any, wanted: Sequence[bool]) -> list[bool]:
    """Which inputs the wanted results of a body depend on."""
    found = {
        v
        for v, want in zip(jaxpr.outvars, wanted, strict=True)
        if want and not isinstance(v, Literal)
    }
    for eqn in reversed(jaxpr.eqns):
        wanted = [v in found for v in eqn.outvars]
        if not any(wanted):
            continue
        entry = lookup(eqn.primitive)
        calls = entry is not None and entry.kind is Kind.CALL
        body = _compat.called_jaxpr(eqn.params) if calls else None
        inner = None if body is None else _compat.open_jaxpr(body)[0]
        read = [True] * len(eqn.invars)
        if inner is not None and len(inner.invars) == len(eqn.invars):
            read = _needed(inner, wanted)
        pairs = zip(eqn.invars, read, strict=True)
        found.update(v for v, r in pairs if r and not isinstance(v, Literal))
    return [v in found for v in jaxpr.invars]


_ATTENTION = re.compile(
    r"attention|attn|(^|_)mha(_|$)|(^|_)mqa(_|$)|flash", re.IGNORECASE
)


def attention_places(
    operands: Sequence[Any], results: Sequence[Any], names: Sequence[str]
) -> tuple[int, int, int] | None:
    """The positions of queries, keys and values, if a call is attention.

    Its first three real operands have the shapes of those and its first result that
    of the output, and one of `names` is attention's.
    """
    real = [i for i, a in enumerate(operands) if is_real(a) and len(a.shape) > 2]
    if len(real) < 3 or not results:
        return None
    q, k, v = (operands[i].shape for i in real[:3])
    fits = q[-1] == k[-1] and k[:-1] == v[:-1]
    fits = fits and results[0].shape == (*q[:-1], v[-1])
    if not fits or not any(_ATTENTION.search(name) for name in names):
        return None
    return real[0], real[1], real[2]


def _has_loop(jaxpr: Any) -> bool:
    for eqn in _compat.open_jaxpr(jaxpr)[0].eqns:
        if eqn.primitive in (P.scan_p, P.while_p):
            return True
        if any(map(_has_loop, jaxprs_in_params(eqn.params))):
            return True
    return False


def _is_cut(jaxpr: Any, constants: int) -> bool:
    """Are all results computed from the operands by paths that pass no relevance?"""
    inputs = _compat.open_jaxpr(jaxpr)[0].invars
    real = [i >= constants and is_real(v.aval) for i, v in enumerate(inputs)]
    results = _passed(jaxpr, [(r, r) for r in real])
    return any(made for made, _ in results) and not any(act for _, act in results)


def _passed(jaxpr: Any, inputs: Sequence[tuple[bool, bool]]) -> list[tuple[bool, bool]]:
    """For each result: does it depend on the operands, and can relevance pass?"""
    open_, _ = _compat.open_jaxpr(jaxpr)
    known = dict(zip(open_.invars, inputs, strict=True))

    def read(atom: Any) -> tuple[bool, bool]:
        return _NOTHING if isinstance(atom, Literal) else known.get(atom, _NOTHING)

    for eqn in open_.eqns:
        operands = [read(v) for v in eqn.invars]
        entry = lookup(eqn.primitive)
        body = None
        if entry is not None and entry.kind is Kind.CALL and eqn.primitive not in _OWN:
            body = _compat.called_jaxpr(eqn.params)
        if body is not None:
            results = _passed(body, operands)
        else:
            inert = entry is not None and (
                entry.kind is Kind.INERT or entry.fixed(eqn.params)
            )
            made = any(m for m, _ in operands)
            passes = any(a for _, a in operands) and not inert
            results = [(made, passes and is_real(v.aval)) for v in eqn.outvars]
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in open_.outvars]


_NOTHING = (False, False)


def _is_unreadable(jaxpr: Any) -> bool:
    """Is there a primitive in it that has no rule, and no derivative around it?"""
    for eqn in _compat.open_jaxpr(jaxpr)[0].eqns:
        entry = lookup(eqn.primitive)
        if entry is None:
            body = _compat.implementation(eqn)
            if body is None:
                return True
            # Its derivative stands for what is in it.
            bodies = [] if _compat.has_derivative(eqn.primitive) else [body]
        elif entry.kind is Kind.REFUSED:
            return True
        else:
            opens = entry.kind in (Kind.CALL, Kind.CONTROL)
            read = opens and eqn.primitive not in _OWN
            bodies = jaxprs_in_params(eqn.params) if read else ()
        if any(map(_is_unreadable, bodies)):
            return True
    return False


def is_elementwise(jaxpr: Any) -> bool:
    """Does each element of the one result depend on one of each operand alone?"""
    return elementwise_places(jaxpr) is not None


def elementwise_places(jaxpr: Any) -> Mapping[int, Placement] | None:
    """Where the operands of an elementwise function lie in its result; else None."""
    open_, consts = _compat.open_jaxpr(jaxpr)
    if len(open_.outvars) != 1 or consts:
        return None
    operands = {v: {i: in_place(v.aval.shape)} for i, v in enumerate(open_.invars)}
    placed = _placed(open_, operands)
    return None if placed is None else placed[0]


Places = Mapping[int, Placement]
"""Where operands of the function, by number, lie in a value."""


def _placed(jaxpr: Any, operands: Mapping[Any, Places]) -> Sequence[Places] | None:
    """Where operands lie in the results; None where something is not elementwise."""
    known = dict(operands)
    for eqn in jaxpr.eqns:
        places = [
            {} if isinstance(v, Literal) else known.get(v, {}) for v in eqn.invars
        ]
        results = _placed_behind(eqn, places)
        if results is None:
            return None
        known.update(zip(eqn.outvars, results, strict=True))
    return [{} if isinstance(v, Literal) else known.get(v, {}) for v in jaxpr.outvars]


def _placed_behind(eqn: Any, places: Sequence[Places]) -> Sequence[Places] | None:
    """Behind one equation."""
    entry = lookup(eqn.primitive)
    if entry is None:
        return None
    if entry.kind is Kind.CALL:
        body = _compat.called_jaxpr(eqn.params)
        if body is None:
            return None
        open_, _ = _compat.open_jaxpr(body)
        return _placed(open_, dict(zip(open_.invars, places, strict=True)))
    shape = eqn.outvars[0].aval.shape
    if entry.kind is Kind.STRUCTURAL:
        before = [getattr(v.aval, "shape", ()) for v in eqn.invars]
        result: dict[int, Placement] = {}
        for key, placement in (places[0] if len(places) == 1 else {}).items():
            there = moved(eqn.primitive, eqn.params, placement, before[0], shape)
            if there is None:
                return None
            result[key] = there
        return [result] if len(places) == 1 else None
    if entry.kind not in (Kind.ELEMENTWISE, Kind.INERT):
        return None
    if any(v.aval.shape != shape for v in eqn.outvars):
        return None
    if not all(fits(getattr(v.aval, "shape", ()), shape) for v in eqn.invars):
        return None
    together = joined(places)
    return None if together is None else [together] * len(eqn.outvars)
