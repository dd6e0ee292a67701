import os

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported

import jax
import keras

import jaxlrp
from jaxlrp import composites, rules

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.layers.Input((8,)),
        keras.layers.Dense(16, name="hidden"),  # its name is a scope
        keras.layers.ReLU(),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(3, name="scores"),
    ]
)
x = jax.random.normal(jax.random.key(1), (4, 8))
weights = [v.value for v in model.trainable_variables]
state = [v.value for v in model.non_trainable_variables]  # running averages, seeds


def apply(weights, state, x):
    return model.stateless_call(weights, state, x, training=False)[0]


# 1. Which inputs speak for the highest score?
scores, relevance = jax.jit(jaxlrp.value_and_lrp(apply))(weights, state, x)

# 2. How much passes each hidden unit?
_, captured = jax.jit(jaxlrp.lrp(apply, capture="*hidden"))(weights, state, x)

# 3. And under another rule in the last layer?
composite = composites.Epsilon().on("dense", rules.Gamma(0.25), scope="*scores*")
other = jax.jit(jaxlrp.lrp(apply, composite))(weights, state, x)
