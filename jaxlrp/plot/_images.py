"""Relevance of images: a grid of maps, next to the photographs or over them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp._arguments import axis, flag
from jaxlrp.plot import _canvas, _checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORM = "(height, width), with a channel axis and a batch axis or without"
_CHANNELS = 4  # at most, of what is found to be a channel axis
_OVERLAYS = (None, "photograph", "outline")


@dataclasses.dataclass(frozen=True)
class _Map:
    """One map of the grid: the panel's relevance, its scale and what is above it."""

    relevance: np.ndarray
    size: float
    title: str
    heading: str

    @property
    def left_out(self) -> bool:
        return bool(np.isnan(self.relevance).all())


@dataclasses.dataclass(frozen=True)
class _Look:
    """How each panel is drawn; see `images`."""

    overlay: str | None
    invert: bool
    own: bool


def images(
    relevance: Any,
    photographs: Any = None,
    *,
    labels: Any = None,
    scores: Any = None,
    beside: bool = True,
    overlay: str | None = None,
    invert: bool = False,
    scale: float | str = "each",
    percentile: float = 99.5,
    channel: int | None = None,
    columns: int | None = None,
    bar: str | None = "relevance",
    cell: float = 1.9,
    into: Any = None,
) -> Figure:
    """Maps of relevance, a grid of them, with their photographs.

    Args:
      relevance: of one image, (height, width) with or without a channel axis, or of a
        batch, with an axis more in front; relevance is summed over channels. A mapping
        of names to such arrays draws several methods, classes or targets next to each
        other, under their names. The place of a map that is NaN throughout stays
        empty.
      photographs: of the same examples, in the same layout; their size may differ, as
        that of maps of patches. Those that leave 0 to 1 are drawn from their smallest
        value to their largest. Integers are from 0 to 255.
      labels: what is written above each example, as the class. A mapping, where
        relevance is one, has them for each map, and under `"image"` those of the
        photographs.
      scores: a number for each example, written behind the label; or a mapping.
      beside: draw the photograph, as its own panel, in front of the maps.
      overlay: `"photograph"` draws the map over the photograph, in grey, where
        relevance is not zero; `"outline"` draws the edges of the photograph over the
        map.
      invert: photographs of one channel are dark where they are large, as ink.
      scale: the relevance of the strongest colour: `"each"` for that of each map,
        printed below it, `"all"` for one that all share, or a number.
      percentile: of the absolute relevances that is drawn in full, so that a few large
        ones do not hide all others; 100 for the largest. The colour bar has pointed
        ends where something is beyond it.
      channel: the axis of the channels. If None it is found: the last axis if it has at
        most 4 elements, else that in front of height and width. Three axes whose last
        is large are a batch of images without channels.
      columns: how many examples are next to each other.
      bar: what is written at the colour bar; None for no bar.
      cell: the width of a panel in inches.
      into: a `Figure` or `SubFigure` to draw in.

    Returns:
      The figure.

    Raises:
      TypeError: for what is not an array of real numbers, or not a figure.
      ValueError: for shapes, labels or scores that do not fit, and unknown options.

    Examples:
      >>> import numpy as np, jaxlrp
      >>> image = np.random.default_rng(0).uniform(size=(2, 8, 8, 3))
      >>> relevance = image - 0.5
      >>> figure = jaxlrp.plot.images(
      ...     relevance, image, labels=["cat", "dog"], scores=[7.1, 5.3])
      >>> [panel.get_title() for panel in figure.axes[:4]]
      ['cat, 7.1', '', 'dog, 5.3', '']
    """
    look = _Look(
        _checks.choice("overlay", overlay, _OVERLAYS),
        flag("invert", invert),
        isinstance(scale, str) and scale == "each",
    )
    methods = {
        str(name): _maps(
            f"relevance[{name!r}]" if name is not None else "relevance", given, channel
        )
        for name, given in _named(relevance).items()
    }
    n = len(next(iter(methods.values())))
    for name, given in methods.items():
        if len(given) != n:
            raise ValueError(
                f"relevance[{name!r}]: got {len(given)} examples, expected {n}, as the "
                f"others have"
            )
    pictures = _photographs(photographs, n, channel)
    if overlay and pictures is None:
        raise ValueError(
            f"photographs: got None, expected them for overlay={overlay!r}"
        )
    flag("beside", beside)
    shown = pictures if beside else None
    flat = [np.nan_to_num(one) for given in methods.values() for one in given]
    sizes = _checks.scales(flat, scale, percentile)
    titles = _titles(labels, scores, relevance, n)
    own_titles = isinstance(labels, Mapping) or isinstance(scores, Mapping)
    rows = [
        [
            _Map(
                given[i],
                sizes[k * n + i],
                titles[k][i] if own_titles or (shown is None and k == 0) else "",
                name if isinstance(relevance, Mapping) else "",
            )
            for k, (name, given) in enumerate(methods.items())
        ]
        for i in range(n)
    ]
    heads = [""] * n if own_titles else titles[0]
    if isinstance(labels, Mapping) and "image" in labels:
        heads = [_canvas.plain(t) for t in _listed("labels", labels["image"], n)]
    width = len(methods) + (shown is not None)
    columns = columns or max(1, min(n, 6 // width))
    _checks.count("columns", columns)
    with _canvas.style():
        return _grid(
            rows,
            heads,
            pictures,
            shown is not None,
            columns,
            look,
            bar,
            cell,
            _canvas.beyond(flat, sizes),
            into,
        )


def _named(relevance: Any) -> Mapping[Any, Any]:
    if not isinstance(relevance, Mapping):
        return {None: relevance}
    if not relevance:
        raise ValueError("relevance: got an empty mapping, expected a map at least")
    return relevance


def _maps(name: str, given: Any, channel: int | None) -> np.ndarray:
    """Relevances (examples, height, width)."""
    found = _checks.array(name, given, (2, 3, 4), _FORM, nan=True)
    values, of_channels = _channels_last(name, found, channel)
    if of_channels:
        values = values.sum(-1)
    values = values if values.ndim == 3 else values[None]
    left_out = np.isnan(values).all((1, 2), keepdims=True)
    _checks.finite(name, np.where(left_out, 0.0, values) if left_out.any() else found)
    return values


def _channels_last(
    name: str, values: np.ndarray, channel: int | None
) -> tuple[np.ndarray, bool]:
    """The array with its channel axis at the end, and whether it has one."""
    if channel is not None:
        at = axis("channel", channel)
        if not -values.ndim <= at < values.ndim or values.ndim == 2:
            raise ValueError(
                f"channel: got {channel} for {name} of shape {values.shape}"
            )
        return np.moveaxis(values, at, -1), True
    if values.ndim == 2:
        return values, False
    few = values.shape[-1] <= _CHANNELS
    if values.ndim == 3:
        # A batch of images that are four pixels wide is rarer than a channel axis.
        return values, few and values.shape[-1] < min(values.shape[:-1])
    if few:
        return values, True
    if values.shape[1] <= _CHANNELS:
        return np.moveaxis(values, 1, -1), True
    raise ValueError(
        f"{name}: got shape {values.shape}, of which no axis is that of 1 to "
        f"{_CHANNELS} channels; name it by channel="
    )


def _photographs(given: Any, n: int, channel: int | None) -> list[np.ndarray] | None:
    """Pictures from 0 to 1, (height, width) or (height, width, 3)."""
    if given is None:
        return None
    values = _checks.array("photographs", given, (2, 3, 4), _FORM)
    at = channel if values.ndim > 2 else None
    values, of_channels = _channels_last("photographs", values, at)
    if values.ndim == 2 + of_channels:
        values = values[None]
    if of_channels and values.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"photographs: got {values.shape[-1]} channels, expected 1, 3 or 4"
        )
    if len(values) not in (1, n):
        raise ValueError(
            f"photographs: got {len(values)}, expected {n}, one for each example, or "
            f"one for all"
        )
    whole = np.asarray(given).dtype.kind in "iu" and values.min() >= 0
    values = values / 255 if whole and values.max() <= 255 else values
    pictures = [
        _unit(one[..., 0] if one.shape[-1] == 1 and of_channels else one)
        for one in values
    ]
    return pictures * n if len(pictures) < n else pictures


def _unit(picture: np.ndarray) -> np.ndarray:
    """A picture from 0 to 1: as it is, or from its smallest value to its largest."""
    low, high = picture.min(), picture.max()
    if low >= 0 and high <= 1:
        return picture
    return (picture - low) / ((high - low) or 1.0)


def _titles(labels: Any, scores: Any, relevance: Any, n: int) -> list[list[str]]:
    """A title for each map and example: the label and the score."""
    keys = list(_named(relevance))
    written = []
    for key in keys:
        label, score = _of("labels", labels, key), _of("scores", scores, key)
        texts = [""] * n if label is None else _listed("labels", label, n)
        if score is not None:
            values = _checks.array("scores", score, (0, 1), f"({n},)").reshape(-1)
            if len(values) != n:
                raise ValueError(
                    f"scores: got {len(values)}, expected {n}, one for each example"
                )
            numbers = [_canvas.short(v) for v in values]
            texts = [
                ", ".join(filter(None, p)) for p in zip(texts, numbers, strict=True)
            ]
        written.append([_canvas.plain(text) for text in texts])
    return written


def _of(name: str, given: Any, key: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    if key not in given:
        raise ValueError(f"{name}: got no entry {key!r}, expected those of relevance")
    return given[key]


def _listed(name: str, given: Any, n: int) -> list[str]:
    """Labels of examples; one alone needs no list."""
    if n == 1 and np.ndim(given) == 0:
        return [str(given)]
    return _checks.names(name, given, n, "example")


# ---- drawing -----------------------------------------------------------------------


def _grid(
    rows: Sequence[Sequence[_Map]],
    heads: Sequence[str],
    pictures: Sequence[np.ndarray] | None,
    beside: bool,
    columns: int,
    look: _Look,
    bar: str | None,
    cell: float,
    clipped: bool,
    into: Any,
) -> Figure:
    """Examples in reading order, each a photograph and its maps."""
    width = len(rows[0]) + beside
    columns = min(columns, len(rows))
    lines = -(-len(rows) // columns)
    height, breadth = rows[0][0].relevance.shape
    tall = cell * min(height / breadth, 3.0)
    titled = any(m.title for row in rows for m in row) or any(heads)
    headed = any(m.heading for m in rows[0])
    line = tall + 0.2 * titled + 0.2 * look.own + 0.06
    # A narrow empty column keeps examples apart.
    gap = [] if width == 1 else [0.2]
    widths = (([1.0] * width + gap) * columns)[
        : columns * (width + len(gap)) - len(gap)
    ]
    size = cell * sum(widths) + 0.1, line * lines + 0.3 * headed + 0.6 * bool(bar)
    part = _canvas.figure(size, into)
    grid = part.add_gridspec(lines, len(widths), width_ratios=widths)
    drawn, panels = None, []
    for i, row in enumerate(rows):
        at, left = i // columns, (i % columns) * (width + len(gap))
        picture = None if pictures is None else pictures[i]
        top = at == 0
        if beside and picture is not None:
            panel = part.add_subplot(grid[at, left])
            _show(panel, picture, look.invert)
            _head(panel, "image" if top and headed else "", heads[i], titled)
            panels.append(panel)
        for k, one in enumerate(row):
            panel = part.add_subplot(grid[at, left + beside + k])
            if one.left_out:
                panel.set_axis_off()
                # Its heading is as high as the others'.
                panel.set(
                    aspect="equal",
                    xlim=(-0.5, breadth - 0.5),
                    ylim=(height - 0.5, -0.5),
                )
            else:
                drawn = _draw(panel, one, picture, look)
            _head(panel, one.heading if top else "", one.title, titled)
            panels.append(panel)
    if bar is not None and drawn is not None:
        sizes = [one.size for row in rows for one in row]
        _canvas.bar(part, drawn, panels, bar, sizes, clipped, "bottom")
    return _canvas.root(part)


def _show(panel: Axes, picture: np.ndarray, invert: bool) -> None:
    colours = "gray_r" if invert else "gray"
    panel.imshow(picture, cmap=colours, vmin=0, vmax=1)
    _canvas.bare(panel)


def _draw(panel: Axes, one: _Map, picture: np.ndarray | None, look: _Look) -> Any:
    """A map, plain, over its photograph or under its edges."""
    place = None
    if picture is not None and look.overlay:
        high, wide = picture.shape[:2]
        place = (-0.5, wide - 0.5, high - 0.5, -0.5)
    colours: dict[str, Any] = {
        "cmap": _canvas.DIVERGING,
        "vmin": -one.size,
        "vmax": one.size,
        "extent": place,
    }
    if look.overlay == "photograph" and picture is not None:
        grey = picture if picture.ndim == 2 else picture[..., :3].mean(-1)
        panel.imshow(
            0.45 + 0.55 * (1 - grey if look.invert else grey),
            cmap="gray",
            vmin=0,
            vmax=1,
        )
        share = np.clip(np.abs(one.relevance) / one.size, 0, 1)
        drawn = panel.imshow(one.relevance, alpha=0.85 * np.sqrt(share), **colours)
        # The bar shows the colours themselves, not how much of them is seen.
        drawn = _colours_of(drawn)
    else:
        drawn = panel.imshow(one.relevance, **colours)
    if look.overlay == "outline" and picture is not None:
        grey = picture if picture.ndim == 2 else picture[..., :3].mean(-1)
        middle = (grey.min() + grey.max()) / 2
        if grey.min() < middle < grey.max():
            panel.contour(grey, levels=[middle], colors="0.25", linewidths=0.7)
    _canvas.bare(panel)
    if look.own:
        panel.set_xlabel(f"±{_canvas.short(one.size)}", fontsize=7, labelpad=2)
    return drawn


def _colours_of(drawn: Any) -> Any:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(drawn.norm, drawn.cmap)


def _head(panel: Axes, heading: str, title: str, titled: bool) -> None:
    """A plain title, and above it, in the first line, what the column shows."""
    panel.set_title(title, fontsize=8, pad=3)
    if heading:
        panel.annotate(
            _canvas.plain(heading),
            (0.5, 1.0),
            (0, 15 if titled else 3),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
            fontweight="bold",
        )
