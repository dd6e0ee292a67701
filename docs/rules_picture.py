"""The picture on `docs/rules.md`: one digit under every rule, as PNG bytes.

Trains the demo's network, as `examples/digits.py` does.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

import jaxlrp
from jaxlrp import composites, plot, rules
from jaxlrp.composites import Composite
from jaxlrp.rules import Rule

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `examples` is there

from examples import digits, digits_figures  # noqa: E402

DIGIT = 6
WIDTH = 6  # maps in a row

RULES: dict[str, Rule] = {
    "LRP0()": rules.LRP0(),
    "Epsilon(0.1)\nrelative": rules.Epsilon(0.1, relative=True),
    "Gamma(0.25)": rules.Gamma(0.25),
    "Generalized-\nGamma(0.25)": rules.GeneralizedGamma(0.25),
    "AlphaBeta(2, 1)": rules.AlphaBeta(2.0, 1.0),
    "ZPlus()": rules.ZPlus(),
    "Absolute()": rules.Absolute(),
    "WSquare()": rules.WSquare(),
    "Flat()": rules.Flat(),
    "ZBox(−1, 1)": rules.ZBox(digits.PAPER, digits.INK),
    "TopK(…, 0.5)": rules.TopK(rules.Epsilon(), 0.5),
}


def placed(rule: Rule) -> Mapping[str, Composite]:
    """The rule on more and more layers; a box has a meaning for pixels alone."""
    epsilon = composites.Epsilon()
    places = {"first layer": epsilon.on("layer", rule, first=True)}
    if isinstance(rule, rules.ZBox):
        return places
    return places | {
        "convolutions": epsilon.on("convolution", rule),
        "all layers": epsilon.on("layer", rule),
    }


def maps() -> tuple[np.ndarray, float, dict[tuple[str, str], np.ndarray]]:
    """The image, its logit, and the map for each rule and place."""
    options = digits.Options()
    data = digits.load(options)
    apply, params = digits.build(options.seed)
    params = digits.train(apply, params, data, options)
    image = data.test_images[digits.choose(data.test_labels)[DIGIT]]
    chosen = {
        (name, place): composite
        for name, rule in RULES.items()
        for place, composite in placed(rule).items()
    }

    @jax.jit
    def explain(params: digits.Params, image: jax.Array):
        logits = apply(params, image)
        return logits[DIGIT], {
            key: jaxlrp.lrp(apply, composite, target=DIGIT)(params, image)[..., 0]
            for key, composite in chosen.items()
        }

    logit, found = jax.device_get(explain(params, image))
    return image[..., 0], float(logit), found


def picture() -> bytes:
    """Two blocks of rules; a row for each place, each map on a scale of its own."""
    image, logit, found = maps()
    places = list(placed(rules.LRP0()))
    names = list(RULES)
    blocks = [names[i : i + WIDTH] for i in range(0, len(names), WIDTH)]
    nothing = np.full_like(image, np.nan)
    figure = Figure(figsize=(8.4, 11.0), layout="constrained")
    figure.suptitle(f"a {DIGIT}, logit {logit:.1f}", fontsize=9)
    parts: Any = figure.subfigures(len(blocks), 1)
    for part, block in zip(parts, blocks, strict=True):
        shown = {
            name: np.stack([found.get((name, p), nothing) for p in places])
            for name in block
        }
        plot.images(
            shown,
            image,
            labels={"image": places}
            | {
                name: [
                    "" if np.isnan(one).all() else f"sum {one.sum():.1f}"
                    for one in each
                ]
                for name, each in shown.items()
            },
            overlay="outline",
            invert=True,
            columns=1,
            bar=None,
            percentile=100,
            into=part,
        )
    return digits_figures.png(figure)
