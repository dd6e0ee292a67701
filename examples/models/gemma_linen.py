import dataclasses

import jax
import jax.numpy as jnp
from gemma import gm

import jaxlrp
from jaxlrp import composites

# A small one with random weights. With the published ones:
# model = gm.nn.Gemma3_270M()
# params = gm.ckpts.load_params(gm.ckpts.CheckpointPath.GEMMA3_270M_IT)
config = dataclasses.replace(
    gm.nn.Gemma3_270M.config,
    num_embed=64,
    embed_dim=16,
    hidden_dim=32,
    head_dim=8,
    attention_types=gm.nn.Gemma3_270M.config.attention_types[:2],
)
model = gm.nn.Transformer(config=config, dtype=jnp.float32)
ids = jnp.array([[5, 6, 7, 8]])
params = model.init(jax.random.key(0), ids)


def scores(params, ids):  # of the token that comes next
    return model.apply(params, ids).logits[:, -1]


explain = jax.jit(jaxlrp.value_and_lrp(scores, composites.AttnLRP()))
value, relevance = explain(params, ids)  # a relevance for each token
