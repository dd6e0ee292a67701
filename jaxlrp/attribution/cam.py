"""Class activation maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums
from jaxlrp.attribution import _call, _checks, _intermediate
from jaxlrp.attribution._call import Call
from jaxlrp.attribution._chunks import accumulator

__all__ = ["grad_cam"]

P = ParamSpec("P")


def grad_cam(
    f: Callable[P, Any],
    layer: str,
    *,
    channel_axis: int = -1,
    size: Sequence[int] | None = None,
    batch_ndim: int | None = None,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """Grad-CAM: a layer's channels, weighted with their mean gradients.

    For the layer's value `v`, with channels `k` and places `p`, and the score `S` as in
    `gradient`,

        A_p = max(0, sum_k w_k v_{pk}),   w_k = mean_p d S / d v_{pk}.

    Args:
      f: a function of pytrees that JAX can trace and differentiate.
      layer: the name of the intermediate value, or a glob that names one: a tag of
        `jax.ad_checkpoint.checkpoint_name`, a `jax.named_scope` (a Flax Linen module's
        path) for what leaves it, or the path of a layer's kernel in the arguments, as
        `"conv5"` or `"conv5.kernel"`.
      channel_axis: the value's axis of channels.
      size: the places of the result, as `(height, width)`: the map is resized to it,
        linearly along each axis. None leaves the layer's own.
      batch_ndim: how many leading axes of the value count examples. By default those
        that it shares with all but the output's last axis. Axes of loops that the layer
        lies in come before these and are kept.
      argnums: an argument that the layer depends on, of floating-point arrays.
      target: as for `gradient`.
      has_aux: as for `gradient`.

    Returns:
      A function of `f`'s arguments that returns the map, of shape
      `(*examples, *places)`; with `has_aux`, `(map, aux)`.

    Raises:
      ValueError: if `layer` names no value, or several, or one without such an axis.

    Source: Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via
    gradient-based localization".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import attribution
      >>> def f(x):  # three places, two channels
      ...     h = checkpoint_name(x * 2.0, "features")
      ...     return h.mean(0) @ jnp.array([1.0, -1.0])
      >>> x = jnp.array([[3.0, 0.0], [0.0, 3.0], [3.0, 1.5]])
      >>> attribution.grad_cam(f, "features")(x)
      Array([2., 0., 1.], dtype=float32)
    """
    _checks.check_batch_ndim(batch_ndim)

    def explain(call: Call) -> tuple[Array, Any]:
        traced, sites = _intermediate.find(call, layer, "layer", argnums, None)
        site, *others = sites
        if others:
            names = ", ".join(repr(s.name) for s in sites)
            raise ValueError(f"layer: got {layer!r}, which names several: {names}")
        values, gradients = _intermediate.own(traced, sites, target)
        out, aux = call.output(call.xs)
        loops = len(site.lengths)
        shape = site.shape[loops:]
        leading = loops + _checks.batch_axes(batch_ndim, shape, out)
        if not -len(shape) <= channel_axis < len(shape):
            raise ValueError(
                f"channel_axis: got {channel_axis}, but {site.name!r} has shape {shape}"
            )
        channel = loops + channel_axis % len(shape)
        if channel < leading:
            raise ValueError(
                f"channel_axis: got {channel_axis}, but the first {leading - loops} "
                f"axes of {site.name!r} of shape {shape} count examples"
            )
        value, slope = values[site.name], gradients[site.name]
        wide = accumulator(value)
        places = tuple(i for i in range(leading, value.ndim) if i != channel)
        weights = slope.astype(wide).mean(places, keepdims=True)
        cam = jnp.maximum((weights * value).sum(channel), 0)
        if size is not None:
            cam = _resized(cam, leading, size)
        return cam.astype(value.dtype), aux

    return _call.wrapped("grad_cam", f, argnums, target, has_aux, explain)


def _resized(cam: Array, leading: int, size: Sequence[int]) -> Array:
    """The map with other places."""
    if len(size) != cam.ndim - leading:
        raise ValueError(
            f"size: got {tuple(size)}, expected {cam.ndim - leading} sizes for a map "
            f"of shape {cam.shape[leading:]}"
        )
    shape = (*cam.shape[:leading], *size)
    return jax.image.resize(cam, shape, "linear")
