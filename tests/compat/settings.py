"""The small examples on which the peers' numbers are known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxlrp
from jaxlrp import composites
from jaxlrp.composites import Composite
from jaxlrp.rules import Rule

W = np.array([[0.5, -1.0, 2.0], [-1.5, 0.25, 1.0]])
B = np.array([0.3, -0.4])


def relevances(f: Any, chosen: Any, xs: Any, r: Any) -> list[np.ndarray]:
    """Relevances of several arguments in float64, for a rule or composite."""
    composite = chosen if isinstance(chosen, Composite) else composites.Uniform(chosen)
    with jax.enable_x64(True):
        given = [jnp.asarray(x, jnp.float64) for x in xs]
        _, pull = jaxlrp.relprop(
            f, *given, composite=composite, argnums=tuple(range(len(given)))
        )
        return [np.asarray(part) for part in pull(jnp.asarray(r, jnp.float64))]


def dense(rule: Rule | Composite, b: Any = B) -> np.ndarray:
    """Setting A: a dense layer, signed input and signed results."""
    f = lambda x: x @ W.T + b  # noqa: E731
    return relevances(f, rule, [[1.0, -2.0, 0.5]], [2.0, 1.0])[0]


def convolution(rule: Rule | Composite) -> np.ndarray:
    """Setting B: a convolution over one axis, padded by one."""
    values = np.array([1.0, -1.0, 0.5]).reshape(1, 1, 3)

    def f(x: Any) -> Any:
        kernel = jnp.asarray(values)
        y = lax.conv_general_dilated(x[None, None], kernel, (1,), [(1, 1)])
        return (y + np.full((1, 1, 1), 0.1))[0, 0]

    return relevances(f, rule, [[1.0, -2.0, 3.0, 0.5]], np.ones(4))[0]


def residual(composite: Composite) -> list[np.ndarray]:
    """Setting C: a sum of two."""
    a, b = [3.0, -1.0, 0.5], [-1.0, 0.5, 0.25]
    return relevances(lambda a, b: a + b, composite, [a, b], [1.0, 2.0, -1.0])


def elementwise(f: Any, composite: Composite, r: Any = (1.0, 0.5, -0.25)) -> np.ndarray:
    """Setting D: softmax, norms and means of three numbers."""
    return relevances(f, composite, [[1.0, 2.0, -1.0]], r)[0]


def layer_norm(x: Any) -> Any:
    """The norm of setting D."""
    x = x - x.mean()
    x = x / jnp.sqrt((x**2).mean() + 1e-5)
    return x * np.array([2.0, 1.0, 0.5]) + np.array([0.1, -0.2, 0.3])


def average_pool(composite: Composite) -> np.ndarray:
    """Setting E: pairs of four numbers."""

    def f(x: Any) -> Any:
        return lax.reduce_window(x, 0.0, lax.add, (2,), (2,), "VALID") / 2

    return relevances(f, composite, [[1.0, -2.0, 3.0, 0.5]], np.ones(2))[0]


def max_pool(composite: Composite, x: Any, r: Any, stride: int = 2) -> np.ndarray:
    """Setting E: windows of two along every axis."""

    def f(x: Any) -> Any:
        n = x.ndim
        return lax.reduce_window(x, -jnp.inf, lax.max, (2,) * n, (stride,) * n, "VALID")

    return relevances(f, composite, [x], r)[0]


def close(found: Any, *expected: float) -> None:
    """To the digits that are known."""
    np.testing.assert_allclose(np.ravel(found), expected, rtol=2e-5, atol=2e-6)
