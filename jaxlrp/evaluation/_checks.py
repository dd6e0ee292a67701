"""Arguments that several measures share: how they are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _compat

NUMBERS = int | float | np.generic | np.ndarray | Array


def function(name: str, given: Any) -> Callable[..., Any]:
    """A callable."""
    if not callable(given):
        raise TypeError(f"{name}: got {given!r}, expected a function")
    return given


def one_of(name: str, given: Any, options: Iterable[str]) -> None:
    """One of some names."""
    options = tuple(options)
    if not isinstance(given, str) or given not in options:
        raise ValueError(f"{name}: got {given!r}, expected one of {', '.join(options)}")


def array(name: str, given: Any) -> Array:
    """Numbers, as an array."""
    if isinstance(given, bool) or not isinstance(given, NUMBERS):
        raise TypeError(f"{name}: got {given!r}, expected an array")
    return jnp.asarray(given)


def real(name: str, given: Any) -> Array:
    """Real numbers; integers and booleans as floats, half precision as float32."""
    value = array(name, given)
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise TypeError(f"{name}: got dtype {value.dtype}, expected real numbers")
    return value.astype(jnp.promote_types(value.dtype, jnp.float32))


def mask(name: str, given: Any, shape: tuple[int, ...], of: str) -> Array:
    """Booleans, one for each value of the array called `of`."""
    value = array(name, given)
    if value.dtype != jnp.bool_:
        raise TypeError(f"{name}: got dtype {value.dtype}, expected bool")
    if value.shape != shape:
        raise ValueError(
            f"{name}: got shape {value.shape}, expected that of {of}, {shape}"
        )
    return value


def stack_of(name: str, given: Any, shape: tuple[int, ...], of: str) -> Array:
    """At least one array of a shape, along a leading axis."""
    value = array(name, given)
    if value.ndim == 0 or value.shape[1:] != shape or not value.shape[0]:
        raise ValueError(
            f"{name}: got shape {value.shape}, expected (number, *shape of {of}), "
            f"{('number', *shape)}"
        )
    return value


def class_(name: str, given: Any, scalar: bool = True) -> None:
    """A class, an integer that may be traced, or an array of them."""
    is_integer = isinstance(given, int | np.integer) and not isinstance(given, bool)
    if not is_integer:
        is_array = isinstance(given, np.ndarray | Array)
        is_integer = is_array and jnp.issubdtype(given.dtype, jnp.integer)
    if not is_integer:
        raise TypeError(f"{name}: got {given!r}, expected a class, an int")
    if scalar and np.ndim(given):
        raise ValueError(
            f"{name}: got shape {np.shape(given)}, expected one class: measures are of "
            f"one example, and jax.vmap makes them of many"
        )


def index(name: str, given: Any, classes: int) -> Array:
    """Classes of so many as indices from 0, checked where they are known."""
    if _compat.is_known(given):
        known = np.asarray(given)
        if known.size and (known.min() < -classes or known.max() >= classes):
            raise ValueError(
                f"{name}: got {given!r}, expected classes in [{-classes}, {classes})"
            )
    place = jnp.asarray(given).astype(jnp.int32)
    return jnp.where(place < 0, place + classes, place)


def pair(a: Any, b: Any) -> tuple[Array, Array]:
    """Two arrays of real numbers of one shape, flat axes untouched."""
    first, second = real("a", a), real("b", b)
    if first.shape != second.shape:
        raise ValueError(
            f"b: got shape {second.shape}, expected that of a, {first.shape}"
        )
    return first, second
