"""Which pixels speak for the class of an image?"""

import jax

import jaxlrp
from examples.howto import small

model, images, labels = small.digits()
images, labels = images[:6], labels[:6]

# A function of the model and the images; the last argument is explained.
explain = jax.jit(jaxlrp.value_and_lrp(lambda model, images: model(images)))
scores, relevance = explain(model, images)

figure = jaxlrp.plot.images(
    relevance,
    images,
    labels=scores.argmax(-1),
    scores=scores.max(-1),
    overlay="outline",
    invert=True,
)
figure.savefig("image_classifier.png")

# Why this class, and not another one?
contrast = jaxlrp.lrp(lambda m, x: m(x), target=jaxlrp.targets.LogOdds())
against = jax.jit(contrast)(model, images)
assert against.shape == relevance.shape
