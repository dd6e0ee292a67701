"""A decoder like LLaMA whose values have names, to be patched.

The network is that of `examples.smollm`, written once more with tags at the places that
people patch, and with a beginning that is worked out once: two prompts that differ in
one token share all keys and values in front of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

from examples.smollm import Config

Params = Mapping[str, Any]
"""`embed`, the last `norm`, and `layers`: their weights, stacked. Rows are outputs."""

Past = Mapping[str, Array]
"""`keys` and `values` of the tokens in front, `(layers, tokens, key heads, width)`."""


def _norm(x: Array, weight: Array, epsilon: float) -> Array:
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + epsilon) * weight


def _rotate(x: Array, start: int, base: float) -> Array:
    """Rotary positions of `(tokens, heads, width)`, from position `start` on."""
    tokens, _, width = x.shape
    speeds = base ** -(np.arange(0, width, 2) / width)
    angles = (start + np.arange(tokens))[:, None, None] * speeds
    cos, sin = (np.asarray(g(angles), x.dtype) for g in (np.cos, np.sin))
    a, b = x[..., 0::2], x[..., 1::2]
    return jnp.stack((a * cos - b * sin, a * sin + b * cos), -1).reshape(x.shape)


def no_past(config: Config, params: Params) -> Past:
    """That of a prompt from its first token on."""
    layers, rows, _ = params["layers"]["attn_k"].shape
    shape = (layers, 0, config.key_heads, rows // config.key_heads)
    return {
        name: jnp.zeros(shape, params["embed"].dtype) for name in ("keys", "values")
    }


def _attend(
    config: Config, weights: Params, x: Array, past: Past
) -> tuple[Array, Past]:
    """What each token's heads read, `(tokens, heads, width)`; all keys and values."""
    tokens, start = len(x), len(past["keys"])

    def heads(name: str, count: int) -> Array:
        return (x @ weights[name].T).reshape(tokens, count, -1)

    queries = _rotate(heads("attn_q", config.heads), start, config.rope_base)
    keys = _rotate(heads("attn_k", config.key_heads), start, config.rope_base)
    queries = checkpoint_name(queries, "queries")
    keys = checkpoint_name(keys, "keys")
    values = checkpoint_name(heads("attn_v", config.key_heads), "values")
    keys = jnp.concatenate([past["keys"], keys])
    values = jnp.concatenate([past["values"], values])
    both = {"keys": keys, "values": values}
    queries = queries.reshape(tokens, config.key_heads, -1, queries.shape[-1])
    queries = queries / np.sqrt(queries.shape[-1])
    scores = jnp.einsum("qhgd,khd->hgqk", queries, keys)
    seen = np.tri(tokens, start + tokens, start, dtype=bool)
    shares = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
    read = jnp.einsum("hgqk,khd->qhgd", shares, values)
    return read.reshape(tokens, config.heads, -1), both


def run(config: Config, params: Params, ids: Array, past: Past) -> tuple[Array, Past]:
    """The state of the last token, and the keys and values of those given.

    Args:
      config: of the network.
      params: its weights.
      ids: the tokens, `Int[Array, "tokens"]`.
      past: of the tokens in front of them.

    Returns:
      The state behind the last norm, `(width,)`, which times `embed` gives the logits,
      and a `Past` of the tokens in front and of those given.
    """
    x, own = _stream(config, params, ids, past)
    return _norm(x[-1], params["norm"], config.epsilon), own


def states(
    config: Config, params: Params, ids: Array, past: Past
) -> tuple[Array, Past]:
    """As `run`, of all tokens."""
    x, own = _stream(config, params, ids, past)
    return _norm(x, params["norm"], config.epsilon), own


def _stream(
    config: Config, params: Params, ids: Array, past: Past
) -> tuple[Array, Past]:
    """The residual stream behind all layers, and keys and values.

    Tags: `embedding`; in each layer `residual` and `attention_in` (what attention
    reads, with the skip connection and without), `z` (what each head gives),
    `attention_out`, `middle` and `mlp_in`, `hidden` (the neurons), `mlp_out`; `final`.
    """

    def layer(x: Array, given: Any) -> tuple[Array, Past]:
        weights, before = given
        x = checkpoint_name(x, "residual")
        y = _norm(
            checkpoint_name(x, "attention_in"), weights["attn_norm"], config.epsilon
        )
        z, both = _attend(config, weights, y, before)
        z = checkpoint_name(z, "z")
        read = z.reshape(len(z), -1) @ weights["attn_output"].T
        x = x + checkpoint_name(read, "attention_out")
        x = checkpoint_name(x, "middle")
        y = _norm(checkpoint_name(x, "mlp_in"), weights["ffn_norm"], config.epsilon)
        gates = jax.nn.silu(y @ weights["ffn_gate"].T)
        hidden = checkpoint_name(gates * (y @ weights["ffn_up"].T), "hidden")
        written = checkpoint_name(hidden @ weights["ffn_down"].T, "mlp_out")
        return x + written, both

    x = checkpoint_name(params["embed"][ids], "embedding")
    x, own = lax.scan(layer, x, (params["layers"], past))
    return checkpoint_name(x, "final"), own


def state(config: Config, params: Params, x: Mapping[str, Any]) -> Array:
    """The state of the last token; `x` has its `ids` and the `past` in front."""
    return run(config, params, x["ids"], x["past"])[0]


def difference(state: Array, embed: Array, answers: Array) -> Array:
    """The logit of the first answer less that of the second."""
    return state @ (embed[answers[0]] - embed[answers[1]])
