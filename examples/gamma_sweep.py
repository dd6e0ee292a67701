"""One digit under 24 values of gamma, in one compiled call.

A rule is a pytree whose leaves are its numbers, so gamma can be an array that
`jax.vmap` maps over: the composite is built inside the mapped function. The same
program measures what each gamma is worth, on images of the test set:

    faithfulness   how much higher the logit stays if the pixels of least relevance are
                   wiped out first than if those of most relevance are, as a mean over
                   the number of pixels and a fraction of the logit
    negative       the share of the relevance that is negative, sum|R-| / sum|R|

On this network gamma trades the one for the other: at 0.4 almost no negative relevance
is left, and a quarter of the faithfulness is gone; beyond 10 nothing changes.

Leaves `gamma_sweep.png` in `out/` and prints a table. Run it from the root of the
repository:

    python -m examples.gamma_sweep

Sources: Andeol et al. 2021 (generalised gamma); Samek et al. 2017, "Evaluating the
visualization of what a deep neural network has learned" (pixel flipping).
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

import jaxlrp
from examples import digits, digits_figures
from jaxlrp import _files, composites, plot, rules

GAMMAS = np.geomspace(1e-3, 1e2, 24)
FLIPS = np.arange(0, digits.PIXELS + 1, 4)
ROWS = 3  # of heatmaps
FAITHFUL = "faithfulness: area between flipping curves"
NEGATIVE = "share of negative relevance"


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line can change."""

    out: Path = Path("out")
    epochs: int = 30
    seed: int = 0
    digit: int = 2
    images: int = 100  # that the measures are averaged over


@dataclasses.dataclass(frozen=True)
class Results:
    """What the sweep found out."""

    image: np.ndarray  # Float[ndarray, "height width"]
    relevance: np.ndarray  # Float[ndarray, "gammas height width"], of that image
    faithfulness: np.ndarray  # Float[ndarray, "gammas images"]
    negative: np.ndarray  # Float[ndarray, "gammas images"]
    at_zero: tuple[float, float]  # the means of both measures at gamma = 0


def sweep(apply: digits.Apply) -> Callable:
    """Relevances and both measures for each gamma and each image, in one program.

    The returned function takes parameters, images and gammas.
    """
    flip = digits.flipping(apply, FLIPS)

    def measured(params: digits.Params, image: jax.Array, gamma: jax.Array):
        composite = composites.Uniform(rules.GeneralizedGamma(gamma))
        relevance = jaxlrp.lrp(apply, composite)(params, image)
        both = jnp.stack([relevance, -relevance])  # most and least relevant first
        logits = flip(params, jnp.stack([image, image]), both)[..., 1]
        area = jnp.trapezoid(logits[1] - logits[0], FLIPS) / FLIPS[-1]
        size = jnp.abs(relevance).sum()
        negative = -jnp.minimum(relevance, 0).sum() / size
        return relevance[..., 0], area / logits[0, 0], negative

    of_gammas = jax.vmap(measured, (None, None, 0))

    @jax.jit
    def every(params: digits.Params, images: jax.Array, gammas: jax.Array):
        # One image after another: all at once they would need more memory.
        return jax.lax.map(lambda image: of_gammas(params, image, gammas), images)

    return every


def picture(results: Results) -> bytes:
    """A strip of maps from the smallest gamma to the largest, and both measures."""
    columns = len(GAMMAS) // ROWS
    with rc_context(digits_figures.STYLE):
        figure = Figure(figsize=(8.4, 7.4), layout="constrained")
        halves: Any = figure.subfigures(2, 1, height_ratios=[ROWS * 1.17, 3.0])
        above, below = halves
        plot.images(
            results.relevance,
            results.image,
            labels=[f"γ = {gamma:.3g}" for gamma in GAMMAS],
            beside=False,
            overlay="outline",
            invert=True,
            percentile=100,
            columns=columns,
            bar=None,
            into=above,
        )
        left, right = below.subplots(1, 2)
        for panel, values, at_zero, label in (
            (left, results.faithfulness, results.at_zero[0], FAITHFUL),
            (right, results.negative, results.at_zero[1], NEGATIVE),
        ):
            mean = values.mean(1)
            error = 1.96 * values.std(1) / np.sqrt(values.shape[1])
            colour = digits_figures.LRP_COLOUR
            panel.fill_between(
                GAMMAS, mean - error, mean + error, color=colour, alpha=0.15, lw=0
            )
            panel.plot(GAMMAS, mean, color=colour, marker="o", ms=3)
            panel.axhline(at_zero, color="0.4", lw=0.8, ls="--")
            panel.annotate(
                "γ = 0",
                (1, at_zero),
                (-2, 3),
                xycoords=panel.get_yaxis_transform(),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color="0.4",
            )
            panel.set_xscale("log")
            panel.set_xlabel("γ of all layers")
            panel.set_title(label, loc="left")
            panel.set_ylim(0, None)
            panel.grid(axis="y", color="0.92", lw=0.8)
        return digits_figures.png(figure)


def table(results: Results) -> str:
    """Both measures, means over the images, for every third gamma."""
    lines = ["   gamma  faithfulness  negative"]
    zero = results.at_zero
    lines.append(f"{'0':>8}{zero[0]:>14.3f}{zero[1]:>10.3f}")
    for i in range(0, len(GAMMAS), 3):
        faithful, negative = results.faithfulness[i], results.negative[i]
        lines.append(
            f"{GAMMAS[i]:>8.3g}{faithful.mean():>14.3f}{negative.mean():>10.3f}"
        )
    return "\n".join(lines)


def run(options: Options) -> Results:
    """Train, sweep, write."""
    start = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    job = digits.Options(epochs=options.epochs, seed=options.seed)
    data = digits.load(job)
    apply, params = digits.build(options.seed)
    params = digits.train(apply, params, data, job)
    shown = digits.choose(data.test_labels)[options.digit]
    images = np.concatenate(
        [data.test_images[shown][None], data.test_images[: options.images]]
    )
    f = sweep(apply)
    gammas = np.concatenate([[0.0], GAMMAS]).astype(np.float32)
    sweeping = time.perf_counter()
    relevance, faithful, negative = jax.device_get(f(params, images, gammas))
    sweeping = time.perf_counter() - sweeping
    # Axes are "images gammas ..."; the first image is the one shown, gamma 0 is first.
    results = Results(
        image=images[0, ..., 0],
        relevance=relevance[0, 1:],
        faithfulness=faithful[1:, 1:].T,
        negative=negative[1:, 1:].T,
        at_zero=(float(faithful[1:, 0].mean()), float(negative[1:, 0].mean())),
    )
    print(
        f"{len(images)} images under {len(gammas)} values of gamma, explained and "
        f"measured in {sweeping:.1f} s with compilation"
    )
    print(table(results))
    _files.write(options.out / "gamma_sweep.png", picture(results))
    seconds = time.perf_counter() - start
    print(f"wrote {options.out / 'gamma_sweep.png'}, finished in {seconds:.0f} s")
    return results


def parse(arguments: list[str] | None = None) -> Options:
    defaults = Options()
    parser = argparse.ArgumentParser(
        description="One digit under 24 values of gamma.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=defaults.out, help="folder")
    parser.add_argument(
        "--epochs", type=int, default=defaults.epochs, help="of training"
    )
    parser.add_argument(
        "--seed", type=int, default=defaults.seed, help="of split and training"
    )
    parser.add_argument(
        "--digit",
        type=int,
        default=defaults.digit,
        choices=range(digits.CLASSES),
        help="that is shown",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=defaults.images,
        help="test images to average over",
    )
    return Options(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    run(parse())
