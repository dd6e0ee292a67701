"""Effects, curves of circuits and circuits as pictures: they show the given numbers."""

import numpy as np
import pytest

from jaxlrp import patching, plot

RNG = np.random.default_rng(0)
EXACT = {"mlp": RNG.normal(size=(3, 4)), "heads": RNG.normal(size=(3, 2, 2))}
FOUND = {name: one + RNG.normal(size=one.shape) / 3 for name, one in EXACT.items()}
FRACTIONS = [0.0, 0.1, 0.5, 1.0]


def test_points_are_nodes_exact_to_the_right():
    figure = plot.effects(FOUND, EXACT)
    for panel, name in zip(figure.axes, EXACT, strict=True):
        points = panel.collections[0].get_offsets()
        np.testing.assert_allclose(points[:, 0], EXACT[name].ravel())
        np.testing.assert_allclose(points[:, 1], FOUND[name].ravel())
        r = np.corrcoef(points[:, 0], points[:, 1])[0, 1]
        assert panel.get_title() == f"{name}, r = {r:.2f}"
        assert panel.get_xlim() == panel.get_ylim()
    assert [p.get_xlabel() for p in figure.axes] == ["exact effect"] * 2
    assert [p.get_ylabel() for p in figure.axes] == ["estimated effect", ""]


def test_what_is_constant_has_no_correlation():
    (panel,) = plot.effects({"a": np.ones(3)}, {"a": np.arange(3.0)}).axes
    assert panel.get_title() == "a"


def test_maps_have_layers_upwards_and_one_scale_each():
    figure = plot.effects(
        {"mlp": EXACT["mlp"], "end": EXACT["mlp"][:, 0]}, tokens=list(" abc")
    )
    mlp, end = (panel for panel in figure.axes if panel.images)
    np.testing.assert_allclose(mlp.images[0].get_array(), EXACT["mlp"])
    assert mlp.images[0].origin == "lower"
    low, high = mlp.images[0].get_clim()
    assert -low == high == np.abs(EXACT["mlp"]).max()
    assert [t.get_text() for t in mlp.get_xticklabels()] == list(" abc")
    assert end.images[0].get_array().shape == (1, 3)
    same = plot.effects({"a": EXACT["mlp"], "b": 9 * EXACT["mlp"]}, scale="all")
    assert len({p.images[0].get_clim() for p in same.axes if p.images}) == 1


def test_curves_are_means_of_faithfulness():
    full, none = np.array([3.0, 5.0]), np.array([1.0, -1.0])
    shares = np.array([[0.0, 0.5, 1.1, 1.0], [0.0, 0.3, 0.9, 1.0]])
    scores = none[:, None] + shares * (full - none)[:, None]
    figure = plot.faithfulness({"RelP": scores}, FRACTIONS, full=full, none=none)
    (panel,) = figure.axes
    drawn = panel.lines[-1]
    np.testing.assert_allclose(drawn.get_xdata(), FRACTIONS)
    np.testing.assert_allclose(drawn.get_ydata(), shares.mean(0))
    cpr, _ = patching.faithfulness(shares.mean(0), FRACTIONS)
    (text,) = panel.get_legend().get_texts()
    assert text.get_text() == f"RelP, {float(cpr):.2f}"
    edges = panel.collections[0].get_paths()[0].vertices[:, 1]
    error = shares.std(0, ddof=1) / np.sqrt(2)
    np.testing.assert_allclose(edges.max(), (shares.mean(0) + error).max())


def graph():
    exists = {("a", "m"): np.ones(2, bool), ("m", "z"): np.ones(2, bool)}
    scores = {("a", "m"): np.array([2.0, 0.5]), ("m", "z"): np.array([-1.0, 0.1])}
    sites = {n: patching.site(n, ("position", None)) for n in "amz"}
    sources, targets = ({n: sites[n] for n in names} for names in ("am", "mz"))
    edges = patching.Edges(scores, exists)
    return patching.graph(edges, sources, targets, threshold=0.7, across=())


def test_the_area_is_the_mean_where_fractions_do_not_start_at_zero():
    figure = plot.faithfulness({"a": [0.5, 1.0]}, [0.5, 1.0])
    (text,) = figure.axes[0].get_legend().get_texts()
    assert text.get_text() == "a, 0.75"


def test_a_circuit_has_its_nodes_links_and_words():
    (panel,) = plot.circuit(graph(), tokens=["$1", "cat"], title="one").axes
    assert [text.get_text() for text in panel.texts] == ["a", "m", "z"]
    assert [t.get_text() for t in panel.get_xticklabels()] == [r"\$1"]
    widths = [patch.get_linewidth() for patch in panel.patches]
    assert len(widths) == 2 and widths == sorted(widths)
    red, blue = panel.patches[1].get_edgecolor(), panel.patches[0].get_edgecolor()
    assert red[0] > red[2] and blue[2] > blue[0]
    heights = [text.get_position()[1] for text in panel.texts]
    assert heights == [0, 1, 2]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: plot.effects([1.0]), TypeError, "effects: got list, expected a dict"),
        (lambda: plot.effects({}), ValueError, "effects: got no sites"),
        (
            lambda: plot.effects(FOUND, {"mlp": EXACT["mlp"]}),
            ValueError,
            "exact: got the sites mlp, expected mlp, heads",
        ),
        (
            lambda: plot.effects({"a": np.ones(2)}, {"a": np.ones(3)}),
            ValueError,
            r"exact\['a'\]: got shape \(3,\), expected \(2,\)",
        ),
        (lambda: plot.effects(EXACT), ValueError, r"effects\['heads'\]: got shape"),
        (
            lambda: plot.effects({"a": np.ones(3)}, tokens=["b"]),
            ValueError,
            "tokens: got .*, expected as many as a map has columns, 3",
        ),
        (lambda: plot.faithfulness([], [0, 1]), TypeError, "curves: got list"),
        (lambda: plot.faithfulness({}, [0, 1]), ValueError, "curves: got none"),
        (
            lambda: plot.faithfulness({"a": [0, 1]}, [1, 0]),
            ValueError,
            r"fractions: got \[1, 0\], expected ascending",
        ),
        (
            lambda: plot.faithfulness({"a": [0, 1, 2]}, [0, 1]),
            ValueError,
            r"curves\['a'\]: got shape \(3,\)",
        ),
        (
            lambda: plot.faithfulness({"a": [0, 1]}, [0, 1], full=[1, 2]),
            ValueError,
            "full: got shape",
        ),
        (
            lambda: plot.faithfulness({"a": [0, 1]}, [0, 1], full=0),
            ValueError,
            "full: got 0, which is also none",
        ),
        (lambda: plot.circuit({}), TypeError, "graph: got dict"),
        (
            lambda: plot.effects(FOUND, EXACT, into=3),
            TypeError,
            "into: got int",
        ),
    ],
)
def test_what_does_not_fit_is_named(draw, error, message):
    with pytest.raises(error, match=message):
        draw()
