"""Random weights and inputs for models of any library, drawn without its initialisers.

The libraries' own initialisers compile one program for each shape, and a fresh model
has zero biases, unit scales and empty statistics, which hide mistakes.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Model = tuple[Callable[..., Any], tuple[Any, Any]]
"""`(f, (params, x))`: `f(params, x)` is an array of scores, `x` what is attributed."""

ONES = ("scale", "var", "gamma", "weight")
"""What is near one if it has one axis: a norm's scale or a variance, by its name."""


def fill(shapes: Any, *, out_first: bool = False, seed: int = 0) -> Any:
    """A pytree of shapes -> arrays: kernels by fan-in, no bias zero, no scale one.

    Integers are zero and random keys are one key. `out_first`: kernels have their
    output axis first, as in Equinox and PyTorch.
    """
    random = np.random.default_rng(seed)

    def leaf(path: Any, leaf: Any) -> Any:
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(jax.random.key(seed), leaf.shape)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        name = jax.tree_util.keystr(path).lower()
        value = random.standard_normal(leaf.shape, np.float32)
        if value.ndim < 2:
            near_one = any(n in name for n in ONES) and "bias" not in name
            value = near_one + 0.1 * np.clip(value, -3, 3)
        elif "embedding" not in name:
            axes = leaf.shape[1:] if out_first else leaf.shape[:-1]
            if "depthwise" in name:  # Keras: each channel has its own kernel
                axes = leaf.shape[:-2]
            value *= math.sqrt((2.0 if value.ndim > 3 else 1.0) / math.prod(axes))
        return jnp.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def normal(*shape: int, seed: int = 1) -> jax.Array:
    """A standard normal input."""
    random = np.random.default_rng(seed)
    return jnp.asarray(random.standard_normal(shape, np.float32))


def ids(*shape: int, low: int = 3, high: int = 99, seed: int = 2) -> jax.Array:
    """Token ids, none of them special."""
    return jnp.asarray(np.random.default_rng(seed).integers(low, high, shape), "int32")
