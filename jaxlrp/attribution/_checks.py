"""Arguments that several methods share: how they are checked and completed."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._rewriting import difference
from jaxlrp.attribution._call import Call, floats


def batch_axes(given: int | None, shape: tuple[int, ...], out: Any) -> int:
    """How many leading axes of an array of `shape` count examples.

    By default those that it shares with all but the output's last axis.
    """
    if given is not None:
        if not 0 <= given <= len(shape):
            raise ValueError(
                f"batch_ndim: got {given!r}, expected an int in [0, {len(shape)}] for "
                f"an array of shape {shape}"
            )
        return given
    count = 0
    for size, other in zip(shape, floats(out)[0].shape[:-1], strict=False):
        if size != other:
            break
        count += 1
    return count


def check_batch_ndim(batch_ndim: Any) -> None:
    """An int or None."""
    if batch_ndim is not None:
        natural("batch_ndim", batch_ndim, least=0)


def natural(name: str, value: Any, least: int = 1) -> int:
    """An int that is at least `least`; NumPy's are ints, too."""
    message = f"{name}: got {value!r}, expected an int >= {least}"
    if isinstance(value, bool):
        raise TypeError(message)
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(message) from None
    if number < least:
        raise ValueError(message)
    return number


def check_key(key: Any) -> None:
    """A key of `jax.random`, of the new or of the old kind."""
    is_array = hasattr(key, "dtype") and hasattr(key, "shape")
    if is_array and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        single = key.shape == ()
    else:
        single = is_array and key.dtype == jnp.uint32 and len(key.shape) == 1
    if not single:
        what = f"shape {key.shape} and dtype {key.dtype}" if is_array else repr(key)
        raise TypeError(f"key: got {what}, expected one PRNG key, as jax.random.key(0)")


def baselines(name: str, given: Any, call: Call) -> list[Array]:
    """A baseline as arrays like the attributed leaves."""
    return difference.baselines(name, given, call.xs, call.names, call.restore)
