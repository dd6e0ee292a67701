"""Maps of images: which axis is which, scales, titles, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxlrp import plot


def maps(figure):
    """The arrays of the pictures of each panel."""
    return [[np.asarray(i.get_array()) for i in a.images] for a in figure.axes]


def shown(figure):
    """The panels, without the colour bar."""
    return [a for a in figure.axes if a.images]


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).normal(size=(2, 6, 5, 3))


@pytest.mark.parametrize(
    ("form", "channel"),
    [
        (lambda v: v, None),
        (lambda v: v.transpose(0, 3, 1, 2), None),
        (lambda v: v.sum(-1), None),
        (lambda v: jnp.asarray(v), -1),
        (lambda v: np.tile(v, 3)[..., :9].transpose(0, 3, 1, 2) / 3, 1),
    ],
    ids=["last", "first", "none", "jax", "named"],
)
def test_channels_are_found_and_added_up(values, form, channel):
    figure = plot.images(form(values), channel=channel)
    for (drawn,), expected in zip(maps(figure)[:2], values.sum(-1), strict=True):
        np.testing.assert_allclose(drawn, expected, rtol=1e-5, atol=1e-6)


def test_one_image_needs_no_batch_axis(values):
    for one in (values[0], values[0].sum(-1), values[:1]):
        assert len(shown(plot.images(one, labels="cat"))) == 1


def test_many_channels_have_to_be_named():
    with pytest.raises(
        ValueError, match=r"relevance: got shape \(2, 7, 9, 8\).*channel="
    ):
        plot.images(np.zeros((2, 7, 9, 8)))


def test_a_map_without_channels_has_no_channel_axis():
    with pytest.raises(ValueError, match=r"channel: got 0 for relevance of shape"):
        plot.images(np.ones((4, 3)), channel=0)


def test_scale_is_symmetric_and_each_maps_own_or_one(values):
    values = values.sum(-1) * np.array([1, 10])[:, None, None]
    largest = np.abs(values).max((1, 2))

    def limits(**options):
        figure = plot.images(values, percentile=100, **options)
        return [a.images[0].get_clim() for a in shown(figure)]

    assert limits() == [(-m, m) for m in largest]
    assert limits(scale="all") == [(-largest.max(), largest.max())] * 2
    assert limits(scale=3.0) == [(-3.0, 3.0)] * 2


def test_a_few_large_relevances_do_not_hide_the_others():
    relevance = np.ones((40, 40))
    relevance[0, 0] = 1000.0
    figure = plot.images(relevance)
    assert figure.axes[0].images[0].get_clim() == (-1.0, 1.0)
    whole = plot.images(relevance, percentile=100)
    assert whole.axes[0].images[0].get_clim() == (-1000.0, 1000.0)


def test_a_map_of_zeros_is_white():
    drawn = plot.images(np.zeros((3, 3))).axes[0].images[0]
    assert drawn.to_rgba(0.0)[:3] == pytest.approx((0.97, 0.97, 0.97), abs=0.01)


def test_titles_have_class_and_score(values):
    figure = plot.images(values, labels=["a cat", 7], scores=jnp.array([1.25, -3.0]))
    assert [a.get_title() for a in shown(figure)] == ["a cat, 1.25", "7, −3"]


def test_methods_stand_next_to_each_other_behind_the_photograph(values):
    photographs = np.clip(values, 0, 1)
    figure = plot.images(
        {"LRP": values, "gradient": -values}, photographs, labels=["a", "b"]
    )
    panels = shown(figure)
    assert len(panels) == 6
    texts = [t.get_text() for a in panels for t in a.texts]
    assert texts[:3] == ["image", "LRP", "gradient"]
    assert [a.get_title() for a in panels[:3]] == ["a", "", ""]
    np.testing.assert_array_equal(maps(figure)[2][0], -maps(figure)[1][0])


def test_each_map_may_have_its_own_class(values):
    figure = plot.images(
        {"true": values, "rival": values},
        np.abs(values),
        labels={"true": ["a", "b"], "rival": ["c", "d"], "image": ["i", "j"]},
        scores=[1, 2],
    )
    titles = [a.get_title() for a in shown(figure)]
    assert titles == ["i", "a, 1", "c, 1", "j", "b, 2", "d, 2"]


def test_photographs_are_drawn_from_zero_to_one():
    whole = np.array([[[0, 128, 255]] * 4] * 4, np.uint8)
    around = np.array([[-2.0, 0.0], [1.0, 2.0]])
    first = maps(plot.images(np.ones((4, 4)), whole))[0][0]
    np.testing.assert_allclose(first[0, 0], [0, 128 / 255, 1])
    second = maps(plot.images(np.ones((2, 2)), around))[0][0]
    np.testing.assert_allclose(second, [[0, 0.5], [0.75, 1]])


def test_one_photograph_is_that_of_all_examples():
    one = np.linspace(0, 1, 16).reshape(1, 4, 4)
    found = [panel for panel in maps(plot.images(np.ones((3, 4, 4)), one)) if panel]
    same = [np.array_equal(panel[0], one[0]) for panel in found]
    assert sum(same) == 3


def test_maps_of_patches_lie_over_the_whole_photograph():
    photograph = np.random.default_rng(1).uniform(size=(8, 8, 3))
    relevance = np.array([[1.0, 0.0], [0.0, -1.0]])
    figure = plot.images(relevance, photograph, overlay="photograph", beside=False)
    (panel,) = shown(figure)
    below, above = panel.images
    assert (
        list(below.get_extent()) == list(above.get_extent()) == [-0.5, 7.5, 7.5, -0.5]
    )
    alpha = np.asarray(above.get_alpha())
    assert alpha[0, 0] > 0.5 and alpha[0, 1] == 0
    outlined = plot.images(relevance, photograph, overlay="outline", beside=False)
    assert shown(outlined)[0].collections


def test_it_draws_in_a_part_of_a_figure(values):
    figure = Figure()
    left, right = figure.subfigures(1, 2)
    assert plot.images(values, into=left) is figure
    assert left.axes and not right.axes


def test_a_notebook_shows_the_figure(values):
    figure = plot.images(values[0])
    assert figure._repr_png_().startswith(b"\x89PNG")
    again = plot.images(values[0])
    assert again._repr_png_() == plot.images(values[0])._repr_png_()


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": ["a"]}, ValueError, "labels: got.*expected 2"),
        ({"scores": [1.0, 2.0, 3.0]}, ValueError, "scores: got 3, expected 2"),
        ({"scale": "row"}, ValueError, "scale: got 'row', expected 'all', 'each'"),
        ({"scale": -1.0}, ValueError, "scale: got -1.0"),
        ({"percentile": 0}, ValueError, "percentile: got 0"),
        (
            {"overlay": "photo"},
            ValueError,
            "overlay: got 'photo', expected one of None",
        ),
        ({"overlay": "outline"}, ValueError, "photographs: got None"),
        ({"channel": 7}, ValueError, "channel: got 7"),
        ({"channel": "last"}, TypeError, "channel: got 'last'"),
        ({"columns": 0.5}, ValueError, "columns: got 0.5"),
        ({"photographs": np.ones((3, 6, 5, 3))}, ValueError, "photographs: got 3"),
        ({"photographs": np.ones((2, 6, 5, 2))}, ValueError, "photographs: got 2 chan"),
        ({"beside": 1}, TypeError, "beside: got 1"),
        ({"into": "here"}, TypeError, "into: got str, expected a Figure"),
        ({"labels": {"x": ["a", "b"]}}, ValueError, "labels: got no entry None"),
    ],
)
def test_what_does_not_fit_is_named(values, options, error, message):
    with pytest.raises(error, match=message):
        plot.images(values, **options)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("relevance", "error", "message"),
    [
        ([["a", "b"]], TypeError, "relevance: got list, expected real numbers, "),
        (np.ones((2, 2), complex), TypeError, "relevance: got complex128"),
        (np.ones(3), ValueError, r"relevance: got shape \(3,\)"),
        (np.ones((0, 3)), ValueError, r"relevance: got shape \(0, 3\)"),
        (np.array([[1.0, np.nan]]), ValueError, r"relevance: got nan at \[0, 1\]"),
        ({}, ValueError, "relevance: got an empty mapping"),
        (
            {"a": np.ones((2, 4, 9)), "b": np.ones((3, 4, 9))},
            ValueError,
            r"relevance\['b'\]: got 3 examples, expected 2",
        ),
    ],
)
def test_what_is_no_map_is_refused(relevance, error, message):
    with pytest.raises(error, match=message):
        plot.images(relevance)


def test_inside_jit_it_says_to_draw_outside():
    with pytest.raises(TypeError, match="relevance: got an array that is being traced"):
        jax.jit(plot.images)(jnp.ones((3, 3)))


def test_a_map_that_is_nan_throughout_leaves_its_place_empty():
    values = np.ones((2, 4, 4))
    gone = values.copy()
    gone[1] = np.nan
    figure = plot.images({"ours": values, "theirs": gone}, columns=1, bar=None)
    assert [len(panel.images) for panel in figure.axes] == [1, 1, 1, 0]


def test_a_single_nan_is_an_error():
    values = np.ones((2, 4, 4))
    values[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"relevance: got nan at \[1, 2, 3\]"):
        plot.images(values)


def test_the_heading_of_an_empty_place_is_as_high_as_the_others():
    maps = {"one": np.ones((2, 4, 4)), "two": np.ones((2, 4, 4))}
    maps["two"][0] = np.nan
    figure = Figure(figsize=(3, 9), layout="constrained")  # the cells are no squares
    plot.images(maps, columns=1, into=figure)
    figure.draw_without_rendering()
    one, two = (panel.texts[0].get_window_extent().y0 for panel in figure.axes[:2])
    assert one == pytest.approx(two)
