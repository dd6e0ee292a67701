"""The pictures of the digits example: arrays in, PNG bytes out."""

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlrp import plot

DPI = 150
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.dpi": DPI,
}
# Blue, white, red: white is no relevance, red speaks for the class, blue against.
DIVERGING = "RdBu_r"
LRP_COLOUR, OTHER_COLOUR, RANDOM_COLOUR = "#b2182b", "#2166ac", "#888888"


@dataclasses.dataclass(frozen=True)
class Flipped:
    """Pixel flipping averaged over images; the last axis is (softmax, logit)."""

    morf: np.ndarray  # Float[ndarray, "flips 2"], most relevant first
    lerf: np.ndarray  # Float[ndarray, "flips 2"], least relevant first
    between: np.ndarray  # Float[ndarray, "2"], mean height between the two
    error: np.ndarray  # Float[ndarray, "2"], half a 95 % interval of it


@dataclasses.dataclass(frozen=True)
class Column:
    """Maps of a panel, one per row, with a title for each."""

    heading: str
    maps: np.ndarray  # Float[ndarray, "rows height width"]
    titles: Sequence[str]


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # No date and no version: the same arrays give the same file.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def show_image(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
    bare(axes)


def show_relevance(axes: Axes, relevance: np.ndarray, image: np.ndarray, scale: float):
    """Relevance with the outline of the digit, at the grey level, above it."""
    drawn = axes.imshow(
        relevance, cmap=DIVERGING, vmin=-scale, vmax=scale, interpolation="nearest"
    )
    if image.min() < 0 < image.max():
        axes.contour(image, levels=[0.0], colors="0.25", linewidths=0.7)
    bare(axes)
    return drawn


def bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color="0.75", linewidth=0.6)


def relevance_panel(
    images: np.ndarray,
    titles: Sequence[str],
    columns: Sequence[Column],
    groups: int = 1,
    cell: float = 1.2,
) -> bytes:
    """A row per image: the image, then one map per column, all on one scale.

    The rows are laid out in `groups` blocks side by side; a map is about `cell` inches
    wide.
    """
    figure = plot.images(
        {column.heading: column.maps for column in columns},
        images,
        labels={"image": titles} | {c.heading: c.titles for c in columns},
        overlay="outline",
        invert=True,
        scale="all",
        percentile=100,
        columns=groups,
        bar="relevance of a pixel (in units of the logit)",
        cell=cell,
    )
    figure.set_dpi(DPI)
    return png(figure)


def class_means(images: np.ndarray, relevance: np.ndarray, labels: np.ndarray) -> bytes:
    """Mean image and mean relevance of the images of each class."""
    classes = np.unique(labels)
    figure = plot.images(
        np.stack([relevance[labels == k].mean(0) for k in classes]),
        np.stack([images[labels == k].mean(0) for k in classes]),
        labels=classes,
        overlay="outline",
        invert=True,
        scale="all",
        percentile=100,
        columns=5,
        cell=0.85,
    )
    figure.set_dpi(DPI)
    return png(figure)


def conservation(logit: np.ndarray, sums: dict[str, np.ndarray]) -> bytes:
    """Sum of relevance over the pixels against the logit, a point per image."""
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.subplots()
        colours = [LRP_COLOUR, OTHER_COLOUR]
        for (name, total), colour in zip(sums.items(), colours, strict=True):
            axes.scatter(logit, total, s=9, color=colour, alpha=0.45, lw=0, label=name)
        ends = np.array([min(0.0, logit.min()), logit.max() * 1.03])
        axes.plot(ends, ends, color="0.3", lw=0.8, ls="--", label="sum = logit")
        axes.axhline(0, color="0.85", lw=0.8, zorder=0)
        axes.set_xlabel("logit of the predicted class")
        axes.set_ylabel("sum over the pixels")
        legend = axes.legend(loc="upper left", markerscale=2)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
        return png(figure)


def flipping(flips: np.ndarray, curves: dict[str, Flipped]) -> bytes:
    """Softmax of the predicted class, most and least relevant pixels first."""
    colours = [LRP_COLOUR, OTHER_COLOUR, RANDOM_COLOUR]
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.3), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for (name, curve), colour in zip(curves.items(), colours, strict=True):
            style = {"color": colour, "lw": 1.8, "label": name}
            left.plot(flips, curve.morf[:, 0], **style)
            right.plot(flips, curve.lerf[:, 0], **style)
        left.set_title("most relevant first (lower is better)", loc="left")
        right.set_title("least relevant first (higher is better)", loc="left")
        left.set_ylabel("mean probability of the\npredicted class")
        left.legend(loc="upper right")
        for axes in (left, right):
            axes.set_xlabel("pixels set to grey (of 64)")
            axes.set_xlim(0, flips[-1])
            axes.set_xticks(np.arange(0, flips[-1] + 1, 8))
            axes.set_ylim(0, 1.02)
            axes.grid(axis="y", color="0.92", lw=0.8)
        return png(figure)
