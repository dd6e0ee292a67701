"""A mark that a network learnt instead of a digit, taken out of it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from examples import artefact
from jaxlrp import composites, patching

COUNTS = (4, 8, 16, 32)
SITES = {
    "features": patching.site("conv", (None, "row", "column", "channel")),
    "hidden": patching.site("hidden", (None, "unit")),
}
"""By the paths of the parameters: nothing needs a tag."""


def f(params: artefact.Params, image: Array) -> Array:
    """Scores of one image."""
    return artefact.apply(params, image[None])[0]


def marked(images: np.ndarray) -> np.ndarray:
    """The images with the mark on all of them."""
    images = images.copy()
    images[:, 0, 0] = images[:, 0, 1] = images[:, 1, 0] = 1
    return images


def of_three(scores: Array) -> Array:
    """What is explained: the score of the class whose images bore the mark."""
    return scores[artefact.MARKED]


def corrected(steps: int) -> dict[str, dict[str, dict[str, list[float]]]]:
    """By site and criterion, for each number of units that go: three percentages.

    How many test images without a mark are right; how many of other classes are called
    a three with the mark on them; and the mean rise of that score by it.
    """
    images, labels, where = artefact.data(0.5)
    plain = np.where(where[:, None, None, None], artefact.data(0.0)[0], images)
    order = np.random.default_rng(1).permutation(len(labels))
    train, test = order[:1200], order[1200:]
    params = artefact.train(images[train], labels[train], steps)
    others = test[labels[test] != artefact.MARKED]
    seen = train[labels[train] != artefact.MARKED][:400]

    found = {}
    for site, one in SITES.items():
        sites = {site: one}
        run = patching.circuit(f, sites, ablate=0)
        logits = jax.jit(jax.vmap(run, (None, None, 0)))

        def measured(keep: Mapping[str, Any], logits: Any = logits) -> list[float]:
            right = logits(keep, params, plain[test]).argmax(-1) == labels[test]
            before = logits(keep, params, plain[others])
            behind = logits(keep, params, marked(plain[others]))
            called = behind.argmax(-1) == artefact.MARKED
            rise = (behind - before)[:, artefact.MARKED]
            return [float(right.mean()), float(called.mean()), float(rise.mean())]

        find = patching.mean_units(f, sites, composites.Epsilon(), of_three)
        images_with, images_without = [marked(plain[seen])], [plain[seen]]
        difference = find(params, images_with, less=images_without)
        rng = np.random.default_rng(0)
        criteria = {
            "difference of two datasets": difference,
            "the dataset with the mark alone": find(params, images_with),
            "magnitude": {site: _outgoing(params, site)},
            "random": {site: rng.random(difference[site].shape)},
        }
        # Those with the highest scores go.
        whole = {site: jnp.ones(difference[site].shape, bool)}
        found[site] = {"nothing": {"0": measured(whole)}}
        for name, scores in criteria.items():
            lowest = jax.tree.map(lambda s: -jnp.asarray(s, jnp.float32), scores)
            found[site][name] = {
                str(n): measured(patching.prune(lowest, n / lowest[site].size))
                for n in COUNTS
                if n <= lowest[site].size / 8
            }
    return found


def _outgoing(params: artefact.Params, site: str) -> Array:
    """The norm of a unit's outgoing weights."""
    if site == "features":
        return jnp.linalg.norm(params["hidden"].reshape(8, 8, 8, -1), axis=-1)
    return jnp.linalg.norm(params["scores"], axis=-1)
