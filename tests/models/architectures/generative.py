"""Generative networks: an autoencoder, denoising, a flow, a radiance field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from tests.models.architectures._base import Architecture, Built, floats
from tests.models.architectures.vision import Image, image


class VAE(nn.Module):
    """Encodes an image, draws a latent with fixed noise, decodes it to [0, 1]."""

    widths: Sequence[int]
    latent: int

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        for width in self.widths:
            x = nn.relu(nn.Conv(width, (3, 3), (2, 2))(x))
        shape = x.shape
        x = x.reshape(len(x), -1)
        mean, spread = nn.Dense(self.latent)(x), nn.Dense(self.latent)(x)
        noise = jax.random.normal(jax.random.key(0), mean.shape, mean.dtype)
        x = mean + jnp.exp(0.5 * spread) * noise
        x = nn.relu(nn.Dense(math.prod(shape[1:]))(x)).reshape(shape)
        for width in self.widths[-2::-1]:
            x = nn.relu(nn.ConvTranspose(width, (3, 3), (2, 2))(x))
        return nn.sigmoid(nn.ConvTranspose(channels, (3, 3), (2, 2))(x))


class DenoisingUNet(nn.Module):
    """DDPM's network at one time: residual blocks, attention, skips concatenated.

    Attributes:
      width: of the first level.
      levels: widths of levels, in units of the first.
      blocks: residual blocks in a level.
      attention: levels with attention.
      groups: of the group norms.
      time: of the diffusion.
    """

    width: int
    levels: Sequence[int]
    blocks: int
    attention: Sequence[int]
    groups: int
    time: float = 10.0

    @nn.compact
    def __call__(self, x):
        channels, half = x.shape[-1], self.width // 2
        angle = self.time * np.exp(-math.log(10000) / (half - 1) * np.arange(half))
        time = jnp.asarray(np.concatenate([np.sin(angle), np.cos(angle)]), x.dtype)
        time = nn.Dense(4 * self.width)(nn.silu(nn.Dense(4 * self.width)(time)))

        def norm(h):
            return nn.GroupNorm(self.groups)(h)

        def block(h, width):
            y = nn.Conv(width, (3, 3))(nn.silu(norm(h)))
            y = y + nn.Dense(width)(nn.silu(time))
            y = nn.Conv(width, (3, 3))(nn.silu(norm(y)))
            return y + (h if h.shape == y.shape else nn.Dense(width)(h))

        def attend(h):
            y = norm(h).reshape(len(h), -1, h.shape[-1])
            q, k, v = (nn.Dense(h.shape[-1])(y) for _ in range(3))
            weights = nn.softmax(q @ k.swapaxes(1, 2) / math.sqrt(h.shape[-1]))
            return h + nn.Dense(h.shape[-1])(weights @ v).reshape(h.shape)

        x = nn.Conv(self.width, (3, 3))(x)
        skips = [x]
        for i, factor in enumerate(self.levels):
            for _ in range(self.blocks):
                x = block(x, factor * self.width)
                x = attend(x) if i in self.attention else x
                skips.append(x)
            if i < len(self.levels) - 1:
                x = nn.Conv(x.shape[-1], (3, 3), (2, 2))(x)
                skips.append(x)
        x = block(attend(block(x, x.shape[-1])), x.shape[-1])
        for i, factor in reversed(list(enumerate(self.levels))):
            for _ in range(self.blocks + 1):
                x = block(jnp.concatenate([x, skips.pop()], -1), factor * self.width)
                x = attend(x) if i in self.attention else x
            if i:
                size = (len(x), 2 * x.shape[1], 2 * x.shape[2], x.shape[-1])
                x = nn.Conv(x.shape[-1], (3, 3))(jax.image.resize(x, size, "nearest"))
        return nn.Conv(channels, (3, 3))(nn.silu(norm(x)))


class Flow(nn.Module):
    """Real NVP: the logarithm of a density, through affine couplings."""

    hidden: int
    couplings: int

    @nn.compact
    def __call__(self, x):
        volume = 0.0
        for _ in range(self.couplings):
            kept, moved = jnp.split(x, 2, -1)
            h = nn.relu(nn.Dense(self.hidden)(kept))
            scale, shift = jnp.split(nn.Dense(x.shape[-1])(h), 2, -1)
            scale = jnp.tanh(scale)
            x = jnp.concatenate([moved * jnp.exp(scale) + shift, kept], -1)
            volume = volume + scale.sum(-1)
        return -0.5 * (x**2).sum(-1, keepdims=True) + jnp.expand_dims(volume, -1)


@dataclasses.dataclass(frozen=True)
class Field:
    """A radiance field and the rays that look into it.

    Attributes:
      width: of the layers.
      layers: how many.
      skip: the layer to which the place is given again.
      bands: frequencies of a place, and of a direction.
      rays: how many.
      samples: places on a ray.
    """

    width: int
    layers: int
    skip: int
    bands: tuple[int, int]
    rays: int
    samples: int


def waves(x: jax.Array, bands: int) -> jax.Array:
    """x and sines and cosines of its multiples."""
    angle = x[..., None] * 2.0 ** np.arange(bands)
    angle = angle.reshape(*x.shape[:-1], -1)
    return jnp.concatenate([x, jnp.sin(angle), jnp.cos(angle)], -1)


class NeRF(nn.Module):
    """Density and colour of places, composed along the ray."""

    field: Field

    @nn.compact
    def __call__(self, inputs):
        f = self.field
        places = waves(inputs["places"], f.bands[0])
        h = places
        for i in range(f.layers):
            h = nn.relu(nn.Dense(f.width)(h))
            h = jnp.concatenate([places, h], -1) if i == f.skip else h
        density = nn.relu(nn.Dense(1, name="density")(h)[..., 0])
        h = nn.Dense(f.width, name="feature")(h)
        looks = waves(inputs["directions"], f.bands[1])[:, None]
        looks = jnp.broadcast_to(looks, (*h.shape[:2], looks.shape[-1]))
        h = nn.relu(nn.Dense(f.width // 2)(jnp.concatenate([h, looks], -1)))
        colour = nn.sigmoid(nn.Dense(3, name="colour")(h))
        opacity = 1 - jnp.exp(-density / f.samples)
        clear = jnp.cumprod(1 - opacity + 1e-10, -1)
        clear = jnp.concatenate([jnp.ones_like(clear[:, :1]), clear[:, :-1]], -1)
        return ((opacity * clear)[..., None] * colour).sum(1)


def field(config: Field) -> Built:
    inputs = {
        "places": floats(config.rays, config.samples, 3),
        "directions": floats(config.rays, 3),
    }
    return Built(NeRF(config), inputs)


@dataclasses.dataclass(frozen=True)
class Density:
    features: int
    hidden: int
    couplings: int


def flow(config: Density) -> Built:
    return Built(Flow(config.hidden, config.couplings), floats(1, config.features))


ARCHITECTURES = (
    Architecture(
        "VAE",
        "generative",
        image,
        Image(VAE, ((4, 6), 3), 8),
        Image(VAE, ((32, 64, 128, 256), 128), 64),
        target="all",
        note="the pixel's sigmoid passes relevance on to what it is of, biases "
        "and all: where that is small, its factor is large. The noise is a constant.",
        gain=2.0,
    ),
    Architecture(
        "DDPM (CIFAR-10)",
        "generative",
        image,
        Image(DenoisingUNet, (4, (1, 2), 1, (1,), 2), 4),
        Image(DenoisingUNet, (128, (1, 2, 2, 2), 2, (1,), 32), 32),
        35.746,
        note="the time is a constant, as are biases; softmax is expanded.",
    ),
    Architecture(
        "Real NVP",
        "generative",
        flow,
        Density(4, 6, 2),
        Density(64, 512, 8),
        note="the factor `exp(scale)` is never negative and held; shifts take part.",
    ),
    Architecture(
        "NeRF",
        "neural fields",
        field,
        Field(8, 3, 1, (2, 1), 2, 4),
        Field(256, 8, 4, (10, 4), 1024, 64),
        0.5958,
        note="transmittance is a product along the ray of one minus an opacity each: "
        "the ones are constants. Cosines of a place do not vanish at zero.",
    ),
)
"""Generative networks and fields."""
