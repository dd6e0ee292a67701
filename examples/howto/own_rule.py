"""A rule of one's own: relevance in proportion to the size of each contribution."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

import jaxlrp
from examples.howto import small
from jaxlrp import composites, rules


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BySize(rules.LayerRule):
    """`R_j = sum_i |x_j w_ij| / (sum_k |x_k w_ik| + epsilon) R_i`."""

    epsilon: Any = 1e-6

    def shares(self, layer: rules.Layer) -> tuple[rules.Share, ...]:
        sizes = layer.linear(jnp.abs(layer.x), jnp.abs(layer.weights()))
        return (rules.Share(sizes, sizes, self.epsilon),)


model, images, labels = small.digits()
apply = lambda model, x: model(x)  # noqa: E731
maps = {
    "Epsilon": composites.Epsilon(),
    "BySize on convolutions": composites.Epsilon().on("convolution", BySize()),
}
maps = {
    name: jax.jit(jaxlrp.lrp(apply, composite))(model, images[:4])
    for name, composite in maps.items()
}
figure = jaxlrp.plot.images(maps, images[:4], labels=labels[:4], invert=True)
figure.savefig("own_rule.png")
