import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras

from jaxlrp import concepts

inputs = keras.Input((5, 8))  # tokens, features
attended = keras.layers.MultiHeadAttention(4, 2)(inputs, inputs)
model = keras.Model(inputs, keras.ops.sum(attended, 1))
x = jax.random.normal(jax.random.key(1), (3, 5, 8))
weights = [v.value for v in model.trainable_variables]


def scores(weights, x):
    return model.stateless_call(weights, [], x, training=False)[0]


# (1, examples, heads, queries, keys): heads are axis 2, examples axis 1.
print(concepts.sites(scores)(weights, x))
by_head = concepts.channel_relevance(scores, site="*attention_map*", axis=2, examples=1)
relevance = jax.jit(by_head)(weights, x)  # (examples, heads)
