"""Tables: means, swarms and waterfalls."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxlrp import plot

RELEVANCE = np.array([[1.0, -3.0, 0.1], [2.0, 1.0, 0.1]])
NAMES = ["age", "dose", "sex"]


def ticks(panel):
    return [label.get_text() for label in panel.get_yticklabels()]


def test_bars_are_means_of_sizes_the_largest_above():
    panel = plot.features(RELEVANCE, names=NAMES).axes[0]
    assert ticks(panel) == ["sex", "age", "dose"]
    widths = [bar.get_width() for bar in panel.patches]
    np.testing.assert_allclose(widths, [0.1, 1.5, 2.0])


def test_only_the_largest_are_drawn():
    panel = plot.features(RELEVANCE, names=NAMES, most=1).axes[0]
    assert ticks(panel) == ["dose"]


def test_a_swarm_has_a_point_for_each_example_coloured_by_value():
    values = np.array([[1.0, 5.0, 0.0], [2.0, 4.0, 0.0]])
    figure = plot.features(RELEVANCE, values, names=NAMES, kind="beeswarm")
    *_, age, dose = figure.axes[0].collections
    np.testing.assert_array_equal(age.get_offsets()[:, 0], RELEVANCE[:, 0])
    np.testing.assert_allclose(age.get_array(), [0, 1])
    np.testing.assert_allclose(dose.get_array(), [1, 0])


def test_points_of_like_relevance_do_not_hide_each_other():
    swarm = plot.features(np.ones((9, 1)), kind="beeswarm").axes[0].collections[-1]
    heights = np.asarray(swarm.get_offsets())[:, 1]
    assert len(set(heights)) == 9 and np.ptp(heights) < 1


def test_a_waterfall_goes_from_the_base_to_the_score():
    panel = plot.features(RELEVANCE[0], names=NAMES, base=0.5, most=2).axes[0]
    assert ticks(panel) == ["base", "other", "age", "dose"]
    ends = [bar.get_x() + bar.get_width() for bar in panel.patches]
    np.testing.assert_allclose(ends, [0.5, 0.6, 1.6, -1.4])
    assert "−1.4" in panel.get_xlabel()
    assert "−3" in [text.get_text() for text in panel.texts]


def test_a_waterfall_shows_the_values():
    panel = plot.features(RELEVANCE[0], [30, 2.5, 1], names=NAMES).axes[0]
    assert ticks(panel) == ["base", "sex = 1", "age = 30", "dose = 2.5"]


def test_a_dictionary_of_inputs_is_a_feature_for_each_name():
    relevance = {"age": np.array([1.0, 2.0]), "town": np.ones((2, 4, 2))}
    values = {"age": np.array([30, 40]), "town": np.array(["A", "B"])}
    figure = plot.features(relevance, values, kind="beeswarm")
    town, age = figure.axes[0].collections[-2:][::-1]
    np.testing.assert_array_equal(town.get_offsets()[:, 0], [8, 8])
    np.testing.assert_array_equal(age.get_offsets()[:, 0], [1, 2])
    single = plot.features({"age": 1.0, "dose": -2.0}, base=1.0)
    assert ticks(single.axes[0]) == ["base", "age", "dose"]


def test_a_figure_is_as_high_as_its_rows():
    heights = [
        plot.features(RELEVANCE, names=NAMES, most=most).get_size_inches()[1]
        for most in (2, 3, 20)
    ]
    assert heights[0] < heights[1] == heights[2]


def test_it_draws_in_given_axes():
    figure = Figure()
    panel = figure.subplots()
    assert plot.features(RELEVANCE, into=panel) is figure
    assert panel.patches


@pytest.mark.whole
@pytest.mark.parametrize(
    ("relevance", "options", "error", "message"),
    [
        (RELEVANCE, {"kind": "waterfall"}, ValueError, "kind: got 'waterfall' for 2"),
        (RELEVANCE, {"kind": "pie"}, ValueError, "kind: got 'pie', expected one of"),
        (RELEVANCE, {"names": NAMES[:2]}, ValueError, "names: got.*expected 3"),
        (RELEVANCE, {"values": np.ones(3)}, ValueError, r"values: got shape \(3,\)"),
        (RELEVANCE, {"most": 0}, ValueError, "most: got 0, expected a positive int"),
        (RELEVANCE[0], {"base": [1.0, 2.0]}, ValueError, r"base: got shape \(2,\)"),
        (RELEVANCE, {"into": 3}, TypeError, "into: got int"),
        (
            {"a": np.ones(2), "b": np.ones(3)},
            {},
            ValueError,
            r"relevance: got 'a' \(2,\), 'b' \(3,\), expected equally many",
        ),
        ({"a": 1.0}, {"values": {"b": 1}}, ValueError, "values: got dict, expected"),
        ({}, {}, ValueError, "relevance: got an empty mapping"),
    ],
)
def test_what_does_not_fit_is_named(relevance, options, error, message):
    with pytest.raises(error, match=message):
        plot.features(relevance, **options)
