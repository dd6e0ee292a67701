"""Relevances of tokens as pictures: text on colour, and matrices of pairs of tokens.

Red speaks for the output and blue against it, white is zero: ColorBrewer's RdBu, which
is safe for the colour-blind, between `-scale` and `scale`, which are printed. The HTML
needs no script and no other file. In a notebook the pictures show themselves.
"""

from __future__ import annotations

import dataclasses
import html
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlrp import _files
from jaxlrp._arguments import flag

__all__ = [
    "Heatmap",
    "Pairs",
    "Row",
    "figure",
    "fragment",
    "heatmap",
    "page",
    "pairs",
    "save",
    "words",
]

# From -1 to 1 in equal steps.
COLOURS = (
    (5, 48, 97),
    (33, 102, 172),
    (67, 147, 195),
    (146, 197, 222),
    (209, 229, 240),
    (247, 247, 247),
    (253, 219, 199),
    (244, 165, 130),
    (214, 96, 77),
    (178, 24, 43),
    (103, 0, 31),
)

_SPECIAL = re.compile(r"\[[A-Z]+\d*\]|<[^<>]+>")
_UNSEEN = {"\n": "⏎", "\r": "␍", "\t": "⇥", "Ċ": "⏎"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a heatmap.

    Attributes:
      label: what comes before it.
      tokens: the text.
      relevances: one for each token.
      scale: the relevance of the darkest red.

    Examples:
      >>> from jaxlrp import text
      >>> text.heatmap(["a", "b"], [1.0, -2.0]).rows[0].relevances
      (1.0, -2.0)
    """

    label: str
    tokens: tuple[str, ...]
    relevances: tuple[float, ...]
    scale: float


@dataclasses.dataclass(frozen=True)
class Heatmap:
    """Lines of tokens on colours; made by `heatmap`.

    Attributes:
      rows: the lines.
      title: what is above, or nothing.
      numbers: are relevances printed below the tokens?

    Examples:
      >>> from jaxlrp import text
      >>> picture = text.heatmap(["a", "b"], [1.0, -2.0], title="Two")
      >>> picture.title, picture.rows[0].tokens
      ('Two', ('a', 'b'))
    """

    rows: tuple[Row, ...]
    title: str
    numbers: bool

    def _repr_html_(self) -> str:
        return fragment(self)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A matrix of relevances between two texts; made by `pairs`.

    Attributes:
      first: the tokens next to the rows.
      second: those above the columns.
      matrix: a tuple for each row.
      scale: the relevance of the darkest red, inside.
      margin: that of the sums, on the tokens.
      title: what is above, or nothing.
      numbers: are relevances printed in the cells?

    Examples:
      >>> from jaxlrp import text
      >>> text.pairs(["a"], ["b", "c"], [[1.0, -2.0]]).matrix
      ((1.0, -2.0),)
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    scale: float
    margin: float
    title: str
    numbers: bool

    def _repr_html_(self) -> str:
        return fragment(self)


# ---- making ------------------------------------------------------------------------


def heatmap(
    tokens: Sequence[str] | Sequence[Sequence[str]],
    relevances: Any,
    *,
    labels: Sequence[str] | None = None,
    scale: float | str = "all",
    title: str = "",
    numbers: bool = False,
) -> Heatmap:
    """A text heatmap: each token on the colour of its relevance.

    The colour is that of `R_i / scale`, clipped to [-1, 1].

    Args:
      tokens: the text of a row, or those of several.
      relevances: for one text, an array (tokens,), or (rows, tokens) for several
        methods or targets; for several texts, a sequence with an array for each.
      labels: what comes before each row.
      scale: the relevance of the darkest red: a number, `"all"` for the largest of all
        rows, or `"row"` for the largest of each, where rows differ in their units.
      title: what is above.
      numbers: print the relevances below the tokens; else they are only in tooltips.

    Returns:
      A picture, which `page`, `save` and `figure` take, and notebooks show.

    Raises:
      ValueError: if there are not as many relevances as tokens, or labels as rows, or a
        relevance is not finite.

    Examples:
      >>> import jaxlrp
      >>> picture = jaxlrp.text.heatmap(["a", "cat"], [0.1, -0.4])
      >>> picture.rows[0].scale
      0.4
      >>> print(jaxlrp.text.page(picture)[:15])
      <!doctype html>
    """
    flag("numbers", numbers)
    rows = _rows(tokens, relevances)
    if labels is None:
        labels = [""] * len(rows)
    if isinstance(labels, str) or len(labels) != len(rows):
        raise ValueError(
            f"labels: got {labels!r}, expected {len(rows)}, one for each row"
        )
    scales = _scales([r for _, r in rows], scale)
    made = [
        Row(str(label), tuple(text), tuple(float(v) for v in values), each)
        for label, (text, values), each in zip(labels, rows, scales, strict=True)
    ]
    return Heatmap(tuple(made), title, numbers)


def pairs(
    first: Sequence[str],
    second: Sequence[str],
    matrix: Any,
    *,
    scale: float | None = None,
    title: str = "",
    numbers: bool = False,
) -> Pairs:
    """A matrix of relevances between the tokens of two texts.

    Cells have the colour of `R_ij / scale`. The tokens, at the side and above, have
    that of the sums over their rows and columns, on their own scale.

    Args:
      first: the tokens next to the rows.
      second: those above the columns.
      matrix: relevances (first, second), from `jaxlrp.similarity.bilrp`.
      scale: the relevance of the darkest red in the cells; None is the largest.
      title: what is above.
      numbers: print the relevances in the cells; else they are only in tooltips.

    Returns:
      A picture, as `heatmap`.

    Raises:
      ValueError: if the matrix is not (first, second), or not finite.

    Examples:
      >>> import jaxlrp
      >>> picture = jaxlrp.text.pairs(["a", "cat"], ["dogs"], [[0.1], [0.5]])
      >>> picture.scale, picture.margin
      (0.5, 0.6)
    """
    flag("numbers", numbers)
    _check_tokens("first", first)
    _check_tokens("second", second)
    values = _finite("matrix", matrix)
    if values.shape != (len(first), len(second)):
        raise ValueError(
            f"matrix: got shape {values.shape}, expected ({len(first)}, {len(second)}) "
            f"for as many tokens"
        )
    (inside,) = _scales([values], "all" if scale is None else scale)
    (margin,) = _scales([np.concatenate([values.sum(0), values.sum(1)])], "all")
    rows = tuple(tuple(float(v) for v in row) for row in values)
    return Pairs(tuple(first), tuple(second), rows, inside, margin, title, numbers)


def words(
    tokens: Sequence[str],
    relevances: Any,
    *,
    axis: int = -1,
    continues: str = "##",
    begins: str = "",
) -> tuple[list[str], np.ndarray]:
    """Pieces of words joined; their relevances are added up.

    Args:
      tokens: pieces, as a tokenizer writes them.
      relevances: an array whose axis `axis` is that of the tokens. A matrix of pairs is
        joined along one axis and then along the other.
      axis: the axis of the tokens.
      continues: what a piece starts with that continues a word, `"##"` for WordPiece.
      begins: what a piece starts with that begins one, `"▁"` for SentencePiece, `"Ġ"`
        for byte-level BPE. All others then continue, except special tokens.

    Returns:
      `(words, relevances)`; special tokens, such as `[SEP]` and `</s>`, stay alone.

    Raises:
      ValueError: if the axis does not have as many elements as there are tokens.

    Examples:
      >>> import jaxlrp
      >>> jaxlrp.text.words(["un", "##fair", "[SEP]"], [1.0, 2.0, 4.0])
      (['unfair', '[SEP]'], array([3., 4.]))
    """
    _check_tokens("tokens", tokens)
    values = _finite("relevances", relevances)
    if not -values.ndim <= axis < values.ndim or values.shape[axis] != len(tokens):
        raise ValueError(
            f"relevances: got shape {values.shape}, expected {len(tokens)} elements "
            f"along axis {axis}, one for each token"
        )
    joined: list[str] = []
    starts: list[int] = []
    for i, token in enumerate(tokens):
        if i and _continues(token, tokens[i - 1], continues, begins):
            joined[-1] += token if begins else token[len(continues) :]
        else:
            joined.append(token[len(begins) :] if token.startswith(begins) else token)
            starts.append(i)
    if not starts:
        return joined, values
    return joined, np.add.reduceat(values, starts, axis=axis)


def _continues(token: str, before: str, continues: str, begins: str) -> bool:
    """Does a piece belong to the word of the piece before it?"""
    if _SPECIAL.fullmatch(token) or _SPECIAL.fullmatch(before):
        return False
    if begins:
        return not token.startswith(begins)
    return token.startswith(continues) and token != continues


def _rows(tokens: Any, relevances: Any) -> list[tuple[Sequence[str], np.ndarray]]:
    """A text and its relevances for each row."""
    if isinstance(tokens, str) or not hasattr(tokens, "__len__"):
        raise TypeError(f"tokens: got {tokens!r}, expected a sequence of strings")
    if not len(tokens) or isinstance(tokens[0], str):
        _check_tokens("tokens", tokens)
        values = _finite("relevances", relevances)
        if values.ndim not in (1, 2) or values.shape[-1] != len(tokens):
            raise ValueError(
                f"relevances: got shape {values.shape}, expected ({len(tokens)},) or "
                f"(rows, {len(tokens)}) for {len(tokens)} tokens"
            )
        return [(tokens, row) for row in np.atleast_2d(values)]
    if not hasattr(relevances, "__len__") or len(relevances) != len(tokens):
        raise ValueError(
            f"relevances: got {relevances!r}, expected {len(tokens)} arrays, one for "
            f"each text"
        )
    rows = []
    for i, (text, given) in enumerate(zip(tokens, relevances, strict=True)):
        _check_tokens(f"tokens[{i}]", text)
        values = _finite(f"relevances[{i}]", given)
        if values.shape != (len(text),):
            raise ValueError(
                f"relevances[{i}]: got shape {values.shape}, expected ({len(text)},) "
                f"for as many tokens"
            )
        rows.append((text, values))
    return rows


def _check_tokens(name: str, tokens: Any) -> None:
    strings = isinstance(tokens, Sequence | np.ndarray) and not isinstance(tokens, str)
    if not strings or not all(isinstance(token, str) for token in tokens):
        raise TypeError(f"{name}: got {tokens!r}, expected a sequence of strings")


def _finite(name: str, given: Any) -> np.ndarray:
    values = np.asarray(given, np.float64)
    if not np.isfinite(values).all():
        where = [int(i) for i in np.argwhere(~np.isfinite(values))[0]]
        raise ValueError(
            f"{name}: got {values[tuple(where)]} at {where}, expected finite numbers"
        )
    return values


def _scales(rows: Sequence[np.ndarray], scale: Any) -> list[float]:
    """The scale of each row; one where all is zero."""
    largest = [float(np.abs(r).max(initial=0.0)) for r in rows]
    if scale == "row":
        return [each or 1.0 for each in largest]
    if scale == "all":
        return [max(largest, default=0.0) or 1.0] * len(rows)
    number = isinstance(scale, int | float | np.number) and not isinstance(scale, bool)
    if not number or not 0 < scale < np.inf:
        raise ValueError(
            f"scale: got {scale!r}, expected 'all', 'row' or a positive number"
        )
    return [float(scale)] * len(rows)


# ---- colours -----------------------------------------------------------------------


def _colour(value: float, scale: float) -> tuple[int, int, int]:
    """The colour of a relevance: linear between the colours next to it."""
    place = (np.clip(value / scale, -1, 1) + 1) / 2 * (len(COLOURS) - 1)
    low = min(int(place), len(COLOURS) - 2)
    left, right = np.array(COLOURS[low]), np.array(COLOURS[low + 1])
    r, g, b = np.rint(left + (place - low) * (right - left)).astype(int)
    return int(r), int(g), int(b)


def _luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance, by the definition of WCAG 2."""
    parts = np.array(colour) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _style(value: float, scale: float) -> str:
    """Background, and black or white, whichever has more contrast, on it."""
    colour = _colour(value, scale)
    light = _luminance(colour)
    ink = "#000" if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "#fff"
    return f"background:{_hex(colour)};color:{ink}"


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


# ---- HTML --------------------------------------------------------------------------

_CSS = """
.jaxlrp-text{font:14px/1.5 system-ui,sans-serif;color:#222;background:#fff;
padding:.6em .8em;margin:0 0 1em;-webkit-print-color-adjust:exact;
print-color-adjust:exact}
.jaxlrp-text .title{font-weight:600;margin-bottom:.5em}
.jaxlrp-text .row{display:flex;align-items:flex-start;margin:.35em 0}
.jaxlrp-text .label{flex:0 0 12em;color:#444;padding-right:1em}
.jaxlrp-text .sum{display:block;font-size:11px;line-height:1.2;color:#666}
.jaxlrp-text .text{line-height:1.9}
.jaxlrp-text .token{display:inline-block;line-height:1.45;padding:0 .3em;margin:0 1px;
border-radius:3px;unicode-bidi:isolate;white-space:pre-wrap;text-align:center}
.jaxlrp-text .special{font-style:italic;outline:1px dashed #999;outline-offset:-1px}
.jaxlrp-text .number{display:block;font-size:10px;line-height:1.2}
.jaxlrp-text .scale{font-size:11px;color:#444;margin-top:.6em}
.jaxlrp-text .bar{display:inline-block;width:12em;height:.8em;margin:0 .5em;
vertical-align:-1px;border:1px solid #ccc}
.jaxlrp-text table{border-collapse:separate;border-spacing:1px}
.jaxlrp-text th{font-weight:400;padding:.15em .5em;text-align:right;
unicode-bidi:isolate;white-space:pre}
.jaxlrp-text .above{vertical-align:bottom;padding:.5em .15em;text-align:left}
.jaxlrp-text .above span{writing-mode:vertical-rl;transform:rotate(180deg)}
.jaxlrp-text td{min-width:2.2em;height:2em;text-align:center;font-size:11px}
""".replace("\n", "")


def fragment(picture: Heatmap | Pairs) -> str:
    """A picture as HTML, to put into a page: one `div` that brings its own style.

    Args:
      picture: from `heatmap` or `pairs`.

    Raises:
      TypeError: for anything that is not a picture.

    Examples:
      >>> import jaxlrp
      >>> "&lt;b&gt;" in jaxlrp.text.fragment(jaxlrp.text.heatmap(["<b>"], [1.0]))
      True
    """
    _check_picture(picture)
    return (
        _heatmap_html(picture) if isinstance(picture, Heatmap) else _pairs_html(picture)
    )


def page(*pictures: Heatmap | Pairs, title: str = "Relevance") -> str:
    """Pictures as one HTML page, which needs no script and no other file.

    Args:
      *pictures: from `heatmap` and `pairs`.
      title: of the page.

    Raises:
      TypeError: for anything that is not a picture.

    Examples:
      >>> from jaxlrp import text
      >>> text.page(text.heatmap(["a"], [1.0])).splitlines()[0]
      '<!doctype html>'
    """
    body = "\n".join(fragment(picture) for picture in pictures)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title></head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def save(
    path: str | os.PathLike[str],
    *pictures: Heatmap | Pairs,
    title: str = "Relevance",
) -> None:
    """Writes `page` to a file: all of it or nothing.

    Several threads and processes may write the same file: one of them is the last. A
    file that is there keeps its mode, and a link stays one: the file that it points to
    is written.

    Args:
      path: the file.
      *pictures: from `heatmap` and `pairs`.
      title: of the page.

    Raises:
      TypeError: for anything that is not a picture, or a path that is none.
      OSError: for a path that is no regular file, as a folder, a pipe or a device.

    Examples:
      >>> import pathlib, tempfile
      >>> from jaxlrp import text
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "page.html")
      ...     text.save(path, text.heatmap(["a"], [1.0]))
      ...     print(path.stat().st_size > 100)
      True
    """
    # Half of a surrogate pair, which a slow tokenizer may leave, has no bytes.
    content = page(*pictures, title=title).encode("utf-8", "xmlcharrefreplace")
    _files.write(path, content)


def figure(*pictures: Heatmap | Pairs) -> Any:
    """Pictures as one figure of treescope, to show next to others in a notebook.

    Args:
      *pictures: from `heatmap` and `pairs`.

    Returns:
      A `treescope` figure. Notebooks show it, and `treescope.figures` takes it.

    Raises:
      ImportError: if treescope is not installed. Flax brings it.
      TypeError: for anything that is not a picture.

    Examples:
      >>> from jaxlrp import text
      >>> picture = text.figure(text.heatmap(["a"], [1.0]))
    """
    try:
        import treescope
        from treescope import figures
    except ImportError as error:
        raise ImportError(
            "jaxlrp.text.figure needs treescope: pip install treescope"
        ) from error
    parts: list[Any] = []
    for picture in pictures:
        _check_picture(picture)
        if picture.title:
            parts += [figures.bolded(picture.title), "\n"]
        if isinstance(picture, Heatmap):
            for row in picture.rows:
                parts += [f"{row.label} " if row.label else ""]
                for token, value in zip(row.tokens, row.relevances, strict=True):
                    on_colour = figures.text_on_color(
                        _visible(token), value, vmax=row.scale, colormap=list(COLOURS)
                    )
                    parts += [on_colour, " "]
                parts += [f" ±{_number(row.scale, '')}\n"]
        else:
            names = ("first", "second")
            texts = (picture.first, picture.second)
            drawn = treescope.render_array(
                np.array(picture.matrix),
                axis_labels=dict(enumerate(names)),
                axis_item_labels={
                    i: [_visible(t) for t in text] for i, text in enumerate(texts)
                },
                # In float32 the largest would else be marked as beyond the scale.
                vmax=picture.scale * (1 + 1e-6),
                colormap=list(COLOURS),
                pixels_per_cell=20,
            )
            parts += [drawn, "\n"]
    return figures.inline(*parts, wrap=True)


def _check_picture(picture: Any) -> None:
    if not isinstance(picture, Heatmap | Pairs):
        raise TypeError(
            f"picture: got {type(picture).__name__}, expected what heatmap or pairs "
            f"returns"
        )


def _heatmap_html(picture: Heatmap) -> str:
    scales = {row.scale for row in picture.rows}
    lines = []
    for row in picture.rows:
        total = sum(row.relevances)
        tokens = " ".join(
            _token(token, value, row.scale, total, picture.numbers)
            for token, value in zip(row.tokens, row.relevances, strict=True)
        )
        own = f", ±{_number(row.scale, '')}" if len(scales) > 1 else ""
        below = f"<span class='sum'>sum {_number(total)}{own}</span>"
        lines.append(
            f"<div class='row'><div class='label'>{html.escape(row.label)}{below}</div>"
            f"<div class='text'>{tokens}</div></div>"
        )
    end = _scale(scales.pop(), "relevance") if len(scales) == 1 else _scale(None, "")
    return _block(picture.title, "".join(lines) + end)


def _pairs_html(picture: Pairs) -> str:
    matrix = np.array(picture.matrix).reshape(len(picture.first), len(picture.second))

    def head(token: str, total: float, where: str) -> str:
        attributes = (
            f"style='{_style(total, picture.margin)}' title='{_tip(token, total)}'"
        )
        kind = f"{where} special" if _SPECIAL.fullmatch(token) else where
        scope = "col" if where == "above" else "row"
        shown = f"<span>{html.escape(_visible(token))}</span>"
        return f"<th scope='{scope}' class='{kind}' {attributes}>{shown}</th>"

    def cell(i: int, j: int) -> str:
        value = float(matrix[i, j])
        names = f"{_visible(picture.first[i])} × {_visible(picture.second[j])}"
        number = _short(value, picture.scale) if picture.numbers else ""
        style = _style(value, picture.scale)
        return f"<td style='{style}' title='{_tip(names, value)}'>{number}</td>"

    above = "".join(
        head(token, float(total), "above")
        for token, total in zip(picture.second, matrix.sum(0), strict=True)
    )
    rows = "".join(
        f"<tr>{head(token, float(matrix[i].sum()), 'beside')}"
        f"{''.join(cell(i, j) for j in range(len(picture.second)))}</tr>"
        for i, token in enumerate(picture.first)
    )
    table = f"<table><tr><td></td>{above}</tr>{rows}</table>"
    total = f"<div class='scale'>sum of all pairs {_number(float(matrix.sum()))}</div>"
    scales = _scale(picture.scale, "a pair") + _scale(picture.margin, "sums, on tokens")
    return _block(picture.title, table + total + scales)


def _block(title: str, content: str) -> str:
    head = f"<div class='title'>{html.escape(title)}</div>" if title else ""
    return f"<div class='jaxlrp-text'><style>{_CSS}</style>{head}{content}</div>"


def _token(token: str, value: float, scale: float, total: float, number: bool) -> str:
    kind = "token special" if _SPECIAL.fullmatch(token) else "token"
    share = f", {value / total:.0%} of the sum".replace("-", "−") if total else ""
    below = f"<span class='number'>{_short(value, scale)}</span>" if number else ""
    tip = _tip(token, value) + share
    style = _style(value, scale)
    text = html.escape(_visible(token))
    return f"<span class='{kind}' style='{style}' title='{tip}'>{text}{below}</span>"


def _tip(name: str, value: float) -> str:
    return f"{html.escape(_visible(name))}: {_number(value)}"


def _scale(scale: float | None, name: str) -> str:
    """The bar of colours with its ends; without numbers where rows have their own."""
    stops = ",".join(_hex(colour) for colour in COLOURS)
    ends = ("−scale", "+scale") if scale is None else (_number(-scale), _number(scale))
    bar = f"<span class='bar' style='background:linear-gradient(90deg,{stops})'></span>"
    return f"<div class='scale'>{ends[0]}{bar}{ends[1]} {name}</div>"


def _visible(token: str) -> str:
    """A token as it is shown: none is empty, spaces and line breaks have signs."""
    shown = "".join(_UNSEEN.get(letter, letter) for letter in token)
    return shown if shown.strip() else "␣" * len(shown) or "∅"


def _short(value: float, scale: float) -> str:
    """As many decimals as give the scale two digits: `+0.02` for a scale of 0.24."""
    decimals = max(0, 1 - math.floor(math.log10(scale)))
    if decimals > 4:
        return _number(value)
    text = f"{value:+.{decimals}f}"
    return (text if float(text) else text[1:]).replace("-", "−")


def _number(value: float, sign: str = "+") -> str:
    """Three digits with a true minus: `+0.123`, `−4.5e−06`."""
    text = f"{value:{sign}.3g}" if value else "0"
    return text.replace("-", "−")
