"""What is returned is named after the function, and has its arguments."""

import functools
import inspect

import jax
import jax.numpy as jnp
import pytest

import jaxlrp
from jaxlrp import attribution, concepts, similarity

X = jnp.array([1.0, 2.0])


def classify(weights: jax.Array, x: jax.Array, *, scale: float = 1.0) -> jax.Array:
    """Scores of classes."""
    return weights * x * scale


TRANSFORMATIONS = {
    "lrp": jaxlrp.lrp,
    "value_and_lrp": jaxlrp.value_and_lrp,
    "lrp_each": jaxlrp.lrp_each,
    "parameter_relevance": jaxlrp.parameter_relevance,
    "value_grad_and_lrp": jaxlrp.value_grad_and_lrp,
    "sites": concepts.sites,
    "channel_relevance": functools.partial(concepts.channel_relevance, site="a"),
    "branch": similarity.branch,
    "gradient": attribution.gradient,
    "grad_cam": functools.partial(attribution.grad_cam, layer="a"),
    "deep_lift": functools.partial(attribution.deep_lift, baseline=0.0),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_a_transformed_function_says_what_it_is(name):
    made = TRANSFORMATIONS[name](classify)
    method = "lrp" if name == "deep_lift" else name
    assert made.__name__ == f"{method}_classify"
    first, *_ = made.__doc__.splitlines()
    assert first.endswith("of `classify`, a function of the same arguments.")
    assert f"{method}`" in first
    assert "Returns:" in made.__doc__ and "Scores of classes." in made.__doc__


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_a_transformed_function_has_the_signature_but_not_the_result(name):
    found = inspect.signature(TRANSFORMATIONS[name](classify))
    own = inspect.signature(classify)
    assert found.parameters == own.parameters
    assert found.return_annotation is inspect.Signature.empty


def test_what_takes_more_arguments_has_another_signature():
    made = similarity.bilrp(classify)
    assert "and the second input" in (made.__doc__ or "")
    assert list(inspect.signature(made).parameters) == ["args", "kwargs"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "the relevance of the last positional argument"),
        ({"argnums": 0}, "the relevance of argument 0"),
        ({"argnums": (0, 1)}, "the relevance of arguments (0, 1)"),
        ({"has_aux": True}, "`(relevance, aux)`"),
        ({"capture": "h"}, "a dict of captured ones"),
    ],
)
def test_what_is_returned_is_in_the_documentation(options, words):
    assert words in (jaxlrp.lrp(classify, **options).__doc__ or "")


def test_functions_without_a_name_or_signature():
    made = jaxlrp.lrp(functools.partial(classify, X))
    assert made.__name__ == "lrp_partial"
    assert list(inspect.signature(made).parameters) == ["x", "scale"]
    assert jaxlrp.lrp(lambda x: x).__name__ == "lrp_<lambda>"
    assert jaxlrp.lrp(jnp.negative)(X).tolist() == [-1.0, 0.0]


def test_static_arguments_are_found_by_name():
    def f(weights, x, train):
        return weights * x * (2.0 if train else 1.0)

    explain = jax.jit(jaxlrp.lrp(f, argnums=1), static_argnames="train")
    assert explain(X, X, train=False).tolist() == [0.0, 4.0]
