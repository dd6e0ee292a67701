"""Complexity, against the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import evaluation

RNG = np.random.default_rng(8)
R = RNG.normal(size=(4, 5, 6)).astype(np.float32)


def gini(values):
    """Half the relative mean difference of all pairs."""
    values = np.abs(values.reshape(-1)).astype(np.float64)
    pairs = np.abs(values[:, None] - values[None]).mean()
    return pairs / (2 * values.mean())


def test_sparseness_is_half_the_relative_mean_difference():
    found = jax.jit(jax.vmap(evaluation.sparseness))(R)
    np.testing.assert_allclose(found, [gini(r) for r in R], rtol=1e-4)


def test_entropy_is_that_of_the_shares():
    found = jax.jit(jax.vmap(evaluation.entropy))(R)
    for i, r in enumerate(np.abs(R).reshape(4, -1)):
        p = r / r.sum()
        np.testing.assert_allclose(found[i], -(p * np.log(p)).sum(), rtol=1e-5)


def test_ends_of_the_scales():
    sparseness, entropy = map(jax.jit, (evaluation.sparseness, evaluation.entropy))
    equal, one, single = np.full(8, -2.0), np.eye(8)[3] * -5, np.array([3.0])
    np.testing.assert_allclose(sparseness(equal), 0.0, atol=1e-6)
    np.testing.assert_allclose(sparseness(one), 1 - 1 / 8, rtol=1e-6)
    np.testing.assert_allclose(entropy(equal), np.log(8), rtol=1e-6)
    assert float(entropy(one)) == 0.0
    assert float(sparseness(single)) == float(entropy(single)) == 0.0


@pytest.mark.whole
@pytest.mark.parametrize("name", ["sparseness", "entropy"])
def test_undefined_is_nan(name):
    measure = getattr(evaluation, name)
    jitted = jax.jit(measure)
    assert np.isnan(jitted(np.zeros(2)))
    assert np.isnan(jitted(np.array([1.0, np.nan])))
    with pytest.raises(ValueError, match="expected some values"):
        measure(jnp.zeros(0))
    with pytest.raises(TypeError, match="relevance: got None"):
        measure(None)
