"""Relevance of tables: means, swarms of examples, one example from base to score."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp.plot import _canvas, _checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORM = "(features,) or (examples, features)"
_KINDS = ("bar", "beeswarm", "waterfall")
_BINS = 80  # of a swarm, along the axis of relevance


@dataclasses.dataclass(frozen=True)
class _Table:
    """Relevances and values, (examples, features), with the features' names."""

    relevance: np.ndarray
    values: np.ndarray | None
    names: Sequence[str]

    def largest(self, most: int) -> list[int]:
        """The features of the largest mean `|R|`, the largest first."""
        order = np.argsort(-np.abs(self.relevance).mean(0), kind="stable")
        return [int(i) for i in order[:most]]


def features(
    relevance: Any,
    values: Any = None,
    *,
    names: Any = None,
    kind: str | None = None,
    base: Any = 0.0,
    most: int = 12,
    title: str = "",
    into: Any = None,
) -> Figure:
    """The relevance of a table's features: of a data set, or of one example.

    Args:
      relevance: (examples, features), or (features,) for one example. A mapping of
        names to arrays, as a network with a dictionary of inputs has it, is a feature
        for each name: (examples, ...), summed over all other axes. Of one example its
        entries have no axes.
      values: of the features, in the same form: the colour of a swarm's points, and
        what is written next to a waterfall's names. In a mapping, only numbers, one
        for each example, are shown.
      names: of the features; those of the mapping by default.
      kind: `"bar"` is the mean of `|R|`, `"beeswarm"` a point for each example,
        `"waterfall"` the way of one example from the base to the score. If None, the
        last for one example, the first for several.
      base: of a waterfall, what no feature has: what biases and constants kept, the
        score minus the sum of all relevances.
      most: how many features are drawn, the largest ones; a waterfall adds the others
        up.
      title: what is above.
      into: a `Figure`, `SubFigure` or `Axes` to draw in.

    Returns:
      The figure.

    Raises:
      TypeError: for what is not an array of real numbers, or not a figure.
      ValueError: for shapes or names that do not fit, an unknown kind, or a waterfall
        of more than one example.

    Examples:
      >>> import numpy as np, jaxlrp
      >>> relevance, score = np.array([1.5, -0.5, 0.2]), 1.0
      >>> figure = jaxlrp.plot.features(
      ...     relevance, names=["age", "dose", "sex"], base=score - relevance.sum())
      >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
      ['base', 'sex', 'dose', 'age']
    """
    table, single = _table(relevance, values, names)
    start = _checks.number("base", base)
    _checks.count("most", most)
    kind = kind or ("waterfall" if single else "bar")
    _checks.choice("kind", kind, _KINDS)
    if kind == "waterfall" and len(table.relevance) != 1:
        raise ValueError(
            f"kind: got 'waterfall' for {len(table.relevance)} examples, expected one: "
            f"give relevance[i]"
        )
    rows = min(most, len(table.names)) + 2 * (kind == "waterfall")
    with _canvas.style():
        panel = _canvas.axes((6.0, 0.3 * rows + 1.0), into)
        if kind == "bar":
            _bars(panel, table, most)
        elif kind == "beeswarm":
            _swarm(panel, table, most)
        else:
            _waterfall(panel, table, most, start)
        panel.set_title(_canvas.plain(title))
        return _canvas.root(panel)


# ---- what is given -----------------------------------------------------------------


def _table(relevance: Any, values: Any, names: Any) -> tuple[_Table, bool]:
    """The table, and whether it came as one example."""
    if isinstance(relevance, Mapping):
        return _of_mapping(relevance, values, names)
    found = _checks.array("relevance", relevance, (1, 2), _FORM)
    given = None
    if values is not None:
        given = _checks.array("values", values, (1, 2), _FORM)
        if given.shape != found.shape:
            raise ValueError(
                f"values: got shape {given.shape}, expected {found.shape}, that of "
                f"relevance"
            )
        given = np.atleast_2d(given)
    count = found.shape[-1]
    called = [f"feature {i}" for i in range(count)]
    if names is not None:
        called = _checks.names("names", names, count, "feature")
    return _Table(np.atleast_2d(found), given, called), found.ndim == 1


def _of_mapping(
    relevance: Mapping[Any, Any], values: Any, names: Any
) -> tuple[_Table, bool]:
    if not relevance:
        raise ValueError("relevance: got an empty mapping, expected a feature at least")
    if values is not None and (
        not isinstance(values, Mapping) or set(values) != set(relevance)
    ):
        raise ValueError(
            f"values: got {type(values).__name__}, expected a mapping with the names "
            f"of relevance"
        )
    arrays = {
        key: _checks.array(f"relevance[{key!r}]", one, range(9), "(examples, ...)")
        for key, one in relevance.items()
    }
    single = all(one.ndim == 0 for one in arrays.values())
    counts = {one.shape[:1] for one in arrays.values()}
    if len(counts) > 1:
        shapes = ", ".join(f"{key!r} {one.shape}" for key, one in arrays.items())
        raise ValueError(
            f"relevance: got {shapes}, expected equally many examples, the first axis"
        )
    rows = 1 if single else next(iter(arrays.values())).shape[0]
    columns = [one.reshape(rows, -1).sum(1) for one in arrays.values()]
    called = [str(key) for key in relevance]
    if names is not None:
        called = _checks.names("names", names, len(arrays), "feature")
    given = None
    if values is not None:
        given = np.stack([_numbers(values[key], rows) for key in relevance], 1)
    return _Table(np.stack(columns, 1), given, called), single


def _numbers(given: Any, rows: int) -> np.ndarray:
    """A feature's values, one for each example; NaN where it has others."""
    values = np.asarray(given)
    if values.size != rows or values.dtype.kind not in "biuf":
        return np.full(rows, np.nan)
    return values.reshape(rows).astype(np.float64)


# ---- drawing -----------------------------------------------------------------------


def _bars(panel: Axes, table: _Table, most: int) -> None:
    order = table.largest(most)[::-1]
    means = np.abs(table.relevance).mean(0)[order]
    panel.barh(range(len(order)), means, color=_canvas.PLAIN, height=0.65)
    _named(panel, [table.names[i] for i in order])
    panel.set_xlabel("mean of |relevance|")


def _swarm(panel: Axes, table: _Table, most: int) -> None:
    order = table.largest(most)[::-1]
    panel.axvline(0, color=_canvas.FAINT, linewidth=0.8, zorder=0)
    low, high = table.relevance[:, order].min(), table.relevance[:, order].max()
    drawn = None
    for row, i in enumerate(order):
        found = table.relevance[:, i]
        at = row + 0.4 * _spread(found, low, high)
        colour = None if table.values is None else _ranks(table.values[:, i])
        if colour is None:
            panel.scatter(found, at, s=8, color=_canvas.PLAIN, linewidths=0)
        else:
            drawn = panel.scatter(
                found, at, s=8, c=colour, cmap="viridis", vmin=0, vmax=1, linewidths=0
            )
    _named(panel, [table.names[i] for i in order])
    panel.set(xlabel="relevance", ylim=(-0.6, len(order) - 0.4))
    if drawn is not None:
        bar = panel.figure.colorbar(drawn, ax=panel, aspect=30, pad=0.02)
        bar.set_ticks([0, 1], labels=["low", "high"])
        bar.set_label("value", labelpad=-14)
        bar.outline.set_visible(False)  # pyright: ignore


def _spread(found: np.ndarray, low: float, high: float) -> np.ndarray:
    """Heights from -1 to 1 that keep the points of like relevance apart."""
    width = (high - low) / _BINS or 1.0
    bins = np.floor((found - low) / width).astype(int)
    place = np.zeros(len(found))
    for one in np.unique(bins):
        here = np.flatnonzero(bins == one)
        # 0, 1, -1, 2, -2: from the middle outwards.
        steps = np.arange(len(here))
        place[here] = (steps + 1) // 2 * np.where(steps % 2, 1, -1)
    return place / max(np.abs(place).max(), 4.0)


def _ranks(values: np.ndarray) -> np.ndarray | None:
    """Values from 0 to 1, between two percentiles; None where there are no numbers."""
    if not np.isfinite(values).all():
        return None
    low, high = np.percentile(values, [5, 95])
    if high <= low:
        low, high = values.min(), values.max()
    return np.clip((values - low) / ((high - low) or 1.0), 0, 1)


def _waterfall(panel: Axes, table: _Table, most: int, base: float) -> None:
    found, order = table.relevance[0], table.largest(most)
    others = sorted(set(range(len(found))) - set(order))
    parts = [(_labelled(table, i), float(found[i])) for i in order[::-1]]
    if others:
        many = "other" if len(others) == 1 else f"{len(others)} others"
        parts = [(many, float(found[others].sum())), *parts]
    ends = base + np.cumsum([0.0, *(amount for _, amount in parts)])
    width = float(np.ptp(np.append(ends, 0.0))) or 1.0
    panel.barh(0, base, color=_canvas.FAINT, height=0.6)
    _number(panel, 0, base, 0.0, width, "")
    for row, ((_, amount), start) in enumerate(zip(parts, ends, strict=False), start=1):
        colour = _canvas.FOR if amount > 0 else _canvas.AGAINST
        panel.barh(row, amount, left=start, color=colour, height=0.6)
        panel.plot([start, start], [row - 1, row], color="0.6", lw=0.6, zorder=0)
        _number(panel, row, start + amount, amount, width, "+")
    panel.axvline(ends[-1], color="0.3", lw=0.8, ls="--", zorder=0)
    panel.axvline(0, color=_canvas.FAINT, lw=0.8, zorder=0)
    _named(panel, ["base", *(name for name, _ in parts)])
    panel.use_sticky_edges = False  # room for the numbers
    panel.margins(x=0.14, y=0.05)
    panel.set_xlabel(f"score {_canvas.short(float(ends[-1]))}, dashed")


def _labelled(table: _Table, i: int) -> str:
    """A feature's name and its value in the one example."""
    if table.values is None or not np.isfinite(table.values[0, i]):
        return table.names[i]
    return f"{table.names[i]} = {_canvas.short(table.values[0, i])}"


def _number(
    panel: Axes, row: int, end: float, amount: float, width: float, sign: str
) -> None:
    """The number at the end of a bar, on the side that it points to."""
    left = amount < 0 or (not sign and end < 0)
    value = amount if sign else end
    shift = -0.01 * width if left else 0.01 * width
    panel.text(
        end + shift,
        row,
        _canvas.short(value, sign),
        ha="right" if left else "left",
        va="center",
        fontsize=8,
    )


def _named(panel: Axes, names: Sequence[str]) -> None:
    panel.set_yticks(range(len(names)), [_canvas.plain(name) for name in names])
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
