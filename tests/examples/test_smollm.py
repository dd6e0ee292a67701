"""The language model's example: the file, the network, the tokens, the real weights.

Most tests have a tiny random model in the format of the real one.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("tokenizers")

import jaxlrp  # noqa: E402
from examples import smollm  # noqa: E402
from jaxlrp import composites  # noqa: E402
from tests.models.networks import gguf_files  # noqa: E402


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(the file of a tiny model, its weights)."""
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    return path, gguf_files.write(path)


@pytest.fixture(scope="module")
def model(written):
    return smollm.load(written[0])


def llama(tensors, x):
    """The logits after the last token in NumPy, as Hugging Face writes LLaMA down."""
    heads, key_heads = gguf_files.HEADS, gguf_files.KEY_HEADS
    width = gguf_files.WIDTH // heads

    def norm(x, name):
        mean = (x**2).mean(-1, keepdims=True)
        return x / np.sqrt(mean + gguf_files.EPSILON) * tensors[name]

    def halves(weight):
        """Rows in Hugging Face's order: pairs are a half apart, not neighbours."""
        rows = weight.reshape(-1, width // 2, 2, gguf_files.WIDTH)
        return rows.swapaxes(1, 2).reshape(-1, gguf_files.WIDTH)

    places = np.arange(len(x))[:, None]
    speeds = gguf_files.BASE ** (-np.arange(0, width, 2) / width)
    angles = np.concatenate([places * speeds] * 2, -1)[:, None]

    def turned(x):
        first, second = np.split(x, 2, -1)
        other = np.concatenate([-second, first], -1)
        return x * np.cos(angles) + other * np.sin(angles)

    for i in range(gguf_files.LAYERS):
        at = f"blk.{i}"
        y = norm(x, f"{at}.attn_norm")
        q, k = (
            turned((y @ halves(tensors[f"{at}.{n}"]).T).reshape(len(x), -1, width))
            for n in ("attn_q", "attn_k")
        )
        v = (y @ tensors[f"{at}.attn_v"].T).reshape(len(x), -1, width)
        k, v = (np.repeat(e, heads // key_heads, 1) for e in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(width)
        scores[:, ~np.tri(len(x), dtype=bool)] = -np.inf
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        read = np.einsum("hqk,khd->qhd", shares, v).reshape(len(x), -1)
        x = x + read @ tensors[f"{at}.attn_output"].T
        y = norm(x, f"{at}.ffn_norm")
        gate = y @ tensors[f"{at}.ffn_gate"].T
        hidden = gate / (1 + np.exp(-gate)) * (y @ tensors[f"{at}.ffn_up"].T)
        x = x + hidden @ tensors[f"{at}.ffn_down"].T
    return norm(x[-1], "output_norm") @ tensors["token_embd"].T


def test_weights_are_those_of_the_formats(written, model):
    """Q4_1, Q8_0, F16, BF16 and F32, by their formulas."""
    found = {"token_embd": model.params["embed"], "output_norm": model.params["norm"]}
    for name, stacked in model.params["layers"].items():
        for i, layer in enumerate(stacked):
            found[f"blk.{i}.{name}"] = layer
    assert set(found) == set(written[1])
    for name, expected in written[1].items():
        np.testing.assert_array_equal(found[name], expected)


def test_logits_are_those_of_llama(written, model):
    ids = model.ids("the cat")
    f = jax.jit(lambda p, x: smollm.logits(model.config, p, x, len(ids)))
    found = f(model.params, model.params["embed"][ids])
    tensors = {name: t.astype(np.float64) for name, t in written[1].items()}
    expected = llama(tensors, tensors["token_embd"][ids])
    # Float32: what counts is the largest logit's rounding.
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def test_pads_change_nothing(model):
    ids = model.ids("the cat")

    @jax.jit
    def explain(params, ids, length):
        def f(x):
            return smollm.logits(model.config, params, x, length)

        explained = jaxlrp.value_and_lrp(f, composites.AttnLRP(), target=3)
        return explained(params["embed"][ids])

    expected, alone = explain(model.params, ids, len(ids))
    found, relevance = explain(model.params, model.ids("the cat", 7), len(ids))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (relevance[len(ids) :] == 0).all()
    size = np.abs(alone).max()
    np.testing.assert_allclose(relevance[: len(ids)], alone, atol=1e-3 * size)


def test_tokens_are_merged_and_digits_are_alone(model):
    ids = model.ids("the cat 12")
    assert model.words(ids) == ["the", " cat", " ", "1", "2"]
    assert [gguf_files.TOKENS[i] for i in ids] == ["the", "Ġcat", "Ġ", "1", "2"]
    assert model.ids("<|end|>é").tolist()[0] == 0
    assert model.tokenizer.decode(model.ids("né").tolist()) == "né"
    with pytest.raises(ValueError, match="'the cat', 2 tokens, expected 1"):
        model.ids("the cat", 1)


def contents(values):
    """Fields of a file."""
    return {
        name: types.SimpleNamespace(contents=lambda value=value: value)
        for name, value in values.items()
    }


def test_what_is_no_such_model_is_refused(model):
    with pytest.raises(ValueError, match="got architecture 'gpt2', expected 'llama'"):
        smollm.read_config(contents({"general.architecture": "gpt2"}))
    fields = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default"}
    with pytest.raises(ValueError, match=r"got tokenizer \('llama', 'default'\)"):
        smollm.read_tokenizer(contents(fields))
    one = np.ones((2, 2))
    names = ("token_embd", "output_norm", "output")
    with pytest.raises(ValueError, match=r"got \['output', 'output_norm', 'token_em"):
        smollm.read_params({f"{name}.weight": one for name in names})


def test_the_page_has_every_prompt_and_method(model, tmp_path, monkeypatch):
    monkeypatch.setattr(smollm, "load", lambda: model)
    smollm.main(["the cat", "cat 12", "--out", str(tmp_path)])
    page = (tmp_path / "smollm.html").read_text(encoding="utf-8")
    assert page.count("<span class='token") == len(smollm.METHODS) * (2 + 5)
    assert all(method in page for method in smollm.METHODS)


# ---- the real weights --------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained():
    return smollm.load()


def test_the_capital_of_france_is_known(pretrained):
    ids = pretrained.ids("The capital of France is the city of")
    assert pretrained.words(ids)[3] == " France"
    f = jax.jit(lambda p, x: smollm.logits(pretrained.config, p, x, len(ids)))
    found = f(pretrained.params, pretrained.params["embed"][jnp.asarray(ids)])
    assert pretrained.words([int(found.argmax())]) == [" Paris"]
