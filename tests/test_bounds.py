"""The warning of a z-box whose bounds do not contain the data."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp.errors import BoundsWarning

W = jnp.ones((2, 3))
X = jnp.array([0.25, 1.5])


def f(x):
    return x @ W


def boxed(low=0.0, high=1.0):
    return composites.Uniform(rules.ZBox(low, high))


def test_bounds_that_do_not_contain_the_data():
    message = r"from 0.25 to 1.5, outside .* by up to 0 below and 0.5 above \(50.0%"
    with pytest.warns(BoundsWarning, match=message) as caught:
        jaxlrp.lrp(f, boxed())(X)
    assert caught[0].filename == __file__
    assert "ZBox(low=0.0, high=1.0) at" in str(caught[0].message)


def test_bounds_of_the_layers_own_input():
    """Behind the normalisation that is part of the function."""
    normalised = lambda x: f((x - 0.5) / 0.25)  # noqa: E731
    with pytest.warns(BoundsWarning, match="from -1 to 4, .* by up to 0 below and 2"):
        jaxlrp.lrp(normalised, boxed(-2.0, 2.0))(X)


def test_bounds_by_element():
    with pytest.warns(BoundsWarning, match="by up to 0.25 below and 0 above"):
        jaxlrp.lrp(f, boxed(jnp.array([0.5, 0.0]), 2.0))(X)


def test_bounds_that_are_the_wrong_way_round():
    with pytest.warns(BoundsWarning, match="low is above high by up to 3"):
        jaxlrp.lrp(f, boxed(jnp.array(2.0), -1.0))(X)


@pytest.mark.parametrize("explain", ["lrp", "value_and_lrp", "audit", "relprop"])
def test_every_entrance_warns(explain):
    with pytest.warns(BoundsWarning) as caught:
        if explain == "relprop":
            jaxlrp.relprop(f, X, composite=boxed())
        else:
            getattr(jaxlrp, explain)(f, boxed())(X)
    assert caught[0].filename == __file__


def test_no_warning_where_the_data_is_inside_or_not_known():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxlrp.lrp(f, boxed(0.25, 1.5))(X)
        rounded = jnp.array([0.0, 1.0 + 1e-6])
        jaxlrp.lrp(f, boxed())(rounded)
        inside = jax.jit(jaxlrp.lrp(f, boxed()))(X)
        jax.jit(lambda high: jaxlrp.lrp(f, boxed(0.0, high))(X))(1.0)
        jaxlrp.plan(f, boxed())(X)
    assert np.isfinite(inside).all()
