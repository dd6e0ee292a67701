"""The report of the sentences example: one HTML page, one picture, one table."""

import dataclasses
import html
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.digits_figures import STYLE, png
from jaxlrp import plot, similarity, text

SPECIAL = ("[CLS]", "[SEP]", "[PAD]")
COLUMNS = ("deletion", "agreement", "kept", "special")
SHOWN = ("default", "CPLRP", "gradient × input")
"""What the pictures show; `AttnLRP` is the default except for the stabiliser."""


@dataclasses.dataclass(frozen=True)
class Explained:
    """A sentence under a method.

    Attributes:
      tokens: as the tokenizer writes them.
      ids: theirs.
      embedding: Float[ndarray, "dimensions"].
      relevance: of each token for each dimension,
        Float[ndarray, "dimensions tokens"].
    """

    tokens: list[str]
    ids: np.ndarray
    embedding: np.ndarray
    relevance: np.ndarray

    @property
    def content(self) -> np.ndarray:
        """Which tokens are not special, `Bool[ndarray, "tokens"]`."""
        return np.array([token not in SPECIAL for token in self.tokens])

    def to(self, other: "Explained") -> np.ndarray:
        """The relevance of each token for the similarity to another sentence."""
        return other.embedding @ self.relevance

    def with_(self, other: "Explained") -> np.ndarray:
        """The relevance of each pair of tokens, `Float[ndarray, "own other"]`."""
        own, others = jnp.asarray(self.relevance), jnp.asarray(other.relevance)
        return np.asarray(similarity.join(own, others))


@dataclasses.dataclass(frozen=True)
class Measured:
    """How good a method is, over all pairs.

    Attributes:
      deletion: mean height between the similarities when the least and when the most
        relevant tokens are removed first; higher is better, and zero is chance.
      agreement: mean correlation of the relevances of pairs of tokens with what
        removing both changes beyond removing each.
      kept: sum of the tokens' relevances, of the similarities.
      special: that of [CLS] and [SEP] alone.
    """

    deletion: float
    agreement: float
    kept: float
    special: float


Methods = Mapping[str, Mapping[str, Explained]]
Sentences = tuple[str, str]


def table(measured: Mapping[str, Measured]) -> str:
    """The measurements as lines of text."""
    lines = [("method", *COLUMNS), *_numbers(measured)]
    return "\n".join(
        f"{name:18}" + "".join(f"{cell:>11}" for cell in cells)
        for name, *cells in lines
    )


def _numbers(measured: Mapping[str, Measured]) -> list[tuple[str, ...]]:
    """A line for each method; random relevances have no unit, so no sum."""
    return [
        (
            name,
            f"{m.deletion:.3f}".replace("-", "−"),
            f"{round(m.agreement, 2) + 0:.2f}".replace("-", "−"),
            "" if name == "random" else f"{m.kept:.0%}",
            "" if name == "random" else f"{m.special:.0%}",
        )
        for name, m in measured.items()
    ]


def arrays(explained: Methods) -> dict[str, np.ndarray]:
    """What was computed, by method and by number of the sentence."""
    found: dict[str, np.ndarray] = {}
    for name, by_sentence in explained.items():
        for i, (sentence, e) in enumerate(by_sentence.items()):
            found[f"{i}.sentence"] = np.array(sentence)
            found[f"{i}.tokens"] = np.array(e.tokens)
            found[f"{i}.embedding"] = e.embedding
            found[f"{i}.{name}"] = e.relevance
    return found


def picture(explained: Methods, pair: Sentences) -> bytes:
    """One pair under three methods, as PNG: its tokens, and pairs of them."""
    with rc_context(STYLE):
        figure = Figure(figsize=(3.4 * len(SHOWN), 5.6), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.2])
        above, below = parts
        for axes, own, other in zip(
            above.subplots(2, 1), pair, pair[::-1], strict=True
        ):
            show_tokens(axes, explained, own, other)
        every = below.subplots(1, len(SHOWN))
        for name, axes in zip(SHOWN, every, strict=True):
            one, two = (explained[name][s] for s in pair)
            total = f"{name}, sum {one.with_(two).sum():+.2f}".replace("-", "−")
            show_matrix(axes, one, two, total)
        value = _value(explained, pair)
        above.suptitle(f"“{pair[0]}” and “{pair[1]}”, similarity {value}", fontsize=10)
        return png(figure)


def show_tokens(axes: Axes, explained: Methods, own: str, other: str) -> None:
    """A row for each method, on its own scale."""
    rows = [explained[name][own].to(explained[name][other]) for name in SHOWN]
    tokens = explained[SHOWN[0]][own].tokens
    plot.tokens(tokens, rows, labels=SHOWN, scale="each", bar=None, into=axes)


def _value(explained: Methods, pair: Sentences) -> str:
    """The similarity of a pair."""
    first, second = (explained["default"][s].embedding for s in pair)
    return f"{first @ second:.2f}".replace("-", "−")


def show_matrix(axes: Axes, one: Explained, two: Explained, title: str) -> None:
    plot.matrix(one.with_(two), one.tokens, two.tokens, title=title, into=axes)


def page(
    explained: Methods, pairs: tuple[Sentences, ...], measured: Mapping[str, Measured]
) -> str:
    """The HTML page."""
    head = "".join(f"<th>{name}</th>" for name in ("method", *COLUMNS))
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>\n"
        for line in _numbers(measured)
    )
    blocks = "\n".join(_pair(explained, pair) for pair in pairs)
    return _PAGE.format(
        count=len(pairs), head=head, rows=rows, blocks=blocks, notes=_NOTES
    )


def _pair(explained: Methods, pair: Sentences) -> str:
    """Heatmaps of both sentences, and matrices."""
    lines = []
    for own, other in (pair, pair[::-1]):
        by_method = [explained[name] for name in SHOWN]
        relevances = [method[own].to(method[other]) for method in by_method]
        tokens = by_method[0][own].tokens
        lines.append(text.heatmap(tokens, relevances, labels=SHOWN, scale="row"))
    matrices = []
    for name in SHOWN[:2]:
        one, two = (explained[name][s] for s in pair)
        matrix = one.with_(two)
        matrices.append(text.pairs(one.tokens, two.tokens, matrix, title=name))
    names = " · ".join(html.escape(s) for s in pair)
    return (
        f"<h2>{names}</h2><p>Cosine similarity {_value(explained, pair)}.</p>"
        f"{''.join(text.fragment(line) for line in lines)}"
        f'<div class="side">{"".join(text.fragment(m) for m in matrices)}</div>'
    )


_NOTES = """
<ul>
<li>A similarity is the scalar product of two embeddings of length one. Heatmaps show
each token’s part of it, the other sentence’s embedding held. Matrices show the part of
each pair of tokens (BiLRP); the colours of the tokens next to them are their sums.</li>
<li>Each row of a heatmap and each matrix has a scale of its own, which is printed. The
relevances of a token and of a pair are under the pointer.</li>
<li>What is missing from a sum stays with biases and positions, and with softmax, which
the default expands to first order. CPLRP holds the attention weights and keeps more.
</li>
<li>The tokens [CLS] and [SEP] receive little: what they hold at the end came from the
words, and relevance goes back there. Removal says another thing. Without [CLS] the
embedding moves by about its own length, whatever the sentence: the model has never seen
one without it. So removal is compared for words alone.</li>
<li>Gradient × input adds up to about nothing. Layer normalisation does not change when
its input is scaled, so that the gradient is orthogonal to that input.</li>
</ul>
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Why two sentences are similar</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 66em; margin: 2em auto;
  padding: 0 1em; color: #222; background: #fff; }}
h2 {{ margin-top: 2em; font-size: 1.15em; }}
.numbers {{ border-collapse: collapse; }}
.numbers td, .numbers th {{ padding: 0.15em 1em 0.15em 0; text-align: right; }}
.numbers td:first-child, .numbers th:first-child {{ text-align: left; }}
.side {{ display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-start; }}
</style>
</head>
<body>
<h1>Why two sentences are similar</h1>
<p>all-MiniLM-L6-v2, a sentence transformer, explained for {count} pairs of
sentences.</p>
<table class="numbers">
<tr>{head}</tr>
{rows}
</table>
<p><b>Deletion</b>: tokens are removed, the least relevant first and the most relevant
first; the mean height between the two curves of the similarity. Zero is chance, higher
is better. <b>Agreement</b>: correlation of the relevances of pairs of tokens with what
removing both of them changes beyond removing each. <b>Kept</b>: the sum of the tokens’
relevances, of the similarity. <b>Special</b>: that of [CLS] and [SEP].</p>
{notes}
{blocks}
</body>
</html>
"""
