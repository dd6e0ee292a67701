"""zennit's numbers, by its names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp.compat import zennit
from tests.compat import settings

BIAS = ["bias"]
DENSE = {
    "epsilon": (zennit.Epsilon(1e-12), (1.052632, 1.315789, 0.263158)),
    "epsilon 0.1": (zennit.Epsilon(0.1), (1.00641, 1.27564, 0.262821)),
    "epsilon, no bias": (zennit.Epsilon(1e-12, BIAS), (1.285714, 1.476190, 0.238095)),
    "gamma": (zennit.Gamma(), (1.01316, 1.30263, 0.326316)),
    "gamma, no bias": (
        zennit.Gamma(zero_params=BIAS),
        (1.22321, 1.45536, 0.321429),
    ),
    "gamma 100, no bias": (
        zennit.Gamma(100.0, zero_params=BIAS),
        (1.03758, 1.39348, 0.568947),
    ),
    "z-plus": (zennit.ZPlus(), (0.263158, 1.052632, 1.526316)),
    "alpha 2, beta 1": (zennit.AlphaBeta(), (-0.098684, 1.896930, 3.052632)),
    "z-box": (zennit.ZBox(-3.0, 3.0), (0.730159, 0.751323, 1.518520)),
    "w-square": (zennit.WSquare(), (0.741581, 0.392530, 1.786104)),
    "flat": (zennit.Flat(), (1.0, 1.0, 1.0)),
}
CONVOLUTION = {
    "epsilon": (zennit.Epsilon(), (0.743707, 1.39121, 2.12509, -0.246071)),
    "gamma": (zennit.Gamma(), (0.738224, 1.37934, 2.07279, -0.190521)),
    "z-plus": (zennit.ZPlus(), (0.217391, 0.434783, 1.29383, 0.714284)),
    "alpha 2, beta 1": (zennit.AlphaBeta(), (-0.065217, -0.030435, 1.98766, 0.428569)),
    "z-box": (zennit.ZBox(-3.0, 3.0), (1.13333, 0.980303, 0.955882, 0.930481)),
    "w-square": (zennit.WSquare(), (1.23613, 1.08337, 1.05061, 0.608132)),
    "flat": (zennit.Flat(), (0.833333, 1.16667, 1.16667, 0.833333)),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", DENSE)
def test_rule_on_a_dense_layer(name):
    rule, expected = DENSE[name]
    np.testing.assert_allclose(settings.dense(rule), expected, rtol=1e-5)


@pytest.mark.parametrize("name", CONVOLUTION)
def test_rule_on_a_convolution(name):
    rule, expected = CONVOLUTION[name]
    np.testing.assert_allclose(settings.convolution(rule), expected, rtol=2e-5)


def test_sum_is_in_proportion():
    a, b = settings.residual(zennit.EpsilonPlus())
    settings.close(a, 1.5, 4.0, -2 / 3)
    settings.close(b, -0.5, -2.0, -1 / 3)


def test_sum_that_is_not_hooked_copies():
    copied = composites.Composite("functional").on("sum", rules.Gradient())
    a, b = settings.residual(copied)
    settings.close(a, 1.0, 2.0, -1.0)
    settings.close(b, 1.0, 2.0, -1.0)


def test_average_pooling_is_in_proportion():
    settings.close(settings.average_pool(zennit.EpsilonPlus()), -1.0, 2.0, 6 / 7, 1 / 7)


def test_max_pooling_takes_the_first_of_a_tie():
    found = settings.max_pool(zennit.EpsilonPlus(), [2.0, 2.0], [1.0])
    settings.close(found, 1.0, 0.0)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("stabilizer", "denominator"),
    [
        (0.1, np.array([3.9, -2.0])),
        (zennit.Stabilizer(2.0, clip=True), np.array([3.8, -2.0])),
        (
            zennit.Stabilizer(0.1, norm_scale=True),
            np.array([3.8, -1.9])
            + 0.1 * np.sqrt((3.8**2 + 1.9**2) / 2) * np.array([1, -1]),
        ),
    ],
)
def test_stabilizer_is_the_denominator(stabilizer, denominator):
    x = np.array([1.0, -2.0, 0.5])
    expected = x * (settings.W.T @ (np.array([2.0, 1.0]) / denominator))
    found = settings.dense(zennit.Epsilon(stabilizer))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_stabilizer_of_a_composite_is_not_the_epsilon():
    composite = zennit.EpsilonPlusFlat(0.5, stabilizer=0.25)
    by_role = {a.role: a.rule for a in composite.assignments if not a.first}
    assert by_role["layer"] == rules.Epsilon(0.5)
    assert by_role["convolution"] == rules.ZPlus(0.25)
    assert by_role["sum"] == rules.Norm(0.25)


def normed(x):
    """A dense layer, a batch norm that is not the identity, a sum."""
    y = x @ settings.W.T + settings.B
    y = (y - np.array([0.1, 0.2])) * np.array([2.0, 0.5]) + np.array([1.0, -1.0])
    return y


def test_batch_norm_passes_without_a_canonizer():
    x, r = [1.0, -2.0, 0.5], [2.0, 1.0]
    found = settings.relevances(normed, zennit.EpsilonPlus(1e-12), [x], r)[0]
    np.testing.assert_allclose(found, settings.dense(zennit.Epsilon(1e-12)), rtol=1e-6)


def test_excitation_backprop_takes_the_gradient_of_a_batch_norm():
    x, r = [1.0, -2.0, 0.5], np.array([2.0, 1.0])
    found = settings.relevances(normed, zennit.ExcitationBackprop(1e-12), [x], r)[0]
    scales = np.array([2.0, 0.5])
    f = lambda x: x @ settings.W.T + settings.B  # noqa: E731
    below = settings.relevances(f, zennit.ZPlus(1e-12), [x], scales * r)[0]
    np.testing.assert_allclose(found, below, rtol=1e-6)


def test_batch_norm_is_merged_by_a_canonizer():
    x, r = np.array([1.0, -2.0, 0.5]), [2.0, 1.0]
    composite = zennit.EpsilonPlus(1e-12, canonizers=["SequentialMergeBatchNorm"])
    found = settings.relevances(normed, composite, [x], r)[0]
    y = np.asarray(normed(x))
    expected = x * ((settings.W * [[2.0], [0.5]]).T @ (r / y))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_guided_backprop_is_a_gradient_whose_seed_is_the_output():
    w = jnp.asarray(settings.W.T)
    f = lambda x: jax.nn.relu(x @ w) @ jnp.array([1.0, -1.0])  # noqa: E731
    x = jnp.array([1.0, -2.0, 0.5])
    found = jaxlrp.lrp(f, zennit.GuidedBackprop())(x)
    np.testing.assert_allclose(found, f(x) * w[:, 0], rtol=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize(
    "wrong", [{"zero_params": ["weight"]}, {"canonizers": ["NoSuchCanonizer"]}]
)
def test_argument_that_has_no_meaning_here_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        zennit.EpsilonPlus(**wrong)
