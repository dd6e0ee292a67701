"""Parameters of layers whose rule sends relevance to the inputs' shadows."""

import jax
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules
from tests.rules.test_layer import conv, draw


def dense(params, x):
    return x @ params["w"] + params["b"]


def convolution(params, x):
    return conv(x, params["w"]) + params["b"][:, None, None]


SHAPES = {
    "dense": (dense, (2, 4), (4, 5), 5),
    "convolution": (convolution, (1, 2, 4, 4), (3, 2, 3, 3), 3),
}
RULES = {
    "flat": rules.Flat(),
    "flat, balanced": rules.Flat(balanced=True),
    "w-square": rules.WSquare(),
    "w-square without bias": rules.WSquare(bias="ignore"),
    "z-box": rules.ZBox(-2.0, 2.0),
    "epsilon that hands back": rules.Epsilon(bias="share"),
    "alpha-beta that hands back": rules.AlphaBeta(bias="share"),
}


@pytest.mark.parametrize("layer", SHAPES)
@pytest.mark.parametrize("rule", RULES)
def test_weights_get_what_the_layer_passes_on_and_its_bias_the_rest(layer, rule):
    with jax.enable_x64(True):
        f, shape, kernel, features = SHAPES[layer]
        params, x = {"w": draw(*kernel), "b": draw(features)}, draw(*shape, seed=1)
        composite = composites.Uniform(RULES[rule])
        relevance = jaxlrp.lrp(f, composite, target="all")(params, x)
        given = jax.jit(jaxlrp.parameter_relevance(f, composite, target="all"))(
            params, x
        )
        total = f(params, x).sum()
        np.testing.assert_allclose(given["w"].sum(), relevance.sum(), rtol=1e-9)
        np.testing.assert_allclose(given["b"].sum(), total - relevance.sum(), atol=1e-4)


@pytest.mark.always
def test_shares_of_single_weights():
    """w-square: `w_ij^2 R_i / (sum_k w_ik^2 + b_i^2)`, the bias in the same measure."""
    with jax.enable_x64(True):
        params, x = {"w": draw(4, 5), "b": draw(5)}, draw(4, seed=1)
        composite = composites.Uniform(rules.WSquare(0.0))
        given = jaxlrp.parameter_relevance(dense, composite, target="all")(params, x)
        share = dense(params, x) / ((params["w"] ** 2).sum(0) + params["b"] ** 2)
        np.testing.assert_allclose(given["w"], params["w"] ** 2 * share, rtol=1e-9)
        np.testing.assert_allclose(given["b"], params["b"] ** 2 * share, rtol=1e-9)


def test_the_inputs_explanation_stays_as_it_is():
    with jax.enable_x64(True):
        params, x = {"w": draw(4, 5), "b": draw(5)}, draw(4, seed=1)
        for rule in RULES.values():
            composite = composites.Uniform(rule)
            alone = jaxlrp.lrp(dense, composite, target=1)(params, x)
            given = jaxlrp.parameter_relevance(dense, composite, target=1)(params, x)
            assert given["w"][:, 0].tolist() == [0.0] * 4
            np.testing.assert_allclose(given["w"].sum(), alone.sum(), rtol=1e-9)


@pytest.mark.parametrize("rule", ["epsilon that hands back", "flat"])
def test_kernels_of_layers_without_a_bias_add_up_to_what_they_pass_on(rule):
    """In a row of layers: what one's kernel gets does not go to the next one twice."""
    with jax.enable_x64(True):
        params, x = {"u": draw(4, 5), "v": draw(5, 3)}, draw(2, 4, seed=1)
        composite = composites.Uniform(RULES[rule])

        def f(params, x):
            return jax.nn.relu(x @ params["u"]) @ params["v"]

        given = jaxlrp.parameter_relevance(f, composite, target="all")(params, x)
        passed = jaxlrp.lrp(f, composite, target="all")(params, x).sum()
        hidden = jax.nn.relu(x @ params["u"])
        upper = jaxlrp.lrp(lambda h: h @ params["v"], composite, target="all")(hidden)
        np.testing.assert_allclose(given["u"].sum(), passed, rtol=1e-9)
        np.testing.assert_allclose(given["v"].sum(), upper.sum(), rtol=1e-9)


@pytest.mark.always
def test_shares_of_single_biases():
    """Under w-square `b^2`, in the denominator; where no bias stands, nothing."""
    with jax.enable_x64(True):
        params, x = {"w": draw(4, 5), "b": draw(5)}, draw(4, seed=1)
        y, weights = dense(params, x), (params["w"] ** 2).sum(0)
        square = params["b"] ** 2
        for name, wanted in {
            "w-square": y * square / (weights + square + 1e-6),
            "w-square without bias": 0 * y,
            "flat": 0 * y,
            "flat, balanced": 0 * y,
            "z-box": 0 * y,
            "epsilon that hands back": 0 * y,
            "alpha-beta that hands back": 0 * y,
        }.items():
            composite = composites.Uniform(RULES[name])
            explain = jaxlrp.parameter_relevance(dense, composite, target="all")
            given = explain(params, x)["b"]
            np.testing.assert_allclose(given, wanted, rtol=1e-6, atol=1e-5)
