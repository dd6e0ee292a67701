"""Similarities of sentences: what is explained, what counts, what the evidence is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("matplotlib")
pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from benchmarks.real import __main__ as real  # noqa: E402
from benchmarks.real import pairs, sequences  # noqa: E402
from benchmarks.real.pairs import Marked  # noqa: E402
from examples import sentences, sentences_model  # noqa: E402
from tests.models.networks import sentence_files  # noqa: E402

TEXTS = (("a *cat* sleeps", "the small *kitten* *naps* here"),)
TWO = pairs.both_directions(TEXTS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    sentence_files.write(path, (s.text for s in TWO[0]))
    return sentences_model.load(path)


@pytest.fixture(scope="module")
def at(model):
    return pairs.setting(model, TWO)


# ---- the data ----------------------------------------------------------------------


def test_what_stands_between_stars_is_marked():
    assert pairs.marked("*How* do I?") == Marked("How do I?", ((0, 3),))
    found = pairs.marked("a *cat* on the *sofa*")
    assert found.text == "a cat on the sofa"
    assert [found.text[low:high] for low, high in found.spans] == ["cat", "sofa"]
    assert pairs.marked("none") == Marked("none", ())


def test_a_star_without_another_is_refused():
    with pytest.raises(ValueError, match="'a \\*cat': got a star without another"):
        pairs.marked("a *cat")


def test_both_directions_are_examples():
    one, two = (pairs.marked(text) for text in TEXTS[0])
    assert TWO == ((one, two), (two, one))


def test_pairs_differ_and_each_sentence_has_one_or_two_marked_words():
    assert len(pairs.EXAMPLES) == 2 * len(pairs.PAIRS) >= 80
    held = {e.sentence.text for e in pairs.EXAMPLES}
    assert len(held) == len(pairs.EXAMPLES)
    for sentence, _ in pairs.EXAMPLES:
        assert len(sentence.spans) in (1, 2)
        for low, high in sentence.spans:
            assert sentence.text[low:high].isalpha()
            assert not sentence.text[low - 1 : low].isalpha()
            assert not sentence.text[high : high + 1].isalpha()


def test_the_first_pairs_are_those_of_the_example():
    plain = [tuple(pairs.marked(s).text for s in pair) for pair in pairs.PAIRS[:6]]
    assert plain == list(sentences.PAIRS[:6])


# ---- the setting -------------------------------------------------------------------


def test_settings_say_what_counts_and_what_is_the_evidence(model, at):
    rows = [model.ids(e.sentence.text)[1] for e in TWO]
    assert rows == [
        ["[CLS]", "a", "cat", "sleeps", "[SEP]"],
        ["[CLS]", "the", "small", "kitten", "naps", "here", "[SEP]"],
    ]
    assert [np.flatnonzero(row).tolist() for row in at.counts] == [
        [1, 2, 3],
        [1, 2, 3, 4, 5],
    ]
    assert [np.flatnonzero(row).tolist() for row in at.evidence] == [[2], [3, 4]]
    table = model.params["params"]["words"]["embedding"]
    mask = sentence_files.SPECIAL.index("[MASK]")
    np.testing.assert_array_equal(at.baseline, table[mask])
    np.testing.assert_array_equal(at.inputs[0, 2], table[model.ids("cat")[0][1]])
    assert at.inputs.shape == (2, 7, sentence_files.WIDTH)
    assert at.targets.tolist() == [0, 0]


def test_the_explained_is_the_cosine_similarity_with_the_other_sentence(model, at):
    one, two = (
        np.asarray(model.network.apply(model.params, model.ids(s.text)[0]))
        for s in TWO[0]
    )
    expected = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    found = jax.vmap(at.f, (None, 0, 0))(at.params, at.inputs, at.others)
    assert found.shape == (2, 1)  # the same in both directions, padded or not
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)
    # The other sentence is held: it does not change with the one that is explained.
    np.testing.assert_allclose(at.others[1], jnp.stack([two, one]), atol=1e-6)


def test_padding_has_no_part_in_it(at):
    x = at.inputs[0].at[5:].set(7.0)
    there, other = jax.tree.map(lambda o: o[0], at.others)
    assert there.tolist() == [True] * 5 + [False] * 2
    found = at.f(at.params, x, (there, other))
    np.testing.assert_allclose(
        found, at.f(at.params, at.inputs[0], (there, other)), rtol=1e-6
    )


def test_a_tokenizer_without_a_mask_is_refused(model):
    class Without:
        def token_to_id(self, token):
            return None

    other = sentences_model.Loaded(model.network, model.params, Without())  # type: ignore
    with pytest.raises(ValueError, match="no '\\[MASK\\]', expected one"):
        pairs.setting(other, TWO)


def test_measures_are_those_of_similarities(model, at):
    """Of the first sentence, word by word: both curves are computed by hand."""
    given = jnp.array([[0.0, 2, 3, 1, 0, 0, 0], [0.0, 5, 3, 4, 2, 1, 0]])

    def explain(f, x, target, baseline):
        first = jnp.allclose(x, at.inputs[0])
        return jnp.where(first, given[0], given[1])[:, None] * jnp.eye(x.shape[1])[0]

    found, _ = sequences.measurer(at)(explain)
    embed = model.network.apply
    mask = sentence_files.SPECIAL.index("[MASK]")
    ids, _ = model.ids(TWO[0].sentence.text)
    other = embed(model.params, model.ids(TWO[0].other.text)[0])

    def curve(order):
        tokens, scores = ids.copy(), []
        for token in [None, *order]:
            if token is not None:
                tokens[token] = mask
            scores.append(float(embed(model.params, tokens) @ other))
        return scores

    area = np.trapezoid(curve([3, 1, 2])) - np.trapezoid(curve([2, 1, 3]))
    np.testing.assert_allclose(found["ABPC"][0], area / 3, rtol=1e-3)
    assert found["evidence"].tolist() == [1.0, 0.0] and found["rank"].tolist() == [0, 1]
    assert np.abs(found["score"]).max() <= 1 + 1e-6


def test_the_part_has_a_row_of_the_method_that_is_asked_for(monkeypatch, model):
    monkeypatch.setattr(pairs, "pretrained", lambda: model)
    make = pairs.setting
    monkeypatch.setattr(pairs, "setting", lambda model: make(model, TWO))
    ((row, about),) = real.PARTS["pairs"](["LXT AttnLRP"])
    assert (row["side"], row["method"]) == ("LXT", "AttnLRP")
    assert about == {"examples": 2, "digits": 3}
    assert len(row["each"]) == 2 and np.isfinite(row["each"]).all()
    assert row["size"] >= row["tokens"] > 0


def test_residual_sums_have_the_rule_that_is_asked_for():
    weights = jnp.array([[0.0, -0.5], [0.0, 0.0]])

    def f(x):
        return (x + x @ weights).sum(keepdims=True)

    def explain(name):
        (method,) = (m for m in pairs.METHODS if m.name == name)
        return method.explain(f, jnp.ones(2), jnp.array(0), jnp.zeros(2))

    # The second sum is 1 - 1/2: by absolute size its parts have 1/3 and 1/6 of it.
    found = explain("Default, residual sums by absolute size")
    np.testing.assert_allclose(found, [7 / 6, 1 / 3], rtol=1e-4)
    found = explain("Default")
    np.testing.assert_allclose(found, [1 / 2, 1], rtol=1e-4)


# ---- the real weights --------------------------------------------------------------


def test_all_pairs_are_similar():
    pytest.importorskip(sentences_model.PACKAGE)
    at = pairs.setting(pairs.pretrained())
    similar = jax.jit(jax.vmap(at.f, (None, 0, 0)))(at.params, at.inputs, at.others)
    assert similar.min() > 0.3
    np.testing.assert_allclose(similar[::2], similar[1::2], atol=1e-5)
    assert (at.evidence & ~at.counts).sum() == 0
    assert (at.evidence.sum(1) >= 1).all()
