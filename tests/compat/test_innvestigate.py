"""iNNvestigate's numbers, by its names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp.compat import innvestigate as inn
from tests.compat import settings

DENSE = {
    "z": (inn.ZRule(), (1.052632, 1.315789, 0.263158)),
    "epsilon": (inn.EpsilonRule(), (1.052632, 1.315789, 0.263158)),
    "epsilon, no bias": (inn.EpsilonIgnoreBiasRule(), (1.285714, 1.476190, 0.238095)),
    "z, no bias": (inn.ZIgnoreBiasRule(), (1.285714, 1.476190, 0.238095)),
    "alpha 1, beta 0": (inn.Alpha1Beta0Rule(), (0.263158, 1.052632, 5.526316)),
    "alpha 1, beta 0, no bias": (
        inn.Alpha1Beta0IgnoreBiasRule(),
        (0.285714, 1.142857, 1.571429),
    ),
    "alpha 2, beta 1": (inn.Alpha2Beta1Rule(), (-0.098684, 1.896930, 11.052632)),
    "alpha 2, beta 1, no bias": (
        inn.Alpha2Beta1IgnoreBiasRule(),
        (-0.178571, 2.035714, 3.142857),
    ),
    "z-plus": (inn.ZPlusRule(), (0.285714, 1.142857, 1.571429)),
    "bounded": (inn.BoundedRule(-3.0, 3.0), (0.730159, 0.751323, 1.518520)),
    "w-square": (inn.WSquareRule(), (0.774483, 0.399820, 1.825696)),
    "flat": (inn.FlatRule(), (1.0, 1.0, 1.0)),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", DENSE)
def test_rule_on_a_dense_layer(name):
    rule, expected = DENSE[name]
    np.testing.assert_allclose(settings.dense(rule), expected, rtol=1e-5)


def test_only_exact_zeros_are_stabilised():
    f = lambda x: x @ np.array([[1.0, 1.0], [-1.0, 1.0]])  # noqa: E731
    x = [1e-9, 1e-9]  # the first result is zero, the second 2e-9
    (found,) = settings.relevances(f, inn.ZRule(), [x], [0.0, 1.0])
    settings.close(found, 0.5, 0.5)


def test_sums_and_pools_are_in_proportion():
    composite = inn.LRPSequentialPresetA()
    a, b = settings.residual(composite)
    settings.close(a, 1.5, 4.0, -2 / 3)
    settings.close(b, -0.5, -2.0, -1 / 3)
    settings.close(settings.average_pool(composite), -1.0, 2.0, 6 / 7, 1 / 7)


def two_layers(x):
    k = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 4)))
    w = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))
    h = jax.lax.conv_general_dilated(
        x, k, (1,), "VALID", dimension_numbers=("NHC", "HIO", "NHC")
    )
    return jax.nn.relu(h).sum(1) @ w


def chosen(composite):
    x = jnp.ones((1, 5, 2))
    rows = jaxlrp.plan(two_layers, composite)(x).rows
    return [
        row.rule.split("(")[0] for row in rows if row.role in composites.GROUPS["layer"]
    ]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("composite", "expected"),
    [
        (inn.LRPSequentialPresetA(), ["AlphaBeta", "Epsilon"]),
        (inn.LRPSequentialPresetAFlat(), ["Flat", "Epsilon"]),
        (inn.LRPSequentialPresetB(), ["AlphaBeta", "Epsilon"]),
        (inn.LRPSequentialPresetBFlat(), ["Flat", "Epsilon"]),
        (inn.LRPSequentialPresetBFlatUntilIdx(0), ["Flat", "Epsilon"]),
        (inn.LRPSequentialPresetBFlatUntilIdx(1), ["Flat", "Flat"]),
        (inn.LRPWSquare(), ["WSquare", "WSquare"]),
        (inn.LRPFlat(), ["Flat", "Flat"]),
        (inn.LRPAlphaBeta(3.0, 2.0), ["AlphaBeta", "AlphaBeta"]),
        (inn.DeepTaylor(), ["ZPlus", "ZPlus"]),
        (inn.BoundedDeepTaylor(), ["ZBox", "ZPlus"]),
        (inn.input_layer_rule(inn.LRPZ(), "Flat"), ["Flat", "Epsilon"]),
        (inn.input_layer_rule(inn.LRPZ(), (-1.0, 1.0)), ["ZBox", "Epsilon"]),
        (inn.input_layer_rule(inn.LRPZ(), inn.ZPlusRule()), ["ZPlus", "Epsilon"]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_analyzer_gives_each_layer_its_rule(composite, expected):
    assert chosen(composite) == expected


def test_deep_taylor_has_z_plus_on_the_last_layer():
    w = np.array([[1.0, 0.0], [2.0, 1.0], [-1.0, 3.0]])
    x = [1.0, 2.0, 3.0]
    (found,) = settings.relevances(lambda x: x @ w, inn.DeepTaylor(), [x], [0.0, 11.0])
    settings.close(found, 0.0, 2.0, 9.0)


def test_deep_taylor_is_its_formula():
    """z-plus of both layers, no biases."""
    generator = np.random.default_rng(2)
    v, w = generator.normal(size=(4, 3)), generator.normal(size=(3, 2))
    x = np.abs(generator.normal(size=4))
    # Every unit has positive contributions, in the last layer from the first unit.
    v[0], v[:, 0], w[0] = np.abs(v[0]), np.abs(v[:, 0]), np.abs(w[0])
    f = lambda x: jax.nn.relu(x @ v + 0.1) @ w + 0.2  # noqa: E731
    r = np.array([1.0, 0.5])
    (found,) = settings.relevances(f, inn.DeepTaylor(), [x], r)
    hidden = np.maximum(x @ v + 0.1, 0)
    for values, weights in ((hidden, w), (x, v)):
        positive = np.maximum(weights, 0)
        r = values * (positive @ (r / (values @ positive)))
    expected = r
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_bounded_deep_taylor_conserves():
    generator = np.random.default_rng(3)
    v, w = generator.normal(size=(4, 3)), generator.uniform(size=(3, 2))
    x = generator.uniform(-1, 1, size=4)
    f = lambda x: jax.nn.relu(x @ v) @ w  # noqa: E731
    (found,) = settings.relevances(f, inn.BoundedDeepTaylor(), [x], [1.0, 0.5])
    np.testing.assert_allclose(found.sum(), 1.5, rtol=1e-5)
    assert (found >= 0).all()


def test_input_layer_rule_is_a_name_that_is_known():
    with pytest.raises(ValueError, match="rule: got 'Plain', expected one of 'Z'"):
        inn.input_layer_rule(inn.LRPZ(), "Plain")


def test_alpha_beta_takes_any_pair():
    assert inn.AlphaBetaRule(3.0, 2.0) == rules.AlphaBeta(
        3.0, 2.0, epsilon=1e-7, stabiliser="zeros", bias="whole"
    )
    assert inn.AlphaBetaIgnoreBiasRule(3.0, 2.0) == rules.AlphaBeta(
        3.0, 2.0, epsilon=1e-7, stabiliser="zeros", bias="ignore"
    )
