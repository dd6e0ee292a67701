"""How a result's relevance is cut into the shares that a rule asks for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxlrp._operations import denominator, hold, route, send, wide
from jaxlrp._run import Observe
from jaxlrp._steps import Step
from jaxlrp.rules import Share


def shared(
    y: Array, shares: Sequence[Share], wants_shadow: bool, rectified: bool = False
) -> tuple[Array, Array | None]:
    """`y` with its relevance cut into shares, and its shadow.

    In front of a ReLU its result is kept in the place of `y`, and nothing passes where
    that is zero: the ReLU need not see to it.
    """
    hs = tuple(s.surrogate for s in shares)
    if not wants_shadow:
        together = _of_one_ratio(y, shares, rectified)
        if together is not None:
            given, aux = together
            return send(functools.partial(given, rectified), y, hs, aux), None
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
        # The quotient comes last: XLA keeps it, and would work out again what is cheap.
        passing = wide(lax.select(none, lax.full_like(y, 0), y))
        scale = passing / denominator(z, epsilon, per, form)
        given.append(_part(_passed(scale, c, rectified), part))
    return given


def _passed(scale: Array, c: Array, rectified: bool) -> Array:
    """`scale * c`; behind zeros of a ReLU anything may arrive, infinity too."""
    passed = scale * c
    return jnp.where(scale == 0, 0, passed) if rectified else passed


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


# ---- two shares of one ratio -----------------------------------------------------


def _of_one_ratio(
    y: Array, shares: Sequence[Share], rectified: bool
) -> tuple[Callable[..., Sequence[Array]], Any] | None:
    """The scales of two shares, from one array where `y` and both sums would be three.

    It is the larger of the two ratios, with the sign of `y`. On opposite sides of zero
    the other one is zero. Of halves, `s(p) + s(n) = y`: the other one is
    `r / (r - 1)`; where nothing contributes to it, the ratio is kept four times as
    large. It is used twice, so that XLA keeps it and not what it is made of.
    """
    if len(shares) != 2 or any(s.form != "sign" for s in shares):
        return None
    above, below = shares
    halves = above.rounding is not None and below.rounding is not None
    sides = (above.side, below.side) == (1, -1) and above.z is below.z
    if not halves and not sides:
        return None

    def ratio(_: tuple[()], held: tuple[Array, Any, Any]) -> Array:
        y, (p, p_step, p_none), (n, n_step, n_none) = held
        p, n = denominator(p, p_step, above.per), denominator(n, n_step, below.per)
        y = wide(_rectified(y) if rectified else y)
        size = p if rectified else jnp.where(y > 0, p, -n)
        if halves:
            none = n_none if rectified else jnp.where(y > 0, n_none, p_none)
            half = 2 * jnp.abs(y) > size  # below, the other one is below one too
            size = jnp.where(none & half, size / _FLAG, size)
        return y / jnp.where(y == 0, 1, size)

    sums = [(s.z, s.epsilon, s.rounding) for s in shares]
    aux = hold(ratio, (), (y, *sums)), above.part, below.part
    return functools.partial(_by_ratio, halves), aux


_FLAG = 4
"""A power of two, which a float is multiplied by without rounding."""


def _by_ratio(
    halves: bool, rectified: bool, _: Array, aux: Any, c: Array
) -> list[Array]:
    ratio, *parts = aux
    other: Array | int = 0
    if halves:
        alone = jnp.abs(ratio) > _FLAG / 2
        ratio = jnp.where(alone, ratio / _FLAG, ratio)
    passed = _passed(ratio, c, rectified)
    if halves:
        rest = jnp.abs(ratio) - 1
        none = alone | (rest >= 0)  # a bias may be all there is
        other = jnp.where(none, 0, passed / jnp.where(none, 1, rest))
    # In this order a result that is no number passes.
    above = jnp.where(ratio < 0, -other, passed)
    below = jnp.where(ratio > 0, other, -passed)
    return [_part(m, part) for m, part in zip((above, below), parts, strict=True)]


def observed_share(share: Share, step: Step, observe: Observe) -> Share:
    surrogate, _ = observe("surrogate", step, share.surrogate, None)
    return dataclasses.replace(share, surrogate=surrogate)
