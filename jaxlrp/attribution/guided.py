"""Gradients with another derivative of the rectifier."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from jaxlrp import _targets, composites
from jaxlrp._lrp import lrp
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums
from jaxlrp.attribution._call import bind
from jaxlrp.composites import Composite

__all__ = ["deconvnet", "guided_backprop"]


def guided_backprop(
    f: Callable[..., Any],
    *,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[..., Any]:
    """Guided backpropagation: the gradient, cut off below zero at every activation.

    As the gradient, but with `c_x = phi'(x) max(c_y, 0)` at every activation `phi`.

    Args:
      f: as for `gradient`.
      argnums: as for `gradient`.
      target: as for `gradient`.
      has_aux: as for `gradient`.

    Returns:
      A function of `f`'s arguments, as for `gradient`. The result is not multiplied by
      the input.

    Source: Springenberg et al. 2015, "Striving for simplicity: the all convolutional
    net".

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> w = jnp.array([1.0, -1.0])
      >>> f = lambda x: jax.nn.relu(x) @ w
      >>> attribution.guided_backprop(f)(jnp.array([2.0, 3.0]))
      Array([1., 0.], dtype=float32)
    """
    return _with(composites.GuidedBackprop(), f, argnums, target, has_aux)


def deconvnet(
    f: Callable[..., Any],
    *,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[..., Any]:
    """The deconvnet: the gradient, with the rectifier itself for its derivative.

    As the gradient, but with `c_x = max(c_y, 0)` at every activation.

    Args:
      f: as for `gradient`.
      argnums: as for `gradient`.
      target: as for `gradient`.
      has_aux: as for `gradient`.

    Returns:
      A function of `f`'s arguments, as for `gradient`. The result is not multiplied by
      the input.

    Source: Zeiler, Fergus 2014, "Visualizing and understanding convolutional networks".

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> w = jnp.array([1.0, -1.0])
      >>> f = lambda x: jax.nn.relu(x) @ w
      >>> attribution.deconvnet(f)(jnp.array([-2.0, 3.0]))
      Array([1., 0.], dtype=float32)
    """
    return _with(composites.DeconvNet(), f, argnums, target, has_aux)


def _with(
    composite: Composite,
    f: Callable[..., Any],
    argnums: ArgNums,
    target: Any,
    has_aux: bool,
) -> Callable[..., Any]:
    """What a composite propagates, from ones at the target."""
    _targets.check(target)

    def ones(out: Any) -> Any:
        return _targets.weights(target, out)

    propagate = lrp(f, composite, argnums=argnums, target=ones, has_aux=has_aux)

    @functools.wraps(propagate)
    def attribution(*args: Any, **kwargs: Any) -> Any:
        bind(f, args, kwargs, argnums, has_aux)  # checks the arguments
        return propagate(*args, **kwargs)

    return attribution
