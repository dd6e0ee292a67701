"""Pictures of the comparison of `benchmarks.faithfulness`, for a person to judge.

    python -m benchmarks.faithfulness_figures        all, to docs/images
    python -m benchmarks.faithfulness_figures --pictures text
    python -m benchmarks.faithfulness_figures --draw  again, from the kept numbers

They need the record that the comparison keeps: it says which methods are the best, and
of how many seeds and examples. What is drawn is of the half that is shown; examples are
the first of that half, or what a rule that is written here takes. The numbers of the
pictures are kept in `faithfulness_figures.json`, from which they can be drawn again
without a network.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
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
from PIL import Image

import jaxlrp
from benchmarks import faithfulness, trained
from benchmarks.faithfulness import Method, Setting
from examples.digits_figures import STYLE, png
from jaxlrp import _files, attribution, composites, evaluation, plot

IMAGES = Path(__file__).parents[1] / "docs" / "images"
NUMBERS = Path(__file__).with_suffix(".json")
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
    """The two curves of a method, means over many examples.

    Attributes:
      heading: why it is shown.
      name: of the method.
      colour: of its side.
      fractions: of the units that are removed, Float[ndarray, "points"].
      morf: the score, the most relevant first, Float[ndarray, "points"].
      lerf: the least relevant first.
      area: between the two.
      error: 1.96 standard errors of it.
    """

    heading: str
    name: str
    colour: str
    fractions: np.ndarray
    morf: np.ndarray
    lerf: np.ndarray
    area: float
    error: float


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
        best = max(bands, key=lambda b: b.area)
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
    morf, lerf = band.morf, band.lerf
    x = 100 * band.fractions
    for curve in (best.morf, best.lerf):
        axes.plot(x, curve, color="0.55", lw=0.7, ls=":")
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
    area = f"{band.area:.1f} ± {band.error:.1f}".replace("-", "−")
    axes.set_title(f"{band.name}\n{area}", fontsize=8, pad=3)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 50, 100], ["0", "50", "100 %"])
    axes.tick_params(labelsize=8)


def _above(axes: Axes, heading: str, points: int) -> None:
    axes.annotate(
        heading,
        (0.5, 1.0),
        (0, points),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=9,
        fontweight="bold",
    )


def images_figure(heads: Mapping[str, str], rows: Sequence[Explained]) -> Figure:
    """Two rows for each image, by pixel and by patch, or the latter alone.

    There is a column for each method.

    Args:
      heads: by method, what is below its name.
      rows: the images.
    """
    lines = [
        (row, fine)
        for row in rows
        for fine in ((True, False) if row.both else (False,))
    ]
    maps: dict[str, np.ndarray] = {}
    labels: dict[str, list[str]] = {"image": [row.title for row, _ in lines]}
    for k, (name, below) in enumerate(heads.items()):
        head = f"{name}\n{below}".strip()
        maps[head] = np.stack([_shown(row, k, fine) for row, fine in lines])
        labels[head] = [
            "" if fine else f"area {_signed(row.maps[k].area)}" for row, fine in lines
        ]
    return plot.images(
        maps,
        np.stack([row.image for row, _ in lines]),
        labels=labels,
        overlay="outline",
        invert=True,
        percentile=100,
        columns=1,
        bar="relevance, each map on its own scale",
        cell=1.05,
    )


def _shown(row: Explained, number: int, fine: bool) -> np.ndarray:
    """The map of a method, of the image's shape; NaN where it has none by pixel."""
    found = row.maps[number].fine if fine else row.maps[number].units
    if found is None:
        return np.full(row.image.shape, np.nan)
    return _as_fine(found, row.image.shape)


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
        for each, kind, values, size in (
            (above, "attention", one.attention[i], float(one.attention[i].max())),
            (below, "relevance", one.relevance[i], scale),
        ):
            title = f"layer {i + 1}: {kind}"
            plot.matrix(values, scale=size, title=title, bar=None, into=each)
            if kind == "attention":  # it has no sign
                each.images[0].set(cmap="Greys", clim=(0, size))
            _tokens(each, one)
        framed = one.attention[i, one.question, one.evidence]
        above.set_xlabel(f"framed {framed:.2f}", fontsize=8)
        framed = one.relevance[i, one.question, one.evidence]
        total = _signed(one.relevance[i].sum())
        below.set_xlabel(f"framed {_signed(framed)}, sum {total}", fontsize=8)
    part.suptitle(one.name, fontweight="bold", fontsize=10)
    part.supxlabel(one.words, fontsize=8)


def _tokens(axes: Axes, one: Attended) -> None:
    """The question and the evidence have names, the entry of both has a frame."""
    ticks, names = [one.question, one.evidence], ["question", "evidence"]
    axes.set_yticks(ticks, names, fontsize=7, rotation=90)
    axes.set_xticks(ticks, names, fontsize=7, rotation=0)
    axes.xaxis.set(ticks_position="bottom", label_position="bottom")
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


def text_figure(texts: Sequence[Told]) -> Figure:
    """A block for each text, a line for each method, on its own scale."""
    heights = [len(t.relevance) for t in texts]
    figure = Figure(figsize=(9.6, 0.31 * (sum(heights) + 2)), layout="constrained")
    axes = figure.subplots(len(texts), 1, squeeze=False, height_ratios=heights)
    for each, text in zip(axes[:, 0], texts, strict=True):
        rows = np.stack(list(text.relevance.values())).astype(float)
        rows[:, text.held] = 0.0  # it is not ranked
        labels = [
            f"{name} ({text.found[name]:.0%})".replace("-", "−")
            for name in text.relevance
        ]
        plot.tokens(
            text.tokens,
            rows,
            labels=labels,
            scale="each",
            title=f"{text.title}: the evidence is {text.tokens[text.evidence]}",
            bar=None,
            width=9.6,
            into=each,
        )
    return figure


def small(figure: Figure, largest: int = LARGEST) -> bytes:
    """As PNG, as sharp as fits; a large one has 256 colours."""
    for dpi in DPI:
        with rc_context(STYLE | {"savefig.dpi": dpi}):
            content = png(figure)
        if len(content) >= largest:
            content = _of_few_colours(content)
        if len(content) < largest:
            return content
    raise ValueError(f"figure: got a PNG of {largest} bytes or more, expected less")


def _of_few_colours(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


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
    areas = np.asarray(evaluation.abpc(morf, lerf))
    colour = {"jaxlrp": OURS, "other": OTHER}.get(key[0], THEIRS)
    name = key[1] if key[0] in ("jaxlrp", "other") else f"{key[0]} {key[1]}"
    return Band(
        heading,
        name.replace(", ", ",\n"),
        CHANCE if key == RANDOM else colour,
        morf.fractions[0],
        morf.scores.mean(0),
        lerf.scores.mean(0),
        float(areas.mean()),
        float(1.96 * areas.std() / np.sqrt(areas.size)),
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


def curves(records: Mapping[str, Record], folder: Path) -> dict[str, list[Band]]:
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
        print(name, {b.heading: round(b.area, 2) for b in rows[name]}, flush=True)
    return rows


IMAGE_METHODS = {
    "AttnLRP": ("jaxlrp", "AttnLRP"),
    "AttnLRP,\nto baseline": ("jaxlrp", "AttnLRP, against the baseline"),
    "AttnLRP,\nalong path": ("jaxlrp", "AttnLRP, along the path"),
    "CP-LRP,\ngamma": ("jaxlrp", "CPLRPGamma"),
    "integrated\ngradients": INTEGRATED,
    "attention\nrollout": ("other", "attention rollout"),
    "Chefer,\nrelevancy": ("Chefer", "relevancy"),
}


def images(
    records: Mapping[str, Record], folder: Path, digits: int = 3
) -> tuple[dict[str, str], list[Explained]]:
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
    return heads, rows


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


def attention(records: Mapping[str, Record], folder: Path) -> list[Attended]:
    networks = []
    for name in ("encoder", "decoder"):
        networks.append(attended(name, settings(records[name], folder)))
    return networks


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


def texts(records: Mapping[str, Record], folder: Path) -> list[Told]:
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
    return told


def written(token: int) -> str:
    """A fact as `C=7`, a question as `C?`, what says nothing as a dash."""
    if token >= trained.NOTHING:
        return "–"
    if token >= trained.QUESTIONS:
        return f"{chr(ord('A') + token - trained.QUESTIONS)}?"
    key, value = divmod(token, trained.VALUES)
    return f"{chr(ord('A') + key)}={value}"


# ---- what is kept ----------------------------------------------------------------

KINDS = {kind.__name__: kind for kind in (Band, Map, Explained, Attended, Told)}
DIGITS = 4


def as_json(value: Any) -> Any:
    """What a picture is drawn from, as JSON; numbers with four digits."""
    if type(value).__name__ in KINDS:
        own = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **{k: as_json(v) for k, v in own.items()}}
    if isinstance(value, np.ndarray):
        return {"kind": "array", "values": as_json(value.tolist())}
    if isinstance(value, Mapping):
        return {"kind": "mapping", "items": [[k, as_json(v)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [as_json(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.{DIGITS}g}")
    return value


def from_json(value: Any) -> Any:
    """What `as_json` was given."""
    if isinstance(value, list):
        return [from_json(v) for v in value]
    if not isinstance(value, dict):
        return value
    kind, own = value["kind"], {k: v for k, v in value.items() if k != "kind"}
    if kind == "array":
        return np.asarray(own["values"], float)
    if kind == "mapping":
        return {k: from_json(v) for k, v in own["items"]}
    return KINDS[kind](**{k: from_json(v) for k, v in own.items()})


@dataclasses.dataclass(frozen=True)
class Picture:
    """How a picture is made.

    Attributes:
      numbers: from the records and the folder of networks to what is drawn.
      draw: from these to the figure.
    """

    numbers: Callable[[Mapping[str, Record], Path], Any]
    draw: Callable[[Any], Figure]


PICTURES: Mapping[str, Picture] = {
    "curves": Picture(curves, curves_figure),
    "vit": Picture(images, lambda found: images_figure(*found)),
    "attention": Picture(attention, attention_figure),
    "text": Picture(texts, text_figure),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faithfulness_figures")
    parser.add_argument(
        "--pictures", nargs="+", default=list(PICTURES), choices=PICTURES
    )
    parser.add_argument("--draw", action="store_true", help="from the kept numbers")
    parser.add_argument("--record", type=Path, default=faithfulness.RECORD)
    parser.add_argument("--trained", type=Path, default=trained.KEPT)
    parser.add_argument("--numbers", type=Path, default=NUMBERS)
    parser.add_argument("--out", type=Path, default=IMAGES, help="default: %(default)s")
    options = parser.parse_args(argv)
    kept = json.loads(options.numbers.read_text()) if options.numbers.exists() else {}
    records: dict[str, Record] = {}
    if not options.draw:
        if not options.record.exists():
            parser.error(f"{options.record}: not there, run `make faithfulness` first")
        records = {r["task"]: r for r in json.loads(options.record.read_text())}
    for name in options.pictures:
        start = time.perf_counter()
        if not options.draw:
            kept[name] = as_json(PICTURES[name].numbers(records, options.trained))
            text = json.dumps(kept, separators=(",", ":")) + "\n"
            _files.write(options.numbers, text.encode(), folders=True)
        elif name not in kept:
            parser.error(f"{options.numbers}: has no numbers of {name!r}")
        figure = PICTURES[name].draw(from_json(kept[name]))
        path = options.out / f"faithfulness_{name}.png"
        content = small(figure)
        _files.write(path, content, folders=True)
        seconds = time.perf_counter() - start
        print(f"{path}: {len(content) / 1e3:.0f} kB, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
