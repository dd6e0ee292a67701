# %% [markdown]
# # A rule of one's own
#
# A rule for layers is a frozen dataclass with one method. Here is one that shares by
# the size of each contribution, whatever its sign, and a measurement of whether it is
# any good.

# %%
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp
from examples.howto import small
from jaxlrp import composites, evaluation, rules


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BySize(rules.LayerRule):
    """`R_j = sum_i |x_j w_ij| / (sum_k |x_k w_ik| + epsilon) R_i`."""

    epsilon: Any = 1e-6

    def shares(self, layer: rules.Layer) -> tuple[rules.Share, ...]:
        sizes = layer.linear(jnp.abs(layer.x), jnp.abs(layer.weights()))
        return (rules.Share(sizes, sizes, self.epsilon),)


composite = composites.Default().on("convolution", BySize())
composite

# %% [markdown]
# ## Is it what the formula says?

# %%
w = jnp.array([[1.0, -2.0], [3.0, 0.5]])
x = jnp.array([2.0, -1.0])
found = jaxlrp.lrp(lambda x: x @ w, composites.Uniform(BySize()), target=1)(x)
sizes = jnp.abs(x * w[:, 1])
assert jnp.allclose(found, sizes / sizes.sum() * (x @ w)[1], rtol=1e-4)
found

# %% [markdown]
# ## Where is it used?

# %%
model, images, labels = small.digits()
images, labels = images[:40], labels[:40]


def network(model, images):
    return model(images)


jaxlrp.plan(network, composite)(model, images)

# %%
chosen = {
    "default": composites.Default(),
    "epsilon": composites.Epsilon(),
    "by size": composite,
}
maps = {
    name: jax.jit(jaxlrp.lrp(network, c))(model, images) for name, c in chosen.items()
}
some = {name: r[:4] for name, r in maps.items()}
jaxlrp.plot.images(some, images[:4], labels=labels[:4], overlay="outline", invert=True)

# %% [markdown]
# ## Is it better?
#
# Pixels are set to zero, the most relevant ones first. The lower the score then is, the
# better the rule has found what the network uses.


# %%
def gap(image, relevance, label):
    """The mean height between the curves of least and of most relevant first."""

    def one(x):
        return network(model, x[None])[0]

    score = evaluation.logit(one, label)
    morf, lerf = (
        evaluation.flipping(score, image, relevance, order=order, steps=16)
        for order in ("morf", "lerf")
    )
    return evaluation.abpc(morf, lerf)


gaps = jax.jit(jax.vmap(gap))
for name, relevance in maps.items():
    found = gaps(images, relevance, labels)
    error = found.std() / np.sqrt(len(found))
    print(f"{name:<8} {found.mean():5.2f} ± {error:.2f}")

# %% [markdown]
# The explanations of a good rule have a large gap. On which networks it holds up, the
# page on faithfulness measures for all rules of this package.
