"""The sentences example: the loader, its parts, the whole job, and the real weights.

Most tests have a tiny random model, written in the format of the real one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")
pytest.importorskip("tokenizers")

import jaxlrp  # noqa: E402
from examples import sentences, sentences_model, sentences_report  # noqa: E402
from jaxlrp import similarity, text  # noqa: E402
from tests.models.networks import sentence_files  # noqa: E402
from tests.models.networks.golden import GOLDEN  # noqa: E402
from tests.models.networks.sentence_files import (  # noqa: E402
    HEADS,
    LAYERS,
    WIDTH,
    random_tensors,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model in the format of the real one."""
    path = tmp_path_factory.mktemp("model")
    sentence_files.write(path, (s for pair in sentences.PAIRS for s in pair))
    return path


@pytest.fixture(scope="module")
def model(folder):
    return sentences_model.load(folder)


@pytest.fixture(scope="module")
def products(folder, tmp_path_factory):
    """The folder that a short run leaves, and what it measured."""
    out = tmp_path_factory.mktemp("sentences") / "out"
    options = sentences.parse(f"--out {out} --model {folder} --pairs 2".split())
    return out, sentences.run(options)


def bert(tensors, ids):
    """The sentence transformer in NumPy, as the formulas of BERT are written."""
    from scipy.special import erf

    def dense(x, name):
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
        return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    tables = (
        tensors[f"embeddings.{n}_embeddings.weight"]
        for n in ("word", "position", "token_type")
    )
    words, positions, types = tables
    x = words[ids] + positions[: len(ids)] + types[0]
    x = norm(x, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        q, k, v = (
            dense(x, f"{at}.attention.self.{n}").reshape(len(ids), HEADS, -1)
            for n in ("query", "key", "value")
        )
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(WIDTH // HEADS)
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(len(ids), -1)
        mixed = dense(mixed, f"{at}.attention.output.dense")
        x = norm(x + mixed, f"{at}.attention.output.LayerNorm")
        h = dense(x, f"{at}.intermediate.dense")
        h = h * (1 + erf(h / np.sqrt(2))) / 2
        x = norm(x + dense(h, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_loaded_network_computes_bert(folder, model):
    ids, tokens = model.ids("the cat sleeps on the sofa.")
    assert tokens == ["[CLS]", "the", "cat", "sleeps", "on", "the", "sofa.", "[SEP]"]
    tensors = random_tensors(model.network.config.vocab_size)
    expected = bert({k: v.astype(np.float64) for k, v in tensors.items()}, ids)
    found = jax.jit(model.network.apply)(model.params, ids)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_pads_change_nothing(model):
    ids, _ = model.ids("the cat sleeps")
    network, params = model.network, model.params
    explain = jax.jit(jaxlrp.value_and_lrp(network.apply, target=0))
    expected, alone = explain(params, ids)
    found, relevance = explain(params, np.pad(ids, (0, 4)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (relevance[len(ids) :] == 0).all()
    np.testing.assert_allclose(relevance[: len(ids)], alone, rtol=1e-3, atol=1e-5)


def test_missing_and_misshapen_tensors_are_named(model):
    config = model.network.config
    tensors = random_tensors(config.vocab_size)
    name = "encoder.layer.1.attention.self.key.weight"
    with pytest.raises(ValueError, match=rf"tensors\['{name}'\]: got shape \(8, 4\)"):
        sentences_model.parameters(config, tensors | {name: np.zeros((4, 8))})
    del tensors[name]
    with pytest.raises(ValueError, match=f"tensors: got no '{name}'"):
        sentences_model.parameters(config, tensors)


def test_gradient_branch_is_the_gradient_times_the_embeddings(model):
    ids, _ = model.ids("a kitten is napping")
    network, params = model.network, model.params
    branch = jax.jit(sentences.gradient_branch(network))
    embedding, relevances = branch(params, jnp.asarray(ids))
    words = params["params"]["words"]["embedding"][ids]

    def third(words):
        found = network.apply(params, words, ids != 0, method="encode")
        return found[3], found

    gradient, expected = jax.jit(jax.grad(third, has_aux=True))(words)
    by_hand = (gradient * words).sum(-1)
    np.testing.assert_allclose(relevances[3], by_hand, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(embedding, expected, rtol=1e-5)


def test_removal_branch_joined_is_the_interaction_of_two_tokens(model):
    network, params = model.network, model.params
    x, y = (model.ids(s)[0] for s in ("the cat sleeps on", "a kitten is napping"))
    branch = jax.jit(sentences.removal_branch(network))
    found = similarity.join(branch(params, x)[1], branch(params, y)[1])

    embed = jax.jit(network.apply)

    def similar(x, y):
        return embed(params, x) @ embed(params, y)

    def without(ids, token):
        return np.where(np.arange(len(ids)) == token, 0, ids)

    i, j = 2, 3
    expected = similar(x, y) - similar(without(x, i), y) - similar(x, without(y, j))
    expected += similar(without(x, i), without(y, j))
    np.testing.assert_allclose(found[i, j], expected, rtol=1e-3, atol=1e-6)


def test_relevance_of_a_similarity_is_a_sum_over_dimensions(model):
    pair = sentences.PAIRS[1]
    composite = sentences.COMPOSITES["default"]
    methods = {"default": similarity.branch(model.network.apply, composite)}
    explained = sentences.explain(model, pair, methods)["default"]
    one, two = (explained[s] for s in pair)
    held = jnp.asarray(two.embedding)

    @jax.jit
    def single(params, ids):
        def similar(params, ids):
            return model.network.apply(params, ids) @ held

        return jaxlrp.lrp(similar, composite)(params, ids)

    np.testing.assert_allclose(
        one.to(two), single(model.params, one.ids), rtol=1e-3, atol=1e-5
    )
    pairs = np.einsum("ki,kj->ij", one.relevance, two.relevance)
    np.testing.assert_allclose(one.with_(two), pairs, rtol=1e-4, atol=1e-6)


def test_deletion_is_the_area_between_the_curves():
    """If the similarity is the sum of what is left, the ids rank best."""
    other = np.array([1.0])
    e = sentences_report.Explained(
        ["[CLS]", "a", "b", "[SEP]"], np.array([9, 3, 1, 9]), other, np.ones((1, 4))
    )

    def embed(ids):
        return ids.sum(-1, keepdims=True).astype(float)

    # From 22: least first 21, 18; most first 19, 18. Heights 0, 2, 0 over two steps.
    found = sentences.deletion(embed, e, other, np.array([100.0, 3.0, 1.0, 0.0]))
    assert found == pytest.approx(1.0)
    worst = sentences.deletion(embed, e, other, np.array([100.0, 1.0, 3.0, 0.0]))
    assert worst == pytest.approx(-1.0)


def test_leaves_three_files_and_no_other(products):
    out, measured = products
    names = sorted(path.name for path in out.iterdir())
    assert names == ["sentences.html", "sentences.npz", "sentences.png"]
    assert (out / "sentences.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert list(measured) == [*sentences.COMPOSITES, "gradient × input", "random"]
    assert all(np.isfinite([m.deletion, m.agreement]).all() for m in measured.values())


def test_page_has_every_token_and_number(products):
    out, measured = products
    page = (out / "sentences.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "<script" not in page
    assert "http" not in page
    counts = {"A man is": 7, "A man eats": 9, "The cat": 8, "A kitten": 9}
    assert page.count("<span class='token") == 3 * sum(counts.values())
    for word in ("kitten", "sofa.", "bread.", "[CLS]"):
        assert f">{word}<" in page
    assert f"{measured['default'].deletion:.3f}".replace("-", "−") in page
    assert page.count("<table>") == 2 * 2  # matrices, for each pair two


def test_arrays_have_the_documented_shapes(products):
    with np.load(products[0] / "sentences.npz") as file:
        arrays = dict(file)
    count = len({s for pair in sentences.PAIRS[:2] for s in pair})
    for i in range(count):
        n = len(arrays[f"{i}.tokens"])
        assert arrays[f"{i}.embedding"].shape == (WIDTH,)
        for name in (*sentences.COMPOSITES, "gradient × input", "removal"):
            assert arrays[f"{i}.{name}"].shape == (WIDTH, n)
            assert np.isfinite(arrays[f"{i}.{name}"]).all()


# ---- the real weights --------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained():
    pytest.importorskip(sentences_model.PACKAGE)
    return sentences_model.load(sentences_model.pretrained())


def test_embeddings_are_those_of_the_package(pretrained):
    """`tests/golden/README.md` says how the package's own were computed."""
    with np.load(GOLDEN / "minilm.npz") as file:
        given, expected = file["sentences"], file["embeddings"]
    ids = [pretrained.ids(str(s))[0] for s in given]
    padded = np.stack([np.pad(i, (0, 12 - len(i))) for i in ids])
    embed = jax.jit(jax.vmap(pretrained.network.apply, (None, 0)))
    found = embed(pretrained.params, padded)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_similar_words_are_matched(pretrained):
    """Cat with kitten, sleeping with napping, sofa with couch."""
    pair = sentences.PAIRS[1]
    found = [pretrained.ids(s) for s in pair]
    length = max(len(ids) for ids, _ in found)
    padded = np.stack([np.pad(ids, (0, length - len(ids))) for ids, _ in found])
    branch = similarity.branch(
        pretrained.network.apply, sentences.COMPOSITES["CPLRP"], chunk=96
    )
    explain = jax.jit(lambda p, ids: jax.lax.map(lambda one: branch(p, one), ids))
    embeddings, (one, two) = explain(pretrained.params, padded)
    matrix = similarity.join(one, two)
    first, rows = text.words(found[0][1], matrix[: len(found[0][1])], axis=0)
    second, cells = text.words(found[1][1], rows[:, : len(found[1][1])], axis=1)
    best = {first[i]: second[cells[i].argmax()] for i in range(len(first))}
    assert best["cat"] == "kitten" and best["sofa"] == "couch"
    assert best["sleeps"] == "napping" and best["on"] == "on"
    similar = float(embeddings[0] @ embeddings[1])
    assert similar == pytest.approx(0.7413, abs=1e-3)
    # What is missing stays with biases and positions.
    assert cells.sum() == pytest.approx(similar, rel=0.5)
