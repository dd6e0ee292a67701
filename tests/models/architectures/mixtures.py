"""Other ways to mix tokens: experts, Fourier transforms, latents."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from tests.models.architectures._base import Architecture, Built, floats, tokens
from tests.models.architectures.transformers import (
    ATTENTION,
    LLAMA,
    Attention,
    Embed,
    FeedForward,
    Stack,
    learned,
    small,
)


@dataclasses.dataclass(frozen=True)
class Experts:
    """A decoder whose feed-forward parts are `chosen` of `experts` for each token."""

    stack: Stack
    experts: int
    chosen: int
    vocabulary: int
    length: int


class Mixture(nn.Module):
    """Tokens sorted by expert, one ragged product for all, and the way back."""

    config: Experts

    @nn.compact
    def __call__(self, x):
        c, s = self.config, self.config.stack
        flat = x.reshape(-1, s.width)
        logits = nn.Dense(c.experts, use_bias=False, name="router")(flat)
        weights, experts = jax.lax.top_k(nn.softmax(logits), c.chosen)
        weights = weights / weights.sum(-1, keepdims=True)
        order = jnp.argsort(experts.reshape(-1))
        sizes = jnp.bincount(experts.reshape(-1), length=c.experts).astype(jnp.int32)
        h = flat[order // c.chosen]

        def kernel(name, *shape):
            init = nn.initializers.lecun_normal()
            return self.param(f"{name}_kernel", init, (c.experts, *shape))

        gate = jax.lax.ragged_dot(h, kernel("gate", s.width, s.hidden), sizes)
        up = jax.lax.ragged_dot(h, kernel("up", s.width, s.hidden), sizes)
        h = nn.silu(gate) * up
        h = jax.lax.ragged_dot(h, kernel("down", s.hidden, s.width), sizes)
        h = h * weights.reshape(-1)[order][:, None]
        return jnp.zeros_like(flat).at[order // c.chosen].add(h).reshape(x.shape)


class ExpertDecoder(nn.Module):
    config: Experts

    @nn.compact
    def __call__(self, ids):
        c, s = self.config, self.config.stack
        x = Embed(c.vocabulary, s.width, name="embed")(ids)
        age = np.arange(c.length)[:, None] - np.arange(c.length)[None]
        for _ in range(s.layers):
            x = x + Attention(s, s.theta)(nn.RMSNorm()(x), None, age >= 0)
            x = x + Mixture(c)(nn.RMSNorm()(x))
        x = nn.RMSNorm()(x)[:, -1]
        return nn.Dense(c.vocabulary, use_bias=False, name="head")(x)


def experts(config: Experts) -> Built:
    ids = tokens(1, config.length)
    return Built(ExpertDecoder(config), ids, config.vocabulary, config.stack.width)


@dataclasses.dataclass(frozen=True)
class Fourier:
    width: int
    layers: int
    hidden: int
    vocabulary: int
    length: int
    classes: int


class FNet(nn.Module):
    """Tokens mixed by the real part of a two-dimensional Fourier transform."""

    config: Fourier

    @nn.compact
    def __call__(self, ids):
        c = self.config
        x = Embed(c.vocabulary, c.width, name="embed")(ids)
        x = x + learned(self, "positions", c.length, c.width)
        x = nn.LayerNorm()(x + learned(self, "kind", 4, c.width)[0])
        x = nn.Dense(c.width, name="project")(x)
        for _ in range(c.layers):
            x = nn.LayerNorm()(x + jnp.fft.fft2(x).real)
            h = nn.Dense(c.width)(nn.gelu(nn.Dense(c.hidden)(x)))
            x = nn.LayerNorm()(x + h)
        h = nn.tanh(nn.Dense(c.width, name="pool")(x[:, 0]))
        return nn.Dense(c.classes, name="head")(h)


def fourier(config: Fourier) -> Built:
    ids = tokens(1, config.length)
    return Built(FNet(config), ids, config.vocabulary, config.width)


@dataclasses.dataclass(frozen=True)
class Latents:
    """Perceiver IO: `latents` look at an image, then at themselves, `rounds` times."""

    stack: Stack
    latents: int
    rounds: int
    bands: int
    size: int
    classes: int


class Perceiver(nn.Module):
    config: Latents

    @nn.compact
    def __call__(self, x):
        c, s = self.config, self.config.stack
        axis = np.linspace(-1, 1, c.size)
        grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        angle = np.pi * grid[..., None] * np.linspace(1, c.size / 2, c.bands)
        place = np.concatenate([np.sin(angle), np.cos(angle), grid[..., None]], -1)
        place = jnp.asarray(place.reshape(len(grid), -1), x.dtype)
        x = x.reshape(len(x), -1, x.shape[-1])
        place = jnp.broadcast_to(place, (len(x), *place.shape))
        x = nn.LayerNorm()(jnp.concatenate([x, place], -1))
        h = learned(self, "latents", 1, c.latents, s.width)
        h = jnp.broadcast_to(h, (len(x), c.latents, s.width))

        def look(h, memory):
            h = h + Attention(s)(nn.LayerNorm()(h), memory)
            return h + FeedForward(s)(nn.LayerNorm()(h))

        h = look(h, x)
        parts = [(Attention(s), FeedForward(s)) for _ in range(s.layers)]
        for _ in range(c.rounds):
            for attend, feed in parts:
                h = h + attend(nn.LayerNorm()(h))
                h = h + feed(nn.LayerNorm()(h))
        query = learned(self, "query", 1, 1, s.width)
        query = jnp.broadcast_to(query, (len(x), 1, s.width))
        return nn.Dense(c.classes, name="head")(look(query, nn.LayerNorm()(h))[:, 0])


def perceiver(config: Latents) -> Built:
    return Built(Perceiver(config), floats(1, config.size, config.size, 3))


MIXTRAL = dataclasses.replace(
    LLAMA, width=4096, layers=32, hidden=14336, dim=128, theta=1e6
)
_PERCEIVER = Stack(1024, 6, 8, 1024)

ARCHITECTURES: tuple[Any, ...] = (
    Architecture(
        "Mixtral-8x7B",
        "mixtures of experts",
        experts,
        Experts(small(LLAMA, layers=1, groups=2, dim=4), 4, 2, 29, 6),
        Experts(MIXTRAL, 8, 2, 32000, 1024),
        46702.8,
        note=f"{ATTENTION} So is the router's; the chosen weights are normalised, and "
        "their divisor is held.",
    ),
    Architecture(
        "FNet-base",
        "Fourier mixing",
        fourier,
        Fourier(8, 1, 12, 29, 6, 3),
        Fourier(768, 12, 3072, 32000, 512, 2),
        82.86,
        note="the transform is linear: exact. Biases and positions keep their part.",
    ),
    Architecture(
        "Perceiver",
        "latent transformers",
        perceiver,
        Latents(small(_PERCEIVER, layers=1), 3, 2, 2, 4, 3),
        Latents(_PERCEIVER, 512, 8, 64, 224, 1000),
        note=f"{ATTENTION} Latents, the query and the Fourier features of places are "
        "constants that the model starts from, and most of the output may be theirs.",
    ),
)
"""Other ways to mix tokens."""
