"""The names that a random program uses: arrays, modules, functions of functions.

A program is printed as code that begins with `from tests.fuzz.names import *`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = [
    "B", "BATCH_MEAN", "BATCH_VAR", "GRID", "HEAD", "KERNEL", "KERNELS", "MASK", "MIX",
    "ROWS", "SCALE", "TABLE", "TURN", "V", "W", "WS", "TALL", "image", "jax", "jnp",
    "lax", "np", "with_jvp", "with_vjp",
]  # fmt: skip

SHAPE = (3, 4)
"""Of each value of a program."""
_numbers = np.random.default_rng(0)


def _draw(size, over=1, positive=False):
    """Of JAX's, and once: weights are known to be the same by being one array."""
    numbers = _numbers.normal(size=size) / over
    with jax.enable_x64(True):
        return jnp.asarray(1 + np.abs(numbers) if positive else numbers)


W = _draw(size=(4, 4), over=2)
V = _draw(size=(4, 4), over=2)
WS = _draw(size=(2, 4, 4), over=2)
TALL = _draw(size=(4, 7), over=2)
ROWS = _draw(size=(3, 3), over=2)
MIX = _draw(size=(4, 4), over=2)
"""Behind every loop, branch and call, so that what is in it is a step of its own."""
HEAD = _draw(size=(4, 3))
B = _draw(size=4)
SCALE = _draw(size=4, positive=True)
BATCH_MEAN = _draw(size=4, over=3)
BATCH_VAR = _draw(size=4, positive=True)
TABLE = _draw(size=(5, 4))
TURN = np.exp(1j * np.asarray(_draw(size=(3, 2))))
GRID = _draw(size=(3, 4))
KERNEL = _draw(size=(3, 1, 1), over=2)
"""Of a convolution along a row: (width, input, output)."""
KERNELS = _draw(size=(2, 2, 1, 2), over=2)
"""Of a convolution of an image: (height, width, input, output)."""
MASK = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]], bool)


def image(x):
    """A value as an image with one channel."""
    return x[None, :, :, None]


def with_vjp(f):
    """`f` with a derivative of its own that is `f`'s."""

    @jax.custom_vjp
    def own(*args):
        return f(*args)

    own.defvjp(lambda *args: jax.vjp(f, *args), lambda pull, g: pull(g))
    return own


def with_jvp(f):
    """`f` with a derivative of its own, forwards, that is `f`'s."""

    @jax.custom_jvp
    def own(*args):
        return f(*args)

    own.defjvp(functools.partial(jax.jvp, f))
    return own
