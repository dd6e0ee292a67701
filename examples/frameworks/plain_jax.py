import jax
import jax.numpy as jnp

import jaxlrp
from jaxlrp import composites, rules

keys = jax.random.split(jax.random.key(0), 2)
params = {
    "hidden": jax.random.normal(keys[0], (8, 16)) / 3,
    "mean": jnp.zeros(16),
    "var": jnp.ones(16),
    "scores": jax.random.normal(keys[1], (16, 3)) / 4,
}
x = jax.random.normal(jax.random.key(1), (4, 8))


def apply(params, x, key=None):  # without a key there is no dropout
    x = jax.nn.relu(x @ params["hidden"])
    x = (x - params["mean"]) / jnp.sqrt(params["var"] + 1e-5)
    if key is not None:
        x = x * jax.random.bernoulli(key, 0.5, x.shape) * 2
    return x @ params["scores"]


# 1. Which inputs speak for the highest score?
scores, relevance = jax.jit(jaxlrp.value_and_lrp(apply))(params, x)

# 2. How much passes each hidden unit? A layer is called by the key of its weights.
_, captured = jax.jit(jaxlrp.lrp(apply, capture="hidden"))(params, x)

# 3. And under another rule in the last layer?
composite = composites.Epsilon().on("dense", rules.Gamma(0.25), scope="scores")
other = jax.jit(jaxlrp.lrp(apply, composite))(params, x)
