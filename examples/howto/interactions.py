"""Which words speak for a class together, not each on its own?"""

import jax
import numpy as np

import jaxlrp
from examples.howto import small
from jaxlrp import interactions

model = small.opinions()
text = "the film is not good ."
words = text.split()


def f(model, embedded):  # of vectors: a token can be taken away, an id cannot
    return model.classify(embedded)


# Each set of words is tried without the others: 64 evaluations in one call.
embedded, nothing = model.embed(small.ids(text)), model.embed(small.ids("."))
explain = interactions.shapley_taylor(f, nothing, units=(len(words), 1))
found = jax.jit(explain)(model, embedded)
pairs = found.matrix()  # (words, words); on the diagonal what each adds alone

without, score = found.of(), f(model, embedded).max()
np.testing.assert_allclose(without + pairs.sum(), score, rtol=1e-3)  # nothing is lost

figure = jaxlrp.plot.matrix(pairs, words, words, numbers=True)
figure.savefig("interactions.png")
