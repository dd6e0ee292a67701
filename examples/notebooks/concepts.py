# %% [markdown]
# # Concepts and conditions
#
# What do the channels of a layer stand for, and what of an explanation passes through
# one of them? A classifier of digits, trained here in seconds.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

import jaxlrp
from examples.howto import small
from jaxlrp import composites, concepts

model, images, labels = small.digits()
images, labels = images[:200], labels[:200]


def network(model, images):
    """The model's own layers; the values in between have names."""
    x = checkpoint_name(nnx.relu(model.edges(images)), "edges")
    x = checkpoint_name(nnx.relu(model.parts(x)), "parts")
    x = nnx.max_pool(x, (2, 2), strides=(2, 2))
    return model.scores(x.reshape(len(x), -1))


composite = composites.EpsilonPlus()
concepts.sites(network, composite)(model, images[:1])

# %% [markdown]
# ## Which channels matter for which digit?

# %%
of_channels = jax.jit(concepts.channel_relevance(network, composite, site="parts"))
channels = np.asarray(of_channels(model, images))
means = np.stack([channels[labels == k].mean(0) for k in range(10)])
jaxlrp.plot.matrix(means, range(10), range(16), names=("digit", "channel"))

# %% [markdown]
# ## What is a channel used for?
#
# The images in which it matters most (relevance maximisation), and the part of their
# explanation that passes it.

# %%
top = np.argsort(-means.max(0))[:4]
best = concepts.maximise(
    lambda batch: of_channels(model, batch), np.split(images, 4), top=4
)
parts = jax.jit(concepts.heatmaps(network, composite, site="parts", channels=top))
rows = {}
for k, channel in enumerate(top):
    shown = images[np.asarray(best.indices[channel])]
    rows[f"channel {channel}"] = parts(model, shown)[k]
jaxlrp.plot.images(rows, columns=1, percentile=100)

# %% [markdown]
# ## One image, in parts
#
# A condition is a mask on the relevance of a value. All parts add up to the
# explanation.

# %%
image = images[:1]
whole = jaxlrp.lrp(network, composite)(model, image)


def through(mask):
    return jaxlrp.lrp(network, composite, conditions={"parts": mask})(model, image)


each = jax.jit(jax.vmap(through))(jnp.eye(16))
assert jnp.allclose(each.sum(0), whole, atol=1e-4)
maps = {"all": whole, **{f"channel {c}": each[c] for c in top}}
jaxlrp.plot.images(maps, image, invert=True, scale="all")

# %% [markdown]
# ## Of what is a channel made?
#
# The relevance that a channel of `parts` sends to those of `edges`.

# %%
graph = concepts.attribution_graph(
    network, composite, upper="parts", lower="edges", upper_channels=top
)
jaxlrp.plot.matrix(
    jax.jit(graph)(model, image)[0], top, range(8), names=("parts", "edges")
)
