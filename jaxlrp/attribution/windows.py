"""What the score loses when a part of the input is covered."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums
from jaxlrp.attribution import _call, _checks
from jaxlrp.attribution._call import Call
from jaxlrp.attribution._chunks import accumulator, sum_over

__all__ = ["occlusion"]

P = ParamSpec("P")


def occlusion(
    f: Callable[P, Any],
    window: Sequence[int],
    *,
    strides: int | Sequence[int] | None = None,
    baseline: Any = 0.0,
    chunk: int = 8,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """What the score loses when a window of the input is replaced by a baseline.

    With `x_w` the input whose elements in the window `w` are the baseline's, and `S_e`
    the score of example `e`,

        A_i = mean over the windows w that cover i of S_e(x) - S_e(x_w),

    for each element `i` of `e`. Windows lie at multiples of the strides and are cut off
    at the end, so that every element is covered; where they overlap they are averaged,
    as in captum. The target is that of `x`, whatever is covered.

    Args:
      f: as for `gradient`; it need not be differentiable.
      window: the window's size along the *last* axes of the attributed array. The axes
        before those count examples, which the output must have as well: all examples
        are covered in the same place at once. `(8, 8, 3)` for images of shape
        `(height, width, 3)`, alone or in a batch.
      strides: the distance between windows, for each axis of the window or for all; at
        most the window's size, which is the default.
      baseline: as for `integrated_gradients`.
      chunk: how many windows are evaluated at once. It bounds the memory; the result
        does not depend on it.
      argnums: as for `gradient`; several arrays are covered one after the other.
      target: as for `gradient`; a callable is asked once, at `x`.
      has_aux: as for `gradient`; the auxiliary data is that at `x`.

    Returns:
      A function of `f`'s arguments, as for `gradient`.

    Raises:
      ValueError: for a window or strides that do not fit the attributed array, or an
        output without the axes that count examples.

    Source: Zeiler, Fergus 2014, "Visualizing and understanding convolutional networks".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> f = lambda x: x[0] * x[1] + x[2]
      >>> attribution.occlusion(f, (1,))(jnp.array([2.0, 3.0, 4.0]))
      Array([6., 6., 4.], dtype=float32)
    """
    sizes = _sizes("window", window)
    steps = _strides(strides, sizes)
    _checks.natural("chunk", chunk)

    def explain(call: Call) -> tuple[list[Array], Any]:
        out, aux = call.output(call.xs)
        seeds = _call.seed(target, out)
        covers = _checks.baselines("baseline", baseline, call)
        losses = []
        for i, (x, cover) in enumerate(zip(call.xs, covers, strict=True)):
            examples = _examples(x, call.names[i], sizes, out)

            def score(value: Array, i: int = i, n: int = len(examples)) -> Array:
                xs = [value if j == i else x for j, x in enumerate(call.xs)]
                return _score(call, seeds, xs, n)

            losses.append(_loss(score, x, cover, sizes, steps, chunk))
        return losses, aux

    return _call.method("occlusion", f, argnums, target, has_aux, explain)


def _loss(
    score: Callable[[Array], Array],
    x: Array,
    cover: Array,
    window: tuple[int, ...],
    strides: tuple[int, ...],
    chunk: int,
) -> Array:
    """The mean loss over the windows that cover each element of one array."""
    whole = score(x)
    shape = x.shape[x.ndim - len(window) :]
    counts = [
        1 + max(0, math.ceil((size - w) / s))
        for size, w, s in zip(shape, window, strides, strict=True)
    ]

    def one(number: Array) -> list[Array]:
        covered = _covered(number, counts, shape, window, strides)
        loss = whole - score(jnp.where(covered, cover, x))
        loss = loss.reshape(*loss.shape, *(1,) * len(shape))
        wide = accumulator(loss)
        return [loss.astype(wide) * covered, covered.astype(wide)]

    total, times = sum_over(one, jnp.arange(math.prod(counts)), chunk)
    return total / times


def _covered(
    number: Array,
    counts: Sequence[int],
    shape: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
) -> Array:
    """Where the window of this number lies, as a mask of the shape of an example."""
    mask = jnp.ones(shape, bool)
    for axis in reversed(range(len(shape))):
        number, place = jnp.divmod(number, counts[axis])
        start = place * strides[axis]
        at = jax.lax.broadcasted_iota(start.dtype, shape, axis)
        mask &= (at >= start) & (at < start + window[axis])
    return mask


def _score(call: Call, seeds: list[Array], xs: list[Array], batch_ndim: int) -> Array:
    """The score of each example."""
    values = _call.floats(call.output(xs)[0])
    return sum(
        (
            jnp.sum(y * s, axis=tuple(range(batch_ndim, y.ndim)))
            for y, s in zip(values, seeds, strict=True)
        ),
        start=jnp.zeros(()),
    )


def _examples(
    x: Array, name: str, window: tuple[int, ...], out: Any
) -> tuple[int, ...]:
    """The axes of an attributed array that count examples, checked."""
    if len(window) > x.ndim:
        raise ValueError(
            f"window: got {window}, expected at most {x.ndim} sizes for {name} of "
            f"shape {x.shape}"
        )
    examples = x.shape[: x.ndim - len(window)]
    if any(w > n for w, n in zip(window, x.shape[len(examples) :], strict=True)):
        raise ValueError(
            f"window: got {window}, expected at most {x.shape[len(examples) :]}, the "
            f"size of the last axes of {name} of shape {x.shape}"
        )
    for y in _call.floats(out):
        if y.shape[: len(examples)] != examples:
            raise ValueError(
                f"window: got {window} for {name} of shape {x.shape}, so that its "
                f"first {len(examples)} axes count examples, but an output of f has "
                f"shape {y.shape}: expected one that begins with {examples}"
            )
    return examples


def _sizes(name: str, given: Any) -> tuple[int, ...]:
    if not isinstance(given, tuple | list):
        raise TypeError(f"{name}: got {given!r}, expected a sequence of ints")
    return tuple(_checks.natural(name, size) for size in given)


def _strides(given: Any, window: tuple[int, ...]) -> tuple[int, ...]:
    if given is None:
        return window
    if not isinstance(given, tuple | list):
        given = (given,) * len(window)
    strides = _sizes("strides", given)
    if len(strides) != len(window) or any(
        s > w for s, w in zip(strides, window, strict=True)
    ):
        raise ValueError(
            f"strides: got {given}, expected one for each of the window's sizes "
            f"{window}, and none larger than that"
        )
    return strides
