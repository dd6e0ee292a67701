"""Circuit graphs: the edges of a network that matter, connected from input to score."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxlrp import _compat
from jaxlrp.patching._edges import PAIRED, Edges, _paired
from jaxlrp.patching._sites import Site, as_sites

INPUT, INNER, OUTPUT = "input", "inner", "output"


@dataclasses.dataclass(frozen=True)
class Node:
    """One node of a circuit graph.

    Attributes:
      component: the name of its site.
      index: its own axes and where it lies along them, as `(("layer", 2),)`.
      position: the same of paired axes, as `(("position", 5),)`.
      kind: `"input"`, `"inner"` or `"output"`.
      depth: how many nodes lie below it on the longest way that the network has.

    Examples:
      >>> from jaxlrp import patching
      >>> node = patching.Node("mlp", (("layer", 2),), (("position", 5),), "inner", 6)
      >>> node.name
      'mlp layer 2 position 5'
    """

    component: str
    index: tuple[tuple[str, int], ...]
    position: tuple[tuple[str, int], ...]
    kind: str
    depth: int

    @property
    def name(self) -> str:
        """Component and indices in words."""
        where = self.index + self.position
        return " ".join([self.component, *(f"{a} {i}" for a, i in where)])


@dataclasses.dataclass(frozen=True)
class Link:
    """One edge of a circuit graph.

    Attributes:
      source: the number of the node where it begins.
      target: the number of that where it ends.
      score: its effect, as `patching.edges` found it.

    Examples:
      >>> from jaxlrp import patching
      >>> patching.Link(0, 1, -0.5).score
      -0.5
    """

    source: int
    target: int
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A circuit: nodes, and the edges between them that were kept.

    Attributes:
      nodes: by depth, then in the order of sites.
      links: the largest first, by size.
      inside: pairs of nodes: what a component reads, and what it gives. They have no
        score.
      keep: for each `(source, target)` which edges were kept, as `patching.circuit`
        takes it: the graph can be run.
      threshold: the least size of a score among the links.

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import patching
      >>> scores, exists = {("a", "b"): np.array([2.0, 0.1])}, np.ones(2, bool)
      >>> edges = patching.Edges(scores, {("a", "b"): exists})
      >>> sites = {n: patching.site(n, ("position", None)) for n in "ab"}
      >>> made = patching.graph(edges, {"a": sites["a"]}, {"b": sites["b"]}, count=1)
      >>> [made.nodes[link.source].name for link in made.links]
      ['a position 0']
      >>> made.keep["a", "b"].tolist()
      [True, False]
    """

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    inside: tuple[tuple[int, int], ...]
    keep: Mapping[tuple[str, str], np.ndarray]
    threshold: float


def graph(
    edges: Edges,
    sources: Any,
    targets: Any,
    *,
    count: int | None = None,
    threshold: float | None = None,
    reads: Mapping[str, Any] | None = None,
    across: str | Sequence[str] | None = None,
    paired: str | Sequence[str] = PAIRED,
) -> Graph:
    """The edges that matter, as a graph that leads from the input to the score.

    Edges are taken by the size of their score, the largest first. Those that lie on no
    way from an input to an output are left out: what nothing in the circuit makes, and
    what nothing in it reads. Inputs are the sources that read nothing, as embeddings;
    outputs are the targets that no source reads, as what the unembedding reads.

    Args:
      edges: from `patching.edges` or `exact_edges`, of one pair or a mean over pairs.
      sources: as they were given there, with names for their axes.
      targets: likewise.
      count: the graph has at most so many edges, and as many of these as connect.
      threshold: instead, all edges of at least this size.
      reads: for each source the target or targets that it is made of, as
        `{"heads": ("query", "key", "value")}`. A source that is not named reads the
        target of its own name, if there is one.
      across: the components, named by their sources, that carry from one position to
        others, as attention does. Others stay at theirs: what they read at one position
        leads to what they give there alone. None where nothing is known of that; then
        every one may carry, and fewer edges are seen to lead nowhere.
      paired: as for `edges`.

    Returns:
      A `Graph`. It has no edge where no way leads from an input to an output.

    Raises:
      TypeError: for arguments of the wrong type, or while they are traced.
      ValueError: for both or none of `count` and `threshold`, scores that are not
        finite or do not fit the sites, sites without names of axes, a name of `reads`
        or `across` that is no site, and where there is no input or no output.

    Source: Syed, Rager, Conmy 2023, "Attribution patching outperforms automated circuit
    discovery"; Hanna et al. 2024, "Have faith in faithfulness" (connected circuits).

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import patching
      >>> pair = {("in", "mlp"): [3.0], ("in", "out"): 1.0, ("mlp", "out"): [-2.0]}
      >>> scores = {key: np.array(value) for key, value in pair.items()}
      >>> exists = {key: np.ones(a.shape, bool) for key, a in scores.items()}
      >>> one, layers = patching.site("x", (None,)), patching.site("m", ("layer", None))
      >>> made = patching.graph(
      ...     patching.Edges(scores, exists), {"in": one, "mlp": layers},
      ...     {"mlp": layers, "out": one}, count=2)
      >>> [(made.nodes[k.source].name, made.nodes[k.target].name) for k in made.links]
      [('in', 'mlp layer 0'), ('mlp layer 0', 'out')]
    """
    pairs = _paired(paired)
    network = _network(edges, sources, targets, reads, across, pairs)
    if (count is None) == (threshold is None):
        raise ValueError("count: expected either count or threshold, and not both")
    sizes = np.abs(network.scores)
    order = np.argsort(-sizes, kind="stable")[: int((sizes > 0).sum())]
    if threshold is not None:
        least = _threshold(threshold)
        kept = _connected(network, order[: int((sizes[order] >= least).sum())])
    else:
        kept = _most(network, order, _count(count))
    return _made(network, kept, edges, pairs)


def _count(count: Any) -> int:
    whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
    if not whole or count < 1:
        raise ValueError(f"count: got {count!r}, expected a positive int")
    return int(count)


def _threshold(threshold: Any) -> float:
    real = isinstance(threshold, int | float | np.number)
    if not real or isinstance(threshold, bool) or not 0 <= threshold < math.inf:
        raise ValueError(f"threshold: got {threshold!r}, expected a number from 0 on")
    return float(threshold)


# ---- the whole network -------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Network:
    """All edges that exist, between numbered nodes.

    Attributes:
      nodes: (component, index) of each.
      kinds: input, inner or output.
      depths: of each node.
      hubs: how many helpers stand behind the nodes: a hub is reached from all that one
        component reads and leads to all that it gives.
      begin, end, scores: of each edge.
      keys: of each edge the pair of sites, as a number.
      places: and where in its scores.
      inner: ways from nodes to hubs and from hubs to nodes, (2, ways).
      names: the pairs of sites.
      inside: which pairs of nodes are read and given by one component.
    """

    nodes: list[tuple[str, tuple[tuple[str, int], ...]]]
    kinds: np.ndarray
    depths: np.ndarray
    hubs: int
    begin: np.ndarray
    end: np.ndarray
    scores: np.ndarray
    keys: np.ndarray
    places: np.ndarray
    inner: np.ndarray
    names: list[tuple[str, str]]
    inside: list[tuple[int, int]]


def _network(
    edges: Any, sources: Any, targets: Any, reads: Any, across: Any, paired: Any
) -> _Network:
    if not isinstance(edges, Edges):
        raise TypeError(
            f"edges: got {type(edges).__name__}, expected what patching.edges gives"
        )
    starts, ends = _axes(sources, "sources"), _axes(targets, "targets")
    made_of = _reads(reads, starts, ends)
    free = _across(across, starts)
    arrays, there = _arrays(edges, starts, ends)
    sizes = _sizes(arrays, starts, ends, paired)
    numbers: dict[tuple[str, str], np.ndarray] = {}
    nodes: list[tuple[str, tuple[tuple[str, int], ...]]] = []

    def add(side: str, name: str, axes: tuple[str, ...], called: str) -> None:
        shape = tuple(sizes[side, name][a] for a in axes)
        first = len(nodes)
        for index in np.ndindex(*shape):
            nodes.append((called, tuple(zip(axes, map(int, index), strict=True))))
        numbers[side, name] = np.arange(first, len(nodes)).reshape(shape)

    for name, axes in starts.items():
        add("source", name, axes, name)
    for name, axes in ends.items():
        readers = [u for u, of in made_of.items() if name in of]
        own = readers[0] if readers else None
        single = own is not None and made_of[own] == (name,)
        same = single and sizes["source", str(own)] == sizes["target", name]
        if len(readers) == 1 and own is not None and same:
            # What it reads and what it gives are one node, with axes in either order.
            order = [starts[own].index(a) for a in axes]
            numbers["target", name] = numbers["source", own].transpose(order)
        else:
            clash = name in starts and name in made_of[name]
            add("target", name, axes, f"{name} in" if clash else name)
    total = len(nodes)
    kinds = np.array([INNER] * total, object)
    for u in starts:
        if not made_of[u]:
            kinds[numbers["source", u].ravel()] = INPUT
    read = {v for of in made_of.values() for v in of}
    for v in ends:
        if v not in read:
            kinds[numbers["target", v].ravel()] = OUTPUT
    for kind, what in ((INPUT, "sources"), (OUTPUT, "targets")):
        if not (kinds == kind).any():
            other = "targets" if what == "sources" else "sources"
            raise ValueError(
                f"{what}: got {', '.join(starts if what == 'sources' else ends)}, none "
                f"of which is an {kind} of the network: each belongs to one of the "
                f"{other}; see reads"
            )
    inner, hubs = _inner(nodes, numbers, made_of, free, paired)
    begin, end, scores, keys, places = [], [], [], [], []
    names = list(arrays)
    for key, (u, v) in enumerate(names):
        of_u, of_v = _ends(starts[u], ends[v], paired, numbers, u, v)
        shape = arrays[u, v].shape
        where = np.flatnonzero(there[u, v])
        begin.append(np.broadcast_to(of_u, shape).ravel()[where])
        end.append(np.broadcast_to(of_v, shape).ravel()[where])
        scores.append(arrays[u, v].ravel()[where])
        keys.append(np.full(len(where), key))
        places.append(where)
    joined = [np.concatenate(a) for a in (begin, end, scores, keys, places)]
    inside = _inside(nodes, numbers, made_of, free, paired)
    depths = _depths(nodes, paired, joined[0], joined[1], inside)
    return _Network(
        nodes, kinds, depths, hubs, *joined, inner=inner, names=names, inside=inside
    )


def _axes(sites: Any, argument: str) -> dict[str, tuple[str, ...]]:
    """The named axes of each site."""
    found = {}
    for name, one in as_sites(sites, argument).items():
        site: Site = one
        if site.axes is None:
            raise ValueError(
                f"{argument}: got {name!r} without names of axes, expected a "
                f"patching.site(pattern, axes)"
            )
        found[name] = tuple(a for a in site.axes if a is not None)
    return found


def _reads(
    reads: Any, starts: Mapping[str, Any], ends: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    given = {} if reads is None else reads
    if not isinstance(given, Mapping):
        raise TypeError(
            f"reads: got {reads!r}, expected a dict from sources to targets"
        )
    found = {u: (u,) if u in ends else () for u in starts}
    for u, several in given.items():
        names = (several,) if isinstance(several, str) else tuple(several)
        if u not in starts:
            raise ValueError(f"reads: got {u!r}, expected one of {', '.join(starts)}")
        for v in names:
            if v not in ends:
                raise ValueError(
                    f"reads[{u!r}]: got {v!r}, expected one of {', '.join(ends)}"
                )
        found[u] = names
    return found


def _across(across: Any, starts: Mapping[str, Any]) -> frozenset[str]:
    if across is None:
        return frozenset(starts)
    names = (across,) if isinstance(across, str) else tuple(across)
    for name in names:
        if name not in starts:
            raise ValueError(
                f"across: got {name!r}, expected one of {', '.join(starts)}"
            )
    return frozenset(names)


def _arrays(
    edges: Edges, starts: Mapping[str, Any], ends: Mapping[str, Any]
) -> tuple[dict[tuple[str, str], np.ndarray], dict[tuple[str, str], np.ndarray]]:
    arrays, there = {}, {}
    for key, scores in edges.scores.items():
        u, v = key
        if u not in starts or v not in ends:
            raise ValueError(
                f"edges: got {key}, whose sites are not those of sources and targets"
            )
        if isinstance(scores, jax.Array) and not _compat.is_known(scores):
            raise TypeError(
                f"edges: got scores of {key} that are being traced; make the graph "
                f"outside jit"
            )
        exists = np.asarray(edges.exists[key], bool)
        found = np.asarray(scores, np.float64)
        if found.shape != exists.shape:
            raise ValueError(
                f"edges: got scores of shape {found.shape} for {key}, expected "
                f"{exists.shape}; of many pairs give a mean"
            )
        if not np.isfinite(found[exists]).all():
            raise ValueError(f"edges: got scores of {key} that are not finite")
        arrays[key], there[key] = found, exists
    if not arrays:
        raise ValueError("edges: got no scores")
    return arrays, there


def _sizes(
    arrays: Mapping[tuple[str, str], np.ndarray],
    starts: Mapping[str, tuple[str, ...]],
    ends: Mapping[str, tuple[str, ...]],
    paired: Sequence[str],
) -> dict[tuple[str, str], dict[str, int]]:
    """The sizes of the named axes of each site, read off the scores."""
    sizes: dict[tuple[str, str], dict[str, int]] = {}
    for (u, v), scores in arrays.items():
        common, own, other = _split(starts[u], ends[v], paired)
        if scores.ndim != len(common) + len(own) + len(other):
            raise ValueError(
                f"edges: got scores of shape {scores.shape} for {(u, v)}, whose sites "
                f"have the axes {starts[u]} and {ends[v]}"
            )
        n = len(common)
        shapes = scores.shape[:n], scores.shape[n : n + len(own)]
        last = scores.shape[n + len(own) :]
        for side, name, mine, shape in (
            ("source", u, own, shapes[1]),
            ("target", v, other, last),
        ):
            found = dict(zip(common + mine, shapes[0] + shape, strict=True))
            if sizes.setdefault((side, name), found) != found:
                raise ValueError(
                    f"edges: got scores of {(u, v)} by which {name!r} has the sizes "
                    f"{found}, and {sizes[side, name]} by others"
                )
    for side, axes in (("source", starts), ("target", ends)):
        for name in axes:
            if (side, name) not in sizes:
                raise ValueError(f"edges: got no scores with the {side} {name!r}")
    return sizes


def _split(
    source: tuple[str, ...], target: tuple[str, ...], paired: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Axes of scores: those of both, of the source, of the target; as `crossing`."""
    common = tuple(a for a in paired if a in source and a in target)
    own, other = (tuple(a for a in one if a not in common) for one in (source, target))
    return common, own, other


def _ends(
    source: tuple[str, ...],
    target: tuple[str, ...],
    paired: Sequence[str],
    numbers: Mapping[tuple[str, str], np.ndarray],
    u: str,
    v: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the nodes at both ends, of shapes that broadcast to the scores'."""
    common, own, other = _split(source, target, paired)
    one = numbers["source", u].transpose([source.index(a) for a in common + own])
    two = numbers["target", v].transpose([target.index(a) for a in common + other])
    one = one.reshape((*one.shape, *[1] * len(other)))
    n = len(common)
    two = two.reshape((*two.shape[:n], *[1] * len(own), *two.shape[n:]))
    return one, two


def _groups(
    nodes: Any, numbers: Any, made_of: Any, free: Any, paired: Any
) -> list[tuple[str, dict[Any, tuple[list[int], list[int]]]]]:
    """Of each component what it reads and gives together, by the indices they share."""
    found = []
    for u, of in made_of.items():
        for v in of:
            given, read = numbers["source", u].ravel(), numbers["target", v].ravel()
            axes = [{a for a, _ in nodes[side[0]][1]} for side in (given, read)]
            same = axes[0] & axes[1]
            if u in free:
                same -= set(paired)
            groups: dict[Any, tuple[list[int], list[int]]] = {}
            for side, which in ((0, read), (1, given)):
                for node in which:
                    key = tuple(sorted((a, i) for a, i in nodes[node][1] if a in same))
                    groups.setdefault(key, ([], []))[side].append(int(node))
            found.append((u, groups))
    return found


def _inner(
    nodes: Any, numbers: Any, made_of: Any, free: Any, paired: Any
) -> tuple[np.ndarray, int]:
    """Ways through components, by hubs."""
    ways, hubs = [], 0
    for _, groups in _groups(nodes, numbers, made_of, free, paired):
        for read, given in groups.values():
            hub = len(nodes) + hubs
            ways += [(r, hub) for r in read] + [(hub, g) for g in given]
            hubs += 1
    return np.array(ways, int).reshape(-1, 2).T, hubs


def _inside(
    nodes: Any, numbers: Any, made_of: Any, free: Any, paired: Any
) -> list[tuple[int, int]]:
    """What a component reads and gives at one position, where these are two nodes."""
    every = _groups(nodes, numbers, made_of, frozenset(), paired)
    if len(free) < len(made_of):  # the user knows which ones carry
        every = _groups(nodes, numbers, made_of, free, paired)
    return [
        (r, g)
        for _, groups in every
        for read, given in groups.values()
        for r in read
        for g in given
        if r != g
    ]


def _depths(
    nodes: Any, paired: Any, begin: np.ndarray, end: np.ndarray, inside: Any
) -> np.ndarray:
    """The longest way to each node, positions aside."""
    rows: dict[Any, int] = {}
    row = np.array(
        [
            rows.setdefault((c, tuple(p for p in i if p[0] not in paired)), len(rows))
            for c, i in nodes
        ]
    )
    pairs = np.concatenate([np.stack([begin, end], 1), np.array(inside).reshape(-1, 2)])
    ways = np.unique(row[pairs.astype(int)], axis=0)
    ways = ways[ways[:, 0] != ways[:, 1]]
    depth = np.zeros(len(rows), int)
    for _ in range(len(rows) + 1):
        new = depth.copy()
        np.maximum.at(new, ways[:, 1], depth[ways[:, 0]] + 1)
        if (new == depth).all():
            return depth[row]
        depth = new
    raise ValueError(
        "edges: got a network in which a node lies behind itself; see paired and reads"
    )


# ---- pruning -----------------------------------------------------------------------


def _connected(network: _Network, chosen: np.ndarray) -> np.ndarray:
    """Of some edges those on a way from an input to an output."""
    size = len(network.nodes) + network.hubs
    begin = np.concatenate([network.begin[chosen], network.inner[0]])
    end = np.concatenate([network.end[chosen], network.inner[1]])
    kinds = np.concatenate([network.kinds, np.full(network.hubs, INNER, object)])
    from_input = _spread(kinds == INPUT, begin, end, size)
    to_output = _spread(kinds == OUTPUT, end, begin, size)
    on_way = from_input[network.begin[chosen]] & to_output[network.end[chosen]]
    return chosen[on_way]


def _spread(first: np.ndarray, begin: Any, end: Any, size: int) -> np.ndarray:
    found = first.copy()
    for _ in range(size):
        new = found.copy()
        new[end[found[begin]]] = True
        if (new == found).all():
            break
        found = new
    return found


def _most(network: _Network, order: np.ndarray, count: int) -> np.ndarray:
    """As many of the largest edges as leave no more than `count` that connect.

    The number that connect never falls when more are taken.
    """
    low, high = 0, count
    while high < len(order) and len(_connected(network, order[:high])) <= count:
        low, high = high, 2 * high
    high = min(high, len(order))
    if len(_connected(network, order[:high])) <= count:
        return _connected(network, order[:high])
    while high - low > 1:
        middle = (low + high) // 2
        if len(_connected(network, order[:middle])) <= count:
            low = middle
        else:
            high = middle
    return _connected(network, order[:low])


def _made(
    network: _Network, kept: np.ndarray, edges: Edges, paired: Sequence[str]
) -> Graph:
    kept = kept[np.argsort(-np.abs(network.scores[kept]), kind="stable")]
    used = np.unique(np.concatenate([network.begin[kept], network.end[kept]]))
    used = used[np.argsort(network.depths[used], kind="stable")]
    number = {int(old): new for new, old in enumerate(used)}
    nodes = tuple(
        Node(
            network.nodes[i][0],
            tuple(p for p in network.nodes[i][1] if p[0] not in paired),
            tuple(p for p in network.nodes[i][1] if p[0] in paired),
            str(network.kinds[i]),
            int(network.depths[i]),
        )
        for i in number
    )
    links = tuple(
        Link(
            number[int(network.begin[e])],
            number[int(network.end[e])],
            float(network.scores[e]),
        )
        for e in kept
    )
    inside = tuple(
        (number[a], number[b]) for a, b in network.inside if a in number and b in number
    )
    keep = {key: np.zeros(np.shape(a), bool) for key, a in edges.exists.items()}
    for key, name in enumerate(network.names):
        places = network.places[kept[network.keys[kept] == key]]
        keep[name].reshape(-1)[places] = True
    least = float(np.abs(network.scores[kept]).min()) if len(kept) else 0.0
    return Graph(nodes, links, inside, keep, least)
