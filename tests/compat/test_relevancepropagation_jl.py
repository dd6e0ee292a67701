"""RelevancePropagation.jl's numbers, by its names."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import rules
from jaxlrp.compat import relevancepropagation_jl as julia
from tests.compat import settings

DENSE = {
    "zero": (julia.ZeroRule(), (1.052632, 1.315789, 0.263158)),
    "epsilon 0.1": (julia.EpsilonRule(0.1), (1.00641, 1.27564, 0.262821)),
    "gamma": (julia.GammaRule(), (1.083591, 1.270124, 0.259288)),
    "generalised gamma": (julia.GeneralizedGammaRule(), (1.01316, 1.30263, 0.326316)),
    "z-plus": (julia.ZPlusRule(), (0.263158, 1.052632, 1.526316)),
    "alpha 2, beta 1": (julia.AlphaBetaRule(), (-0.098684, 1.896930, 3.052632)),
    "z-box": (julia.ZBoxRule(-3.0, 3.0), (0.730159, 0.751323, 1.518520)),
    "w-square": (julia.WSquareRule(), (0.774483, 0.399820, 1.825696)),
    "flat": (julia.FlatRule(), (1.0, 1.0, 1.0)),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", DENSE)
def test_rule_on_a_dense_layer(name):
    rule, expected = DENSE[name]
    np.testing.assert_allclose(settings.dense(rule), expected, rtol=1e-5)


def test_dense_layer_worked_out_by_hand():
    w, b = np.array([[3.0, 4.0], [5.0, 6.0]]), np.array([7.0, 8.0])
    f = lambda x: x @ w.T + b  # noqa: E731
    (found,) = settings.relevances(f, julia.ZeroRule(), [[1.0, 2.0]], [1 / 3, 2 / 3])
    np.testing.assert_allclose(found, [17 / 90, 316 / 675], rtol=1e-8)


def test_max_pooling_worked_out_by_hand():
    x = [[1.0, 2.0, 3.0], [10.0, 5.0, 6.0], [7.0, 8.0, 9.0]]
    r = np.array([[1.0, 2.0], [3.0, 4.0]]) / 30
    found = settings.max_pool(julia.EpsilonPlus(), x, r, stride=1)
    expected = np.array([[0, 0, 0], [4, 0, 2], [0, 0, 4]]) / 30
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_box_preset_has_the_plain_gamma_rule():
    for preset in (julia.EpsilonGammaBox(-1.0, 1.0), julia.EpsilonGammaBox(0, 1)):
        lines = {(a.role, a.first): a.rule for a in preset.assignments}
        assert lines["convolution", False] == rules.Gamma(0.25, epsilon=1e-9)
        assert isinstance(lines["convolution", True], rules.ZBox)


def normed(x):
    y = x @ settings.W.T + settings.B
    return (y - jnp.array([0.1, 0.2])) * jnp.array([2.0, 0.5]) + jnp.array([1.0, -1.0])


@pytest.mark.whole
@pytest.mark.parametrize("canonize", [False, True])
def test_batch_norm_passes_unless_the_model_is_canonized(canonize):
    x, r = np.array([1.0, -2.0, 0.5]), np.array([2.0, 1.0])
    composite = julia.EpsilonPlus(1e-12, canonize=canonize)
    (found,) = settings.relevances(normed, composite, [x], r)
    expected = settings.dense(rules.Epsilon(1e-12))
    if canonize:
        y = np.array([2 * 3.7 + 1, 0.5 * -2.1 - 1])
        expected = x * ((settings.W * [[2.0], [0.5]]).T @ (r / y))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_layer_norm_holds_the_standard_deviation():
    from jaxlrp import composites

    composite = composites.Epsilon(1e-12).on("normaliser", julia.LayerNormRule())
    found = settings.elementwise(settings.layer_norm, composite)
    settings.close(found, 1.440287, -1.251219, 0.814678)
