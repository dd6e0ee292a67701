"""What carries no relevance decides where it goes, and receives none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)

FACTORS = {
    "comparison": lambda x: (x > 0).astype(x.dtype),
    "sign": jnp.sign,
    "argmax": lambda x: jnp.argmax(x, 1, keepdims=True).astype(x.dtype),
    "finite": lambda x: jnp.isfinite(x).astype(x.dtype),
    "stopped": lax.stop_gradient,
    "cast": lambda x: x.astype(jnp.int32).astype(x.dtype),
    "bits": lambda x: lax.bitcast_convert_type(
        lax.bitcast_convert_type(x, jnp.int32) & 7, jnp.int32
    ).astype(x.dtype),
    "noise": lambda x: jax.random.normal(jax.random.key(0), x.shape),
    "dropout": lambda x: jax.random.bernoulli(jax.random.key(1), 0.5, x.shape) * 2.0,
    "position": lambda x: lax.iota(x.dtype, 4),
}


@pytest.mark.parametrize("name", FACTORS)
def test_factor_that_carries_nothing_leaves_all_to_the_signal(name):
    f = lambda x: x * FACTORS[name](x)  # noqa: E731
    np.testing.assert_allclose(jaxlrp.lrp(f, target="all")(X), f(X), rtol=1e-6)


def test_random_numbers_are_inert():
    f = lambda key, x: x + jax.random.normal(key, x.shape)  # noqa: E731
    explain = jaxlrp.lrp(f, jaxlrp.composites.Proportional(), target="all")
    found = explain(jax.random.key(0), X)
    np.testing.assert_allclose(found, X, rtol=1e-6)


def test_debugging_is_inert(capfd):
    def f(x):
        jax.debug.print("seen {}", x[0, 0])
        return x * 2

    found = jaxlrp.lrp(f, target="all")(X)
    jax.effects_barrier()
    np.testing.assert_allclose(found, 2 * X)
    assert capfd.readouterr().out.count("seen") == 1
