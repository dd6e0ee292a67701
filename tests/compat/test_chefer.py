"""The numbers of Chefer et al.'s code, by its names; the paper's where it is wrong."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.compat import chefer
from tests.compat import settings


def test_alpha_one_on_a_dense_layer():
    settings.close(settings.dense(chefer.Linear()), 0.285714, 1.142857, 1.571429)


def test_alpha_two_on_a_dense_layer():
    found = settings.dense(chefer.Linear(2.0))
    settings.close(found, -0.178571, 2.035714, 3.142857)


def test_alpha_one_on_a_convolution():
    """One denominator for both signs of the input, as in the paper.

    The code's two give (0.4, 1, 1.6, 1): the second result's positive contributions
    are 1, 2 and 1.5, of which it makes 1 / 2.5, 2 / 2 and 1.5 / 2.5.
    """
    found = settings.convolution(chefer.Conv2d())
    settings.close(found, 1 / 4.5, 2 / 4.5, 1.5 / 4.5 + 1.0, 1.0)


def test_convolution_does_not_double_relevance():
    """The first result has no positive contribution; the others hand on theirs."""
    np.testing.assert_allclose(
        settings.convolution(chefer.Conv2d()).sum(), 3.0, rtol=1e-6
    )


def test_sum_is_rescaled_over_the_whole_array():
    a, b = settings.residual(chefer.RelProp())
    np.testing.assert_allclose(a, [0.391, 1.043, -0.174], atol=5e-4)
    np.testing.assert_allclose(b, [0.130, 0.522, 0.087], atol=5e-4)
    np.testing.assert_allclose(a.sum() + b.sum(), 2.0, rtol=1e-6)


def test_norms_softmax_and_activations_pass_relevance_unchanged():
    for f in (settings.layer_norm, jax.nn.softmax, jax.nn.gelu):
        settings.close(settings.elementwise(f, chefer.RelProp()), 1.0, 0.5, -0.25)


def test_product_gives_half_to_each_factor():
    a, b = [1.0, 2.0], [3.0, -1.0]
    f = lambda a, b: a @ b  # noqa: E731
    found = settings.relevances(f, chefer.RelProp(), [a, b], 4.0)
    for part in found:
        np.testing.assert_allclose(part, np.multiply(a, b) * 2.0, rtol=1e-6)


def test_seed_is_one_at_the_highest_score():
    out = jnp.array([[1.0, 3.0], [2.0, -1.0]])
    np.testing.assert_array_equal(chefer.one_hot(out), [[0, 1], [1, 0]])
