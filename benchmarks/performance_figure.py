"""The picture of what relevance costs: jaxlrp's ratios next to its peers'."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.performance_limits import of_cost

Record = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Point:
    """Time of a method over that of a gradient in the same framework.

    Attributes:
      model: the network, as in `tests.models.usual`.
      composite: of ours that is the same, or nearest to it.
      method: in words.
      package: whose it is.
      ratio: to the gradient.
    """

    model: str
    composite: str
    method: str
    package: str
    ratio: float


MODELS = {
    "vgg16": "VGG16",
    "resnet18": "ResNet18",
    "vit": "ViT-S/16",
    "bert": "BERT-base, 128 tokens",
    "llama": "LLaMA-like, 256 tokens",
}
COMPOSITES = {
    "epsilon": "epsilon",
    "epsilon-plus-flat": "EpsilonPlusFlat",
    "epsilon-gamma-box": "EpsilonGammaBox",
    "epsilon-alpha2-beta1": "EpsilonAlpha2Beta1",
    "attnlrp": "AttnLRP",
    "cplrp": "CP-LRP",
}
PACKAGES = ("zennit", "captum", "lxt", "dynamicLRP")
PUBLISHED = (
    Point("vgg16", "epsilon", "captum epsilon", "captum", 1.75),
    Point("vgg16", "epsilon", "zennit Epsilon", "zennit", 1.98),
    Point("vgg16", "epsilon-plus-flat", "zennit EpsilonPlusFlat", "zennit", 2.80),
    Point("vgg16", "epsilon-alpha2-beta1", "zennit EpsilonAlpha2Beta1", "zennit", 4.60),
    Point("vgg16", "epsilon-gamma-box", "zennit EpsilonGammaBox", "zennit", 5.33),
    Point("vgg16", "epsilon", "dynamicLRP epsilon", "dynamicLRP", 5.77),
    Point("resnet18", "epsilon", "zennit Epsilon", "zennit", 2.43),
    Point("resnet18", "epsilon-plus-flat", "zennit EpsilonPlusFlat", "zennit", 3.93),
    Point("resnet18", "epsilon-gamma-box", "zennit EpsilonGammaBox", "zennit", 8.54),
    Point("vit", "cplrp", "LXT CP-LRP", "lxt", 0.93),
    Point("vit", "", "LXT CP-LRP with gamma", "lxt", 4.20),
    Point("vit", "epsilon", "dynamicLRP", "dynamicLRP", 2.68),
    Point("bert", "attnlrp", "LXT AttnLRP", "lxt", 1.02),
    Point("bert", "epsilon", "dynamicLRP", "dynamicLRP", 2.99),
    Point("llama", "attnlrp", "LXT AttnLRP", "lxt", 1.01),
    Point("llama", "cplrp", "LXT CP-LRP", "lxt", 0.85),
    Point("llama", "epsilon", "dynamicLRP", "dynamicLRP", 2.61),
)
"""What peers took in an earlier comparison, see the page."""

STYLES = {
    "jaxlrp": ("o", "#1f5fbf"),
    "zennit": ("s", "#d1622b"),
    "captum": ("^", "#b88a00"),
    "lxt": ("D", "#4f8a3d"),
    "dynamicLRP": ("v", "#7d7d7d"),
}
ACCELERATED = ("o", "#1f5fbf")
"""Ours on an accelerator: hollow."""
LABELS = {"lxt": "LXT"}


def points(records: Sequence[Record]) -> list[Point]:
    """Ours and the peers', as measured alongside us or else earlier."""
    ours, theirs = [], []
    for record in records:
        if record["table"] == "networks":
            ours += list(_ours(record))
        if record["table"] == "peers":
            theirs += [
                Point(
                    row["model"],
                    row["composite"],
                    row["method"],
                    row["package"],
                    row["seconds"] / row["gradient"],
                )
                for row in record["rows"]
                if row["package"] != "jaxlrp"
            ]
    measured = {(p.model, p.composite, p.package) for p in theirs}
    earlier = [
        p for p in PUBLISHED if (p.model, p.composite, p.package) not in measured
    ]
    return [*ours, *theirs, *earlier]


def _ours(record: Record) -> Iterator[Point]:
    at = record["environment"]
    on = "jaxlrp" if at["backend"] == "cpu" else f"jaxlrp, {at['device']}"
    for row in record["rows"]:
        value = of_cost(row, "run")
        if value is not None:
            yield Point(row["model"], row["composite"], row["composite"], on, value)


def draw(records: Sequence[Record]) -> bytes | None:
    """A PNG with a line for a model and composite; None where none was measured."""
    shown = points(records)
    kinds = {(p.model, p.composite) for p in shown if p.package not in PACKAGES}
    peers = {(p.model, p.composite) for p in shown if p.package in PACKAGES}
    lines = [(m, c) for m in MODELS for c in COMPOSITES if (m, c) in kinds & peers]
    if not lines:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.32 * len(lines)))
    height = {at: len(lines) - i for i, at in enumerate(lines)}
    for name in dict.fromkeys(p.package for p in shown):
        marker, colour = STYLES.get(name, ACCELERATED)
        mine = [
            p for p in shown if p.package == name and (p.model, p.composite) in height
        ]
        if mine:
            axes.scatter(
                [p.ratio for p in mine],
                [height[p.model, p.composite] for p in mine],
                marker=marker,
                facecolors=colour if name in STYLES else "none",
                edgecolors=colour,
                s=42,
                label=LABELS.get(name, name),
                zorder=3,
            )
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    ticks = (0.7, 1, 1.5, 2, 3, 5, 8)
    axes.set_xticks(ticks, map(str, ticks))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("time of relevance over that of a gradient in the same framework")
    names = [f"{MODELS[m]}: {COMPOSITES[c]}" for m, c in lines]
    axes.set_yticks([height[at] for at in lines], names)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower right", frameon=True, fontsize=8)
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, dpi=130, metadata={"Software": None})
    plt.close(figure)
    return content.getvalue()
