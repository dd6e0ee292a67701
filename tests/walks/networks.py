"""Small networks with named levels, and their walks by the formula, in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

import jaxlrp
from jaxlrp import composites, rules

RNG = np.random.default_rng(57)
NODES, FEATURES, LAYERS = 5, 3, 3
BONDS = (RNG.random((NODES, NODES)) < 0.5) | np.eye(NODES, dtype=bool)
BONDS = BONDS * RNG.uniform(0.5, 1.5, BONDS.shape)
KERNELS = RNG.normal(size=(LAYERS, FEATURES, FEATURES))
X = RNG.random((NODES, FEATURES))


def gcn(kernels, x):
    """A graph network with an adjacency matrix; its levels are h0 to h3."""
    h = checkpoint_name(x, "h0")
    for number, kernel in enumerate(kernels, 1):
        h = checkpoint_name(
            jax.nn.relu(jnp.asarray(BONDS, x.dtype) @ h @ kernel), f"h{number}"
        )
    return h.sum(0)


def in_segments(kernels, x):
    """The same with messages along edges, as graph libraries write it."""
    receivers, senders = np.nonzero(BONDS)
    h = checkpoint_name(x, "h0")
    for number, kernel in enumerate(kernels, 1):
        sent = BONDS[receivers, senders][:, None] * h[senders]
        messages = jax.ops.segment_sum(sent, receivers, NODES)
        h = checkpoint_name(jax.nn.relu(messages @ kernel), f"h{number}")
    return h.sum(0)


def in_a_scan(kernels, x):
    """The same in a loop; its levels are h0 and the iterations of h."""

    def layer(h, kernel):
        h = jax.nn.relu(jnp.asarray(BONDS, x.dtype) @ h @ kernel)
        return checkpoint_name(h, "h"), None

    return jax.lax.scan(layer, checkpoint_name(x, "h0"), kernels)[0].sum(0)


def transformer(weights, x):
    """Two blocks of attention with residual sums; its levels are r0, r1 and r2."""
    h = checkpoint_name(x, "r0")
    for number, (query, key, value, up, down) in enumerate(weights, 1):
        scores = (h @ query) @ (h @ key).T / np.sqrt(FEATURES)
        h = h + jax.nn.softmax(scores) @ (h @ value)
        h = h + jax.nn.gelu(h @ up) @ down
        h = checkpoint_name(h, f"r{number}")
    return h.mean(0)


def weights_of_transformer(dtype=np.float64):
    shapes = [(3, 3), (3, 3), (3, 3), (3, 6), (6, 3)]
    draw = np.random.default_rng(5)
    return [[draw.normal(size=s).astype(dtype) for s in shapes] for _ in range(2)]


def gnn_lrp(gamma):
    """All walks by the formula of the paper, an axis for each level."""
    values = [X]
    for kernel in KERNELS:
        values.append(np.maximum(BONDS @ values[-1] @ kernel, 0))
    score = int(values[-1].sum(0).argmax())
    message = values[-1] * (np.arange(FEATURES) == score)  # node, feature; then walks
    for h, kernel in zip(values[-2::-1], KERNELS[::-1], strict=True):
        w = kernel + gamma * np.maximum(kernel, 0)
        z = np.einsum("ja,kj,ab->jakb", h, BONDS, w)
        total = z.sum((0, 1))
        share = z / np.where(total == 0, 1, total)
        # message[k, b, ...] with the nodes above behind: the node k becomes one of them
        message = np.einsum("jakb,kb...->jak...", share, message)
    return message.sum(1)


def by_masks(f, composite, params, x, walk, names, **options):
    """One walk as relevance with a condition at each level, at the input."""
    masks = {
        name: jax.nn.one_hot(node, len(x), dtype=x.dtype)[:, None]
        for name, node in zip(names, walk, strict=True)
    }
    explain = jax.jit(jaxlrp.lrp(f, composite, conditions=masks, **options))
    return float(explain(params, x).sum())


def all_walks(nodes, levels):
    return list(itertools.product(range(nodes), repeat=levels))


def gamma(value):
    """The rule of the formula, without a stabiliser that would show in it."""
    return composites.Uniform(rules.Gamma(value, epsilon=1e-15))
