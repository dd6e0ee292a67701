"""The gradient, and what is read off it at once."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, ParamSpec

import jax.numpy as jnp
from jax import Array

from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums
from jaxlrp.attribution import _call
from jaxlrp.attribution._call import Call

__all__ = ["gradient", "gradient_x_input", "saliency"]

P = ParamSpec("P")


def gradient(
    f: Callable[P, Any],
    *,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """The gradient of the score with respect to the input.

    `A = d S / d x`, where the score `S` is the output at the target, summed over the
    examples: `S = sum_i f(x)_i seed_i` with a seed of one at the target.

    Args:
      f: a function of pytrees that JAX can differentiate. Keyword arguments are passed
        on and not attributed.
      argnums: the positional argument to attribute, or several; the last by default.
      target: what is explained, as in `jaxlrp.lrp`; a callable `out -> seed` gives the
        cotangent of the output.
      has_aux: `f` returns `(output, auxiliary data)`.

    Returns:
      A function of `f`'s arguments that returns the attribution of the chosen argument,
      with its pytree structure, shapes and dtypes (a tuple for several `argnums`); with
      `has_aux`, `(attribution, aux)`.

    Raises:
      TypeError: for a target or an attributed argument of the wrong type.
      ValueError: for `argnums` or a class out of range.

    Source: Simonyan, Vedaldi, Zisserman 2014, "Deep inside convolutional networks".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> f = lambda x: jnp.stack([x[0] * x[1], -x[0]])
      >>> attribution.gradient(f)(jnp.array([2.0, 3.0]))
      Array([3., 2.], dtype=float32)
      >>> attribution.gradient(f, target=1)(jnp.array([2.0, 3.0]))
      Array([-1.,  0.], dtype=float32)
    """
    return _call.method(
        "gradient", f, argnums, target, has_aux, lambda call: _gradient(call, target)
    )


def _gradient(call: Call, target: Any) -> tuple[list[Array], Any]:
    out, aux, pull = _call.vjp(call)
    return pull(_call.seed(target, out)), aux


def gradient_x_input(
    f: Callable[P, Any],
    *,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """The gradient times the input.

    `A = x * d S / d x`, the score `S` as in `gradient`. It is LRP-0 where the network
    is piecewise linear and has no biases, and then adds up to `S`.

    Args:
      f: as for `gradient`.
      argnums: as for `gradient`.
      target: as for `gradient`.
      has_aux: as for `gradient`.

    Returns:
      A function of `f`'s arguments, as for `gradient`.

    Source: Shrikumar et al. 2016, "Not just a black box: learning important features
    through propagating activation differences".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> f = lambda x: 4.0 * x[0] - x[1]
      >>> attribution.gradient_x_input(f)(jnp.array([2.0, 3.0]))
      Array([ 8., -3.], dtype=float32)
    """

    def explain(call: Call) -> tuple[list[Array], Any]:
        gradients, aux = _gradient(call, target)
        return [x * g for x, g in zip(call.xs, gradients, strict=True)], aux

    return _call.method("gradient_x_input", f, argnums, target, has_aux, explain)


def saliency(
    f: Callable[P, Any],
    *,
    axis: int | tuple[int, ...] | None = None,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """The size of the gradient.

    `A = |d S / d x|`, the score `S` as in `gradient`; with `axis`, the largest along
    these axes, as `max_c |d S / d x_{hwc}|` of an image with its channels last.

    Args:
      f: as for `gradient`.
      axis: the axes of the attributed arrays over which the maximum is taken; they are
        left out of the result. None keeps every element.
      argnums: as for `gradient`.
      target: as for `gradient`.
      has_aux: as for `gradient`.

    Returns:
      A function of `f`'s arguments, as for `gradient`; with `axis` its arrays have
      fewer axes than the argument's.

    Raises:
      ValueError: if an attributed array has no such axis.

    Source: Simonyan, Vedaldi, Zisserman 2014, "Deep inside convolutional networks".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> f = lambda x: jnp.sum(x * jnp.array([[1.0, -4.0], [3.0, 2.0]]))
      >>> attribution.saliency(f, axis=-1)(jnp.ones((2, 2)))
      Array([4., 3.], dtype=float32)
    """
    axes = _axes(axis)

    def explain(call: Call) -> tuple[list[Array], Any]:
        for x, name in zip(call.xs, call.names, strict=True):
            if any(not -x.ndim <= a < x.ndim for a in axes):
                raise ValueError(
                    f"axis: got {axis!r}, but {name} has shape {x.shape}: expected "
                    f"axes in [{-x.ndim}, {x.ndim})"
                )
        gradients, aux = _gradient(call, target)
        return [jnp.max(jnp.abs(g), axis=axes) for g in gradients], aux

    return _call.method("saliency", f, argnums, target, has_aux, explain)


def _axes(axis: Any) -> tuple[int, ...]:
    """`axis` as a tuple of ints."""
    if axis is None:
        return ()
    given = axis if isinstance(axis, tuple | list) else (axis,)
    try:
        return tuple(operator.index(a) for a in given)
    except TypeError:
        raise TypeError(f"axis: got {axis!r}, expected ints or None") from None
