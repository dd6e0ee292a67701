"""Circuit graphs as files: JSON that attribution-graph viewers read, and a picture."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlrp import _files
from jaxlrp.patching._graph import INPUT, OUTPUT, Graph, Node
from jaxlrp.patching._layout import Layout, layout, path

FEATURE = "cross layer transcoder"
"""What viewers call a node that is neither a token nor a logit."""


def to_json(
    graph: Graph,
    *,
    tokens: Sequence[str] | None = None,
    slug: str = "circuit",
    scan: str = "jaxlrp",
) -> dict[str, Any]:
    """A circuit graph in the layout that attribution-graph viewers read.

    It has `metadata`, `qParams`, `nodes` and `links`, as circuit-tracer writes them and
    Neuronpedia takes them. Inputs are nodes of type `embedding` in the layer `E`,
    outputs of type `logit`; all others have the viewers' type of features, and their
    own names in `clerp`. A layer is a place on the longest way through the network. Of
    each node `influence` is the share of the sum of all links' sizes that the nodes at
    least as important have, as viewers prune by it. What a component reads and what it
    gives are joined by a link of weight zero, where they are two nodes.

    Args:
      graph: from `patching.graph`.
      tokens: the text of each position.
      slug: the name of the graph.
      scan: the name of the model.

    Returns:
      A dict for `json.dumps`.

    Raises:
      TypeError: for what is not a graph.
      ValueError: for fewer tokens than positions.

    Source: circuit-tracer, `frontend/graph_models.py`.

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import patching
      >>> edges = patching.Edges({("a", "b"): np.array(2.0)}, {("a", "b"): np.array(1)})
      >>> a, b = patching.site("a", (None,)), patching.site("b", (None,))
      >>> made = patching.to_json(patching.graph(edges, a, b, count=1))
      >>> made["links"]
      [{'source': 'E_0_0', 'target': '1_1_0', 'weight': 2.0}]
      >>> [node["feature_type"] for node in made["nodes"]]
      ['embedding', 'logit']
    """
    found = layout(graph, tokens)
    features: dict[Any, int] = {}
    ids, nodes = [], []
    influence = _influence(graph)
    for number, node in enumerate(graph.nodes):
        feature = features.setdefault((node.component, node.index), len(features))
        layer = "E" if node.kind == INPUT else str(node.depth)
        place = found.places[number]
        ids.append(f"{layer}_{feature}_{place}")
        kind = {INPUT: "embedding", OUTPUT: "logit"}.get(node.kind, FEATURE)
        nodes.append(
            {
                "node_id": ids[-1],
                "feature": feature,
                "layer": layer,
                "ctx_idx": place,
                "feature_type": kind,
                "token_prob": 0.0,
                "is_target_logit": kind == "logit",
                "run_idx": 0,
                "reverse_ctx_idx": 0,
                "jsNodeId": f"{layer}_{feature}-0",
                "clerp": node.name,
                "influence": influence[number],
                "activation": None,
            }
        )
    links = [
        {"source": ids[k.source], "target": ids[k.target], "weight": k.score}
        for k in graph.links
    ]
    links += [
        {"source": ids[a], "target": ids[b], "weight": 0.0} for a, b in graph.inside
    ]
    return {
        "metadata": {
            "slug": slug,
            "scan": scan,
            "transcoder_list": [],
            "prompt_tokens": list(found.words),
            "prompt": "".join(found.words),
            "node_threshold": 1.0,
            "schema_version": 1,
        },
        "qParams": {
            "pinnedIds": [],
            "supernodes": [],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": nodes,
        "links": links,
    }


def _influence(graph: Graph) -> list[float]:
    """Of each node the share that it has together with all that are larger."""
    sizes = np.zeros(len(graph.nodes))
    for link in graph.links:
        sizes[[link.source, link.target]] += abs(link.score)
    order = np.argsort(-sizes, kind="stable")
    shares = np.zeros(len(sizes))
    shares[order] = np.cumsum(sizes[order]) / (sizes.sum() or 1.0)
    return [float(share) for share in shares]


# ---- a page ------------------------------------------------------------------------

_CSS = """
:root{color-scheme:light dark}
body{font:14px/1.5 system-ui,sans-serif;margin:1.5em;background:#fff;color:#222}
.jaxlrp-circuit{--for:#b2182b;--against:#2166ac;--line:#9a9a9a;--node:#f3f3f3;
--end:#e3e9f2;overflow-x:auto}
.jaxlrp-circuit text{font:11px system-ui,sans-serif;fill:currentColor;
text-anchor:middle;dominant-baseline:central}
.jaxlrp-circuit text.row{text-anchor:end}
.jaxlrp-circuit text.word{font-size:12px}
.jaxlrp-circuit rect{fill:var(--node);stroke:var(--line)}
.jaxlrp-circuit .input rect,.jaxlrp-circuit .output rect{fill:var(--end)}
.jaxlrp-circuit .link{fill:none;stroke:var(--for);stroke-opacity:.65}
.jaxlrp-circuit .link.against{stroke:var(--against)}
.jaxlrp-circuit .link:hover{stroke-opacity:1}
.jaxlrp-circuit .inside{fill:none;stroke:var(--line);stroke-dasharray:2 3}
.jaxlrp-circuit table{border-collapse:collapse;font-size:13px}
.jaxlrp-circuit td,.jaxlrp-circuit th{padding:.1em .8em;text-align:left}
.jaxlrp-circuit td:last-child{text-align:right;font-variant-numeric:tabular-nums}
@media(prefers-color-scheme:dark){body{background:#1b1b1b;color:#e6e6e6}
.jaxlrp-circuit{--for:#f4876f;--against:#7db4e6;--line:#7a7a7a;--node:#2b2b2b;
--end:#26344a}}
""".replace("\n", "")


def to_html(
    graph: Graph, *, tokens: Sequence[str] | None = None, title: str = "Circuit"
) -> str:
    """A page with a picture of a circuit graph: one file, which needs nothing else.

    Positions lie next to each other, and the input lies at the bottom. Red links raise
    the score and blue ones lower it, and they are as wide as their score is large.
    Dotted lines lead from what a component reads to what it gives. A pointer over a
    node or a link shows its name. Below is a list of all links.

    Args:
      graph: from `patching.graph`.
      tokens: the text of each position.
      title: what is above.

    Returns:
      HTML, with the picture as SVG in it, for light and for dark screens.

    Raises:
      TypeError: for what is not a graph.
      ValueError: for fewer tokens than positions.

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import patching
      >>> edges = patching.Edges({("a", "b"): np.array(2.0)}, {("a", "b"): np.array(1)})
      >>> a, b = patching.site("a", (None,)), patching.site("b", (None,))
      >>> page = patching.to_html(patching.graph(edges, a, b, count=1))
      >>> page.count('class="link'), "http://" in page or "https://" in page
      (1, False)
    """
    found = layout(graph, tokens)
    head = html.escape(title)
    rows = "".join(
        f"<tr><td>{_named(graph.nodes[k.source], found)}</td>"
        f"<td>{_named(graph.nodes[k.target], found)}</td>"
        f"<td>{_shown(k.score)}</td></tr>"
        for k in graph.links
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>{head}</title><style>{_CSS}</style></head>\n<body>\n"
        f"<h1>{head}</h1>\n"
        f"<p>{len(graph.nodes)} nodes, {len(graph.links)} edges. Red raises the score, "
        f"blue lowers it.</p>\n"
        f'<div class="jaxlrp-circuit">{_svg(graph, found, title)}'
        f"<details><summary>All edges</summary><table><thead><tr>"
        f"<th scope='col'>from</th><th scope='col'>to</th>"
        f"<th scope='col'>effect</th></tr></thead><tbody>{rows}</tbody></table>"
        f"</details></div>\n</body>\n</html>\n"
    )


_WIDE, _HIGH, _GAP, _ROW, _LEFT, _TOP = 62.0, 18.0, 20.0, 45.0, 140.0, 14.0
"""Sizes in pixels: of a node, between two, of a row, and of the margins."""


def _svg(graph: Graph, found: Layout, title: str) -> str:
    """The picture, drawn to scale; all text is the page's."""
    cell = _WIDE + _GAP
    width = _LEFT + cell * found.width + 20
    height = _TOP + _ROW * found.height + 26

    def pixels(point: tuple[float, float]) -> tuple[float, float]:
        x, y = point
        return _LEFT + cell * x, _TOP + _ROW * (found.height - 0.5 - y)

    def curve(one: int, two: int) -> str:
        start, *rest = (
            f"{x:.1f} {y:.1f}" for x, y in map(pixels, path(found, one, two))
        )
        return f"M{start}C{' '.join(rest)}"

    most = max((abs(k.score) for k in graph.links), default=0.0) or 1.0
    parts = []
    for a, b in graph.inside:
        parts.append(f'<path class="inside" d="{curve(a, b)}"/>')
    for k in reversed(graph.links):
        kind = "link against" if k.score < 0 else "link"
        name = (
            f"{_named(graph.nodes[k.source], found)} to "
            f"{_named(graph.nodes[k.target], found)}: {_shown(k.score)}"
        )
        parts.append(
            f'<path class="{kind}" d="{curve(k.source, k.target)}" '
            f'stroke-width="{1 + 6 * abs(k.score) / most:.2f}"><title>{name}</title>'
            f"</path>"
        )
    for number, node in enumerate(graph.nodes):
        column, row = found.points[number]
        x, y = pixels((column + 0.5, row))
        parts.append(
            f'<g class="{node.kind}"><title>{_named(node, found)}</title>'
            f'<rect x="{x - _WIDE / 2:.1f}" y="{y - _HIGH / 2:.1f}" width="{_WIDE:g}" '
            f'height="{_HIGH:g}" rx="4"/><text x="{x:.1f}" y="{y:.1f}">'
            f"{html.escape(found.labels[number])}</text></g>"
        )
    for y, name in enumerate(found.rows):
        parts.append(
            f'<text class="row" x="{_LEFT - 12:g}" '
            f'y="{_TOP + _ROW * (found.height - 0.5 - y):.1f}">'
            f"{html.escape(_cut(name, 20))}<title>{html.escape(name)}</title></text>"
        )
    for x, name in found.columns:
        parts.append(
            f'<text class="word" x="{_LEFT + cell * x:.1f}" y="{height - 12:.1f}">'
            f"{html.escape(_cut(name, 12))}<title>{html.escape(name)}</title></text>"
        )
    label = html.escape(title, quote=True)
    return (
        f'<svg role="img" aria-label="{label}" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
        f"{''.join(parts)}</svg>"
    )


def _named(node: Node, found: Layout) -> str:
    """A node in words, with the text of its position."""
    words = "".join(f" {found.words[i]!r}" for _, i in node.position[:1])
    return html.escape(node.name + words)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _shown(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def save(
    path: str | os.PathLike[str],
    graph: Graph,
    *,
    tokens: Sequence[str] | None = None,
    title: str = "Circuit",
) -> None:
    """Writes a circuit graph to a file: all of it or nothing.

    Args:
      path: the file; `.html` is the page of `to_html`, `.json` what `to_json` gives.
      graph: from `patching.graph`.
      tokens: the text of each position.
      title: of the page, and the slug of the JSON.

    Raises:
      TypeError: for what is not a graph, or a path that is none.
      ValueError: for another ending, and for fewer tokens than positions.
      OSError: for a path that is no regular file, or whose folder is missing.

    Examples:
      >>> import json, pathlib, tempfile
      >>> import numpy as np
      >>> from jaxlrp import patching
      >>> edges = patching.Edges({("a", "b"): np.array(2.0)}, {("a", "b"): np.array(1)})
      >>> a, b = patching.site("a", (None,)), patching.site("b", (None,))
      >>> made = patching.graph(edges, a, b, count=1)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "circuit.json")
      ...     patching.save(path, made)
      ...     sorted(json.loads(path.read_text()))
      ['links', 'metadata', 'nodes', 'qParams']
    """
    ending = os.path.splitext(os.fsdecode(path))[1].lower()
    if ending == ".html":
        text = to_html(graph, tokens=tokens, title=title)
    elif ending == ".json":
        text = json.dumps(to_json(graph, tokens=tokens, slug=title), indent=1)
    else:
        raise ValueError(
            f"path: got {path!r}, expected one that ends in .html or .json"
        )
    # Half of a surrogate pair, which a slow tokenizer may leave, has no bytes.
    _files.write(path, text.encode("utf-8", "xmlcharrefreplace"))
