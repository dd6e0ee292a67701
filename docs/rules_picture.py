"""The picture on `docs/rules.md`: one digit under every rule, as PNG bytes.

Trains the demo's network, as `examples/digits.py` does.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

import jaxlrp
from jaxlrp import composites, rules
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
    names = ["image", *RULES]
    blocks = [names[i : i + WIDTH] for i in range(0, len(names), WIDTH)]
    with rc_context(digits_figures.STYLE | {"savefig.dpi": 120}):
        figure = Figure(figsize=(8.4, 9.4), layout="constrained")
        parts: Any = figure.subfigures(len(blocks), 1)
        for part, block in zip(parts, blocks, strict=True):
            axes = part.subplots(len(places), WIDTH, squeeze=False)
            for row, place in enumerate(places):
                for column, name in enumerate(block):
                    one = axes[row, column]
                    if name == "image" and row == 0:
                        digits_figures.show_image(one, image)
                        one.set_title(f"a {DIGIT}\nlogit {logit:.1f}", fontsize=8)
                    elif (name, place) not in found:
                        one.set_axis_off()
                    else:
                        relevance = found[name, place]
                        scale = float(np.abs(relevance).max())
                        digits_figures.show_relevance(one, relevance, image, scale)
                        total = f"sum {relevance.sum():.1f}".replace("-", "−")
                        one.set_xlabel(total, fontsize=8, labelpad=2)
                    if name != "image" and row == 0:
                        one.set_title(name, fontsize=8, fontweight="bold")
                # The places' names stand left of the first maps.
                first = 1 if block[0] == "image" else 0
                axes[row, first].set_ylabel(place, fontsize=8)
        return digits_figures.png(figure)
