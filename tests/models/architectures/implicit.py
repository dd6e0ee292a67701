"""Networks that iterate: an equation with adaptive steps, an equilibrium."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from tests.models.architectures._base import Architecture, Built, floats


@dataclasses.dataclass(frozen=True)
class Iterated:
    """A network that iterates one layer.

    Attributes:
      kind: `ode` or `equilibrium`.
      features: of the input.
      width: of the state.
      classes: of the scores.
      tolerance: of a step, or of the equilibrium.
    """

    kind: str
    features: int
    width: int
    classes: int
    tolerance: float


def integrate(f, y, end: float, tolerance: float):
    """Heun's method with Euler's as the error, steps by a controller."""

    def unfinished(carry):
        return carry[0] < end

    def advance(carry):
        time, step, y = carry
        step = jnp.minimum(step, end - time)
        first = f(y)
        second = f(y + step * first)
        ahead = y + 0.5 * step * (first + second)
        wrong = jax.lax.stop_gradient(jnp.abs(0.5 * step * (second - first)).max())
        good = wrong <= tolerance
        factor = jnp.clip(0.9 * jnp.sqrt(tolerance / (wrong + 1e-12)), 0.2, 5.0)
        time = jnp.where(good, time + step, time)
        return time, step * factor, jnp.where(good, ahead, y)

    zero = jnp.zeros((), y.dtype)
    return jax.lax.while_loop(unfinished, advance, (zero, zero + 0.1, y))[2]


def settle(f, start, tolerance: float):
    """The fixed point of `f`, by iteration."""

    def moving(carry):
        old, new, steps = carry
        return (jnp.abs(new - old).max() > tolerance) & (steps < 100)

    def again(carry):
        _, new, steps = carry
        return new, f(new), steps + 1

    return jax.lax.while_loop(moving, again, (start, f(start), jnp.zeros((), int)))[1]


class IteratedNetwork(nn.Module):
    config: Iterated

    @nn.compact
    def __call__(self, x):
        c = self.config
        x = nn.Dense(c.width)(x)
        normal = nn.initializers.lecun_normal()
        kernel = self.param("step_kernel", normal, (c.width, c.width))
        bias = self.param("step_bias", nn.initializers.zeros, (c.width,))
        if c.kind == "ode":
            x = integrate(lambda y: jnp.tanh(y @ kernel + bias), x, 1.0, c.tolerance)
        else:
            kernel = kernel / (2 * jnp.linalg.norm(kernel))
            x = settle(
                lambda z: nn.relu(z @ kernel + bias + x), jnp.zeros_like(x), c.tolerance
            )
        return nn.Dense(c.classes)(x)


def iterated(config: Iterated) -> Built:
    return Built(IteratedNetwork(config), floats(2, config.features))


ARCHITECTURES = tuple(
    Architecture(
        name,
        "implicit networks",
        iterated,
        Iterated(kind, 3, 4, 3, 1e-2),
        Iterated(kind, 64, 256, 10, 1e-3),
        note=note,
    )
    for name, kind, note in (
        (
            "Neural ODE",
            "ode",
            "each step is a residual block; its size is a constant, biases absorb.",
        ),
        (
            "Deep equilibrium",
            "equilibrium",
            "relevance goes back through every iteration to the input that each adds.",
        ),
    )
)
"""Networks that iterate."""
