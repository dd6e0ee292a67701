"""The measures of patching, on a tiny decoder with random weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.patching import decoder, figures, measure, page
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


def test_circuits_begin_at_the_corrupt_run_and_end_at_the_clean_one(model, runs):
    method = measure.METHODS[1]
    for of_edges in (False, True):
        scores = measure.circuit_scores(model, runs, method, of_edges)
        line = measure.curves(model, runs, scores, of_edges)
        assert line.shape == (len(measure.FRACTIONS),)
        assert line[0] == 0
        assert line[-1] == 1
        assert np.isfinite(line).all()


def test_correlations_are_those_of_numpy():
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(2, 3, 4, 5))
    found = measure.pearson(one, two)
    wanted = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, two, strict=True)
    ]
    np.testing.assert_allclose(found, wanted)
    assert measure.spearman(one, np.exp(one)).tolist() == pytest.approx([1, 1, 1])


def test_page_and_pictures_say_what_was_measured(tmp_path):
    each = {"pearson": [0.5, 0.7], "spearman": [0.1, 0.3], "of means": 0.9}
    row = {"method": "RelP", "passes": "2 + 1", "seconds": 1.0}
    row |= dict.fromkeys(page.KINDS, each)
    line = list(np.linspace(0, 1, len(measure.FRACTIONS)))
    found = {
        "pairs": 2,
        "rows": [row],
        "circuits": {"nodes": {"RelP": line}, "edges": {"RelP": line}},
        "fractions": list(measure.FRACTIONS),
        "change": 3.25,
        "exact seconds": 120.0,
        "seconds": 180.0,
        "seed": 7,
        "example": ("clean text", "corrupt text"),
    }
    text = page.render({"names": found})
    assert "| RelP | 2 + 1 | 0.600 ± 0.071 |" in text
    assert "seed 7" in text
    assert "took\n2 minutes, all of it 3" in text
    shape = {kind: np.zeros((2, 2, 3)) for kind in page.KINDS}
    figures.draw("names", found, {"exact": shape, "RelP": shape}, tmp_path)
    for name in ("names-effects.png", "names-circuits.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
