"""Linear transforms are exact; decompositions are explained by their gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.fft.irfft(jnp.fft.rfft(x), n=4),
        lambda x: jnp.abs(jnp.fft.ifft(jnp.fft.fft(x)).real),
        lambda x: jnp.fft.fft2(x).imag,
        lambda x: lax.complex(x, 2 * x).imag + lax.conj(lax.complex(x, x)).real,
    ],
)
def test_complex_numbers_in_between_lose_nothing(f):
    found = jaxlrp.lrp(f, composites.AttnLRP(), target="all")(X)
    np.testing.assert_allclose(found.sum(), f(X).sum(), rtol=1e-3, atol=1e-4)
    assert found.dtype == X.dtype


@pytest.mark.parametrize(
    "composite", [None, composites.AttnLRP(), composites.Uniform(rules.Epsilon())]
)
@pytest.mark.parametrize("part", [jnp.real, jnp.imag])
def test_layer_with_complex_weights(composite, part):
    """As in Fourier neural operators."""
    kernel = X + 1j * X.T
    f = lambda x: part(x @ kernel)  # noqa: E731
    found = jaxlrp.lrp(f, composite, target="all")(X)
    np.testing.assert_allclose(found.sum(), f(X).sum(), rtol=1e-2)


def test_spectral_convolution_under_the_default():
    kernel = X[:3, :3] + 1j * X[1:, 1:]
    f = lambda x: jnp.fft.irfft(jnp.fft.rfft(x) @ kernel, n=4)  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(X)
    np.testing.assert_allclose(found.sum(), f(X).sum(), rtol=1e-2)


DECOMPOSITIONS = {
    "cholesky": lambda x: jnp.linalg.cholesky(x @ x.T + 4 * jnp.eye(4)),
    "eigh": lambda x: jnp.linalg.eigvalsh(x + x.T),
    "svd": lambda x: jnp.linalg.svd(x, compute_uv=False),
    "inverse": lambda x: jnp.linalg.inv(x + 5 * jnp.eye(4)),
    "determinant": jnp.linalg.det,
}


@pytest.mark.parametrize("name", DECOMPOSITIONS)
def test_decomposition_gives_finite_relevance(name):
    found = jaxlrp.lrp(DECOMPOSITIONS[name], target="all")(X)
    assert found.shape == X.shape and np.isfinite(found).all()


@pytest.mark.parametrize("name", ["eigh", "svd"])
def test_spectrum_is_of_degree_one(name):
    f = DECOMPOSITIONS[name]
    found = jaxlrp.lrp(f, target="all")(X)
    np.testing.assert_allclose(found.sum(), f(X).sum(), rtol=1e-3, atol=1e-4)
    gradient = X * jax.grad(lambda x: f(x).sum())(X)
    np.testing.assert_allclose(found, gradient, rtol=1e-3, atol=1e-4)
