"""Explanations of a network of images, on every photograph that packages carry.

    python -m benchmarks.real.images                 all methods, a table
    python -m benchmarks.real.images --methods Default "zennit EpsilonPlus"

The network is EfficientNet-Lite0 with ImageNet weights (`examples.efficientnet`).

- ABPC: patches of 16 x 16 pixels are replaced by the image's mean colour, in ascending
  and in descending order of their relevance, summed over the patch with its sign. It is
  the area between the curves of the predicted class's logit: the mean gap, in logits.
  Crops are six squares of each photograph; those count of whose class the network is
  at least a fifth sure.
- half: two photographs side by side, in one image. How much of the positive relevance
  of a class lies in the half that shows it, over all pairs of eight photographs whose
  class the network knows. By chance it is one half.
- same: the rank correlation of the absolute relevance of pixels for those two classes.
  Low is good: a map that is the same for both says nothing of either.
- gradient: the correlation with gradient times input.
- size: the sum of absolute relevances over the explained score; the largest. One is no
  cancellation.
- kept: the share of the score that reaches the input; the median.

Errors are one standard error. Crops of one photograph are much alike, so it is that of
a mean over photographs, and not over crops.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxlrp
from benchmarks.real.quick import quick
from examples import efficientnet, photographs
from examples.efficientnet import HIGH, LOW, SIZE
from examples.photographs import Photograph
from jaxlrp import _files, attribution, compat, composites, evaluation, rules
from jaxlrp.composites import Composite
from jaxlrp.evaluation import baselines

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "out" / "real_images.json"

UNIT = 16
LEAST = 0.2
STEPS = (0, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.975, 1)
"""Curves are steep at their ends."""

Apply = Callable[[Any, Array], Array]
Explain = Callable[[Any, Array, Array], Array]
"""From parameters, an image and a class to a relevance of the image's shape."""


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network of images; one is equal to itself alone.

    Attributes:
      apply: from parameters and one image, "height width 3", to its logits.
      params: its parameters.
      unit: the height and the width of a patch that is removed.
    """

    apply: Apply
    params: Any
    unit: int = UNIT


def pretrained() -> Network:
    """EfficientNet-Lite0."""
    return Network(*efficientnet.load())


# ---- images ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Crops:
    """Images, and the classes that the network predicts.

    Attributes:
      inputs: "n height width 3", normalised.
      targets: classes, "n".
      groups: of which photograph each is, by number.
    """

    inputs: Array
    targets: Array
    groups: np.ndarray


def crops(
    network: Network,
    photos: Sequence[Photograph] = photographs.PHOTOGRAPHS,
    least: float = LEAST,
) -> Crops:
    """Six squares of each photograph, where the network is sure enough of a class."""
    found, groups = [], []
    for group, photo in enumerate(photos):
        image = photographs.load(photo)
        for box in photographs.boxes(image.size):
            found.append(photographs.cut(image, box, (SIZE, SIZE)))
            groups.append(group)
    return sure(network, efficientnet.normalise(np.stack(found)), groups, least)


def logits(network: Network, inputs: Any) -> Array:
    """Of each image, "n classes"."""
    apply = _compiled(network.apply)
    return jnp.stack([apply(network.params, x) for x in jnp.asarray(inputs)])


def sure(network: Network, inputs: Any, groups: Any, least: float = LEAST) -> Crops:
    """Those images of whose class the network is sure enough."""
    found = np.asarray(jax.nn.softmax(logits(network, inputs)))
    which = np.flatnonzero(found.max(1) >= least)
    targets = jnp.asarray(found.argmax(1)[which])
    return Crops(jnp.asarray(inputs)[which], targets, np.asarray(groups)[which])


@dataclasses.dataclass(frozen=True)
class Montages:
    """Images with one object in the left half and another in the right.

    Attributes:
      inputs: "n height width 3", normalised.
      targets: the classes of both halves, left and right, "n 2".
    """

    inputs: Array
    targets: Array


def montages(photos: Sequence[Photograph] = photographs.KNOWN) -> Montages:
    """All pairs of photographs."""
    names = efficientnet.class_names()
    pairs = list(itertools.combinations(photos, 2))
    pixels = [photographs.montage(a, b, SIZE) for a, b in pairs]
    targets = [[names.index(str(p.label)) for p in pair] for pair in pairs]
    inputs = efficientnet.normalise(np.stack(pixels))
    return Montages(jnp.asarray(inputs), jnp.asarray(targets))


# ---- methods ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to explain.

    Attributes:
      name: what it is called.
      side: `jaxlrp`, a peer's name for its rules, or `other` for what is not LRP.
      make: from a network's function to the explanation.
    """

    name: str
    side: str
    make: Callable[[Apply], Explain]


def lrp(name: str, composite: Composite, side: str = "jaxlrp") -> Method:
    """LRP under a composite."""

    def make(apply: Apply) -> Explain:
        def explain(params: Any, x: Array, target: Array) -> Array:
            return jaxlrp.lrp(apply, composite, target=target)(params, x)

        return explain

    return Method(name, side, make)


def against(name: str, composite: Composite) -> Method:
    """LRP of the difference to the mean colour: of `d` in `f(mean + d)`."""

    def make(apply: Apply) -> Explain:
        def explain(params: Any, x: Array, target: Array) -> Array:
            base = jnp.broadcast_to(baselines.mean(x), x.shape)
            f = lambda params, d: apply(params, base + d)  # noqa: E731
            return jaxlrp.lrp(f, composite, target=target)(params, x - base)

        return explain

    return Method(name, "jaxlrp", make)


def other(
    name: str,
    attribute: Callable[..., Any],
    side: str = "other",
    mean: bool = False,
    **options: Any,
) -> Method:
    """A method of `jaxlrp.attribution`; with `mean` its baseline is the mean colour."""

    def make(apply: Apply) -> Explain:
        def explain(params: Any, x: Array, target: Array) -> Array:
            given = {**options}
            if mean:
                given["baseline"] = jnp.broadcast_to(baselines.mean(x), x.shape)
            return attribute(apply, target=target, **given)(params, x)

        return explain

    return Method(name, side, make)


def _random(apply: Apply) -> Explain:
    def explain(params: Any, x: Array, target: Array) -> Array:
        bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32).sum()
        key = jax.random.fold_in(jax.random.key(0), bits + target)
        return jax.random.normal(key, x.shape)

    return explain


KEY = jax.random.key(0)


def gamma(value: float) -> Composite:
    """All in proportion, but generalised gamma on convolutions."""
    return composites.Proportional().on("convolution", rules.GeneralizedGamma(value))


METHODS = (
    Method("random", "other", _random),
    other("gradient x input", attribution.gradient_x_input),
    other("integrated gradients", attribution.integrated_gradients, mean=True, steps=8),
    other("DeepLIFT", attribution.deep_lift, "jaxlrp", mean=True),
    other(
        "SmoothGrad x input",
        attribution.smoothgrad,
        key=KEY,
        samples=8,
        method=attribution.gradient_x_input,
    ),
    lrp("Default", composites.Default()),
    against("Default, against the baseline", composites.Default()),
    lrp("Proportional (default before)", composites.Proportional()),
    lrp("Proportional, gamma 0.25 on convolutions", gamma(0.25)),
    lrp(
        "Proportional, gamma 0.25 and bounded sums",
        gamma(0.25).on("sum", rules.GeneralizedGamma(1.0)),
    ),
    lrp("Epsilon", composites.Epsilon()),
    lrp("EpsilonPlus", composites.EpsilonPlus()),
    lrp("EpsilonAlpha2Beta1", composites.EpsilonAlpha2Beta1()),
    lrp("EpsilonGammaBox", composites.EpsilonGammaBox(LOW, HIGH)),
    lrp("DeepTaylor", composites.DeepTaylor()),
    lrp("ExcitationBackprop", composites.ExcitationBackprop()),
    lrp("generalised gamma 0.25", composites.Uniform(rules.GeneralizedGamma(0.25))),
    lrp("EpsilonPlus", compat.zennit.EpsilonPlus(), "zennit"),
    lrp("EpsilonPlusFlat", compat.zennit.EpsilonPlusFlat(), "zennit"),
    lrp("EpsilonAlpha2Beta1", compat.zennit.EpsilonAlpha2Beta1(), "zennit"),
    lrp("EpsilonAlpha2Beta1Flat", compat.zennit.EpsilonAlpha2Beta1Flat(), "zennit"),
    lrp("EpsilonGammaBox", compat.zennit.EpsilonGammaBox(LOW, HIGH), "zennit"),
    lrp("LRPEpsilon", compat.innvestigate.LRPEpsilon(), "iNNvestigate"),
    lrp("LRPZPlus", compat.innvestigate.LRPZPlus(), "iNNvestigate"),
    lrp("LRPAlpha2Beta1", compat.innvestigate.LRPAlpha2Beta1(), "iNNvestigate"),
    lrp(
        "LRPSequentialPresetA",
        compat.innvestigate.LRPSequentialPresetA(),
        "iNNvestigate",
    ),
    lrp(
        "LRPSequentialPresetBFlat",
        compat.innvestigate.LRPSequentialPresetBFlat(),
        "iNNvestigate",
    ),
    lrp(
        "BoundedDeepTaylor",
        compat.innvestigate.BoundedDeepTaylor(LOW, HIGH),
        "iNNvestigate",
    ),
    lrp("LRP", compat.captum.LRP(), "captum"),
    lrp("LRP, gamma", compat.captum.LRP(compat.captum.GammaRule()), "captum"),
    lrp(
        "EpsilonGammaBox",
        compat.relevancepropagation_jl.EpsilonGammaBox(LOW, HIGH),
        "RelevancePropagation.jl",
    ),
    lrp("AttnLRP", composites.AttnLRP()),
    lrp("CPLRP", composites.CPLRP()),
    lrp("ResLRP", composites.ResLRP()),
    lrp("AttnLRP", compat.lxt.AttnLRP(), "LXT"),
    lrp("plain", composites.DynamicLRP(), "dynamicLRP"),
    lrp("gamma 0.25", composites.DynamicLRP(gamma=0.25), "dynamicLRP"),
)
"""Every named preset of this package and of others that suits convolutions."""


# ---- measures --------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def _compiled(f: Callable[..., Array]) -> Callable[..., Array]:
    """A function of one image; it is compiled once for crops and montages."""
    return jax.jit(quick(f))


def explained(network: Network, explain: Explain, inputs: Any, targets: Any) -> Array:
    """The relevances of many images, "n height width 3", one after the other."""
    run = _compiled(explain)
    given = zip(jnp.asarray(inputs), jnp.asarray(targets), strict=True)
    return jnp.stack([run(network.params, x, target) for x, target in given])


@functools.lru_cache(maxsize=1)
def _curves(network: Network) -> Callable[..., Any]:
    """The areas between the curves of many images."""

    def one(params: Any, x: Array, target: Array, units: Array) -> Array:
        apply = functools.partial(quick(network.apply), params)
        score = evaluation.logit(apply, target)
        base = jnp.broadcast_to(baselines.mean(x), x.shape)
        curves = [
            evaluation.flipping(
                score, x, units, baseline=base, order=order, steps=STEPS, chunk=13
            )
            for order in ("morf", "lerf")
        ]
        return evaluation.abpc(*curves)

    def run(params: Any, *given: Array) -> Array:
        return jax.lax.map(lambda at: one(params, *at), given)

    return jax.jit(run)


def patches(network: Network, relevance: Array) -> Array:
    """The sum over each patch, "n rows columns 1"."""
    window = (network.unit, network.unit, -1)
    return jax.vmap(lambda r: evaluation.pool(r, window))(relevance)


def abpc(network: Network, images: Crops, relevance: Array) -> np.ndarray:
    """The area between the curves of each image, in logits."""
    units = patches(network, relevance)
    run = _curves(network)
    return np.asarray(run(network.params, images.inputs, images.targets, units))


@jax.jit
def halves(left: Array, right: Array) -> Array:
    """Where the positive relevance of the classes of two halves lies, "n 2".

    Args:
      left: relevance of the class in the left half, "n height width 3".
      right: of the class in the right half.

    Returns:
      The share of a pixel's positive relevance in the half of its class. Without any
      there is nothing in that half: NaN would leave out the worst.
    """
    middle = left.shape[2] // 2
    shares = []
    for relevance, inside in (
        (left, slice(None, middle)),
        (right, slice(middle, None)),
    ):
        positive = jnp.maximum(relevance.sum(-1), 0)
        whole = positive.sum((1, 2))
        found = positive[:, :, inside].sum((1, 2)) / jnp.where(whole > 0, whole, 1)
        shares.append(found)
    return jnp.stack(shares, -1)


@jax.jit
def alike(left: Array, right: Array) -> Array:
    """The rank correlation of where the relevance of two classes is, "n"."""

    def one(a: Array, b: Array) -> Array:
        return evaluation.spearman(jnp.abs(a.sum(-1)), jnp.abs(b.sum(-1)))

    return jax.vmap(one)(left, right)


@jax.jit
def correlation(a: Array, b: Array) -> Array:
    """Of each relevance with another one, "n"; NaN for a constant one."""

    def one(a: Array, b: Array) -> Array:
        return evaluation.cosine(a - a.mean(), b - b.mean())

    return jax.vmap(one)(a, b)


Measures = Mapping[str, np.ndarray]
"""Numbers of each image, by what is measured."""


def references(network: Network, images: Crops) -> tuple[np.ndarray, Array]:
    """(the score of each image, gradient times input): the same for all methods."""
    found = np.asarray(logits(network, images.inputs))
    scores = found[np.arange(len(found)), np.asarray(images.targets)]
    explain = other("", attribution.gradient_x_input).make(network.apply)
    gradient = explained(network, explain, images.inputs, images.targets)
    return scores, gradient


def measure(
    network: Network,
    explain: Explain,
    images: Crops,
    pairs: Montages,
    given: tuple[np.ndarray, Array] | None = None,
) -> Measures:
    """All measures of an explanation, see above.

    `seconds` is what explaining the crops took, compilation included.

    Args:
      network: what is explained.
      explain: from parameters, an image and a class to a relevance.
      images: for the curves.
      pairs: images with two objects.
      given: what `references` returns for these images.
    """
    scores, gradient = references(network, images) if given is None else given
    start = time.perf_counter()
    relevance = explained(network, explain, images.inputs, images.targets)
    relevance.block_until_ready()
    seconds = time.perf_counter() - start
    both = jnp.concatenate([pairs.inputs, pairs.inputs])
    maps = explained(network, explain, both, pairs.targets.T.reshape(-1))
    left, right = jnp.split(maps, 2)
    found = {
        "ABPC": abpc(network, images, relevance),
        "half": halves(left, right),
        "same": alike(left, right),
        "gradient": correlation(relevance, gradient),
        "size": jnp.abs(relevance).sum((1, 2, 3)) / np.abs(scores),
        "kept": relevance.sum((1, 2, 3)) / scores,
        "seconds": seconds,
    }
    return {name: np.asarray(value) for name, value in found.items()}


# ---- the table -------------------------------------------------------------------


def mean_and_error(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """The mean, and its standard error if the groups were drawn and not the values."""
    gaps = values - values.mean()
    sums = np.array([gaps[groups == g].sum() for g in np.unique(groups)])
    count = len(sums)
    factor = count / (count - 1) if count > 1 else np.nan
    error = np.sqrt(factor * np.square(sums).sum()) / gaps.size
    return float(values.mean()), float(error)


def row(method: Method, found: Measures, groups: np.ndarray) -> dict[str, Any]:
    """What the table says of a method."""
    return {
        "method": method.name,
        "side": method.side,
        "ABPC": mean_and_error(found["ABPC"], groups),
        "half": float(found["half"].mean()),
        "same": float(np.nanmean(found["same"])),
        "gradient": float(np.nanmean(found["gradient"])),
        "size": float(found["size"].max()),
        "kept": float(np.median(found["kept"])),
        "seconds": float(found["seconds"]),
        "each": found["ABPC"].astype(float).round(4).tolist(),
        "halves": found["half"].astype(float).round(4).tolist(),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The methods, the most faithful first."""
    head = ["method", "side", "ABPC", "half", "same", "gradient", "size", "kept", "s"]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for row in sorted(rows, key=lambda r: -r["ABPC"][0]):
        mean, error = row["ABPC"]
        lines.append(
            [
                row["method"],
                row["side"],
                f"{mean:.2f} ± {error:.2f}",
                *(f"{row[name]:.2f}" for name in ("half", "same", "gradient")),
                f"{row['size']:.3g}",
                f"{row['kept']:.3g}",
                f"{row['seconds']:.0f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.images")
    parser.add_argument("--methods", nargs="+", help="only those of these names")
    count = len(photographs.PHOTOGRAPHS)
    parser.add_argument("--photographs", type=int, default=count, help="the first ones")
    parser.add_argument("--record", type=Path, default=RECORD)
    options = parser.parse_args(argv)
    network = pretrained()
    images = crops(network, photographs.PHOTOGRAPHS[: options.photographs])
    pairs = montages(photographs.KNOWN[: options.photographs])
    given = references(network, images)
    print(f"{len(images.groups)} crops, {len(pairs.inputs)} montages", flush=True)
    rows = []
    for method in METHODS:
        names = {method.name, f"{method.side} {method.name}"}
        if options.methods and names.isdisjoint(options.methods):
            continue
        explain = method.make(network.apply)
        found = measure(network, explain, images, pairs, given)
        rows.append(row(method, found, images.groups))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
        _files.write(options.record, json.dumps(rows, indent=1).encode(), folders=True)
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
