import jax
import jax.numpy as jnp
import torchax
import transformers

import jaxlrp
from jaxlrp import composites

# A small one with random weights. With the published ones:
# module = transformers.AutoModelForCausalLM.from_pretrained(name,
#     attn_implementation="eager")
config = transformers.LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    attn_implementation="eager",  # softmax and products, which can be read
    use_cache=False,
)
module = transformers.LlamaForCausalLM(config).eval()
params, apply = torchax.extract_jax(module)  # arrays, and a function of JAX
ids = jnp.array([[5, 6, 7, 8]])


def scores(params, ids):  # of the token that comes next
    return apply(params, (ids,))["logits"][:, -1]


explain = jax.jit(jaxlrp.value_and_lrp(scores, composites.AttnLRP()))
value, relevance = explain(params, ids)  # a relevance for each token

# Layers are called by the paths of PyTorch's parameters.
first = jaxlrp.lrp(scores, composites.AttnLRP(), capture="*layers.0.mlp.down_proj*")
captured = first(params, ids)[1]
