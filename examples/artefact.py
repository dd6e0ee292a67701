"""Find the mark that a network learnt instead of a digit, among a dataset's relevances.

Half of the threes that a small network is trained on bear a mark in a corner, as
photographs of a class may bear a photographer's name. The network is nearly always
right, also on threes without a mark, and no score says that it looks at the mark.
Relevances do: `jaxlrp.runs.attribute` explains all digits, `jaxlrp.clusters` finds that
those of threes fall into two groups, and the page shows what is special about one of
them. Run it from the root of the repository:

    python -m examples.artefact

It leaves in `out/artefact/`:

    run/             the relevances: run it again, and nothing is computed twice
    clusters.html    all classes, the best separated one first
    clusters.png     the threes: clusters, their mean relevance, examples
"""

import argparse
import dataclasses
import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import jaxlrp
from jaxlrp import _files, clusters, composites, runs

CLASSES, MARKED = 10, 3
COMPOSITE = composites.EpsilonPlus()


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line can change."""

    out: Path = Path("out/artefact")
    steps: int = 400
    share: float = 0.5  # of the threes, marked


Params = dict[str, jax.Array]


def data(share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images 'n 8 8 1' in [0, 1], labels, and which images bear the mark."""
    digits: Any = load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int32)
    chosen = np.random.default_rng(seed).random(len(labels)) < share
    marked = chosen & (labels == MARKED)
    images[marked, 0, 0] = images[marked, 0, 1] = images[marked, 1, 0] = 1
    return images, labels, marked


def apply(params: Params, images: jax.Array) -> jax.Array:
    """A convolution and two dense layers: images '... 8 8 1' to scores."""
    dims = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        images, params["conv"], (1, 1), "SAME", dimension_numbers=dims
    )
    x = jax.nn.relu(x).reshape(len(x), -1)
    return jax.nn.relu(x @ params["hidden"]) @ params["scores"]


def train(images: np.ndarray, labels: np.ndarray, steps: int) -> Params:
    """Adam on all images at once."""
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 1, 8), "hidden": (512, 64), "scores": (64, CLASSES)}
    params = {
        name: jnp.asarray(
            rng.normal(size=s) * np.sqrt(2 / np.prod(s[:-1])), jnp.float32
        )
        for name, s in shapes.items()
    }
    optimiser = optax.adam(3e-3)

    def loss(params: Params) -> jax.Array:
        scores = apply(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    @jax.jit
    def run(params: Params) -> Params:
        def step(_: Any, carry: Any) -> Any:
            params, state = carry
            updates, state = optimiser.update(jax.grad(loss)(params), state)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, steps, step, (params, optimiser.init(params)))[0]

    return run(params)


def explained(params: Params, images: np.ndarray, labels: np.ndarray, out: Path) -> Any:
    """The relevances of all images for their class, in a run's folder."""

    @jax.jit
    def explain(batch: Any) -> dict[str, jax.Array]:
        images, labels = batch
        relevance = jaxlrp.lrp(apply, COMPOSITE, target=labels)(params, images)
        scores = apply(params, images)
        return {
            "relevance": runs.summed(relevance),
            "scores": scores,
            "right": scores.argmax(-1) == labels,
        }

    return runs.attribute(explain, (images, labels), out)


def purity(found: clusters.Clusters, marked: np.ndarray) -> tuple[int, float, float]:
    """The cluster of the marked rows, how pure it is, and how much of them it has."""
    own = marked[found.rows]
    shares = [own[found.labels == k].mean() for k in range(len(found.sizes))]
    best = int(np.argmax(shares))
    return best, float(shares[best]), float((found.labels[own] == best).mean())


def figure(
    found: clusters.Clusters, relevance: np.ndarray, images: np.ndarray
) -> bytes:
    """The clusters of a class as a picture, PNG."""
    import matplotlib.pyplot as plt

    count, examples = len(found.sizes), 6
    fig, axes = plt.subplots(
        2 * count,
        1 + examples,
        figsize=(8.5, 2.6 * count),
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for k in range(count):
        members = found.rows[found.labels == k]
        mean = relevance[members].mean(0)
        shown = members[np.linspace(0, len(members) - 1, examples).astype(int)]
        top, below = axes[2 * k], axes[2 * k + 1]
        top[0].imshow(images[members].mean(0)[..., 0], cmap="gray_r")
        top[0].set_title(f"{len(members)} threes, mean", fontsize=9)
        _map(below[0], mean)
        for i, row in enumerate(shown):
            top[i + 1].imshow(images[row, ..., 0], cmap="gray_r")
            top[i + 1].set_title(f"row {row}", fontsize=9)
            _map(below[i + 1], relevance[row])
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=110)
    plt.close(fig)
    return buffer.getvalue()


def _map(ax: Any, relevance: np.ndarray) -> None:
    limit = np.abs(relevance).max() or 1
    ax.imshow(relevance, cmap="RdBu_r", vmin=-limit, vmax=limit)


def main(arguments: list[str] | None = None) -> None:
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m examples.artefact")
    parser.add_argument("--out", type=Path, default=defaults.out)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--share", type=float, default=defaults.share)
    options = Options(**vars(parser.parse_args(arguments)))

    images, labels, marked = data(options.share)
    params = train(images, labels, options.steps)
    run = explained(params, images, labels, options.out / "run")
    right, relevance = run["right"][:], run["relevance"][:]
    threes = labels == MARKED
    plain = right[threes & ~marked].mean()
    print(f"right: {right.mean():.1%} of all, {plain:.1%} of threes without a mark")
    found = clusters.by_class(clusters.prepared(relevance), labels)
    for c, one in found.items():
        sizes = ", ".join(map(str, one.sizes))
        print(f"class {c}: separation {one.separation:.2f}, clusters of {sizes}")
    k, pure, whole = purity(found[MARKED], marked)
    print(
        f"cluster {k} of the threes: {pure:.1%} of its images are marked, and "
        f"{whole:.1%} of those that are marked are in it"
    )
    content = clusters.page(found, run["relevance"], images)
    clusters.save(options.out / "clusters.html", content)
    picture = figure(found[MARKED], relevance, images)
    _files.write(options.out / "clusters.png", picture)
    print(f"wrote {options.out}/clusters.html and clusters.png")


if __name__ == "__main__":
    main()
