"""The networks behind the golden arrays, written in plain JAX.

Every function reads one file of `tests/golden` and returns `(apply, params, x)`:
`apply(params, x)` gives the logits, `params` is a dict from the file's own names to
arrays, and `x` is the input that the relevances belong to (embeddings for text).
float64 needs `jax.enable_x64`.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

GOLDEN = Path(__file__).parents[2] / "golden"

Params = dict[str, jax.Array]
Apply = Callable[[Params, Any], jax.Array]
Network = tuple[Apply, Params, Any]

# What a file holds beside weights: relevances, outputs and the values they belong to.
_RESULTS = ("R", "logits", "target", "attn_cam", "fused")
_VALUES = ("x", "ids", "a0", "a1")


@functools.cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """All arrays of one golden file, by name."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def _weights(name: str, dtype) -> Params:
    return {
        key: jnp.asarray(value, dtype)
        for key, value in arrays(name).items()
        if not key.startswith(_RESULTS) and key not in _VALUES
    }


def _input(name: str, dtype) -> jax.Array:
    return jnp.asarray(arrays(name)["x"], dtype)


# Layers


def dense(params: Params, name: str, x: jax.Array) -> jax.Array:
    return x @ params[f"{name}.w"].T + params[f"{name}.b"]


def conv2d(params: Params, name: str, x: jax.Array, stride=1, padding=1) -> jax.Array:
    y = lax.conv_general_dilated(
        x,
        params[f"{name}.w"],
        window_strides=(stride, stride),
        padding=[(padding, padding)] * 2,
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )
    if f"{name}.b" in params:
        y = y + params[f"{name}.b"][:, None, None]
    return y


def batch_norm(params: Params, name: str, x: jax.Array, eps=1e-5) -> jax.Array:
    weight, bias, mean, var = (
        params[f"{name}.{part}"][:, None, None] for part in ("w", "b", "mean", "var")
    )
    return (x - mean) / jnp.sqrt(var + eps) * weight + bias


def max_pool(x: jax.Array) -> jax.Array:
    return lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), padding="VALID"
    )


def average_pool(x: jax.Array) -> jax.Array:
    window = (1, 1, 2, 2)
    return lax.reduce_window(x, 0.0, lax.add, window, window, padding="VALID") / 4


def layer_norm(params: Params, name: str, x: jax.Array, eps: float) -> jax.Array:
    with jax.named_scope("norm"):
        mean = x.mean(-1, keepdims=True)
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
        normed = (x - mean) / jnp.sqrt(var + eps)
        return normed * params[f"{name}.w"] + params[f"{name}.b"]


def rms_norm(weight: jax.Array, x: jax.Array, eps=1e-6) -> jax.Array:
    return weight * (x * lax.rsqrt((x**2).mean(-1, keepdims=True) + eps))


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """Float[Array, 'batch token width'] -> Float[Array, 'batch head token dim']."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def merge_heads(x: jax.Array) -> jax.Array:
    x = x.transpose(0, 2, 1, 3)
    return x.reshape(*x.shape[:2], -1)


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask=None, added=None
) -> jax.Array:
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
    if added is not None:
        scores = scores + added
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1) @ v


def self_attention(params: Params, name: str, x: jax.Array, heads: int) -> jax.Array:
    q, k, v = (
        split_heads(dense(params, f"{name}.{part}", x), heads)
        for part in ("q", "k", "v")
    )
    added = params.get("mask")
    return dense(params, f"{name}.o", merge_heads(attention(q, k, v, added=added)))


def gelu_mlp(params: Params, name: str, x: jax.Array) -> jax.Array:
    with jax.named_scope("mlp"):
        h = jax.nn.gelu(dense(params, f"{name}.fc1", x), approximate=False)
        return dense(params, f"{name}.fc2", h)


def rotary(x: jax.Array, base=10000.0) -> jax.Array:
    """Rotary position embedding, the two halves of a head's width being the pairs."""
    tokens, dim = x.shape[-2:]
    frequency = base ** (-jnp.arange(0, dim, 2) / dim)
    angle = jnp.arange(tokens)[:, None] * frequency
    cos, sin = (
        jnp.concatenate([part, part], -1).astype(x.dtype)
        for part in (jnp.cos(angle), jnp.sin(angle))
    )
    left, right = jnp.split(x, 2, axis=-1)
    return x * cos + jnp.concatenate([-right, left], -1) * sin


# Networks


def mlp(dtype=jnp.float64) -> Network:
    """Three dense layers with ReLU, whose results are called `a0` and `a1`."""

    def apply(params, x):
        for i in range(2):
            x = jax.nn.relu(dense(params, f"l{i}", x))
            x = checkpoint_name(x, f"a{i}")
        return dense(params, "l2", x)

    return apply, _weights("mlp", dtype), _input("mlp", dtype)


# zennit 0.5.1 merges a batch norm into its convolution but leaves the batch norm's own
# eps in the emptied module: it still divides by sqrt(1 + eps).
_LEFT_BY_MERGE = (1 + 1e-5) ** -0.5


def left_by_merge(x: jax.Array, merged: bool) -> jax.Array:
    """The emptied module: a module of its own, which the barrier keeps it."""
    return jax.lax.optimization_barrier(x) * _LEFT_BY_MERGE if merged else x


def cnn(dtype=jnp.float64, merged: bool = False, fused: bool = False) -> Network:
    """Two convolutions with batch norm, ReLU and pooling, and a dense layer.

    `merged` is the network that zennit explains after `SequentialMergeBatchNorm`;
    `fused` has the convolutions with the batch norms in them that the file holds.
    """
    stored = arrays("cnn")
    own = {k: jnp.asarray(stored[k], dtype) for k in stored if k.startswith("fused")}

    def conv_norm(params, i, x):
        if fused:
            return conv2d(params, f"fused{i}", x)
        x = batch_norm(params, f"bn{i}", conv2d(params, f"conv{i}", x))
        return left_by_merge(x, merged)

    def apply(params, x):
        x = max_pool(jax.nn.relu(conv_norm(params, 0, x)))
        x = average_pool(jax.nn.relu(conv_norm(params, 1, x)))
        return dense(params, "fc", x.reshape(x.shape[0], -1))

    return apply, _weights("cnn", dtype) | own, _input("cnn", dtype)


def resnet(dtype=jnp.float64, merged: bool = False) -> Network:
    """Stem, two basic blocks (the second projects), average over pixels, dense."""

    def conv_norm(params, conv, norm, x, stride=1, padding=1):
        x = batch_norm(params, norm, conv2d(params, conv, x, stride, padding))
        return left_by_merge(x, merged)

    def block(params, name, x, stride):
        h = conv_norm(params, f"{name}.conv1", f"{name}.bn1", x, stride)
        h = conv_norm(params, f"{name}.conv2", f"{name}.bn2", jax.nn.relu(h))
        if f"{name}.down.w" in params:
            x = conv_norm(params, f"{name}.down", f"{name}.downbn", x, stride, 0)
        return jax.nn.relu(h + x)

    def apply(params, x):
        x = jax.nn.relu(conv_norm(params, "stem", "bn", x))
        x = block(params, "b0", x, 1)
        x = block(params, "b1", x, 2)
        return dense(params, "fc", x.mean((2, 3)))

    return apply, _weights("resnet", dtype), _input("resnet", dtype)


def _blocks(name: str, embed, block, head, dtype) -> Network:
    """A transformer of two blocks, whose inputs are called `block0` and `block1`."""

    def apply(params, x):
        x = embed(params, x)
        for i in range(2):
            x = checkpoint_name(x, f"block{i}")
            x = block(params, f"l{i}", x)
        return head(params, x)

    return apply, _weights(name, dtype), _input(name, dtype)


def vit(dtype=jnp.float64, positions: bool = False) -> Network:
    """Vision transformer: patches of 8, class token, pre-norm blocks.

    With `positions`, the input is a pair of image and position embedding.
    """

    def embed(params, x):
        x, position = x if positions else (x, params["pos"])
        x = lax.conv_general_dilated(
            x,
            params["patch.w"],
            (8, 8),
            "VALID",
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        )
        x = x + params["patch.b"][:, None, None]
        x = x.reshape(*x.shape[:2], -1).swapaxes(1, 2)
        cls = jnp.broadcast_to(params["cls"], (x.shape[0], 1, x.shape[2]))
        return jnp.concatenate([cls, x], axis=1) + position

    def encode(params, name, x):
        norm = layer_norm(params, f"{name}.ln1", x, 1e-6)
        x = x + self_attention(params, name, norm, heads=2)
        return x + gelu_mlp(params, name, layer_norm(params, f"{name}.ln2", x, 1e-6))

    def head(params, x):
        cls = layer_norm(params, "ln", x, 1e-6)[:, 0]
        with jax.named_scope("head"):
            return dense(params, "head", cls)

    apply, params, x = _blocks("vit", embed, encode, head, dtype)
    return (apply, params, (x, params["pos"])) if positions else (apply, params, x)


def bert(dtype=jnp.float64, embeddings: bool = False, masked: bool = False) -> Network:
    """Post-norm encoder over word embeddings, with a tanh pooler on the first token.

    With `embeddings`, the input holds the word, type and position embedding of every
    token. `masked` adds the zeros of a mask that masks nothing to the scores.
    """

    def embed(params, x):
        x, kind, position = x if embeddings else (x, *looked_up(params, x))
        return layer_norm(params, "emb.ln", x + kind + position, 1e-12)

    def looked_up(params, x):
        return params["emb.type"][0], params["emb.pos"][: x.shape[1]]

    def encode(params, name, x):
        x = x + self_attention(params, name, x, heads=2)
        x = layer_norm(params, f"{name}.ln1", x, 1e-12)
        return layer_norm(params, f"{name}.ln2", x + gelu_mlp(params, name, x), 1e-12)

    def head(params, x):
        return dense(params, "head", jnp.tanh(dense(params, "pool", x[:, 0])))

    apply, params, x = _blocks("bert", embed, encode, head, dtype)
    if masked:
        params["mask"] = jnp.zeros((x.shape[1],) * 2, x.dtype)
    if not embeddings:
        return apply, params, x
    others = (jnp.broadcast_to(part, x.shape) for part in looked_up(params, x))
    return apply, params, (x, *others)


def llama(dtype=jnp.float64) -> Network:
    """Causal decoder: RMS norm, rotary embedding, grouped queries, SiLU-gated units."""

    def encode(params, name, x):
        h = rms_norm(params[f"{name}.rms1"], x)
        q, k, v = (
            split_heads(h @ params[f"{name}.{part}.w"].T, heads)
            for part, heads in (("q", 4), ("k", 2), ("v", 2))
        )
        k, v = (jnp.repeat(part, 2, axis=1) for part in (rotary(k), v))
        causal = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
        h = merge_heads(attention(rotary(q), k, v, causal))
        x = x + h @ params[f"{name}.o.w"].T
        h = rms_norm(params[f"{name}.rms2"], x)
        gate, up = h @ params[f"{name}.gate.w"].T, h @ params[f"{name}.up.w"].T
        return x + (jax.nn.silu(gate) * up) @ params[f"{name}.down.w"].T

    def head(params, x):
        return rms_norm(params["rms"], x)[:, -1] @ params["head.w"].T

    return _blocks("llama", lambda params, x: x, encode, head, dtype)


# Single layers


def _convolution(x: jax.Array, w: jax.Array, b: jax.Array, **options) -> jax.Array:
    spatial = "DHW"[5 - x.ndim :]
    names = ("NC" + spatial, "OI" + spatial, "NC" + spatial)
    y = lax.conv_general_dilated(x, w, dimension_numbers=names, **options)
    return y + b.reshape(-1, *(1,) * (x.ndim - 2))


def _dense(params: Params, x: jax.Array) -> jax.Array:
    return x @ params["w"].T + params["b"]


def _conv2d(params: Params, x: jax.Array) -> jax.Array:
    return _convolution(
        x, params["w"], params["b"], window_strides=(1, 1), padding=[(1, 1)] * 2
    )


def _conv2d_grouped(params: Params, x: jax.Array) -> jax.Array:
    return _convolution(
        x,
        params["w"],
        params["b"],
        window_strides=(2, 1),
        padding=[(1, 1), (0, 0)],
        rhs_dilation=(1, 2),
        feature_group_count=2,
    )


def _conv1d(params: Params, x: jax.Array) -> jax.Array:
    return _convolution(
        x, params["w"], params["b"], window_strides=(1,), padding=[(1, 1)]
    )


def _conv2d_transposed(params: Params, x: jax.Array) -> jax.Array:
    kernel = jnp.flip(params["w"], (2, 3)).swapaxes(0, 1)
    return _convolution(
        x,
        kernel,
        params["b"],
        window_strides=(1, 1),
        padding=[(1, 1)] * 2,
        lhs_dilation=(2, 2),
    )


LAYERS: dict[str, Apply] = {
    "dense": _dense,
    "densepos": _dense,
    "conv2d": _conv2d,
    "conv2dg": _conv2d_grouped,
    "conv1d": _conv1d,
    "convt2d": _conv2d_transposed,
    "avgpool": lambda params, x: average_pool(x),
    "sum": lambda params, x: x.sum(-1),
}


def layer(name: str, dtype=jnp.float64) -> Network:
    """One layer of `layers.npz`."""
    stored = arrays("layers")
    params = {
        part: jnp.asarray(stored[f"{name}.{part}"], dtype)
        for part in ("w", "b")
        if f"{name}.{part}" in stored
    }
    return LAYERS[name], params, jnp.asarray(stored[f"{name}.x"], dtype)
