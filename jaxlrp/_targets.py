"""Targets: which output is explained, and the relevance that it starts with.

The seed is the output's own value at the target, so that relevances add up to it.
As a multiplier that is simply one at the target and zero elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _compat, targets

Target = Any
"""`"max"`, `"all"`, an int, an integer array, a callable `out -> R_out`, or one of
`jaxlrp.targets`."""


def check(target: Target) -> None:
    """Refuses what is not a target.

    Raises:
      ValueError: for an unknown name.
      TypeError: for anything that is neither a name, integers, nor callable.
    """
    if isinstance(target, str):
        if target not in ("max", "all"):
            raise ValueError(f"target: got {target!r}, expected 'max' or 'all'")
        return
    if isinstance(target, targets.AGAINST):
        own = target.target
        is_class = _is_integers(own) and not isinstance(own, bool)
        if not is_class and not (isinstance(own, str) and own == "max"):
            raise TypeError(
                f"target: got {target!r}, expected one of 'max', an int or an integer "
                f"array, which is set against the others"
            )
        return
    if callable(target):
        return
    if isinstance(target, bool) or not _is_integers(target):
        raise TypeError(
            f"target: got {target!r}, expected 'max', 'all', an int, an integer array, "
            f"a callable out -> R_out or one of jaxlrp.targets"
        )


def _is_integers(target: Any) -> bool:
    return isinstance(target, int | np.integer | np.ndarray | Array) and jnp.issubdtype(
        jnp.result_type(target), jnp.integer
    )


def multiplier(target: Target, out: Any) -> Any:
    """The seed as a multiplier: one at the target, zero elsewhere, or as it says.

    Args:
      target: any target but a callable.
      out: the output, a pytree.

    Returns:
      A pytree like `out`.

    Raises:
      ValueError: for a class out of range or of the wrong shape.
      TypeError: for a target along an axis where the output is not a single array.
    """
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
    if isinstance(target, str):
        index = jnp.argmax(leaf, axis=-1).astype(jnp.int32)
    else:
        index = _classes(target, leaf)
    positions = jax.lax.broadcasted_iota(index.dtype, leaf.shape, leaf.ndim - 1)
    mask = positions == jnp.expand_dims(index, -1)
    return jax.tree.map(lambda y: mask.astype(y.dtype) * _one_like(y), out)


def _one_like(y: Array) -> Array:
    return jax.lax.full_like(y, 1)


def _single(target: Target, out: Any) -> list[Array]:
    leaves = jax.tree.leaves(out)
    if len(leaves) != 1:
        raise TypeError(
            f"target: {target!r} needs an output that is one array, got the structure "
            f"{jax.tree.structure(out)}; use 'all' or a callable out -> R_out"
        )
    return leaves


def _classes(target: Any, leaf: Array) -> Array:
    """The class of each example, checked where its value is known."""
    classes, batch = leaf.shape[-1], leaf.shape[:-1]
    index = jnp.asarray(target)
    if index.ndim and index.shape != batch:
        raise ValueError(
            f"target: got an array of shape {index.shape}, expected a class for each "
            f"example of an output of shape {leaf.shape}: shape {batch}"
        )
    if _compat.is_known(target) and isinstance(classes, int):
        known = np.asarray(target)
        if known.size and (known.min() < -classes or known.max() >= classes):
            raise ValueError(
                f"target: got {target!r}, expected classes in [{-classes}, {classes}) "
                f"for an output of shape {leaf.shape}"
            )
    index = index.astype(jnp.int32)
    index = jnp.where(index < 0, index + classes, index)
    return jnp.broadcast_to(index, batch)


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
        if jnp.shape(r) != y.shape:
            where = jax.tree_util.keystr(path)
            raise ValueError(
                f"{name}{where}: got shape {jnp.shape(r)}, expected the output's shape "
                f"{y.shape}"
            )
        return jnp.asarray(r, y.dtype)

    return jax.tree_util.tree_map_with_path(leaf, seed, out)
