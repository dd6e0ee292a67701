import jax
from flax import nnx

from jaxlrp import concepts

attention = nnx.MultiHeadAttention(
    num_heads=4, in_features=8, decode=False, rngs=nnx.Rngs(0)
)
x = jax.random.normal(jax.random.key(1), (3, 5, 8))  # examples, tokens, features


def scores(attention, x):
    return attention(x).sum(1)


# (1, examples, heads, queries, keys): heads are axis 2, examples axis 1.
print(concepts.sites(scores)(attention, x))
by_head = concepts.channel_relevance(scores, site="*attention_map*", axis=2, examples=1)
relevance = jax.jit(by_head)(attention, x)  # (examples, heads)
