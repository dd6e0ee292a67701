"""Figures to draw in, and what all pictures share: style, colours, bars of colours.

matplotlib is imported inside the functions, so that `import jaxlrp` does without it.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

DIVERGING = "RdBu_r"
"""ColorBrewer's, safe for the colour-blind; `jaxlrp.text` has the same colours."""
FOR, AGAINST, PLAIN = "#b2182b", "#2166ac", "#555555"
INK, FAINT = "#222222", "#bbbbbb"

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
DPI = 120


def style() -> Any:
    """The context in which a picture is drawn; raises where matplotlib is missing."""
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise ImportError(
            'jaxlrp.plot needs matplotlib: pip install "jaxlrp[plot]"'
        ) from error
    return rc_context(STYLE)


def figure(size: tuple[float, float], into: Any) -> Figure | SubFigure:
    """A new figure of this size in inches, or the one to draw in."""
    from matplotlib.figure import Figure, SubFigure

    if into is None:
        made = Figure(figsize=size, dpi=DPI, layout="constrained")
        # Without pyplot no notebook knows how to show a figure.
        vars(made)["_repr_png_"] = functools.partial(png, made)
        return made
    if not isinstance(into, Figure | SubFigure):
        raise TypeError(
            f"into: got {type(into).__name__}, expected a Figure or SubFigure of "
            f"matplotlib, as this picture may have several panels"
        )
    return into


def axes(size: tuple[float, float], into: Any) -> Axes:
    """A single panel: that of a new figure, of the one to draw in, or the given one."""
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    if isinstance(into, Axes):
        return into
    if into is not None and not isinstance(into, Figure | SubFigure):
        raise TypeError(
            f"into: got {type(into).__name__}, expected a Figure, SubFigure or Axes of "
            f"matplotlib"
        )
    return figure(size, into).subplots()


def root(part: Any) -> Figure:
    """The figure around axes or a part of a figure."""
    from matplotlib.figure import Figure

    while not isinstance(part, Figure):
        part = part.figure
    return part


def png(picture: Figure) -> bytes:
    """A figure as PNG: of the same arrays the same bytes, without date and version."""
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def bare(panel: Axes) -> None:
    """No ticks, a thin frame."""
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set(visible=True, color=FAINT, linewidth=0.6)


def bar(
    part: Any,
    drawn: Any,
    panels: Sequence[Axes],
    label: str,
    sizes: Sequence[float],
    clipped: bool,
    where: str = "right",
) -> None:
    """The bar of colours of some panels; without numbers where each has its own scale.

    Args:
      part: the figure, or its part, that the panels are in.
      drawn: what has the colours.
      panels: whose bar it is.
      label: what is written next to it.
      sizes: the scales of the panels.
      clipped: is something beyond the scale? Then the bar has pointed ends.
      where: `right` or `bottom` of the panels.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    same = len(set(sizes)) == 1
    if not same:
        drawn = ScalarMappable(Normalize(-1, 1), DIVERGING)
    made = part.colorbar(
        drawn,
        ax=list(panels),
        location=where,
        extend="both" if clipped else "neither",
        shrink=0.6,
        aspect=30 if where == "bottom" else 20,
        pad=0.02,
    )
    if not same:
        made.set_ticks([-1, 0, 1], labels=["−scale", "0", "+scale"])
    made.set_label(label)
    made.outline.set_visible(False)
    made.ax.tick_params(labelsize=8)


def beyond(maps: Sequence[np.ndarray], sizes: Sequence[float]) -> bool:
    """Is some relevance beyond its scale?"""
    return any(
        np.abs(one).max() > size * (1 + 1e-6)
        for one, size in zip(maps, sizes, strict=True)
    )


def short(value: float, sign: str = "") -> str:
    """Three digits with a true minus: `0.123`, `−4.5e−06`."""
    text = f"{value:{sign}.3g}" if value else "0"
    return text.replace("-", "−")


def plain(text: str) -> str:
    """A text that is written as it stands: dollars are no formula."""
    return text.replace("$", r"\$")


def on(colour: Any) -> str:
    """Black or white, whichever reads better on a colour."""
    red, green, blue = colour[:3]
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
