"""Draws explanations of photographs: maps of two classes, under several methods.

    python -m benchmarks.real.image_figures          docs/images/real_images*.webp

Red speaks for the class, blue against it. Each map is on its own scale: the strongest
color is the absolute relevance of one pixel in two hundred.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.real import images
from benchmarks.real.images import Method, Network
from examples import efficientnet, photographs
from jaxlrp import _files, attribution, composites, plot

OUT = Path(__file__).parents[2] / "docs" / "images"
STRONGEST = 99.5  # the percentile of absolute relevances that is drawn in full
QUALITY = 95  # of WebP, out of 100
LARGEST = 300_000  # bytes

METHODS = (
    images.other("gradient × input", attribution.gradient_x_input),
    images.lrp("jaxlrp.lrp(f)", composites.Default()),
    images.lrp("EpsilonPlus", composites.EpsilonPlus()),
)


def maps(
    network: Network, methods: Sequence[Method], x: Any, targets: Sequence[int]
) -> np.ndarray:
    """The relevance of each pixel, "methods classes height width"."""
    found = []
    for method in methods:
        inputs = jnp.broadcast_to(jnp.asarray(x), (len(targets), *np.shape(x)))
        explain = method.make(network.apply)
        relevance = images.explained(network, explain, inputs, jnp.asarray(targets))
        found.append(np.asarray(relevance.sum(-1)))
    return np.stack(found)


def draw(
    pixels: np.ndarray,
    classes: Sequence[str],
    methods: Sequence[str],
    relevance: np.ndarray,
) -> bytes:
    """A photograph and, in a row for each class, its maps: a WebP.

    A palette of 256 colors, as PNG has it, takes from a photograph and from maps alike.

    Args:
      pixels: from 0 to 255, "height width 3".
      classes: what is written next to the rows.
      methods: what is written above the maps.
      relevance: "methods classes height width".
    """
    figure = plot.images(
        dict(zip(methods, relevance, strict=True)),
        pixels,
        labels=[f"“{name}”" for name in classes],
        percentile=STRONGEST,
        columns=1,
        bar=None,
        cell=2.25,
    )
    buffer = io.BytesIO()
    options = {"quality": QUALITY, "method": 6}
    figure.savefig(buffer, format="webp", dpi=100, pil_kwargs=options)
    return buffer.getvalue()


def picture(
    network: Network,
    pixels: np.ndarray,
    classes: Sequence[str],
    methods: Sequence[Method] = METHODS,
) -> bytes:
    """Explains a photograph's classes, and draws them: a WebP.

    Args:
      network: of images of this size.
      pixels: from 0 to 255, "height width 3".
      classes: names of classes, a row each.
      methods: a column each.
    """
    targets = [efficientnet.class_names().index(name) for name in classes]
    x = efficientnet.normalise(pixels)
    relevance = maps(network, methods, x, targets)
    return draw(pixels, classes, [m.name for m in methods], relevance)


def motorcycle() -> np.ndarray:
    """A photograph of things that are classes of their own: pixels."""
    photo = next(p for p in photographs.PHOTOGRAPHS if p.name == "motorcycle")
    image = photographs.load(photo)
    # The lower right one of the squares.
    size = (efficientnet.SIZE, efficientnet.SIZE)
    return photographs.cut(image, photographs.boxes(image.size)[4], size)


def cat_and_coffee() -> np.ndarray:
    """Two photographs in one: pixels."""
    cat, coffee = photographs.KNOWN[:2]
    return photographs.montage(cat, coffee, efficientnet.SIZE)


PICTURES = {
    "real_images.webp": (motorcycle, ("crash helmet", "disk brake")),
    "real_images_montage.webp": (cat_and_coffee, ("Egyptian cat", "espresso")),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.image_figures")
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    options = parser.parse_args(argv)
    network = images.pretrained()
    for name, (pixels, classes) in PICTURES.items():
        content = picture(network, pixels(), classes, METHODS)
        if len(content) > LARGEST:
            raise ValueError(f"{name}: got {len(content)} bytes, at most {LARGEST}")
        _files.write(options.out / name, content, folders=True)
        print(options.out / name, flush=True)


if __name__ == "__main__":
    main()
