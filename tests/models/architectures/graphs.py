"""Graph networks: sums, means, maxima and attention over the edges of a node."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from tests.models.architectures._base import Architecture, Built, floats


@dataclasses.dataclass(frozen=True)
class Graph:
    """A random graph with self-loops, and a network over it.

    Attributes:
      kind: `gcn`, `gat`, `sage`, `mpnn` or `egnn`.
      nodes: how many.
      edges: how many, beside the loops.
      features: of a node.
      width: of the network.
      layers: of the network.
      classes: of the whole graph.
    """

    kind: str
    nodes: int
    edges: int
    features: int
    width: int
    layers: int
    classes: int

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Where edges come from and where they go."""
        random = np.random.default_rng(0)
        loops = np.arange(self.nodes)
        pairs = random.integers(0, self.nodes, (2, self.edges))
        return tuple(np.concatenate([p, loops]) for p in pairs)  # type: ignore


class Layer(nn.Module):
    """One round of messages."""

    graph: Graph

    @nn.compact
    def __call__(self, x):
        g = self.graph
        source, target = g.ends()
        total = functools.partial(jax.ops.segment_sum, num_segments=g.nodes)
        degree = np.bincount(target, minlength=g.nodes).astype(np.float32)
        if g.kind == "gcn":
            h = nn.Dense(g.width)(x)
            norm = 1 / np.sqrt(degree[source] * degree[target])
            return nn.relu(total(h[source] * norm[:, None], target))
        if g.kind == "gat":
            h = nn.Dense(g.width, use_bias=False)(x)
            score = nn.Dense(1, use_bias=False)(h)[source, 0]
            score = nn.leaky_relu(score + nn.Dense(1, use_bias=False)(h)[target, 0])
            peak = jax.ops.segment_max(score, target, num_segments=g.nodes)
            weight = jnp.exp(score - peak[target])
            weight = weight / total(weight, target)[target]
            return nn.elu(total(weight[:, None] * h[source], target))
        if g.kind == "sage":
            top = jax.ops.segment_max(x[source], target, num_segments=g.nodes)
            mean = total(x[source], target) / degree[:, None]
            return nn.relu(nn.Dense(g.width)(jnp.concatenate([x, mean, top], -1)))
        if g.kind == "mpnn":
            h = nn.Dense(g.width)(x)
            pair = jnp.concatenate([h[source], h[target]], -1)
            message = total(nn.relu(nn.Dense(g.width)(pair)), target)
            return nn.GRUCell(g.width)(h, message)[0]
        place, h = x[:, :3], nn.Dense(g.width)(x[:, 3:])
        apart = place[source] - place[target]
        square = (apart**2).sum(-1, keepdims=True)
        pair = jnp.concatenate([h[source], h[target], square], -1)
        message = nn.silu(nn.Dense(g.width)(pair))
        move = total(apart * nn.Dense(1)(message), target) / degree[:, None]
        h = h + nn.Dense(g.width)(total(message, target))
        return jnp.concatenate([place + move, h], -1)


class GraphNetwork(nn.Module):
    graph: Graph

    @nn.compact
    def __call__(self, x):
        for _ in range(self.graph.layers):
            x = Layer(self.graph)(x)
        x = x[:, 3:] if self.graph.kind == "egnn" else x
        return nn.Dense(self.graph.classes)(x.mean(0))


def graph(config: Graph) -> Built:
    return Built(GraphNetwork(config), floats(config.nodes, config.features))


SUMS = "sums over edges share in proportion; biases keep their part."

ARCHITECTURES = tuple(
    Architecture(
        name,
        "graph networks",
        graph,
        Graph(kind, 5, 8, 5, 6, 1, 3),
        Graph(kind, 2708, 10556, 1433, 64, 3, 7),
        note=note,
    )
    for name, kind, note in (
        ("GCN", "gcn", SUMS),
        ("GraphSAGE", "sage", SUMS),
        (
            "GAT",
            "gat",
            f"{SUMS} Attention over the edges is a softmax by segments.",
        ),
        ("MPNN", "mpnn", f"{SUMS} The update's gates are held."),
        ("EGNN", "egnn", f"{SUMS} Distances are squares of differences of places."),
    )
)
"""Graph networks."""
