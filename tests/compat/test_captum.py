"""captum's numbers, by its names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxlrp import rules
from jaxlrp.compat import captum
from tests.compat import settings

DENSE = {
    "epsilon": (captum.EpsilonRule(), (1.052632, 1.315789, 0.263158)),
    "gamma": (captum.GammaRule(), (1.088875, 1.287031, 0.269855)),
    "gamma, no bias": (
        captum.GammaRule(set_bias_to_zero=True),
        (1.322581, 1.448925, 0.228495),
    ),
    "alpha 1, beta 0": (
        captum.Alpha1_Beta0_Rule(),
        (0.555556, 1.25, -0.138889),
    ),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", DENSE)
def test_rule_on_a_dense_layer(name):
    rule, expected = DENSE[name]
    np.testing.assert_allclose(settings.dense(rule), expected, rtol=1e-5)


def test_shares_are_without_bound_for_negative_inputs():
    """The second unit has 0.5 - 0.5 = 0 from its positive weights."""
    found = settings.dense(captum.Alpha1_Beta0_Rule(set_bias_to_zero=True))
    np.testing.assert_allclose(found[0], 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(found[1:], [-5e8, 5e8], rtol=1e-6)
    bounded = settings.dense(rules.ZPlus(bias="ignore"))
    np.testing.assert_allclose(bounded, [0.285714, 1.142857, 1.571429], rtol=1e-5)


def test_sums_and_pools_are_in_proportion():
    a, b = settings.residual(captum.LRP())
    settings.close(a, 1.5, 4.0, -2 / 3)
    settings.close(b, -0.5, -2.0, -1 / 3)
    settings.close(settings.average_pool(captum.LRP()), -1.0, 2.0, 6 / 7, 1 / 7)


def test_batch_norm_has_the_epsilon_rule():
    def f(x):
        return (x - np.array([0.5, 1.0, 1.0])) * np.array([2.0, 1.0, 3.0]) + np.array(
            [0.5, 0.5, 1.0]
        )

    x = np.array([1.0, 2.0, -1.0])
    (found,) = settings.relevances(f, captum.LRP(), [x], [1.0, 0.5, -0.25])
    expected = x * [2.0, 1.0, 3.0] * [1.0, 0.5, -0.25] / f(x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_identity_rule_passes_a_layer_that_keeps_the_shape():
    """Zeros as well: what comes out at an element goes in at it."""
    w = np.array([[0.5, -1.0, 2.0], [-1.5, 0.25, 1.0], [1.0, 1.0, 1.0]])
    composite = captum.LRP(captum.IdentityRule())
    (found,) = settings.relevances(
        lambda x: x @ w + 1.0, composite, [[1.0, 0.0, -1.0]], [1.0, 0.5, -0.25]
    )
    settings.close(found, 1.0, 0.5, -0.25)


def test_identity_rule_passes_a_convolution_between_others():
    """A padded one of as many channels; the layer in front has the epsilon rule."""
    kernel = np.random.default_rng(0).normal(size=(3, 2, 2))

    def conv(x):
        dims = ("NHC", "HIO", "NHC")
        return lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=dims)

    def f(x, v):
        h = jnp.tanh(x @ v)
        with jax.named_scope("middle"):
            return conv(h)

    x = np.random.default_rng(1).normal(size=(1, 4, 3))
    v = np.random.default_rng(2).normal(size=(3, 2))
    r = np.random.default_rng(3).normal(size=(1, 4, 2))
    composite = captum.LRP().on("layer", captum.IdentityRule(), scope="*middle*")
    (found, _) = settings.relevances(f, composite, [x, v], r)
    (expected, _) = settings.relevances(lambda x, v: x @ v, captum.LRP(), [x, v], r)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_identity_rule_says_where_the_shape_changes():
    message = (
        r"rule Pass\(\) on a layer with inputs of shape \(3,\) and results of shape"
    )
    with pytest.raises(TypeError, match=message):
        settings.dense(captum.LRP(captum.IdentityRule()))


def test_identity_rule_passes_a_batch_norm():
    f = lambda x: x * np.array([2.0, 1.0, 3.0]) + np.array([1.0, 2.0, 3.0])  # noqa: E731
    composite = captum.LRP().on("batch_norm", captum.IdentityRule())
    (found,) = settings.relevances(f, composite, [[1.0, 2.0, -1.0]], [1.0, 0.5, -0.25])
    settings.close(found, 1.0, 0.5, -0.25)
