"""The gradient and the relevance from one call: each what it is alone, one forward."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlrp
from jaxlrp import attribution, composites

RNG = np.random.default_rng(2)
W = [jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((8, 16), (16, 16), (16, 3))]
X = jnp.asarray(RNG.normal(size=(5, 8)), jnp.float32)


def mlp(ws, x):
    for w in ws[:-1]:
        x = jax.nn.relu(x @ w)
    return x @ ws[-1]


@pytest.mark.parametrize("target", ["max", "all", 1, lambda out: out * 0.5])
def test_each_is_what_it_is_alone(target):
    both = jax.jit(jaxlrp.value_grad_and_lrp(mlp, target=target))
    value, gradient, relevance = both(W, X)
    alone = {"target": target}
    np.testing.assert_allclose(value, mlp(W, X), rtol=1e-5)
    slope = attribution.gradient(mlp, **alone)(W, X)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5)
    expected = jaxlrp.lrp(mlp, **alone)(W, X)
    np.testing.assert_allclose(relevance, expected, rtol=1e-4, atol=1e-5)


def test_auxiliary_output_and_several_arguments():
    f = lambda x, y: ((x * y).sum(), {"twice": 2 * x})  # noqa: E731
    both = jaxlrp.value_grad_and_lrp(f, argnums=(0, 1), has_aux=True, target="all")
    x, y = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
    (value, aux), gradient, relevance = both(x, y)
    assert float(value) == 11.0
    np.testing.assert_allclose(aux["twice"], [2.0, 4.0])
    np.testing.assert_allclose(gradient[0], y)
    np.testing.assert_allclose(gradient[1], x)
    np.testing.assert_allclose(relevance[0], x * y / 2)


# Of ReLUs LRP-0 is the gradient, and nothing is left to be worked out twice.
@pytest.mark.parametrize(
    ("composite", "passes"),
    [(composites.Default(), 3), (composites.Uniform(jaxlrp.rules.LRP0()), 2)],
)
def test_there_is_one_forward_pass(composite, passes):
    both = jaxlrp.value_grad_and_lrp(mlp, composite)
    text = jax.jit(both).lower(W, jnp.ones((64, 8))).compile().as_text()
    assert len(re.findall(r"= \S+ dot\(", text)) == passes * len(W)


def test_there_is_one_forward_pass_through_a_normalisation():
    def f(ws, x):
        for w in ws[:-1]:
            x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)
            x = jnp.tanh(x @ w)
        return x @ ws[-1]

    both = jaxlrp.value_grad_and_lrp(f)
    text = jax.jit(both).lower(W, jnp.ones((64, 8))).compile().as_text()
    assert len(re.findall(r"= \S+ dot\(", text)) == 3 * len(W)


class Attending(nn.Module):
    """Its modules make scopes, which tell nothing apart here."""

    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm()(x)
        mask = nn.make_causal_mask(jnp.ones(x.shape[:-1]))
        x = x + nn.MultiHeadDotProductAttention(2)(h, mask=mask)
        return nn.Dense(3)(x.mean(-2))


def test_there_is_one_forward_pass_through_attention():
    module, x = Attending(), jnp.ones((2, 5, 8))
    params = module.init(jax.random.key(0), x)

    def products(f):
        text = jax.jit(f).lower(params, x).compile().as_text()
        return len(re.findall(r"= \S+ dot\(", text))

    def highest(params, x):
        return module.apply(params, x).max(-1).sum()

    both = jaxlrp.value_grad_and_lrp(module.apply)
    apart = jax.value_and_grad(highest, argnums=1), jaxlrp.value_and_lrp(module.apply)
    assert products(both) == sum(map(products, apart)) - products(module.apply)


def test_what_is_no_number_has_no_gradient():
    f = lambda table, ids: table[ids].sum()  # noqa: E731
    with pytest.raises(TypeError, match="argument 1 is attributed: got dtype int32"):
        jaxlrp.value_grad_and_lrp(f)(jnp.ones((4, 2)), jnp.array([1, 2]))
