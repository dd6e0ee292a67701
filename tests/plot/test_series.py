"""Series: a row for each feature, colours below the curves."""

import numpy as np
import pytest

from jaxlrp import plot

VALUES = np.random.default_rng(0).normal(size=(12, 2))


def test_each_feature_is_a_row_with_its_curve_on_its_relevance():
    figure = plot.series(VALUES**3, VALUES, names=["x", "y"], title="both")
    rows = figure.axes[:2]
    assert [r.get_ylabel() for r in rows] == ["x", "y"]
    assert rows[0].get_title() == "both"
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(row.lines[0].get_ydata(), VALUES[:, i])
        (mesh,) = row.collections
        np.testing.assert_allclose(np.ravel(mesh.get_array()), VALUES[:, i] ** 3)


def test_colours_change_halfway_between_times():
    figure = plot.series(np.ones(3), times=[0.0, 1.0, 4.0])
    (mesh,) = figure.axes[0].collections
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [-0.5, 0.5, 2.5, 5.5])


def test_rows_share_a_scale_or_have_their_own():
    largest = np.abs(VALUES).max(0)

    def limits(scale):
        figure = plot.series(VALUES, scale=scale, percentile=100)
        return [row.collections[0].get_clim()[1] for row in figure.axes[:2]]

    assert limits("all") == [largest.max()] * 2
    assert limits("each") == list(largest)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": VALUES[:3]}, r"values: got shape \(3, 2\), expected \(12, 2\)"),
        ({"names": ["x"]}, "names: got.*expected 2, one for each feature"),
        ({"times": np.arange(5)}, "times: got shape .5,., expected 12 increasing"),
        ({"times": np.zeros(12)}, "times: .*increasing"),
        ({"scale": "row"}, "scale: got 'row'"),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        plot.series(VALUES, **options)
