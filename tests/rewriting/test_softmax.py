"""The derivative of a softmax at another temperature than its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp.errors import RuleError

RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.normal(size=(4, 4)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(4, 4)), jnp.float32)
SEEN = np.tri(4, dtype=bool)
VALUES = jnp.arange(1.0, 5.0)


def scores(x, size):
    return jnp.where(SEEN, size * (x @ W), -jnp.inf)


def softened(temperature):
    return composites.AttnLRP().on("softmax", rules.Taylor(temperature=temperature))


def by_hand(size, temperature):
    """`x` times the derivative, `s (c - sum(s c))` with the softer `s`."""
    s = jax.nn.softmax(scores(X, size) / temperature)
    c = jnp.zeros((4, 4)).at[2].set(VALUES)
    of_scores = s * (c - (s * c).sum(-1, keepdims=True))
    return X * (size * of_scores @ W.T)


FORMS = {
    "jax.nn": jax.nn.softmax,
    "without a maximum": lambda s: jnp.exp(s) / jnp.exp(s).sum(-1, keepdims=True),
    "by a product": lambda s: (
        jnp.exp(s - s.max(-1, keepdims=True))
        * (1 / jnp.exp(s - s.max(-1, keepdims=True)).sum(-1, keepdims=True))
    ),
}


@pytest.mark.parametrize("temperature", [0.5, 2.0])
@pytest.mark.parametrize("form", FORMS)
def test_derivative_is_that_of_divided_scores(form, temperature):
    def f(x):
        return (FORMS[form](scores(x, 1.0)) @ VALUES)[2]

    found = jaxlrp.lrp(f, softened(temperature), target="all")(X)
    np.testing.assert_allclose(found, by_hand(1.0, temperature), rtol=1e-4, atol=1e-6)


def test_large_scores_neither_overflow_nor_vanish():
    def f(x):
        return (jax.nn.softmax(scores(x, 1000.0)) @ VALUES)[2]

    found = jax.jit(jaxlrp.lrp(f, softened(500.0), target="all"))(X)
    wanted = by_hand(1000.0, 500.0)
    # Of scores of some thousands float32 knows 2e-4: so much is an exponential's error.
    size = abs(wanted).max()
    assert size > 1
    np.testing.assert_allclose(found / size, wanted / size, atol=1e-3)


def test_a_temperature_of_one_changes_nothing_and_it_may_be_traced():
    def f(x):
        return (jax.nn.softmax(scores(x, 1.0)) @ VALUES)[2]

    def explain(temperature):
        return jaxlrp.lrp(f, softened(temperature), target="all")(X)

    found = jax.jit(jax.vmap(explain))(jnp.array([1.0, 3.0]))
    plain = jaxlrp.lrp(f, composites.AttnLRP(), target="all")(X)
    np.testing.assert_allclose(found[0], plain, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[1], by_hand(1.0, 3.0), rtol=1e-4, atol=1e-6)


def test_what_is_no_whole_softmax_is_refused():
    def f(x):
        return jax.nn.log_softmax(x @ W)[0, 0]

    with pytest.raises(RuleError, match="no softmax that is written as a whole"):
        jaxlrp.lrp(f, composites.GIM(), target="all")(X)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rules.Taylor(temperature=0.0), "temperature: got 0"),
        (lambda: rules.Taylor(temperature=-1.0), "temperature: got -1.0"),
        (lambda: rules.Taylor(root=0.0, temperature=1.0), "temperature: got 1.0 and a"),
        (
            lambda: composites.AttnLRP().on("dense", rules.Taylor(temperature=2.0)),
            "rule: got .*only a softmax has a temperature",
        ),
    ],
)
def test_a_temperature_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
