"""Features and pairs of features: pixels of a digit, words of a sentence.

The two things that Taylor decomposition is used for, on networks that were trained:

    pixels   the digits network of `examples.digits`: what each pixel adds, which pairs
             of pixels act together, and how far a Taylor series gets
    words    a pretrained sentence transformer: is "The film was not good." nearer to
             "great" or to "terrible", and which pairs of words decide it

Interactions are integrated Hessians from a grey image, and from words whose embeddings
are all the mean of the vocabulary's. Beside them stands what each word and pair is
worth when it is taken away, all sets of the words at once (`shapley_taylor`). Leaves
`interactions_pixels.png`, `interactions_words.png` and `interactions.json` in `out/`.
Run it from the root of the repository, with `make interactions` or

    python -m examples.interactions

Sources: Janizek et al. 2021, "Explaining explanations"; Sundararajan et al. 2020, "The
Shapley Taylor interaction index".
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples import digits, digits_figures, sentences_model
from examples.digits_figures import DIVERGING, STYLE
from jaxlrp import _files, attribution, interactions, taylor

DIGITS = (8, 3, 6)
SENTENCES = (
    "The film was not good.",
    "The food was hardly bad.",
)
GOOD, BAD = "This is great.", "This is terrible."
ORDERS = 3
MIN_SCALE = 1e-9


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line can change."""

    out: Path = Path("out")
    epochs: int = 30
    seed: int = 0
    model: Path | None = None  # a folder; None is the package's
    nodes: int = 16
    parts: tuple[str, ...] = ("pixels", "words")


@dataclasses.dataclass(frozen=True)
class Pixels:
    """One image, explained: all arrays of "height width", pairs of that twice."""

    image: np.ndarray
    label: int
    attribution: np.ndarray
    pairs: np.ndarray
    series: np.ndarray  # the partial sums of the Taylor series, from order zero on
    value: float
    start: float


@dataclasses.dataclass(frozen=True)
class Words:
    """One sentence, explained: `tokens`, and a number for each pair of them."""

    tokens: list[str]
    value: float
    start: float
    pairs: np.ndarray
    taken_away: np.ndarray
    series: np.ndarray


# Pixels


def explain_pixels(
    apply: Callable, params: Any, image: np.ndarray, label: int, nodes: int
) -> Pixels:
    """The score of the label, from a grey image on."""
    grey = digits.GREY

    @jax.jit
    def explain(params: Any, image: jax.Array) -> Any:
        whole = attribution.integrated_gradients(apply, baseline=grey, target=label)
        # The kinks of max pooling are left: it is this network that is explained.
        options = {"target": label, "beta": jnp.inf}
        pairs = interactions.integrated_hessians(
            apply, grey, units=(8, 8, 1), nodes=nodes, chunk=16, **options
        )
        series = taylor.series(apply, ORDERS, root=grey, **options)
        return (
            whole(params, image)[..., 0],
            pairs(params, image)[..., 0, :, :, 0],
            series(params, image),
            apply(params, image)[label],
        )

    single, pairs, series, value = jax.device_get(explain(params, image))
    sums = np.cumsum(series)
    return Pixels(
        image[..., 0], label, single, pairs, sums, float(value), float(sums[0])
    )


def first_of(data: digits.Data, logits: np.ndarray, digit: int) -> int:
    """The first image of a digit in the test set that the network recognises."""
    known = (data.test_labels == digit) & (logits.argmax(-1) == digit)
    return int(np.flatnonzero(known)[0])


def pixels(options: Options) -> list[Pixels]:
    """Trains the network and explains a few digits."""
    chosen = digits.Options(epochs=options.epochs, seed=options.seed)
    data = digits.load(chosen)
    apply, params = digits.build(options.seed)
    params = digits.train(apply, params, data, chosen)
    logits = np.asarray(jax.jit(jax.vmap(apply, (None, 0)))(params, data.test_images))
    print(f"accuracy {(logits.argmax(-1) == data.test_labels).mean():.3f}")
    found = []
    for digit in DIGITS:
        image = data.test_images[first_of(data, logits, digit)]
        found.append(explain_pixels(apply, params, image, digit, options.nodes))
    return found


# Words


def explain_words(model: sentences_model.Loaded, sentence: str, nodes: int) -> Words:
    """How much nearer a sentence is to good than to bad, from mean words on."""
    network, params = model.network, model.params
    ids, tokens = model.ids(sentence)
    good, bad = (network.apply(params, model.ids(s)[0]) for s in (GOOD, BAD))
    table = params["params"]["words"]["embedding"]
    inner = np.arange(len(ids))
    inner = np.where((inner == 0) | (inner == len(ids) - 1), 0, inner) - 1
    labels = np.repeat(inner[:, None], table.shape[1], 1)  # [CLS] and [SEP] stay

    def score(params: Any, words: jax.Array) -> jax.Array:
        embedding = network.apply(
            params, words, jnp.ones(len(ids), bool), method="encode"
        )
        return embedding @ (good - bad)

    vectors = table[ids]
    start = np.where(labels < 0, vectors, np.asarray(table.mean(0)))
    pairs = interactions.integrated_hessians(score, start, units=labels, nodes=nodes)
    away = interactions.shapley_taylor(score, start, units=labels)
    series = taylor.series(score, ORDERS, root=start)
    compiled = (jax.jit(one) for one in (pairs, away, series))
    found, sets, terms = (jax.device_get(one(params, vectors)) for one in compiled)
    value, before = float(score(params, vectors)), float(score(params, start))
    matrix = np.asarray(sets.matrix())
    return Words(tokens[1:-1], value, before, found, matrix, np.cumsum(terms))


def words(options: Options) -> list[Words]:
    """Loads the sentence transformer and explains a few sentences."""
    model = sentences_model.load(options.model or sentences_model.pretrained())
    return [explain_words(model, s, options.nodes) for s in SENTENCES]


# Pictures


def strongest(pairs: np.ndarray) -> tuple[int, int]:
    """The pixel that takes part in most of the interactions with others."""
    flat = pairs.reshape(64, 64)
    aside = np.abs(flat).sum(1) - np.abs(np.diag(flat))
    return divmod(int(aside.argmax()), 8)


def pixels_picture(found: Sequence[Pixels]) -> bytes:
    """A row for each digit: image, pixels, what acts alone, one pixel's pairs, sums."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 2.1 * len(found)), layout="constrained")
        grid: Any = figure.subplots(len(found), 5, squeeze=False)
        for axes, one in zip(grid, found, strict=True):
            alone = np.diag(one.pairs.reshape(64, 64)).reshape(8, 8)
            i, j = strongest(one.pairs)
            row = np.array(one.pairs[i, j])
            row[i, j] = 0
            digits_figures.show_image(axes[0], one.image)
            axes[0].set_ylabel(f"score of {one.label}: {one.value:.1f}")
            maps = {
                "each pixel": one.attribution,
                "what it does alone": alone,
                "with the marked pixel": row,
            }
            for place, (title, values) in zip(axes[1:4], maps.items(), strict=True):
                scale = max(float(np.abs(values).max()), MIN_SCALE)
                digits_figures.show_relevance(place, values, one.image, scale)
                place.set_title(f"{title}\nsum {values.sum():.1f}, ±{scale:.1f}")
            axes[3].plot(j, i, "s", mfc="none", mec="k", ms=11)
            _sums(axes[4], one.series, one.value)
        return digits_figures.png(figure)


def _sums(axes: Axes, sums: np.ndarray, value: float) -> None:
    """The partial sums of a Taylor series, and what they should come to."""
    axes.plot(range(len(sums)), sums, "o-", color=digits_figures.LRP_COLOUR)
    axes.axhline(value, color="0.5", ls="--", lw=0.8)
    axes.set_title("Taylor series: sums\nby order (dashed: score)")
    axes.set_xticks(range(len(sums)))


def words_picture(found: Sequence[Words]) -> bytes:
    """A column for each sentence: integrated Hessians above, words taken away below."""
    with rc_context(STYLE):
        figure = Figure(figsize=(3.4 * len(found), 6.2), layout="constrained")
        grid: Any = figure.subplots(2, len(found), squeeze=False)
        for axes, one in zip(grid.T, found, strict=True):
            _matrix(axes[0], one.pairs, one.tokens)
            _matrix(axes[1], one.taken_away, one.tokens)
            axes[0].set_title(f"integrated Hessians\nscore {one.value:+.2f}")
            axes[1].set_title("Shapley-Taylor, words taken away")
        return digits_figures.png(figure)


def _matrix(axes: Axes, pairs: np.ndarray, tokens: Sequence[str]) -> None:
    """Words on the diagonal, pairs of words, both halves together, below it."""
    joined = np.tril(pairs) + np.triu(pairs, 1).T
    scale = max(float(np.abs(joined).max()), MIN_SCALE)
    shown = np.ma.masked_array(joined, np.triu(np.ones(joined.shape, bool), 1))
    axes.imshow(shown, cmap=DIVERGING, vmin=-scale, vmax=scale)
    for i in range(len(tokens)):
        for j in range(i + 1):
            text = f"{100 * joined[i, j]:.0f}".replace("-", "−")
            dark = abs(joined[i, j]) > 0.6 * scale
            axes.text(
                j, i, text, ha="center", va="center", fontsize=8,
                color="w" if dark else "k",
            )  # fmt: skip
    axes.set_xticks(range(len(tokens)), tokens, rotation=45, ha="right")
    axes.set_yticks(range(len(tokens)), tokens)


# The whole job


def summary(explained: dict[str, list[Any]]) -> dict[str, Any]:
    """The numbers that the documentation tells."""
    found: dict[str, Any] = {}
    for one in explained.get("pixels", []):
        flat = one.pairs.reshape(64, 64)
        aside = flat - np.diag(np.diag(flat))
        found[f"digit {one.label}"] = {
            "score": one.value,
            "gain": one.value - one.start,
            "sum of interactions": float(flat.sum()),
            "sum of integrated gradients": float(one.attribution.sum()),
            "asymmetry": float(np.abs(flat - flat.T).max() / np.abs(flat).max()),
            "share of pairs": float(np.abs(aside).sum() / np.abs(flat).sum()),
            "partial sums": one.series.tolist(),
        }
    for one in explained.get("words", []):
        a, b = one.pairs, one.taken_away
        upper = np.triu_indices(len(a), 1)
        found[" ".join(one.tokens)] = {
            "score": one.value,
            "gain": one.value - one.start,
            "sum of interactions": float(a.sum()),
            "sum of Shapley-Taylor": float(b.sum()),
            "correlation of pairs": float(np.corrcoef(a[upper], b[upper])[0, 1]),
            "correlation of words": float(np.corrcoef(a.sum(1), b.sum(1))[0, 1]),
            "partial sums": one.series.tolist(),
            "pairs": np.round(a, 4).tolist(),
            "taken away": np.round(b, 4).tolist(),
        }
    return found


def run(options: Options) -> dict[str, Any]:
    """Explains, draws, writes."""
    options.out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, tuple[Callable, Callable]] = {
        "pixels": (pixels, pixels_picture),
        "words": (words, words_picture),
    }
    explained = {}
    for name in options.parts:
        start = time.perf_counter()
        explain, picture = parts[name]
        explained[name] = explain(options)
        path = options.out / f"interactions_{name}.png"
        _files.write(path, picture(explained[name]))
        print(f"wrote {path} after {time.perf_counter() - start:.0f} s")
    numbers = summary(explained)
    text = json.dumps(numbers, indent=1)
    _files.write(options.out / "interactions.json", text.encode())
    return numbers


def parse(arguments: list[str] | None = None) -> Options:
    defaults = Options()
    parser = argparse.ArgumentParser(
        description="Explain pixels, words and pairs of them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=defaults.out, help="folder")
    parser.add_argument("--epochs", type=int, default=defaults.epochs)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--model", type=Path, help="folder of a sentence transformer")
    parser.add_argument("--nodes", type=int, default=defaults.nodes)
    parser.add_argument(
        "--parts", nargs="+", default=defaults.parts, choices=defaults.parts
    )
    given = vars(parser.parse_args(arguments))
    return Options(**{**given, "parts": tuple(given["parts"])})


if __name__ == "__main__":
    run(parse())
