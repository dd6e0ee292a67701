"""Parts of an input between which interactions are asked for, and which of them.

Units are elements, cells of a grid (pixels, patches, tokens), or what an array of
labels says. A matrix over units is asked for by rows or pairs, or as a whole.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp import _compat


@dataclasses.dataclass(frozen=True)
class Units:
    """A partition of the attributed leaves.

    Attributes:
      labels: the number of each element's unit, for each leaf; -1 for one in none.
      grid: the axes of an array with one value for each unit.
      cells: how many elements of a single leaf a unit has along each axis, or None.
    """

    labels: tuple[np.ndarray, ...]
    grid: tuple[int, ...]
    cells: tuple[int, ...] | None = None

    @property
    def count(self) -> int:
        return math.prod(self.grid)

    def of(self, number: Any, values: Sequence[Array]) -> list[Array]:
        """The values in one unit, zero elsewhere."""
        return [
            jnp.where(jnp.asarray(labels) == number, v, 0)
            for labels, v in zip(self.labels, values, strict=True)
        ]

    def kept(self, present: Array, xs: Sequence[Array], others: Any) -> list[Array]:
        """`xs` in the units that are present and in none, `others` elsewhere."""
        padded = jnp.concatenate([present, jnp.ones(1, bool)])  # -1 is the last
        return [
            jnp.where(padded[jnp.asarray(labels)], x, other)
            for labels, x, other in zip(self.labels, xs, others, strict=True)
        ]

    def pooled(self, values: Sequence[Array]) -> Array:
        """The sum over each unit, an array of the grid's shape."""
        if self.cells is not None:
            (v,) = values
            if all(n == 1 for n in self.cells):
                return v.reshape(self.grid)
            pairs = zip(self.grid, self.cells, strict=True)
            split = v.reshape([n for pair in pairs for n in pair])
            return split.sum(tuple(range(1, split.ndim, 2)))
        flat = jnp.concatenate([v.reshape(-1) for v in values])
        labels = np.concatenate([one.reshape(-1) for one in self.labels])
        places = jnp.asarray(np.where(labels < 0, self.count, labels))
        total = jax.ops.segment_sum(flat, places, self.count + 1)
        return total[:-1].reshape(self.grid)


def units_of(
    given: Any, xs: Sequence[Array], restore: Callable[[list[Any]], Any]
) -> Units:
    """The units that an argument `units` asks for.

    Args:
      given: None for the elements of a single array, a tuple of ints for the sizes of a
        grid, or labels: an integer array in the structure of the attributed argument.
      xs: the attributed leaves.
      restore: puts them into the form of the attributed argument.
    """
    if given is None or _is_grid(given):
        if len(xs) != 1:
            raise ValueError(
                f"units: got {given!r} for {len(xs)} attributed arrays, expected "
                f"labels, an integer array for each"
            )
        (x,) = xs
        grid = x.shape if given is None else tuple(map(int, given))
        if len(grid) != x.ndim or any(
            n < 1 or size % n for n, size in zip(grid, x.shape, strict=True)
        ):
            raise ValueError(
                f"units: got the grid {grid} for an attributed array of shape "
                f"{x.shape}, expected as many sizes, each of which divides the array's"
            )
        cells = tuple(size // n for n, size in zip(grid, x.shape, strict=True))
        numbers = np.arange(math.prod(grid), dtype=np.int32).reshape(grid)
        for axis, times in enumerate(cells):
            numbers = np.repeat(numbers, times, axis)
        return Units((numbers,), grid, cells)
    return _labelled(given, xs, restore)


def _is_grid(given: Any) -> bool:
    integers = int | np.integer
    is_ints = isinstance(given, tuple | list) and given
    return bool(is_ints) and all(
        isinstance(n, integers) and not isinstance(n, bool) for n in given
    )


def _labelled(
    given: Any, xs: Sequence[Array], restore: Callable[[list[Any]], Any]
) -> Units:
    """Units by an array of labels for each leaf."""
    expected = "a grid, a tuple of ints, or an integer array of labels for each array"
    leaves, structure = jax.tree.flatten(given)
    whole = jax.tree.structure(restore(list(xs)))
    if structure != whole:
        raise ValueError(
            f"units: got the structure {structure}, expected that of the attributed "
            f"argument, {whole}, with {expected}"
        )
    order = jax.tree.leaves(restore(list(range(len(xs)))))
    found: list[Any] = [None] * len(xs)
    for i, leaf in zip(order, leaves, strict=True):
        kind = getattr(leaf, "dtype", None)
        if kind is None or not jnp.issubdtype(kind, jnp.integer):
            raise TypeError(f"units: got {leaf!r}, expected {expected}")
        if not _compat.is_known(leaf):
            raise TypeError(
                "units: got labels that are traced, expected known ones, as their "
                "largest decides how many units there are"
            )
        if jnp.shape(leaf) != xs[i].shape:
            raise ValueError(
                f"units: got labels of shape {jnp.shape(leaf)} for an attributed array "
                f"of shape {xs[i].shape}, expected that shape"
            )
        found[i] = np.asarray(leaf, np.int32)
    highest = max((int(one.max(initial=-1)) for one in found), default=-1)
    if highest < 0 or min(int(one.min(initial=0)) for one in found) < -1:
        raise ValueError(
            "units: got labels without a unit, or below -1, expected numbers from 0 "
            "on, and -1 for what is in no unit"
        )
    return Units(tuple(found), (highest + 1,))


# ---- what is asked for -------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Asked:
    """Which entries of a matrix over units.

    Attributes:
      rows: the numbers of the units whose rows are computed, Int[Array, "rows"].
      finish: from these rows, (rows, *grid), to what was asked for.
    """

    rows: Any
    finish: Callable[[Array], Array]


def asked(rows: Any, pairs: Any, units: Units, dtype: Any, name: str = "rows") -> Asked:
    """What the arguments `rows` and `pairs` ask for; the whole matrix if neither does.

    Raises:
      ValueError: for numbers out of range, for rows and pairs at once, or for a whole
        matrix that does not fit into memory.
    """
    if rows is not None and pairs is not None:
        raise ValueError("pairs: got both pairs and rows, expected one of them")
    if pairs is not None:
        numbers = _numbers("pairs", pairs, units, 2)
        first, second = numbers[..., 0], numbers[..., 1]
        own, which = first, None
        if _compat.is_known(first):
            own, which = np.unique(first, return_inverse=True)
        _check_memory("pairs", units, dtype, own.size)

        def entries(found: Array) -> Array:
            flat = found.reshape(len(found), -1)
            places = jnp.arange(len(flat)) if which is None else which.reshape(-1)
            return flat[places, second.reshape(-1)].reshape(first.shape)

        return Asked(own.reshape(-1), entries)
    if rows is None or (isinstance(rows, str) and rows == "all"):
        _check_memory(name, units, dtype, None)
        return Asked(
            np.arange(units.count, dtype=np.int32),
            lambda found: found.reshape(*units.grid, *units.grid),
        )
    if isinstance(rows, str):
        raise ValueError(f"{name}: got {rows!r}, expected 'all' or numbers of units")
    numbers = _numbers(name, rows, units, 1)
    _check_memory(name, units, dtype, numbers.size)
    return Asked(
        numbers.reshape(-1), lambda found: found.reshape(*numbers.shape, *units.grid)
    )


def _numbers(name: str, given: Any, units: Units, ends: int) -> Any:
    """Numbers of units: (rows,) or a number, for pairs (pairs, 2) or (2,).

    With one axis more they are places on the grid, each as long as the grid has axes.
    """
    axes = len(units.grid)
    last = (2,) if ends == 2 else ()
    expected = (
        f"numbers of units in [0, {units.count}), of shape "
        f"{('count', *last)}, or places on the grid {units.grid}, of shape "
        f"{('count', *last, axes)}".replace("'", "")
    )
    known = not isinstance(given, jax.Array) or _compat.is_known(given)
    try:
        numbers = np.asarray(given) if known else given
    except ValueError:  # rows of different lengths
        raise TypeError(f"{name}: got {given!r}, expected {expected}") from None
    if not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise TypeError(f"{name}: got {given!r}, expected {expected}")
    if numbers.ndim == ends + 1 and numbers.shape[1:] == (*last, axes):
        sizes = np.asarray(units.grid)
        if known and ((numbers < 0) | (numbers >= sizes)).any():
            raise ValueError(f"{name}: got {given!r}, expected {expected}")
        steps = [math.prod(units.grid[i + 1 :]) for i in range(axes)]
        numbers = (numbers * np.asarray(steps)).sum(-1)
    if numbers.shape[numbers.ndim - ends + 1 :] != last or numbers.ndim > ends:
        raise ValueError(f"{name}: got shape {np.shape(given)}, expected {expected}")
    if known and numbers.size:
        if numbers.min() < 0 or numbers.max() >= units.count:
            raise ValueError(f"{name}: got {given!r}, expected {expected}")
    return numbers


def _check_memory(name: str, units: Units, dtype: Any, rows: int | None) -> None:
    """Raises for a matrix, or rows of one, that is larger than the memory."""
    count = units.count if rows is None else rows
    size = count * units.count * jnp.dtype(dtype).itemsize
    limit = memory()
    if limit is None or size <= limit:
        return
    if rows is None:
        raise ValueError(
            f"{name}: got None, all {units.count:,} units, whose matrix takes {size:,} "
            f"bytes of {limit:,}; expected the numbers of some units, or larger ones"
        )
    what = "of them, which" if name != "pairs" else "different first units, whose rows"
    raise ValueError(
        f"{name}: got {rows:,} {what} take {size:,} bytes of {limit:,} with "
        f"{units.count:,} units; expected fewer at a time, or larger units"
    )


def memory() -> int | None:
    """The bytes of the default device, or of this machine; None where unknown."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def mapped(function: Callable[[Any], Array], numbers: Any, chunk: int) -> Array:
    """`function` of each of some numbers, `chunk` of them at once."""
    numbers = jnp.asarray(numbers)
    if len(numbers) <= chunk:
        return jax.vmap(function)(numbers)
    return lax.map(function, numbers, batch_size=chunk)
