"""GNN-LRP by sub-graphs on BA-2motif, generated and trained here, and what walks cost.

A graph of 20 nodes grows by preferential attachment, and a motif of five nodes is tied
to it by one edge: a house in one class, a cycle in the other. Nodes have no features.
Which nodes are the motif is known, so that an explanation can be held against it. A GIN
of three layers learns the classes; then for each of 200 graphs nodes are added to a set
one by one, each time the one with which the relevance of the sub-graph is largest
(`jaxlrp.walks.subgraph`, 25 masks in one call). The first five are called the motif.

    python -m benchmarks.walks              all: tables, docs/images/walks_motif.png
    python -m benchmarks.walks --parts motif --seeds 0 1 2
    python -m benchmarks.walks --parts words    of a pretrained sentence transformer
    python -m benchmarks.walks --parts cost
    python -m benchmarks.walks --parts side     keeps what benchmarks.peers.walks reads

| | published (Xiong et al. 2022) | here |
| --- | --- | --- |
| graphs, network | 1,000, GIN of 3 layers, gamma 3 to 0 | the same, by seed |
| accuracy of the motif's nodes | .981 | printed |
| area under the curve | .993 | printed |

Source: Xiong et al. 2022, "Efficient computation of higher-order subgraph attribution
via message passing"; Luo et al. 2020, "Parameterized explainer for graph neural
network" (the graphs).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxlrp
from examples.digits_figures import STYLE, png
from jaxlrp import _files, composites, rules, targets, walks

IMAGES = Path(__file__).parents[1] / "docs" / "images"
KEPT = Path(__file__).parents[1] / "out" / "walks" / "motif.npz"
BASE, MOTIF, NODES = 20, 5, 25
WIDTH = 20
HOUSE = ((0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (1, 4))
CYCLE = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 0))
TRUTH = np.arange(NODES) >= BASE


@dataclasses.dataclass(frozen=True)
class Graphs:
    """Adjacency matrices (graphs, nodes, nodes), and 0 for a house, 1 for a cycle."""

    bonds: np.ndarray
    labels: np.ndarray


def generate(seed: int, count: int = 1000) -> Graphs:
    """BA-2motif: every second graph has a cycle, the nodes of the motif come last."""
    draw = np.random.default_rng(seed)
    bonds = np.zeros((count, NODES, NODES), np.float32)
    for number, own in enumerate(bonds):
        ends = [0, 1]
        edges = [(0, 1)]
        for node in range(2, BASE):  # by preference for nodes with many edges
            other = int(draw.choice(ends))
            edges.append((node, other))
            ends += [node, other]
        motif = CYCLE if number % 2 else HOUSE
        edges += [(BASE + a, BASE + b) for a, b in motif]
        edges.append((int(draw.integers(BASE)), BASE + int(draw.integers(MOTIF))))
        for a, b in edges:
            own[a, b] = own[b, a] = 1
    return Graphs(bonds, np.arange(count) % 2)


# ---- the network -------------------------------------------------------------------


def initial(key: Array, layers: int = 3) -> dict[str, Any]:
    """Weights of a GIN as published: blocks 1-20-20, 20-20-20, ..., and 20-2.

    Every dense layer adds `-softplus(-2 b) / 2`, which is never positive, as deep
    Taylor decomposition assumes; `b` is drawn once and is not trained.
    """
    blocks = [(1, WIDTH, WIDTH), *[(WIDTH,) * 3] * (layers - 2), (WIDTH, 2)]
    params: dict[str, Any] = {}
    for i, sizes in enumerate(blocks):
        block: dict[str, dict[str, Array]] = {}
        for name, rows, columns in zip(
            ("first", "second"), sizes[:-1], sizes[1:], strict=False
        ):
            one, two, key = jax.random.split(key, 3)
            kernel = jax.random.normal(one, (rows, columns)) * rows**-0.5
            block[name] = {"kernel": kernel, "raw": jax.random.normal(two, (columns,))}
        params[f"block{i}"] = block
    return params


def ones() -> Array:
    """What every node begins with: it has no features."""
    return jnp.ones((NODES, 1))


def network(params: dict[str, Any], bonds: Array) -> Array:
    """Scores of a graph; the levels of walks are nodes, h0, h1, ..."""
    return from_nodes(params, bonds, ones())


def from_nodes(params: dict[str, Any], bonds: Array, h: Array) -> Array:
    """The same as a function of the nodes' features, whose relevance is asked for."""
    mixed = (bonds + jnp.eye(NODES, dtype=bonds.dtype)) / 2
    h = checkpoint_name(h, "nodes")
    for i in range(len(params)):
        h = mixed @ h
        for layer in params[f"block{i}"].values():
            # A bias that is never positive, as deep Taylor decomposition assumes.
            h = h @ layer["kernel"] - jax.nn.softplus(-2 * layer["raw"]) / 2
            h = jax.nn.relu(h) if i < len(params) - 1 else h
        h = checkpoint_name(h, f"h{i}")
    return h.sum(0) / BASE**0.5


LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "each class": lambda scores, labels: optax.sigmoid_binary_cross_entropy(
        scores, jax.nn.one_hot(labels, 2)
    ).mean(),
    "softmax": lambda scores, labels: optax.softmax_cross_entropy_with_integer_labels(
        scores, labels
    ).mean(),
}
"""What is minimised. As published, the score of each class says on its own whether its
motif is there; under a softmax only their difference does."""


def train(
    graphs: Graphs,
    seeds: Sequence[int],
    *,
    loss: str = "each class",
    biases: bool = False,
    layers: int = 3,
    steps: int = 6000,
) -> tuple[Any, np.ndarray]:
    """Weights, along a leading axis of seeds, and shares of unseen graphs told right.

    Of a thousand graphs four fifths are learnt from, as published. `biases`: are these
    trained as well?
    """
    split = len(graphs.labels) * 4 // 5
    bonds, labels = jnp.asarray(graphs.bonds), jnp.asarray(graphs.labels)
    schedule = optax.cosine_decay_schedule(2e-3, steps)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    batched = jax.vmap(network, (None, 0))

    def objective(params: Any, chosen: Array) -> Array:
        return LOSSES[loss](batched(params, bonds[chosen]), labels[chosen])

    def held(path: Any, update: Array) -> Array:
        return update if biases or path[-1].key != "raw" else jnp.zeros_like(update)

    def step(carry: Any, key: Array) -> Any:
        params, state = carry
        chosen = jax.random.choice(key, split, (32,))
        slopes = jax.tree.map_with_path(held, jax.grad(objective)(params, chosen))
        updates, state = optimiser.update(slopes, state)
        return (optax.apply_updates(params, updates), state), None

    def fit(seed: Array) -> tuple[Any, Array]:
        params = initial(jax.random.key(seed), layers)
        keys = jax.random.split(jax.random.key(seed + 1), steps)
        start = params, optimiser.init(params)
        params = jax.lax.scan(step, start, keys)[0][0]
        found = batched(params, bonds[split:]).argmax(-1)
        return params, (found == labels[split:]).mean()

    params, right = jax.jit(jax.vmap(fit))(jnp.asarray(seeds))
    return params, np.asarray(right)


def one_of(params: Any, number: int) -> Any:
    """The weights of one seed."""
    return jax.tree.map(lambda v: v[number], params)


def gammas(layers: int) -> composites.Composite:
    """The published schedule: gamma falls from 3 at the input to 0 at the output."""
    composite = composites.Uniform(rules.Gamma(0.0))
    for i, gamma in enumerate(np.linspace(3, 0, layers)):
        rule = rules.Gamma(float(gamma))
        composite = composite.on("dense", rule, scope=f"block{i}*")
    return composite


# ---- the motif ---------------------------------------------------------------------


def greedy(score: Callable[[Array], Array]) -> Array:
    """The nodes in the order in which they make the score of a set largest."""

    def step(inside: Array, _: None) -> tuple[Array, Array]:
        candidates = inside | jnp.eye(NODES, dtype=bool)
        values = jnp.where(inside, -jnp.inf, score(candidates))
        best = values.argmax()
        return inside.at[best].set(True), best

    return jax.lax.scan(step, jnp.zeros(NODES, bool), None, NODES)[1]


def by_subgraphs(
    params: Any,
    bonds: Array,
    label: Array,
    *,
    outside: float = 0.0,
    touching: bool = False,
    against: bool = False,
) -> Array:
    """The order of nodes by the relevance of sub-graphs, for the class or `against`."""
    inside = walks.subgraph(
        from_nodes,
        gammas(len(params)),
        sites=["nodes", "h*"],
        outside=outside,
        touching=touching,
        target=targets.Contrastive(label) if against else label,
    )
    return greedy(lambda masks: inside(params, bonds, ones(), masks))


def by_gradient(params: Any, bonds: Array, label: Array) -> Array:
    """The order of nodes by the norm of the gradient."""
    one = lambda h: from_nodes(params, bonds, h)[label]  # noqa: E731
    slopes = jax.grad(one)(ones())
    return jnp.argsort(-jnp.linalg.norm(slopes, axis=-1), stable=True)


def by_relevance(params: Any, bonds: Array, label: Array) -> Array:
    """The order of nodes by their own relevance, all walks that end in them."""
    explain = jaxlrp.lrp(from_nodes, gammas(len(params)), target=label)
    return jnp.argsort(-explain(params, bonds, ones()).sum(-1), stable=True)


def scores_of(order: np.ndarray) -> tuple[float, float]:
    """Accuracy with the first five as the motif, and the area under the curve."""
    rank = np.empty(NODES)
    rank[order] = np.arange(NODES)
    accuracy = ((rank < MOTIF) == TRUTH).mean()
    # The share of pairs, one inside and one outside, that are in the right order.
    area = (rank[TRUTH][:, None] < rank[~TRUTH][None]).mean()
    return float(accuracy), float(area)


METHODS: dict[str, Callable[..., Array]] = {
    "sub-graphs": by_subgraphs,
    "sub-graphs, alpha .05": functools.partial(
        by_subgraphs, outside=0.05, touching=True
    ),
    "sub-graphs, against the other class": functools.partial(
        by_subgraphs, against=True
    ),
    "relevance of nodes": by_relevance,
    "gradient of nodes": by_gradient,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "as published": {},
    "softmax": {"loss": "softmax"},
    "softmax, biases trained": {"loss": "softmax", "biases": True},
    "biases trained": {"biases": True},
}
"""What differs from the published network, to see what its numbers rest on."""


def drawn(graphs: Graphs, examples: int) -> np.ndarray:
    """Numbers of graphs, as many of each class."""
    draw = np.random.default_rng(0)
    each = [
        draw.permutation(np.flatnonzero(graphs.labels == c))[: examples // 2]
        for c in (0, 1)
    ]
    return np.concatenate(each)


def measured(
    graphs: Graphs, params: Any, method: Callable[..., Array]
) -> dict[str, np.ndarray]:
    """Accuracy and area of a method, for each of the networks along a leading axis.

    Means over graphs: of all, and of those with a house and with a cycle.
    """
    bonds, labels = jnp.asarray(graphs.bonds), jnp.asarray(graphs.labels)

    @jax.jit
    def orders(params: Any) -> Array:
        return jax.lax.map(lambda graph: method(params, *graph), (bonds, labels))

    count = len(jax.tree.leaves(params)[0])
    found = []
    for number in range(count):
        order = np.asarray(orders(one_of(params, number)))
        each = np.array([scores_of(o) for o in order])
        house = graphs.labels == 0
        found.append([each.mean(0), each[house].mean(0), each[~house].mean(0)])
    every = np.array(found)  # networks, which graphs, accuracy and area
    return {
        "accuracy": every[:, 0, 0],
        "area": every[:, 0, 1],
        "house": every[:, 1, 0],
        "cycle": every[:, 2, 0],
    }


def motif(
    seeds: Sequence[int],
    examples: int = 200,
    networks: Sequence[str] = tuple(NETWORKS),
) -> tuple[list[dict], Any]:
    """A row for each network and method, over seeds, and what the picture needs."""
    graphs = generate(0)
    chosen = drawn(graphs, examples)
    some = Graphs(graphs.bonds[chosen], graphs.labels[chosen])
    rows, kept = [], None
    for network in networks:
        params, right = train(graphs, seeds, **NETWORKS[network])
        print(json.dumps({"network": network, "right": right.tolist()}), flush=True)
        kept = kept or (graphs, one_of(params, 0))
        if network == "as published":  # the picture first: it takes a moment
            _files.write(IMAGES / "walks_motif.png", png(picture(*kept)))
        methods = METHODS if network == "as published" else list(METHODS)[:3:2]
        for name in methods:
            start = time.perf_counter()
            found = measured(some, params, METHODS[name])
            rows.append(
                {
                    "network": network,
                    "method": name,
                    **{k: v.round(4).tolist() for k, v in found.items()},
                    "mean": {k: round(float(v.mean()), 4) for k, v in found.items()},
                    "spread": {k: round(float(v.std()), 4) for k, v in found.items()},
                    "seconds": round(time.perf_counter() - start, 1),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows, kept


def check_sum(graphs: Graphs, params: Any) -> float:
    """How far the sum of all 25 ** 4 walks is from the relevance, by its size."""
    bonds, label = jnp.asarray(graphs.bonds[0]), int(graphs.labels[0])
    with jax.enable_x64(True):
        params = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), params)
        bonds = bonds.astype(jnp.float64)
        given = params, bonds, ones()
        options = {"sites": ["nodes", "h*"], "target": label, "chunk": 1024}
        table = jax.jit(walks.every(from_nodes, gammas(3), **options))(*given)
        whole = jax.jit(jaxlrp.lrp(from_nodes, gammas(3), target=label))(*given).sum()
        return float(abs(table.sum() - whole) / abs(whole))


# ---- the same for other packages ---------------------------------------------------

SETS = 100
CONJUNCTIONS = ((20, 21), (20, 21, 24))
"""Formulas about nodes: each of these is passed."""


def side_by_side(graphs: Graphs, params: Any, count: int = 1) -> dict[str, Any]:
    """Sub-graphs and formulas, kept with the network for `benchmarks.peers.walks`."""
    bonds, labels = jnp.asarray(graphs.bonds[:count]), graphs.labels[:count]
    masks = jnp.asarray(np.random.default_rng(0).random((SETS, NODES)) < 0.5)
    options: dict[str, Any] = {"sites": ["nodes", "h*"]}
    names = {f"n{i}": i for i in range(NODES)}
    ask = [" and ".join(f"n{i}" for i in nodes) for nodes in CONJUNCTIONS]
    plain = composites.Uniform(rules.LRP0())
    arrays: dict[str, Any] = {"bonds": bonds, "labels": labels, "masks": masks}
    by_set, asked = [], []
    for graph, label in zip(bonds, labels, strict=True):
        inside = walks.subgraph(
            from_nodes, gammas(len(params)), target=int(label), **options
        )
        by_set.append(jax.jit(inside)(params, graph, ones(), masks))
        of_names = walks.query(
            from_nodes, plain, ask=ask, nodes=names, target=int(label), **options
        )
        asked.append(jax.jit(of_names)(params, graph, ones()))
    arrays |= {"subgraphs": np.stack(by_set), "asked": np.stack(asked)}
    for i in range(len(params)):
        for j, layer in enumerate(params[f"block{i}"].values()):
            arrays |= {f"w{i}{j}": layer["kernel"], f"b{i}{j}": layer["raw"]}
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    np.savez(KEPT, allow_pickle=False, **{k: np.asarray(v) for k, v in arrays.items()})
    inside = jax.jit(
        walks.subgraph(from_nodes, gammas(len(params)), target=0, **options)
    )
    found = {
        "sub-graphs a second, one a call": 1
        / seconds(lambda: inside(params, bonds[0], ones(), masks[0]), 51),
        "sub-graphs a second, 100 a call": SETS
        / seconds(lambda: inside(params, bonds[0], ones(), masks), 51),
    }
    of_names = jax.jit(
        walks.query(from_nodes, plain, ask=ask[1], nodes=names, target=0, **options)
    )
    took = seconds(lambda: of_names(params, bonds[0], ones()), 51)
    found["formulas of three nodes a second"] = 1 / took
    print(json.dumps(found), flush=True)
    return found


# ---- what it costs -----------------------------------------------------------------


def seconds(call: Callable[[], Any], rounds: int = 7) -> float:
    """The median time of a call, the first of which compiles.

    It is the processor's, of all threads: whoever else uses the machine does not count.
    """
    jax.block_until_ready(call())
    took = []
    for _ in range(rounds):
        start = time.process_time()
        jax.block_until_ready(call())
        took.append(time.process_time() - start)
    return float(np.median(took))


def cost(depths: Sequence[int] = (3, 7, 2, 5, 4, 6)) -> list[dict]:
    """Times of a sub-graph, of 100 of them, and of the search, by depth."""
    bonds = jnp.asarray(generate(0, 2).bonds[0])
    masks = jnp.asarray(np.random.default_rng(0).random((100, NODES)) < 0.5)
    rows = []
    for layers in depths:
        params = initial(jax.random.key(layers), layers)
        nodes = ones()
        options = {"sites": ["nodes", "h*"], "target": 0}
        composite = gammas(layers)
        inside = jax.jit(walks.subgraph(from_nodes, composite, **options))
        gradient = jax.jit(jax.grad(lambda h, p=params: from_nodes(p, bonds, h)[0]))
        one = seconds(lambda: inside(params, bonds, nodes, masks[0]))  # noqa: B023
        each = seconds(
            lambda: [inside(params, bonds, nodes, m) for m in masks],  # noqa: B023
            3,
        )
        together = seconds(lambda: inside(params, bonds, nodes, masks))  # noqa: B023
        rows.append(
            {
                "layers": layers,
                "walks": NODES ** (layers + 1),
                "one sub-graph, ms": 1e3 * one,
                "gradient, ms": 1e3 * seconds(lambda: gradient(nodes)),  # noqa: B023
                "100 calls, ms": 1e3 * each,
                "100 masks, ms": 1e3 * together,
                "ratio": together / each,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def search(graphs: Graphs, params: Any, count: int = 10) -> dict:
    """The most relevant walks of a graph: their time, and how many were opened."""
    bonds, label = jnp.asarray(graphs.bonds[0]), int(graphs.labels[0])
    found = {}
    for by in ("nodes", "neurons"):
        best = walks.top(
            from_nodes,
            gammas(3),
            sites=["nodes", "h*"],
            target=label,
            k=count,
            by=by,
        )
        start = time.perf_counter()
        top = best(params, bonds, ones())
        found[by] = {
            "seconds": time.perf_counter() - start,
            "opened": top.opened,
            "first": top.walks[0].tolist(),
            "relevance": float(top.relevances[0]),
        }
    return found


# ---- the picture -------------------------------------------------------------------


def picture(graphs: Graphs, params: Any) -> Figure:
    """Two graphs with the walks that matter most, and the order of their nodes."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axes = figure.subplots(1, 2)
        right = [
            i
            for i in range(40)
            if network(params, jnp.asarray(graphs.bonds[i])).argmax()
            == graphs.labels[i]
        ]
        for axis, label, name in zip(axes, (0, 1), ("house", "cycle"), strict=True):
            number = next(i for i in right if graphs.labels[i] == label)
            _draw(axis, graphs.bonds[number], label, name, params)
        figure.suptitle(
            "BA-2motif: the 40 most relevant walks of a GIN of three layers, and the "
            "first five nodes by sub-graphs"
        )
    return figure


def _draw(axis: Axes, bonds: np.ndarray, label: int, name: str, params: Any) -> None:
    best = walks.top(from_nodes, gammas(3), sites=["nodes", "h*"], target=label, k=40)
    top = best(params, jnp.asarray(bonds), ones())
    order = np.asarray(
        jax.jit(by_subgraphs)(params, jnp.asarray(bonds), jnp.asarray(label))
    )
    places = _layout(bonds)
    for a, b in zip(*np.nonzero(np.triu(bonds)), strict=True):
        axis.plot(*places[[a, b]].T, color="0.75", linewidth=1, zorder=1)
    size = np.abs(top.relevances).max()
    for walk, value in zip(top.walks, top.relevances, strict=True):
        path = places[walk] + np.linspace(-0.02, 0.02, len(walk))[:, None]
        axis.plot(
            *path.T,
            color="tab:red" if value > 0 else "tab:blue",
            alpha=0.35 * abs(value) / size,
            linewidth=5,
            solid_capstyle="round",
            zorder=2,
        )
    first = np.isin(np.arange(NODES), order[:MOTIF])
    axis.scatter(*places[~first].T, s=40, color="0.6", zorder=3)
    axis.scatter(*places[first].T, s=70, color="tab:red", zorder=3)
    for node in np.flatnonzero(TRUTH):
        axis.annotate("m", places[node], ha="center", va="center", size=7, zorder=4)
    axis.set_title(f"{name}: {int((first & TRUTH).sum())} of 5 nodes of the motif (m)")
    axis.set_axis_off()
    axis.set_aspect("equal")


def _layout(bonds: np.ndarray, steps: int = 400) -> np.ndarray:
    """Places of nodes: springs along edges, and all nodes repel each other."""
    places = np.random.default_rng(1).normal(size=(NODES, 2))
    for step in range(steps):
        apart = places[:, None] - places[None]
        distance = np.linalg.norm(apart, axis=-1) + 1e-3
        push = (apart / distance[..., None] ** 3).sum(1) * 0.06
        pull = -(bonds[..., None] * apart * distance[..., None]).sum(1)
        move = push + 0.5 * pull
        limit = 0.1 * (1 - step / steps)
        length = np.linalg.norm(move, axis=-1, keepdims=True) + 1e-9
        places += move / length * np.minimum(length, limit)
    return places - places.mean(0)


# ---- words -------------------------------------------------------------------------

SENTENCE = "The film was not good, but the music was great."
ASKED = "A bad movie."
QUESTIONS = {
    "film": "film",
    "good": "good",
    "not and good": "'not' and good",
    "good and not not": "good and not 'not'",
    "film and not and good": "film and 'not' and good",
    "music and great": "music and great",
    "great and not music": "great and not music",
}


def words() -> tuple[list[str], walks.Dividends, dict[str, float], float]:
    """A pretrained transformer's words: dividends of pairs, and questions."""
    from examples import sentences_model

    model = sentences_model.load(sentences_model.pretrained())
    ids, tokens = model.ids(SENTENCE)
    other, _ = model.ids(ASKED)
    apply: Any = model.network.apply
    wanted = apply(model.params, other)
    mask = jnp.ones(len(ids), bool)

    def similarity(params: Any, embedded: Array) -> Array:
        h = checkpoint_name(embedded, "words")
        return apply(params, h, mask, method="encode") @ wanted

    embedded = apply(model.params, ids, method="look_up")
    composite = composites.AttnLRP()
    options = {"sites": ["words", "*/blocks_?"], "target": "all"}
    names = walks.levels(similarity, composite, **options)(model.params, embedded)
    print("levels:", ", ".join(names))
    nodes = {token: i for i, token in enumerate(tokens)}  # of equal ones the last
    pairs = jax.jit(walks.harsanyi(similarity, composite, order=2, **options))
    asked = jax.jit(
        walks.query(
            similarity, composite, ask=list(QUESTIONS.values()), nodes=nodes, **options
        )
    )
    found = pairs(model.params, embedded)
    answers = np.asarray(asked(model.params, embedded))
    whole = float(similarity(model.params, embedded))
    return tokens, found, dict(zip(QUESTIONS, answers.tolist(), strict=True)), whole


def picture_of_words() -> Figure:
    """Words and pairs of them, and what was asked."""
    tokens, found, answers, whole = words()
    print(json.dumps({"similarity": whole, **answers}, indent=1))
    count = len(tokens)
    table = np.zeros((count, count))
    for nodes, value in zip(found.sets, np.asarray(found.relevances), strict=True):
        if nodes:
            table[nodes[0], nodes[-1]] = table[nodes[-1], nodes[0]] = value
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        size = np.abs(table).max()
        shown = left.imshow(table, cmap="RdBu_r", vmin=-size, vmax=size)
        figure.colorbar(shown, ax=left, shrink=0.8)
        left.set_xticks(range(count), tokens, rotation=90)
        left.set_yticks(range(count), tokens)
        left.set_title("walks that pass these two words and no other")
        places = np.arange(len(answers))[::-1]
        values = np.array(list(answers.values()))
        right.barh(places, values, color=np.where(values > 0, "tab:red", "tab:blue"))
        right.axvline(0, color="0.3", linewidth=0.8)
        right.set_yticks(places, list(answers))
        right.set_title("walks for which a formula holds")
        figure.suptitle(
            f"“{SENTENCE}” is similar to “{ASKED}”: {whole:.2f} (MiniLM, six blocks)"
        )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--parts", nargs="*", default=["motif", "side", "words", "cost"]
    )
    parser.add_argument("--seeds", nargs="*", type=int, default=list(range(8)))
    parser.add_argument(
        "--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS
    )
    options = parser.parse_args()
    if "motif" in options.parts:
        _, (graphs, params) = motif(options.seeds, networks=options.networks)
        print(f"sum of all walks, off by {check_sum(graphs, params):.1e}")
        print(json.dumps(search(graphs, params), indent=1))
    if "side" in options.parts:
        # Of random weights some leave hardly a unit active behind the first block.
        side_by_side(generate(0, 2), initial(jax.random.key(7)))
    if "words" in options.parts:
        _files.write(IMAGES / "walks_words.png", png(picture_of_words()))
    if "cost" in options.parts:
        cost()


if __name__ == "__main__":
    main()
