import equinox as eqx
import jax

from jaxlrp import concepts

attention = eqx.nn.MultiheadAttention(4, 8, key=jax.random.key(0))
x = jax.random.normal(jax.random.key(1), (3, 5, 8))  # examples, tokens, features


def scores(attention, x):
    return jax.vmap(lambda x: attention(x, x, x).sum(0))(x)


# (examples, heads, queries, keys): heads are axis 1.
print(concepts.sites(scores)(attention, x))
by_head = concepts.channel_relevance(scores, site="*attention_map*", axis=1)
relevance = eqx.filter_jit(by_head)(attention, x)  # (examples, heads)
