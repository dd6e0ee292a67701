"""The example on pairs of pixels and words: its arrays, numbers and pictures."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")
pytest.importorskip("tokenizers")

from examples import digits, interactions, sentences_model  # noqa: E402
from tests.models.networks import sentence_files  # noqa: E402


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A sentence, explained by a tiny model in the format of the real one."""
    path = tmp_path_factory.mktemp("model")
    told = (*interactions.SENTENCES, interactions.GOOD, interactions.BAD)
    sentence_files.write(path, told)
    model = sentences_model.load(path)
    return interactions.explain_words(model, "The film was not good.", 4)


def test_pairs_of_words_add_up(words):
    gain = words.value - words.start
    assert len(words.tokens) == len(words.pairs) == len(words.taken_away) == 5
    np.testing.assert_allclose(words.taken_away.sum() + words.start, words.value, 1e-3)
    assert abs(words.pairs.sum() - gain) < 0.1 * max(abs(gain), 0.1)
    np.testing.assert_allclose(words.pairs, words.pairs.T, atol=1e-4)
    np.testing.assert_allclose(words.series[0], words.start, atol=1e-5)


def test_pixels_are_explained_from_grey_on():
    """An untrained network is smooth, too."""
    apply, params = digits.build(0)
    image = np.random.default_rng(0).uniform(-1, 1, (8, 8, 1)).astype(np.float32)
    found = interactions.explain_pixels(apply, params, image, 3, 2)
    assert found.pairs.shape == (8, 8, 8, 8) and found.series.shape == (4,)
    np.testing.assert_allclose(found.value, apply(params, image)[3], rtol=1e-5)
    np.testing.assert_allclose(found.start, apply(params, 0 * image)[3], rtol=1e-5)
    assert interactions.strongest(found.pairs) == interactions.strongest(-found.pairs)
    picture = interactions.pixels_picture([found])
    assert picture.startswith(b"\x89PNG")
    numbers = interactions.summary({"pixels": [found]})["digit 3"]
    np.testing.assert_allclose(numbers["sum of interactions"], found.pairs.sum(), 1e-4)
    assert 0 < numbers["share of pairs"] < 1


def test_the_strongest_pixel_has_the_largest_pairs_with_others():
    pairs = np.zeros((8, 8, 8, 8))
    pairs[2, 3, 2, 3] = 9.0
    pairs[4, 5, 0, 0] = pairs[4, 5, 1, 0] = -1.0
    assert interactions.strongest(pairs) == (4, 5)


def test_words_are_drawn_and_told_of(words):
    assert interactions.words_picture([words]).startswith(b"\x89PNG")
    (told,) = interactions.summary({"words": [words]}).values()
    assert told["gain"] == words.value - words.start
    assert -1 <= told["correlation of pairs"] <= 1
