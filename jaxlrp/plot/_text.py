"""Relevance of text: tokens on colours, and matrices of pairs, as `jaxlrp.text`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp import text
from jaxlrp._arguments import flag
from jaxlrp.plot import _canvas, _checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS = 10.0  # the size of a token's letters
_SMALL = 6.5  # that of a number's
_LINE = 1.9  # between lines, in letters' sizes
_LARGEST = 40  # a matrix with more rows or columns has fewer names


def tokens(
    tokens: Sequence[str] | Sequence[Sequence[str]],
    relevances: Any,
    *,
    labels: Sequence[str] | None = None,
    scale: float | str = "all",
    title: str = "",
    numbers: bool = False,
    bar: str | None = "relevance",
    width: float = 6.5,
    into: Any = None,
) -> Figure:
    """A text heatmap as a figure for a paper; `jaxlrp.text.heatmap` is it in HTML.

    Args:
      tokens: the text of a row, or those of several.
      relevances: for one text, an array (tokens,), or (rows, tokens) for several
        methods or targets; for several texts, a sequence with an array for each.
      labels: what comes before each row.
      scale: the relevance of the darkest red: `"all"` for the largest of all rows,
        `"each"` for that of each row, or a number.
      title: what is above.
      numbers: print the relevances below the tokens.
      bar: what is written at the colour bar; None for no bar.
      width: of the figure in inches; lines are broken there, or where `into` ends.
      into: a `Figure`, `SubFigure` or `Axes` to draw in, from its upper left corner.

    Returns:
      The figure.

    Raises:
      TypeError: for tokens that are no strings, or what is not a figure.
      ValueError: if there are not as many relevances as tokens, or labels as rows, or a
        relevance is not finite.

    Examples:
      >>> import jaxlrp
      >>> figure = jaxlrp.plot.tokens(["a", "red", "cat"], [0.1, -0.2, 0.8])
      >>> [word.get_text() for word in figure.axes[0].texts]
      ['a', 'red', 'cat']
    """
    # What HTML calls a row is here, as in the other pictures, each of several.
    made = text.heatmap(
        tokens,
        relevances,
        labels=labels,
        scale="row" if isinstance(scale, str) and scale == "each" else scale,
        title=title,
        numbers=numbers,
    )
    with _canvas.style():
        panel = None if into is None else _canvas.axes((width, 1.0), into)
        if panel is not None:
            room = panel.get_window_extent().width / panel.figure.dpi
            width = min(width, room)
        margin = max((_width(row.label, _POINTS) for row in made.rows), default=0.0)
        margin = margin and margin + _POINTS
        inside = 72 * width - margin - 12
        lines = [_lines(row, inside, numbers) for row in made.rows]
        step = _POINTS * (_LINE + 0.9 * numbers)
        points = step * sum(map(len, lines)) + 0.4 * _POINTS * len(lines)
        ends = [at + wide for row in lines for line in row for *_, at, wide in line]
        # A short text needs no wide figure, but its colour bar needs some.
        width = min(width, max(3.2, (margin + max(ends, default=0.0) + 12) / 72))
        size = width, points / 72 + 0.15 + 0.25 * bool(title) + 0.65 * bool(bar)
        panel = _canvas.axes(size, None) if panel is None else panel
        panel.set(xlim=(0, 72 * width - 12), ylim=(points, 0))
        panel.set_axis_off()
        panel.set_title(_canvas.plain(title), loc="left", fontweight="bold")
        _write(panel, made, lines, margin, step)
        if bar is not None and made.rows:
            sizes = [row.scale for row in made.rows]
            maps = [np.array(row.relevances or (0.0,)) for row in made.rows]
            _canvas.bar(
                panel.figure,
                _colours(sizes[0]),
                [panel],
                bar,
                sizes,
                _canvas.beyond(maps, sizes),
                "bottom",
            )
        return _canvas.root(panel)


def matrix(
    matrix: Any,
    first: Any = None,
    second: Any = None,
    *,
    names: tuple[str, str] = ("", ""),
    scale: float | None = None,
    percentile: float = 100.0,
    numbers: bool = False,
    title: str = "",
    bar: str | None = "relevance",
    into: Any = None,
) -> Figure:
    """A matrix of relevances, as of pairs of tokens or of attention.

    Args:
      matrix: relevances (first, second), from `jaxlrp.similarity.bilrp` for example.
      first: the names of the rows, as tokens.
      second: those of the columns.
      names: what rows and columns are, as `("query", "key")`.
      scale: the relevance of the strongest colour; None is that of `percentile`.
      percentile: of the absolute relevances that is drawn in full.
      numbers: print the relevances in the cells.
      title: what is above.
      bar: what is written at the colour bar; None for no bar.
      into: a `Figure`, `SubFigure` or `Axes` to draw in.

    Returns:
      The figure.

    Raises:
      TypeError: for what is not an array of real numbers, or not a figure.
      ValueError: if the matrix is not (first, second), or not finite.

    Examples:
      >>> import jaxlrp
      >>> figure = jaxlrp.plot.matrix([[0.1, -0.4]], ["cat"], ["a", "dog"])
      >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
      ['a', 'dog']
    """
    flag("numbers", numbers)
    values = _checks.array("matrix", matrix, (2,), "(first, second)")
    sides = [
        None if given is None else _checks.names(name, given, count, side)
        for name, given, count, side in (
            ("first", first, values.shape[0], "row"),
            ("second", second, values.shape[1], "column"),
        )
    ]
    kinds = _checks.names("names", names, 2, "axis")
    (size,) = _checks.scales([values], "all" if scale is None else scale, percentile)
    rows, columns = values.shape
    cell = 0.42 if numbers else min(0.26, 6.0 / max(rows, columns))
    with _canvas.style():
        longest = [max((len(n) for n in side or [""]), default=0) for side in sides]
        inches = [0.065 * letters + 0.4 for letters in longest]
        panel = _canvas.axes(
            (cell * columns + inches[0] + 1.0, cell * rows + inches[1] + 0.3), into
        )
        drawn = panel.imshow(
            values, cmap=_canvas.DIVERGING, vmin=-size, vmax=size, aspect="equal"
        )
        _sides(panel, sides[0], sides[1])
        panel.set(ylabel=_canvas.plain(kinds[0]), title=_canvas.plain(title))
        panel.set_xlabel(_canvas.plain(kinds[1]))
        panel.xaxis.set_label_position("top")
        if numbers:
            _cells(panel, values, drawn)
        if bar is not None:
            clipped = _canvas.beyond([values], [size])
            _canvas.bar(panel.figure, drawn, [panel], bar, [size], clipped)
        return _canvas.root(panel)


# ---- tokens ------------------------------------------------------------------------


def _width(word: str, size: float) -> float:
    """The width of a word in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    if not word.strip():  # TextPath takes no text without letters
        return 0.3 * size * len(word)
    path = TextPath((0, 0), _canvas.plain(word), prop=FontProperties(size=size))
    return float(path.get_extents().width)


def _lines(
    row: text.Row, width: float, numbers: bool
) -> list[list[tuple[str, float, float, float]]]:
    """Lines of (token, its relevance, where it begins, its width), in points."""
    lines: list[list[tuple[str, float, float, float]]] = [[]]
    at = 0.0
    for token, value in zip(row.tokens, row.relevances, strict=True):
        word = text._visible(token).strip()  # of the space before it nothing is seen
        wide = _width(word, _POINTS) + 0.6 * _POINTS
        if numbers:
            number = text._short(value, row.scale)
            wide = max(wide, _width(number, _SMALL) + 0.4 * _POINTS)
        if lines[-1] and at + wide > width:
            lines.append([])
            at = 0.0
        lines[-1].append((word, value, at, wide))
        at += wide + 0.2 * _POINTS
    return lines


def _write(
    panel: Axes,
    made: text.Heatmap,
    lines: Sequence[Sequence[Sequence[tuple[str, float, float, float]]]],
    margin: float,
    step: float,
) -> None:
    """Tokens on boxes of their colour, line by line from the top.

    All is placed in points, so that no box is stretched where the panel is larger.
    """
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import Affine2D, ScaledTranslation

    axes: Any = panel.transAxes
    corner = ScaledTranslation(0, 1, axes)
    inches = panel.figure.dpi_scale_trans
    place: Any = {
        "transform": Affine2D().scale(1 / 72, -1 / 72) + inches + corner,
        "clip_on": False,
        "in_layout": False,
    }
    top = 0.0
    high = 1.5 * _POINTS
    for row, of_row in zip(made.rows, lines, strict=True):
        colours = _colours(row.scale)
        if row.label:
            label = _canvas.plain(row.label)
            panel.text(0, top + high / 2, label, fontsize=_POINTS, va="center", **place)
        for line in of_row:
            for word, value, at, wide in line:
                colour = colours.to_rgba(value)
                left = margin + at
                box = Rectangle((left, top), wide, high, fc=colour, lw=0, **place)
                panel.add_artist(box)
                middle = left + wide / 2
                panel.text(
                    middle,
                    top + high / 2,
                    _canvas.plain(word),
                    fontsize=_POINTS,
                    color=_canvas.on(colour),
                    ha="center",
                    va="center",
                    **place,
                )
                if made.numbers:
                    panel.text(
                        middle,
                        top + high + 0.45 * _POINTS,
                        text._short(value, row.scale),
                        fontsize=_SMALL,
                        color="0.35",
                        ha="center",
                        va="center",
                        **place,
                    )
            top += step
        top += 0.4 * _POINTS


def _colours(size: float) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(-size, size), _canvas.DIVERGING)


# ---- matrices ----------------------------------------------------------------------


def _sides(
    panel: Axes, first: Sequence[str] | None, second: Sequence[str] | None
) -> None:
    """Names next to rows and above columns, some of them where there are many."""
    panel.tick_params(
        length=0, top=False, labeltop=True, bottom=False, labelbottom=False
    )
    panel.spines[:].set_visible(False)
    if first is not None:
        at = range(0, len(first), -(-len(first) // _LARGEST))
        panel.set_yticks(at, [_shown(first[i]) for i in at])
    if second is not None:
        at = range(0, len(second), -(-len(second) // _LARGEST))
        panel.set_xticks(at, [_shown(second[i]) for i in at], rotation=90)


def _shown(word: str) -> str:
    return _canvas.plain(text._visible(word))


def _cells(panel: Axes, values: np.ndarray, drawn: Any) -> None:
    for (i, j), value in np.ndenumerate(values):
        panel.text(
            j,
            i,
            text._short(float(value), drawn.norm.vmax),
            ha="center",
            va="center",
            fontsize=6.5,
            color=_canvas.on(drawn.to_rgba(value)),
        )
