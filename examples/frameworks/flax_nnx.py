import jax
from flax import nnx

import jaxlrp
from jaxlrp import composites, rules


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(8, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.scores = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.hidden(x))
        x = self.dropout(self.norm(x))
        return self.scores(x)


model = Network(nnx.Rngs(0))
model.eval()  # no dropout, running averages
x = jax.random.normal(jax.random.key(1), (4, 8))


def apply(model, x):  # a module is a pytree: it can be an argument
    return model(x)


# 1. Which inputs speak for the highest score?
scores, relevance = jax.jit(jaxlrp.value_and_lrp(apply))(model, x)

# 2. How much passes each hidden unit? A layer is called by its attribute.
_, captured = jax.jit(jaxlrp.lrp(apply, capture="hidden"))(model, x)

# 3. And under another rule in the last layer?
composite = composites.Epsilon().on("dense", rules.Gamma(0.25), scope="scores")
other = jax.jit(jaxlrp.lrp(apply, composite))(model, x)
