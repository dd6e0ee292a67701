"""Which words speak for the class of a text?"""

import jax

import jaxlrp
from examples.howto import small

model = small.opinions()
texts = ["the film is not good .", "the music is not awful ."]
tokens = jax.numpy.stack([small.ids(text) for text in texts])

# Token ids are explained as any input: a number for each of them.
explain = jax.jit(jaxlrp.value_and_lrp(lambda model, ids: model(ids)))
scores, relevance = explain(model, tokens)

words = [text.split() for text in texts]
labels = [("blame", "praise")[k] for k in scores.argmax(-1)]
jaxlrp.text.save("text.html", jaxlrp.text.heatmap(words, relevance, labels=labels))
figure = jaxlrp.plot.tokens(words, relevance, labels=labels, numbers=True)
figure.savefig("text_classifier.png")
