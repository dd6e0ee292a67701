"""Robustness, against loops over neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import evaluation

RNG = np.random.default_rng(9)
W = RNG.normal(size=(4, 3)).astype(np.float32)
X = RNG.normal(size=(2, 4, 3)).astype(np.float32)
NEAR = X[:, None] + 0.1 * RNG.normal(size=(2, 5, 4, 3)).astype(np.float32)


def explain(x):
    return jnp.tanh(x * W) * x


def explained(x):
    return np.tanh(x * W) * x


def score(x):
    return jnp.tanh((x * W).sum())


def ratios(x, near, norm, divide):
    for point in near:
        change = norm(explained(point) - explained(x))
        yield change / divide(point)


CASES = {
    "max_sensitivity": lambda x, near: max(
        ratios(x, near, np.linalg.norm, lambda _: np.linalg.norm(explained(x)))
    ),
    "local_lipschitz": lambda x, near: max(
        ratios(x, near, np.linalg.norm, lambda p: np.linalg.norm(p - x))
    ),
    "continuity": lambda x, near: max(
        ratios(x, near, lambda v: np.abs(v).sum(), lambda p: np.linalg.norm(p - x))
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_largest_change_among_neighbours(name):
    measure = getattr(evaluation, name)
    found = jax.jit(jax.vmap(lambda x, near: measure(explain, x, near, chunk=2)))(
        X, NEAR
    )
    wanted = [CASES[name](x, near) for x, near in zip(X, NEAR, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_sensitivity_of_the_paper_is_not_divided():
    found = evaluation.max_sensitivity(explain, X[0], NEAR[0], relative=False)
    wanted = CASES["max_sensitivity"](X[0], NEAR[0]) * np.linalg.norm(explained(X[0]))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize("name", ["local_lipschitz", "continuity"])
def test_neighbour_that_is_the_input_itself_does_not_count(name):
    near = np.concatenate([X[:1], NEAR[0]])
    measure = getattr(evaluation, name)
    np.testing.assert_allclose(
        measure(explain, X[0], near), measure(explain, X[0], NEAR[0]), rtol=1e-6
    )
    assert float(measure(explain, X[0], X[:1])) == 0.0


@pytest.mark.parametrize("name", CASES)
def test_explanation_that_is_no_number_is_not_robust(name):
    def broken(x):
        return jnp.where(x > X[0].max(), jnp.nan, explain(x))

    near = jnp.stack([X[0], X[0] + 9])
    assert jnp.isnan(getattr(evaluation, name)(broken, X[0], near))


@pytest.mark.parametrize("scaled", [False, True])
def test_infidelity_is_the_mean_squared_error_of_what_is_foretold(scaled):
    changes = 0.3 * RNG.normal(size=(7, 4, 3)).astype(np.float32)
    attribution = explained(X[0])
    found = jax.jit(
        lambda x, a, i: evaluation.infidelity(score, x, a, i, scaled=scaled, chunk=3)
    )(X[0], attribution, changes)
    told = np.array([(i * attribution).sum() for i in changes])
    whole = np.tanh((X[0] * W).sum())
    lost = np.array([whole - np.tanh(((X[0] - i) * W).sum()) for i in changes])
    if scaled:
        told = told * (told @ lost) / (told @ told)
    np.testing.assert_allclose(found, np.square(told - lost).mean(), rtol=1e-3)


def test_infidelity_scaled_does_not_depend_on_scale():
    @jax.jit
    def scaled(factor):
        changes = evaluation.removals(X[0], (1, 1))
        attribution = factor * explained(X[0])
        return evaluation.infidelity(score, X[0], attribution, changes, scaled=True)

    np.testing.assert_allclose(scaled(1.0), scaled(50.0), rtol=1e-4)
    assert np.isfinite(scaled(0.0)) and scaled(0.0) > scaled(1.0)


def test_multiplier_of_a_linear_function_has_no_infidelity():
    @jax.jit
    def found(x):
        changes = evaluation.removals(x, (2, -1), baseline=0.5)
        return evaluation.infidelity(lambda x: (x * W).sum(), x, W, changes)

    np.testing.assert_allclose(found(X[0]), 0.0, atol=1e-10)


def test_removals_take_a_block_each():
    found = evaluation.removals(X[0], (2, 3), baseline=0.5)
    wanted = np.zeros((2, 4, 3), np.float32)
    wanted[0, :2], wanted[1, 2:] = X[0, :2] - 0.5, X[0, 2:] - 0.5
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_neighbours_lie_in_the_cube_or_have_the_deviation():
    x = jnp.full(4000, 3.0)
    cube = evaluation.neighbours(jax.random.key(0), x, 2, radius=0.5) - x
    assert cube.shape == (2, 4000) and float(jnp.abs(cube).max()) <= 0.5
    assert abs(float(cube.std()) - 0.5 / np.sqrt(3)) < 0.01
    ball = evaluation.neighbours(jax.random.key(0), x, 2, radius=0.5, kind="normal") - x
    assert abs(float(ball.std()) - 0.5) < 0.02
    assert not jnp.array_equal(cube[0], cube[1])


def test_an_axis_from_behind_is_the_same():
    for axis in (0, 1):
        found = evaluation.translations(X[0], [2], axis=axis - X[0].ndim)
        expected = evaluation.translations(X[0], [2], axis=axis)
        np.testing.assert_array_equal(found, expected)


def test_translations_move_along_an_axis_and_fill():
    found = evaluation.translations(X[0], [1, -2, 9], axis=0, fill=7.0)
    wanted = np.full((3, 4, 3), 7.0, np.float32)
    wanted[0, 1:], wanted[1, :2] = X[0, :3], X[0, 2:]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: evaluation.max_sensitivity(explain, X[0], X[0]),
            "near: got shape",
        ),
        (
            lambda: evaluation.continuity(explain, X[0], NEAR[0, :0]),
            "near: got shape",
        ),
        (lambda: evaluation.max_sensitivity(3, X[0], NEAR[0]), "explain: got 3"),  # type: ignore
        (
            lambda: evaluation.infidelity(score, X[0], X[0, 0], NEAR[0]),
            "attribution: got shape",
        ),
        (
            lambda: evaluation.infidelity(score, X[0], X[0], X[0]),
            "perturbations: got shape",
        ),
        (
            lambda: evaluation.neighbours(jax.random.key(0), X[0], 2, kind="ball"),
            "kind: got 'ball'",
        ),
        (lambda: evaluation.neighbours(jax.random.key(0), 3, 2), "x: got dtype"),
        (lambda: evaluation.translations(X[0], [0.5]), "shifts: got"),  # type: ignore
        (lambda: evaluation.translations(X[0], [1], axis=2), "axis: got 2"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
