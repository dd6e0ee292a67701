"""Relevance of time series: a row for each feature, relevance as colour below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp.plot import _canvas, _checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORM = "(time,) or (time, features)"


def series(
    relevance: Any,
    values: Any = None,
    *,
    names: Any = None,
    times: Any = None,
    scale: float | str = "all",
    percentile: float = 99.5,
    title: str = "",
    bar: str | None = "relevance",
    into: Any = None,
) -> Figure:
    """A time series, one feature a row, on the colours of its relevance.

    Args:
      relevance: of one series, (time,) or (time, features).
      values: the series itself, in the same shape, drawn as a curve over the colours;
        without it there are colours alone.
      names: of the features.
      times: when each step was, increasing; by default 0, 1, 2 and so on.
      scale: the relevance of the strongest colour: `"all"` for one scale, `"each"` for
        that of each feature, or a number.
      percentile: of the absolute relevances that is drawn in full; 100 for the largest.
      title: what is above.
      bar: what is written at the colour bar; None for no bar.
      into: a `Figure` or `SubFigure` to draw in.

    Returns:
      The figure, with an `Axes` for each feature.

    Raises:
      TypeError: for what is not an array of real numbers, or not a figure.
      ValueError: for shapes or names that do not fit, and unknown options.

    Examples:
      >>> import numpy as np, jaxlrp
      >>> wave = np.sin(np.linspace(0, 9, 50))
      >>> figure = jaxlrp.plot.series(wave**3, wave, names=["a wave"])
      >>> figure.axes[0].get_ylabel()
      'a wave'
    """
    maps = _checks.array("relevance", relevance, (1, 2), _FORM)
    curves = None if values is None else _checks.array("values", values, (1, 2), _FORM)
    if curves is not None and curves.shape != maps.shape:
        raise ValueError(
            f"values: got shape {curves.shape}, expected {maps.shape}, as of relevance"
        )
    maps = maps.reshape(len(maps), -1)
    count = maps.shape[1]
    curves = None if curves is None else curves.reshape(len(maps), -1)
    rows = [""] * count
    if names is not None:
        rows = _checks.names("names", names, count, "feature")
    edges = _edges(times, len(maps))
    sizes = _checks.scales(list(maps.T), scale, percentile)
    with _canvas.style():
        part = _canvas.figure((7.0, max(0.8, 0.62 * count) + 0.9), into)
        panels = list(part.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
        drawn = None
        for i, panel in enumerate(panels):
            curve = None if curves is None else curves[:, i]
            drawn = _row(panel, maps[:, i], curve, edges, sizes[i])
            panel.set_ylabel(
                _canvas.plain(rows[i]), rotation=0, ha="right", va="center", fontsize=8
            )
        panels[-1].set_xlabel("time")
        panels[0].set_title(_canvas.plain(title))
        if bar is not None:
            clipped = _canvas.beyond(list(maps.T), sizes)
            _canvas.bar(part, drawn, panels, bar, sizes, clipped)
        return _canvas.root(part)


def _edges(times: Any, steps: int) -> np.ndarray:
    """Where each step begins and the last one ends: halfway to its neighbours."""
    at = np.arange(steps, dtype=float)
    if times is not None:
        at = _checks.array("times", times, (1,), f"({steps},), one for each step")
    if len(at) != steps or (np.diff(at) <= 0).any():
        raise ValueError(
            f"times: got shape {at.shape}, expected {steps} increasing numbers, one "
            f"for each step"
        )
    if steps == 1:
        return at[0] + np.array([-0.5, 0.5])
    middle = (at[1:] + at[:-1]) / 2
    return np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])


def _row(
    panel: Axes,
    relevance: np.ndarray,
    curve: np.ndarray | None,
    edges: np.ndarray,
    size: float,
) -> Any:
    low, high = (0.0, 1.0) if curve is None else (curve.min(), curve.max())
    room = 0.1 * (high - low) or 0.5
    low, high = low - room, high + room
    drawn = panel.pcolormesh(
        edges,
        [low, high],
        relevance[None],
        cmap=_canvas.DIVERGING,
        vmin=-size,
        vmax=size,
        rasterized=True,
    )
    if curve is None:
        panel.set_yticks([])
    else:
        middle = (edges[1:] + edges[:-1]) / 2
        panel.plot(middle, curve, color=_canvas.INK, linewidth=1.1)
    panel.set(xlim=(edges[0], edges[-1]), ylim=(low, high))
    return drawn
