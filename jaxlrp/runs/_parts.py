"""What is often done with relevances before they are written, inside `explain`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._lrp import lrp
from jaxlrp._trace import wraps
from jaxlrp.composites import Composite


def summed(relevance: Any, axis: int | Sequence[int] = -1) -> Any:
    """Relevances added up over axes, such as the channels of an image.

    Args:
      relevance: a pytree of arrays.
      axis: one or several.

    Returns:
      The same pytree, of arrays without these axes.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import runs
      >>> runs.summed(jnp.ones((4, 8, 8, 3))).shape
      (4, 8, 8)
    """
    axes = axis if isinstance(axis, int) else tuple(axis)
    return jax.tree.map(lambda r: r.sum(axes), relevance)


def scaled_half(relevance: Array) -> dict[str, Array]:
    """Relevances in half the space: float16 with one scale for each row.

    Float16 ends at 65504 and has few digits below 6e-5. A row is divided by a power of
    two so that its largest relevance lies between 2^14 and 2^15: the division is exact,
    and what is at least 2e-9 of the largest is rounded to 11 bits.

    Args:
      relevance: Float[Array, "rows ..."].

    Returns:
      `{"values": Float16[Array, "rows ..."], "scale": Float32[Array, "rows"]}`, of
      which `restored` makes relevances again.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import runs
      >>> half = runs.scaled_half(jnp.array([[2.0**30, -1.5], [3 * 2.0**-30, 0.0]]))
      >>> runs.restored(**half).tolist() == [[2.0**30, -1.5], [3 * 2.0**-30, 0.0]]
      True
    """
    flat = jnp.abs(relevance.reshape(len(relevance), -1)).astype(jnp.float32)
    largest = flat.max(1)
    usual = jnp.isfinite(largest) & (largest > 0)
    _, exponent = jnp.frexp(jnp.where(usual, largest, 1.0))
    # The scale and its inverse have to be normal numbers.
    exponent = jnp.clip(exponent - 15, -126, 126)
    wide = exponent.reshape(-1, *[1] * (relevance.ndim - 1))
    values = jnp.ldexp(relevance.astype(jnp.float32), -wide).astype(jnp.float16)
    return {"values": values, "scale": jnp.ldexp(jnp.float32(1), exponent)}


def restored(values: Any, scale: Any) -> np.ndarray:
    """What `scaled_half` was given, in float32 and rounded to 11 bits.

    Args:
      values: float16 (rows, ...).
      scale: float32 (rows,).

    Returns:
      float32 (rows, ...).

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import runs
      >>> runs.restored(np.float16([[1.5, -2]]), np.float32([8])).tolist()
      [[12.0, -16.0]]
    """
    values, scale = np.asarray(values, np.float32), np.asarray(scale)
    return values * scale.reshape(-1, *[1] * (values.ndim - 1))


def targets(
    f: Callable[..., Any],
    composite: Composite | None = None,
    *,
    classes: Sequence[int],
    **options: Any,
) -> Callable[..., Any]:
    """The relevances for several classes of each example.

    Args:
      f: as for `jaxlrp.lrp`, with scores (rows, classes).
      composite: as for `jaxlrp.lrp`.
      classes: the classes that are explained, the same ones for each example.
      **options: other arguments of `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments that returns what `lrp` does, with an axis for the
      classes behind that of the rows.

    Raises:
      ValueError: if there is no class.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import runs
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> explain = runs.targets(lambda w, x: x @ w, classes=(0, 1))
      >>> explain(w, jnp.ones((3, 2))).shape
      (3, 2, 2)
    """
    chosen = tuple(classes)
    if not chosen:
        raise ValueError(f"classes: got {classes!r}, expected at least one")
    parts = [lrp(f, composite, target=c, **options) for c in chosen]

    @wraps(f, "runs.targets", "the relevances of each class, (rows, classes, ...).")
    def explained(*args: Any, **kwargs: Any) -> Any:
        each = [part(*args, **kwargs) for part in parts]
        return jax.tree.map(lambda *r: jnp.stack(r, 1), *each)

    return explained
