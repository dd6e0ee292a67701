"""Accuracy on the digits against the share of filters and hidden units removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from examples import digits, pruning
from jaxlrp import composites, patching

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
BLOCKS = ("stem", "block1", "block2")
CHANNELS = (None, None, "channel")
SITES = {name: patching.site(name, CHANNELS) for name in BLOCKS}
SITES["hidden"] = patching.site("hidden_units", ("unit",))

Scores = Mapping[str, Any]


class Tagged(digits.Network):
    """The network of `examples.digits`, whose units have names."""

    def __call__(self, x: Array) -> Array:
        x = checkpoint_name(self.stem(x), "stem")
        x = x + checkpoint_name(self.block1(x), "block1")
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = x + checkpoint_name(self.block2(x), "block2")
        x = checkpoint_name(nnx.gelu(self.hidden(x.reshape(-1))), "hidden_units")
        return self.logits(x)


def build(seed: int) -> tuple[digits.Apply, digits.Params]:
    """As `examples.digits.build`."""
    graphdef, params, rest = nnx.split(Tagged(nnx.Rngs(seed)), nnx.Param, ...)

    def apply(params: digits.Params, image: Array) -> Array:
        return nnx.merge(graphdef, params, rest)(image)

    return apply, params


def logit(logits: Array, label: Array) -> Array:
    """What is explained."""
    return logits[label]


def all_scores(
    apply: digits.Apply, params: digits.Params, data: digits.Data, seed: int
) -> dict[str, Scores]:
    """Scores of units by each criterion; relevances are of 200 training images."""
    chosen = pruning.of_each_class(data.train_labels, 20)
    batches = [(data.train_images[chosen], data.train_labels[chosen])]
    rules = composites.Epsilon()

    def mean(composite: Any, by: str) -> Scores:
        find = patching.mean_units(apply, SITES, composite, logit, by=by)
        return find(params, batches)

    def norm(block: str, layer: str) -> Array:
        kernel = pruning.kernel_of(params, block, layer)
        return jnp.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)

    size = {name: norm(name, "conv") for name in BLOCKS} | {
        "hidden": norm("hidden", "")
    }
    rng = np.random.default_rng(seed)
    return {
        "LRP, mean of sizes": mean(rules, "size"),
        "LRP, mean": mean(rules, "signed"),
        "gradient times value, mean of sizes": mean(None, "size"),
        "magnitude": size,
        "random": {name: rng.random(s.shape) for name, s in size.items()},
    }


def accuracies(
    seed: int, epochs: int, images: int | None
) -> tuple[float, dict[str, list[float]]]:
    """Accuracy of the whole network, and of what each criterion leaves of it."""
    job = digits.Options(epochs=epochs, seed=seed, images=images)
    data = digits.load(job)
    apply, params = build(seed)
    params = digits.train(apply, params, data, job)
    run = patching.circuit(apply, SITES, ablate=0)

    @jax.jit
    def accuracy(scores: Scores, share: Array) -> Array:
        keep = patching.prune(scores, share, apart=0)
        logits = jax.vmap(run, (None, None, 0))(keep, params, data.test_images)
        return (logits.argmax(-1) == data.test_labels).mean()

    scores = {
        name: jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), s)
        for name, s in all_scores(apply, params, data, seed).items()
    }
    found = {
        name: [float(accuracy(s, share)) for share in SHARES]
        for name, s in scores.items()
    }
    return float(accuracy(scores["random"], 0.0)), found
