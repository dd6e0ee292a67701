"""Elementwise primitives: `out[i] = phi(a[i], b[i], ...)`.

Sums, shifts, scales and masks are linear in their active operands and need no rule.
Nonlinear maps of one variable are activations (identity rule: R passes unchanged).
Products and quotients of two active operands have roles of their own, maxima are
selections. Of a function with parameters (an exponent, coefficients) the argument takes
all, and the parameters are held, as a divisor is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp.primitives._book import (
    Active,
    Entry,
    Kind,
    Params,
    Signs,
    all_nonnegative,
    always,
    any_nonnegative,
    argument,
    each,
    enter,
    first_nonnegative,
    jointly,
    only,
)

__all__ = []


def _even_power(signs: Signs, params: Params) -> bool:
    return params["y"] % 2 == 0 or signs[0]


def _keeps_its_sign(signs: Signs, params: Params) -> bool:
    """An integer may wrap around when it is narrowed."""
    target = params["new_dtype"]
    return signs[0] and not jnp.issubdtype(target, jnp.signedinteger)


def _bounds_nonnegative(signs: Signs, params: Params) -> bool:
    """`clamp(low, x, high)` is `high` where `high < low`."""
    return signs[0] and signs[2]


def _reciprocal(params: Params) -> bool:
    return params["y"] < 0


def _is_one(params: Params) -> bool:
    """`x**0`"""
    return params["y"] == 0


def _cases_nonnegative(signs: Signs, params: Params) -> bool:
    return all(signs[1:])


def _other_is_zero(literals: Sequence[Any]) -> bool:
    """`max(x, 0)`, `min(x, 0)`: the threshold is exactly zero."""
    known = [v for v in literals if v is not None]
    return len(known) == len(literals) - 1 and all(np.all(v == 0) for v in known)


def _clamp(params: Params) -> Callable[..., Array]:
    """In terms that share ties: at a bound JAX gives nothing to either."""
    return lambda low, x, high: lax.min(
        lax.max(x, jnp.broadcast_to(low, x.shape)), jnp.broadcast_to(high, x.shape)
    )


@jax.custom_jvp
def _beside(x: Array, y: Array) -> Array:
    """The number next to `x`: `x` itself, as far as relevance goes."""
    return lax.nextafter(x, y)


@_beside.defjvp
def _(primals, tangents):
    y = _beside(*primals)
    return y, jnp.broadcast_to(tangents[0], y.shape)


def _degree_one(params: Params, active: Active) -> Callable[..., Any] | None:
    return (lambda *_: 1) if all(active) else None


def _but_at(position: int) -> Callable[[Params, Active], str]:
    """A function without a derivative in its parameters alone."""
    why = "JAX has no derivative of this function in its parameters"
    return lambda params, active: "" if active[position] else why


def _elementwise(**traits: Any) -> Entry:
    return Entry(Kind.ELEMENTWISE, **traits)


# Linear in all operands together.
enter("add add_any", _elementwise(linear=jointly, nonnegative=all_nonnegative))
enter("sub", _elementwise(linear=jointly, subtracts=True))
enter("neg", _elementwise(linear=jointly, negates=True))
enter(
    "copy reduce_precision stage",
    _elementwise(linear=jointly, nonnegative=first_nonnegative),
)
enter("convert_element_type", _elementwise(linear=jointly, nonnegative=_keeps_its_sign))

# Linear in one operand while the others are held.
enter("mul", _elementwise(linear=each, nonnegative=all_nonnegative))
enter(
    "div",
    _elementwise(linear=only(0), nonnegative=all_nonnegative),
)
# `select_n(which, *cases)`: linear in the cases.
enter(
    "select_n",
    _elementwise(
        linear=lambda active: not active[0],
        nonnegative=_cases_nonnegative,
        selects=True,
    ),
)

# Piecewise linear.
enter(
    "max",
    _elementwise(
        nonnegative=any_nonnegative,
        homogeneous=_other_is_zero,
        bounds=True,
        picks=True,
    ),
)
enter(
    "min",
    _elementwise(
        nonnegative=all_nonnegative,
        homogeneous=_other_is_zero,
        bounds=True,
        picks=True,
    ),
)
enter("abs", _elementwise(nonnegative=always, homogeneous=always))
enter("clamp", _elementwise(nonnegative=_bounds_nonnegative, picks=True, form=_clamp))

# Smooth, of one variable.
enter("exp exp2", _elementwise(nonnegative=always, by_result=True, exponential=True))
enter("logistic", _elementwise(nonnegative=always, at_most_one=True, by_result=True))
enter("erfc cosh", _elementwise(nonnegative=always))
enter("square", _elementwise(nonnegative=always, power=lambda params: 2))
enter("sqrt rsqrt", _elementwise(nonnegative=always, by_result=True, takes_root=always))
# Their derivative is zero, their relevance the identity's: a quantised activation.
enter("floor ceil round", _elementwise(nonnegative=first_nonnegative, rounds=True))
enter(
    "cbrt",
    _elementwise(nonnegative=first_nonnegative, by_result=True, takes_root=always),
)
enter(
    "integer_pow",
    _elementwise(
        nonnegative=_even_power,
        takes_root=_reciprocal,
        power=lambda params: params["y"],
        fixed=_is_one,
    ),
)
enter(
    "pow",
    _elementwise(
        nonnegative=first_nonnegative, takes_root=always, held=argument(0), raises=True
    ),
)
enter("log log2", _elementwise(logarithm=True))
enter("tanh", _elementwise(nonnegative=first_nonnegative, by_result=True))
enter(
    "expm1",
    _elementwise(nonnegative=first_nonnegative, by_result=True, exponential_less=True),
)
enter("erf asinh atan sinh log1p", _elementwise(nonnegative=first_nonnegative))
enter("sin tan", _elementwise())
enter(
    "acos acosh asin atanh cos erf_inv lgamma digamma bessel_i0e "
    "bessel_i1e one_minus_square",
    _elementwise(),
)

# Functions with parameters: the argument takes all.
enter("igamma igammac", _elementwise(held=argument(1)))
enter("polygamma", _elementwise(held=argument(1), refuses=_but_at(1)))
enter(
    "regularized_incomplete_beta",
    _elementwise(held=argument(2), refuses=_but_at(2)),
)
enter(
    "polynomial",
    # Linear in its coefficients: where they are active they take all.
    _elementwise(
        linear=lambda active: not active[0],
        held=lambda params, active: (0,) if active[0] and any(active[1:]) else (),
    ),
)
# `atan2(a, b)` is the angle whose tangent is the quotient `a / b`.
enter("atan2", _elementwise(held=argument(0)))
# `rem(a, b) = a - b trunc(a / b)`: piecewise linear in both together.
enter("rem", _elementwise(degree=_degree_one))
enter(
    "nextafter",
    _elementwise(
        linear=only(0),
        decides=(1,),
        form=lambda params: _beside,
        reason="the second operand only says on which side",
    ),
)
enter(
    "zeta igamma_grad_a",
    Entry(Kind.REFUSED, reason="JAX has no derivative for this function"),
)
