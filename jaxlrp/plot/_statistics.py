"""A whole dataset's relevance: the mean of each feature and its spread, by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp.plot import _canvas, _checks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORM = "(rows, features)"
_MOMENTS = "(features,) or (classes, features)"
# Okabe and Ito's, without yellow, which is hardly seen on white; then markers tell.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#222222")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def statistics(
    relevance: Any,
    classes: Any = None,
    *,
    names: Any = None,
    labels: Mapping[int, str] | Sequence[str] | None = None,
    most: int = 12,
    title: str = "",
    into: Any = None,
) -> Figure:
    """The mean relevance of each feature over a dataset, and its spread, by class.

        mean_cf = mean over rows of c of R_f,    spread_cf = their standard deviation

    A point is a mean, the line through it one spread to both sides. Rows of a class
    that agree have short lines; a line that crosses zero says that a feature speaks for
    the class in some rows and against it in others.

    Args:
      relevance: (rows, features), or what `runs.Moments` came to, a mapping with
        `"mean"` and `"variance"` of shape (features,), or (classes, features).
      classes: of the rows, integers (rows,); None for one group of all. Not with
        moments, which are by class already.
      names: of the features.
      labels: of the classes: a mapping, or a sequence in which class k is number k.
      most: how many features are drawn, those of the largest mean, of any class, by
        size.
      title: what is above.
      into: a `Figure`, `SubFigure` or `Axes` to draw in.

    Returns:
      The figure.

    Raises:
      TypeError: for what is not an array of real numbers, or not a figure.
      ValueError: for shapes, names or labels that do not fit, or a negative variance.

    Examples:
      >>> import numpy as np, jaxlrp
      >>> relevance = np.array([[2.0, 0.5], [1.0, 0.5], [-1.0, 3.0]])
      >>> figure = jaxlrp.plot.statistics(
      ...     relevance, [0, 0, 1], names=["age", "dose"], labels=["well", "ill"])
      >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
      ['age', 'dose']
      >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
      ['well, 2', 'ill, 1']
    """
    mean, spread, called = _groups(relevance, classes, labels)
    count = mean.shape[1]
    features = [f"feature {i}" for i in range(count)]
    if names is not None:
        features = _checks.names("names", names, count, "feature")
    _checks.count("most", most)
    order = np.argsort(-np.abs(mean).max(0), kind="stable")[:most][::-1]
    step = 0.16
    high = max(0.3, step * len(mean) + 0.12)
    with _canvas.style():
        panel = _canvas.axes((6.0, high * len(order) + 1.0), into)
        panel.axvline(0, color=_canvas.FAINT, linewidth=0.8, zorder=0)
        for group, label in enumerate(called):
            # The first class is above the others, as in the legend.
            shift = step / high * ((len(called) - 1) / 2 - group)
            panel.errorbar(
                mean[group, order],
                np.arange(len(order)) + shift,
                xerr=spread[group, order],
                fmt=_MARKERS[group % len(_MARKERS)],
                color=_COLOURS[group % len(_COLOURS)],
                markersize=4,
                linewidth=1.0,
                label=_canvas.plain(label),
            )
        panel.set_yticks(range(len(order)), [_canvas.plain(features[i]) for i in order])
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
        panel.set(ylim=(-0.6, len(order) - 0.4), xlabel="relevance, mean ± spread")
        panel.set_title(_canvas.plain(title))
        if any(called):
            panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return _canvas.root(panel)


def _groups(
    relevance: Any, classes: Any, labels: Any
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Means and spreads (groups, features), and what the groups are called."""
    if isinstance(relevance, Mapping):
        return _of_moments(relevance, classes, labels)
    rows = _checks.array("relevance", relevance, (2,), _FORM)
    if classes is None:
        return rows.mean(0)[None], rows.std(0)[None], [""]
    groups = _checks.array("classes", classes, (1,), "(rows,)")
    if len(groups) != len(rows) or (groups != np.round(groups)).any():
        raise ValueError(
            f"classes: got shape {groups.shape}, expected an integer for each of "
            f"{len(rows)} rows"
        )
    found = np.unique(groups).astype(int)
    chosen = [rows[groups == c] for c in found]
    called = [
        f"{_called(labels, c)}, {len(of)}" for c, of in zip(found, chosen, strict=True)
    ]
    mean, spread = ([f(of, 0) for of in chosen] for f in (np.mean, np.std))
    return np.stack(mean), np.stack(spread), called


def _of_moments(
    moments: Mapping[str, Any], classes: Any, labels: Any
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    if classes is not None:
        raise ValueError("classes: got them with moments, which have no rows any more")
    if not {"mean", "variance"} <= set(moments):
        raise ValueError(
            f"relevance: got a mapping of {', '.join(map(str, moments))}, expected "
            f"'mean' and 'variance'"
        )
    mean, variance = (
        _checks.array(f"relevance[{key!r}]", moments[key], (1, 2), _MOMENTS)
        for key in ("mean", "variance")
    )
    if mean.shape != variance.shape or (variance < 0).any():
        raise ValueError(
            f"relevance['variance']: got shape {variance.shape}, expected that of the "
            f"mean, {mean.shape}, and nothing below zero"
        )
    called = [_called(labels, c) for c in range(len(mean))] if mean.ndim == 2 else [""]
    return np.atleast_2d(mean), np.atleast_2d(np.sqrt(variance)), called


def _called(labels: Any, number: int) -> str:
    if labels is None:
        return f"class {number}"
    try:
        return str(labels[number])
    except (KeyError, IndexError):
        raise ValueError(f"labels: got none for class {number}") from None
