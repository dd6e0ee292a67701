"""dynamicLRP's numbers, by its names; the paper's where it is wrong."""

import jax
import numpy as np
import pytest

from jaxlrp import composites, rules
from jaxlrp.compat import dynamiclrp
from tests.compat import settings

ENGINE = dynamiclrp.LRPEngine


@pytest.mark.whole
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_bias_takes_its_absolute_part(sign):
    """The same for a bias of the other sign."""
    found = settings.dense(ENGINE(), sign * settings.B)
    settings.close(found, 1.052632, 1.315789, 0.263158)


def test_gamma_is_shared_as_without_a_bias():
    found = settings.dense(ENGINE(use_gamma=True, mm_gamma=0.25), np.zeros(2))
    settings.close(found, 1.22321, 1.45536, 0.321429)


def test_z_plus_is_the_rule_of_the_literature():
    """The engine's gives (2/3, -5e10, 5e10) here."""
    found = settings.dense(ENGINE(use_z_plus=True))
    settings.close(found, 0.263158, 1.052632, 1.315789)


def test_sum_is_by_absolute_size():
    a, b = settings.residual(ENGINE())
    settings.close(a, 0.75, 4 / 3, -2 / 3)
    settings.close(b, 0.25, 2 / 3, -1 / 3)


def test_average_pooling_is_even():
    settings.close(settings.average_pool(ENGINE()), 0.5, 0.5, 0.5, 0.5)


def test_mean_is_by_absolute_size():
    found = settings.elementwise(lambda x: x.mean(), ENGINE(), r=1.0)
    settings.close(found, 0.25, 0.5, 0.25)


def test_norms_and_activations_pass_relevance_unchanged():
    for f in (settings.layer_norm, jax.nn.gelu):
        settings.close(settings.elementwise(f, ENGINE()), 1.0, 0.5, -0.25)


def test_constant_keeps_its_part_of_a_sum():
    f = lambda x: x + np.array([1.0, -2.0, 3.0])  # noqa: E731
    settings.close(settings.elementwise(f, ENGINE()), 0.5, 0.25, -0.25 / 4)


def test_attention_weights_are_constants_unless_asked_for():
    place = composites.Place("softmax")
    assert isinstance(ENGINE().rule(place), rules.Detach)
    assert isinstance(ENGINE(use_attn_lrp=True).rule(place), rules.Taylor)


def test_pair_of_options_is_for_convolutions_and_dense_layers():
    composite = ENGINE(use_gamma=(True, False), conv_gamma=7.0)
    convolution = composite.rule(composites.Place("convolution"))
    assert isinstance(convolution, rules.GeneralizedGamma) and convolution.gamma == 7.0
    assert isinstance(composite.rule(composites.Place("dense")), rules.Epsilon)


def test_filter_goes_in_front_of_every_layer():
    composite = ENGINE(use_gamma=(True, False), relevance_filter=0.5)
    for role in ("convolution", "dense"):
        rule = composite.rule(composites.Place(role))
        assert isinstance(rule, rules.TopK) and rule.keep == 0.5


def test_filter_keeps_the_largest_relevances():
    f = lambda x: x * 1.0 @ np.diag([1.0, 2.0, 3.0])  # noqa: E731
    found = settings.elementwise(f, ENGINE(relevance_filter=0.5))
    settings.close(found, 1.0, 0.5, 0.0)


def test_option_that_is_no_bool_is_refused():
    with pytest.raises(ValueError, match="use_gamma: got 'both'"):
        ENGINE(use_gamma="both")  # type: ignore[arg-type]
