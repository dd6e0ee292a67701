"""Small networks in Flax NNX; every function returns `(apply, params, x)`.

`params` is the module's whole state and `apply` merges it back, as in Flax's own guide
to functional transformations. Inputs are as in `linen_models`.

NNX's scan and recurrent layers want all of `params` and `x` at one level of tracing:
under `jax.jit` they work, under `jax.grad` with respect to `x` alone they do not.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from tests.models.usual import fill, inputs, rotary


def _network(module, *shape: int, dtype):
    abstract = nnx.eval_shape(lambda: module(nnx.Rngs(0)))
    graphdef, state = nnx.split(abstract)

    def apply(params, x):
        return nnx.merge(graphdef, params)(x)

    return apply, fill(state, dtype), inputs(*shape, dtype=dtype)


class MLP(nnx.Module):
    def __init__(self, rngs, bias=True):
        linear = functools.partial(nnx.Linear, use_bias=bias, rngs=rngs)
        self.first, self.second, self.third = linear(6, 12), linear(12, 8), linear(8, 4)

    def __call__(self, x):
        x = nnx.relu(self.first(x))
        return self.third(nnx.relu(self.second(x)))


class VGG(nnx.Module):
    """Convolutions with batch norm."""

    def __init__(self, rngs):
        conv = functools.partial(nnx.Conv, kernel_size=(3, 3), rngs=rngs)
        norm = functools.partial(nnx.BatchNorm, use_running_average=True, rngs=rngs)
        self.conv1, self.norm1 = conv(3, 4), norm(4)
        self.conv2, self.norm2 = conv(4, 6), norm(6)
        self.dense1 = nnx.Linear(24, 10, rngs=rngs)
        self.dense2 = nnx.Linear(10, 5, rngs=rngs)

    def __call__(self, x):
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x = nnx.relu(norm(conv(x)))
            x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = nnx.relu(self.dense1(x.reshape(x.shape[0], -1)))
        return self.dense2(x)


class ResNet(nnx.Module):
    """Pre-activation block: the residual stream is never normalised on its way."""

    def __init__(self, rngs):
        conv = functools.partial(
            nnx.Conv, kernel_size=(3, 3), use_bias=False, rngs=rngs
        )
        norm = functools.partial(nnx.BatchNorm, use_running_average=True, rngs=rngs)
        self.stem, self.norm1, self.conv1 = conv(3, 4), norm(4), conv(4, 4)
        self.norm2, self.conv2, self.norm3 = norm(4), conv(4, 4), norm(4)
        self.head = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        h = self.conv1(nnx.relu(self.norm1(x)))
        x = x + self.conv2(nnx.relu(self.norm2(h)))
        x = nnx.relu(self.norm3(x))
        return self.head(nnx.avg_pool(x, (8, 8)).reshape(x.shape[0], -1))


class UNet(nnx.Module):
    def __init__(self, rngs, bias=True):
        conv = functools.partial(nnx.Conv, kernel_size=(3, 3), use_bias=bias, rngs=rngs)
        self.down, self.middle, self.up = conv(3, 4), conv(4, 6), conv(8, 4)
        self.rise = nnx.ConvTranspose(6, 4, (2, 2), (2, 2), use_bias=bias, rngs=rngs)
        self.head = nnx.Conv(4, 3, (1, 1), use_bias=bias, rngs=rngs)

    def __call__(self, x):
        skip = nnx.relu(self.down(x))
        x = nnx.relu(self.middle(nnx.max_pool(skip, (2, 2), strides=(2, 2))))
        x = nnx.relu(self.up(jnp.concatenate([skip, self.rise(x)], -1)))
        return self.head(x)


class Recurrent(nnx.Module):
    """A recurrent cell from a zero state; the state holds random keys beside floats."""

    def __init__(self, rngs, cell, states, dtype):
        self.states = states
        self.rnn = nnx.RNN(cell(4, 6, param_dtype=dtype, rngs=rngs), rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        zero = jnp.zeros((x.shape[0], 6), x.dtype)
        carry = (zero, zero) if self.states == 2 else zero
        return self.head(self.rnn(x, initial_carry=carry)[:, -1])


class EncoderBlock(nnx.Module):
    """Pre-norm block with the library's attention; GELU by tanh."""

    def __init__(self, rngs):
        self.norm1, self.norm2 = (
            nnx.LayerNorm(8, rngs=rngs),
            nnx.LayerNorm(8, rngs=rngs),
        )
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.dense1 = nnx.Linear(8, 16, rngs=rngs)
        self.dense2 = nnx.Linear(16, 8, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.dense2(nnx.gelu(self.dense1(self.norm2(x))))


class ViT(nnx.Module):
    """Vision transformer with average pooling in place of a class token."""

    def __init__(self, rngs):
        self.patch = nnx.Conv(3, 8, (4, 4), (4, 4), padding="VALID", rngs=rngs)
        self.pos = nnx.Param(jnp.zeros((4, 8)))
        self.block1, self.block2 = EncoderBlock(rngs), EncoderBlock(rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = self.patch(x).reshape(x.shape[0], 4, 8) + self.pos[...]
        x = self.block2(self.block1(x))
        return self.head(self.norm(x).mean(1))


class Bert(nnx.Module):
    """Post-norm encoder; the last token is padding."""

    def __init__(self, rngs):
        self.pos = nnx.Param(jnp.zeros((5, 8)))
        self.norm1, self.norm2 = (
            nnx.LayerNorm(8, rngs=rngs),
            nnx.LayerNorm(8, rngs=rngs),
        )
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.dense1 = nnx.Linear(8, 16, rngs=rngs)
        self.dense2 = nnx.Linear(16, 8, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = x + self.pos[...]
        mask = jnp.arange(x.shape[1])[None, None, None, :] < x.shape[1] - 1
        x = self.norm1(x + self.attention(x, mask=mask))
        h = self.dense2(nnx.gelu(self.dense1(x), approximate=False))
        return self.head(self.norm2(x + h)[:, 0])


class LlamaBlock(nnx.Module):
    """Grouped queries through `jax.nn.dot_product_attention`."""

    def __init__(self, rngs):
        linear = functools.partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.norm1, self.norm2 = nnx.RMSNorm(8, rngs=rngs), nnx.RMSNorm(8, rngs=rngs)
        self.q, self.k, self.v, self.o = (linear(8, n) for n in (8, 4, 4, 8))
        self.gate, self.up, self.down = linear(8, 12), linear(8, 12), linear(12, 8)

    def __call__(self, x):
        h = self.norm1(x)
        q, k, v = (
            part(h).reshape(*x.shape[:2], -1, 2) for part in (self.q, self.k, self.v)
        )
        h = jax.nn.dot_product_attention(rotary(q), rotary(k), v, is_causal=True)
        x = x + self.o(h.reshape(x.shape))
        h = self.norm2(x)
        return x + self.down(nnx.silu(self.gate(h)) * self.up(h))


class Llama(nnx.Module):
    def __init__(self, rngs):
        self.block1, self.block2 = LlamaBlock(rngs), LlamaBlock(rngs)
        self.norm = nnx.RMSNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 7, use_bias=False, rngs=rngs)

    def __call__(self, x):
        x = self.block2(self.block1(x))
        return self.head(self.norm(x)[:, -1])


class Scanned(nnx.Module):
    """The same decoder with its layers scanned and rematerialised."""

    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def create(rngs):
            return LlamaBlock(rngs)

        self.blocks = create(rngs)
        self.norm = nnx.RMSNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 7, use_bias=False, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        @nnx.remat
        def layers(x, block):
            return block(x)

        return self.head(self.norm(layers(x, self.blocks))[:, -1])


def mlp(dtype=jnp.float32, bias=True):
    return _network(functools.partial(MLP, bias=bias), 2, 6, dtype=dtype)


def vgg(dtype=jnp.float32):
    return _network(VGG, 2, 8, 8, 3, dtype=dtype)


def resnet(dtype=jnp.float32):
    return _network(ResNet, 2, 8, 8, 3, dtype=dtype)


def unet(dtype=jnp.float32, bias=True):
    return _network(functools.partial(UNet, bias=bias), 2, 8, 8, 3, dtype=dtype)


def _recurrent(cell, states, dtype):
    module = functools.partial(Recurrent, cell=cell, states=states, dtype=dtype)
    return _network(module, 2, 5, 4, dtype=dtype)


def lstm(dtype=jnp.float32):
    return _recurrent(nnx.LSTMCell, 2, dtype)


def gru(dtype=jnp.float32):
    return _recurrent(nnx.GRUCell, 1, dtype)


def vit(dtype=jnp.float32):
    return _network(ViT, 2, 8, 8, 3, dtype=dtype)


def bert(dtype=jnp.float32):
    return _network(Bert, 2, 5, 8, dtype=dtype)


def llama(dtype=jnp.float32):
    return _network(Llama, 2, 5, 8, dtype=dtype)


def scanned(dtype=jnp.float32):
    return _network(Scanned, 2, 5, 8, dtype=dtype)
