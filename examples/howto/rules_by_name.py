"""Other rules for some layers, by their names."""

import jax
from flax import nnx

import jaxlrp
from examples.howto import small
from jaxlrp import composites, rules

model = small.Classifier(nnx.Rngs(0))  # of NNX: layers are called by their attributes
images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))


def f(model, images):
    return model(images)


composite = (
    composites.Epsilon()
    .on("convolution", rules.ZBox(0.0, 1.0), scope="edges*")
    .on("convolution", rules.Gamma(0.25), scope="parts*")
)
plan = jaxlrp.plan(f, composite)(model, images)
print(plan)  # which rule each layer gets, before anything runs
relevance = jax.jit(jaxlrp.lrp(f, composite))(model, images)

found = {row.layer: row.rule.split("(")[0] for row in plan.rows if row.parameter}
assert found["edges.kernel"] == "ZBox" and found["parts.kernel"] == "Gamma"
