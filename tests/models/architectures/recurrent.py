"""Recurrent networks: LSTM, xLSTM, RWKV."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tests.models.architectures._base import Architecture, Built, floats, tokens
from tests.models.architectures.transformers import Embed
from tests.models.usual import Recurrent


@dataclasses.dataclass(frozen=True)
class Sequence:
    """A network over a sequence of features.

    Attributes:
      module: the network.
      length: of the sequence.
      features: of a step.
    """

    module: nn.Module
    length: int
    features: int


def sequence(config: Sequence) -> Built:
    return Built(config.module, floats(1, config.length, config.features))


class MatrixLSTM(nn.Module):
    """mLSTM: a matrix memory, an exponential input gate, and what keeps it finite."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, x):
        batch, length, dim = *x.shape[:2], self.width // self.heads

        def heads(name):
            h = nn.Dense(self.width, use_bias=False, name=name)(x)
            return h.reshape(batch, length, self.heads, dim).swapaxes(0, 1)

        q, k, v = heads("query"), heads("key") * dim**-0.5, heads("value")
        gates = nn.Dense(2 * self.heads, name="gates")(x).swapaxes(0, 1)
        enter, keep = jnp.split(gates, 2, -1)

        def advance(carry, now):
            memory, norm, peak = carry
            q, k, v, enter, keep = now
            keep = nn.log_sigmoid(keep)
            top = jnp.maximum(keep + peak, enter)
            add, stay = jnp.exp(enter - top), jnp.exp(keep + peak - top)
            written = v[..., :, None] * k[..., None, :]
            memory = stay[..., None, None] * memory + add[..., None, None] * written
            norm = stay[..., None] * norm + add[..., None] * k
            size = jnp.abs((norm * q).sum(-1, keepdims=True))
            h = jnp.einsum("bhij,bhj->bhi", memory, q)
            return (memory, norm, top), h / jnp.maximum(size, jnp.exp(-top)[..., None])

        shape = (batch, self.heads)
        start = [jnp.zeros(s, x.dtype) for s in ((*shape, dim, dim), (*shape, dim))]
        start.append(jnp.full(shape, -10.0, x.dtype))
        _, h = jax.lax.scan(advance, tuple(start), (q, k, v, enter, keep))
        h = nn.LayerNorm()(h.swapaxes(0, 1)).reshape(x.shape[0], length, -1)
        gate = nn.sigmoid(nn.Dense(self.width, name="gate")(x))
        return nn.Dense(x.shape[-1], name="out")(gate * h)


class ScalarLSTM(nn.Module):
    """sLSTM: exponential gates, a normaliser, and the state mixed back in."""

    width: int

    @nn.compact
    def __call__(self, x):
        batch = len(x)
        driven = nn.Dense(4 * self.width, name="input")(x).swapaxes(0, 1)
        shape = (self.width, 4 * self.width)
        mix = self.param("mix_kernel", nn.initializers.lecun_normal(), shape)

        def advance(carry, now):
            h, cell, norm, peak = carry
            z, enter, keep, out = jnp.split(now + h @ mix, 4, -1)
            keep = nn.log_sigmoid(keep)
            top = jnp.maximum(keep + peak, enter)
            add, stay = jnp.exp(enter - top), jnp.exp(keep + peak - top)
            cell = stay * cell + add * jnp.tanh(z)
            norm = stay * norm + add
            h = nn.sigmoid(out) * cell / norm
            return (h, cell, norm, top), h

        zero = jnp.zeros((batch, self.width), x.dtype)
        _, h = jax.lax.scan(advance, (zero, zero, zero, zero - 10.0), driven)
        return nn.Dense(x.shape[-1], name="out")(h.swapaxes(0, 1))


class XLSTM(nn.Module):
    """Pre-norm residual blocks of both kinds; scores of the last step."""

    width: int
    heads: int
    pairs: int
    classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width)(x)
        for _ in range(self.pairs):
            x = x + MatrixLSTM(self.width, self.heads)(nn.LayerNorm()(x))
            x = x + ScalarLSTM(self.width)(nn.LayerNorm()(x))
        return nn.Dense(self.classes)(nn.LayerNorm()(x)[:, -1])


@dataclasses.dataclass(frozen=True)
class RWKV:
    width: int
    layers: int
    vocabulary: int
    length: int


def shifted(x: jax.Array) -> jax.Array:
    """The step before; zeros before the first."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]


class TimeMix(nn.Module):
    """RWKV-4: an average over the past, weighted by keys and a decay; a gate."""

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]

        def project(name):
            part = self.param(f"{name}_mix", nn.initializers.ones, (width,))
            h = x * part + shifted(x) * (1 - part)
            return nn.Dense(width, use_bias=False, name=name)(h)

        k, v, gate = project("key"), project("value"), nn.sigmoid(project("gate"))
        decay = -jnp.exp(self.param("decay", nn.initializers.zeros, (width,)))
        first = self.param("first", nn.initializers.zeros, (width,))

        def advance(carry, now):
            above, below, peak = carry
            k, v = now
            top = jnp.maximum(peak, first + k)
            old, new = jnp.exp(peak - top), jnp.exp(first + k - top)
            out = (old * above + new * v) / (old * below + new)
            top = jnp.maximum(peak + decay, k)
            old, new = jnp.exp(peak + decay - top), jnp.exp(k - top)
            return (old * above + new * v, old * below + new, top), out

        zero = jnp.zeros((len(x), width), x.dtype)
        past = (k.swapaxes(0, 1), v.swapaxes(0, 1))
        _, out = jax.lax.scan(advance, (zero, zero, zero - 1e30), past)
        return nn.Dense(width, use_bias=False, name="out")(gate * out.swapaxes(0, 1))


class ChannelMix(nn.Module):
    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]

        def mixed(name):
            part = self.param(f"{name}_mix", nn.initializers.ones, (width,))
            return x * part + shifted(x) * (1 - part)

        h = nn.Dense(4 * width, use_bias=False, name="key")(mixed("key"))
        h = nn.Dense(width, use_bias=False, name="value")(nn.relu(h) ** 2)
        gate = nn.Dense(width, use_bias=False, name="gate")(mixed("gate"))
        return nn.sigmoid(gate) * h


class RWKVModel(nn.Module):
    config: RWKV

    @nn.compact
    def __call__(self, ids):
        c = self.config
        x = nn.LayerNorm()(Embed(c.vocabulary, c.width, name="embed")(ids))
        for _ in range(c.layers):
            x = x + TimeMix()(nn.LayerNorm()(x))
            x = x + ChannelMix()(nn.LayerNorm()(x))
        x = nn.LayerNorm()(x)[:, -1]
        return nn.Dense(c.vocabulary, use_bias=False, name="head")(x)


def rwkv(config: RWKV) -> Built:
    ids = tokens(1, config.length)
    return Built(RWKVModel(config), ids, config.vocabulary, config.width)


def _cell(cell: Any, width: int, classes: int) -> nn.Module:
    return Recurrent(cell, width, classes)


GATES = (
    "a gate that a sigmoid makes is held, and what it lets through takes all; of other "
    "products each factor gets half. Biases and the start of the state, a constant, "
    "keep their part."
)
EXPONENTIAL = (
    f"{GATES} Averages weighted by exponentials are softmax, *Taylor*; the largest "
    "exponent is subtracted and cancels. mLSTM's divisor is bounded, and held."
)

ARCHITECTURES = (
    Architecture(
        "LSTM",
        "recurrent networks",
        sequence,
        Sequence(_cell(nn.OptimizedLSTMCell, 6, 3), 5, 4),
        Sequence(_cell(nn.OptimizedLSTMCell, 256, 10), 200, 256),
        note=GATES,
    ),
    Architecture(
        "GRU",
        "recurrent networks",
        sequence,
        Sequence(_cell(nn.GRUCell, 6, 3), 5, 4),
        Sequence(_cell(nn.GRUCell, 256, 10), 200, 256),
        note=GATES,
    ),
    Architecture(
        "xLSTM",
        "recurrent networks",
        sequence,
        Sequence(XLSTM(8, 2, 1, 3), 5, 4),
        Sequence(XLSTM(512, 4, 6, 10), 256, 64),
        note=EXPONENTIAL,
    ),
    Architecture(
        "RWKV-4 169M",
        "recurrent networks",
        rwkv,
        RWKV(6, 1, 29, 5),
        RWKV(768, 12, 50277, 1024),
        169.34,
        note=EXPONENTIAL,
    ),
)
"""Recurrent networks."""
