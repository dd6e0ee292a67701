"""Networks of usual size in Flax Linen, with random weights.

`MODELS[name](tiny=False)` returns `(apply, params, x)`: `apply(params, x)` gives one
row of scores for each example, `x` is a float input (an image in NHWC, embeddings for
text). `tiny` keeps the structure and takes small shapes.
"""

import functools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

Network = tuple[Callable[..., Any], Any, jax.Array]


def fill(shapes, dtype=None, gain: float = 1.0, seed: int = 0):
    """A pytree of shapes -> arrays, without running a framework's initialisers.

    Kernels are normal with variance gain / fan-in; no bias is zero, no scale is one.
    Each leaf depends on `seed` and its own path alone. Integers are zero, and random
    keys are one key. `dtype` None keeps the leaf's.
    """

    def leaf(path, leaf):
        name, shape = jax.tree_util.keystr(path), leaf.shape
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(seed)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(shape, leaf.dtype)
        random = np.random.default_rng([seed, zlib.crc32(name.encode())])
        value = random.standard_normal(shape, np.float32)
        if "var" in name:
            value = 1 + 0.5 * np.tanh(value)
        elif "kernel" in name:
            value *= math.sqrt(gain / max(1, math.prod(shape[:-1])))
        elif "scale" in name:
            value = 1 + 0.1 * value
        else:
            value *= 0.1
        return jnp.asarray(value, dtype or leaf.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def inputs(*shape: int, dtype=jnp.float32, seed: int = 1) -> jax.Array:
    """A standard normal input."""
    random = np.random.default_rng(seed)
    return jnp.asarray(random.standard_normal(shape, np.float32), dtype)


def network(module: nn.Module, *shape: int, dtype=jnp.float32, gain=1.0) -> Network:
    """A module, its variables filled, and an input of the given shape."""
    x = inputs(*shape, dtype=dtype)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return module.apply, fill(shapes, dtype, gain), x


class VGG(nn.Module):
    """Stages of 3x3 convolutions and max pooling, then dense layers, all with ReLU."""

    stages: Sequence[Sequence[int]]
    dense: Sequence[int]
    classes: int
    bias: bool = True

    @nn.compact
    def __call__(self, x):
        for stage in self.stages:
            for features in stage:
                x = nn.relu(nn.Conv(features, (3, 3), use_bias=self.bias)(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        for features in self.dense:
            x = nn.relu(nn.Dense(features, use_bias=self.bias)(x))
        return nn.Dense(self.classes, use_bias=self.bias)(x)


class BasicBlock(nn.Module):
    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(nn.Conv, self.features, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        strides = (self.stride, self.stride)
        h = conv((3, 3), strides=strides, padding=1)(x)
        h = conv((3, 3), padding=1)(nn.relu(norm()(h)))
        h = norm()(h)
        if x.shape != h.shape:
            x = norm()(conv((1, 1), strides=strides)(x))
        return nn.relu(x + h)


class Bottleneck(nn.Module):
    """Its stride is that of the 3x3 convolution; four times as many features leave."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        strides, wide = (self.stride, self.stride), 4 * self.features
        h = nn.relu(norm()(conv(self.features, (1, 1))(x)))
        h = conv(self.features, (3, 3), strides=strides, padding=1)(h)
        h = norm()(conv(wide, (1, 1))(nn.relu(norm()(h))))
        if x.shape != h.shape:
            x = norm()(conv(wide, (1, 1), strides=strides)(x))
        return nn.relu(x + h)


class ResNet(nn.Module):
    """Blocks after a stem; the stem is small where images are."""

    stages: Sequence[tuple[int, int]]
    classes: int
    large_stem: bool = True
    block: type[nn.Module] = BasicBlock

    @nn.compact
    def __call__(self, x):
        width = self.stages[0][0]
        if self.large_stem:
            x = nn.Conv(width, (7, 7), (2, 2), padding=3, use_bias=False)(x)
        else:
            x = nn.Conv(width, (3, 3), padding=1, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        if self.large_stem:
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for i, (features, blocks) in enumerate(self.stages):
            for j in range(blocks):
                x = self.block(features, stride=2 if i and not j else 1)(x)
        return nn.Dense(self.classes)(x.mean((1, 2)))


class ViT(nn.Module):
    """Pre-norm encoder over patches with a class token; GELU by tanh."""

    patch: int
    width: int
    heads: int
    layers: int
    classes: int

    @nn.compact
    def __call__(self, x):
        size = (self.patch, self.patch)
        x = nn.Conv(self.width, size, size, padding="VALID", name="patches")(x)
        x = x.reshape(x.shape[0], -1, self.width)
        normal = nn.initializers.normal(0.02)
        cls = self.param("cls", normal, (1, 1, self.width))
        cls = jnp.broadcast_to(cls, (x.shape[0], 1, self.width))
        x = jnp.concatenate([cls.astype(x.dtype), x], 1)
        x = x + self.param("pos", normal, (1, *x.shape[1:]))
        for _ in range(self.layers):
            h = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(self.heads)(h)
            h = nn.Dense(4 * self.width)(nn.LayerNorm()(x))
            x = x + nn.Dense(self.width)(nn.gelu(h))
        return nn.Dense(self.classes, name="head")(nn.LayerNorm()(x)[:, 0])


class Bert(nn.Module):
    """Post-norm encoder with a tanh pooler; exact GELU; the last tokens are padding."""

    width: int
    heads: int
    layers: int
    classes: int
    padding: int

    @nn.compact
    def __call__(self, x):
        tokens = x.shape[1]
        mask = jnp.arange(tokens)[None, None, None, :] < tokens - self.padding
        normal = nn.initializers.normal(0.02)
        x = nn.LayerNorm()(x + self.param("pos", normal, (tokens, self.width)))
        for _ in range(self.layers):
            h = nn.MultiHeadDotProductAttention(self.heads)(x, mask=mask)
            x = nn.LayerNorm()(x + h)
            h = nn.gelu(nn.Dense(4 * self.width)(x), approximate=False)
            x = nn.LayerNorm()(x + nn.Dense(self.width)(h))
        return nn.Dense(self.classes)(nn.tanh(nn.Dense(self.width)(x[:, 0])))


def rotary(x: jax.Array, base: float = 10000.0) -> jax.Array:
    """Rotary embedding of Float[Array, 'batch token ... dim'], neighbours as pairs."""
    tokens, dim = x.shape[1], x.shape[-1]
    angle = jnp.arange(tokens)[:, None] * base ** (-jnp.arange(0, dim, 2) / dim)
    angle = angle.reshape(tokens, *(1,) * (x.ndim - 3), dim // 2)
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    even, odd = x[..., ::2], x[..., 1::2]
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
    return turned.reshape(x.shape)


class LlamaBlock(nn.Module):
    """Pre-norm decoder block; heads in groups that share keys and values."""

    width: int
    heads: int
    groups: int
    hidden: int

    @nn.compact
    def __call__(self, x):
        dim, share = self.width // self.heads, self.heads // self.groups
        project = functools.partial(nn.DenseGeneral, use_bias=False)
        h = nn.RMSNorm()(x)
        q = rotary(project((self.groups, share, dim))(h))
        k = rotary(project((self.groups, dim))(h))
        v = project((self.groups, dim))(h)
        scores = jnp.einsum("btgsd,bugd->bgstu", q, k) / math.sqrt(dim)
        causal = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
        scores = jnp.where(causal, scores, jnp.finfo(scores.dtype).min)
        h = jnp.einsum("bgstu,bugd->btgsd", nn.softmax(scores), v)
        x = x + project(self.width, axis=(-3, -2, -1))(h)
        h = nn.RMSNorm()(x)
        gate, up = project(self.hidden)(h), project(self.hidden)(h)
        return x + project(self.width)(nn.silu(gate) * up)


class Llama(nn.Module):
    """Causal decoder: RMS norm, rotary, grouped queries and gated units.

    The scores are those of the token after the last one. `scan` loops over blocks whose
    weights are stacked, instead of one block after the other.
    """

    width: int
    heads: int
    groups: int
    hidden: int
    layers: int
    vocabulary: int
    scan: bool = False

    @nn.compact
    def __call__(self, x):
        sizes = (self.width, self.heads, self.groups, self.hidden)
        if self.scan:
            block = nn.scan(
                lambda block, x, _: (block(x), None),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=self.layers,
            )
            x, _ = block(LlamaBlock(*sizes), x, None)
        else:
            for _ in range(self.layers):
                x = LlamaBlock(*sizes)(x)
        return nn.Dense(self.vocabulary, use_bias=False)(nn.RMSNorm()(x)[:, -1])


class MambaBlock(nn.Module):
    """A causal depthwise convolution, a selective scan over time, a gate."""

    inner: int
    state: int
    rank: int
    window: int = 4

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(2 * self.inner, use_bias=False)(x)
        u, gate = jnp.split(h, 2, -1)
        u = nn.Conv(
            self.inner,
            (self.window,),
            padding=[(self.window - 1, 0)],
            feature_group_count=self.inner,
        )(u)
        u = nn.silu(u)
        h = nn.Dense(self.rank + 2 * self.state, use_bias=False)(u)
        step, into, out = jnp.split(h, [self.rank, self.rank + self.state], -1)
        step = nn.softplus(nn.Dense(self.inner)(step))
        ones, shape = nn.initializers.ones, (self.inner, self.state)
        decay = -jnp.exp(self.param("log_decay", ones, shape))
        skip = self.param("skip_scale", ones, (self.inner,))

        def advance(state, now):
            step, u, into, out = now
            state = jnp.exp(step[..., None] * decay) * state
            state = state + (step * u)[..., None] * into[..., None, :]
            return state, jnp.einsum("bdn,bn->bd", state, out)

        start = jnp.zeros((len(x), *shape), u.dtype)
        over_time = [v.swapaxes(0, 1) for v in (step, u, into, out)]
        _, y = jax.lax.scan(advance, start, tuple(over_time))
        y = (y.swapaxes(0, 1) + skip * u) * nn.silu(gate)
        return nn.Dense(x.shape[-1], use_bias=False)(y)


class Mamba(nn.Module):
    """Selective state spaces, each after an RMS norm; scores of the last token."""

    state: int
    rank: int
    layers: int
    vocabulary: int

    @nn.compact
    def __call__(self, x):
        for _ in range(self.layers):
            block = MambaBlock(2 * x.shape[-1], self.state, self.rank)
            x = x + block(nn.RMSNorm()(x))
        return nn.Dense(self.vocabulary, use_bias=False)(nn.RMSNorm()(x)[:, -1])


class Recurrent(nn.Module):
    """A recurrent cell over a sequence, and scores of its last state."""

    cell: type[nn.RNNCellBase]
    width: int
    classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = nn.RNN(self.cell(self.width, param_dtype=self.dtype))(x)
        return nn.Dense(self.classes)(x[:, -1])


def vgg16(tiny: bool = False) -> Network:
    stages = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
    if tiny:
        return network(VGG(((4,), (6,)), (8,), 5), 1, 8, 8, 3, gain=2.0)
    return network(VGG(stages, (4096, 4096), 1000), 1, 224, 224, 3, gain=2.0)


def resnet18(tiny: bool = False) -> Network:
    stages = ((64, 2), (128, 2), (256, 2), (512, 2))
    if tiny:
        return network(ResNet(((4, 1), (6, 1)), 5), 1, 16, 16, 3, gain=2.0)
    return network(ResNet(stages, 1000), 1, 224, 224, 3, gain=2.0)


def resnet50(tiny: bool = False) -> Network:
    stages = ((64, 3), (128, 4), (256, 6), (512, 3))
    if tiny:
        return network(
            ResNet(((4, 1), (6, 1)), 5, block=Bottleneck), 1, 16, 16, 3, gain=2.0
        )
    return network(ResNet(stages, 1000, block=Bottleneck), 1, 224, 224, 3, gain=2.0)


def vit(tiny: bool = False) -> Network:
    """ViT-S/16."""
    if tiny:
        return network(ViT(4, 8, 2, 2, 5), 1, 8, 8, 3)
    return network(ViT(16, 384, 6, 12, 1000), 1, 224, 224, 3)


def vit_b(tiny: bool = False) -> Network:
    """ViT-B/16."""
    if tiny:
        return network(ViT(4, 12, 3, 2, 5), 1, 8, 8, 3)
    return network(ViT(16, 768, 12, 12, 1000), 1, 224, 224, 3)


def bert(tiny: bool = False) -> Network:
    """The base size, 128 tokens of which 16 are padding."""
    if tiny:
        return network(Bert(8, 2, 2, 2, 1), 1, 5, 8)
    return network(Bert(768, 12, 12, 2, 16), 1, 128, 768)


def llama(tiny: bool = False) -> Network:
    """12 layers of width 768, 12 heads in 4 groups, 256 tokens."""
    if tiny:
        return network(Llama(8, 4, 2, 12, 2, 7), 1, 5, 8)
    return network(Llama(768, 12, 4, 2048, 12, 32000), 1, 256, 768)


def lstm(tiny: bool = False) -> Network:
    """200 steps of width 256."""
    if tiny:
        return network(Recurrent(nn.OptimizedLSTMCell, 6, 3), 1, 5, 4)
    return network(Recurrent(nn.OptimizedLSTMCell, 256, 10), 1, 200, 256)


def mamba(tiny: bool = False) -> Network:
    """4 layers of Mamba-130m: width 768, 16 states, 128 tokens."""
    if tiny:
        return network(Mamba(3, 2, 2, 7), 1, 5, 4)
    return network(Mamba(16, 48, 4, 50280), 1, 128, 768)


def deep(tiny: bool = False, *, scan: bool = False) -> Network:
    """24 layers of width 512, 8 heads in 4 groups, 128 tokens."""
    if tiny:
        return network(Llama(8, 4, 2, 12, 3, 7, scan), 1, 5, 8)
    return network(Llama(512, 8, 4, 1376, 24, 1000, scan), 1, 128, 512)


MODELS: dict[str, Callable[[bool], Network]] = {
    "vgg16": vgg16,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "vit": vit,
    "vit-b": vit_b,
    "bert": bert,
    "llama": llama,
    "lstm": lstm,
    "mamba": mamba,
}
"""Networks of usual size."""

DEEP: dict[str, Callable[[bool], Network]] = {
    "unrolled": deep,
    "scan": functools.partial(deep, scan=True),
}
"""One deep transformer, one layer after the other and by a loop over them."""
