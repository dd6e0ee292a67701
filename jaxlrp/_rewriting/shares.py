"""How a result's relevance is split into the shares that a rule asks for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxlrp._operations import denominator, hold, route, send, wide
from jaxlrp._reading.steps import Step
from jaxlrp._rewriting.environment import Observe
from jaxlrp.rules import Share


def shared(
    y: Array, shares: Sequence[Share], wants_shadow: bool, rectified: bool = False
) -> tuple[Array, Array | None]:
    """`y` with its relevance split into shares, and its shadow.

    Before a ReLU its result is kept instead of `y`, and nothing passes where that is
    zero: the ReLU need not ensure it.
    """
    hs = tuple(s.surrogate for s in shares)
    if not wants_shadow:
        together = _of_one_number(y, shares, rectified)
        if together is not None:
            given, aux = together
            return send(given, y, hs, aux), None
    kept = _rectified(y) if rectified else y
    zs = [kept if s.z is y and not s.per else s.z for s in shares]
    pairs = zip(zs, shares, strict=True)
    aux = kept, tuple((z, s.epsilon, s.part, s.rounding) for z, s in pairs)
    how = tuple((s.per, s.form, s.side) for s in shares)
    shadow = None
    if wants_shadow:
        plain = functools.partial(_plain_scales, how)
        shadow = route(plain, lax.full_like(y, 0), hs, aux)
    return send(functools.partial(_multiples, how, rectified), y, hs, aux), shadow


def _multiples(how: Any, rectified: bool, _: Array, aux: Any, c: Array) -> list[Array]:
    """`part * y / s(z)` of what arrives, a multiplier: `R = y c`.

    Where `z = 0` all contributions are zero, and the factor is too: `y / epsilon` could
    overflow before it meets them.
    """
    given = []
    y, parts = aux
    for (per, form, side), (z, epsilon, part, rounding) in zip(how, parts, strict=True):
        none = lax.eq(z, lax.full_like(z, 0))
        none = none | _other_side(y, side) if side else none
        none = none if rounding is None else none | rounding
        # The quotient comes last: XLA keeps it, and would recompute what is cheap.
        passing = wide(lax.select(none, lax.full_like(y, 0), y))
        scale = passing / denominator(z, epsilon, per, form)
        given.append(_part(scale * _arriving(scale, c, rectified), part))
    return given


def _arriving(scale: Array, c: Array, rectified: bool) -> Array:
    """What arrives; at the zeros of a ReLU it may be infinite, and counts as zero."""
    return jnp.where(scale == 0, 0, c) if rectified else c


def _plain_scales(how: Any, _: Array, aux: Any) -> list[Array]:
    """`part / s(z)`: what arrives is relevance."""
    scales = []
    y, parts = aux
    for (per, form, side), (z, epsilon, part, rounding) in zip(how, parts, strict=True):
        scale = 1 / denominator(z, epsilon, per, form)
        scale = jnp.where(_other_side(y, side), 0, scale) if side else scale
        scale = scale if rounding is None else jnp.where(rounding, 0, scale)
        scales.append(_part(scale, part))
    return scales


def _rectified(y: Array) -> Array:
    return lax.max(y, lax.full_like(y, 0))


def _other_side(y: Array, side: int) -> Array:
    return y <= 0 if side > 0 else y >= 0


def _part(scale: Array, part: Any) -> Array:
    if isinstance(part, float) and part == 1.0:
        return scale
    return scale * jnp.asarray(part, scale.dtype)


# ---- two shares of one number ----------------------------------------------------


def _of_one_number(
    y: Array, shares: Sequence[Share], rectified: bool
) -> tuple[Callable[..., Sequence[Array]], Any] | None:
    """Two shares whose factors one number for each output determines, or None.

    What is kept between the passes is one array, where `y` and both sums would be
    three. It has the sign of `y`. XLA keeps a quotient that is used twice, not its
    operands, if the quotient comes last.
    """
    if len(shares) != 2 or any(s.form != "sign" for s in shares):
        return None
    above, below = shares
    if above.rounding is not None and below.rounding is not None:
        make, given = _number_of_halves, _by_halves
        sums = [(s.z, s.epsilon, s.rounding) for s in shares]
    elif (above.side, below.side) == (1, -1) and above.z is below.z:
        make, given = _ratio, _by_side
        sums = [(above.z, above.epsilon)]
    else:
        return None

    def number(_: tuple[()], held: Any) -> Array:
        y, *sums = held
        return make(wide(_rectified(y) if rectified else y), sums, above.per)

    aux = hold(number, (), (y, *sums)), above.part, below.part
    return functools.partial(given, rectified), aux


def _ratio(y: Array, sums: Any, per: tuple[int, ...]) -> Array:
    """`|y / s(z)|` with the sign of `y`, which `z` has too."""
    ((z, epsilon),) = sums
    return y / _not_tiny(jnp.abs(denominator(z, epsilon, per)))


def _by_side(rectified: bool, _: Array, aux: Any, c: Array) -> list[Array]:
    ratio, *parts = aux
    passed = ratio * _arriving(ratio, c, rectified)
    above = jnp.where(ratio < 0, 0, passed)  # NaN propagates
    below = jnp.where(ratio < 0, -passed, 0)
    return [_part(m, part) for m, part in zip((above, below), parts, strict=True)]


def _number_of_halves(y: Array, sums: Any, per: tuple[int, ...]) -> Array:
    """What determines `y / s(p)` and `y / s(n)`, where `s(p) + s(n) = y`.

    Of `a`, the larger of `|s(p)|` and `|s(n)|`, and `b`, the other one: `a / b` where
    that is more than two, and else `|y| / a`, which is at most one half. Where nothing
    contributes to `b` it is `|y| / a` all the same, and more than one half.
    """
    (p, p_epsilon, p_none), (n, n_epsilon, n_none) = sums
    # The signs of the two differ, so that |y| = a - b: either quotient determines both
    # factors. |y| / a alone would lose the digits of b where b is small, a / b alone
    # those of y where the two nearly cancel.
    p = jnp.abs(denominator(p, p_epsilon, per))
    n = jnp.abs(denominator(n, n_epsilon, per))
    up = y > 0
    a, b = jnp.where(up, p, n), jnp.where(up, n, p)
    apart = (a > 2 * b) & (y != 0) & ~jnp.where(up, n_none, p_none)
    size = jnp.where(apart, a, jnp.abs(y))
    return jnp.where(y < 0, -size, size) / _not_tiny(jnp.where(apart, b, a))


def _by_halves(rectified: bool, _: Array, aux: Any, c: Array) -> list[Array]:
    number, *parts = aux
    c = _arriving(number, c, rectified)
    size = jnp.abs(number)
    apart, alone = size > 1.5, size > 0.5
    # y / a and y / b, of which the latter is negative.
    larger = jnp.where(apart, c - c / jnp.where(apart, size, 1), size * c)
    smaller = jnp.where(alone, 0, size * c / (jnp.where(alone, 0, size) - 1))
    smaller = jnp.where(apart, c - size * c, smaller)
    above = jnp.where(number < 0, smaller, larger)
    below = jnp.where(number < 0, larger, smaller)
    return [_part(m, part) for m, part in zip((above, below), parts, strict=True)]


def _not_tiny(size: Array) -> Array:
    """One instead of a mere stabiliser, for the sake of outer derivatives."""
    return jnp.where(size > 2 * float(jnp.finfo(size.dtype).tiny), size, 1)


def observed_share(share: Share, step: Step, observe: Observe) -> Share:
    surrogate, _ = observe("surrogate", step, share.surrogate, None)
    return dataclasses.replace(share, surrogate=surrogate)
