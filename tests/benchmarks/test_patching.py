"""The measures of patching, on a tiny decoder with random weights."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.patching import __main__ as command
from benchmarks.patching import decoder, figures, induction, measure, page, tasks
from examples.smollm import Config, Loaded
from jaxlrp import patching

CONFIG = Config(heads=2, key_heads=1, rope_base=100.0, epsilon=1e-5)
LAYERS, WIDTH, HIDDEN, WORDS = 2, 8, 6, 9


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[-1]), jnp.float32)

    layers = {
        "attn_q": draw(LAYERS, WIDTH, WIDTH),
        "attn_k": draw(LAYERS, WIDTH // 2, WIDTH),
        "attn_v": draw(LAYERS, WIDTH // 2, WIDTH),
        "attn_output": draw(LAYERS, WIDTH, WIDTH),
        "attn_norm": jnp.ones((LAYERS, WIDTH)),
        "ffn_norm": jnp.ones((LAYERS, WIDTH)),
        "ffn_gate": draw(LAYERS, HIDDEN, WIDTH),
        "ffn_up": draw(LAYERS, HIDDEN, WIDTH),
        "ffn_down": draw(LAYERS, WIDTH, HIDDEN),
    }
    params = {"embed": 3 * draw(WORDS, WIDTH), "norm": jnp.ones(WIDTH)}
    return Loaded(CONFIG, params | {"layers": layers}, None)


@pytest.fixture(scope="module")
def runs(model):
    @dataclasses.dataclass
    class Pairs:
        clean = np.array([[1, 2, 3, 4], [4, 2, 5, 4]])
        corrupt = np.array([[1, 6, 3, 4], [4, 7, 5, 4]])
        answers = np.array([[1, 2], [3, 4]])
        start = 1

    return measure.read_pairs(model, Pairs)


def test_what_is_in_front_may_be_worked_out_before(model):
    ids = jnp.array([1, 2, 3, 4])
    nothing = decoder.no_past(CONFIG, model.params)
    whole, _ = decoder.run(CONFIG, model.params, ids, nothing)
    _, past = decoder.run(CONFIG, model.params, ids[:2], nothing)
    rest, _ = decoder.run(CONFIG, model.params, ids[2:], past)
    np.testing.assert_allclose(rest, whole, rtol=1e-5, atol=1e-5)


def test_exact_effects_of_each_position_are_those_of_whole_runs(model, runs, tmp_path):
    found = measure.exact(model, runs, tmp_path)
    f = functools.partial(decoder.state, CONFIG)
    judge = jax.jit(patching.exact(f, measure.nodes(), measure.score(model.params)))
    for i in range(2):
        one = runs.pairs(i)
        wanted = judge(model.params, one.clean, one.corrupt, one.answers)
        for kind in measure.KINDS:
            np.testing.assert_allclose(found[kind][i], wanted[kind], atol=2e-5)
        np.testing.assert_allclose(found["heads"][i], wanted["heads"][:, 0], atol=2e-5)
    again = measure.exact(model, runs, tmp_path)  # from the folder
    np.testing.assert_array_equal(again["mlp"], found["mlp"])


def test_all_tokens_have_the_state_of_a_run_that_ends_there(model):
    ids = jnp.array([1, 2, 3, 4])
    nothing = decoder.no_past(CONFIG, model.params)
    every, _ = decoder.states(CONFIG, model.params, ids, nothing)
    for i in range(4):
        last, _ = decoder.run(CONFIG, model.params, ids[: i + 1], nothing)
        np.testing.assert_allclose(every[i], last, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def effects(model, runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    return measure.of_nodes(model, runs, measure.METHODS[1], folder)


def test_nodes_of_a_circuit_are_what_is_added_to_the_stream(model, runs, effects):
    f = functools.partial(decoder.state, CONFIG)
    find = patching.effects(
        f,
        measure.SOURCES,
        metric=measure.score(model.params),
        **measure.METHODS[1].options,
    )
    parts = (runs.clean, runs.corrupt, runs.answers)
    each = [
        find(model.params, *jax.tree.map(lambda a, i=i: a[i], parts)) for i in range(2)
    ]
    wanted = jax.tree.map(lambda a, b: (a + b) / 2, *each)
    found = measure.node_scores(effects)
    assert found.keys() == wanted.keys()
    for name in found:
        np.testing.assert_allclose(found[name], wanted[name], atol=2e-5)


@pytest.mark.parametrize("kind", ["nodes", "edges"])
def test_circuits_begin_at_the_corrupt_run_and_end_at_the_clean_one(
    kind, model, runs, effects
):
    if kind == "nodes":
        scores = measure.node_scores(effects)
    else:
        scores = measure.edge_scores(model, runs, measure.METHODS[1])
    curve = measure.curve_of(model, runs, kind == "edges")
    for by in measure.ORDERS:
        line = curve(scores, by)
        assert line.shape == (len(measure.FRACTIONS),)
        assert line[0] == 0
        assert line[-1] == 1
        assert np.isfinite(line).all()
    # In between a circuit is a run in which the rest has corrupt values.
    count = sum(int(np.isfinite(v).sum()) for v in scores.values())
    size = int(measure.FRACTIONS[-2] * count)
    f = functools.partial(decoder.state, CONFIG)
    ends = measure.SOURCES, measure.TARGETS
    run = (
        patching.circuit(f, ends[0])
        if kind == "nodes"
        else patching.circuit(f, edges=ends)
    )
    keep = jax.tree.map(lambda p: p < size, measure.places(scores, by))
    every = []
    for i in range(2):
        one = runs.pairs(i)
        score = measure.score(model.params)
        outs = (
            run(keep, model.params, one.clean, one.corrupt),
            f(model.params, one.clean),
            f(model.params, one.corrupt),
        )
        every.append([float(score(out, one.answers)) for out in outs])
    kept, full, none = np.mean(every, 0)
    np.testing.assert_allclose(line[-2], (kept - none) / (full - none), rtol=1e-3)


def test_what_does_not_exist_comes_last_in_either_order():
    scores = {"a": np.array([1.0, -3.0, -np.inf]), "b": np.array([2.0])}
    signed, size = (measure.places(scores, by) for by in measure.ORDERS)
    assert signed["a"].tolist() == [1, 2, 3]
    assert signed["b"].tolist() == [0]
    assert size["a"].tolist() == [2, 0, 3]
    chance = measure.random_scores(scores, seed=1)
    assert np.isinf(chance["a"]).tolist() == [False, False, True]


def test_what_was_found_is_kept(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"x": np.arange(3)}

    for _ in range(2):
        found = measure.kept(tmp_path / "folder" / "x.npz", make)
        assert found["x"].tolist() == [0, 1, 2]
    assert len(made) == 1
    assert found["seconds"][0] >= 0


def test_correlations_are_those_of_numpy():
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(2, 3, 4, 5))
    found = measure.pearson(one, two)
    wanted = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, two, strict=True)
    ]
    np.testing.assert_allclose(found, wanted)
    assert measure.spearman(one, np.exp(one)).tolist() == pytest.approx([1, 1, 1])


class Words:
    """A tokenizer of one token for each word."""

    def __init__(self):
        self.known = {}

    def ids(self, text):
        return [self.known.setdefault(w, len(self.known)) for w in text.split()]


@pytest.mark.parametrize("name", ["names", "capitals", "others"])
def test_pairs_have_answers_of_their_own_and_begin_where_they_differ(name):
    words = Words()
    pairs = getattr(tasks, name)(words, 6, 3)
    again = getattr(tasks, name)(words, 6, 3)
    np.testing.assert_array_equal(pairs.clean, again.clean)
    differ = pairs.clean != pairs.corrupt
    assert differ.sum(1).tolist() == [3 if name == "others" else 1] * 6
    assert differ[:, pairs.start].all()
    assert not differ[:, : pairs.start].any()
    assert (pairs.answers[:, 0] != pairs.answers[:, 1]).all()
    if name != "capitals":  # the answer stands in the prompt
        asked = zip(pairs.clean, pairs.answers, strict=True)
        assert all((ids == answers[0]).sum() == 1 for ids, answers in asked)


def test_what_repeats_is_answered_by_what_came_before():
    pairs = induction.repeated(None, 5, 0)
    for clean, corrupt, (one, other) in zip(
        pairs.clean, pairs.corrupt, pairs.answers, strict=True
    ):
        place = np.flatnonzero(clean[:-1] == clean[-1])[0]
        assert clean[place + 1] == one
        assert corrupt[place + 1] == other
        assert np.flatnonzero(clean != corrupt).tolist() == [pairs.start]


def test_training_lowers_the_loss_and_the_weights_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(induction, "BATCH", 4)
    monkeypatch.setattr(induction, "LAYERS", 1)
    path = tmp_path / "induction.npz"
    model = induction.load(path, steps=100)
    ids, known = induction.rows(jax.random.key(5))
    assert known.sum(1).min() >= 12
    before = induction.loss(induction.fresh(jax.random.key(0)), ids, known)
    assert induction.loss(model.params, ids, known) < before
    again = induction.load(path, steps=0)
    np.testing.assert_array_equal(again.params["embed"], model.params["embed"])


def test_page_and_pictures_say_what_was_measured(tmp_path):
    each = {"pearson": [0.5, 0.7], "spearman": [0.1, 0.3], "of means": 0.9}
    row = {"method": "RelP", "passes": "2 + 1", **dict.fromkeys(page.KINDS, each)}
    assert page.said(row).startswith("residual 0.600, attention 0.600")
    line = list(np.linspace(0, 1, len(measure.FRACTIONS)))
    lines = {"signed": line, "size": [2 * v for v in line]}
    found = {
        "pairs": 2,
        "rows": [row],
        "circuits": {
            "nodes": {"RelP": lines, "random": lines},
            "edges": {"RelP": lines},
        },
        "fractions": list(measure.FRACTIONS),
        "change": 3.25,
        "exact seconds": 120.0,
        "seconds": 180.0,
        "seed": 7,
        "example": ("clean text", "corrupt text"),
        "text": "What is asked?",
    }
    text = page.render({"names": found})
    assert "| RelP | 2 + 1 | 0.600 ± 0.071 |" in text
    assert "seed 7" in text
    assert "took\n2.0 minutes, all of it 3.0." in text
    fractions = np.array(measure.FRACTIONS)
    below = np.trapezoid(line, fractions)
    apart = np.trapezoid(abs(1 - 2 * np.array(line)), fractions)
    assert f"| RelP | {below:.2f} | {apart:.2f} | {below:.2f} | {apart:.2f} |" in text
    assert f"| random | {below:.2f} | {apart:.2f} |  |  |" in text
    assert "What is asked? 2 pairs" in text
    shape = {kind: np.zeros((2, 2, 3)) for kind in page.KINDS}
    figures.draw("names", found, {"exact": shape, "RelP": shape}, tmp_path)
    for name in ("names-effects.png", "names-circuits.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_the_command_measures_a_task_and_writes_the_page(tmp_path, monkeypatch):
    weights = jax.jit(induction.fresh)(jax.random.key(0))
    untrained = Loaded(induction.CONFIG, weights, None)
    monkeypatch.setattr(command.induction, "load", lambda path: untrained)
    monkeypatch.setattr(command, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(command, "IMAGES", tmp_path / "images")
    record, out = tmp_path / "record.json", tmp_path / "page.md"
    options = ["--record", str(record), "--out", str(out)]
    asked = ["--tasks", "induction", "--pairs", "2", "--methods", "gradient"]
    command.main([*asked, *options])
    found = json.loads(record.read_text())["induction"]
    assert found["pairs"] == 2
    assert [row["method"] for row in found["rows"]] == ["gradient"]
    assert np.isfinite(found["rows"][0]["residual"]["pearson"]).all()
    assert "## Induction" in out.read_text()
    assert (tmp_path / "images" / "induction-effects.png").exists()
    start = out.read_text()
    out.unlink()
    command.main(["--page", *options])
    assert out.read_text() == start
