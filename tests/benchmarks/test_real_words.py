"""Measures of networks that read tokens, on cases whose answers are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("tokenizers")

from benchmarks.real import phonemes, prompts, recurrences, sequences  # noqa: E402
from benchmarks.real.sequences import Setting  # noqa: E402
from examples import letters, smollm  # noqa: E402
from jaxlrp import attribution, composites  # noqa: E402
from tests.models.networks import gguf_files  # noqa: E402

# ---- the measures ------------------------------------------------------------------


def linear():
    """Three tokens that count and one that does not; each adds to the logits."""
    weights = jnp.array([[4.0, 0.0], [-2.0, 1.0], [1.0, 0.5], [9.0, 9.0]])

    def f(params, x, other):
        return other * jnp.einsum("tw,to->o", x, params)

    return Setting(
        name="linear",
        f=f,
        params=weights,
        inputs=jnp.stack([jnp.ones((4, 2)), jnp.ones((4, 2))]),
        others=jnp.array([1.0, 2.0]),
        targets=jnp.array([0, 0]),
        counts=jnp.array([[True, True, True, False]] * 2),
        evidence=jnp.array([[True] + [False] * 3, [False] * 2 + [True, False]]),
        baseline=jnp.zeros(2),
        steps=3,
    )


def test_measures_of_a_linear_network_are_those_by_hand():
    measure = sequences.measurer(linear())
    found, _ = measure(sequences.lrp("", composites.Default()).explain)
    # Entries are worth 4, -2, 1, each twice, and 9, which stays. From 24: the most
    # relevant first 16, 14, 18; the least first 28, 26, 18.
    np.testing.assert_allclose(found["ABPC"], [8.0, 16.0], rtol=1e-5)
    np.testing.assert_array_equal(found["evidence"], [1.0, 0.0])
    np.testing.assert_array_equal(found["rank"], [0, 1])
    np.testing.assert_allclose(found["score"], [24.0, 48.0], rtol=1e-6)
    np.testing.assert_allclose(found["tokens"], [32.0, 64.0], rtol=1e-5)
    np.testing.assert_allclose(found["size"], found["tokens"], rtol=1e-5)
    np.testing.assert_allclose(found["ratio"], 32 / 24, rtol=1e-5)


def test_size_is_that_of_entries_which_cancel_within_a_token():
    def explain(f, x, target, baseline):
        return jnp.stack([x[:, 0], -x[:, 1]], -1)

    found, _ = sequences.measurer(linear())(explain)
    assert found["size"].tolist() == [8.0, 8.0] and found["tokens"].tolist() == [0, 0]
    assert found["ABPC"].tolist() == [0.0, 0.0]  # nothing is ranked


def test_the_baseline_is_the_input_without_what_may_be_removed():
    # Of the first entry nothing changes, and the last token stays.
    at = dataclasses.replace(linear(), baseline=jnp.array([1.0, 0.5]))
    seen = []

    def explain(f, x, target, baseline):
        found = sequences.other("", attribution.deep_lift, baseline=None).explain(
            f, x, target, baseline
        )
        jax.debug.callback(lambda found: seen.append(np.asarray(found)), found)
        return found

    found, _ = sequences.measurer(at)(explain)
    jax.effects_barrier()
    expected = [[0, 2], [0, -1], [0, 0.5], [0, 0]]
    np.testing.assert_allclose(min(seen, key=np.max), expected, atol=1e-6)
    # All relevance together is what the score loses.
    np.testing.assert_allclose(found["tokens"], [3.5, 7.0], rtol=1e-5)


def test_the_table_has_the_most_faithful_first():
    def against(f, x, target, baseline):
        return -jax.grad(lambda x: f(x)[target])(x)

    methods = [
        sequences.Method("against", "other", against),
        sequences.lrp("LRP", composites.Default()),
    ]
    shown = []
    rows = sequences.compare(linear(), methods, shown.append)
    assert [row["method"] for row in rows] == ["against", "LRP"]
    lines = sequences.table(rows).splitlines()
    assert lines[2].startswith("| LRP | jaxlrp | 12.00 ± 2.83 | 50 % | 0.50 | 64 |")
    assert lines[-1].startswith("| against | other | -12.00")
    assert set(lines[2:]) == set(shown)
    assert lines[1].count("|") == lines[0].count("|") == lines[2].count("|")


# ---- letters -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "names", "groups"),
    [
        ("psychology", "S AY0 K AA1 L AH0 JH IY0", "ps y ch o l o g y"),
        ("nation", "N EY1 SH AH0 N", "n a ti o n"),
        ("exam", "EH1 K S AH0 M", "e x x a m"),
        ("castle", "K AE1 S AH0 L", "c a st le le"),
        ("biscuit", "B IH1 S K AH0 T", "b i s c i t"),  # of u nothing is heard
    ],
)
def test_phonemes_are_aligned_with_their_letters(word, names, groups):
    cost, spans = phonemes.align(word, names.split())
    assert [word[low:high] for low, high in spans] == groups.split()
    assert cost == (1.0 if word == "biscuit" else 0.0)


def test_what_is_no_spelling_does_not_align():
    cost, spans = phonemes.align("cat", ["M", "AE1", "T"])
    assert cost == float("inf")
    # `ve` is a spelling of V at the end of a word alone.
    assert phonemes.align("vet", ["V", "T"])[0] == 1.0
    assert phonemes.align("save", ["S", "EY1", "V"])[0] == 0.0


def test_words_are_sixty_and_differ():
    assert len(phonemes.WORDS) == len(set(phonemes.WORDS)) == 60


def ids(*names):
    found = [letters.PHONEMES.index(name) for name in names]
    return np.pad(found, (0, letters.LONGEST - len(found)), constant_values=letters.END)


def test_settings_of_letters_say_what_counts_and_what_is_heard(monkeypatch):
    """With a network that writes what it should, whatever its weights are."""
    known = jnp.asarray([ids("N", "AY1", "T"), ids("N", "EY1", "SH", "AH0", "N")])

    def write(params, embedded, length):
        return jnp.where(length == 7, known[0], known[1])[: letters.LONGEST]

    monkeypatch.setattr(letters, "write", write)
    table = jnp.arange(29.0)[:, None] * jnp.ones(4)
    with pytest.raises(ValueError, match="'knigh' does not align with N EY1 SH AH0 N"):
        phonemes.setting({"enc_emb": table}, ["knigh"])
    # "nation" has six letters as "knight" has: both are written alike.
    at = phonemes.setting({"enc_emb": table}, ["knight"], 3)
    assert at.inputs.shape == (3, 7, 4) and at.steps == 6
    assert at.counts.tolist() == [[True] * 6 + [False]] * 3
    spans = [[0, 1], [2, 3, 4], [5]]
    assert [np.flatnonzero(row).tolist() for row in at.evidence] == spans
    assert [letters.PHONEMES[i] for i in at.targets] == ["N", "AY1", "T"]
    lengths, written, places = at.others
    assert lengths.tolist() == [7] * 3 and places.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(written, jnp.stack([known[0]] * 3))


# ---- prompts -----------------------------------------------------------------------


def test_prompts_are_sixty_and_each_has_its_evidence_once():
    assert len(prompts.PROMPTS) == len(set(prompts.PROMPTS)) == 60
    for prompt in prompts.PROMPTS:
        assert prompt.text.count(prompt.evidence) == 1
        assert not prompt.text.startswith(prompt.evidence)  # the first is not ranked


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    gguf_files.write(path)
    return smollm.load(path)


def answered(model, text):
    """What the tiny model says next."""
    tokens = model.params["embed"][model.ids(text)]
    found = smollm.logits(model.config, model.params, tokens, len(tokens)).argmax()
    return model.words([int(found)])[0].strip()


def test_settings_of_prompts_say_what_counts_and_what_is_the_evidence(model):
    texts = ("the cat he", "the cb the cat")
    asked = [prompts.Prompt(t, t.split()[1], answered(model, t)) for t in texts]
    at = prompts.setting(model, asked)
    assert [model.words(model.ids(t)) for t in texts] == [
        ["the", " cat", " ", "he"],
        ["the", " c", "b", " the", " cat"],
    ]
    assert at.counts.tolist() == [
        [False, True, True, True, False],
        [False, True, True, True, True],
    ]
    assert [np.flatnonzero(row).tolist() for row in at.evidence] == [[1], [1, 2]]
    np.testing.assert_allclose(at.baseline, model.params["embed"].mean(0))
    both = prompts.setting(model, asked, first=True, zero=True)
    assert both.counts[:, 0].all() and (both.baseline == 0).all()
    wrong = [asked[0]._replace(answer="no")]
    with pytest.raises(ValueError, match="'the cat he' is answered .*, expected 'no'"):
        prompts.setting(model, wrong)


def test_explanations_of_prompts_are_measured(model):
    text = "the cat he"
    asked = [prompts.Prompt(text, "cat", answered(model, text))]
    measure = sequences.measurer(prompts.setting(model, asked))
    found, _ = measure(prompts.lrp("", composites.AttnLRP()).explain)
    assert all(np.isfinite(values).all() for values in found.values())
    assert found["size"] >= found["tokens"] > 0


# ---- recurrences -------------------------------------------------------------------


@pytest.mark.parametrize("cell", recurrences.CELLS)
def test_a_loop_and_its_steps_are_one_network(cell):
    params = recurrences.parameters(cell, True, jax.random.key(0), 2.0)
    x = jax.random.normal(jax.random.key(1), (4, recurrences.FEATURES))
    forms = [recurrences.network(cell, True, u, params, x) for u in (False, True)]
    np.testing.assert_allclose(*forms, rtol=1e-4, atol=1e-6)
    # Backwards alone it reads the other end last.
    turned = {"forward": params["backward"], "backward": params["forward"]}
    half = recurrences.WIDTH
    turned["head"] = jnp.roll(params["head"], half, 0)
    other = recurrences.network(cell, True, False, turned, x[::-1])
    np.testing.assert_allclose(other, forms[0], rtol=1e-4, atol=1e-6)


def test_weights_have_the_scale_that_is_asked_for():
    tanh = recurrences.weights("tanh", jax.random.key(0), 4.0)
    assert np.linalg.norm(tanh["u"], 2) == pytest.approx(4.0, rel=1e-4)
    gru = recurrences.weights("GRU", jax.random.key(0), 3.0)
    assert gru["u"].std() == pytest.approx(3 / 4, rel=0.1)


def test_an_explosion_is_measured_and_both_forms_agree():
    case = recurrences.Case("tanh", 3, (0.5, 4.0))
    assert case.names == ("tanh, 3 steps, norm 0.5", "tanh, 3 steps, norm 4")
    found = recurrences.measure(case, composites.Default(), seeds=2)
    assert all(f.ratio >= 0.5 and f.difference < 1e-3 for f in found)
    gru = recurrences.Case("GRU", 8, (1.0,))
    (row,) = recurrences.measure(gru, composites.Epsilon(), seeds=3)
    assert row.ratio > 100


def test_marks_are_labelled_by_the_first():
    for seed in range(5):
        x, label = recurrences.marks(jax.random.key(seed), 12)
        high = np.argwhere(np.asarray(x[:, : recurrences.MARKS]) > 1.2)
        assert high[0][1] == label


def test_training_gives_weights_and_an_accuracy():
    params, accuracy = recurrences.trained(6, updates=2)
    assert 0 <= accuracy <= 1
    assert jax.tree.all(jax.tree.map(lambda p: bool(jnp.isfinite(p).all()), params))
    case = recurrences.Case("LSTM", 24, ())
    assert case.names == ("LSTM, 24 steps, trained",)
