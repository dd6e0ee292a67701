"""Where relevance stays, and how it flows: the numbers of an audit as pictures."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp._audit import CATEGORIES, Absorption, Audit
from jaxlrp._tables import places
from jaxlrp.plot import _canvas, _checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart, and two greys.
_COLOURS = dict(
    zip(
        CATEGORIES,
        ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
        + ("#999999", "#333333"),
        strict=True,
    )
)

_LEAST = 1e-3
"""What is less than this part of the score is not drawn on its own."""


def audit(audit: Audit, *, most: int = 16, title: str = "", into: Any = None) -> Figure:
    """Where the relevance of a score stays: in which layers, how much of it arrives.

    A bar for each named scope, or where there is none for each line of the model, from
    the output at the top to the input at the bottom. Its parts are the categories of
    `Audit.absorbed`. What goes to the left was added: relevance that a step gained.

    Args:
      audit: from `jaxlrp.audit`.
      most: how many layers are drawn, those that keep most; the others are added up.
      title: what is above.
      into: a `Figure`, `SubFigure` or `Axes` to draw in.

    Returns:
      The figure.

    Raises:
      TypeError: for what is not an audit, or not a figure.
      ValueError: if the audit's numbers are not finite.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> f = lambda x: x @ jnp.ones((2, 3)) + 1.0
      >>> figure = jaxlrp.plot.audit(jaxlrp.audit(f)(jnp.ones(2)))
      >>> [label.get_text() for label in figure.axes[0].get_yticklabels()][::2]
      ['inputs', 'score']
    """
    _check(audit)
    _checks.count("most", most)
    rows = _kept(audit, most)
    least = _LEAST * audit.size_out
    used = [c for c in CATEGORIES if any(abs(a.get(c, 0)) > least for _, a in rows)]
    with _canvas.style():
        panel = _canvas.axes((6.5, 0.27 * (len(rows) + 2) + 1.2), into)
        names = ["inputs", *(name for name, _ in rows[::-1]), "score"]
        ends = {0: audit.total_in, len(names) - 1: audit.total_out}
        for row, amount in ends.items():
            panel.barh(row, amount, color="0.8", height=0.7)
        for row, (_, amounts) in enumerate(rows[::-1], start=1):
            _stack(panel, row, amounts)
        for category in used:
            panel.barh(0, 0, color=_COLOURS[category], label=category)
        panel.axvline(0, color="0.3", lw=0.8)
        panel.set_yticks(range(len(names)), [_canvas.plain(name) for name in names])
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
        panel.set(xlabel="relevance", title=_canvas.plain(title))
        if used:
            panel.legend(loc="best", title="kept by", title_fontsize=8)
        return _canvas.root(panel)


def flow(
    audit: Audit, *, roles: Any = None, title: str = "", into: Any = None
) -> Figure:
    """Relevance on its way, layer by layer: its sum, its two signs, and its size.

    Above, for each step from the input, at the left, to the output, the positive and
    the negative relevance that it passes on, and their sum. Below, `sum(|R|)` in units
    of the size that the score has: where this is much above one, contributions cancel,
    and maps show differences of large numbers.

    Args:
      audit: from `jaxlrp.audit`.
      roles: only steps of these roles, as `["dense", "convolution"]`; None for all.
      title: what is above.
      into: a `Figure` or `SubFigure` to draw in.

    Returns:
      The figure, with two panels.

    Raises:
      TypeError: for what is not an audit, or not a figure.
      ValueError: if no step has such a role, or the numbers are not finite.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> f = lambda x: jnp.tanh(x @ jnp.ones((2, 3))) @ jnp.ones((3, 2))
      >>> figure = jaxlrp.plot.flow(jaxlrp.audit(f)(jnp.ones(2)))
      >>> [panel.get_ylabel() for panel in figure.axes]
      ['relevance', 'amplification']
    """
    _check(audit)
    steps = _of_roles(audit, roles)
    sums = np.array([s.passed for s in steps])
    sizes = np.array([s.size_passed for s in steps])
    at = np.arange(len(steps))
    with _canvas.style():
        part = _canvas.figure((max(5.0, min(12.0, 0.22 * len(steps) + 1.6)), 4.6), into)
        above, below = part.subplots(2, 1, sharex=True, height_ratios=[2, 1])
        up, down = (sizes + sums) / 2, (sums - sizes) / 2
        above.bar(at, up, color=_canvas.FOR, alpha=0.8, label="positive")
        above.bar(at, down, color=_canvas.AGAINST, alpha=0.8, label="negative")
        above.plot(at, sums, "o-", color="black", lw=0.9, ms=3, label="sum")
        above.axhline(audit.total_out, color="0.4", lw=0.8, ls="--", label="score")
        above.axhline(0, color="0.3", lw=0.8)
        above.set_ylabel("relevance")
        if title:
            part.suptitle(_canvas.plain(title))
        above.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0))
        below.plot(at, sizes / (audit.size_out or 1.0), "o-", color="0.2", lw=1, ms=3)
        below.axhline(1, color="0.7", lw=0.8)
        if sizes.max() > 20 * (audit.size_out or 1.0):
            below.set_yscale("log")
        else:
            below.set_ylim(bottom=0)
        below.set_ylabel("amplification")
        _places(below, steps)
        return _canvas.root(part)


def _check(audit: Any) -> None:
    if not isinstance(audit, Audit):
        raise TypeError(
            f"audit: got {type(audit).__name__}, expected what jaxlrp.audit(f) returns "
            f"for arguments of f"
        )
    numbers = [audit.total_in, audit.total_out, *(s.size_passed for s in audit.steps)]
    if not np.isfinite(numbers).all():
        raise ValueError(
            f"audit: got numbers that are not finite, first at {audit.culprit}"
        )


def _of_roles(audit: Audit, roles: Any) -> list[Absorption]:
    """The steps of some roles that relevance passes, in the program's order."""
    if roles is not None and (isinstance(roles, str) or not hasattr(roles, "__iter__")):
        raise TypeError(f"roles: got {roles!r}, expected a sequence of roles' names")
    there = [s for s in audit.steps if s.size_arrived or s.size_passed]
    found = [s for s in there if roles is None or s.role in set(roles)]
    if not found:
        known = ", ".join(dict.fromkeys(s.role for s in there)) or "none"
        raise ValueError(f"roles: got {roles!r}, expected some of {known}")
    return found


def _kept(audit: Audit, most: int) -> list[tuple[str, dict[str, float]]]:
    """What each layer keeps, by category, from the output to the input."""
    layers: dict[str, dict[str, float]] = {}
    named = zip(_names(audit.steps), audit.steps, strict=True)
    for name, step in reversed(list(named)):
        amounts = layers.setdefault(name, collections.defaultdict(float))
        for category, amount in step.absorbed.items():
            amounts[category] += amount
    if audit.constants_out:
        layers = {"outputs": {"constants": audit.constants_out}, **layers}
    size = {name: sum(map(abs, parts.values())) for name, parts in layers.items()}
    least = _LEAST * max(audit.size_out, max(size.values(), default=0.0))
    there = [name for name in layers if size[name] > least]
    largest = set(sorted(there, key=lambda name: -size[name])[:most])
    others: dict[str, float] = collections.defaultdict(float)
    for name in layers:
        if name not in largest:
            for category, amount in layers[name].items():
                others[category] += amount
    rows = [(name, layers[name]) for name in there if name in largest]
    return [*rows, ("others", others)] if len(there) > most else rows


def _names(steps: Sequence[Absorption]) -> list[str]:
    """The layer of each step, else its role and line, numbered if repeated."""
    found = [s.layer or f"{s.role}, {_short(s.line)}" for s in steps]
    counts = collections.Counter(found)
    seen: dict[str, int] = collections.defaultdict(int)
    names = []
    for step, name in zip(steps, found, strict=True):
        seen[name] += 1
        # What has no name and one line of a library is another layer each time.
        several = not step.layer and counts[name] > 1
        names.append(f"{name} #{seen[name]}" if several else name)
    return names


def _short(line: str) -> str:
    """`file.py:12` of a line, without folders and function."""
    return places([line])[line].rsplit("/", 1)[-1]


def _stack(panel: Axes, row: int, amounts: dict[str, float]) -> None:
    """The categories end to end: to the right what stayed, to the left what came."""
    ends = {True: 0.0, False: 0.0}
    for category, amount in amounts.items():
        side = amount > 0
        panel.barh(row, amount, left=ends[side], color=_COLOURS[category], height=0.7)
        ends[side] += amount


def _places(panel: Axes, steps: Sequence[Absorption]) -> None:
    """Names of the steps below their places, some where there are many."""
    at = range(0, len(steps), -(-len(steps) // 40))
    every = _names(steps)
    names = [
        _canvas.plain(every[i] + f", {steps[i].role}" * bool(steps[i].layer))
        for i in at
    ]
    panel.set_xticks(at, names, rotation=60, ha="right", fontsize=7)
    panel.minorticks_off()
