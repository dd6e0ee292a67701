"""The comparison measures what it says, on networks that need no training."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import faithfulness, trained
from benchmarks.faithfulness import Setting
from jaxlrp import composites


@pytest.mark.parametrize("last", [False, True])
def test_the_evidence_is_the_fact_that_answers_the_question(last):
    text, labels, evidence = trained.questions(3, 200, last)
    assert text.shape == (200, trained.LENGTH)
    assert (evidence.sum(1) == 1).all()
    question = text[:, -1 if last else 0] - trained.QUESTIONS
    key, value = np.divmod(text[evidence], trained.VALUES)
    np.testing.assert_array_equal(key, question)
    np.testing.assert_array_equal(value, labels)
    facts = text < trained.QUESTIONS
    assert (facts.sum(1) == trained.FACTS).all()
    same = text // trained.VALUES == question[:, None]
    assert ((same & facts).sum(1) == 1).all()  # no other fact has that key


def test_places_of_the_evidence_are_all_taken():
    places = trained.questions(0, 500, last=True).evidence.sum(0)
    assert (places[:-1] > 10).all()
    assert places[-1] == 0


def linear():
    """Scores of two classes; pixels matter as much as their weights."""
    weights = jnp.asarray([[4.0, 0.0], [-2.0, 1.0], [1.0, 0.5], [0.0, 3.0]])
    return Setting(
        name="linear",
        f=lambda params, x: x @ params,
        params=weights,
        inputs=jnp.ones((3, 4)),
        targets=jnp.array([0, 0, 1]),
        units=(1,),
        baseline=jnp.array([0.0, 0.0, 1.0, 0.0]),
        evidence=jnp.asarray([[True, False, False, False]] * 3),
        counts=jnp.array([True, True, True, False]),
    )


def test_measures_of_a_linear_network_are_those_by_hand():
    found, _ = faithfulness.measure(
        linear(), faithfulness.lrp("", composites.Default())
    )
    assert found["evidence"].tolist() == [1.0, 1.0, 0.0]
    # Of class 0: 4, -2, 1 are removed, the third by itself; the fourth stays.
    down = np.interp(
        np.floor(np.arange(17) / 16 * 3) / 3, np.arange(4) / 3, [3, -1, -1, 1]
    )
    up = np.interp(np.floor(np.arange(17) / 16 * 3) / 3, np.arange(4) / 3, [3, 5, 5, 1])
    x = np.floor(np.arange(17) / 16 * 3) / 3
    expected = np.trapezoid(up, x) - np.trapezoid(down, x)
    np.testing.assert_allclose(found["ABPC"][:2], expected, rtol=1e-5)


@pytest.mark.parametrize("nodes", [1, 4])
def test_relevance_against_a_baseline_adds_up_to_the_difference(nodes):
    at = linear()
    explain = faithfulness.against("", composites.Default(), nodes).make(at)
    found = explain(at.params, at.inputs[0], at.targets[0])
    change = at.inputs[0] - at.baseline
    np.testing.assert_allclose(found, change * at.params[:, 0], rtol=1e-4)


def test_the_verdict_is_about_those_that_were_chosen_on_other_examples():
    def row(side, method, chooses, each):
        return {
            "side": side,
            "method": method,
            "ABPC, chooses": chooses,
            "each": [each],
        }

    rows = [
        row("jaxlrp", "good", 2.0, [1.0, 2.0]),
        row("jaxlrp", "lucky", 1.0, [9.0, 9.0]),
        row("LXT", "theirs", 1.5, [0.0, 2.0]),
        row("other", "gradient", 1.0, [3.0, 2.0]),
    ]
    found = faithfulness.verdict(rows)
    assert (found["ours"], found["peer"]) == ("good", "LXT: theirs")
    assert found["difference to peer"] == pytest.approx([0.5, 1.96 * 0.5 / np.sqrt(2)])
    assert found["difference to other"][0] == -1.0


def test_candidates_of_a_search_are_one_program():
    at = linear()
    best, value, _ = faithfulness.search(at, slice(0, None, 2), count=4)
    assert best.shape == (len(faithfulness.DEPTHS),)
    assert np.isfinite(value)


def test_every_method_has_a_name_of_its_own():
    for name in trained.TASKS:
        names = [(m.side, m.name) for m in faithfulness.methods(name)]
        assert len(names) == len(set(names)) > 10


def test_trained_parameters_are_kept_and_read_again(tmp_path, monkeypatch):
    short = dataclasses.replace(trained.TASKS["CNN"], steps=2)
    monkeypatch.setitem(trained.TASKS, "CNN", short)
    first = trained.trained("CNN", 0, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["CNN-0.msgpack"]
    again = trained.trained("CNN", 0, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_the_page_is_written_from_the_record(tmp_path):
    def row(side, method, mean):
        found = {"side": side, "method": method, "ABPC": [mean, 0.5]}
        return {**found, "ABPC, chooses": mean, "each": [[mean, mean]]}

    rows = [row("jaxlrp", "a", 1.0), row("LXT", "b", 2.0), row("other", "c", 0.5)]
    record = {
        "task": "CNN",
        "accuracies": [0.99],
        "examples": 2,
        "searches": [{"gammas": [0.0], "seconds": 3.0}],
        "rows": rows,
        "verdict": faithfulness.verdict(rows),
    }
    kept, page = tmp_path / "record.json", tmp_path / "page.md"
    kept.write_text(json.dumps([record]))
    faithfulness.main(["--page", "--record", str(kept), "--out", str(page)])
    text = page.read_text()
    assert text.index("| b | LXT | 2.00 ± 0.50 |") < text.index("| a | jaxlrp | 1.00")
    assert "*a*, paired: -1.00 ± 0.00 to LXT: b; +0.50 ± 0.00 to c." in text
