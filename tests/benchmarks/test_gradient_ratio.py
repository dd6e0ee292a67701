"""The benchmark runs in small shapes and compares like with like."""

import json

import jax
import numpy as np
import pytest

from benchmarks import gradient_ratio
from tests.models.usual import MODELS


@pytest.mark.parametrize("name", MODELS)
def test_both_sides_return_the_same_value(name):
    apply, params, x = MODELS[name](True)
    composite = gradient_ratio.COMPOSITES[gradient_ratio.SUITED[name][-1]]
    scores, slope = jax.jit(gradient_ratio.gradient(apply))(params, x)
    value, relevance = jax.jit(gradient_ratio.relevance(apply, composite))(params, x)
    np.testing.assert_allclose(value, scores, rtol=1e-5, atol=1e-6)
    assert relevance.shape == slope.shape == x.shape
    assert np.isfinite(relevance).all()


def test_table_and_file_have_a_row_for_each_composite(capsys, tmp_path):
    path = tmp_path / "out" / "ratio.json"
    options = ["--tiny", "--models", "vgg16", "lstm", "--rounds", "2"]
    gradient_ratio.main(
        [*options, "--composites", "lrp0", "epsilon", "--json", str(path)]
    )
    table = [line for line in capsys.readouterr().out.splitlines() if line[:1] == "|"]
    widths = {line.count("|") for line in table}
    assert len(widths) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    pairs = [
        ("vgg16", "lrp0"),
        ("vgg16", "epsilon"),
        ("lstm", "lrp0"),
        ("lstm", "epsilon"),
    ]
    assert [(row[0], row[1]) for row in cells[2:]] == pairs
    record = json.loads(path.read_text())
    assert [(row["model"], row["composite"]) for row in record["rows"]] == pairs
    assert record["environment"]["jax"] == jax.__version__
    for row in record["rows"]:
        for side in ("gradient", "relevance"):
            assert row[side]["run"] > 0
            assert row[side]["trace"] > 0
            assert row[side]["compile"] > 0
            assert row[side]["contractions"] == (8 if row["model"] == "vgg16" else 6)
            assert row[side]["flops"] > 0
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_relevance_is_of_all_scores_or_of_the_highest_ones():
    w = np.array([[1.0, 3.0], [2.0, -1.0]])
    f = lambda w, x: x @ w  # noqa: E731
    x = np.array([[1.0, 2.0], [2.0, 1.0]])
    _, highest = gradient_ratio.gradient(f)(w, x)
    _, whole = gradient_ratio.gradient(f, "all")(w, x)
    np.testing.assert_allclose(highest, [[1.0, 2.0], [3.0, -1.0]])
    np.testing.assert_allclose(whole, [[4.0, 1.0], [4.0, 1.0]])
    for target, slope in (("max", highest), ("all", whole)):
        lrp0 = gradient_ratio.COMPOSITES["lrp0"]
        _, found = gradient_ratio.relevance(f, lrp0, target)(w, x)
        np.testing.assert_allclose(found, x * slope, rtol=1e-6)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "ratio.json"
    gradient_ratio.write(path, {"rows": []})
    with pytest.raises(TypeError):
        gradient_ratio.write(path, {"rows": object()})
    assert json.loads(path.read_text()) == {"rows": []}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "argv", [["--rounds", "0"], ["--models", "none"], ["--threads", "0"]]
)
def test_wrong_options_are_refused(argv):
    with pytest.raises(SystemExit):
        gradient_ratio.arguments(argv)
