"""Patching: estimated effects against exact ones, curves of circuits, circuits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp.patching import Graph
from jaxlrp.patching._layout import layout, path
from jaxlrp.plot import _canvas, _checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's, without yellow, which is hardly seen on white; then markers tell.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#222222")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_FORM = "an array for each site"


def effects(
    effects: Mapping[str, Any],
    exact: Mapping[str, Any] | None = None,
    *,
    tokens: Sequence[str] | None = None,
    columns: int = 4,
    scale: Any = "each",
    percentile: float = 100.0,
    title: str = "",
    into: Any = None,
) -> Figure:
    """Effects of patching: each site as a map, or estimated against exact ones.

    With `exact` a panel for each site has a point for each node, exact to the right
    and estimated upwards, on a diagonal where they agree, with Pearson's correlation
    above. Without, a panel has a map of the site's nodes: its first axis, mostly
    layers, upwards, the second, mostly positions, to the right.

    Args:
      effects: what `patching.effects` or `patching.exact` returned. Maps have one or
        two axes: give a mean over pairs.
      exact: what `patching.exact` returned, of the same sites; any shape.
      tokens: of a map, the text of each column, where a site has so many.
      columns: how many panels stand next to each other.
      scale: of maps, `"all"` for one scale of colours, `"each"` for one of each map, or
        the effect of the strongest colour.
      percentile: of the absolute effects that is drawn in full.
      title: what is above.
      into: a `Figure` or `SubFigure` to draw in.

    Returns:
      The figure.

    Raises:
      TypeError: for what is no mapping, no array of real numbers, or not a figure.
      ValueError: for shapes, names or tokens that do not fit.

    Examples:
      >>> import numpy as np, jaxlrp
      >>> exact = {"mlp": np.array([[0.1, 2.0], [0.5, -1.0]])}
      >>> estimated = {"mlp": 0.9 * exact["mlp"]}
      >>> figure = jaxlrp.plot.effects(estimated, exact)
      >>> figure.axes[0].get_title()
      'mlp, r = 1.00'
      >>> len(jaxlrp.plot.effects(exact, tokens=["the", "cat"]).axes)  # with its bar
      2
    """
    found = _sites("effects", effects)
    across = _checks.count("columns", columns)
    across = min(across, len(found))
    down = -(-len(found) // across)
    if exact is not None:
        true = _sites("exact", exact)
        _check_same(found, true)
        with _canvas.style():
            part = _canvas.figure((2.4 * across + 0.4, 2.4 * down + 0.5), into)
            panels = part.subplots(down, across, squeeze=False).ravel()
            for panel, name in zip(panels, found, strict=False):
                _scatter(panel, name, found[name].ravel(), true[name].ravel())
            _finish(part, panels, len(found), title)
            for number in range(len(found)):
                if number % across == 0:
                    panels[number].set_ylabel("estimated effect")
                if number + across >= len(found):
                    panels[number].set_xlabel("exact effect")
            return _canvas.root(part)
    maps = {name: _map(name, values) for name, values in found.items()}
    sizes = _checks.scales([*maps.values()], scale, percentile)
    wide = max(one.shape[1] for one in maps.values())
    high = max(one.shape[0] for one in maps.values())
    size = (
        min(12.0, max(3.2, 0.16 * wide + 1.4) * across),
        min(12.0, max(1.8, 0.13 * high + 0.9) * down + 0.3),
    )
    with _canvas.style():
        part = _canvas.figure(size, into)
        panels = part.subplots(down, across, squeeze=False).ravel()
        for panel, (name, one), limit in zip(panels, maps.items(), sizes, strict=False):
            drawn = panel.imshow(
                one,
                cmap=_canvas.DIVERGING,
                vmin=-limit,
                vmax=limit,
                aspect="auto",
                origin="lower",
                interpolation="nearest",
            )
            panel.set_title(_canvas.plain(name))
            _ticks(panel, one, tokens)
            clipped = _canvas.beyond([one], [limit])
            _canvas.bar(part, drawn, [panel], "effect", [limit], clipped)
        _check_tokens(tokens, maps)
        _finish(part, panels, len(found), title)
        return _canvas.root(part)


def _sites(name: str, given: Any) -> dict[str, np.ndarray]:
    if not isinstance(given, Mapping):
        raise TypeError(f"{name}: got {type(given).__name__}, expected a dict, {_FORM}")
    if not given:
        raise ValueError(f"{name}: got no sites")
    return {
        str(key): _checks.array(f"{name}[{key!r}]", one, range(9), "effects of nodes")
        for key, one in given.items()
    }


def _check_same(
    found: Mapping[str, np.ndarray], true: Mapping[str, np.ndarray]
) -> None:
    if found.keys() != true.keys():
        raise ValueError(
            f"exact: got the sites {', '.join(true)}, expected {', '.join(found)}"
        )
    for name, one in found.items():
        if one.shape != true[name].shape:
            raise ValueError(
                f"exact[{name!r}]: got shape {true[name].shape}, expected {one.shape}"
            )


def _scatter(panel: Axes, name: str, found: np.ndarray, true: np.ndarray) -> None:
    low = min(found.min(), true.min(), 0.0)
    high = max(found.max(), true.max(), 0.0)
    margin = 0.05 * ((high - low) or 1.0)
    ends = (low - margin, high + margin)
    panel.plot(ends, ends, color=_canvas.FAINT, linewidth=0.8, zorder=0)
    panel.scatter(true, found, s=9, color=_COLOURS[0], alpha=0.6, linewidths=0)
    panel.set(xlim=ends, ylim=ends, aspect="equal")
    r = ""
    if found.std() > 0 and true.std() > 0:
        r = f", r = {np.corrcoef(found, true)[0, 1]:.2f}".replace("-", "−")
    panel.set_title(_canvas.plain(name) + r)


def _map(name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim > 2:
        raise ValueError(
            f"effects[{name!r}]: got shape {values.shape}, expected one or two axes; "
            f"of many pairs give a mean, of heads those of one position"
        )
    return np.atleast_2d(values)


def _ticks(panel: Axes, one: np.ndarray, tokens: Any) -> None:
    if tokens is not None and len(tokens) == one.shape[1]:
        names = [_canvas.plain(str(token)) for token in tokens]
        panel.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    else:
        panel.xaxis.get_major_locator().set_params(integer=True)  # pyright: ignore
    if one.shape[0] == 1:
        panel.set_yticks([])
    else:
        panel.yaxis.get_major_locator().set_params(integer=True)  # pyright: ignore


def _check_tokens(tokens: Any, maps: Mapping[str, np.ndarray]) -> None:
    if tokens is None:
        return
    widths = {one.shape[1] for one in maps.values()}
    if isinstance(tokens, str) or len(tokens) not in widths:
        raise ValueError(
            f"tokens: got {tokens!r}, expected as many as a map has columns, "
            f"{', '.join(map(str, sorted(widths)))}"
        )


def _finish(part: Any, panels: Any, count: int, title: str) -> None:
    for panel in panels[count:]:
        panel.remove()
    if title:
        part.suptitle(_canvas.plain(title))


def faithfulness(
    curves: Mapping[str, Any],
    fractions: Any,
    *,
    full: Any = 1.0,
    none: Any = 0.0,
    title: str = "",
    into: Any = None,
) -> Figure:
    """How much of a network's score its circuits keep, by their size.

    A line for each way to rank nodes or edges:
    `F = (m(circuit) - m(none)) / (m(full) - m(none))`, in the legend with the area
    below it (CPR), and above 1 where what was left out worked against the score. Of
    several rows the mean is drawn, and a band of one standard error.

    Args:
      curves: by name `m(circuit)` at each fraction, (fractions,) or (rows, fractions).
      fractions: of nodes or edges that are kept, ascending, from 0 to 1.
      full: `m` of the whole network, a number or (rows,).
      none: `m` where all is ablated, likewise.
      title: what is above.
      into: a `Figure`, `SubFigure` or `Axes` to draw in.

    Returns:
      The figure.

    Raises:
      TypeError: for what is no mapping, no array of real numbers, or not a figure.
      ValueError: for fractions that do not ascend, and shapes that do not fit.

    Source: Mueller et al. 2025, "MIB: a mechanistic interpretability benchmark".

    Examples:
      >>> import jaxlrp
      >>> figure = jaxlrp.plot.faithfulness(
      ...     {"RelP": [0.0, 0.9, 1.0], "random": [0.0, 0.2, 1.0]}, [0.0, 0.5, 1.0])
      >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
      ['RelP, 0.70', 'random, 0.35']
    """
    if not isinstance(curves, Mapping):
        raise TypeError(
            f"curves: got {type(curves).__name__}, expected a dict, one curve for each "
            f"name"
        )
    if not curves:
        raise ValueError("curves: got none")
    places = _checks.array("fractions", fractions, (1,), "(fractions,)")
    if (
        len(places) < 2
        or (np.diff(places) <= 0).any()
        or places[0] < 0
        or places[-1] > 1
    ):
        raise ValueError(
            f"fractions: got {fractions}, expected ascending numbers between 0 and 1"
        )
    ends = [
        _checks.array(n, a, (0, 1), "a number or (rows,)")
        for n, a in (("full", full), ("none", none))
    ]
    found = {str(n): _ratio(str(n), c, places, *ends) for n, c in curves.items()}
    with _canvas.style():
        panel = _canvas.axes((5.2, 3.2), into)
        panel.axhline(1, color=_canvas.FAINT, linewidth=0.8, zorder=0)
        panel.axhline(0, color=_canvas.FAINT, linewidth=0.8, zorder=0)
        for number, (name, rows) in enumerate(found.items()):
            mean = rows.mean(0)
            area = np.trapezoid(mean, places) / (places[-1] - places[0])
            colour = _COLOURS[number % len(_COLOURS)]
            panel.plot(
                places,
                mean,
                color=colour,
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=3,
                linewidth=1.2,
                label=_canvas.plain(f"{name}, {area:.2f}".replace("-", "−")),
            )
            if len(rows) > 1:
                error = rows.std(0, ddof=1) / np.sqrt(len(rows))
                panel.fill_between(
                    places, mean - error, mean + error, color=colour, alpha=0.15, lw=0
                )
        # Circuits are small: what happens does so at small fractions.
        panel.set_xscale("function", functions=(np.sqrt, np.square))
        ticks = [t for t in (0, 0.01, 0.05, 0.1, 0.2, 0.5, 1) if places[0] <= t]
        panel.set_xticks(ticks, [f"{t:g}" for t in ticks])
        panel.set(xlim=(places[0], places[-1]), xlabel="kept", ylabel="faithfulness")
        panel.set_title(_canvas.plain(title))
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title="area")
        return _canvas.root(panel)


def _ratio(
    name: str, curve: Any, places: np.ndarray, full: np.ndarray, none: np.ndarray
) -> np.ndarray:
    """Faithfulness, (rows, fractions)."""
    label = f"curves[{name!r}]"
    form = "(fractions,) or (rows, fractions)"
    values = np.atleast_2d(_checks.array(label, curve, (1, 2), form))
    if values.shape[1] != len(places):
        raise ValueError(
            f"{label}: got shape {np.shape(curve)}, expected {form} with "
            f"{len(places)} fractions"
        )
    for argument, end in (("full", full), ("none", none)):
        if end.ndim and len(end) != len(values):
            raise ValueError(
                f"{argument}: got shape {end.shape}, expected one for each of "
                f"{len(values)} rows"
            )
    full, none = np.atleast_1d(full)[:, None], np.atleast_1d(none)[:, None]
    if (full == none).any():
        raise ValueError(f"full: got {full.ravel()[0]:g}, which is also none")
    return (values - none) / (full - none)


def circuit(
    graph: Graph,
    *,
    tokens: Sequence[str] | None = None,
    title: str = "",
    into: Any = None,
) -> Figure:
    """A circuit graph: nodes by position and depth, links as wide as their effect.

    The input lies at the bottom. Red links raise the score, blue ones lower it; dotted
    lines lead from what a component reads to what it gives.

    Args:
      graph: from `patching.graph`.
      tokens: the text of each position.
      title: what is above.
      into: a `Figure`, `SubFigure` or `Axes` to draw in.

    Returns:
      The figure.

    Raises:
      TypeError: for what is not a graph, or not a figure.
      ValueError: for fewer tokens than positions.

    Examples:
      >>> import numpy as np, jaxlrp
      >>> from jaxlrp import patching
      >>> edges = patching.Edges({("a", "b"): np.array(2.0)}, {("a", "b"): np.array(1)})
      >>> a, b = patching.site("a", (None,)), patching.site("b", (None,))
      >>> made = patching.graph(edges, a, b, count=1)
      >>> figure = jaxlrp.plot.circuit(made)
      >>> [text.get_text() for text in figure.axes[0].texts]
      ['a', 'b']
    """
    found = layout(graph, tokens)
    size = (min(16.0, 0.75 * found.width + 1.6), min(16.0, 0.48 * found.height + 0.8))
    with _canvas.style():
        panel = _canvas.axes(size, into)
        for a, b in graph.inside:
            _curve(panel, found, a, b, _canvas.FAINT, 0.8, ":")
        most = max((abs(k.score) for k in graph.links), default=0.0) or 1.0
        for k in reversed(graph.links):
            colour = _canvas.AGAINST if k.score < 0 else _canvas.FOR
            wide = 0.6 + 3.4 * abs(k.score) / most
            _curve(panel, found, k.source, k.target, colour, wide, "-")
        for number, node in enumerate(graph.nodes):
            x, y = found.points[number]
            panel.text(
                x + 0.5,
                y,
                _canvas.plain(found.labels[number]),
                ha="center",
                va="center",
                fontsize=6,
                color=_canvas.INK,
                bbox={
                    "boxstyle": "round,pad=0.3",
                    "facecolor": "#f3f3f3" if node.kind == "inner" else "#e3e9f2",
                    "edgecolor": _canvas.FAINT,
                    "linewidth": 0.6,
                },
            )
        panel.set(xlim=(-0.3, found.width + 0.3), ylim=(-0.6, found.height - 0.4))
        panel.set_yticks(range(len(found.rows)), [_canvas.plain(r) for r in found.rows])
        panel.set_xticks(
            [x for x, _ in found.columns],
            [_canvas.plain(name.strip()) for _, name in found.columns],
        )
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_title(_canvas.plain(title))
        return _canvas.root(panel)


def _curve(
    panel: Axes, found: Any, a: int, b: int, colour: str, wide: float, line: str
) -> None:
    """From the top of a node to the bottom of another."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    points = path(found, a, b)
    curve = Path(points, [Path.MOVETO, *[Path.CURVE4] * 3])
    panel.add_patch(
        PathPatch(
            curve, facecolor="none", edgecolor=colour, lw=wide, alpha=0.65, ls=line
        )
    )
