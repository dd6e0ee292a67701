"""Pictures of the comparison of `benchmarks.faithfulness`, for a person to judge.

    python -m benchmarks.faithfulness_figures        all, to docs/images
    python -m benchmarks.faithfulness_figures --pictures text

They need the record that the comparison keeps: it says which methods are the best, and
of how many seeds and examples. What is drawn is of the half that is shown; examples are
the first of that half, or what a rule that is written here takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

import jaxlrp
from benchmarks import faithfulness, trained
from benchmarks.faithfulness import Method, Setting
from examples import digits_figures
from examples.digits_figures import DIVERGING, STYLE, png
from jaxlrp import _files, attribution, composites, evaluation

IMAGES = Path(__file__).parents[1] / "docs" / "images"
LARGEST = 250_000
"""Bytes of a picture."""
DPI = (150, 130, 110, 90)
"""Dots per inch, the sharpest first."""
STEPS = 16
SHOWN = slice(1, None, 2)
"""The half of the examples that does not choose."""

Record = Mapping[str, Any]
"""Of one network, as `benchmarks.faithfulness.compare` makes it."""

OURS, THEIRS, OTHER, CHANCE = "#b2182b", "#e08214", "#2166ac", "#888888"
FRAME = "#1b7837"
UNITS = {"CNN": "pixels", "ViT": "patches", "encoder": "tokens", "decoder": "tokens"}

INTEGRATED = ("other", "integrated gradients")
GRADIENT = ("other", "gradient x input")
RANDOM = ("other", "random")
SEARCHED = ("jaxlrp", "gamma by depth, searched")


# ---- what is drawn ---------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Band:
    """The two curves of a method, of many examples.

    Attributes:
      heading: why it is shown.
      name: of the method.
      colour: of its side.
      fractions: of the units that are removed, Float[ndarray, "points"].
      morf: the score, the most relevant first, Float[ndarray, "examples points"].
      lerf: the least relevant first.
      areas: between the two, Float[ndarray, "examples"].
    """

    heading: str
    name: str
    colour: str
    fractions: np.ndarray
    morf: np.ndarray
    lerf: np.ndarray
    areas: np.ndarray


@dataclasses.dataclass(frozen=True)
class Map:
    """An explanation of an image.

    Attributes:
      fine: by pixel, Float[ndarray, "height width"], or None where there is none.
      units: by unit, Float[ndarray, "rows columns"].
      area: between the curves of flipping its units.
    """

    fine: np.ndarray | None
    units: np.ndarray
    area: float


@dataclasses.dataclass(frozen=True)
class Explained:
    """An image under several methods.

    Attributes:
      image: Float[ndarray, "height width"].
      title: which class is explained.
      maps: one for each method.
      both: by pixel, too?
    """

    image: np.ndarray
    title: str
    maps: Sequence[Map]
    both: bool


@dataclasses.dataclass(frozen=True)
class Attended:
    """The attention of a network on a text, and its relevance.

    Attributes:
      name: of the network.
      attention: averaged over heads, Float[ndarray, "layers queries keys"].
      relevance: summed over heads, of the same shape.
      question: the token that asks.
      evidence: the token that the answer rests on.
      words: what is true of all texts.
    """

    name: str
    attention: np.ndarray
    relevance: np.ndarray
    question: int
    evidence: int
    words: str


@dataclasses.dataclass(frozen=True)
class Told:
    """A text under several methods.

    Attributes:
      title: what is asked and answered.
      tokens: as they are written.
      relevance: by method, Float[ndarray, "tokens"].
      found: by method, how often the evidence comes first, of all texts.
      evidence: the token that the answer rests on.
      held: the token that is not ranked.
    """

    title: str
    tokens: Sequence[str]
    relevance: Mapping[str, np.ndarray]
    found: Mapping[str, float]
    evidence: int
    held: int


# ---- figures ---------------------------------------------------------------------


@rc_context(STYLE)
def curves_figure(rows: Mapping[str, Sequence[Band]]) -> Figure:
    """A row for each network, a panel for each method: both curves, and the band.

    Dotted are the curves of the one with the largest area in the row.
    """
    count = max(len(bands) for bands in rows.values())
    size = (1.75 * count + 0.4, 1.9 * len(rows) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), count, sharey="row", squeeze=False)
    for line, (name, bands) in zip(axes, rows.items(), strict=True):
        best = max(bands, key=lambda b: b.areas.mean())
        for each in line[len(bands) :]:
            each.set_axis_off()
        for each, band in zip(line, bands, strict=False):
            _band(each, band, best)
        line[0].set_ylabel(f"{name}\nlogit")
        line[0].set_xlabel(f"{UNITS.get(name, 'units')} removed", labelpad=1)
    for each, band in zip(axes[0], next(iter(rows.values())), strict=False):
        _above(each, band.heading, 40)
    kinds = {"least relevant first": "-", "most relevant first": "--"}
    lines = [Line2D([], [], color="0.2", lw=1.5, ls=ls) for ls in kinds.values()]
    lines.append(Line2D([], [], color="0.55", lw=0.7, ls=":"))
    labels = [*kinds, "largest area in the row"]
    figure.legend(lines, labels, loc="outside lower center", ncols=3)
    return figure


def _band(axes: Axes, band: Band, best: Band) -> None:
    morf, lerf = band.morf.mean(0), band.lerf.mean(0)
    x = 100 * band.fractions
    for curve in (best.morf, best.lerf):
        axes.plot(x, curve.mean(0), color="0.55", lw=0.7, ls=":")
    over = lerf >= morf
    axes.fill_between(
        x, morf, lerf, where=over, interpolate=True, color=band.colour, alpha=0.22, lw=0
    )
    axes.fill_between(
        x, morf, lerf, where=~over, interpolate=True, hatch="////", lw=0,
        facecolor="none", edgecolor=band.colour,
    )  # fmt: skip
    axes.plot(x, lerf, color=band.colour, lw=1.5)
    axes.plot(x, morf, color=band.colour, lw=1.5, ls="--")
    axes.axhline(0, color="0.8", lw=0.6, zorder=0)
    error = 1.96 * band.areas.std() / np.sqrt(band.areas.size)
    area = f"{band.areas.mean():.1f} ± {error:.1f}".replace("-", "−")
    axes.set_title(f"{band.name}\n{area}", fontsize=8, pad=3)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 50, 100], ["0", "50", "100 %"])
    axes.tick_params(labelsize=8)


def _above(axes: Axes, heading: str, points: int, size: int = 9) -> None:
    axes.annotate(
        heading,
        (0.5, 1.0),
        (0, points),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=size,
        fontweight="bold",
    )


@rc_context(STYLE)
def images_figure(heads: Mapping[str, str], rows: Sequence[Explained]) -> Figure:
    """A row for each image and class, two with the pixels; a column for each method.

    Args:
      heads: by method, what is below its name.
      rows: the images.
    """
    count = sum(1 + row.both for row in rows)
    columns = len(heads) + 1
    figure = Figure(figsize=(1.05 * columns, 1.16 * count + 0.6), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(h_pad=0.02, w_pad=0.02, hspace=0.0, wspace=0.02)
    axes = figure.subplots(count, columns, squeeze=False)
    left = iter(axes)
    for row in rows:
        if row.both:
            each = next(left)
            digits_figures.show_image(each[0], row.image)
            each[0].set_ylabel(f"{row.title}\npixels", fontsize=8)
            for one, found in zip(each[1:], row.maps, strict=True):
                _relevance(one, found.fine, row.image)
        each = next(left)
        digits_figures.show_image(each[0], row.image)
        head = "" if row.both else f"{row.title}\n"
        each[0].set_ylabel(f"{head}patches", fontsize=8)
        for one, found in zip(each[1:], row.maps, strict=True):
            _relevance(one, found.units, row.image)
            one.set_xlabel(_signed(found.area), fontsize=8, labelpad=1)
    for one, (name, below) in zip(axes[0, 1:], heads.items(), strict=True):
        one.set_title(below, fontsize=8, pad=3)
        _above(one, name, 14, 8)
    return figure


def _relevance(axes: Axes, found: np.ndarray | None, image: np.ndarray) -> None:
    """On its own scale; nothing where there is none."""
    if found is None:
        axes.set_axis_off()
        axes.set_aspect("equal")
        return
    scale = float(np.abs(found).max()) or 1.0
    digits_figures.show_relevance(axes, _as_fine(found, image.shape), image, scale)


def _signed(value: float) -> str:
    return f"{round(float(value), 1) + 0.0:+.1f}".replace("-", "−")


def _as_fine(relevance: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Repeated, so that it has the image's shape."""
    times = [n // m for n, m in zip(shape, relevance.shape, strict=True)]
    return np.kron(relevance, np.ones(times))


@rc_context(STYLE)
def attention_figure(networks: Sequence[Attended]) -> Figure:
    """The networks side by side: attention, and below it its relevance."""
    layers = sum(len(n.attention) for n in networks)
    figure = Figure(figsize=(2.15 * layers, 5.8), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(h_pad=0.08)
    ratios = [len(n.attention) for n in networks]
    parts: Any = figure.subfigures(1, len(networks), squeeze=False, width_ratios=ratios)
    for part, one in zip(parts[0], networks, strict=True):
        _attended(part, one)
    return figure


def _attended(part: Any, one: Attended) -> None:
    axes = part.subplots(2, len(one.attention), squeeze=False)
    scale = float(np.abs(one.relevance).max()) or 1.0
    for i, (above, below) in enumerate(axes.T):
        above.imshow(one.attention[i], cmap="Greys", vmin=0)
        below.imshow(one.relevance[i], cmap=DIVERGING, vmin=-scale, vmax=scale)
        framed = one.attention[i, one.question, one.evidence]
        above.set_title(f"layer {i + 1}: attention", fontsize=9)
        above.set_xlabel(f"framed {framed:.2f}", fontsize=8)
        framed = one.relevance[i, one.question, one.evidence]
        below.set_title(f"layer {i + 1}: relevance of it", fontsize=9)
        below.set_xlabel(
            f"framed {_signed(framed)}, sum {_signed(one.relevance[i].sum())}",
            fontsize=8,
        )
        for each in (above, below):
            _tokens(each, one)
    part.suptitle(one.name, fontweight="bold", fontsize=10)
    part.supxlabel(one.words, fontsize=8)


def _tokens(axes: Axes, one: Attended) -> None:
    """The question and the evidence have names, the entry of both has a frame."""
    ticks, names = [one.question, one.evidence], ["question", "evidence"]
    axes.set_yticks(ticks, names, fontsize=7, rotation=90)
    axes.set_xticks(ticks, names, fontsize=7)
    for axis in (axes.xaxis, axes.yaxis):
        for label in axis.get_ticklabels():
            _inwards(label, axis is axes.yaxis, label.get_text() == "question", one)
    axes.tick_params(length=2, pad=1)
    axes.spines[:].set(visible=True, color="0.75", linewidth=0.6)
    corner = (one.evidence - 0.5, one.question - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, ec=FRAME, lw=1.4, zorder=3))


def _inwards(label: Any, vertical: bool, asks: bool, one: Attended) -> None:
    """The question is first or last: its name does not stand over the edge."""
    first = one.question == 0
    if vertical:
        label.set_va(("top" if first else "bottom") if asks else "center")
    else:
        label.set_ha(("left" if first else "right") if asks else "center")


@rc_context(STYLE)
def text_figure(texts: Sequence[Told]) -> Figure:
    """A block for each text, a line for each method, on its own scale."""
    lines = sum(len(t.relevance) + 1.6 for t in texts)
    figure = Figure(figsize=(8.8, 0.25 * lines), layout="constrained")
    heights = [len(t.relevance) for t in texts]
    axes = figure.subplots(len(texts), 1, squeeze=False, height_ratios=heights)
    for each, text in zip(axes[:, 0], texts, strict=True):
        _text(each, text)
    return figure


def _text(axes: Axes, text: Told) -> None:
    rows = np.stack(list(text.relevance.values())).astype(float)
    rows[:, text.held] = np.nan
    scales = np.nanmax(np.abs(rows), 1, keepdims=True)
    rows = rows / np.where(scales == 0, 1, scales)
    axes.imshow(rows, cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto")
    for i, row in enumerate(rows):
        for j, (token, value) in enumerate(zip(text.tokens, row, strict=True)):
            ink = "white" if abs(value) > 0.6 else "black"
            ink = "0.5" if j == text.held else ink
            axes.text(j, i, token, ha="center", va="center", fontsize=7.5, color=ink)
    corner = (text.evidence - 0.5, -0.5)
    axes.add_patch(
        Rectangle(corner, 1, len(rows), fill=False, ec=FRAME, lw=2, clip_on=False)
    )
    for i, share in enumerate(text.found.values()):
        axes.text(rows.shape[1] - 0.3, i, f"{share:.0%}", va="center", fontsize=8)
    end = rows.shape[1] + 0.45
    axes.text(end, -0.65, "evidence first", ha="right", va="bottom", fontsize=8)
    axes.set_title(text.title, loc="left")
    axes.set_xticks([])
    axes.set_yticks(range(len(rows)), list(text.relevance))
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color="0.75", linewidth=0.6)


def small(figure: Figure, largest: int = LARGEST) -> bytes:
    """As PNG, as sharp as fits."""
    for dpi in DPI:
        with rc_context(STYLE | {"savefig.dpi": dpi}):
            content = png(figure)
        if len(content) < largest:
            return content
    raise ValueError(f"figure: got a PNG of {largest} bytes or more, expected less")


# ---- what is computed ------------------------------------------------------------


def method(record: Record, seed: int, key: tuple[str, str]) -> Method:
    """A method by side and name; that of the search has the gammas of its seed."""
    for found in faithfulness.methods(record["task"]):
        if (found.side, found.name) == key:
            return found
    if key != SEARCHED:
        raise ValueError(f"key: got {key!r}, which no method of the comparison has")
    gammas = jnp.asarray(record["searches"][seed]["gammas"])
    composite = faithfulness.candidate(record["task"], gammas)
    return faithfulness.against(key[1], composite)


def best(record: Record, which: str) -> tuple[str, str]:
    """The side and the name of the best: `ours`, of a `peer`, or what is `other`."""
    found = record["verdict"][which]
    if which == "ours":
        return "jaxlrp", found
    side, name = found.split(": ", 1)
    return side, name


def flipped(
    at: Setting, made: Method
) -> Callable[[Array, Array], tuple[Array, evaluation.Curve, evaluation.Curve]]:
    """From an example and a class to the relevance of its units and both curves."""
    explain = made.make(at)

    def one(x: Array, target: Array) -> Any:
        relevance = explain(at.params, x, target)
        score = evaluation.logit(functools.partial(at.f, at.params), target)
        curve = functools.partial(
            evaluation.flipping,
            score,
            x,
            relevance,
            baseline=at.baseline,
            steps=STEPS,
            where=at.counts,
            chunk=STEPS + 1,
        )
        return relevance, curve(order="morf"), curve(order="lerf")

    return one


def band(
    record: Record, settings: Sequence[Setting], key: tuple[str, str], heading: str
) -> Band:
    """The curves of the shown half of all seeds."""
    runs: dict[Method, Callable[..., Any]] = {}
    found = []
    for seed, at in enumerate(settings):
        made = method(record, seed, key)
        run = runs.setdefault(made, jax.jit(functools.partial(_curves, at, made)))
        found.append(run(at.params, at.baseline, at.inputs[SHOWN], at.targets[SHOWN]))
    found = jax.device_get(found)
    morf, lerf = jax.tree.map(lambda *a: np.concatenate(a), *found)
    colour = {"jaxlrp": OURS, "other": OTHER}.get(key[0], THEIRS)
    name = key[1] if key[0] in ("jaxlrp", "other") else f"{key[0]} {key[1]}"
    return Band(
        heading,
        name.replace(", ", ",\n"),
        CHANCE if key == RANDOM else colour,
        morf.fractions[0],
        morf.scores,
        lerf.scores,
        np.asarray(evaluation.abpc(morf, lerf)),
    )


def _curves(
    at: Setting, made: Method, params: Any, baseline: Array, *each: Array
) -> Any:
    """One program for all seeds."""
    one = flipped(dataclasses.replace(at, params=params, baseline=baseline), made)
    return jax.lax.map(lambda e: one(*e)[1:], each, batch_size=25)


def settings(record: Record, folder: Path, seeds: int | None = None) -> list[Setting]:
    """The networks that a record is about, with its examples."""
    every = len(record["searches"])
    examples = 2 * record["examples"] // every
    return [
        faithfulness.setting(record["task"], seed, examples, folder)
        for seed in range(every if seeds is None else seeds)
    ]


def curves(records: Mapping[str, Record], folder: Path) -> Figure:
    rows = {}
    for name, record in records.items():
        every = settings(record, folder)
        columns = {
            "our best": best(record, "ours"),
            "best of the peers": best(record, "peer"),
            "best that is not LRP": best(record, "other"),
            "gradient x input": GRADIENT,
            "random": RANDOM,
        }
        rows[name] = [band(record, every, k, h) for h, k in columns.items()]
        print(name, {b.heading: round(float(b.areas.mean()), 2) for b in rows[name]})
    return curves_figure(rows)


IMAGE_METHODS = {
    "AttnLRP": ("jaxlrp", "AttnLRP"),
    "AttnLRP,\nto baseline": ("jaxlrp", "AttnLRP, against the baseline"),
    "AttnLRP,\nalong path": ("jaxlrp", "AttnLRP, along the path"),
    "CP-LRP,\ngamma": ("jaxlrp", "CPLRPGamma"),
    "integrated\ngradients": INTEGRATED,
    "attention\nrollout": ("other", "attention rollout"),
    "Chefer,\nrelevancy": ("Chefer", "relevancy"),
}


def images(records: Mapping[str, Record], folder: Path, digits: int = 3) -> Figure:
    """The first digits that are shown, and the one that was nearly another."""
    record = records["ViT"]
    (at,) = settings(record, folder, seeds=1)
    keys = with_best(IMAGE_METHODS, best(record, "ours"))
    inputs = at.inputs[SHOWN]
    scores = np.asarray(jax.jit(jax.vmap(at.f, (None, 0)))(at.params, inputs))
    asked = questions(scores, digits)
    index, classes = (jnp.asarray(a) for a in zip(*asked, strict=True))
    found = [
        maps(at, method(record, 0, key), inputs[index], classes)
        for key in keys.values()
    ]
    rows = [
        Explained(
            np.asarray(inputs[i, ..., 0]),
            f"a {c}? logit {scores[i, c]:.1f}".replace("-", "−"),
            [of[n] for of in found],
            both=n < digits,
        )
        for n, (i, c) in enumerate(asked)
    ]
    heads = {name: f"mean {area(record, key):.1f}" for name, key in keys.items()}
    return images_figure(heads, rows)


def with_best(
    keys: Mapping[str, tuple[str, str]], ours: tuple[str, str]
) -> dict[str, tuple[str, str]]:
    """Those methods, and our best if it is not among them."""
    if ours in keys.values():
        return dict(keys)
    return {ours[1].replace(", ", ",\n"): ours, **keys}


def questions(scores: np.ndarray, digits: int) -> list[tuple[int, int]]:
    """Which classes of which examples are explained.

    The prediction for the first example of each class, as they come; and both of the
    highest classes of the example where these are closest.
    """
    order = np.argsort(-scores, 1)
    _, first = np.unique(order[:, 0], return_index=True)
    ranked = np.take_along_axis(scores, order, 1)
    close = int((ranked[:, 0] - ranked[:, 1]).argmin())
    asked = [(int(i), int(order[i, 0])) for i in sorted(first)[:digits]]
    return [*asked, *((close, int(c)) for c in order[close, :2])]


def maps(at: Setting, made: Method, inputs: Array, classes: Array) -> list[Map]:
    """The explanations of images by a method."""
    fine = made.make(dataclasses.replace(at, units=(1,) * inputs[0].ndim))
    coarse = flipped(at, made)

    def one(x: Array, target: Array) -> tuple[Array, Any]:
        return fine(at.params, x, target), coarse(x, target)

    found = jax.jit(jax.vmap(one))(inputs, classes)
    pixels, (units, morf, lerf) = jax.device_get(found)
    areas = evaluation.abpc(morf, lerf)
    known = pixels.shape == inputs.shape
    return [
        Map(pixels[n, ..., 0] if known else None, units[n, ..., 0], float(areas[n]))
        for n in range(len(inputs))
    ]


def row_of(record: Record, key: tuple[str, str]) -> Mapping[str, Any]:
    """A method's row of the table."""
    (row,) = [r for r in record["rows"] if (r["side"], r["method"]) == key]
    return row


def area(record: Record, key: tuple[str, str]) -> float:
    """The mean area of a method, from the table."""
    return row_of(record, key)["ABPC"][0]


def attention(records: Mapping[str, Record], folder: Path) -> Figure:
    networks = []
    for name in ("encoder", "decoder"):
        networks.append(attended(name, settings(records[name], folder)))
    return attention_figure(networks)


def attended(name: str, every: Sequence[Setting]) -> Attended:
    """The first text that is shown, of the first seed; the words are about all."""
    found = [attention_maps(at) for at in every]
    raw, relevance = (np.concatenate(kind) for kind in zip(*found, strict=True))
    marks = [a.evidence[SHOWN, :, 0] for a in every if a.evidence is not None]
    evidence = np.concatenate(marks).argmax(1)
    row = every[0].row
    of_all, of_rows = largest(raw, row, evidence)
    ours, _ = largest(relevance, row, evidence)
    words = (
        f"Of {len(raw)} texts, a framed entry is the largest of all in\n"
        f"attention {of_all:.0%} (of the question's rows {of_rows:.0%}), "
        f"relevance {ours:.0%}"
    )
    return Attended(name, raw[0], relevance[0], row, int(evidence[0]), words)


def attention_maps(at: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Attention and its relevance, Float[ndarray, "examples layers queries keys"]."""

    def one(x: Array, target: Array) -> tuple[Array, Array]:
        explain = jaxlrp.lrp(
            at.f, composites.AttnLRP(), target=target, capture=["attention_map"]
        )
        _, captured = explain(at.params, x)
        square = (len(x), len(x))
        relevance = [r.reshape(-1, *square).sum(0) for r in captured.values()]
        raw = [
            attribution.raw_attention(at.f, layer=i, head_axis=(-4, -3))(at.params, x)
            for i in range(len(relevance))
        ]
        return jnp.stack([a.reshape(square) for a in raw]), jnp.stack(relevance)

    return jax.device_get(jax.jit(jax.vmap(one))(at.inputs[SHOWN], at.targets[SHOWN]))


def largest(maps: np.ndarray, row: int, evidence: np.ndarray) -> tuple[float, float]:
    """How often the largest entry is where the question meets the evidence.

    Args:
      maps: Float[ndarray, "examples layers queries keys"].
      row: the question.
      evidence: Int[ndarray, "examples"].

    Returns:
      (of all entries of all layers, of the question's rows in all layers).
    """
    keys = maps.shape[-1]
    of_all = maps.reshape(len(maps), -1).argmax(1) % keys**2
    of_rows = maps[:, :, row].reshape(len(maps), -1).argmax(1) % keys
    hits = of_all == row * keys + evidence, of_rows == evidence
    return float(hits[0].mean()), float(hits[1].mean())


TEXT_METHODS = {
    "AttnLRP": ("jaxlrp", "AttnLRP"),
    "CPLRP": ("jaxlrp", "CPLRP"),
    "AttnLRP, along the path": ("jaxlrp", "AttnLRP, along the path"),
    "DeepLIFT": ("jaxlrp", "DeepLIFT"),
    "integrated gradients": INTEGRATED,
    "gradient x input": GRADIENT,
    "attention rollout": ("other", "attention rollout"),
    "Chefer, relevancy": ("Chefer", "relevancy"),
}


def texts(records: Mapping[str, Record], folder: Path) -> Figure:
    """The first text that is shown, of each kind of network."""
    told = []
    for name in ("encoder", "decoder"):
        record = records[name]
        (at,) = settings(record, folder, seeds=1)
        ids = np.asarray(trained.TASKS[name].test().inputs)[SHOWN][0]
        x, target = at.inputs[SHOWN][0], at.targets[SHOWN][0]
        assert at.evidence is not None
        relevance = {
            shown: np.asarray(
                jax.jit(method(record, 0, key).make(at))(at.params, x, target)
            )[:, 0]
            for shown, key in TEXT_METHODS.items()
        }
        tokens = [written(int(i)) for i in ids]
        told.append(
            Told(
                f"{name}, asked {tokens[at.row]}, answers {int(target)}",
                tokens,
                relevance,
                {
                    shown: row_of(record, key)["evidence"][0]
                    for shown, key in TEXT_METHODS.items()
                },
                int(np.asarray(at.evidence[SHOWN][0, :, 0]).argmax()),
                at.row,
            )
        )
    return text_figure(told)


def written(token: int) -> str:
    """A fact as `C=7`, a question as `C?`, what says nothing as a dash."""
    if token >= trained.NOTHING:
        return "–"
    if token >= trained.QUESTIONS:
        return f"{chr(ord('A') + token - trained.QUESTIONS)}?"
    key, value = divmod(token, trained.VALUES)
    return f"{chr(ord('A') + key)}={value}"


PICTURES: Mapping[str, Callable[[Mapping[str, Record], Path], Figure]] = {
    "curves": curves,
    "vit": images,
    "attention": attention,
    "text": texts,
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faithfulness_figures")
    parser.add_argument(
        "--pictures", nargs="+", default=list(PICTURES), choices=PICTURES
    )
    parser.add_argument("--record", type=Path, default=faithfulness.RECORD)
    parser.add_argument("--trained", type=Path, default=trained.KEPT)
    parser.add_argument("--out", type=Path, default=IMAGES, help="default: %(default)s")
    options = parser.parse_args(argv)
    if not options.record.exists():
        parser.error(f"{options.record}: not there, run `make faithfulness` first")
    records = {r["task"]: r for r in json.loads(options.record.read_text())}
    for name in options.pictures:
        start = time.perf_counter()
        figure = PICTURES[name](records, options.trained)
        path = options.out / f"faithfulness_{name}.png"
        content = small(figure)
        _files.write(path, content, folders=True)
        seconds = time.perf_counter() - start
        print(f"{path}: {len(content) / 1e3:.0f} kB, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
