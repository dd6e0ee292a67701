"""Haiku: its layers and networks, and the graph networks of jraph."""

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import jraph

from benchmarks.zoo.weights import Model, fill, ids, normal

LIBRARY = "Haiku"

Build = Callable[[], Model]


def transformed(
    forward: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    training: Callable[[jax.Array], jax.Array] | None = None,
) -> Model:
    """A function of Haiku modules as one of its parameters and `x`.

    `training` makes the state where inference does not.
    """
    pair = hk.transform_with_state(forward)
    start = hk.transform_with_state(training or forward)
    params, state = fill(jax.eval_shape(start.init, jax.random.key(0), x))
    state = jax.tree_util.tree_map_with_path(
        lambda path, v: jnp.abs(v) + ("var" in str(path)) if v.ndim else v, state
    )
    return lambda params, x: pair.apply(params, state, None, x)[0], (params, x)


def _net(make: Callable[[], Any], *shape: int) -> Build:
    """A network with batch normalisation."""

    def mode(training: bool) -> Callable[[jax.Array], jax.Array]:
        return lambda x: make()(x, is_training=training)

    return lambda: transformed(mode(False), normal(*shape), mode(True))


def _recurrent(make: Callable[[], Any]) -> Build:
    def forward(x: jax.Array) -> jax.Array:
        core = make()
        out, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))
        return hk.Linear(3)(out[-1])

    return lambda: transformed(forward, normal(9, 2, 4))


def _transformer(tokens: jax.Array) -> jax.Array:
    x = hk.Embed(99, 16)(tokens) + hk.get_parameter(
        "positions", (7, 16), init=jnp.zeros
    )
    mask = jnp.tril(jnp.ones((1, 1, 7, 7), bool))
    for _ in range(2):
        h = hk.LayerNorm(-1, True, True)(x)
        w_init = hk.initializers.VarianceScaling()
        x = x + hk.MultiHeadAttention(2, 8, w_init=w_init)(h, h, h, mask)
        h = hk.LayerNorm(-1, True, True)(x)
        x = x + hk.nets.MLP([32, 16], activation=jax.nn.gelu)(h)
    return hk.Linear(99)(hk.LayerNorm(-1, True, True)(x))


def _quantised(x: jax.Array) -> jax.Array:
    """A vector-quantised autoencoder; the codes pass by the straight-through trick."""
    h = hk.Linear(8)(jax.nn.relu(hk.Linear(16)(x)))
    found = hk.nets.VectorQuantizer(8, 12, 0.25)(h, is_training=False)
    return hk.Linear(10)(found["quantize"])


LAYERS: dict[str, Build] = {
    "MLP": lambda: transformed(lambda x: hk.nets.MLP([32, 16, 5])(x), normal(4, 10)),
    "ResNet18": _net(lambda: hk.nets.ResNet18(5), 1, 64, 64, 3),
    "ResNet50, pre-activation": _net(
        lambda: hk.nets.ResNet50(5, resnet_v2=True), 1, 64, 64, 3
    ),
    "MobileNetV1": _net(
        lambda: hk.nets.MobileNetV1((1, 2, 2), (16, 32, 32), num_classes=5),
        1,
        32,
        32,
        3,
    ),
    "LSTM": _recurrent(lambda: hk.DeepRNN([hk.LSTM(8), jax.nn.relu, hk.LSTM(8)])),
    "GRU": _recurrent(lambda: hk.GRU(8)),
    "transformer": lambda: transformed(_transformer, ids(2, 7)),
    "VQ-VAE": lambda: transformed(_quantised, normal(4, 10)),
}


# ---- jraph -----------------------------------------------------------------------


def _graph(nodes: jax.Array) -> jraph.GraphsTuple:
    """Two graphs of five and three nodes."""
    return jraph.GraphsTuple(
        nodes=nodes,
        edges=normal(14, 4, seed=5),
        senders=jnp.asarray([0, 1, 2, 3, 4, 0, 2, 4, 5, 6, 7, 5, 6, 7]),
        receivers=jnp.asarray([1, 2, 3, 4, 0, 2, 4, 1, 6, 7, 5, 7, 5, 6]),
        n_node=jnp.asarray([5, 3]),
        n_edge=jnp.asarray([8, 6]),
        globals=normal(2, 3, seed=6),
    )


def _mlp(*sizes: int) -> Callable[..., jax.Array]:
    return jraph.concatenated_args(lambda x: hk.nets.MLP(sizes)(x))


def _on_graph(make: Callable[[], Any], part: str) -> Build:
    """A graph network as a function of the nodes' features."""
    return lambda: transformed(
        lambda nodes: getattr(make()(_graph(nodes)), part), normal(8, 6)
    )


def _attention() -> Any:
    return jraph.GAT(
        lambda nodes: hk.Linear(8)(nodes),
        lambda sent, received, edges: jax.nn.leaky_relu(
            hk.Linear(1)(jnp.concatenate([sent, received], -1))
        ),
        lambda nodes: hk.Linear(5)(jax.nn.relu(nodes)),
    )


def _attending_network() -> Any:
    return jraph.GraphNetwork(
        _mlp(16, 8),
        _mlp(16, 8),
        _mlp(16, 5),
        attention_logit_fn=lambda e, s, r, g: hk.Linear(1)(
            jnp.concatenate([e, s, r], -1)
        ),
        attention_reduce_fn=lambda edges, weights: edges * weights,
    )


GRAPHS: dict[str, Build] = {
    "graph network": _on_graph(
        lambda: jraph.GraphNetwork(_mlp(16, 8), _mlp(16, 8), _mlp(16, 5)), "globals"
    ),
    "graph network, maxima": _on_graph(
        lambda: jraph.GraphNetwork(
            _mlp(16, 8),
            _mlp(16, 8),
            _mlp(16, 5),
            jraph.segment_max_or_constant,
            jraph.segment_mean,
            jraph.segment_mean,
        ),
        "globals",
    ),
    "graph network, attention": _on_graph(_attending_network, "globals"),
    "graph convolution": _on_graph(
        lambda: jraph.GraphConvolution(lambda x: hk.Linear(5)(x), add_self_edges=True),
        "nodes",
    ),
    "graph attention": _on_graph(_attention, "nodes"),
    "interaction network": _on_graph(
        lambda: jraph.InteractionNetwork(
            _mlp(16, 8), _mlp(16, 5), include_sent_messages_in_node_update=True
        ),
        "nodes",
    ),
    "relation network": _on_graph(
        lambda: jraph.RelationNetwork(
            lambda s, r: hk.nets.MLP([16, 8])(jnp.concatenate([s, r], -1)),
            lambda edges: hk.nets.MLP([16, 5])(edges),
        ),
        "globals",
    ),
    "deep sets": _on_graph(
        lambda: jraph.DeepSets(
            lambda nodes, g: hk.nets.MLP([16, 8])(jnp.concatenate([nodes, g], -1)),
            lambda nodes: hk.nets.MLP([16, 5])(nodes),
        ),
        "globals",
    ),
}

MODELS: dict[str, dict[str, Build]] = {"layers and networks": LAYERS, "jraph": GRAPHS}

NOTES = {
    "VQ-VAE": "the model adds the difference between code and features under a "
    "`stop_gradient`. What that difference is worth is *detached*; the features keep "
    "their own share of the sum."
}
