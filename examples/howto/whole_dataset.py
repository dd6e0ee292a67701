"""A whole data set: what depends on the weights alone is computed once."""

import jax
import numpy as np

import jaxlrp
from examples.howto import small
from jaxlrp import composites

model, images, labels = small.digits()
batches = np.split(images[:128], 4)  # all of one shape: one compilation

explain = jaxlrp.value_and_lrp(lambda m, x: m(x), composites.EpsilonPlus())
buffers, rest = jaxlrp.prepare(explain, model, batches[0])
run = jax.jit(rest)
parts = [jax.device_get(run(buffers, batch)) for batch in batches]
scores, relevance = map(np.concatenate, zip(*parts, strict=True))
np.savez("relevances.npz", scores=scores, relevance=relevance)

means = [relevance[labels[:128] == k].mean(0) for k in range(10)]
photographs = [images[:128][labels[:128] == k].mean(0) for k in range(10)]
figure = jaxlrp.plot.images(
    means, photographs, labels=range(10), beside=False, overlay="outline", columns=5
)
figure.savefig("whole_dataset.png")
