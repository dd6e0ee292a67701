"""Relevances that began differently, by depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

import jaxlrp
from jaxlrp import composites, evaluation, rules

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(6, 20, 20)).astype(np.float32)
X = np.abs(RNG.normal(size=20)).astype(np.float32)
KEY = jax.random.key(0)


def network(weights, x):
    for number, w in enumerate(weights):
        x = checkpoint_name(jax.nn.relu(x @ w), f"h{number}")
    return x


def similarities(composite, f=network, weights=WEIGHTS, **options):
    found = jax.jit(evaluation.csc(f, composite, key=KEY, **options))(weights, X)
    return {name: np.asarray(v) for name, v in found.items()}


def test_similarities_are_cosines_of_relevances_by_hand():
    composite = composites.Uniform(rules.Epsilon(0.1))
    found = similarities(composite, seeds=3)
    keys = jax.random.split(KEY, 1)
    drawn = jax.random.normal(keys[0], (3, 20))
    explain = jax.jit(
        jax.vmap(
            lambda r: jaxlrp.lrp(
                network, composite, target=lambda _: r, capture=["h2", "h4"]
            )(WEIGHTS, X)
        )
    )
    relevance, captured = explain(drawn)
    for name, r in {"input": relevance, **captured}.items():
        unit = r / jnp.linalg.norm(r, axis=-1, keepdims=True)
        pairs = [(0, 1), (0, 2), (1, 2)]
        wanted = [abs(float(unit[a] @ unit[b])) for a, b in pairs]
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4)


@pytest.mark.parametrize("name", ["DeepTaylor", "ZPlus"])
def test_rules_of_one_sign_forget_where_relevance_began(name):
    composite = (
        composites.DeepTaylor()
        if name == "DeepTaylor"
        else composites.Uniform(rules.ZPlus())
    )
    found = similarities(composite, weights=np.abs(WEIGHTS))
    by_depth = [found[n].mean() for n in ("input", *(f"h{i}" for i in range(6)))]
    assert len(found) == len(by_depth)
    assert by_depth[0] > 0.99 > by_depth[-1]
    assert by_depth == sorted(by_depth, reverse=True)


def test_what_is_linear_both_ways_does_not_forget():
    found = similarities(composites.Uniform(rules.LRP0()))
    positive = similarities(composites.DeepTaylor())
    assert found["input"].mean() < 0.8 < positive["input"].mean()


def test_examples_are_mapped_over_and_inputs_may_be_pytrees():
    def f(x):
        return checkpoint_name(x["a"] @ WEIGHTS[0] + x["b"], "h")

    x = {"a": jnp.stack([X, 2 * X]), "b": jnp.ones((2, 20))}
    found = jax.vmap(evaluation.csc(f, key=KEY, seeds=2, capture="h"))(x)
    assert found["input"].shape == found["h"].shape == (2, 1)
    one = evaluation.csc(f, key=KEY, seeds=2, capture="h")(
        jax.tree.map(lambda v: v[1], x)
    )
    np.testing.assert_allclose(found["input"][1], one["input"], rtol=1e-4)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key": KEY, "seeds": 1}, "seeds: got 1"),
        ({"key": 3}, "key: got 3"),
        ({"key": KEY, "capture": "none"}, "capture: got 'none', which names no value"),
    ],
)
def test_what_cannot_be_compared(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        evaluation.csc(network, **options)(WEIGHTS, X)
