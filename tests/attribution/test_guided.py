"""Guided backpropagation and deconvnet, against zennit and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import attribution
from tests.models.networks import golden

RNG = np.random.default_rng(8)
W1 = RNG.normal(size=(4, 6)).astype(np.float32)
W2 = RNG.normal(size=(6, 6)).astype(np.float32)
W3 = RNG.normal(size=(6, 3)).astype(np.float32)
X = RNG.normal(size=(5, 4)).astype(np.float32)


def mlp(x):
    return jax.nn.relu(jax.nn.relu(x @ W1) @ W2) @ W3


def backwards(relu):
    """By hand, for class 1, with another derivative of the rectifier."""
    a1 = X @ W1
    a2 = np.maximum(a1, 0) @ W2
    c = relu(a2, np.broadcast_to(W3[:, 1], a2.shape))
    return relu(a1, c @ W2.T) @ W1.T


def test_guided_backprop_lets_positive_gradients_pass_where_the_unit_is_on():
    wanted = backwards(lambda a, c: np.where(a > 0, np.maximum(c, 0), 0))
    guided = attribution.guided_backprop(mlp, target=1)(X)
    np.testing.assert_allclose(guided, wanted, rtol=1e-4, atol=1e-5)


def test_deconvnet_lets_positive_gradients_pass_everywhere():
    wanted = backwards(lambda a, c: np.maximum(c, 0))
    deconv = attribution.deconvnet(mlp, target=1)(X)
    np.testing.assert_allclose(deconv, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "method"),
    [
        ("GuidedBackprop", attribution.guided_backprop),
        ("DeconvNet", attribution.deconvnet),
    ],
)
def test_on_a_convolutional_network_they_are_those_of_zennit(key, method):
    # zennit's start with the logit and not with one; here that is a cotangent.
    with jax.enable_x64(True):
        f, params, x = golden.cnn()

        def logit(out):
            return out * jax.nn.one_hot(out.argmax(-1), out.shape[-1])

        result = jax.jit(method(f, target=logit))(params, x)
    wanted = golden.arrays("cnn")[f"R.zennit.{key}"]
    np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-12)


def test_a_zero_logit_has_a_guided_gradient():
    def f(x):
        return jnp.stack([jax.nn.relu(x[0]) - jax.nn.relu(x[1]), x[0] * 0 - 9.0])

    guided = attribution.guided_backprop(f)(jnp.ones(2))
    np.testing.assert_array_equal(guided, [1, 0])
