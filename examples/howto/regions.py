"""Why is this region segmented, and why is there a box? Targets that are functions."""

import jax
import jax.numpy as jnp

import jaxlrp
from examples.howto import small

model, images, classes = small.shapes()
image, where = images[:1], classes[:1]


def squares(pixels):
    """The scores of class 1 at the pixels of the square; all else starts with zero."""
    of_class = jnp.arange(3) == 1
    return pixels * of_class * (where == 1)[..., None]


segment = jaxlrp.lrp(lambda model, x: model(x)["pixels"], target=squares)


def box(scores):
    """The score of the box that is surest of a cross."""
    surest = scores[0, :, 2].argmax()
    return jnp.zeros_like(scores).at[0, surest, 2].set(scores[0, surest, 2])


detect = jaxlrp.lrp(lambda model, x: model(x)["scores"], target=box)
maps = {
    "the square's pixels": jax.jit(segment)(model, image),
    "a box for the cross": jax.jit(detect)(model, image),
}
figure = jaxlrp.plot.images(maps, image, invert=True)
figure.savefig("regions.png")
