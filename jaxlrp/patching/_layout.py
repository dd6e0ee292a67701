"""Where the nodes of a circuit graph are drawn: columns are positions, rows depths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jaxlrp.patching._graph import Graph, Node


@dataclasses.dataclass(frozen=True)
class Layout:
    """A picture in units of one node, from the lower left.

    Attributes:
      points: of each node the middle's column and the row.
      labels: what is written in it.
      places: of each node its position; the last one where it has none.
      words: the text of each position.
      rows: what is written next to each row.
      columns: middle and name of each position that is drawn.
      width, height: in columns and rows.
    """

    points: tuple[tuple[float, int], ...]
    labels: tuple[str, ...]
    places: tuple[int, ...]
    words: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[tuple[float, str], ...]
    width: int
    height: int


def layout(graph: Graph, tokens: Sequence[str] | None) -> Layout:
    """Lays a graph out.

    Raises:
      TypeError: for what is not a graph, or tokens that are no strings.
      ValueError: for fewer tokens than positions.
    """
    if not isinstance(graph, Graph):
        raise TypeError(
            f"graph: got {type(graph).__name__}, expected what patching.graph gives"
        )
    nodes = graph.nodes
    count = 1 + max((i for n in nodes for _, i in n.position[:1]), default=-1)
    words = _words(tokens, count)
    last = max(len(words) - 1, 0)
    places = tuple(n.position[0][1] if n.position else last for n in nodes)
    depths = sorted({n.depth for n in nodes})
    row = {depth: i for i, depth in enumerate(depths)}
    cells: dict[tuple[int, int], list[int]] = {}
    for number, node in enumerate(nodes):
        cells.setdefault((places[number], row[node.depth]), []).append(number)
    widths: dict[int, int] = {}
    for (place, _), inside in cells.items():
        widths[place] = max(widths.get(place, 1), len(inside))
    start, first = 0, {}
    for place in sorted(widths):
        first[place], start = start, start + widths[place]
    points: list[tuple[float, int]] = [(0.0, 0)] * len(nodes)
    for (place, y), inside in cells.items():
        margin = (widths[place] - len(inside)) / 2
        for i, number in enumerate(inside):
            points[number] = (first[place] + margin + i, y)
    rows, labels = _texts(nodes, row)
    columns = [(first[p] + widths[p] / 2, words[p]) for p in sorted(widths) if words]
    return Layout(
        tuple(points),
        labels,
        places,
        words,
        rows,
        tuple(columns),
        max(start, 1),
        max(len(depths), 1),
    )


def path(found: Layout, one: int, two: int) -> tuple[tuple[float, float], ...]:
    """From the top of a node to the bottom of another: a cubic curve's four points.

    A node's middle is at half a column; half of its height is .2 rows. A link that
    passes rows of its own column goes around what lies there, on one side or the other.
    """
    (x, y), (u, v) = found.points[one], found.points[two]
    rise = v - y
    if not rise:  # within a row, from middle to middle, below the nodes
        ends = (x + 0.5, y), (u + 0.5, v)
        return ends[0], (ends[0][0], y - 0.4), (ends[1][0], v - 0.4), ends[1]
    bend = max(rise / 2, 0.4)
    side = 0.0
    if abs(x - u) < 0.5 and rise > 1:
        side = min(0.55 + 0.05 * rise, 0.85) * (1 if one % 2 else -1)
    start, end = (x + 0.5, y + 0.2), (u + 0.5, v - 0.2)
    return (
        start,
        (start[0] + side, start[1] + bend),
        (end[0] + side, end[1] - bend),
        end,
    )


def _words(tokens: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if tokens is None:
        return tuple(map(str, range(count)))
    if isinstance(tokens, str) or not all(isinstance(t, str) for t in tokens):
        raise TypeError(f"tokens: got {tokens!r}, expected a sequence of strings")
    if len(tokens) < count:
        raise ValueError(
            f"tokens: got {len(tokens)}, expected {count}, one each position"
        )
    return tuple(tokens)


def _texts(
    nodes: Sequence[Node], row: dict[int, int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What all nodes of a row share is written next to it, the rest inside."""
    rows = [""] * len(row)
    labels = [""] * len(nodes)
    for depth, y in row.items():
        here = [i for i, n in enumerate(nodes) if n.depth == depth]
        shared = set.intersection(*(set(nodes[i].index) for i in here))
        components = {nodes[i].component for i in here}
        common = [p for p in nodes[here[0]].index if p in shared]
        shown = sorted(components) if len(components) == 1 else []
        rows[y] = " ".join([*shown, *(f"{a} {i}" for a, i in common)])
        for i in here:
            rest = [p for p in nodes[i].index if p not in shared]
            parts = [] if shown and rest else [nodes[i].component]
            several = len(rest) > 1
            parts += [str(k) if several else f"{a} {k}" for a, k in rest]
            labels[i] = _short(" ".join(parts))
    return tuple(rows), tuple(labels)


def _short(text: str) -> str:
    return text if len(text) <= 9 else f"{text[:8]}…"
