"""State-space models: selective, by convolution, and by parallel scans."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from tests.models.architectures._base import Architecture, Built, floats, tokens
from tests.models.architectures.transformers import Embed


@dataclasses.dataclass(frozen=True)
class Mamba:
    width: int
    layers: int
    state: int
    rank: int
    vocabulary: int
    length: int
    kernel: int = 4


class MambaBlock(nn.Module):
    """A causal depthwise convolution, a selective scan, a gate."""

    config: Mamba

    @nn.compact
    def __call__(self, x):
        c, inner = self.config, 2 * self.config.width
        h = nn.Dense(2 * inner, use_bias=False, name="project")(x)
        u, gate = jnp.split(h, 2, -1)
        u = nn.Conv(
            inner,
            (c.kernel,),
            padding=[(c.kernel - 1, 0)],
            feature_group_count=inner,
            name="convolution",
        )(u)
        u = nn.silu(u)
        h = nn.Dense(c.rank + 2 * c.state, use_bias=False, name="select")(u)
        step, b, out = jnp.split(h, [c.rank, c.rank + c.state], -1)
        step = nn.softplus(nn.Dense(inner, name="step")(step))
        log_decay = self.param("log_decay", nn.initializers.ones, (inner, c.state))
        skip = self.param("skip_scale", nn.initializers.ones, (inner,))
        decay = jnp.exp(step[..., None] * -jnp.exp(log_decay))
        drive = (step * u)[..., None] * b[..., None, :]

        def advance(state, now):
            decay, drive, out = now
            state = decay * state + drive
            return state, jnp.einsum("bdn,bn->bd", state, out)

        start = jnp.zeros((len(x), inner, c.state), u.dtype)
        over_time = [v.swapaxes(0, 1) for v in (decay, drive, out)]
        _, y = jax.lax.scan(advance, start, tuple(over_time))
        y = (y.swapaxes(0, 1) + skip * u) * nn.silu(gate)
        return nn.Dense(c.width, use_bias=False, name="out")(y)


class MambaModel(nn.Module):
    config: Mamba

    @nn.compact
    def __call__(self, ids):
        c = self.config
        embed = Embed(c.vocabulary, c.width, name="embed")
        x = embed(ids)
        for _ in range(c.layers):
            x = x + MambaBlock(c)(nn.RMSNorm()(x))
        return embed.scores(nn.RMSNorm()(x)[:, -1])


def mamba(config: Mamba) -> Built:
    ids = tokens(1, config.length)
    return Built(MambaModel(config), ids, config.vocabulary, config.width)


@dataclasses.dataclass(frozen=True)
class Linear:
    """A model of linear recurrences over a sequence of features."""

    kind: str
    width: int
    state: int
    layers: int
    length: int
    features: int
    classes: int


class S4D(nn.Module):
    """A diagonal state space for each feature, as a convolution by FFT."""

    state: int

    @nn.compact
    def __call__(self, u):
        length, width = u.shape[1:]
        shape = (width, self.state)
        decay = jnp.exp(self.param("decay", nn.initializers.zeros, shape))
        angle = self.param("angle", nn.initializers.zeros, shape)
        angle = angle + math.pi * jnp.arange(self.state)
        read = self.param("read_kernel", nn.initializers.ones, (*shape, 2))
        skip = self.param("skip", nn.initializers.ones, (width,))
        step = jnp.exp(self.param("log_step", nn.initializers.zeros, (width, 1)) - 2)
        a = jax.lax.complex(-decay, angle)
        c = jax.lax.complex(read[..., 0], read[..., 1]) * (jnp.exp(step * a) - 1) / a
        powers = jnp.exp((step * a)[..., None] * jnp.arange(length))
        kernel = 2 * jnp.einsum("hn,hnl->hl", c, powers).real
        spectrum = jnp.fft.rfft(u, 2 * length, axis=1)
        spectrum = spectrum * jnp.fft.rfft(kernel, 2 * length).T
        return jnp.fft.irfft(spectrum, 2 * length, axis=1)[:, :length] + skip * u


class Diagonal(nn.Module):
    """A complex diagonal recurrence by a parallel scan: S5, and LRU if `normalised`."""

    state: int
    normalised: bool

    @nn.compact
    def __call__(self, u):
        width = u.shape[-1]
        normal = nn.initializers.lecun_normal()
        rate = jnp.exp(
            -jnp.exp(self.param("rate", nn.initializers.zeros, (self.state,)))
        )
        angle = self.param("angle", nn.initializers.zeros, (self.state,))
        angle = angle + jnp.arange(self.state)
        into = self.param("into_kernel", normal, (2, width, self.state))
        read = self.param("read_kernel", normal, (2, self.state, width))
        skip = self.param("skip", nn.initializers.ones, (width,))
        decay = jax.lax.complex(rate * jnp.cos(angle), rate * jnp.sin(angle))
        drive = jax.lax.complex(u @ into[0], u @ into[1])
        if self.normalised:
            drive = drive * jnp.sqrt(1 - rate**2)
        else:
            drive = drive * (1 - decay)

        def combine(left, right):
            return left[0] * right[0], right[0] * left[1] + right[1]

        decays = jnp.broadcast_to(decay, drive.shape)
        _, states = jax.lax.associative_scan(combine, (decays, drive), axis=1)
        return states.real @ read[0] - states.imag @ read[1] + skip * u


class LinearModel(nn.Module):
    """Norm, recurrence, GELU and a gated layer, with residuals; scores of the mean."""

    config: Linear

    @nn.compact
    def __call__(self, x):
        c = self.config
        x = nn.Dense(c.width)(x)
        for _ in range(c.layers):
            h = nn.LayerNorm()(x)
            if c.kind == "s4":
                h = S4D(c.state)(h)
            else:
                h = Diagonal(c.state, c.kind == "lru")(h)
            h = nn.gelu(h)
            x = x + nn.Dense(c.width)(h) * nn.sigmoid(nn.Dense(c.width)(h))
        return nn.Dense(c.classes)(x.mean(1))


def linear(config: Linear) -> Built:
    return Built(LinearModel(config), floats(1, config.length, config.features))


GATES = (
    "a step size and other factors that cannot be negative are held; other products, "
    "as with a SiLU or with matrices made of the input, are split evenly."
)

ARCHITECTURES = (
    Architecture(
        "Mamba-130m",
        "state-space models",
        mamba,
        Mamba(6, 1, 3, 2, 29, 5),
        Mamba(768, 24, 16, 48, 50280, 1024),
        129.135,
        note=GATES,
    ),
    *(
        Architecture(
            name,
            "state-space models",
            linear,
            Linear(kind, 6, 4, 1, 8, 3, 3),
            Linear(kind, 256, 64, 6, 1024, 3, 10),
            note=GATES,
        )
        for name, kind in (("S4D", "s4"), ("S5", "s5"), ("LRU", "lru"))
    ),
)
"""State-space models."""
