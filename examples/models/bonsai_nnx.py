import jax
import jax.numpy as jnp
from bonsai.models.qwen3 import modeling as qwen3
from flax import nnx

import jaxlrp
from jaxlrp import composites

# A small one with random weights. With the published ones:
# model = qwen3.Qwen3.from_pretrained("Qwen/Qwen3-0.6B")
config = qwen3.ModelConfig(
    num_layers=2,
    vocab_size=64,
    emb_dim=32,
    mlp_dim=64,
    num_heads=4,
    head_dim=8,
    num_kv_heads=2,
    rope_theta=1_000_000,
    rope_scaling_factor=8.0,
    local_rope_theta=1e4,
    norm_eps=1e-6,
    tie_word_embeddings=False,
)
model = qwen3.Qwen3(config, rngs=nnx.Rngs(0))
ids = jnp.array([[5, 6, 7, 8]])


def scores(model, ids):  # of the token that comes next
    batch, length = ids.shape
    # The cache is made inside: what a traced function writes, it has to own.
    cache = [
        qwen3.LayerCache(config, batch, length, jnp.float32)
        for _ in range(config.num_layers)
    ]
    return model(ids, cache=cache, segment_ids=jnp.ones_like(ids))[:, -1]


explain = jax.jit(jaxlrp.value_and_lrp(scores, composites.AttnLRP()))
value, relevance = explain(model, ids)  # a relevance for each token
