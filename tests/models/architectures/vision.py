"""Networks for images: convolutions, mixers, capsules, and the way back to pixels."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tests.models.architectures._base import Architecture, Built, floats
from tests.models.usual import VGG


@dataclasses.dataclass(frozen=True)
class Image:
    """A network and the image that it takes.

    Attributes:
      module: from its arguments to a module.
      arguments: its arguments.
      size: height and width of the image.
      channels: of the image.
    """

    module: Any
    arguments: tuple[Any, ...]
    size: int
    channels: int = 3


def image(config: Image) -> Built:
    x = floats(1, config.size, config.size, config.channels)
    return Built(config.module(*config.arguments), x)


batch_norm = functools.partial(nn.BatchNorm, use_running_average=True)


class Bottleneck(nn.Module):
    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(nn.Conv, use_bias=False)
        strides = (self.stride, self.stride)
        h = nn.relu(batch_norm()(conv(self.features, (1, 1))(x)))
        h = conv(self.features, (3, 3), strides=strides, padding=1)(h)
        h = conv(4 * self.features, (1, 1))(nn.relu(batch_norm()(h)))
        h = batch_norm()(h)
        if x.shape != h.shape:
            x = batch_norm()(conv(4 * self.features, (1, 1), strides=strides)(x))
        return nn.relu(x + h)


class ResNet(nn.Module):
    """Bottlenecks behind a strided stem."""

    stages: Sequence[int]
    width: int
    classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.width, (7, 7), (2, 2), padding=3, use_bias=False)(x)
        x = nn.relu(batch_norm()(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for i, blocks in enumerate(self.stages):
            for j in range(blocks):
                stride = 2 if i and not j else 1
                x = Bottleneck(self.width * 2**i, stride)(x)
        return nn.Dense(self.classes)(x.mean((1, 2)))


class InvertedBottleneck(nn.Module):
    """EfficientNetV2's block; `fused`: one convolution expands and looks around."""

    features: int
    expand: int
    stride: int
    fused: bool

    @nn.compact
    def __call__(self, x):
        width, strides = x.shape[-1] * self.expand, (self.stride, self.stride)

        def conv(h, features, size, active=True, **options):
            h = nn.Conv(features, (size, size), use_bias=False, **options)(h)
            h = batch_norm(epsilon=1e-3)(h)
            return nn.silu(h) if active else h

        if self.fused:
            out = self.features if self.expand == 1 else width
            h = conv(x, out, 3, strides=strides)
            if self.expand != 1:
                h = conv(h, self.features, 1, active=False)
        else:
            h = conv(x, width, 1)
            h = conv(h, width, 3, strides=strides, feature_group_count=width)
            squeezed = h.mean((1, 2), keepdims=True)
            squeezed = nn.silu(nn.Dense(max(1, x.shape[-1] // 4))(squeezed))
            h = h * nn.sigmoid(nn.Dense(width)(squeezed))
            h = conv(h, self.features, 1, active=False)
        return x + h if x.shape == h.shape else h


class EfficientNetV2(nn.Module):
    """Stages as (fused, expansion, stride, features, blocks)."""

    stages: Sequence[tuple[bool, int, int, int, int]]
    head: int
    classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.stages[0][3], (3, 3), (2, 2), use_bias=False)(x)
        x = nn.silu(batch_norm(epsilon=1e-3)(x))
        for fused, expand, stride, features, blocks in self.stages:
            for i in range(blocks):
                x = InvertedBottleneck(features, expand, 1 if i else stride, fused)(x)
        x = nn.Conv(self.head, (1, 1), use_bias=False)(x)
        x = nn.silu(batch_norm(epsilon=1e-3)(x))
        return nn.Dense(self.classes)(x.mean((1, 2)))


EFFICIENTNET_M = (
    (True, 1, 1, 24, 3),
    (True, 4, 2, 48, 5),
    (True, 4, 2, 80, 5),
    (False, 4, 2, 160, 7),
    (False, 6, 1, 176, 14),
    (False, 6, 2, 304, 18),
    (False, 6, 1, 512, 5),
)


class ConvNeXt(nn.Module):
    """Depthwise convolutions, layer norm, a wide GELU part, layer scale."""

    depths: Sequence[int]
    width: int
    classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(self.width, (4, 4), (4, 4))(x))
        for i, depth in enumerate(self.depths):
            width = self.width * 2**i
            if i:
                x = nn.Conv(width, (2, 2), (2, 2))(nn.LayerNorm()(x))
            for j in range(depth):
                h = nn.Conv(width, (7, 7), feature_group_count=width)(x)
                h = nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(h)), approximate=False)
                h = nn.Dense(width)(h)
                ones = nn.initializers.ones
                x = x + self.param(f"scale{i}_{j}", ones, (width,)) * h
        return nn.Dense(self.classes)(nn.LayerNorm()(x.mean((1, 2))))


class Mixer(nn.Module):
    """MLP-Mixer: dense layers over patches, then over channels."""

    patch: int
    width: int
    tokens: int
    channels: int
    layers: int
    classes: int

    @nn.compact
    def __call__(self, x):
        size = (self.patch, self.patch)
        x = nn.Conv(self.width, size, size)(x).reshape(len(x), -1, self.width)

        def mlp(h, hidden):
            return nn.Dense(h.shape[-1])(nn.gelu(nn.Dense(hidden)(h)))

        for _ in range(self.layers):
            h = nn.LayerNorm()(x).swapaxes(1, 2)
            x = x + mlp(h, self.tokens).swapaxes(1, 2)
            x = x + mlp(nn.LayerNorm()(x), self.channels)
        return nn.Dense(self.classes)(nn.LayerNorm()(x).mean(1))


class UNet(nn.Module):
    """Down by max pooling, up by transposed convolutions, skips concatenated."""

    widths: Sequence[int]
    classes: int

    @nn.compact
    def __call__(self, x):
        def double(h, width):
            for _ in range(2):
                h = nn.relu(nn.Conv(width, (3, 3))(h))
            return h

        skips = []
        for width in self.widths[:-1]:
            x = double(x, width)
            skips.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = double(x, self.widths[-1])
        for width, skip in zip(self.widths[-2::-1], skips[::-1], strict=True):
            x = nn.ConvTranspose(width, (2, 2), (2, 2))(x)
            x = double(jnp.concatenate([skip, x], -1), width)
        return nn.Conv(self.classes, (1, 1))(x)


def squash(x: jax.Array) -> jax.Array:
    """Shrinks a vector's length to below one; its direction stays."""
    square = (x**2).sum(-1, keepdims=True)
    return square / (1 + square) * x / jnp.sqrt(square + 1e-9)


class Capsules(nn.Module):
    """Dynamic routing between capsules; the scores are lengths."""

    width: int
    kernel: int
    dims: tuple[int, int]
    classes: int
    rounds: int = 3

    @nn.compact
    def __call__(self, x):
        size = (self.kernel, self.kernel)
        x = nn.relu(nn.Conv(self.width, size, padding="VALID")(x))
        x = nn.Conv(self.width, size, (2, 2), padding="VALID")(x)
        x = squash(x.reshape(len(x), -1, self.dims[0]))
        shape = (x.shape[1], self.classes, self.dims[1], self.dims[0])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        votes = jnp.einsum("iokd,bid->biok", kernel, x)
        logits = jnp.zeros(votes.shape[:3], votes.dtype)
        for i in range(self.rounds):
            out = squash((nn.softmax(logits)[..., None] * votes).sum(1))
            if i < self.rounds - 1:
                logits = logits + jnp.einsum("biok,bok->bio", votes, out)
        return jnp.sqrt((out**2).sum(-1) + 1e-9)


VGG16 = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)

PIECEWISE = (
    "what does not arrive is on biases, batch norms' shifts included, which are large "
    "in a random network."
)

ARCHITECTURES = (
    Architecture(
        "VGG16",
        "convolutional networks",
        image,
        Image(VGG, (((4,), (6,)), (8,), 5), 8),
        Image(VGG, (VGG16, (4096, 4096), 1000), 224),
        138.36,
        note=PIECEWISE,
        gain=2.0,
    ),
    Architecture(
        "ResNet-50",
        "convolutional networks",
        image,
        Image(ResNet, ((1, 1), 4, 5), 16),
        Image(ResNet, ((3, 4, 6, 3), 64, 1000), 224),
        25.557,
        note=PIECEWISE,
        gain=2.0,
    ),
    Architecture(
        "EfficientNetV2-M",
        "convolutional networks",
        image,
        Image(EfficientNetV2, (((True, 2, 1, 4, 1), (False, 2, 2, 6, 1)), 8, 5), 8),
        Image(EfficientNetV2, (EFFICIENTNET_M, 1280, 1000), 224),
        54.139,
        note=PIECEWISE,
        gain=2.0,
    ),
    Architecture(
        "ConvNeXt-T",
        "convolutional networks",
        image,
        Image(ConvNeXt, ((1, 1), 4, 5), 16),
        Image(ConvNeXt, ((3, 3, 9, 3), 96, 1000), 224),
        28.589,
        note=PIECEWISE,
    ),
    Architecture(
        "U-Net",
        "dense prediction",
        image,
        Image(UNet, ((4, 6, 8), 3), 8),
        Image(UNet, ((64, 128, 256, 512, 1024), 2), 256, 1),
        31.03,
        note=PIECEWISE,
        gain=2.0,
    ),
    Architecture(
        "MLP-Mixer-B/16",
        "mixers",
        image,
        Image(Mixer, (4, 8, 6, 12, 1, 5), 8),
        Image(Mixer, (16, 768, 384, 3072, 12, 1000), 224),
        59.88,
        note=PIECEWISE,
    ),
    Architecture(
        "CapsNet",
        "capsules",
        image,
        Image(Capsules, (8, 3, (4, 5), 3), 10, 1),
        Image(Capsules, (256, 9, (8, 16), 10), 28, 1),
        6.804,
        note="squashing holds the length and passes the direction's relevance; "
        "routing weights are a softmax of agreements: half of each product is "
        "expanded to first order.",
        gain=2.0,
    ),
)
"""Networks for images."""
