"""Where the roots of deep Taylor decomposition lie, and what relevance forgets.

The share of root points that lie in the linear region of the network (of what follows
the layer) at the layer's input, by rule and layer, and the cosine similarity of
relevances that began differently, by depth, for all presets. Networks:

- an MLP 3-10-10-2 with random weights, seed 1, non-negative inputs whose output is
  positive, 1,000 of them, as in the published study;
- two convolutions and a dense layer, trained on handwritten digits;
- eight dense layers, trained on handwritten digits;
- EfficientNet-Lite0 with ImageNet weights (`make real`), on photographs;
- for the similarities also ten dense layers of 64 units with random weights.

    python -m benchmarks.roots              all of it: `make roots`
    python -m benchmarks.roots --parts csc --networks digits --lines DeepTaylor

What is measured is kept in `benchmarks/roots.json`, so that parts can be measured one
after the other; at the end the tables in `docs/roots.md` and `docs/dependence.md` and
`docs/images/roots_*.png` are made of all that is there.

Source: Sixt and Landgraf 2022, "A rigorous study of the deep Taylor decomposition";
Sixt, Granz and Landgraf 2020, "When explanations lie".
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
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
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from examples.digits_figures import STYLE, png
from examples.howto import small
from jaxlrp import _files, composites, deep_taylor, evaluation, rules
from jaxlrp.composites import Composite

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
RECORD = ROOT / "benchmarks" / "roots.json"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
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


@dataclasses.dataclass(frozen=True)
class Network:
    """A network whose layers are looked at.

    Attributes:
      f: a function of its parameters and one input.
      params: the parameters.
      inputs: examples, along the leading axis.
      layers: names of the layers whose roots are looked for, from the input on.
      sites: names of values at which relevances are compared, from the output down.
      box: the bounds of the input, for z-box in the first layer.
      neurons: how many roots of each layer and input.
      presets: for the similarities, how many inputs, and how many pairs of seeds.
    """

    f: Callable[..., Any]
    params: Any
    inputs: Array
    layers: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    box: tuple[float, float] | None = None
    neurons: int = 32
    compared: int = 16


def random_mlp(negative: bool) -> Network:
    """That of the study."""
    params = drawn(negative)
    layers = tuple(f"params[{i}][0]" for i in range(len(SIZES) - 1))
    return Network(mlp, params, points(params), layers)


def ten_layers() -> Network:
    """Ten dense layers of 64 units with random weights."""
    kernels = jax.random.normal(jax.random.key(2), (10, 64, 64)) * (2 / 64) ** 0.5
    inputs = jnp.abs(jax.random.normal(jax.random.key(3), (16, 64)))
    sites = tuple(f"h{i}" for i in reversed(range(9)))
    return Network(deep, kernels, inputs, sites=sites)


def digits_cnn() -> Network:
    """Two convolutions, the maximum over places, and a dense layer."""
    model, images, _ = small.digits()
    return Network(
        digit,
        model,
        jnp.asarray(images[:50]),
        ("edges.kernel", "parts.kernel", "scores.kernel"),
        ("parts.kernel", "edges.kernel"),
        (0.0, 1.0),
        16,
    )


def digits_mlp() -> Network:
    """Eight dense layers of 64 units, trained on digits."""
    kernels, images = small_mlp()
    count = len(kernels)
    return Network(
        deep_dense,
        kernels,
        images,
        tuple(f"params[{i}].w" for i in range(count)),
        tuple(f"h{i}" for i in reversed(range(count - 1))),
        (0.0, 1.0),
        16,
    )


BLOCKS = (0, 1, 3, 5, 7, 8, 10, 12, 14, 15)
"""Blocks of EfficientNet-Lite0 whose relevances are compared."""


def efficientnet_lite() -> Network:
    """EfficientNet-Lite0, on eight photographs whose class it knows."""
    from examples import efficientnet, photographs

    apply, params = efficientnet.load()
    images = [efficientnet.prepare(photographs.load(p)) for p in photographs.KNOWN]
    return Network(
        apply,
        params,
        jnp.asarray(np.stack(images)),
        (
            "params.stem.kernel",
            "params.block_0.depthwise.kernel",
            "params.block_3.expand.kernel",
            "params.block_3.depthwise.kernel",
            "params.block_8.expand.kernel",
            "params.block_8.depthwise.kernel",
            "params.head.kernel",
            "params.classifier.kernel",
        ),
        tuple(f"*block_{i}" for i in reversed(BLOCKS)),
        (efficientnet.LOW, efficientnet.HIGH),
        4,
        4,
    )


NETWORKS: dict[str, Callable[[], Network]] = {
    "MLP 3-10-10-2, biases of both signs": functools.partial(random_mlp, False),
    "MLP 3-10-10-2, biases that are not positive": functools.partial(random_mlp, True),
    "ten dense layers, random": ten_layers,
    "digits CNN": digits_cnn,
    "digits, eight dense layers": digits_mlp,
    "EfficientNet-Lite0": efficientnet_lite,
}
BOXED = "z-plus, z-box first"


def shares_of(network: Network, line: str, layer: str) -> list[float]:
    """The shares of roots of one layer, of all inputs, and how many these are."""
    if line == BOXED:
        assert network.box is not None
        composite: Composite = composites.DeepTaylorBounded(*network.box)
    else:
        composite = RULES[line]
    (found,) = shares(
        network.f,
        network.params,
        network.inputs,
        composite,
        layers=layer,
        neurons=network.neurons,
        chunk=network.neurons,
    ).values()
    return found


# ---- similarities ------------------------------------------------------------------


def deep(kernels: Array, x: Array) -> Array:
    """Ten dense layers with ReLUs."""
    for number, kernel in enumerate(kernels):
        x = checkpoint_name(jax.nn.relu(x @ kernel), f"h{number}")
    return x


def deep_dense(params: Any, x: Array) -> Array:
    """Dense layers with biases, and ReLUs between them."""
    for number, layer in enumerate(params):
        x = x @ layer["w"] + layer["b"]
        last = number == len(params) - 1
        x = x if last else checkpoint_name(jax.nn.relu(x), f"h{number}")
    return x


@functools.cache
def small_mlp(depth: int = 8, steps: int = 600) -> tuple[Any, Array]:
    """(dense layers trained on digits, images that they have not seen)."""
    bunch: Any = load_digits()
    images = jnp.asarray(bunch.images.reshape(-1, 64) / 16, jnp.float32)
    labels = jnp.asarray(bunch.target)
    sizes = (64, *[64] * (depth - 1), 10)
    keys = jax.random.split(jax.random.key(4), depth)
    params = [
        {"w": jax.random.normal(k, (a, b)) * (2 / a) ** 0.5, "b": jnp.zeros(b)}
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    optimiser = optax.adam(1e-3)

    def loss(params: Any, chosen: Array) -> Array:
        scores = jax.vmap(deep_dense, (None, 0))(params, images[chosen])
        return optax.softmax_cross_entropy_with_integer_labels(
            scores, labels[chosen]
        ).mean()

    def step(carry: Any, key: Array) -> Any:
        params, state = carry
        chosen = jax.random.choice(key, 1200, (64,))
        updates, state = optimiser.update(jax.grad(loss)(params, chosen), state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(5), steps)
    start = params, optimiser.init(params)
    params = jax.jit(lambda s: jax.lax.scan(step, s, keys)[0][0])(start)
    scores = jax.vmap(deep_dense, (None, 0))(params, images[1200:])
    right = float((scores.argmax(-1) == labels[1200:]).mean())
    print(f"eight dense layers tell {right:.3f} of the digits", flush=True)
    return params, images[1200:1250]


PRESETS: dict[str, Composite] = {
    "DeepTaylor": composites.DeepTaylor(),
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


def similarities_of(network: Network, preset: str) -> list[float]:
    """Mean similarities at the network's sites, and at the input last."""
    sites = network.sites
    of = evaluation.csc(
        network.f, PRESETS[preset], key=jax.random.key(0), capture=sites, seeds=6
    )
    inputs = network.inputs[: network.compared]
    every = jax.jit(lambda p, xs: jax.lax.map(lambda x: of(p, x), xs))
    found = every(network.params, inputs)
    return [float(np.nanmean(_by(found, n))) for n in (*sites, "input")]


def _by(found: dict[str, Array], pattern: str) -> Array:
    """The one that a pattern names, by its end or by its last part."""
    fitting = [k for k in found if k == pattern or k.endswith(pattern.lstrip("*"))]
    assert len(fitting) == 1, (pattern, list(found))
    return found[fitting[0]]


def picture(found: dict[str, dict[str, list[float]]]) -> Figure:
    """A line for each preset, from the output on."""
    with rc_context(STYLE):
        columns = math.ceil(len(found) / 2) if len(found) > 3 else len(found)
        rows = math.ceil(len(found) / columns)
        figure = Figure(figsize=(4.6 * columns + 2, 3.6 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
        for axis, (network, lines) in zip(axes, found.items(), strict=False):
            for number, preset in enumerate(p for p in PRESETS if p in lines):
                values = lines[preset]
                dashes = "-" if number < 6 else "--"
                below = np.arange(1, len(values) + 1)
                axis.plot(below, values, dashes, label=preset, marker="o", markersize=3)
            axis.set_title(network)
            axis.set_xlabel("places looked at, from the output to the input")
            axis.set_ylim(0, 1.02)
            axis.xaxis.get_major_locator().set_params(integer=True)
        for axis in list(figure.axes)[len(found) :]:
            axis.set_axis_off()
        figure.axes[0].set_ylabel("|cosine| of relevances of two seeds")
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right center", fontsize=8)
    return figure


# ---- the record and the pages ------------------------------------------------------

Record = dict[str, dict[str, dict[str, Any]]]


def kept() -> Record:
    """What has been measured: by part, network, and rule or preset."""
    if not RECORD.exists():
        return {"shares": {}, "csc": {}}
    return json.loads(RECORD.read_text())


def keep(part: str, network: str, line: str, value: Any) -> None:
    """Adds to the record, which another process may have changed meanwhile."""
    record = kept()
    record[part].setdefault(network, {})[line] = value
    text = json.dumps(record, indent=1)
    _files.write(RECORD, text.encode(), folders=True)
    print(json.dumps([part, network, line, value]), flush=True)


def short(layer: str) -> str:
    """A layer's name as a table has it."""
    return layer.removeprefix("params.").removesuffix(".kernel")


def table_of_shares(record: Record) -> str:
    """For each network a table: rules, and by layer the shares of their roots."""
    parts = []
    for network in (n for n in NETWORKS if n in record["shares"]):
        lines = record["shares"][network]
        layers = list(max(lines.values(), key=len))
        counts = [v[-1] for found in lines.values() for v in found.values()]
        many = f"{min(counts):,} to {max(counts):,}"
        parts += [
            f"**{network}**, {many} roots of each layer:",
            "",
            "| rule | " + " | ".join(f"`{short(layer)}`" for layer in layers) + " |",
            "| --- |" + " --- |" * len(layers),
        ]
        for line, found in lines.items():
            cells = [share(found[n]) if n in found else "" for n in layers]
            parts.append(f"| {line} | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def share(found: Sequence[float]) -> str:
    """In the region, and in brackets in the domain."""
    return f"{found[1]:.0%} ({found[0]:.0%})".replace("%", " %")


def table_of_similarities(record: Record) -> str:
    """For each network presets and what is left at depths, the input last."""
    parts = []
    for network in (n for n in NETWORKS if n in record["csc"]):
        lines = record["csc"][network]
        count = len(next(iter(lines.values())))
        shown = sorted({*np.linspace(0, count - 1, min(count, 6)).round().astype(int)})
        names = [f"{i + 1}" if i < count - 1 else "input" for i in shown]
        parts += [
            f"**{network}**, places from the output to the input:",
            "",
            "| preset | " + " | ".join(names) + " |",
            "| --- |" + " --- |" * len(shown),
        ]
        for preset in (p for p in PRESETS if p in lines):
            cells = [f"{lines[preset][i]:.3f}".lstrip("0") for i in shown]
            parts.append(f"| `{preset}` | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def with_block(page: str, block: str) -> str:
    """The page with the block between its marks.

    Raises:
      ValueError: if it has none.
    """
    before, found, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f"page: it has no marks {BEGIN.strip()}, {END.strip()}")
    return f"{before}{BEGIN}\n{block}{END}{after}"


def write_pages() -> None:
    """The tables and the picture, of all that is in the record."""
    record = kept()
    for name, table in (
        ("roots", table_of_shares(record)),
        ("dependence", table_of_similarities(record)),
    ):
        page = ROOT / "docs" / f"{name}.md"
        _files.write(page, with_block(page.read_text(), table).encode())
    ordered = {n: record["csc"][n] for n in NETWORKS if n in record["csc"]}
    if ordered:
        _files.write(IMAGES / "roots_csc.png", png(picture(ordered)))


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


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roots")
    parts = ("shares", "csc", "picture")
    parser.add_argument("--parts", nargs="*", default=list(parts), choices=parts)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--lines", nargs="*", help="rules, or presets")
    parser.add_argument("--layers", nargs="*", help="of roots, those with this text")
    options = parser.parse_args(argv)
    for name in options.networks if set(options.parts) & {"shares", "csc"} else ():
        network = NETWORKS[name]()
        if "shares" in options.parts and network.layers:
            known = [*RULES, *([BOXED] if network.box else [])]
            for line in (x for x in known if x in (options.lines or known)):
                found = kept()["shares"].get(name, {}).get(line, {})
                wanted = options.layers or [""]
                for layer in (n for n in network.layers if any(w in n for w in wanted)):
                    found[layer] = shares_of(network, line, layer)
                    ordered = {n: found[n] for n in network.layers if n in found}
                    keep("shares", name, line, ordered)
        if "csc" in options.parts and network.sites:
            for preset in options.lines or PRESETS:
                keep("csc", name, preset, similarities_of(network, preset))
    if "picture" in options.parts:
        _files.write(IMAGES / "roots_picture.png", png(picture_of_roots()))
    write_pages()


if __name__ == "__main__":
    main()
