"""Baselines, against loops and a dense linear system in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import evaluation
from jaxlrp.evaluation import baselines

RNG = np.random.default_rng(3)
X = RNG.normal(size=(2, 7, 6, 3)).astype(np.float32)


def blurred(x, kernel, sigma, mode):
    """A two-dimensional convolution with the outer product of the weights."""
    radius = kernel // 2
    line = np.exp(-((np.arange(kernel) - radius) ** 2) / (2 * sigma**2))
    weights = np.outer(line, line) / line.sum() ** 2
    how = {"mode": "constant"} if mode == "zero" else {"mode": mode}
    padded = np.pad(x, ((radius, radius), (radius, radius), (0, 0)), **how)
    found = np.zeros(x.shape)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            window = padded[i : i + kernel, j : j + kernel]
            found[i, j] = (window * weights[..., None]).sum((0, 1))
    return found


@pytest.mark.parametrize("padding", ["reflect", "edge", "zero"])
def test_blur_is_a_convolution_with_a_gaussian(padding):
    @jax.jit
    @jax.vmap
    def blur(x):
        return baselines.blur(x, kernel=5, sigma=1.3, padding=padding)

    for found, x in zip(blur(X), X, strict=True):
        wanted = blurred(x, 5, 1.3, padding)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_blur_of_a_constant_is_the_constant_in_the_input_dtype():
    found = baselines.blur(jnp.full((60, 30, 2), 3.0, jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(found, np.float32), 3.0)


def test_blur_along_other_axes():
    moved = baselines.blur(np.moveaxis(X[0], -1, 0), 3, 1.0, axes=(-2, -1))
    np.testing.assert_allclose(
        np.moveaxis(np.asarray(moved), 0, -1),
        blurred(X[0], 3, 1.0, "reflect"),
        rtol=1e-4,
        atol=1e-6,
    )


def test_mean_is_that_of_each_channel():
    found = jax.vmap(baselines.mean)(X)
    wanted = np.broadcast_to(X.mean((1, 2), keepdims=True), X.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_baseline_has_the_dtype_of_its_image():
    x = jnp.asarray(X[0], jnp.float16)
    assert baselines.mean(x).dtype == baselines.blur(x, 3, 1.0).dtype == x.dtype


def test_noise_has_its_mean_and_deviation_and_depends_on_the_key():
    x = jnp.zeros(20_000)
    drawn = baselines.noise(jax.random.key(0), x, sigma=2.0, location=5.0)
    assert abs(float(drawn.mean()) - 5) < 0.1 and abs(float(drawn.std()) - 2) < 0.1
    again = baselines.noise(jax.random.key(1), x, sigma=2.0, location=5.0)
    assert not jnp.array_equal(drawn, again)


def imputed(x, removed):
    """The dense system for one channel, solved."""
    at = [tuple(p) for p in np.argwhere(removed)]
    matrix, rhs = np.zeros((len(at), len(at))), np.zeros(len(at))
    for row, (i, j) in enumerate(at):
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                p = (i + di, j + dj)
                inside = 0 <= p[0] < x.shape[0] and 0 <= p[1] < x.shape[1]
                if (di, dj) == (0, 0) or not inside:
                    continue
                weight = 1 / 6 if 0 in (di, dj) else 1 / 12
                matrix[row, row] += weight
                if removed[p]:
                    matrix[row, at.index(p)] -= weight
                else:
                    rhs[row] += weight * x[p]
    found = x.copy()
    for p, value in zip(at, np.linalg.solve(matrix, rhs), strict=True):
        found[p] = value
    return found


def test_inpainting_solves_the_system_of_neighbours():
    removed = RNG.random((2, 7, 6)) < 0.6
    full = np.broadcast_to(removed[..., None], X.shape)
    found = jax.jit(jax.vmap(baselines.inpaint))(X, full)
    for i in range(2):
        for c in range(3):
            wanted = imputed(X[i, ..., c].astype(np.float64), removed[i])
            np.testing.assert_allclose(found[i, ..., c], wanted, rtol=1e-3, atol=1e-4)


def test_inpainting_leaves_what_is_known_and_fills_large_holes():
    x = np.full((12, 12, 1), 5.0, np.float32)
    removed = np.ones(x.shape, bool)
    removed[0, 0] = False
    inpaint = jax.jit(baselines.inpaint)
    np.testing.assert_allclose(inpaint(x, removed), x, rtol=1e-4)
    np.testing.assert_array_equal(inpaint(x, x > 9), x)
    np.testing.assert_array_equal(inpaint(x, np.ones_like(removed)), 0)


def test_inpainting_adds_noise_to_what_is_removed_alone():
    removed = np.zeros(X[0].shape, bool)
    removed[2:4] = True
    plain, noisy = jax.jit(
        lambda x: [
            baselines.inpaint(x, removed, key=key, sigma=0.5)
            for key in (None, jax.random.key(0))
        ]
    )(X[0])
    same = np.asarray(plain == noisy)
    assert same[~removed].all() and not same[removed].any()


def test_inpainting_is_a_baseline_of_a_curve():
    x = jnp.asarray(X[0])
    paint = functools.partial(baselines.inpaint, axes=(0, 1))
    relevance = jnp.abs(x).sum(-1, keepdims=True)
    curve = jax.jit(
        lambda x, r: evaluation.flipping(jnp.sum, x, r, baseline=paint, steps=(0, 0.5))
    )(x, relevance)
    gone = np.argsort(-np.asarray(relevance).reshape(-1), kind="stable")[:21]
    removed = np.isin(np.arange(42), gone).reshape(7, 6)
    channels = [imputed(X[0, ..., c].astype(np.float64), removed) for c in range(3)]
    wanted = [X[0].sum(), np.sum(channels)]
    np.testing.assert_allclose(curve.scores, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: baselines.blur(jnp.zeros((4, 4, 1)), kernel=4), "kernel: got 4"),
        (lambda: baselines.blur(jnp.zeros((4, 4, 1)), sigma=0.0), "sigma: got 0"),
        (lambda: baselines.blur(jnp.zeros((4, 4, 1)), padding="wrap"), "padding: got"),
        (lambda: baselines.blur(jnp.zeros(4)), "axes: got"),
        (lambda: baselines.blur(jnp.zeros((4, 4, 1), int)), "x: got dtype int"),
        (lambda: baselines.noise(3, jnp.zeros(3)), "key: got 3"),  # type: ignore
        (
            lambda: baselines.inpaint(jnp.zeros((4, 4, 1)), jnp.zeros((4, 4), bool)),
            "removed: got shape",
        ),
        (
            lambda: baselines.inpaint(jnp.zeros(4), jnp.zeros(4, bool), axes=(0,)),
            "axes: got",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
