"""What pictures are given, checked alike: errors name the argument and what it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxlrp import _compat


def array(
    name: str, given: Any, axes: Sequence[int], form: str, nan: bool = False
) -> np.ndarray:
    """Finite real numbers with so many axes, as float64.

    Args:
      name: of the argument.
      given: what it is.
      axes: the numbers of axes that it may have.
      form: its shape in words.
      nan: whether the caller looks at what is not finite.
    """
    if isinstance(given, jax.Array) and not _compat.is_known(given):
        raise TypeError(
            f"{name}: got an array that is being traced; draw outside jit, what a "
            f"compiled function returned"
        )
    try:
        values = np.asarray(given)
        if values.dtype.kind in "cOSUM":
            raise TypeError
        values = values.astype(np.float64)
    except (TypeError, ValueError):
        what = getattr(given, "dtype", type(given).__name__)
        raise TypeError(f"{name}: got {what}, expected real numbers, {form}") from None
    if values.ndim not in axes or not values.size:
        raise ValueError(f"{name}: got shape {values.shape}, expected {form}")
    if not nan:
        finite(name, values)
    return values


def finite(name: str, values: np.ndarray) -> None:
    """No number is infinite or none."""
    if not np.isfinite(values).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(
            f"{name}: got {values[where]} at {list(where)}, expected finite numbers"
        )


def names(name: str, given: Any, count: int, each: str) -> list[str]:
    """So many names; numbers are written out."""
    several = hasattr(given, "__len__") and getattr(given, "ndim", 1) > 0
    if isinstance(given, str) or not several or len(given) != count:
        raise ValueError(
            f"{name}: got {given!r}, expected {count}, one for each {each}"
        )
    return [str(one) for one in given]


def choice(name: str, given: Any, known: Sequence[Any]) -> Any:
    """One of a few words."""
    if not any(given is k or (isinstance(k, str) and given == k) for k in known):
        words = ", ".join(map(repr, known))
        raise ValueError(f"{name}: got {given!r}, expected one of {words}")
    return given


def count(name: str, given: Any) -> int:
    """A positive number of things."""
    whole = isinstance(given, int | np.integer) and not isinstance(given, bool)
    if not whole or given < 1:
        raise ValueError(f"{name}: got {given!r}, expected a positive int")
    return int(given)


def number(name: str, given: Any) -> float:
    """A finite number, which may be an array without axes."""
    return float(array(name, given, (0,), "one number"))


def scales(maps: Sequence[np.ndarray], scale: Any, percentile: Any) -> list[float]:
    """The relevance of the strongest colour of each map; one where all is zero.

    Args:
      maps: the relevances.
      scale: `"all"`, `"each"` or a number.
      percentile: of the absolute relevances that is drawn in full.
    """
    real = isinstance(percentile, int | float | np.number)
    if not real or isinstance(percentile, bool) or not 0 < percentile <= 100:
        raise ValueError(
            f"percentile: got {percentile!r}, expected a number above 0 and up to 100"
        )
    if isinstance(scale, str) and scale == "each":
        return [_size(np.abs(one), percentile) for one in maps]
    if isinstance(scale, str) and scale == "all":
        sizes = np.concatenate([np.abs(one).ravel() for one in maps])
        return [_size(sizes, percentile)] * len(maps)
    given: Any = scale
    real = isinstance(given, int | float | np.number) and not isinstance(given, bool)
    if not real or not 0 < given < np.inf:
        raise ValueError(
            f"scale: got {scale!r}, expected 'all', 'each' or a positive number"
        )
    return [float(given)] * len(maps)


def _size(sizes: np.ndarray, percentile: float) -> float:
    """The percentile of sizes; the largest where most of them are zero."""
    return float(np.percentile(sizes, percentile)) or float(sizes.max()) or 1.0
