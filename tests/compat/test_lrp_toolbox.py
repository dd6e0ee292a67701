"""The LRP toolbox's numbers, by its names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import rules
from jaxlrp.compat import lrp_toolbox as toolbox
from tests.compat import settings

DENSE = {
    "simple": (toolbox.lrp(), (1.052632, 1.315789, 0.263158)),
    "epsilon": (toolbox.lrp("epsilon", 0.1), (1.00641, 1.27564, 0.262821)),
    "alpha 1": (toolbox.lrp("alphabeta", 1.0), (0.263158, 1.052632, 1.526316)),
    "alpha 2": (toolbox.lrp("alphabeta", 2.0), (-0.098684, 1.896930, 3.052632)),
    "w-square": (toolbox.lrp("ww"), (0.774483, 0.399820, 1.825700)),
    "flat": (toolbox.lrp("flat"), (1.0, 1.0, 1.0)),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", DENSE)
def test_variant_on_a_dense_layer(name):
    composite, expected = DENSE[name]
    np.testing.assert_allclose(settings.dense(composite), expected, rtol=1e-5)


def test_max_pooling_shares_ties():
    found = settings.max_pool(toolbox.lrp(), [2.0, 2.0], [1.0])
    settings.close(found, 0.5, 0.5)


def test_sum_pooling_is_in_proportion():
    settings.close(settings.average_pool(toolbox.lrp()), -1.0, 2.0, 6 / 7, 1 / 7)


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="variant: got 'gamma'"):
        toolbox.lrp("gamma")


def test_unknown_formula_is_refused():
    with pytest.raises(ValueError, match="number: got 7"):
        toolbox.formula(7)


@pytest.mark.whole
@pytest.mark.parametrize("number", toolbox.FORMULAS)
def test_formula_gives_relevance(number):
    x, r = [1.0, -2.0, 0.5], [2.0, 1.0]
    f = lambda x: x @ settings.W.T + settings.B  # noqa: E731
    (found,) = settings.relevances(f, toolbox.formula(number, low=-3, high=3), [x], r)
    assert np.isfinite(found).all() and np.abs(found).max() > 0


@pytest.mark.parametrize(
    ("number", "rule"),
    [
        (6, rules.ZBox(-3, 3, epsilon=1e-16)),
        (102, rules.Flat(1e-16)),
        (104, rules.WSquare(1e-16, bias="ignore")),
    ],
)
def test_formula_has_its_rule_first(number, rule):
    lines = toolbox.formula(number, low=-3, high=3).assignments
    assert [a.rule for a in lines if a.first and a.role == "layer"] == [rule]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("number", "above", "below"),
    [
        (54, "Epsilon", "Flat"),
        (56, "Epsilon", "WSquare"),
        (58, "AlphaBeta", "Flat"),
        (60, "AlphaBeta", "WSquare"),
        (114, "Epsilon", "AlphaBeta"),
    ],
)
def test_formulas_that_switch_at_a_layer(number, above, below):
    def f(x):
        for _ in range(4):
            x = jax.nn.relu(x @ jnp.eye(3))
        return x

    plan = jaxlrp.plan(f, toolbox.formula(number, switch=2))(jnp.ones(3))
    found = [r.rule.split("(")[0] for r in plan.rows if r.role == "dense"]
    assert found == [below, below, above, above]
