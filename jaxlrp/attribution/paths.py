"""Gradients along the way from a baseline to the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums
from jaxlrp.attribution import _call, _checks
from jaxlrp.attribution._call import Call
from jaxlrp.attribution._chunks import sum_over

__all__ = ["expected_gradients", "integrated_gradients"]

P = ParamSpec("P")

_QUADRATURES = ("gauss-legendre", "midpoint", "trapezoid", "left", "right")


def integrated_gradients(
    f: Callable[P, Any],
    *,
    baseline: Any = 0.0,
    steps: int = 50,
    quadrature: str = "gauss-legendre",
    chunk: int = 8,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """The gradient, averaged on the straight line from a baseline to the input.

    With the baseline `b` and the score `S` as in `gradient`,

        A = (x - b) * integral_0^1 S'(b + t (x - b)) dt
          = (x - b) * sum_k w_k S'(b + t_k (x - b)),

    and `sum(A) = S(x) - S(b)` up to the quadrature's error. The target is that of `x`
    throughout.

    Args:
      f: as for `gradient`.
      baseline: a number, an array that broadcasts to the attributed one, or for a
        pytree argument a pytree of such with its structure (for several `argnums` a
        tuple). It may be traced.
      steps: how many gradients are taken.
      quadrature: the nodes `t_k` and weights `w_k`: `"gauss-legendre"`, `"midpoint"`,
        `"trapezoid"` (both ends are nodes), `"left"` or `"right"`.
      chunk: how many gradients are taken at once. It bounds the memory; the result does
        not depend on it.
      argnums: as for `gradient`; several arguments go along their lines together.
      target: as for `gradient`; a callable is asked once, at `x`.
      has_aux: as for `gradient`; the auxiliary data is that at `x`.

    Returns:
      A function of `f`'s arguments, as for `gradient`.

    Raises:
      ValueError: for an unknown quadrature, fewer steps than it needs, or a baseline of
        the wrong structure or shape.

    Source: Sundararajan, Taly, Yan 2017, "Axiomatic attribution for deep networks".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> f = lambda x: x[0] ** 2 * x[1]
      >>> a = attribution.integrated_gradients(f)(jnp.array([3.0, 2.0]))
      >>> [round(float(v), 3) for v in a]  # add up to f(x) - f(0) = 18
      [12.0, 6.0]
    """
    nodes, weights = _nodes(quadrature, steps)
    _checks.natural("chunk", chunk)

    def explain(call: Call) -> tuple[list[Array], Any]:
        out, aux = call.output(call.xs)
        seeds = _call.seed(target, out)
        starts = _checks.baselines("baseline", baseline, call)
        steps = [x - b for x, b in zip(call.xs, starts, strict=True)]

        def weighted(node: tuple[Array, Array]) -> list[Array]:
            t, w = node
            on_line = [
                b + t.astype(b.dtype) * d for b, d in zip(starts, steps, strict=True)
            ]
            return [w * g for g in _call.gradient_at(call, seeds, on_line)]

        wide = jnp.promote_types(jnp.result_type(*call.xs), jnp.float32)
        pairs = jnp.asarray(nodes, wide), jnp.asarray(weights, wide)
        means = sum_over(weighted, pairs, chunk)
        return [d * m for d, m in zip(steps, means, strict=True)], aux

    return _call.method("integrated_gradients", f, argnums, target, has_aux, explain)


def _nodes(quadrature: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [0, 1], and weights that add up to one."""
    if quadrature not in _QUADRATURES:
        raise ValueError(
            f"quadrature: got {quadrature!r}, expected one of {', '.join(_QUADRATURES)}"
        )
    _checks.natural("steps", steps, least=2 if quadrature == "trapezoid" else 1)
    if quadrature == "gauss-legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return (nodes + 1) / 2, weights / 2
    if quadrature == "trapezoid":
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[quadrature]
    return (np.arange(steps) + shift) / steps, np.full(steps, 1 / steps)


def expected_gradients(
    f: Callable[P, Any],
    key: Array,
    background: Any,
    *,
    samples: int = 64,
    sigma: Any = 0.0,
    batch_ndim: int | None = None,
    chunk: int = 8,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """Integrated gradients, averaged over baselines from a dataset (gradient SHAP).

    With `b_k` drawn from the background and `t_k` uniformly from [0, 1], for each
    example on its own, and the score `S` as in `gradient`,

        A = mean_k (x - b_k) * S'(b_k + t_k (x - b_k)).

    In expectation `sum(A) = S(x) - mean_b S(b)`. With `sigma`, `x + n_k` with
    `n_k ~ N(0, sigma^2)` replaces `x`, which is what SHAP's and captum's GradientSHAP
    do.

    Args:
      f: as for `gradient`.
      key: a key of `jax.random`; it may be traced. Under `jax.vmap` over examples give
        each its own key, or all get the same draws.
      background: examples, along the leading axis: an array of shape
        `(count, *shape of one example)`, or a pytree of such with the structure of the
        attributed argument.
      samples: the number of draws.
      sigma: the standard deviation of the noise; it may be traced.
      batch_ndim: how many leading axes of the attributed arrays count examples. By
        default those that they share with all but the output's last axis.
      chunk: how many draws are evaluated at once. It bounds the memory; the result does
        not depend on it.
      argnums: as for `gradient`.
      target: as for `gradient`; a callable is asked once, at `x`.
      has_aux: as for `gradient`; the auxiliary data is that at `x`.

    Returns:
      A function of `f`'s arguments, as for `gradient`.

    Raises:
      ValueError: for a background of the wrong structure or shape.

    Source: Erion et al. 2021, "Improving performance of deep learning models with
    axiomatic attribution priors and expected gradients"; Lundberg, Lee 2017, "A unified
    approach to interpreting model predictions".

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> f = lambda x: 2.0 * x[0] - x[1]
      >>> key, background = jax.random.key(0), jnp.ones((1, 2))
      >>> attribution.expected_gradients(f, key, background)(jnp.array([3.0, 3.0]))
      Array([ 4., -2.], dtype=float32)
    """
    _checks.check_key(key)
    _checks.natural("samples", samples)
    _checks.natural("chunk", chunk)
    _checks.check_batch_ndim(batch_ndim)

    def explain(call: Call) -> tuple[list[Array], Any]:
        out, aux = call.output(call.xs)
        seeds = _call.seed(target, out)
        batches = [_checks.batch_axes(batch_ndim, x.shape, out) for x in call.xs]
        batch = min(
            (x.shape[:n] for x, n in zip(call.xs, batches, strict=True)), key=len
        )
        if any(x.shape[: len(batch)] != batch for x in call.xs):
            shapes = ", ".join(str(x.shape) for x in call.xs)
            raise ValueError(
                f"batch_ndim: {batch_ndim}, but the attributed arrays of shapes "
                f"{shapes} do not agree in their first {len(batch)} axes"
            )
        data = _background(background, call, len(batch))

        def draw(key: Array) -> list[Array]:
            which, where, *noises = jax.random.split(key, 2 + len(call.xs))
            index = jax.random.randint(which, batch, 0, data[0].shape[0])
            t = jax.random.uniform(where, batch)
            ends, starts = [], []
            for x, examples, noise in zip(call.xs, data, noises, strict=True):
                noise = sigma * jax.random.normal(noise, x.shape, x.dtype)
                ends.append(x + noise.astype(x.dtype))
                starts.append(examples[index])
            ts = [
                t.reshape(*batch, *(1,) * (x.ndim - len(batch))).astype(x.dtype)
                for x in call.xs
            ]
            ways = [e - b for e, b in zip(ends, starts, strict=True)]
            on_line = [b + t * d for b, t, d in zip(starts, ts, ways, strict=True)]
            gradients = _call.gradient_at(call, seeds, on_line)
            return [d * g for d, g in zip(ways, gradients, strict=True)]

        keys = jax.random.split(key, samples)
        return [s / samples for s in sum_over(draw, keys, chunk)], aux

    return _call.method("expected_gradients", f, argnums, target, has_aux, explain)


def _background(
    given: Any, call: Call, batch_ndim: int, name: str = "background"
) -> list[Array]:
    """The background's leaves in the order of the attributed ones, checked."""
    expected = jax.tree.structure(call.restore(call.xs))
    if jax.tree.structure(given) != expected:
        raise ValueError(
            f"{name}: got the structure {jax.tree.structure(given)}, expected that "
            f"of the attributed argument, {expected}"
        )
    found: list[Any] = [None] * len(call.xs)
    counts = set()
    for i, leaf in zip(call.order, jax.tree.leaves(given), strict=True):
        x = call.xs[i]
        example = x.shape[batch_ndim:]
        if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[1:] != example or not len(leaf):
            raise ValueError(
                f"{name}: got shape {jnp.shape(leaf)} for {call.names[i]} of shape "
                f"{x.shape}, expected (count, "
                f"{', '.join(map(str, example))}), with count >= 1, as its first "
                f"{batch_ndim} axes count examples"
            )
        counts.add(jnp.shape(leaf)[0])
        found[i] = jnp.asarray(leaf, x.dtype)
    if len(counts) != 1:
        raise ValueError(
            f"{name}: its arrays have {sorted(counts)} examples, expected the same "
            f"number in each"
        )
    return found
