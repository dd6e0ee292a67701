"""Means of a dataset's relevances and their spread, feature by feature and by class."""

import numpy as np
import pytest

from jaxlrp import plot, runs

RNG = np.random.default_rng(0)
R = RNG.normal(size=(30, 4)) * [1.0, 2.0, 0.5, 0.1] + [0.0, 3.0, -5.0, 1.0]
LABELS = np.arange(30) % 3


def drawn(figure):
    """By group the points and the ends of the lines through them, from below."""
    found = []
    for container in figure.axes[0].containers:
        points, _, (lines,) = container
        ends = np.array([segment[:, 0] for segment in lines.get_segments()])
        found.append((np.asarray(points.get_xdata()), ends))
    return found


def test_points_are_means_and_lines_one_standard_deviation():
    ((points, ends),) = drawn(plot.statistics(R))
    order = np.argsort(np.abs(R.mean(0)))
    mean, spread = R.mean(0)[order], R.std(0)[order]
    np.testing.assert_allclose(points, mean)
    np.testing.assert_allclose(ends, np.stack([mean - spread, mean + spread], 1))


def test_each_class_has_its_own():
    figure = plot.statistics(R, LABELS, labels={0: "a", 1: "b", 2: "c"}, most=1)
    texts = figure.axes[0].get_legend().get_texts()
    assert [text.get_text() for text in texts] == ["a, 10", "b, 10", "c, 10"]
    for k, (points, ends) in enumerate(drawn(figure)):
        mean, spread = R[LABELS == k, 2].mean(), R[LABELS == k, 2].std()
        np.testing.assert_allclose(points, [mean])
        np.testing.assert_allclose(ends, [[mean - spread, mean + spread]])


def test_the_largest_features_are_drawn_the_largest_above():
    figure = plot.statistics(R, names=["p", "q", "r", "s"], most=3)
    ticks = figure.axes[0].get_yticklabels()
    assert [tick.get_text() for tick in ticks] == ["s", "q", "r"]


def test_moments_of_a_run_give_the_picture_of_its_rows():
    moments = runs.Moments("relevance")
    halves = [
        moments.of({"relevance": half}, np.arange(15)) for half in (R[:15], R[15:])
    ]
    made = moments.result(moments.merge(*halves))
    for ours, theirs in zip(
        drawn(plot.statistics(made)), drawn(plot.statistics(R)), strict=True
    ):
        np.testing.assert_allclose(ours[0], theirs[0])
        np.testing.assert_allclose(ours[1], theirs[1])


@pytest.mark.whole
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"relevance": R[0]}, r"relevance: got shape \(4,\)"),
        ({"relevance": R, "classes": [0, 1]}, r"classes: got shape \(2,\).*30 rows"),
        ({"relevance": R, "classes": LABELS + 0.5}, "expected an integer"),
        ({"relevance": R, "classes": LABELS, "labels": ["a"]}, "none for class 1"),
        ({"relevance": {"mean": R[0]}}, "expected 'mean' and 'variance'"),
        ({"relevance": {"mean": R[0], "variance": -R[0]}}, "nothing below zero"),
        (
            {"relevance": {"mean": R[0], "variance": R[0]}, "classes": LABELS},
            "classes: got them with moments",
        ),
        ({"relevance": R, "names": ["a"]}, "names: got"),
    ],
)
def test_what_does_not_fit_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        plot.statistics(**given)
