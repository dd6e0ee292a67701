"""What is done with relevances before they are written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import runs
from tests.runs import small


def test_sums_are_over_the_axes_asked_for():
    x = small.weights(2, 3, 4)
    found = runs.summed({"a": x, "b": x}, (1, 2))
    np.testing.assert_allclose(found["a"], x.sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(runs.summed(x), x.sum(-1), rtol=1e-5)


@pytest.mark.parametrize("size", [1e-32, 1e-9, 1.0, 7e4, 1e30])
def test_half_precision_with_a_scale_keeps_eleven_bits(size):
    x = small.weights(5, 40) * np.float32(size)
    x[1] = 0
    half = jax.jit(runs.scaled_half)(jnp.asarray(x))
    assert half["values"].dtype == jnp.float16 and half["scale"].shape == (5,)
    found = runs.restored(**half)
    np.testing.assert_allclose(found, x, rtol=2**-11, atol=2e-9 * size)


def test_a_row_of_nan_stays_one():
    half = runs.scaled_half(jnp.array([[jnp.nan, 1.0], [1.0, 2.0]]))
    found = runs.restored(**half)
    assert np.isnan(found[0, 0]) and found[1].tolist() == [1.0, 2.0]


def test_targets_are_the_relevances_of_each_class():
    x = small.images(4)
    found = runs.targets(small.mlp, classes=(2, 0))(x)
    assert found.shape == (4, 2, 6, 6, 1)
    for i, c in enumerate((2, 0)):
        expected = jaxlrp.lrp(small.mlp, target=c)(x)
        np.testing.assert_allclose(found[:, i], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="classes"):
        runs.targets(small.mlp, classes=())
