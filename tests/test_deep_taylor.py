"""Root points against the rules that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, deep_taylor, rules
from tests.rules.test_layer import draw

RULES = {
    "w-square": rules.WSquare(0.0, bias="ignore"),
    "z-plus": rules.ZPlus(0.0, bias="ignore"),
    "z-box": rules.ZBox(-2.0, jnp.linspace(1.6, 2.0, 4), epsilon=0.0),
    "lrp0": rules.LRP0(),
    "gamma": rules.Gamma(0.25, epsilon=0.0, bias="ignore"),
}


@pytest.mark.parametrize("name", RULES)
def test_roots_are_roots_and_give_the_rules_shares(name):
    rule = RULES[name]
    with jax.enable_x64(True):
        x, w, b = draw(2, 4), draw(4, 3), draw(3) * (name != "lrp0")
        # Some contribution to each neuron is positive.
        x, w = x.at[:, 0].set(1.5), w.at[0].set(jnp.abs(w[0]))
        roots = deep_taylor.root_points(rule, x, w, b)
        at_root = jnp.einsum("bij,ji->bi", roots.points, w) + b
        np.testing.assert_allclose(at_root, 0, atol=1e-12)
        shares = deep_taylor.shares(roots, x, w, b)
        np.testing.assert_allclose(shares.sum(-1), 1 + 0 * x[..., :3], rtol=1e-9)
        composite = composites.Uniform(rule)
        _, pull = jaxlrp.relprop(lambda x: x @ w + b, x, composite=composite)
        r = draw(2, 3, seed=5)
        expected = jnp.einsum("bij,bi->bj", shares, r)
        np.testing.assert_allclose(pull(r), expected, rtol=1e-9)


def test_domains():
    """z-plus with a positive bias steps beyond zero; z-box stays in its box."""
    x, w = jnp.array([1.0, 2.0]), jnp.array([[1.0], [1.0]])
    roots = [
        deep_taylor.root_points(rules.ZPlus(), x, w, b).inside.tolist()
        for b in (-1.0, 1.0)
    ]
    assert roots == [[True], [False]]
    # In one of two inputs alone it leaves its domain.
    one = deep_taylor.root_points(rules.ZPlus(), jnp.array([1.0, -2.0]), w, -3.0)
    assert (one.points >= 0).tolist() == [[True, False]]
    assert one.inside.tolist() == [False]
    box = rules.ZBox(-3.0, 3.0)
    assert deep_taylor.root_points(box, x, w).inside.tolist() == [True]
    assert deep_taylor.root_points(rules.WSquare(), x, w).inside.tolist() == [True]


def test_a_direction_that_meets_no_root():
    roots = deep_taylor.root_points(
        rules.ZPlus(), jnp.ones(2), -jnp.ones((2, 1)), jnp.ones(1)
    )
    assert roots.inside.tolist() == [False]


def test_roots_can_be_mapped_and_differentiated():
    """z-plus roots depend on the input: the derivative that claim 2 is about."""
    w = jnp.array([[1.0], [2.0]])
    points = lambda x: deep_taylor.root_points(rules.ZPlus(), x, w, -1.0).points  # noqa: E731
    slope = jax.jacfwd(points)(jnp.array([1.0, 1.0]))
    # x~ = x (1 - (z / (z + 1))) = x / (x1 + 2 x2)
    expected = np.eye(2) / 3 - np.outer([1, 1], [1, 2]) / 9
    np.testing.assert_allclose(slope[0], expected, rtol=1e-5)
    mapped = jax.vmap(points)(jnp.ones((2, 2)))
    assert mapped.shape == (2, 1, 2)


def test_rule_without_a_root():
    with pytest.raises(TypeError, match="rule: got Flat.*expected one with a root"):
        deep_taylor.root_points(rules.Flat(), jnp.ones(2), jnp.ones((2, 1)))
