"""Scores: one check of classes for all of them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import evaluation
from jaxlrp.evaluation import protocols

RNG = np.random.default_rng(0)
W = RNG.standard_normal((12, 3)).astype(np.float32)
X = RNG.standard_normal(12).astype(np.float32)
SCORES = {
    "logit": evaluation.logit,
    "probability": evaluation.probability,
    "accuracy": evaluation.accuracy,
}
each_score = pytest.mark.parametrize("name", SCORES)
LAST = W.shape[1] - 1


def f(x):
    return x.reshape(-1) @ W


@each_score
@pytest.mark.parametrize("x", [X, -X, X[::-1].copy()], ids=["x", "-x", "reversed"])
def test_negative_classes_count_from_the_end(name, x):
    score = SCORES[name]
    for negative in range(-3, 0):
        expected = score(f, negative + 3)(x)
        for target in (negative, np.int64(negative), jnp.array(negative)):
            assert score(f, target)(x) == expected
        traced = jax.jit(lambda t: score(f, t)(x))(negative)
        np.testing.assert_allclose(traced, expected, rtol=1e-6)


def test_the_accuracy_of_a_negative_class_is_one_where_it_is_the_highest():
    highest = int(f(X).argmax())
    assert evaluation.accuracy(f, highest - 3)(X) == 1.0
    assert sum(evaluation.accuracy(f, t)(X) for t in (-1, -2, -3)) == 1.0


@pytest.mark.whole
@each_score
@pytest.mark.parametrize("target", [3, 9, -4, 10**12, np.int32(3), jnp.array(-4)])
def test_a_class_that_there_is_not_is_refused(name, target):
    message = rf"target: got {re.escape(repr(target))}, expected classes in \[-3, 3\)"
    for wrap in (lambda g: g, jax.jit):
        with pytest.raises(ValueError, match=message):
            wrap(SCORES[name](f, target))(X)


@pytest.mark.whole
@each_score
@pytest.mark.parametrize("target", ["max", None, 1.0, True, jnp.array(1.0), (1,)])
def test_what_is_no_class_is_refused_when_it_is_given(name, target):
    with pytest.raises(TypeError, match="target: got .*, expected a class, an int"):
        SCORES[name](f, target)


@each_score
def test_classes_of_many_examples_are_refused(name):
    with pytest.raises(ValueError, match=r"target: got shape \(2,\), expected one"):
        SCORES[name](f, jnp.array([0, 1]))


@pytest.mark.whole
@each_score
@pytest.mark.parametrize(
    ("out", "error"),
    [(jnp.ones((2, 3)), ValueError), (jnp.ones(()), ValueError)]
    + [(jnp.ones(0), ValueError), ("cat", TypeError)],
    ids=["a batch", "a number", "nothing", "a text"],
)
def test_an_output_without_classes_is_refused(name, out, error):
    with pytest.raises(error, match=r"f: its output"):
        SCORES[name](lambda x: out, 0)(X)


@each_score
def test_a_class_may_be_mapped_over(name):
    found = jax.vmap(lambda t: SCORES[name](f, t)(X))(jnp.arange(-3, 3))
    np.testing.assert_allclose(found[:3], found[3:], rtol=1e-6)


IMAGE, SHAPE = X.reshape(4, 3, 1), (4, 3, 1)
PROTOCOLS = {
    "dynamiclrp": lambda t: protocols.dynamiclrp(f, IMAGE, IMAGE, t, step=3, kernel=3),
    "dynamiclrp, logit": lambda t: protocols.dynamiclrp(
        f, IMAGE, IMAGE, t, step=3, kernel=3, score="logit"
    ),
    "attnlrp": lambda t: protocols.attnlrp(f, X, X, t, baseline=0.0, steps=3),
    "chefer": lambda t: protocols.chefer(f, IMAGE, IMAGE, t),
    "eraser": lambda t: protocols.eraser(f, X, X, t, baseline=0.0),
    "rise": lambda t: protocols.rise(f, IMAGE, IMAGE, t, step=3, kernel=3),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_take_negative_classes_and_refuse_those_that_there_are_not(name):
    run = PROTOCOLS[name]
    found, expected = jax.tree.leaves(run(-1)), jax.tree.leaves(run(LAST))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    for target in (9, -4):
        with pytest.raises(ValueError, match=f"target: got {target}, expected classes"):
            run(target)


def test_the_class_of_a_random_logit_is_one_of_them():
    with pytest.raises(ValueError, match=r"target: got .*9.*expected classes in"):
        evaluation.random_logit(lambda t: X * t, 9, jax.random.key(0), classes=3)
