"""Difference quotients between the input and a reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxlrp._lrp import lrp
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums

__all__ = ["deep_lift"]


def deep_lift(
    f: Callable[..., Any],
    *,
    baseline: Any = 0.0,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[..., Any]:
    """DeepLIFT: what each input's difference to a baseline adds to the score's.

    The function is evaluated at the input `x` and at the baseline `x0`. Every operation
    `y = g(x)` passes its multiplier `c_y` back as difference quotients, so that
    `sum_i c_i (x_i - x0_i) = c_y (y - y0)`:

        linear maps       c_x = W^T c_y                               ("linear rule")
        of one variable   c_x = (y - y0) / (x - x0) c_y              ("rescale rule")
        products a b      c_a = (b + b0) / 2 c_y, c_b = (a + a0) / 2 c_y
        quotients a / b   those of a product with 1 / b
        maxima            the winner gets y - y0: that of x if it grew, else that of x0
        all others        the derivative's mean on the line, 8 nodes

    and `A = (x - x0) c_x`, which adds up to `S(x) - S(x0)` with the score `S` as in
    `gradient`; only the last of these rules leaves the quadrature's error. It costs two
    forward passes and one backward, and is integrated gradients with the integral taken
    step by step. Divisors, the statistics of normalisations, attention's softmax and
    gates are not constants. A choice that the one variable decides itself, as
    `where(x > 0, x, x / 10)`, is an operation of one variable. Other decisions
    (comparisons of other values, branches, numbers of steps, indices, what
    `stop_gradient` holds except a maximum) are those of `x` for both.
    `jaxlrp.lrp(f, baseline=x0)` is the same.

    Args:
      f: as for `gradient`.
      baseline: a number, an array that broadcasts to the attributed one, or for a
        pytree argument a pytree of such with its structure (for several `argnums` a
        tuple). It may be traced. A point at which the network says nothing, such as
        the mean image; for a mean over several see the example.
      argnums: as for `gradient`.
      target: as for `gradient`; it is that of `x`.
      has_aux: as for `gradient`; the auxiliary data is that at `x`.

    Returns:
      A function of `f`'s arguments, as for `gradient`.

    Raises:
      ValueError: for a baseline of the wrong structure or shape.
      UnexplainedPrimitiveError: for a `while` loop with effects.

    Source: Shrikumar, Greenside, Kundaje 2017, "Learning important features through
    propagating activation differences" (rescale rule); products as Shapley values of
    two players, as in Lundberg, Lee 2017, "A unified approach to interpreting model
    predictions" (Deep SHAP, which is its mean over baselines).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> f = lambda x: jax.nn.relu(x[0] + x[1] - 2.0) * x[2]
      >>> x = jnp.array([3.0, 1.0, 4.0])
      >>> attribution.deep_lift(f)(x)  # adds up to f(x) - f(0) = 8
      Array([3., 1., 4.], dtype=float32)
      >>> background = jnp.array([[0.0, 0.0, 0.0], [3.0, 1.0, 0.0]])
      >>> many = jax.vmap(lambda b: attribution.deep_lift(f, baseline=b)(x))
      >>> many(background).mean(0)  # Deep SHAP
      Array([1.5, 0.5, 6. ], dtype=float32)
    """

    if baseline is None:
        raise TypeError("baseline: got None, expected numbers or arrays")
    return lrp(f, baseline=baseline, argnums=argnums, target=target, has_aux=has_aux)
