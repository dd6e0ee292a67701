"""Targets: which output is explained, and the relevance that it starts with.

The seed is the output's own value at the target, so that relevances add up to it.
As a multiplier that is simply one at the target and zero elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _compat, targets

TargetName = Literal["max", "all"]

Target = TargetName | Any
"""`"max"`, `"all"`, an int, an integer array, a tuple or list of such, a callable
`out -> R_out`, one of `jaxlrp.targets`, or a pytree of these with the structure of the
output, None where nothing is explained."""

_EXPECTED = (
    "'max', 'all', an int, an integer array, a tuple of them for the last axes, a "
    "callable out -> R_out, one of jaxlrp.targets, or these in the structure of the "
    "output"
)


def check(target: Target, name: str = "target") -> None:
    """Refuses what is not a target.

    Raises:
      ValueError: for an unknown name.
      TypeError: for anything that is neither a name, integers, nor callable.
    """
    if isinstance(target, str):
        if target not in get_args(TargetName):
            raise ValueError(f"{name}: got {target!r}, expected 'max' or 'all'")
        return
    if isinstance(target, targets.AGAINST):
        own = target.target
        is_class = _is_integers(own) and not isinstance(own, bool)
        if not is_class and not (isinstance(own, str) and own == "max"):
            raise TypeError(
                f"{name}: got {target!r}, expected one of 'max', an int or an integer "
                f"array, which is set against the others"
            )
        return
    if callable(target) or (_is_integers(target) and not isinstance(target, bool)):
        return
    inside = [] if _is_leaf(target) else _inside(target)
    if isinstance(target, list) and any(_is_integers(one) for _, one in inside):
        raise TypeError(f"{name}: got {target!r}, a list, expected {_EXPECTED}")
    if not any(one is not None for _, one in inside):
        raise TypeError(f"{name}: got {target!r}, expected {_EXPECTED}")
    for key, one in inside:
        if one is not None:
            check(one, f"{name}{key}")


def _is_integers(target: Any) -> bool:
    if isinstance(target, int | np.integer):
        return True
    is_array = isinstance(target, np.ndarray | Array)
    return is_array and jnp.issubdtype(target.dtype, jnp.integer)


def _is_leaf(tree: Any) -> bool:
    return tree is None or jax.tree_util.all_leaves([tree])


def _inside(tree: Any) -> list[tuple[str, Any]]:
    """What a pytree consists of, one level down, and how it is named."""
    found, _ = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda part: part is not tree
    )
    return [(jax.tree_util.keystr(path), part) for path, part in found]


def split(target: Target, out: Any) -> tuple[list[tuple[Any, Any]], Any] | None:
    """Where a target has the output's structure: the pairs of their parts.

    Args:
      target: any target.
      out: the output, a pytree.

    Returns:
      `(pairs, restore)`: the parts of both, one level down, None for a part of which
      nothing is explained, and a function from parts to a pytree like this level of the
      output; or None where the target is one for the whole output.

    Raises:
      ValueError: if it is a target of a structure that the output does not have.
    """
    if isinstance(target, targets.AGAINST) or callable(target) or _is_leaf(target):
        return None
    if not _is_leaf(out):
        mine, parts = _inside(target), _inside(out)
        if [key for key, _ in mine] == [key for key, _ in parts]:
            tree = jax.tree.structure(out, is_leaf=lambda part: part is not out)
            pairs = zip(mine, parts, strict=True)
            return [(one, part) for (_, one), (_, part) in pairs], tree.unflatten
    if isinstance(target, tuple | list) and len(jax.tree.leaves(out)) == 1:
        return None
    raise ValueError(
        f"target: got the structure {_structure(target)}, expected that of the output, "
        f"{_structure(out)}, one target for the whole output, or for an output that is "
        f"one array a tuple of ints"
    )


def _structure(tree: Any) -> str:
    return str(jax.tree.structure(tree, is_leaf=lambda part: part is None))


def is_plain(target: Target) -> bool:
    """Does a callable say what the relevance is, somewhere in the target?"""
    if callable(target):
        return True
    if isinstance(target, targets.AGAINST) or _is_leaf(target):
        return False
    return any(is_plain(part) for _, part in _inside(target))


def seed(target: Target, out: Any) -> tuple[Any, Any | None]:
    """The target as multipliers of the output, and as relevances beside it or None.

    Args:
      target: any target.
      out: the output, a pytree.

    Returns:
      Two pytrees like `out`. The second is there where some part of the target is a
      callable, and zero where another part is none.

    Raises:
      ValueError: for a class out of range or of the wrong shape.
      TypeError: for a target along an axis where the output is not a single array.
    """
    if not is_plain(target):
        return multiplier(target, out), None
    if callable(target):
        return _zeros(out), relevance(target, out)
    divided = split(target, out)
    if divided is None:
        raise TypeError(f"target: got {target!r}, expected {_EXPECTED}")
    pairs, restore = divided
    seeds = [(_zeros(o), None) if t is None else seed(t, o) for t, o in pairs]
    beside = [
        _zeros(o) if r is None else r
        for (_, r), (_, o) in zip(seeds, pairs, strict=True)
    ]
    return restore([m for m, _ in seeds]), restore(beside)


def weights(target: Target, out: Any) -> Any:
    """The target as cotangents of the output: what a callable gives is one as well."""
    if callable(target):
        return relevance(target, out)
    multipliers, beside = seed(target, out)
    return multipliers if beside is None else jax.tree.map(jnp.add, multipliers, beside)


def _zeros(out: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, out)


def multiplier(target: Target, out: Any) -> Any:
    """The seed as a multiplier: one at the target, zero elsewhere, or as it says.

    Args:
      target: any target without a callable.
      out: the output, a pytree.

    Returns:
      A pytree like `out`.

    Raises:
      ValueError: for a class out of range or of the wrong shape.
      TypeError: for a target along an axis where the output is not a single array.
    """
    divided = split(target, out)
    if divided is not None:
        pairs, restore = divided
        return restore([_zeros(o) if t is None else multiplier(t, o) for t, o in pairs])
    if isinstance(target, targets.AGAINST):
        (leaf,) = _single(target, out)
        if leaf.ndim == 0 or leaf.shape[-1] < 2:
            raise ValueError(
                f"target: got {target!r} for an output of shape {leaf.shape}, expected "
                f"at least two classes along its last axis"
            )
        return jax.tree.map(target.multiplier, multiplier(target.target, out), out)
    if isinstance(target, str) and target == "all":
        # y * 0 + 1 would turn infinities into NaN; the shape and sharding are y's own.
        return jax.tree.map(_one_like, out)
    (leaf,) = _single(target, out)
    if leaf.ndim == 0:
        if not isinstance(target, str):
            raise ValueError(
                f"target: got class {target!r} for a scalar output, expected 'max', "
                f"'all' or a callable"
            )
        return jax.tree.map(_one_like, out)
    mask = _mask(_places(target, leaf), leaf)
    return jax.tree.map(lambda y: mask.astype(y.dtype) * _one_like(y), out)


def highest(leaf: Array) -> Array:
    """The class of the highest score along the last axis.

    Raises:
      ValueError: if there is none.
      TypeError: for complex numbers, which have no order.
    """
    if leaf.ndim and leaf.shape[-1] == 0:
        raise ValueError(
            f"target: got 'max' for an output of shape {leaf.shape}, expected at least "
            f"one class along its last axis"
        )
    if jnp.iscomplexobj(leaf):
        raise TypeError(
            f"target: got 'max' for an output of dtype {leaf.dtype}, none of which is "
            f"the highest; expected 'all', a class or a callable out -> R_out"
        )
    return jnp.argmax(leaf, axis=-1).astype(jnp.int32)


def _places(target: Any, leaf: Array) -> tuple[Array, ...]:
    """Where the target is along each of the last axes, for each example."""
    if isinstance(target, str):
        return (highest(leaf),)
    if isinstance(target, list):
        target = _of_examples(target)
    if not isinstance(target, tuple):
        return (_classes(target, leaf, leaf.ndim - 1, leaf.shape[:-1]),)
    if len(target) > leaf.ndim:
        raise ValueError(
            f"target: got {target!r}, {len(target)} places, for an output of shape "
            f"{leaf.shape}, expected at most {leaf.ndim}"
        )
    if not all(_is_integers(one) and not isinstance(one, bool) for one in target):
        raise TypeError(
            f"target: got {target!r} for an output that is one array, expected ints"
        )
    first = leaf.ndim - len(target)
    examples = leaf.shape[:first]
    axes = range(first, leaf.ndim)
    pairs = zip(target, axes, strict=True)
    return tuple(_classes(one, leaf, axis, examples) for one, axis in pairs)


def _of_examples(target: list[Any]) -> tuple[Any, ...]:
    """A list with a tuple for each example, as a tuple of arrays."""
    tuples = all(isinstance(one, tuple) for one in target)
    if not tuples or len({len(one) for one in target}) != 1:
        raise TypeError(
            f"target: got {target!r} for an output that is one array, expected tuples "
            f"of as many ints"
        )
    return tuple(_stacked(along, target) for along in zip(*target, strict=True))


def _stacked(along: Sequence[Any], target: Any) -> Any:
    """The places of all examples along one axis."""
    if not all(_is_integers(one) and np.ndim(one) == 0 for one in along):
        raise TypeError(
            f"target: got {target!r} for an output that is one array, expected tuples "
            f"of ints"
        )
    known = all(map(_compat.is_known, along))
    return np.asarray(along) if known else jnp.stack(list(map(jnp.asarray, along)))


def _mask(places: Sequence[Array], leaf: Array) -> Array:
    """True at the places, which are along the last axes."""
    masks = []
    for k, index in enumerate(places):
        axis = leaf.ndim - len(places) + k
        positions = jax.lax.broadcasted_iota(index.dtype, leaf.shape, axis)
        masks.append(positions == jnp.expand_dims(index, range(index.ndim, leaf.ndim)))
    return functools.reduce(jnp.logical_and, masks)


def _one_like(y: Array) -> Array:
    return jax.lax.full_like(y, 1)


def _single(target: Target, out: Any) -> list[Array]:
    leaves = jax.tree.leaves(out)
    if len(leaves) != 1:
        raise TypeError(
            f"target: {target!r} needs an output that is one array, got the structure "
            f"{jax.tree.structure(out)}; use 'all', a callable out -> R_out or targets "
            f"in that structure"
        )
    return leaves


def _classes(target: Any, leaf: Array, axis: int, examples: tuple[int, ...]) -> Array:
    """The place along an axis for each example, checked where its value is known."""
    size = leaf.shape[axis]
    shape = np.shape(target)
    if shape and shape != examples:
        raise ValueError(
            f"target: got an array of shape {shape}, expected a class for each "
            f"example of an output of shape {leaf.shape}: shape {examples}"
        )
    if _compat.is_known(target) and isinstance(size, int):
        known = np.asarray(target)
        if known.size and (known.min() < -size or known.max() >= size):
            last = axis == leaf.ndim - 1
            what = "classes" if last else f"places along axis {axis}"
            raise ValueError(
                f"target: got {target!r}, expected {what} in [{-size}, {size}) "
                f"for an output of shape {leaf.shape}"
            )
    index = jnp.asarray(target).astype(jnp.int32)
    index = jnp.where(index < 0, index + size, index)
    return jnp.broadcast_to(index, examples)


def relevance(target: Callable[[Any], Any], out: Any) -> Any:
    """The seed that a callable target gives, checked against the output."""
    return check_like(target(out), out, "target(out)")


def check_like(seed: Any, out: Any, name: str) -> Any:
    """`seed` as arrays of the output's dtypes, if it has the output's structure.

    Raises:
      ValueError: if structure or shapes differ.
    """
    if jax.tree.structure(seed) != jax.tree.structure(out):
        raise ValueError(
            f"{name}: got the structure {jax.tree.structure(seed)}, expected the "
            f"output's, {jax.tree.structure(out)}"
        )

    def leaf(path: Any, r: Any, y: Any) -> Array:
        return _as_relevance(r, y, f"{name}{jax.tree_util.keystr(path)}")

    return jax.tree_util.tree_map_with_path(leaf, seed, out)


def _as_relevance(r: Any, y: Any, name: str) -> Array:
    """A relevance in the dtype of its output; a real one has no imaginary part."""
    try:
        given = jnp.asarray(r)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {r!r}, expected an array") from None
    if given.shape != y.shape:
        raise ValueError(
            f"{name}: got shape {given.shape}, expected the output's shape {y.shape}"
        )
    if jnp.iscomplexobj(given) and not jnp.issubdtype(y.dtype, jnp.complexfloating):
        raise TypeError(
            f"{name}: got dtype {given.dtype}, expected real numbers for an output of "
            f"dtype {y.dtype}"
        )
    return jnp.asarray(r, y.dtype)
