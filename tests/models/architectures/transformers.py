"""Transformers: one encoder and decoder by configuration, and what each model adds."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from tests.models.architectures._base import Architecture, Built, floats, tokens

ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": nn.relu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "silu": nn.silu,
}


@dataclasses.dataclass(frozen=True)
class Stack:
    """A stack of blocks.

    Attributes:
      width: of the residual stream.
      layers: how many blocks.
      heads: of the queries.
      hidden: units of the feed-forward part.
      groups: heads of keys and values; None is as many as queries.
      dim: width of a head; None is `width // heads`.
      norm: `layer`, `rms`, or `unit` (RMS whose scale is an offset from one).
      where: norms before the parts (`pre`), after the sum (`post`), before and after
        the parts (`both`), or one before both parts, which are added (`parallel`).
      activation: of the feed-forward part.
      gated: is the activation multiplied by a second projection?
      bias: have projections biases? `keyless`: all but the keys.
      causal: do positions see only those before?
      cross: is there attention to a memory?
      relative: buckets of the relative position bias, or 0 (T5).
      alibi: do scores fall with distance, in each head by its own slope (ALiBi)?
      theta: base of the rotary embedding, or 0.
      local: base of the rotary embedding in layers with a window.
      window: of local attention, or 0.
      period: every so manieth layer sees everything.
      qk_norm: are queries and keys normalised?
      scale: of the scores; None is `dim ** -0.5`.
      cap: scores are `cap * tanh(scores / cap)`, or 0.
      final: is there a norm at the end?
    """

    width: int
    layers: int
    heads: int
    hidden: int
    groups: int | None = None
    dim: int | None = None
    norm: str = "layer"
    where: str = "pre"
    activation: str = "gelu"
    gated: bool = False
    bias: bool | str = True
    causal: bool = False
    cross: bool = False
    relative: int = 0
    alibi: bool = False
    theta: float = 0.0
    local: float = 0.0
    window: int = 0
    period: int = 1
    qk_norm: bool = False
    scale: float | None = None
    cap: float = 0.0
    final: bool = True


class UnitRMSNorm(nn.Module):
    """RMS norm whose weight is added to one (Gemma)."""

    @nn.compact
    def __call__(self, x):
        weight = self.param("weight", nn.initializers.zeros, (x.shape[-1],), x.dtype)
        return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6) * (1 + weight)


def norm(kind: str, name: str | None = None) -> Any:
    """A normalisation over the last axis."""
    if kind == "layer":
        return nn.LayerNorm(name=name)
    return nn.RMSNorm(name=name) if kind == "rms" else UnitRMSNorm(name=name)


def rotary(x: jax.Array, theta: float) -> jax.Array:
    """Rotary embedding of 'batch token head dim', the halves of a head as pairs."""
    steps, dim = x.shape[1], x.shape[-1]
    angle = jnp.arange(steps)[:, None] * theta ** (-jnp.arange(0, dim, 2) / dim)
    cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    left, right = jnp.split(x, 2, -1)
    turned = [left * cos - right * sin, right * cos + left * sin]
    return jnp.concatenate(turned, -1).astype(x.dtype)


def buckets(queries: int, keys: int, count: int, both: bool) -> np.ndarray:
    """T5's buckets of relative positions: exact when near, logarithmic when far."""
    offset = np.arange(keys)[None] - np.arange(queries)[:, None]
    half = count // 2 if both else count
    start = np.where(offset > 0, half, 0) if both else 0
    offset = np.abs(offset) if both else np.maximum(-offset, 0)
    near = half // 2
    ratio = np.log(np.maximum(offset, 1) / near) / np.log(128 / near)
    far = np.minimum(near + (ratio * (half - near)).astype(int), half - 1)
    return start + np.where(offset < near, offset, far)


def slopes(heads: int) -> np.ndarray:
    """How fast the scores of each head fall with distance, a geometric series."""
    return 2.0 ** (-8.0 / heads * np.arange(1, heads + 1))


class Attention(nn.Module):
    """Attention of `x` to itself or to a memory; heads in groups share their keys."""

    stack: Stack
    theta: float = 0.0

    @nn.compact
    def __call__(self, x, memory=None, mask=None, added=None):
        s = self.stack
        groups, dim = s.groups or s.heads, s.dim or s.width // s.heads
        memory = x if memory is None else memory

        def project(name, source, heads):
            bias = bool(s.bias) and not (s.bias == "keyless" and name == "key")
            h = nn.Dense(heads * dim, use_bias=bias, name=name)(source)
            return h.reshape(*source.shape[:2], heads, dim)

        q = project("query", x, s.heads)
        k, v = project("key", memory, groups), project("value", memory, groups)
        if s.qk_norm:
            q, k = norm(s.norm, "query_norm")(q), norm(s.norm, "key_norm")(k)
        if self.theta:
            q, k = rotary(q, self.theta), rotary(k, self.theta)
        q = q.reshape(*q.shape[:2], groups, s.heads // groups, dim)
        scale = dim**-0.5 if s.scale is None else s.scale
        scores = jnp.einsum("btgrd,bsgd->bgrts", q, k) * scale
        if s.cap:
            scores = s.cap * jnp.tanh(scores / s.cap)
        if added is not None:
            scores = scores + added.reshape(groups, -1, *added.shape[1:])
        if mask is not None:
            scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
        h = jnp.einsum("bgrts,bsgd->btgrd", nn.softmax(scores), v)
        h = h.reshape(*x.shape[:2], -1)
        return nn.Dense(s.width, use_bias=bool(s.bias), name="out")(h)


class FeedForward(nn.Module):
    stack: Stack

    @nn.compact
    def __call__(self, x):
        s = self.stack
        dense = functools.partial(nn.Dense, use_bias=bool(s.bias))
        h = ACTIVATIONS[s.activation](dense(s.hidden, name="up")(x))
        if s.gated:
            h = h * dense(s.hidden, name="gate")(x)
        return dense(s.width, name="down")(h)


class Block(nn.Module):
    """Attention, attention to a memory, a feed-forward part; each with a residual."""

    stack: Stack
    theta: float = 0.0

    @nn.compact
    def __call__(self, x, memory=None, mask=None, added=None):
        s = self.stack
        attend = Attention(s, self.theta, name="attention")
        if s.where == "parallel":
            h = norm(s.norm, "norm")(x)
            return x + attend(h, None, mask, added) + FeedForward(s, name="mlp")(h)
        x = self.part(x, "attention", lambda h: attend(h, None, mask, added))
        if s.cross:
            look = Attention(s, name="cross")
            x = self.part(x, "cross", lambda h: look(h, memory))
        return self.part(x, "mlp", FeedForward(s, name="mlp"))

    def part(self, x, name, f):
        s = self.stack
        if s.where == "post":
            return norm(s.norm, f"{name}_norm")(x + f(x))
        h = f(norm(s.norm, f"{name}_norm")(x))
        if s.where == "both":
            h = norm(s.norm, f"{name}_post_norm")(h)
        return x + h


class Blocks(nn.Module):
    """All blocks of a stack, and the norm behind them."""

    stack: Stack

    @nn.compact
    def __call__(self, x, memory=None, mask=None):
        s, steps = self.stack, x.shape[1]
        added = None
        if s.relative:
            table = nn.Embed(s.relative, s.heads, name="relative")
            added = table(buckets(steps, steps, s.relative, not s.causal))
            added = added.transpose(2, 0, 1)
        age = np.arange(steps)[:, None] - np.arange(steps)[None]
        if s.alibi:
            added = jnp.asarray(-slopes(s.heads)[:, None, None] * age, x.dtype)
        for i in range(s.layers):
            local = s.window and (i + 1) % s.period
            seen = age >= 0 if s.causal else np.full(age.shape, True)
            seen = seen & (age < s.window) if local else seen
            both = seen if mask is None else seen & mask
            theta = s.local if local else s.theta
            block = Block(s, theta, name=f"block{i}")
            x = block(x, memory, None if both is None or np.all(both) else both, added)
        return norm(s.norm, "final_norm")(x) if s.final else x


class Embed(nn.Module):
    """Embeddings of token ids; what is embedded already stays. Also the way back."""

    vocabulary: int
    width: int

    def setup(self):
        self.table = nn.Embed(self.vocabulary, self.width)

    def __call__(self, x):
        return self.table(x) if jnp.issubdtype(x.dtype, jnp.integer) else x

    def scores(self, x):
        return self.table.attend(x)


def learned(module: nn.Module, name: str, *shape: int) -> jax.Array:
    """A parameter that is added, as a position embedding is."""
    return module.param(name, nn.initializers.normal(0.02), shape)


# ---- language models -------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Language:
    """A decoder; scores of the token behind the last one.

    Attributes:
      stack: the blocks.
      vocabulary: of the tokens.
      length: of the text.
      positions: of the learned position embedding, or 0.
      normed: are embeddings normalised (BLOOM)?
      scaled: are embeddings multiplied by the root of their width (Gemma)?
      cap: of the scores, or 0 (Gemma 2).
      tied: are the scores made with the embeddings?
    """

    stack: Stack
    vocabulary: int
    length: int
    positions: int = 0
    normed: bool = False
    scaled: bool = False
    cap: float = 0.0
    tied: bool = True


class Decoder(nn.Module):
    config: Language

    @nn.compact
    def __call__(self, ids):
        c = self.config
        embed = Embed(c.vocabulary, c.stack.width, name="embed")
        x = embed(ids)
        if c.normed:
            x = norm(c.stack.norm, "embed_norm")(x)
        if c.scaled:
            x = x * math.sqrt(c.stack.width)
        if c.positions:
            x = x + learned(self, "positions", c.positions, c.stack.width)[: c.length]
        x = Blocks(c.stack, name="blocks")(x)[:, -1]
        if c.tied:
            scores = embed.scores(x)
        else:
            scores = nn.Dense(c.vocabulary, use_bias=False, name="head")(x)
        return c.cap * jnp.tanh(scores / c.cap) if c.cap else scores


def language(config: Language) -> Built:
    ids = tokens(1, config.length)
    return Built(Decoder(config), ids, config.vocabulary, config.stack.width)


LLAMA = Stack(
    2048,
    16,
    32,
    8192,
    groups=8,
    norm="rms",
    activation="silu",
    gated=True,
    bias=False,
    causal=True,
    theta=500000.0,
)
QWEN = dataclasses.replace(
    LLAMA,
    width=1024,
    layers=28,
    heads=16,
    hidden=3072,
    dim=128,
    theta=1e6,
    qk_norm=True,
)
GEMMA = Stack(
    640,
    18,
    4,
    2048,
    groups=1,
    dim=256,
    norm="unit",
    where="both",
    activation="gelu_tanh",
    gated=True,
    bias=False,
    causal=True,
    theta=1e6,
    local=1e4,
    window=512,
    period=6,
    qk_norm=True,
)
GEMMA2 = dataclasses.replace(
    GEMMA,
    width=2304,
    layers=26,
    heads=8,
    hidden=9216,
    groups=4,
    theta=1e4,
    window=4096,
    period=2,
    qk_norm=False,
    cap=50.0,
)
MISTRAL = dataclasses.replace(
    LLAMA,
    width=4096,
    layers=32,
    hidden=14336,
    theta=1e4,
    local=1e4,
    window=4096,
    period=33,
)
FALCON = Stack(
    4544,
    32,
    71,
    18176,
    groups=1,
    where="parallel",
    bias=False,
    causal=True,
    theta=1e4,
)
BLOOM = Stack(1024, 24, 16, 4096, activation="gelu_tanh", causal=True, alibi=True)
GPT2 = Stack(768, 12, 12, 3072, activation="gelu_tanh", causal=True)
SMALL = {"width": 16, "layers": 1, "heads": 4, "hidden": 24}


# ---- text encoders ---------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Text:
    """An encoder of text: tokens, their kind and position, norm, blocks.

    Attributes:
      stack: the blocks.
      vocabulary: of the tokens.
      length: of the text.
      positions: of the position embedding.
      padding: how many tokens at the end are none.
      classes: of the classifier over the first token, or 0: the mean over tokens,
        divided by its length, as sentence embeddings are.
    """

    stack: Stack
    vocabulary: int
    length: int
    positions: int
    padding: int
    classes: int = 0


class TextEncoder(nn.Module):
    config: Text

    @nn.compact
    def __call__(self, ids):
        c, width = self.config, self.config.stack.width
        x = Embed(c.vocabulary, width, name="embed")(ids)
        x = x + learned(self, "positions", c.positions, width)[: c.length]
        x = nn.LayerNorm()(x + learned(self, "kind", 1, width)[0])
        real = np.arange(c.length) < c.length - c.padding
        x = Blocks(c.stack, name="blocks")(x, mask=real[None])
        if c.classes:
            h = nn.tanh(nn.Dense(width, name="pool")(x[:, 0]))
            return nn.Dense(c.classes, name="head")(h)
        mean = (x * real[:, None]).sum(1) / real.sum()
        return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


def text(config: Text) -> Built:
    ids = tokens(1, config.length)
    return Built(TextEncoder(config), ids, config.vocabulary, config.stack.width)


ROBERTA = Stack(1024, 24, 16, 4096, where="post", final=False)
MINILM = Stack(384, 6, 12, 1536, where="post", final=False)


# ---- vision and sound ------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Vision:
    stack: Stack
    size: int
    patch: int
    classes: int


class ViT(nn.Module):
    config: Vision

    @nn.compact
    def __call__(self, x):
        c, width = self.config, self.config.stack.width
        x = patches(x, c.patch, width)
        cls = jnp.broadcast_to(learned(self, "cls", 1, 1, width), (len(x), 1, width))
        x = jnp.concatenate([cls, x], 1)
        x = x + learned(self, "positions", *x.shape[1:])
        x = Blocks(c.stack, name="blocks")(x)
        return nn.Dense(c.classes, name="head")(x[:, 0])


def patches(x: jax.Array, patch: int, width: int) -> jax.Array:
    """Patches of an image, embedded: 'batch patch width'."""
    size = (patch, patch)
    x = nn.Conv(width, size, size, padding="VALID", name="patches")(x)
    return x.reshape(len(x), -1, width)


def vit(config: Vision) -> Built:
    return Built(ViT(config), floats(1, config.size, config.size, 3))


@dataclasses.dataclass(frozen=True)
class Pair:
    """SigLIP: an image and a text."""

    image: Vision
    vocabulary: int
    length: int


class SigLIP(nn.Module):
    """Similarity of images and texts: the cosine of their embeddings, scaled."""

    config: Pair

    @nn.compact
    def __call__(self, inputs):
        c, s = self.config, self.config.image.stack
        x = patches(inputs["image"], c.image.patch, s.width)
        x = x + learned(self, "image_positions", *x.shape[1:])
        x = Blocks(s, name="image")(x)
        probe = learned(self, "probe", 1, 1, s.width)
        probe = jnp.broadcast_to(probe, (len(x), 1, s.width))
        h = Attention(s, name="pool")(probe, x)
        image = (h + FeedForward(s, name="pool_mlp")(nn.LayerNorm()(h)))[:, 0]
        y = Embed(c.vocabulary, s.width, name="embed")(inputs["ids"])
        y = y + learned(self, "text_positions", c.length, s.width)
        y = nn.Dense(s.width, name="text_head")(Blocks(s, name="text")(y)[:, -1])
        image, y = (v / jnp.linalg.norm(v, axis=-1, keepdims=True) for v in (image, y))
        scale = self.param("scale", nn.initializers.ones, ())
        bias = self.param("bias", nn.initializers.zeros, ())
        return image @ y.T * jnp.exp(scale) + bias


def siglip(config: Pair) -> Built:
    image = floats(1, config.image.size, config.image.size, 3)
    inputs = {"image": image, "ids": tokens(2, config.length)}
    return Built(SigLIP(config), inputs, config.vocabulary, config.image.stack.width)


SO400M = Stack(1152, 27, 16, 4304, activation="gelu_tanh")


@dataclasses.dataclass(frozen=True)
class Speech:
    """wav2vec 2: convolutions as (features, kernel, stride) over a wave."""

    stack: Stack
    convolutions: tuple[tuple[int, int, int], ...]
    samples: int
    kernel: int
    groups: int
    classes: int = 0


class Wav2Vec2(nn.Module):
    """Normalised convolutions, a convolution for positions, pre-norm blocks.

    The kernel of that convolution is normalised over all but its width.
    """

    config: Speech

    @nn.compact
    def __call__(self, x):
        c, width = self.config, self.config.stack.width
        x = x[..., None]
        for features, kernel, stride in c.convolutions:
            x = nn.Conv(features, (kernel,), (stride,), padding="VALID")(x)
            x = ACTIVATIONS["gelu"](nn.LayerNorm()(x))
        x = nn.Dense(width, name="project")(nn.LayerNorm()(x))
        shape = (c.kernel, width // c.groups, width)
        direction = self.param("position_kernel", nn.initializers.lecun_normal(), shape)
        length = self.param("position_scale", nn.initializers.ones, (c.kernel, 1, 1))
        bias = self.param("position_bias", nn.initializers.zeros, (width,))
        size = jnp.sqrt((direction**2).sum((1, 2), keepdims=True))
        position = jax.lax.conv_general_dilated(
            x,
            direction / size * length,
            (1,),
            [(c.kernel // 2, c.kernel // 2)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=c.groups,
        )
        position = position[:, : -1 if c.kernel % 2 == 0 else None] + bias
        x = x + ACTIVATIONS["gelu"](position)
        x = Blocks(c.stack, name="blocks")(x)
        return nn.Dense(c.classes, name="head")(x.mean(1)) if c.classes else x


def speech(config: Speech) -> Built:
    return Built(Wav2Vec2(config), floats(1, config.samples))


XLSR = Stack(1024, 24, 16, 4096)
XLSR_CONVOLUTIONS = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)


# ---- encoder and decoder ---------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Translation:
    """T5, Pix2Struct and Whisper; scores of the token behind the decoder's last.

    Attributes:
      encoder: its blocks.
      decoder: its blocks.
      vocabulary: of the tokens.
      source: what is encoded, its shape: (tokens,), (patches, pixels), or (frames,
        mels).
      length: of the decoder's tokens.
      kind: `text`, `patches` or `sound`.
      positions: of patches, or of the decoder's position embedding.
    """

    encoder: Stack
    decoder: Stack
    vocabulary: int
    source: tuple[int, ...]
    length: int
    kind: str = "text"
    positions: int = 0


class Translator(nn.Module):
    config: Translation

    @nn.compact
    def __call__(self, inputs):
        c, width = self.config, self.config.encoder.width
        shared = Embed(c.vocabulary, width, name="embed")
        x, ids = inputs["source"], inputs["ids"]
        if c.kind == "text":
            x = shared(x)
        elif c.kind == "patches":
            x = nn.Dense(width, name="patches")(x)
            side = math.isqrt(len(x[0]))
            place = np.arange(side * side)
            x = x + learned(self, "rows", c.positions, width)[place // side]
            x = x + learned(self, "columns", c.positions, width)[place % side]
        else:
            x = ACTIVATIONS["gelu"](nn.Conv(width, (3,), padding=1)(x))
            x = ACTIVATIONS["gelu"](nn.Conv(width, (3,), 2, padding=1)(x))
            x = x + sinusoids(x.shape[1], width)
        memory = Blocks(c.encoder, name="encoder")(x)
        y = shared(ids)
        if c.kind == "sound":
            y = y + learned(self, "positions", c.positions, width)[: c.length]
        y = Blocks(c.decoder, name="decoder")(y, memory)[:, -1]
        if c.kind == "sound":
            return shared.scores(y)
        return nn.Dense(c.vocabulary, use_bias=False, name="head")(y)


def sinusoids(length: int, width: int) -> np.ndarray:
    frequency = np.exp(-math.log(10000) / (width // 2 - 1) * np.arange(width // 2))
    angle = np.arange(length)[:, None] * frequency
    return np.concatenate([np.sin(angle), np.cos(angle)], 1).astype(np.float32)


def translation(config: Translation) -> Built:
    source = (tokens if config.kind == "text" else floats)(1, *config.source)
    inputs = {"source": source, "ids": tokens(1, config.length)}
    return Built(Translator(config), inputs, config.vocabulary, config.encoder.width)


T5 = Stack(
    1024,
    24,
    16,
    2816,
    norm="rms",
    activation="gelu_tanh",
    gated=True,
    bias=False,
    relative=32,
    scale=1.0,
)
PIX2STRUCT = dataclasses.replace(T5, width=768, layers=12, heads=12, hidden=2048)
WHISPER = Stack(768, 12, 12, 3072, bias="keyless")


def decoder(stack: Stack) -> Stack:
    return dataclasses.replace(stack, causal=True, cross=True)


def small(stack: Stack, **changes: Any) -> Stack:
    return dataclasses.replace(stack, **{**SMALL, **changes})


_LLAMA_SMALL = {"groups": 2, "dim": 4}
_GEMMA_SMALL = {"layers": 2, "groups": 1, "dim": 4, "window": 3, "period": 2}

ATTENTION = (
    "half of what arrives at attention goes to its weights. Of that, softmax passes on "
    "how scores and relevance vary together, `sum_i x_i (R_i - y_i sum_k R_k)`; the "
    "rest is *Taylor*. `composites.CPLRP()` gives all of it to the values. Positions "
    "and biases are constants."
)

ARCHITECTURES = (
    Architecture(
        "GPT-2",
        "decoders",
        language,
        Language(small(GPT2), 29, 6, positions=8),
        Language(GPT2, 50257, 1024, positions=1024),
        124.44,
        note=ATTENTION,
    ),
    Architecture(
        "Llama-3.2-1B",
        "decoders",
        language,
        Language(small(LLAMA, **_LLAMA_SMALL), 29, 6),
        Language(LLAMA, 128256, 2048),
        1235.8,
        note=ATTENTION,
    ),
    Architecture(
        "Gemma-3-270M",
        "decoders",
        language,
        Language(small(GEMMA, **_GEMMA_SMALL), 29, 6, scaled=True),
        Language(GEMMA, 262144, 2048, scaled=True),
        268.1,
        note=ATTENTION,
    ),
    Architecture(
        "Gemma-2-2B",
        "decoders",
        language,
        Language(small(GEMMA2, **_GEMMA_SMALL), 29, 6, scaled=True, cap=30.0),
        Language(GEMMA2, 256000, 4608, scaled=True, cap=30.0),
        2614.3,
        note=ATTENTION,
    ),
    Architecture(
        "Qwen3-0.6B",
        "decoders",
        language,
        Language(small(QWEN, **_LLAMA_SMALL), 29, 6),
        Language(QWEN, 151936, 2048),
        596.05,
        note=ATTENTION,
    ),
    Architecture(
        "Mistral-7B",
        "decoders",
        language,
        Language(small(MISTRAL, **_LLAMA_SMALL, window=3), 29, 6, tied=False),
        Language(MISTRAL, 32000, 8192, tied=False),
        7241.7,
        note=ATTENTION,
    ),
    Architecture(
        "Falcon-7B",
        "decoders",
        language,
        Language(small(FALCON), 29, 6),
        Language(FALCON, 65024, 2048),
        6921.7,
        note=ATTENTION,
    ),
    Architecture(
        "BLOOM-560M",
        "decoders",
        language,
        Language(small(BLOOM), 29, 6, normed=True),
        Language(BLOOM, 250880, 2048, normed=True),
        559.21,
        note=ATTENTION,
    ),
    Architecture(
        "RoBERTa-large",
        "encoders",
        text,
        Text(small(ROBERTA), 29, 6, 8, 1, 3),
        Text(ROBERTA, 50265, 512, 514, 16, 2),
        355.36,
        note=ATTENTION,
    ),
    Architecture(
        "all-MiniLM-L6",
        "encoders",
        text,
        Text(small(MINILM), 29, 6, 8, 1),
        Text(MINILM, 30522, 256, 512, 16),
        22.57,
        note=ATTENTION,
    ),
    Architecture(
        "ViT-B/16",
        "vision transformers",
        vit,
        Vision(small(GPT2, causal=False), 8, 4, 5),
        Vision(Stack(768, 12, 12, 3072), 224, 16, 1000),
        86.57,
        note=ATTENTION,
    ),
    Architecture(
        "SigLIP-2 So400m",
        "vision transformers",
        siglip,
        Pair(Vision(small(SO400M), 8, 4, 0), 29, 5),
        Pair(Vision(SO400M, 384, 14, 0), 256000, 64),
        1136.0,
        note=ATTENTION,
    ),
    Architecture(
        "Wav2Vec2 XLS-R 300M",
        "speech",
        speech,
        Speech(small(XLSR), ((8, 4, 3), (8, 3, 2)), 48, 4, 2, 3),
        Speech(XLSR, XLSR_CONVOLUTIONS, 16000, 128, 16),
        315.44,
        note=ATTENTION,
    ),
    Architecture(
        "Whisper small",
        "speech",
        translation,
        Translation(
            small(WHISPER), decoder(small(WHISPER)), 29, (12, 5), 4, "sound", 8
        ),
        Translation(WHISPER, decoder(WHISPER), 51865, (3000, 80), 448, "sound", 448),
        241.7,
        note=ATTENTION,
    ),
    Architecture(
        "Flan-T5-large",
        "encoders with decoders",
        translation,
        Translation(small(T5), decoder(small(T5)), 29, (6,), 4),
        Translation(T5, decoder(T5), 32128, (512,), 512),
        783.15,
        note=ATTENTION,
    ),
    Architecture(
        "DePlot (Pix2Struct)",
        "encoders with decoders",
        translation,
        Translation(
            small(T5, relative=0), decoder(small(T5)), 29, (9, 12), 4, "patches", 5
        ),
        Translation(
            dataclasses.replace(PIX2STRUCT, relative=0),
            decoder(PIX2STRUCT),
            50244,
            (2025, 768),
            512,
            "patches",
            4096,
        ),
        282.3,
        note=ATTENTION,
    ),
)
"""Transformers."""
