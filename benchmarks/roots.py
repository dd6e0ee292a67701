"""Where the roots of deep Taylor decomposition lie, and what relevance forgets.

The share of root points that lie in the linear region of the network (of what follows
the layer) at the layer's input, by rule and layer, and the cosine similarity of
relevances that began differently, by depth, for all presets:

- an MLP 3-10-10-2 with random weights, seed 1, non-negative inputs whose output is
  positive, 1,000 of them, as in the published study;
- a network of two convolutions and a dense layer, trained on handwritten digits;
- for the similarities also ten dense layers of 64 units with random weights.

    python -m benchmarks.roots              all: tables, docs/images/roots_*.png
    python -m benchmarks.roots --parts shares

Source: Sixt and Landgraf 2022, "A rigorous study of the deep Taylor decomposition";
Sixt, Granz and Landgraf 2020, "When explanations lie".
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from matplotlib import rc_context
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from examples.digits_figures import STYLE, png
from examples.howto import small
from jaxlrp import _files, composites, deep_taylor, evaluation, rules
from jaxlrp.composites import Composite

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SIZES = (3, 10, 10, 2)
WHAT = ("inside", "same_gradient", "same_pattern")

RULES: dict[str, Composite] = {
    "z-plus": composites.Uniform(rules.ZPlus()),
    "w-square": composites.Uniform(rules.WSquare()),
    "gamma .25": composites.Uniform(rules.Gamma(0.25)),
    "LRP-0": composites.Uniform(rules.LRP0()),
}


def mlp(params: Any, x: Array) -> Array:
    """Dense layers with ReLUs between them."""
    for number, (kernel, bias) in enumerate(params):
        x = x @ kernel + bias
        x = jax.nn.relu(x) if number < len(params) - 1 else x
    return x


def drawn(negative: bool) -> Any:
    """Random weights of the MLP, by seed; biases of any sign, or as the theory asks."""
    draw = np.random.default_rng(1)
    params = []
    for rows, columns in zip(SIZES[:-1], SIZES[1:], strict=True):
        kernel = draw.normal(size=(rows, columns)) * (2 / rows) ** 0.5
        bias = 0.1 * draw.normal(size=columns)
        params.append((kernel, -np.abs(bias) if negative else bias))
    return jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), params)


def points(params: Any, count: int = 1000) -> Array:
    """Non-negative inputs whose highest output is positive."""
    x = jax.random.uniform(jax.random.key(1), (20 * count, SIZES[0]))
    return x[mlp(params, x).max(-1) > 0][:count]


def shares(
    f: Callable[..., Any], params: Any, inputs: Array, composite: Composite, **more: Any
) -> dict[str, list[float]]:
    """By layer, the shares of roots of which each of `WHAT` holds; all inputs."""
    explore = deep_taylor.roots(f, composite, key=jax.random.key(0), **more)

    def counts(params: Any, x: Array) -> Any:
        found = explore(params, x)
        return {
            name: jnp.stack(
                [(getattr(v, what) & v.there).sum() for what in WHAT] + [v.there.sum()]
            )
            for name, v in found.items()
        }

    every = jax.jit(lambda p, xs: jax.lax.map(functools.partial(counts, p), xs))
    total = {k: np.asarray(v).sum(0) for k, v in every(params, inputs).items()}
    return {k: [*(v[:-1] / v[-1]).tolist(), int(v[-1])] for k, v in total.items()}


def digit(model: Any, image: Array) -> Array:
    """Scores of one image."""
    return model(image[None])[0]


def tables() -> None:
    for negative in (False, True):
        params = drawn(negative)
        inputs = points(params)
        for name, composite in RULES.items():
            found = shares(mlp, params, inputs, composite)
            print(json.dumps(["mlp", negative, name, found]), flush=True)
    model, images, _ = small.digits()
    boxed = composites.DeepTaylorBounded(0.0, 1.0)
    for name, composite in {**RULES, "z-plus, z-box first": boxed}.items():
        found = shares(
            digit, model, jnp.asarray(images[:50]), composite, neurons=16, chunk=16
        )
        print(json.dumps(["digits", name, found]), flush=True)


# ---- similarities ------------------------------------------------------------------


def deep(kernels: Array, x: Array) -> Array:
    """Ten dense layers with ReLUs."""
    for number, kernel in enumerate(kernels):
        x = checkpoint_name(jax.nn.relu(x @ kernel), f"h{number}")
    return x


PRESETS: dict[str, Composite] = {
    "DeepTaylor": composites.DeepTaylor(),
    "z-plus": composites.Uniform(rules.ZPlus()),
    "EpsilonPlus": composites.EpsilonPlus(),
    "EpsilonAlpha2Beta1": composites.EpsilonAlpha2Beta1(),
    "SequentialPresetA": composites.SequentialPresetA(),
    "SequentialPresetB": composites.SequentialPresetB(),
    "ExcitationBackprop": composites.ExcitationBackprop(),
    "Default": composites.Default(),
    "generalised gamma .25": composites.Uniform(rules.GeneralizedGamma(0.25)),
    "Epsilon": composites.Epsilon(),
    "AttnLRP": composites.AttnLRP(),
    "LRP-0": composites.Uniform(rules.LRP0()),
}


def similarities() -> dict[str, dict[str, list[float]]]:
    """For each network and preset the mean similarity, from the output to the input."""
    kernels = jax.random.normal(jax.random.key(2), (10, 64, 64)) * (2 / 64) ** 0.5
    inputs = jnp.abs(jax.random.normal(jax.random.key(3), (16, 64)))
    model, images, _ = small.digits()
    networks: dict[str, Any] = {
        "ten dense layers": (
            *(deep, kernels, inputs),
            [*(f"h{i}" for i in reversed(range(9))), "input"],
        ),
        "digits": (
            *(digit, model, jnp.asarray(images[:16])),
            ["parts.kernel", "edges.kernel", "input"],
        ),
    }
    found: dict[str, dict[str, list[float]]] = {}
    for network, (f, params, examples, names) in networks.items():
        found[network] = {}
        for preset, composite in PRESETS.items():
            of = evaluation.csc(
                f, composite, key=jax.random.key(0), capture=names[:-1], seeds=6
            )
            every = jax.jit(jax.vmap(of, (None, 0)))(params, examples)
            values = [float(np.nanmean(v)) for v in (_by(every, n) for n in names)]
            found[network][preset] = values
            print(json.dumps([network, preset, values]), flush=True)
    return found


def _by(found: dict[str, Array], name: str) -> Array:
    """The one that a name ends with."""
    (value,) = (v for k, v in found.items() if k == name or k.endswith(name))
    return value


def picture(found: dict[str, dict[str, list[float]]]) -> Figure:
    """A line for each preset, from the output on."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for axis, (network, lines) in zip(axes, found.items(), strict=True):
            for number, (preset, values) in enumerate(lines.items()):
                dashes = "-" if number < 7 else "--"
                below = range(1, len(values) + 1)
                axis.plot(below, values, dashes, label=preset, marker="o", markersize=3)
            axis.set_title(network)
            axis.set_xlabel("layers below the output")
            axis.set_ylim(0, 1.02)
        axes[0].set_ylabel("|cosine| of relevances of two seeds")
        axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


# ---- any explanation ---------------------------------------------------------------

FACE = """
..####..
.#....#.
#.#..#.#
#......#
#.#..#.#
#..##..#
.#....#.
..####..
"""


def chosen() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A digit, its decomposition with roots that are held, and with roots that move."""
    rows = FACE.split()
    picture = jnp.array([[c == "#" for c in row] for row in rows], jnp.float32)
    bunch: Any = load_digits()
    image = jnp.asarray(bunch.images[4] / 16, jnp.float32).reshape(-1) + 0.1
    draw = np.random.default_rng(0)
    first = jnp.asarray(draw.normal(size=(64, 256)) / 8, jnp.float32)
    last = jnp.asarray(draw.normal(size=256), jnp.float32)
    layers = [lambda x: jax.nn.relu(x @ first), lambda h: h @ last]
    hidden, low = layers[0](image), 0.5 * image
    seen = first * (hidden > 0)
    wanted = jnp.linalg.lstsq(seen, picture.reshape(-1) / (image - low))[0]
    slope = jnp.outer(last, last - wanted) / (last @ last)

    def moving(number: int, a: Array) -> Array:
        if number == 0:
            return jnp.broadcast_to(low, (256, 64))
        return 0.5 * hidden + slope @ (a - jax.lax.stop_gradient(a))

    def held(number: int, a: Array) -> Array:
        return jax.lax.stop_gradient(moving(number, a))

    maps = [
        np.asarray(jax.jit(deep_taylor.decompose(layers, r))(image)).reshape(8, 8)
        for r in (held, moving)
    ]
    return np.asarray(image).reshape(8, 8), maps[0], maps[1]


def picture_of_roots() -> Figure:
    """The same roots, held and moving with the hidden layer."""
    titles = ("input", "roots that are held", "the same roots, moving")
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 2.9), layout="constrained")
        for axis, values, title in zip(
            figure.subplots(1, 3), chosen(), titles, strict=True
        ):
            size = np.abs(values).max()
            colours = {"cmap": "RdBu_r", "vmin": -size, "vmax": size}
            if title == "input":
                colours = {"cmap": "gray_r"}
            axis.imshow(values, **colours)
            axis.set_title(title)
            axis.set_axis_off()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=["shares", "csc", "picture"])
    options = parser.parse_args()
    if "shares" in options.parts:
        tables()
    if "picture" in options.parts:
        _files.write(IMAGES / "roots_picture.png", png(picture_of_roots()))
    if "csc" in options.parts:
        _files.write(IMAGES / "roots_csc.png", png(picture(similarities())))


if __name__ == "__main__":
    main()
