"""Robustness: how far an explanation moves when the input hardly does.

The neighbours of an input are data, made by `neighbours` or `translations`, and the
measures are plain functions of them. All are of one example; `jax.vmap` makes them of
many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._arguments import flag
from jaxlrp.attribution import _checks as checks
from jaxlrp.evaluation import _checks, units
from jaxlrp.evaluation._chunks import map_over
from jaxlrp.evaluation.scores import Score

__all__ = [
    "Explain",
    "continuity",
    "infidelity",
    "local_lipschitz",
    "max_sensitivity",
    "neighbours",
    "removals",
    "translations",
]

Explain = Callable[[Array], Array]
"""From one example to its relevance."""

KINDS = ("uniform", "normal")


def neighbours(
    key: Array, x: Any, samples: int, radius: Any = 0.02, kind: str = "uniform"
) -> Array:
    """Inputs near an input.

        x_k = x + u_k,    u_k ~ U(-radius, radius)  or  N(0, radius^2)

    Args:
      key: a key of `jax.random`.
      x: one example, floating-point.
      samples: how many.
      radius: of the cube, or the standard deviation; it may be traced.
      kind: `"uniform"` or `"normal"`.

    Returns:
      An array of shape `(samples, *x.shape)`.

    Raises:
      TypeError: if `key` is no PRNG key, `x` is no array of real numbers, or `samples`
        is no int.
      ValueError: if `samples` is below 1, or `kind` is none of its names.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> near = evaluation.neighbours(jax.random.key(0), jnp.zeros(3), 5)
      >>> near.shape, bool(jnp.abs(near).max() < 0.02)
      ((5, 3), True)
    """
    checks.check_key(key)
    _checks.one_of("kind", kind, KINDS)
    value = _floating(x)
    shape = (checks.natural("samples", samples), *value.shape)
    if kind == "normal":
        drawn = jax.random.normal(key, shape, value.dtype)
    else:
        drawn = jax.random.uniform(key, shape, value.dtype, -1.0, 1.0)
    return (value + radius * drawn).astype(value.dtype)


def translations(
    x: Any, shifts: Sequence[int], axis: int = -2, fill: Any = 0.0
) -> Array:
    """An input, moved along an axis.

        x_k at i = x at i - shift_k,    or `fill` where that lies outside

    Args:
      x: one example.
      shifts: by how many places, each way.
      axis: along which axis: the width, with channels last.
      fill: what comes in at the border.

    Returns:
      An array of shape `(number of shifts, *x.shape)`.

    Raises:
      TypeError: if `x` is no array of real numbers, or `shifts` is no sequence of ints.
      ValueError: if `axis` is no axis of `x`.

    Source: Montavon et al. 2018, "Methods for interpreting and understanding deep
    neural networks".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> evaluation.translations(jnp.array([1.0, 2.0]), [1, -1], axis=0).tolist()
      [[0.0, 1.0], [2.0, 0.0]]
    """
    value = _checks.array("x", x)
    steps = list(shifts)
    if not steps or not all(isinstance(s, int) for s in steps):
        raise TypeError(f"shifts: got {shifts!r}, expected a sequence of ints")
    if not isinstance(axis, int) or not -value.ndim <= axis < value.ndim:
        raise ValueError(
            f"axis: got {axis!r}, expected an axis of an array of shape {value.shape}"
        )
    size = value.shape[axis]
    at = jnp.arange(size).reshape([-1] + [1] * (value.ndim - 1 - axis % value.ndim))

    def moved(shift: int) -> Array:
        kept = (at - shift >= 0) & (at - shift < size)
        return jnp.where(kept, jnp.roll(value, shift, axis), fill).astype(value.dtype)

    return jnp.stack([moved(shift) for shift in steps])


def removals(x: Any, window: Sequence[int], baseline: Any = 0.0) -> Array:
    """What is removed when each block of an input is replaced by a baseline.

        I_k = x - b in block k,    0 elsewhere

    Args:
      x: one example, floating-point.
      window: the block's size, as for `pool`.
      baseline: a number or an array that broadcasts to `x`.

    Returns:
      An array of shape `(number of blocks, *x.shape)`: perturbations for `infidelity`.

    Raises:
      TypeError: if `x` is no array of real numbers, or `window` is no int.
      ValueError: if `window` does not divide the axes.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> evaluation.removals(jnp.array([1.0, 2.0]), (1,)).tolist()
      [[1.0, 0.0], [0.0, 2.0]]
    """
    value = _floating(x)
    shape = units.pool(jnp.zeros(value.shape), window).shape
    number = jnp.arange(math.prod(shape)).reshape(shape)
    lost = jnp.broadcast_to(value - jnp.asarray(baseline, value.dtype), value.shape)
    block = units.spread(number, value.shape)
    return jax.vmap(lambda k: jnp.where(block == k, lost, 0))(number.reshape(-1))


def max_sensitivity(
    explain: Explain, x: Any, near: Any, *, relative: bool = True, chunk: int = 8
) -> Array:
    """How far the explanation moves at most, among neighbours: low is good.

        max_k |R(x_k) - R(x)|_2 / |R(x)|_2

    Args:
      explain: from one example to its relevance.
      x: the example.
      near: its neighbours, `(number, *x.shape)`, in the paper uniform in a cube.
      relative: whether to divide by the norm of the explanation, as captum and Quantus
        do; the paper does not.
      chunk: how many neighbours are explained at once.

    Returns:
      A number.

    Raises:
      TypeError: if `explain` is no function, `x` or `near` is no array of real numbers,
        or `chunk` is no int.
      ValueError: if `near` has another shape, or `chunk` is below 1.

    Source: Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> x = jnp.array([3.0, 4.0])
      >>> most = evaluation.max_sensitivity(lambda x: 2 * x, x, (x + 1)[None])
      >>> round(float(most), 4)
      0.2828
    """
    flag("relative", relative)
    base, points = _around(explain, x, near, chunk)

    def moved(point: Array) -> Array:
        return _norm(_explained(explain, point) - base)

    most = map_over(moved, points, chunk).max()
    return most / _norm(base) if relative else most


def local_lipschitz(explain: Explain, x: Any, near: Any, *, chunk: int = 8) -> Array:
    """The largest slope of the explanation towards a neighbour: low is good.

        max_k |R(x_k) - R(x)|_2 / |x_k - x|_2

    A neighbour that equals `x` counts as zero.

    Args:
      explain: as for `max_sensitivity`.
      x: as for `max_sensitivity`.
      near: as for `max_sensitivity`.
      chunk: as for `max_sensitivity`.

    Returns:
      A number.

    Raises:
      TypeError: if `explain` is no function, `x` or `near` is no array of real numbers,
        or `chunk` is no int.
      ValueError: if `near` has another shape, or `chunk` is below 1.

    Source: Alvarez-Melis, Jaakkola 2018, "On the robustness of interpretability
    methods".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> x = jnp.array([3.0, 4.0])
      >>> float(evaluation.local_lipschitz(lambda x: 2 * x, x, (x + 1)[None]))
      2.0
    """
    return _slope(explain, x, near, _norm, chunk)


def continuity(explain: Explain, x: Any, near: Any, *, chunk: int = 8) -> Array:
    """The largest slope of the explanation, with its change added up: low is good.

        max_k |R(x_k) - R(x)|_1 / |x_k - x|_2

    A neighbour that equals `x` counts as zero.

    Args:
      explain: as for `max_sensitivity`.
      x: as for `max_sensitivity`.
      near: as for `max_sensitivity`; in Quantus, `translations`.
      chunk: as for `max_sensitivity`.

    Returns:
      A number.

    Raises:
      TypeError: if `explain` is no function, `x` or `near` is no array of real numbers,
        or `chunk` is no int.
      ValueError: if `near` has another shape, or `chunk` is below 1.

    Source: Montavon et al. 2018, "Methods for interpreting and understanding deep
    neural networks".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> x = jnp.array([3.0, 4.0])
      >>> moved = x + jnp.array([[3.0, 4.0]])
      >>> round(float(evaluation.continuity(lambda x: 2 * x, x, moved)), 4)
      2.8
    """
    return _slope(explain, x, near, lambda v: jnp.abs(v).sum(), chunk)


def infidelity(
    score: Score,
    x: Any,
    attribution: Any,
    perturbations: Any,
    *,
    scaled: bool = False,
    chunk: int = 8,
) -> Array:
    """How badly an attribution predicts what a perturbation does: low is good.

        mean_k (I_k . A - (s(x) - s(x - I_k)))^2

    The attribution is one *for each unit of the input*, as a gradient is: a change `I`
    is worth `I . A`. For a relevance `R = x c` this is the multiplier `c = R / x`;
    where a whole feature is removed, `I = x`, the two agree.

    Args:
      score: from an array like `x` to a number, as `logit(f, target)`.
      x: one example, floating-point.
      attribution: of `x`'s shape.
      perturbations: `I`, `(number, *x.shape)`: noise, as
        `neighbours(key, zeros_like(x), ...)`, or `removals`.
      scaled: whether the attribution is multiplied with the number that makes the
        result smallest: the result does not depend on its scale then.
      chunk: how many inputs are evaluated at once.

    Returns:
      A number.

    Raises:
      TypeError: if `score` is no function, `x`, `attribution` or `perturbations` is no
        array of real numbers, or `chunk` is no int.
      ValueError: if `attribution` or `perturbations` has another shape, or `chunk` is
        below 1.

    Source: Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> x = jnp.array([3.0, 4.0])
      >>> weights = jnp.array([1.0, -1.0])
      >>> score = lambda x: x @ weights
      >>> float(evaluation.infidelity(score, x, weights, jnp.eye(2)))
      0.0
    """
    _checks.function("score", score)
    checks.natural("chunk", chunk)
    flag("scaled", scaled)
    value = _floating(x)
    given = _checks.real("attribution", attribution)
    if given.shape != value.shape:
        raise ValueError(
            f"attribution: got shape {given.shape}, expected that of x, {value.shape}"
        )
    changes = _checks.stack_of("perturbations", perturbations, value.shape, "x")
    whole = jnp.asarray(score(value))

    def one(change: Array) -> tuple[Array, Array]:
        lost = whole - score((value - change).astype(value.dtype))
        return jnp.sum(change * given), lost

    told, lost = map_over(one, changes, chunk)
    if scaled:
        square = jnp.square(told).sum()
        best = (told * lost).sum() / jnp.where(square > 0, square, 1)
        told = best * told
    return jnp.square(told - lost).mean()


def _slope(
    explain: Explain,
    x: Any,
    near: Any,
    size: Callable[[Array], Array],
    chunk: int,
) -> Array:
    """The largest change of the explanation over that of the input."""
    base, points = _around(explain, x, near, chunk)
    value = jnp.asarray(x)

    def slope(point: Array) -> Array:
        distance = _norm(_checks.real("near", point) - value)
        change = size(_explained(explain, point) - base)
        return jnp.where(distance > 0, change / jnp.where(distance > 0, distance, 1), 0)

    return map_over(slope, points, chunk).max()


def _around(explain: Any, x: Any, near: Any, chunk: int) -> tuple[Array, Array]:
    """The explanation of `x`, and its neighbours."""
    _checks.function("explain", explain)
    checks.natural("chunk", chunk)
    value = _floating(x)
    points = _checks.stack_of("near", near, value.shape, "x")
    return _explained(explain, value), points


def _explained(explain: Explain, x: Array) -> Array:
    return _checks.real("explain: its result", explain(x))


def _floating(x: Any) -> Array:
    value = _checks.array("x", x)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"x: got dtype {value.dtype}, expected a floating-point one")
    return value


def _norm(value: Array) -> Array:
    return jnp.sqrt(jnp.square(value).sum())
