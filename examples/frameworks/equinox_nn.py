import equinox as eqx
import jax

import jaxlrp
from jaxlrp import composites, rules


class Network(eqx.Module):
    hidden: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    scores: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key)
        self.hidden = eqx.nn.Linear(8, 16, key=keys[0])
        self.norm = eqx.nn.BatchNorm(16, axis_name="batch", mode="batch")
        self.dropout = eqx.nn.Dropout(0.5)
        self.scores = eqx.nn.Linear(16, 3, key=keys[1])

    def __call__(self, x, state):
        x = jax.nn.relu(self.hidden(x))
        x, state = self.norm(x, state)
        x = self.dropout(x)
        return self.scores(x), state


model, state = eqx.nn.make_with_state(Network)(jax.random.key(0))
model = eqx.nn.inference_mode(model)  # no dropout, running averages
x = jax.random.normal(jax.random.key(1), (4, 8))


def apply(model, state, x):  # of a batch; the new state is not asked for
    return jax.vmap(lambda x: model(x, state)[0], axis_name="batch")(x)


# 1. Which inputs speak for the highest score?
explain = eqx.filter_jit(jaxlrp.value_and_lrp(apply))
scores, relevance = explain(model, state, x)

# 2. How much passes each hidden unit? A layer is called by its attribute.
captured = eqx.filter_jit(jaxlrp.lrp(apply, capture="hidden"))(model, state, x)[1]

# 3. And under another rule in the last layer?
composite = composites.Epsilon().on("dense", rules.Gamma(0.25), scope="scores")
other = eqx.filter_jit(jaxlrp.lrp(apply, composite))(model, state, x)
