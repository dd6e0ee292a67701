import jax
import jax.numpy as jnp
from flax import nnx
from tunix.models.qwen2 import model as qwen2

import jaxlrp
from jaxlrp import composites

# A small one with random weights. With the published ones:
# model = tunix.models.qwen2.params.create_model_from_safe_tensors(folder, config)
config = qwen2.ModelConfig(
    num_layers=2,
    vocab_size=64,
    embed_dim=32,
    hidden_dim=64,
    num_heads=4,
    head_dim=8,
    num_kv_heads=2,
    rope_theta=1_000_000,
    norm_eps=1e-6,
    use_flash_attention=False,  # the kernel for TPUs cannot be read
)
model = qwen2.Qwen2(config, rngs=nnx.Rngs(0))
ids = jnp.array([[5, 6, 7, 8]])


def scores(model, ids):  # of the token that comes next
    length = ids.shape[1]
    positions = jnp.arange(length)[None]
    mask = jnp.tril(jnp.ones((1, length, length), bool))
    logits, _ = model(ids, positions, None, mask)
    return logits[:, -1]


explain = jax.jit(jaxlrp.value_and_lrp(scores, composites.AttnLRP()))
value, relevance = explain(model, ids)  # a relevance for each token
