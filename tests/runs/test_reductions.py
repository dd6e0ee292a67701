"""Reductions of blocks, merged in order, are those of the whole."""

import numpy as np
import pytest

from jaxlrp import concepts, errors, runs
from jaxlrp.runs import _reductions

RNG = np.random.default_rng(0)
VALUES = (RNG.normal(size=(50, 3)) + 1e4).astype(np.float32)
LABELS = RNG.integers(0, 4, 50)
LABELS[LABELS == 2] = 1  # a class without rows
ARRAYS = {"relevance": VALUES, "label": LABELS}
CUTS = [(0, 50), (0, 8, 16, 50), (0, 1, 2, 3, 49, 50)]


def reduced(reduction, cuts, arrays=ARRAYS):
    spans = zip(cuts[:-1], cuts[1:], strict=True)
    states = [
        reduction.of({n: a[i:j] for n, a in arrays.items()}, np.arange(i, j))
        for i, j in spans
    ]
    return _reductions.merged(reduction, states)


@pytest.mark.parametrize("cuts", CUTS)
def test_class_means(cuts):
    found = reduced(runs.ClassMeans("relevance", "label", 4), cuts)
    for c in (0, 1, 3):
        expected = VALUES[LABELS == c].astype(np.float64).mean(0)
        np.testing.assert_allclose(found["mean"][c], expected, rtol=1e-13)
    assert np.isnan(found["mean"][2]).all()
    assert found["count"].tolist() == np.bincount(LABELS, minlength=4).tolist()


@pytest.mark.parametrize("cuts", CUTS)
def test_moments_do_not_cancel(cuts):
    found = reduced(runs.Moments("relevance"), cuts)
    exact = VALUES.astype(np.float64)
    np.testing.assert_allclose(found["mean"], exact.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found["variance"], exact.var(0), rtol=1e-9)
    assert found["count"] == 50


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("k", [1, 4, 60])
def test_top_rows_are_those_of_concepts(cuts, k):
    values = np.round(VALUES - 1e4, 1)  # with ties
    found = reduced(runs.Top("relevance", k), cuts, {"relevance": values})
    expected = concepts.maximise(lambda x: x, [values], top=k)
    assert (found["indices"] == expected.indices).all()
    np.testing.assert_array_equal(found["scores"], expected.scores)


def test_nan_is_below_all_numbers():
    values = np.array([[np.nan], [1.0], [np.nan]])
    for cuts in ((0, 2, 3), (0, 3)):
        found = reduced(runs.Top("relevance", 2), cuts, {"relevance": values})
        assert found["indices"].tolist() == [[1, -1]]
        assert found["scores"].tolist() == [[1.0, -np.inf]]


@pytest.mark.parametrize("cuts", CUTS)
def test_histograms_count_everything(cuts):
    values = VALUES - 1e4
    values[3, 1] = np.nan
    edges = (-1, 0, 0.5)
    found = reduced(runs.Histogram("relevance", edges), cuts, {"relevance": values})
    assert found["counts"].tolist() == np.histogram(values, edges)[0].tolist()
    assert found["counts"].sum() + found["outside"].sum() == values.size
    assert found["outside"][2] == 1


@pytest.mark.parametrize(
    "reduction",
    [
        runs.ClassMeans("relevance", "label", 4),
        runs.Moments("relevance"),
        runs.Top("relevance", 3),
        runs.Histogram("relevance", (0, 1)),
    ],
    ids=lambda r: type(r).__name__,
)
def test_a_reduction_is_made_again_of_its_description(reduction):
    assert _reductions.known("a", _reductions.described(reduction)) == reduction


class Own(runs.Moments):
    pass


def test_a_reduction_of_ones_own_has_to_be_given():
    description = _reductions.described(Own("relevance"))
    with pytest.raises(errors.RunError, match="give that as `by`"):
        _reductions.known("a", description)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("reduction", "match"),
    [
        (runs.Moments("heat"), "reduce: got 'heat', expected one of relevance, label"),
        (runs.Top("label"), "of_array: got 'label' of shape"),
        (runs.ClassMeans("relevance", "label", 2), "one class below 2"),
    ],
)
def test_what_does_not_fit_is_named(reduction, match):
    with pytest.raises(ValueError, match=match):
        reduced(reduction, (0, 50))


def test_options_are_checked():
    with pytest.raises(ValueError, match="k: got 0"):
        runs.Top("relevance", 0)
    with pytest.raises(ValueError, match="edges: got"):
        runs.Histogram("relevance", (1, 0))
