"""What an architecture is: a network by configuration, in two sizes."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from tests.models.usual import fill


class Model(NamedTuple):
    """`apply(params, inputs)`; arrays in the reduced size, shapes in the published."""

    apply: Callable[..., Any]
    params: Any
    inputs: Any


class Built(NamedTuple):
    """A module and the shapes of its input, a pytree.

    Integers are token ids below `vocabulary`; in their place the module also takes
    their embeddings, of size `width`.
    """

    module: nn.Module
    inputs: Any
    vocabulary: int = 0
    width: int = 0


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network by configuration.

    Attributes:
      name: the model that `published` is, or what it is known as.
      family: the kind of model.
      build: from a configuration to a module and its input's shapes.
      reduced: the configuration that is run: all parts, few and narrow.
      published: the configuration of the published size, or None.
      millions: its published number of weights, in millions.
      note: where relevance goes, in words.
      target: what is explained.
      gain: of the random weights, see `tests.models.usual.fill`.
    """

    name: str
    family: str
    build: Callable[[Any], Built]
    reduced: Any
    published: Any = None
    millions: float | None = None
    note: str = ""
    target: Any = "max"
    gain: float = 1.0

    def large(self) -> Model:
        """The published size, as shapes."""
        built = self.build(self.published)
        return Model(built.module.apply, _shapes(built), built.inputs)

    def small(self, dtype: Any = jnp.float32, embedded: bool = False) -> Model:
        """The reduced size, with random weights and a random input.

        `embedded`: embeddings are the input in place of token ids.
        """
        built = self.build(self.reduced)
        params = fill(_shapes(built), dtype, self.gain)
        return Model(built.module.apply, params, _inputs(built, dtype, embedded))


def _shapes(built: Built) -> Any:
    return jax.eval_shape(built.module.init, jax.random.key(0), built.inputs)


def _inputs(built: Built, dtype: Any, embedded: bool) -> Any:
    """Standard normal arrays, or token ids; each leaf depends on its path alone."""

    def leaf(path: Any, x: jax.ShapeDtypeStruct) -> jax.Array:
        seed = zlib.crc32(jax.tree_util.keystr(path).encode())
        random = np.random.default_rng([1, seed])
        if not jnp.issubdtype(x.dtype, jnp.integer):
            return jnp.asarray(random.standard_normal(x.shape), dtype)
        if embedded:
            shape = (*x.shape, built.width)
            return jnp.asarray(random.standard_normal(shape), dtype)
        return jnp.asarray(random.integers(0, built.vocabulary, x.shape), x.dtype)

    return jax.tree_util.tree_map_with_path(leaf, built.inputs)


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    """The shape of a float input."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def tokens(*shape: int) -> jax.ShapeDtypeStruct:
    """The shape of token ids."""
    return jax.ShapeDtypeStruct(shape, jnp.int32)
