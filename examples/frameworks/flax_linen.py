import functools

import jax
from flax import linen as nn

import jaxlrp
from jaxlrp import composites, rules


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(16, name="hidden")(x))  # its name is a scope
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3, name="scores")(x)


model = Network()
x = jax.random.normal(jax.random.key(1), (4, 8))
variables = model.init(jax.random.key(0), x)  # weights and running averages

# Not as an argument of the compiled function: under jit it would be traced.
apply = functools.partial(model.apply, train=False)

# 1. Which inputs speak for the highest score?
scores, relevance = jax.jit(jaxlrp.value_and_lrp(apply))(variables, x)

# 2. How much passes each hidden unit?
_, captured = jax.jit(jaxlrp.lrp(apply, capture="hidden"))(variables, x)

# 3. And under another rule in the last layer?
composite = composites.Epsilon().on("dense", rules.Gamma(0.25), scope="*/scores")
other = jax.jit(jaxlrp.lrp(apply, composite))(variables, x)
