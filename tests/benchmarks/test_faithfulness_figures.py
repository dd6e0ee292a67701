"""The pictures show what they are given, and are of what the record says."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex

from benchmarks import faithfulness, faithfulness_figures, trained
from benchmarks.faithfulness import Setting
from benchmarks.faithfulness_figures import Attended, Band, Explained, Map, Told
from jaxlrp import composites

RECORD = {
    "task": "linear",
    "examples": 3,
    "searches": [{"gammas": [0.0, 0.1, 0.0, 0.0]}],
    "verdict": {"ours": "Default", "peer": "LXT: CP-LRP, gamma", "other": "other: a"},
    "rows": [{"side": "jaxlrp", "method": "Default", "ABPC": [2.5, 0.1]}],
}


def texts(axes):
    return [text.get_text() for text in axes.texts]


def band(name, lift):
    fractions = np.linspace(0, 1, 5)
    morf = 1 - fractions
    return Band("best", name, "#b2182b", fractions, morf, morf + lift, lift, 0.04)


def test_a_panel_shows_the_mean_curves_of_a_method_and_the_best_of_its_row():
    rows = {"CNN": [band("good", 2.0), band("bad", -0.5)], "ViT": [band("one", 1.0)]}
    figure = faithfulness_figures.curves_figure(rows)
    first, second, third, empty = figure.axes
    assert second.get_title() == "bad\n−0.5 ± 0.0"
    *dotted, lerf, morf, _ = second.lines
    x = [0, 25, 50, 75, 100]
    np.testing.assert_allclose(
        np.asarray(morf.get_xydata()), np.c_[x, np.linspace(1, 0, 5)]
    )
    np.testing.assert_allclose(np.asarray(lerf.get_ydata()), np.linspace(1, 0, 5) - 0.5)
    np.testing.assert_allclose(
        np.asarray(dotted[1].get_ydata()), np.linspace(1, 0, 5) + 2
    )
    assert to_hex(lerf.get_color()) == "#b2182b"
    assert (first.get_ylabel(), third.get_ylabel()) == ("CNN\nlogit", "ViT\nlogit")
    assert third.get_xlabel() == "patches removed"
    assert not empty.axison


def test_an_image_is_shown_by_pixel_and_by_patch():
    image = np.linspace(-1, 1, 16).reshape(4, 4)
    fine = np.arange(16.0).reshape(4, 4) - 20
    units = np.array([[1.0, -4.0], [0.0, 2.0]])
    maps = [Map(fine, units, 1.25), Map(None, units, -2.0)]
    rows = [Explained(image, "a 3?", maps, True), Explained(image, "a 5?", maps, False)]
    figure = faithfulness_figures.images_figure({"ours": "mean 1", "theirs": ""}, rows)
    axes = np.reshape(figure.axes[:9], (3, 3))
    np.testing.assert_array_equal(axes[0, 1].images[0].get_array(), fine)
    assert axes[0, 1].images[0].get_clim() == (-20, 20)
    assert not axes[0, 2].axison
    shown = axes[1, 2].images[0].get_array()
    np.testing.assert_array_equal(shown[:2, 2:], np.full((2, 2), -4.0))
    assert [a.get_title() for a in axes[1]] == ["a 3?", "area +1.2", "area −2.0"]
    assert axes[2, 0].get_title() == "a 5?"
    assert [texts(a) for a in axes[0]] == [["image"], ["ours\nmean 1"], ["theirs"]]


@pytest.mark.parametrize("question", [0, 4])
def test_relevance_of_attention_has_one_scale_for_all_layers(question):
    attention = np.full((2, 5, 5), 0.2)
    relevance = np.zeros((2, 5, 5))
    relevance[0, question, 2], relevance[1, 3, 1] = 0.5, -4.0
    one = Attended("encoder", attention, relevance, question, 2, "words")
    figure = faithfulness_figures.attention_figure([one])
    axes = np.reshape(figure.axes, (2, 2))
    assert [a.images[0].get_clim() for a in axes[1]] == [(-4, 4)] * 2
    assert [a.images[0].get_clim() for a in axes[0]] == [(0, 0.2)] * 2
    assert axes[0, 0].images[0].cmap.name == "Greys"
    assert axes[0, 1].get_xlabel() == "framed 0.20"
    assert axes[1, 0].get_xlabel() == "framed +0.5, sum +0.5"
    (frame,) = axes[1, 0].patches
    assert frame.get_xy() == (1.5, question - 0.5)


def test_a_text_is_coloured_without_the_token_that_is_not_ranked():
    relevance = {"a": np.array([9.0, 1.0, -2.0]), "b": np.zeros(3)}
    told = Told("asked", ["G?", "G=1", "–"], relevance, {"a": 0.98, "b": 0.0}, 1, 0)
    figure = faithfulness_figures.text_figure([told])
    (axes,) = figure.axes
    assert texts(axes) == ["a (98%)", *told.tokens, "b (0%)", *told.tokens]
    held, half, all_blue, *others = [to_hex(p.get_facecolor()) for p in axes.patches]
    middle = to_hex(colormaps["RdBu_r"](0.5))
    assert [held, *others] == [middle] * 4
    assert half == to_hex(colormaps["RdBu_r"](0.75))
    assert all_blue == to_hex(colormaps["RdBu_r"](0.0))
    assert axes.get_title(loc="left") == "asked: the evidence is G=1"


def test_the_largest_entry_is_that_of_any_layer():
    maps = np.zeros((3, 2, 4, 4))
    maps[0, 1, 0, 2] = 1.0  # where the question meets the evidence
    maps[1, 0, 3, 3], maps[1, 0, 0, 1] = 2.0, 1.0  # in another row
    maps[2, 0, 0, 2], maps[2, 1, 0, 1] = 1.0, 2.0  # larger in another layer
    found = faithfulness_figures.largest(maps, 0, np.array([2, 1, 2]))
    np.testing.assert_allclose(found, (1 / 3, 2 / 3))


def test_explained_are_the_first_of_each_class_and_the_closest_call():
    scores = np.array([[0, 5, 0], [0, 4, 1], [3, 0, 2.5], [0, 0, 9], [7, 0, 0.0]])
    asked = faithfulness_figures.questions(scores, 2)
    assert asked == [(0, 1), (2, 0), (2, 0), (2, 2)]


def test_tokens_are_written_as_facts_questions_and_words():
    ids = [0, 6 * trained.VALUES + 10, trained.QUESTIONS + 6, trained.NOTHING + 3]
    written = [faithfulness_figures.written(i) for i in ids]
    assert written == ["A=0", "G=10", "G?", "–"]


def test_methods_are_found_by_what_the_record_says():
    record = {**RECORD, "task": "encoder"}
    assert faithfulness_figures.best(record, "ours") == ("jaxlrp", "Default")
    theirs = faithfulness_figures.best(record, "peer")
    assert theirs == ("LXT", "CP-LRP, gamma")
    assert faithfulness_figures.method(record, 0, theirs).side == "LXT"
    searched = faithfulness_figures.SEARCHED
    assert faithfulness_figures.method(record, 0, searched).name == searched[1]
    with pytest.raises(ValueError, match="key: got .*nothing"):
        faithfulness_figures.method(record, 0, ("jaxlrp", "nothing"))
    assert faithfulness_figures.area(record, ("jaxlrp", "Default")) == 2.5
    keys = {"a": searched}
    assert faithfulness_figures.with_best(keys, searched) == keys
    added = faithfulness_figures.with_best(keys, theirs)
    assert list(added) == ["CP-LRP,\ngamma", "a"]


def test_curves_are_those_that_the_comparison_measures():
    at = Setting(
        name="linear",
        f=lambda params, x: x @ params,
        params=jnp.asarray([[4.0, 0.0], [-2.0, 1.0], [1.0, 0.5], [0.0, 3.0]]),
        inputs=jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32),
        targets=jnp.array([0, 0, 1, 1, 0, 1]),
        units=(1,),
        baseline=jnp.array([0.0, 0.0, 1.0, 0.0]),
    )
    shown = faithfulness_figures.band(RECORD, [at], ("jaxlrp", "Default"), "ours")
    made = faithfulness.lrp("Default", composites.Default())
    expected = faithfulness.measure(at, made)[0]["ABPC"][1::2]
    np.testing.assert_allclose(shown.area, expected.mean(), rtol=1e-5)
    deviation = expected.std() / np.sqrt(len(expected))
    np.testing.assert_allclose(shown.error, 1.96 * deviation, rtol=1e-5)
    scores = np.sum(at.inputs @ at.params * np.eye(2)[at.targets], 1)[1::2]
    np.testing.assert_allclose(shown.morf[0], scores.mean(), rtol=1e-5)


def test_a_picture_is_as_sharp_as_fits():
    figure = faithfulness_figures.curves_figure({"CNN": [band("a", 1.0)]})
    sharp = faithfulness_figures.small(figure)
    coarse = faithfulness_figures.small(figure, len(sharp))
    assert len(coarse) < len(sharp)
    assert coarse == faithfulness_figures.small(figure, len(coarse) + 1)
    with pytest.raises(ValueError, match="figure: got a PNG of 100 bytes or more"):
        faithfulness_figures.small(figure, 100)


def test_pictures_are_written_whole_and_drawn_again_from_their_numbers(
    tmp_path, monkeypatch
):
    kept = tmp_path / "record.json"
    kept.write_text(json.dumps([RECORD]))
    picture = faithfulness_figures.Picture(
        lambda records, _: {name: [band("a", 1.0)] for name in records},
        faithfulness_figures.curves_figure,
    )
    monkeypatch.setattr(faithfulness_figures, "PICTURES", {"curves": picture})
    out, numbers = tmp_path / "images", tmp_path / "numbers.json"
    common = ["--numbers", str(numbers), "--out", str(out)]
    faithfulness_figures.main(["--record", str(kept), *common])
    (path,) = out.iterdir()
    assert path.name == "faithfulness_curves.png"
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    path.unlink()
    faithfulness_figures.main(["--draw", *common])
    assert path.read_bytes() == content
    with pytest.raises(SystemExit):
        faithfulness_figures.main(["--record", str(tmp_path / "none"), *common])
    numbers.unlink()
    with pytest.raises(SystemExit):
        faithfulness_figures.main(["--draw", *common])


def test_numbers_come_back_from_json_with_four_digits():
    found = Explained(np.full((2, 2), 1 / 3), "a 3?", [Map(None, np.eye(2), 2.0)], True)
    text = json.dumps(faithfulness_figures.as_json(({"head": "mean"}, [found])))
    heads, (again,) = faithfulness_figures.from_json(json.loads(text))
    assert heads == {"head": "mean"}
    np.testing.assert_array_equal(again.image, np.full((2, 2), 0.3333))
    assert again.maps[0].fine is None and again.both is True
    np.testing.assert_array_equal(again.maps[0].units, np.eye(2))
