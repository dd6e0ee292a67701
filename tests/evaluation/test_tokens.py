"""Tokens against answers, against sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import evaluation

RNG = np.random.default_rng(1)
R = np.round(RNG.normal(size=(6, 9)), 1).astype(np.float32)  # with ties
A = RNG.random((6, 9)) < 0.4
A[:, 2] = True
WHERE = RNG.random((6, 9)) < 0.8
WHERE[:, 2] = True


def sets(i, k, where):
    """The top tokens and the answer, as sets of places."""
    places = [j for j in range(9) if where[i, j]]
    top = set(sorted(places, key=lambda j: -float(R[i, j]))[:k])
    return top, {j for j in places if A[i, j]}


MEASURES = {
    "top_k_accuracy": lambda t, a: len(t & a) / len(t),
    "top_k_iou": lambda t, a: len(t & a) / len(t | a),
    "top_k_f1": lambda t, a: 2 * len(t & a) / (len(t) + len(a)),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", MEASURES)
def test_top_tokens_are_compared_as_sets(name):
    measure = getattr(evaluation, name)

    @jax.jit
    def measured(k, where):
        return jax.vmap(lambda r, a, w: measure(r, a, k, where=w))(R, A, where)

    for k in (1, 2, 20):
        for where in (np.ones_like(WHERE), WHERE):
            found = measured(k, where)
            for i in range(6):
                assert np.isclose(found[i], MEASURES[name](*sets(i, k, where)))


@pytest.mark.whole
@pytest.mark.parametrize("name", ["top_k_iou", "top_k_f1"])
def test_as_many_tokens_as_the_answer_has_by_default(name):
    found = jax.jit(jax.vmap(getattr(evaluation, name)))(R, A)
    for i in range(6):
        size = int(A[i].sum())
        wanted = MEASURES[name](*sets(i, size, np.ones_like(WHERE)))
        assert np.isclose(found[i], wanted)


def test_iou_that_dynamiclrp_reports_follows_from_the_accuracy():
    # Two tokens; its union is two and the tokens outside of the span.
    inside = np.array([2, 1, 2, 0, 2])
    reported = inside.sum() / (2 + (2 - inside)).sum()
    a = (inside / 2).mean()
    assert np.isclose(reported, a / (2 - a))
    # So are the published numbers, RoBERTa-L and Flan-T5-L, strict ones too.
    accuracy = np.array([96.22, 88.95, 94.73, 85.64]) / 100
    published = np.array([92.70, 80.09, 89.94, 74.86])
    assert np.abs(100 * accuracy / (2 - accuracy) - published).max() < 0.06


def test_undefined_is_nan():
    @jax.jit
    def accuracy(relevance, answer, where):
        return evaluation.top_k_accuracy(relevance, answer, where=where)

    every = np.ones(3, bool)
    assert np.isnan(accuracy(np.ones(3), ~every, every))
    unknown = np.array([1.0, np.nan, 0.0])
    assert np.isnan(accuracy(unknown, every, every))
    assert accuracy(unknown, every, np.array([True, False, True])) == 1.0


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="answer: got shape"):
        evaluation.top_k_accuracy(jnp.ones(3), jnp.ones(2, bool))
    with pytest.raises(TypeError, match="answer: got dtype"):
        evaluation.top_k_accuracy(jnp.ones(3), jnp.ones(3))
    with pytest.raises(TypeError, match="k: got 1.5"):
        evaluation.top_k_accuracy(jnp.ones(3), jnp.ones(3, bool), 1.5)
