"""Attributions averaged over noisy copies of the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._arguments import flag
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums
from jaxlrp.attribution import _call, _checks
from jaxlrp.attribution._call import Call, Explainer
from jaxlrp.attribution._chunks import accumulator, sum_over
from jaxlrp.attribution.gradients import gradient

__all__ = ["smoothgrad"]

P = ParamSpec("P")

_STATISTICS = ("mean", "square", "variance")


def smoothgrad(
    f: Callable[P, Any],
    key: Array,
    *,
    samples: int = 32,
    sigma: Any = 0.15,
    relative: bool = True,
    statistic: str = "mean",
    method: Explainer = gradient,
    batch_ndim: int | None = None,
    chunk: int = 8,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """An attribution, averaged over noisy copies of the input.

    With `n_k ~ N(0, s^2)`, independent for each element and sample, and the base
    attribution `B`,

        A = mean_k B(x + n_k)                 statistic "mean": SmoothGrad
        A = mean_k B(x + n_k)^2               "square": SmoothGrad-squared
        A = mean_k (B(x + n_k) - mean B)^2    "variance": VarGrad

    where `s = sigma (max(x) - min(x))` for each example, or `s = sigma`. The target is
    that of `x`, also where the noise would change the highest class.

    Args:
      f: as for `gradient`.
      key: a key of `jax.random`; it may be traced. Examples of one batch get different
        noise. Under `jax.vmap` over examples give each its own key, or all get the
        same noise.
      samples: the number of noisy copies.
      sigma: the noise's standard deviation; it may be traced.
      relative: whether `sigma` is a fraction of the range of each example's values, of
        each attributed array for itself.
      statistic: `"mean"`, `"square"` or `"variance"`.
      method: the base attribution: any `method(f, *, argnums, target)` whose result has
        the arguments' form, as `gradient` or
        `functools.partial(jaxlrp.lrp, composite=...)`.
      batch_ndim: how many leading axes of the attributed arrays count examples. By
        default those that they share with all but the output's last axis.
      chunk: how many copies are evaluated at once. It bounds the memory; the result
        does not depend on it.
      argnums: as for `gradient`.
      target: as for `gradient`; a callable is asked once, at `x`.
      has_aux: as for `gradient`; the auxiliary data is that at `x`.

    Returns:
      A function of `f`'s arguments, as for `gradient`.

    Source: Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise"; Adebayo
    et al. 2018, "Local explanation methods for deep neural networks lack sensitivity to
    parameter values" (VarGrad); Hooker et al. 2019, "A benchmark for interpretability
    methods in deep neural networks" (squared).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> f = lambda x: jnp.sum(jax.nn.relu(x))
      >>> key = jax.random.key(0)
      >>> x = jnp.array([0.0, 1.0])
      >>> smooth = attribution.smoothgrad(f, key, samples=1000, sigma=0.1)(x)
      >>> [round(float(a), 1) for a in smooth]  # the corner at 0 is rounded off
      [0.5, 1.0]
    """
    _checks.check_key(key)
    _checks.natural("samples", samples)
    flag("relative", relative)
    _checks.natural("chunk", chunk)
    _checks.check_batch_ndim(batch_ndim)
    if statistic not in _STATISTICS:
        raise ValueError(
            f"statistic: got {statistic!r}, expected one of {', '.join(_STATISTICS)}"
        )
    if not callable(method):
        raise TypeError(f"method: got {method!r}, expected a function as `gradient` is")

    def explain(call: Call) -> tuple[list[Array], Any]:
        out, aux = call.output(call.xs)
        base = _call.explainer(call, method, _call.fixed(target, out), argnums)
        scales = [
            sigma * _range(x, _checks.batch_axes(batch_ndim, x.shape, out))
            if relative
            else sigma
            for x in call.xs
        ]

        def noisy(key: Array) -> list[Array]:
            keys = jax.random.split(key, len(call.xs))
            return [
                x + (scale * jax.random.normal(k, x.shape, x.dtype)).astype(x.dtype)
                for x, scale, k in zip(call.xs, scales, keys, strict=True)
            ]

        keys = jax.random.split(key, samples)
        if statistic == "variance":
            return _variance(lambda k: base(noisy(k)), base(call.xs), keys, chunk), aux

        def sample(key: Array) -> list[Array]:
            values = base(noisy(key))
            return [_square(v) for v in values] if statistic == "square" else values

        return [t / samples for t in sum_over(sample, keys, chunk)], aux

    return _call.method("smoothgrad", f, argnums, target, has_aux, explain)


def _square(value: Array) -> Array:
    return jnp.square(value.astype(accumulator(value)))


def _variance(
    function: Callable[[Array], list[Array]],
    centre: list[Array],
    keys: Array,
    chunk: int,
) -> list[Array]:
    """The variance, from differences to a value near the mean: little cancels."""

    def moments(key: Array) -> list[Array]:
        wide = [v.astype(accumulator(v)) for v in function(key)]
        shifted = [v - c for v, c in zip(wide, centre, strict=True)]
        return [*shifted, *map(jnp.square, shifted)]

    means = [t / keys.shape[0] for t in sum_over(moments, keys, chunk)]
    first, second = means[: len(centre)], means[len(centre) :]
    return [
        jnp.maximum(s - jnp.square(m), 0) for m, s in zip(first, second, strict=True)
    ]


def _range(x: Array, batch_ndim: int) -> Array:
    """Largest minus smallest value of each example, to be multiplied with `x`."""
    axes = tuple(range(batch_ndim, x.ndim))
    return x.max(axes, keepdims=True) - x.min(axes, keepdims=True)
