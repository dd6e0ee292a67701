"""Localisation, against loops over places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import evaluation

RNG = np.random.default_rng(2)
R = RNG.normal(size=(5, 6, 7)).astype(np.float32)
MASK = RNG.random((5, 6, 7)) < 0.25
# Multiples of 1/64 from 0 to 1: scaling to [0, 1] does not round.
GRID = RNG.permuted(np.tile(np.arange(65), (5, 1)), axis=1)[:, :40] / 64
GRID = np.concatenate([GRID, np.tile([0.0, 1.0], (5, 1))], 1).reshape(5, 6, 7)
MAPS = {"distinct": GRID, "tied": np.round(GRID * 8) / 8}


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1.5, 3.0])
def test_pointing_game_is_a_hit_within_the_tolerance(tolerance):
    found = jax.jit(
        jax.vmap(lambda r, m: evaluation.pointing_game(r, m, tolerance=tolerance))
    )(R, MASK)
    for i in range(5):
        p = np.unravel_index(R[i].argmax(), R[i].shape)
        near = [np.hypot(*(q - p)) <= tolerance for q in np.argwhere(MASK[i])]
        assert found[i] == any(near)


def test_mass_and_rank_accuracy_are_parts_inside():
    positive = np.abs(R)
    mass, rank = jax.jit(
        jax.vmap(
            lambda r, m: (
                evaluation.relevance_mass(r, m),
                evaluation.relevance_rank(r, m),
            )
        )
    )(positive, MASK)
    for i in range(5):
        wanted = positive[i][MASK[i]].sum() / positive[i].sum()
        np.testing.assert_allclose(mass[i], wanted, rtol=1e-5)
        size = MASK[i].sum()
        top = np.argsort(-positive[i].reshape(-1), kind="stable")[:size]
        wanted = MASK[i].reshape(-1)[top].mean()
        np.testing.assert_allclose(rank[i], wanted, rtol=1e-5)


def precision_recall(values, hits):
    """Average precision, threshold by threshold."""
    total, before = 0.0, 0
    for threshold in sorted(set(values.tolist()), reverse=True):
        taken = values >= threshold
        right = int((taken & hits).sum())
        total += (right - before) / hits.sum() * right / taken.sum()
        before = right
    return total


@pytest.mark.whole
@pytest.mark.always
@pytest.mark.parametrize("name", MAPS)
def test_average_precision_is_that_of_each_threshold(name):
    maps = MAPS[name].astype(np.float32)
    one, both = jax.jit(
        jax.vmap(
            lambda r, m: (
                evaluation.average_precision(r, m),
                evaluation.average_precision(r, m, both=True),
            )
        )
    )(maps, MASK)
    for i in range(5):
        r, m = maps[i].reshape(-1), MASK[i].reshape(-1)
        np.testing.assert_allclose(one[i], precision_recall(r, m), rtol=1e-5)
        unit = (r - r.min()) / (r.max() - r.min())
        wanted = precision_recall(np.append(1 - unit, unit), np.append(~m, m))
        np.testing.assert_allclose(both[i], wanted, rtol=1e-5)


def test_segmentation_measures_add_up_over_a_dataset():
    where = RNG.random(MASK.shape) < 0.9
    matrices = jax.jit(
        jax.vmap(
            lambda r, m, w: evaluation.confusion(evaluation.segment(r), m, where=w)
        )
    )(R, MASK, where)
    total = matrices.sum(0)
    correct, inter, union = 0, np.zeros(2), np.zeros(2)
    for r, m, w in zip(R, MASK, where, strict=True):
        unit = (r - r.min()) / (r.max() - r.min())
        predicted = unit > unit.mean()
        correct += ((predicted == m) & w).sum()
        for c in (0, 1):
            inter[c] += ((predicted == c) & (m == c) & w).sum()
            union[c] += (((predicted == c) | (m == c)) & w).sum()
    np.testing.assert_allclose(
        evaluation.pixel_accuracy(total), correct / where.sum(), rtol=1e-6
    )
    np.testing.assert_allclose(
        evaluation.mean_iou(total), (inter / union).mean(), rtol=1e-6
    )


def test_class_that_is_nowhere_has_no_iou():
    everywhere = jnp.ones(4, bool)
    matrix = evaluation.confusion(everywhere, everywhere)
    assert float(evaluation.mean_iou(matrix)) == 0.5


@pytest.mark.whole
@pytest.mark.parametrize(
    "name",
    ["pointing_game", "relevance_mass", "relevance_rank", "average_precision"],
)
def test_undefined_is_nan(name):
    measure = jax.jit(getattr(evaluation, name))
    empty = np.zeros(3, bool)
    assert np.isnan(measure(np.ones(3), empty))
    assert np.isnan(measure(np.array([1.0, np.nan, 0.0]), ~empty))


def test_no_relevance_has_no_mass():
    assert jnp.isnan(evaluation.relevance_mass(jnp.zeros(2), jnp.ones(2, bool)))


def test_constant_relevance_segments_nothing_and_points_to_the_first_place():
    assert not evaluation.segment(np.full((3, 3), 0.5)).any()
    first = np.array([[True, False], [False, False]])
    game = jax.jit(evaluation.pointing_game)
    assert (game(np.ones((2, 2)), first), game(np.ones((2, 2)), ~first)) == (1.0, 0.0)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="mask: got shape"):
        evaluation.relevance_mass(R, MASK[0])
    with pytest.raises(TypeError, match="mask: got dtype"):
        evaluation.relevance_rank(R, R)
    with pytest.raises(TypeError, match="predicted: got dtype"):
        evaluation.confusion(R, MASK)
    with pytest.raises(ValueError, match="confusion: got shape"):
        evaluation.mean_iou(jnp.zeros(3))
    with pytest.raises(ValueError, match="expected some places"):
        evaluation.relevance_mass(jnp.zeros(0), jnp.zeros(0, bool))
