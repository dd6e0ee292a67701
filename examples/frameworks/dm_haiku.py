import haiku as hk
import jax

import jaxlrp
from jaxlrp import composites, rules


def network(x, is_training):
    x = jax.nn.relu(hk.Linear(16, name="hidden")(x))  # its name is a scope
    x = hk.BatchNorm(True, True, 0.9)(x, is_training)
    if is_training:
        x = hk.dropout(hk.next_rng_key(), 0.5, x)
    return hk.Linear(3, name="scores")(x)


model = hk.transform_with_state(network)
x = jax.random.normal(jax.random.key(1), (4, 8))
params, state = model.init(jax.random.key(0), x, is_training=True)


def apply(params, state, x):  # no key, running averages; the state is not asked for
    return model.apply(params, state, None, x, is_training=False)[0]


# 1. Which inputs speak for the highest score?
scores, relevance = jax.jit(jaxlrp.value_and_lrp(apply))(params, state, x)

# 2. How much passes each hidden unit?
_, captured = jax.jit(jaxlrp.lrp(apply, capture="hidden"))(params, state, x)

# 3. And under another rule in the last layer?
composite = composites.Epsilon().on("dense", rules.Gamma(0.25), scope="scores")
other = jax.jit(jaxlrp.lrp(apply, composite))(params, state, x)
