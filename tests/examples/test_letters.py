"""The letters example: the network against NumPy, spelling, the page, the real weights.

Most tests have a tiny random network with the names of the real one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from examples import letters

WIDTH, HIDDEN = 5, 6


@pytest.fixture(scope="module")
def arrays():
    random = np.random.default_rng(0)
    shapes = {
        "enc_emb": (len(letters.LETTERS), WIDTH),
        "dec_emb": (len(letters.PHONEMES), WIDTH),
        "fc_w": (len(letters.PHONEMES), HIDDEN),
        "fc_b": (len(letters.PHONEMES),),
    }
    for name in ("enc", "dec"):
        shapes |= {
            f"{name}_w_ih": (3 * HIDDEN, WIDTH),
            f"{name}_w_hh": (3 * HIDDEN, HIDDEN),
            f"{name}_b_ih": (3 * HIDDEN,),
            f"{name}_b_hh": (3 * HIDDEN,),
        }
    return {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def params(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "weights.npz"
    np.savez(path, **arrays)
    return letters.load(path)


def cell(arrays, name, x, h):
    """One step of a GRU, gate by gate, as PyTorch's documentation has it."""
    w, u = (np.split(arrays[f"{name}_w_{k}"], 3) for k in ("ih", "hh"))
    b, c = (np.split(arrays[f"{name}_b_{k}"], 3) for k in ("ih", "hh"))
    reset, update = (
        1 / (1 + np.exp(-(w[k] @ x + b[k] + u[k] @ h + c[k]))) for k in range(2)
    )
    new = np.tanh(w[2] @ x + b[2] + reset * (u[2] @ h + c[2]))
    return (1 - update) * new + update * h


def spoken(arrays, word, count=letters.LONGEST):
    """(the phonemes of a word, the logits of each), the likeliest at each place."""
    h = np.zeros(HIDDEN)
    for i in letters.spell(word):
        h = cell(arrays, "enc", arrays["enc_emb"][i], h)
    before, found, scores = letters.START, [], []
    for _ in range(count):
        h = cell(arrays, "dec", arrays["dec_emb"][before], h)
        scores.append(arrays["fc_w"] @ h + arrays["fc_b"])
        before = letters.END if before == letters.END else scores[-1].argmax()
        found.append(before)
    return np.array(found), np.array(scores)


@pytest.mark.parametrize("word", ["no", "yes", "it's"])
def test_phonemes_and_logits_are_those_by_numpy(arrays, params, word):
    expected, scores = spoken(arrays, word)
    ids = letters.spell(word, 8)
    embedded, length = params["enc_emb"][ids], len(word) + 1
    found = jax.jit(letters.write)(params, embedded, length)
    np.testing.assert_array_equal(found, expected)
    logits = jax.jit(jax.vmap(letters.logits, (None, None, None, None, 0)))
    places = jnp.arange(5)
    given = logits(params, embedded, length, found, places)
    np.testing.assert_allclose(given, scores[:5], rtol=1e-4, atol=1e-5)


def test_after_the_end_all_is_the_end(params):
    ended = params | {"fc_b": params["fc_b"].at[letters.END].set(100.0)}
    found = jax.jit(letters.write)(ended, params["enc_emb"][letters.spell("no")], 3)
    assert found.tolist() == [letters.END] * letters.LONGEST
    assert letters.names(np.asarray(found)) == []


def test_later_phonemes_and_pads_have_no_relevance(params):
    def explain(phonemes, ids):
        def f(x):
            return letters.logits(params, x, 3, phonemes, 1)

        return jax.jit(jaxlrp.lrp(f, target=7))(params["enc_emb"][ids])

    phonemes = jnp.array([5, 6, 7, 8])
    ids = letters.spell("no", 6)
    found = explain(phonemes, ids)
    assert (found[3:] == 0).all() and (found[:3] != 0).any(-1).all()
    np.testing.assert_array_equal(found, explain(phonemes.at[1:].set(9), ids))


def test_words_are_spelled_with_their_end():
    found = letters.spell("ab-", 6)
    assert found.tolist() == [3, 4, letters.UNKNOWN, letters.LAST, 0, 0]
    with pytest.raises(ValueError, match="got 'abc', expected less than 3 letters"):
        letters.spell("abc", 3)


def test_phonemes_are_as_many_as_the_network_has():
    assert len(letters.PHONEMES) == len(set(letters.PHONEMES)) == 74
    assert letters.PHONEMES[letters.START] == "<s>"
    assert letters.names([4, 6, letters.END, 8]) == ["AA0", "AA2"]


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", enc_emb=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        letters.load(tmp_path / "bad.npz")


def test_the_page_has_a_row_for_each_phoneme(params, tmp_path, monkeypatch):
    monkeypatch.setattr(letters, "load", lambda: params)
    letters.main(["no", "--out", str(tmp_path)])
    page = (tmp_path / "letters.html").read_text(encoding="utf-8")
    written = jax.jit(letters.write)(params, params["enc_emb"][letters.spell("no")], 3)
    rows = len(letters.names(np.asarray(written)))
    assert rows > 0
    # Two letters and the end, under every method.
    assert page.count("<span class='token") == rows * 3 * len(letters.METHODS)


# ---- the real weights --------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained():
    return letters.load()


@pytest.mark.parametrize(
    ("word", "phonemes"),
    [
        ("psychology", "S AY0 K AA1 L AH0 JH IY0"),
        ("nation", "N EY1 SH AH0 N"),
        ("machine", "M AH0 SH IY1 N"),
    ],
)
def test_real_words_are_pronounced(pretrained, word, phonemes):
    embedded = pretrained["enc_emb"][letters.spell(word, 12)]
    found = jax.jit(letters.write)(pretrained, embedded, len(word) + 1)
    assert letters.names(np.asarray(found)) == phonemes.split()
