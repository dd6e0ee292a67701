"""Measures equal Quantus's on the same input.

`tests/golden/README.md` has the version and the settings. Where conventions differ, a
test says how the one follows from the other.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import evaluation
from jaxlrp.evaluation import baselines

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "quantus.npz"

with np.load(GOLDEN, allow_pickle=False) as file:
    Q = dict(file)

X, Y = jnp.asarray(Q["x"]), jnp.asarray(Q["y"])
ALL = Q["w"]


def f(x):
    """Logits of an image with channels first."""
    return jnp.tanh(jnp.einsum("chw,chwk->k", x, ALL, precision="highest") / 3)


def explain(x, y):
    """Gradient times input of the class."""
    return x * jax.grad(lambda x: f(x)[y])(x)


A = jax.jit(jax.vmap(explain))(X, Y)


def assert_close(found, wanted, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)


@pytest.fixture(scope="module")
def pixels():
    """Curves of four features in each step."""
    return jax.jit(
        jax.vmap(
            lambda x, a, y: evaluation.flipping(
                evaluation.logit(f, y), x, a, baseline=0.0, steps=32
            )
        )
    )(X, A, Y)


def test_pixel_flipping_leaves_out_the_whole_input(pixels):
    assert_close(pixels.scores[:, 1:], Q["pixel_flipping"])


def test_area_of_pixel_flipping_counts_one_for_each_step(pixels):
    # Its curve begins with the first step, and 31 intervals have a width of one each.
    rest = evaluation.Curve(pixels.fractions[:, 1:], pixels.scores[:, 1:])
    assert_close(31 * evaluation.area(rest), Q["pixel_flipping_auc"])


@pytest.mark.parametrize("order", ["morf", "lerf"])
def test_region_perturbation_is_the_loss_of_patches(order):
    curves = jax.jit(
        jax.vmap(
            lambda x, a, y: evaluation.flipping(
                evaluation.logit(f, y),
                x,
                evaluation.pool(a, (-1, 4, 4)),
                order=order,
                steps=4,
            )
        )
    )(X, A, Y)
    losses = curves.scores[:, :1] - curves.scores[:, 1:]
    assert_close(losses, Q[f"region_perturbation_{order}"])


def test_infidelity_where_one_patch_after_the_other_is_lost():
    # In Quantus what was taken away stays away: perturbations add up.
    def one(x, a, y):
        changes = jnp.cumsum(evaluation.removals(x, (2, 4, 4)), 0)
        return evaluation.infidelity(evaluation.logit(f, y), x, a / x, changes)

    assert_close(jax.jit(jax.vmap(one))(X, A, Y), Q["infidelity"], atol=1e-6)


@pytest.mark.always
def test_linear_imputation_without_noise():
    removed = jnp.broadcast_to(Q["removed"], X[0].shape)
    found = baselines.inpaint(X[0], removed, axes=(-2, -1), tolerance=1e-7)
    assert_close(found, Q["noisy_linear_imputation"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("pointing_game", evaluation.pointing_game),
        ("relevance_mass_accuracy", evaluation.relevance_mass),
        ("relevance_rank_accuracy", evaluation.relevance_rank),
        ("top_k_intersection", lambda r, m: evaluation.top_k_accuracy(r, m, 10)),
    ],
)
def test_localisation(name, measure):
    maps = jnp.asarray(Q["map"], jnp.float32)
    assert_close(jax.jit(jax.vmap(measure))(maps, Q["mask"]), Q[name])


def test_complexity_and_sparseness():
    assert_close(jax.vmap(evaluation.entropy)(A), Q["complexity"])
    assert_close(jax.vmap(evaluation.sparseness)(A), Q["sparseness"])


@pytest.mark.parametrize(
    ("name", "measure", "flat"),
    [
        ("spearman", evaluation.spearman, False),
        ("ssim", evaluation.ssim, False),
        ("ssim5", lambda a, b: evaluation.ssim(a, b, window=5), False),
        ("ssim_flat", evaluation.ssim, True),
    ],
)
def test_similarity(name, measure, flat):
    base, other = (jnp.asarray(Q[k], jnp.float32) for k in ("base", "other"))
    if flat:  # as its sanity checks call it
        base, other = base.reshape(3, -1), other.reshape(3, -1)
    assert_close(jax.jit(jax.vmap(measure))(base, other), Q[name], rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("max_sensitivity", evaluation.max_sensitivity),
        ("local_lipschitz_estimate", evaluation.local_lipschitz),
    ],
)
def test_robustness(name, measure):
    near = jnp.swapaxes(X + Q["noise"], 0, 1)
    found = jax.jit(
        jax.vmap(lambda x, near, y: measure(lambda x: explain(x, y), x, near))
    )(X, near, Y)
    assert_close(found, Q[name], rtol=1e-3)


def test_continuity_of_translations():
    # Four steps of (2 * 8 + 1) // 4 pixels from -8 on, filled with the smallest value.
    shifts = [-8 + 4 * (i + 1) for i in range(4)]

    def one(x, y):
        near = evaluation.translations(x, shifts, axis=-1, fill=x.min())
        return evaluation.continuity(lambda x: explain(x, y), x, near)

    assert_close(jax.jit(jax.vmap(one))(X, Y), Q["continuity"], rtol=1e-3)
