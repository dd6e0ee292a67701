"""Similarities, against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import evaluation

RNG = np.random.default_rng(4)
A = RNG.normal(size=(3, 9, 8)).astype(np.float32)
B = (A + RNG.normal(size=A.shape)).astype(np.float32)


def mean_ranks(values):
    return np.array([(values < v).sum() + (values == v).sum() / 2 for v in values])


@pytest.mark.parametrize("tied", [False, True])
def test_spearman_is_the_correlation_of_mean_ranks(tied):
    a, b = (np.round(A), np.round(B)) if tied else (A, B)
    found = jax.jit(jax.vmap(evaluation.spearman))(a, b)
    for i in range(3):
        ranks = [mean_ranks(v[i].reshape(-1)) for v in (a, b)]
        np.testing.assert_allclose(found[i], np.corrcoef(*ranks)[0, 1], rtol=1e-4)


def test_spearman_takes_minus_zero_for_zero():
    a = jnp.array([0.0, -0.0, 1.0, -1.0])
    found = jax.jit(evaluation.spearman)(a, jnp.array([0.0, 0.0, 5.0, -5.0]))
    np.testing.assert_allclose(found, 1.0, rtol=1e-6)


def test_cosine_does_not_depend_on_scale_even_where_squares_vanish():
    wanted = (A[0] * B[0]).sum() / np.linalg.norm(A[0]) / np.linalg.norm(B[0])
    np.testing.assert_allclose(evaluation.cosine(A[0], B[0]), wanted, rtol=1e-5)
    np.testing.assert_allclose(
        evaluation.cosine(1e-25 * A[0], 1e25 * B[0]), wanted, rtol=1e-4
    )


def structural(a, b, side, value_range):
    """SSIM of two maps, window by window."""
    found = []
    for i in range(a.shape[0] - side + 1):
        for j in range(a.shape[1] - side + 1):
            x = a[i : i + side, j : j + side].reshape(-1).astype(np.float64)
            y = b[i : i + side, j : j + side].reshape(-1).astype(np.float64)
            cov = np.cov(x, y)
            c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
            top = (2 * x.mean() * y.mean() + c1) * (2 * cov[0, 1] + c2)
            low = x.mean() ** 2 + y.mean() ** 2 + c1
            found.append(top / low / (cov[0, 0] + cov[1, 1] + c2))
    return np.mean(found)


@pytest.mark.parametrize("window", [3, 5, 7])
def test_ssim_is_the_mean_over_windows(window):
    found = jax.jit(jax.vmap(lambda a, b: evaluation.ssim(a, b, window=window)))(A, B)
    for i in range(3):
        both = np.stack([A[i], B[i]])
        wanted = structural(A[i], B[i], window, both.max() - both.min())
        np.testing.assert_allclose(found[i], wanted, rtol=1e-3, atol=1e-5)


def test_ssim_of_channels_is_averaged_and_far_from_zero_still_right():
    a, b = np.moveaxis(A, 0, -1) + 100, np.moveaxis(B, 0, -1) + 100
    found = jax.jit(lambda a, b: evaluation.ssim(a, b, window=5, value_range=4.0))(a, b)
    wanted = [structural(a[..., c], b[..., c], 5, 4.0) for c in range(3)]
    np.testing.assert_allclose(found, np.mean(wanted), rtol=1e-3)


def test_ssim_window_is_the_largest_odd_one_that_fits():
    @jax.jit
    def pairs(a, b):
        line = a[0, :5], b[0, :5]
        return (
            (evaluation.ssim(a, b), evaluation.ssim(a, b, window=3)),
            (evaluation.ssim(*line), evaluation.ssim(*line, window=5, axes=(0,))),
        )

    for found, wanted in pairs(A[0, :4], B[0, :4]):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("name", ["cosine", "spearman", "ssim"])
def test_equals_are_alike_and_what_is_undefined_is_nan(name):
    measure = jax.jit(getattr(evaluation, name))
    np.testing.assert_allclose(measure(A[0], A[0]), 1.0, rtol=1e-5)
    zero = jnp.zeros_like(A[0])
    assert jnp.isnan(measure(zero, zero))
    assert jnp.isnan(measure(jnp.asarray(A[0]).at[0, 0].set(jnp.nan), B[0]))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="b: got shape"):
        evaluation.cosine(A, B[0])
    with pytest.raises(ValueError, match="window: got 4"):
        evaluation.ssim(A[0], B[0], window=4)
    with pytest.raises(ValueError, match="window: got 9"):
        evaluation.ssim(A[0], B[0], window=9)
    with pytest.raises(ValueError, match="axes: got"):
        evaluation.ssim(A[0], B[0], axes=(3,))
    with pytest.raises(ValueError, match="a: got a scalar"):
        evaluation.ssim(1.0, 2.0)
