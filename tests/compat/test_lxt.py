"""LXT's numbers, by its names."""

import jax
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites
from jaxlrp.compat import lxt
from tests.compat import settings


def test_layers_have_no_stabiliser():
    settings.close(settings.dense(lxt.AttnLRP()), 1.052632, 1.315789, 0.263158)


def test_stabiliser_has_no_sign():
    found = settings.dense(lxt.EpsilonRule(0.1))
    settings.close(found, 1.089744, 1.303419, 0.235043)


def test_stabiliser_without_a_sign_can_be_zero():
    f = lambda x: x @ np.array([[1.0], [1.0]])  # noqa: E731
    x = [-0.5, 0.25]
    (found,) = settings.relevances(f, lxt.EpsilonRule(0.25), [x], [1.0])
    assert not np.isfinite(found).any()


def test_sum_is_in_proportion():
    a, b = settings.residual(lxt.AttnLRP())
    settings.close(a, 1.5, 4.0, -2 / 3)
    settings.close(b, -0.5, -2.0, -1 / 3)


def test_softmax_is_expanded():
    found = settings.elementwise(jax.nn.softmax, lxt.AttnLRPExplicit())
    settings.close(found, 0.675629, -0.763461, 0.293899)


def test_softmax_stops_relevance_under_cp_lrp():
    with pytest.warns(jaxlrp.errors.IndependentArgumentWarning):
        found = settings.elementwise(jax.nn.softmax, lxt.CPLRP())
    settings.close(found, 0.0, 0.0, 0.0)


def test_layer_norm_holds_the_standard_deviation():
    found = settings.elementwise(settings.layer_norm, lxt.AttnLRPExplicit())
    settings.close(found, 1.440287, -1.251219, 0.814678)


def test_mean_is_in_proportion():
    found = settings.elementwise(lambda x: x.mean(), lxt.AttnLRP(), r=1.0)
    settings.close(found, 0.5, 1.0, -0.5)


def test_uniform_epsilon_rule_halves_a_product():
    composite = composites.AttnLRP().on("bilinear", lxt.UniformEpsilonRule(0.5))
    a, b, r = [1.0, 2.0], [3.0, -1.0], 4.0
    found = settings.relevances(lambda a, b: a @ b, composite, [a, b], r)
    z = 1.0 * 3.0 - 2.0
    for part in found:
        np.testing.assert_allclose(part, np.multiply(a, b) * r / (2 * (z + 0.5)))


def test_gamma_of_the_vit_is_limited_to_scopes():
    composite = lxt.CPLRPGamma(0.25, 0.05, scopes=["*mlp*"])
    place = composites.Place("dense")
    assert type(composite.rule(place)).__name__ == "LRP0"
    inside = composites.Place("dense", scope="block/mlp")
    assert type(composite.rule(inside)).__name__ == "GeneralizedGamma"
    everywhere = lxt.CPLRPGamma(0.25, 0.05)
    assert type(everywhere.rule(place)).__name__ == "GeneralizedGamma"
