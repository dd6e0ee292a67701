"""Other rules for some layers, by their names."""

import jax

import jaxlrp
from examples.howto import small
from jaxlrp import composites, rules

model = small.Named()  # Flax Linen: modules' names are in the program
images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))
params = model.init(jax.random.key(1), images)

composite = (
    composites.Epsilon()
    .on("convolution", rules.ZBox(0.0, 1.0), scope="*/early")
    .on("convolution", rules.Gamma(0.25), scope="*/late")
)
plan = jaxlrp.plan(model.apply, composite)(params, images)
print(plan)  # which rule each layer gets, before anything runs
relevance = jax.jit(jaxlrp.lrp(model.apply, composite))(params, images)

assert [r.rule.split("(")[0] for r in plan.rows if r.role == "convolution"] == [
    "ZBox",
    "Gamma",
]
