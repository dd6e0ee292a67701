"""What a rule costs on one layer, over that layer's gradient.

A layer stands between ReLUs, so that its input is known to be nonnegative and no
relevance arrives where its result is negative; or alone, where nothing is known; or it
is the first one, before a ReLU. After it each element is weighted by its own number,
which is what both sides send back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.gradient_ratio import Row, rows
from jaxlrp import composites, rules
from tests.models.usual import Network

BETWEEN = {
    "epsilon": rules.Epsilon(1e-6),
    "z-plus": rules.ZPlus(),
    "gamma": rules.GeneralizedGamma(0.25),
    "alpha-beta": rules.AlphaBeta(2.0, 1.0),
}
FIRST = {
    "flat": rules.Flat(),
    "w-square": rules.WSquare(),
    "z-box": rules.ZBox(-3.0, 3.0),
}
PLACES: dict[str, Mapping[str, Any]] = {
    "between ReLUs": BETWEEN,
    "both signs": BETWEEN,
    "first": FIRST,
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """A convolution of images, or a dense layer, which has no kernel.

    Attributes:
      rows: images, or rows of a dense layer.
      features: that arrive.
      outputs: features that leave.
      kernel: its width, or None.
      stride: of the kernel.
      size: width of the images.
    """

    rows: int
    features: int
    outputs: int
    kernel: int | None = None
    stride: int = 1
    size: int = 1

    @property
    def name(self) -> str:
        if self.kernel is None:
            return f"dense {self.features} to {self.outputs}, {self.rows} rows"
        step = f" by {self.stride}" if self.stride > 1 else ""
        wide = f"{self.kernel}x{self.kernel}{step}, {self.size}x{self.size}"
        return f"convolution {self.features} to {self.outputs}, {wide}"


INNER = (
    Shape(1, 256, 256, 3, 1, 56),
    Shape(1, 128, 256, 3, 2, 56),
    Shape(128, 768, 3072),
    Shape(1024, 768, 3072),
    Shape(8, 4096, 4096),
    Shape(1, 4096, 4096),
)
STEMS = (Shape(1, 3, 64, 3, 1, 224), Shape(1, 3, 64, 7, 2, 224))
TINY = (Shape(1, 8, 4, 3, 1, 6), Shape(5, 72, 4)), (Shape(1, 3, 4, 3, 2, 6),)


def shapes(place: str, tiny: bool = False) -> tuple[Shape, ...]:
    """The layers of a place."""
    inner, stems = TINY if tiny else (INNER, STEMS)
    return stems if place == "first" else inner


def layer(shape: Shape, place: str) -> Network:
    """The layer in its place, its weights and an input."""
    random = np.random.default_rng(0)
    fan = shape.features * (shape.kernel or 1) ** 2
    if shape.kernel is None:
        kernel_shape: tuple[int, ...] = (shape.features, shape.outputs)
        x_shape: tuple[int, ...] = (shape.rows, shape.features)
    else:
        kernel_shape = (shape.kernel, shape.kernel, shape.features, shape.outputs)
        x_shape = (shape.rows, shape.size, shape.size, shape.features)

    def normal(*size: int) -> Array:
        return jnp.asarray(random.standard_normal(size, np.float32))

    def product(x: Array, w: Array) -> Array:
        if shape.kernel is None:
            return x @ w
        strides, dimensions = (shape.stride,) * 2, ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, w, strides, "SAME", dimension_numbers=dimensions
        )

    before: Callable[[Array], Array] = (
        jax.nn.relu if place == "between ReLUs" else _same
    )
    behind = _same if place == "both signs" else jax.nn.relu

    def apply(params: Mapping[str, Array], x: Array) -> Array:
        y = product(before(x), params["kernel"]) + params["bias"]
        return behind(y) * params["weight"]

    kernel, bias, x = (
        normal(*kernel_shape) / fan**0.5,
        normal(shape.outputs),
        normal(*x_shape),
    )
    y = jax.eval_shape(product, x, kernel)
    return apply, {"kernel": kernel, "bias": bias, "weight": normal(*y.shape)}, x


def _same(x: Array) -> Array:
    return x


def costs(place: str, rounds: int, tiny: bool = False) -> list[Row]:
    """A row for each layer and rule of a place; the model says both."""
    chosen = {name: composites.Uniform(rule) for name, rule in PLACES[place].items()}
    found: list[Row] = []
    for shape in shapes(place, tiny):
        # Where changing the weights is work on top of the product.
        dense = shape.kernel is None
        prepared = [name for name in chosen if dense and name != "epsilon"]
        found += rows(
            f"{shape.name}; {place}",
            layer(shape, place),
            chosen,
            rounds,
            target="all",
            prepared=prepared,
        )
    return found
