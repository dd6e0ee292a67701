"""Arguments of one kind, checked alike: each error names what was given and expected.

Only numbers of Python and NumPy are looked at. Those of JAX may be traced, and a value
that is known in one call may not be in the next: of them the dtype is checked.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import jax
import numpy as np


def flag(name: str, value: Any) -> bool:
    """`True` or `False`, NumPy's included."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: got {value!r}, expected True or False")
    return bool(value)


def function(name: str, value: Any) -> Any:
    """A callable."""
    if not callable(value):
        raise TypeError(f"{name}: got {value!r}, expected a function")
    return value


def text(name: str, value: Any, what: str = "a str") -> str:
    """A string."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: got {value!r}, expected {what}")
    return value


def axis(name: str, value: Any) -> int:
    """An int, NumPy's included."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: got {value!r}, expected an axis, an int") from None


def number(
    name: str, value: Any, of: str, *, least: float = -math.inf, known: bool = True
) -> None:
    """A real number or an array of them, finite and not below `least` where known.

    Of data, which may hold anything, no value is looked at: `known=False`.
    """
    expected = _in_words(least) if known else "an array of real numbers"
    if not _is_real(value):
        raise TypeError(f"{name}: got {_shown(value)} for {of}, expected {expected}")
    numbers = known_numbers(value) if known else None
    if numbers is None:
        return
    if not (np.isfinite(numbers) & (numbers >= least)).all():
        raise ValueError(f"{name}: got {_shown(value)} for {of}, expected {expected}")


def _shown(value: Any) -> str:
    """A value in a message: of an array that may be large what it is made of."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", ())
    if dtype is not None and math.prod(shape) > 8:
        return f"an array of dtype {dtype} and shape {shape}"
    return f"{value!r} of type {type(value).__name__}".replace("\n", "")


def _in_words(least: float) -> str:
    if least == 0:
        return "zero or a positive number"
    return "a number" if least == -math.inf else f"a number of at least {least:g}"


def _is_real(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, int | float):
        return True
    dtype = getattr(value, "dtype", None)
    try:
        kinds = (np.integer, np.floating)
        return dtype is not None and any(jax.numpy.issubdtype(dtype, k) for k in kinds)
    except TypeError:
        return False


def known_numbers(value: Any) -> np.ndarray | None:
    """Numbers of Python or NumPy in double precision, None for any others."""
    if not isinstance(value, int | float | np.generic | np.ndarray):
        return None
    try:
        return np.asarray(value, np.float64)
    except OverflowError:  # an int beyond all floats
        return np.asarray(math.inf)
