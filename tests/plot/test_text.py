"""Tokens and matrices as figures."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxlrp import plot

WORDS = ["the", "cat", "sat", "\n"]


def test_each_token_is_on_the_colour_of_its_relevance():
    panel = plot.tokens(WORDS, [0.0, 1.0, -1.0, 0.5], bar=None).axes[0]
    assert [t.get_text() for t in panel.texts] == ["the", "cat", "sat", "⏎"]
    white, red, blue, _ = (box.get_facecolor() for box in panel.patches)
    assert min(white[:3]) > 0.9 and red[0] > red[2] and blue[2] > blue[0]


def test_long_texts_are_broken_into_lines():
    words = ["interpretability"] * 12
    figure = plot.tokens(words, np.ones(12), width=4)
    left = [box.get_x() for box in figure.axes[0].patches]
    heights = {box.get_y() for box in figure.axes[0].patches}
    ends = [box.get_x() + box.get_width() for box in figure.axes[0].patches]
    assert len(heights) > 2 and left.count(0.0) == len(heights)
    assert max(ends) <= 4 * 72


@pytest.mark.parametrize("size", [(12, 9), (4, 2)])
def test_tokens_are_not_stretched_by_the_panel_that_they_are_drawn_in(size):
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(2, 1)
    for panel in panels:
        plot.tokens(WORDS * 3, np.ones(12), labels=["row"], bar=None, into=panel)
    figure.draw_without_rendering()
    for panel in panels:
        label, *words = panel.texts
        for word, box in zip(words, panel.patches, strict=True):
            inside, around = word.get_window_extent(), box.get_window_extent()
            assert around.width * 72 / figure.dpi == pytest.approx(box.get_width())
            assert around.x0 < inside.x0 and inside.x1 < around.x1
            assert around.x1 < figure.bbox.x1
        gap = panel.patches[0].get_window_extent().x0 - label.get_window_extent().x1
        assert 0 < gap < 30
        top = panel.get_window_extent().y1
        assert panel.patches[0].get_window_extent().y1 == pytest.approx(top)


def test_rows_have_labels_numbers_and_their_own_scale():
    figure = plot.tokens(
        WORDS[:2],
        [[1.0, 2.0], [10.0, 20.0]],
        labels=["a", "b"],
        numbers=True,
        scale="each",
        bar=None,
    )
    panel = figure.axes[0]
    texts = [t.get_text() for t in panel.texts]
    assert texts == ["a", "the", "+1.0", "cat", "+2.0", "b", "the", "+10", "cat", "+20"]
    colours = [box.get_facecolor() for box in panel.patches]
    assert colours[:2] == colours[2:]


def test_dollars_are_no_formula():
    figure = plot.tokens(["$x$", "$"], [1.0, 2.0])
    figure.canvas.draw()
    assert figure.axes[0].texts[0].get_text() == r"\$x\$"


def test_texts_that_do_not_fit_are_refused_as_in_html():
    with pytest.raises(ValueError, match="relevances: got shape"):
        plot.tokens(WORDS, [1.0])
    with pytest.raises(TypeError, match=r"tokens\[0\]: got 1, expected a"):
        plot.tokens([1, 2], [1.0, 2.0])


def test_a_matrix_has_names_at_both_sides_and_numbers():
    figure = plot.matrix(
        [[0.5, -1.0]], ["query"], ["a", "b"], names=("from", "to"), numbers=True
    )
    panel = figure.axes[0]
    assert [t.get_text() for t in panel.get_xticklabels()] == ["a", "b"]
    assert [t.get_text() for t in panel.get_yticklabels()] == ["query"]
    assert (panel.get_ylabel(), panel.get_xlabel()) == ("from", "to")
    assert [t.get_text() for t in panel.texts] == ["+0.5", "−1.0"]
    assert panel.images[0].get_clim() == (-1.0, 1.0)


def test_of_many_names_some_are_written():
    figure = plot.matrix(np.ones((100, 3)), [f"t{i}" for i in range(100)])
    assert 30 < len(figure.axes[0].get_yticklabels()) <= 40


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": ["a"]}, "first: got.*expected 2, one for each row"),
        ({"second": ["a"]}, "second: got.*expected 3, one for each column"),
        ({"names": ("a",)}, "names: got"),
        ({"scale": 0}, "scale: got 0"),
        ({"matrix": np.ones(3)}, r"matrix: got shape \(3,\)"),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        plot.matrix(**{"matrix": np.ones((2, 3)), **options})
