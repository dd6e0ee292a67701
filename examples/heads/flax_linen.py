import jax
from flax import linen

from jaxlrp import concepts

attention = linen.MultiHeadDotProductAttention(num_heads=4)
x = jax.random.normal(jax.random.key(1), (3, 5, 8))  # examples, tokens, features
params = attention.init(jax.random.key(0), x)


def scores(params, x):
    return attention.apply(params, x).sum(1)


# (examples, heads, queries, keys): heads are axis 1.
print(concepts.sites(scores)(params, x))
by_head = concepts.channel_relevance(scores, site="*attention_map*", axis=1)
relevance = jax.jit(by_head)(params, x)  # (examples, heads)
