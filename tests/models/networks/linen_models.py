"""Small networks in Flax Linen; every function returns `(apply, params, x)`.

`params` are all variables of the module (weights and running statistics), `x` is a
float input: images are NHWC, texts and sequences are embeddings. Most are the modules
of `tests.models.usual` in small shapes.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn

from tests.models import usual as models
from tests.models.usual import network


class MLP(nn.Module):
    features: Sequence[int] = (12, 8, 4)
    bias: bool = True

    @nn.compact
    def __call__(self, x):
        for i, features in enumerate(self.features):
            x = nn.relu(x) if i else x
            x = nn.Dense(features, use_bias=self.bias)(x)
        return x


class UNet(nn.Module):
    """One level down and up, the skip concatenated; class scores for every pixel."""

    bias: bool = True

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), use_bias=self.bias)
        skip = nn.relu(conv(4)(x))
        x = nn.max_pool(skip, (2, 2), strides=(2, 2))
        x = nn.relu(conv(6)(x))
        x = nn.ConvTranspose(4, (2, 2), strides=(2, 2), use_bias=self.bias)(x)
        x = nn.relu(conv(4)(jnp.concatenate([skip, x], -1)))
        return nn.Conv(3, (1, 1), use_bias=self.bias)(x)


LlamaBlock = functools.partial(models.LlamaBlock, 8, 4, 2, 12)


class ScannedLayer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return LlamaBlock(name="block")(x), None


class Scanned(nn.Module):
    """A decoder with its layers scanned and rematerialised."""

    layers: int = 3

    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            nn.remat(ScannedLayer),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.layers,
        )
        x, _ = layers(name="layers")(x, None)
        return nn.Dense(7, use_bias=False, name="head")(x[:, -1])


def mlp(dtype=jnp.float32, bias=True):
    return network(MLP(bias=bias), 2, 6, dtype=dtype)


def vgg(dtype=jnp.float32, bias=True):
    module = models.VGG(((4, 4), (6, 6)), (10,), 5, bias)
    return network(module, 2, 8, 8, 3, dtype=dtype, gain=2.0)


def resnet(dtype=jnp.float32):
    module = models.ResNet(((4, 1), (6, 1)), 5, large_stem=False)
    return network(module, 2, 8, 8, 3, dtype=dtype, gain=2.0)


def unet(dtype=jnp.float32, bias=True):
    return network(UNet(bias=bias), 2, 8, 8, 3, dtype=dtype)


def lstm(dtype=jnp.float32):
    module = models.Recurrent(nn.OptimizedLSTMCell, 6, 3, dtype)
    return network(module, 2, 5, 4, dtype=dtype)


def gru(dtype=jnp.float32):
    return network(models.Recurrent(nn.GRUCell, 6, 3, dtype), 2, 5, 4, dtype=dtype)


def vit(dtype=jnp.float32):
    return network(models.ViT(4, 8, 2, 2, 3), 2, 8, 8, 3, dtype=dtype)


def bert(dtype=jnp.float32):
    """The last token is padding."""
    return network(models.Bert(8, 2, 2, 3, padding=1), 2, 5, 8, dtype=dtype)


def llama(dtype=jnp.float32):
    return network(models.Llama(8, 4, 2, 12, 2, 7), 2, 5, 8, dtype=dtype)


def scanned(dtype=jnp.float32):
    return network(Scanned(), 2, 5, 8, dtype=dtype)


def unrolled(dtype=jnp.float32):
    """`scanned` with its layers written out, over the same parameters."""
    _, params, x = scanned(dtype)

    def apply(params, x):
        weights = params["params"]
        blocks = weights["layers"]["block"]
        for i in range(Scanned.layers):
            block = {
                name: {k: v[i] for k, v in p.items()} for name, p in blocks.items()
            }
            x = LlamaBlock().apply({"params": block}, x)
        return x[:, -1] @ weights["head"]["kernel"]

    return apply, params, x
