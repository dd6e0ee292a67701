"""The report of the digits example: one HTML page with everything inside."""

import base64
import dataclasses
import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from examples import digits_figures
from examples.digits_figures import Column, Flipped


@dataclasses.dataclass(frozen=True)
class Results:
    """What the job found out; the arrays have one entry for each test image."""

    composite: str
    network: str
    train_size: int
    images: np.ndarray  # Float[ndarray, "images height width"]
    labels: np.ndarray
    logits: np.ndarray  # Float[ndarray, "images classes"]
    relevance: np.ndarray  # Float[ndarray, "images classes height width"]
    confused: np.ndarray  # the wrong class with the highest logit
    gradient_times_input: np.ndarray  # Float[ndarray, "images height width"]
    others: dict[str, np.ndarray]  # the same under the other composites
    examples: np.ndarray  # indices of the images shown
    errors: np.ndarray  # indices of the errors, or of the least certain image
    flips: np.ndarray
    faithfulness: dict[str, Flipped]
    cost: dict[str, float]  # seconds for one batch
    cost_batch: int
    seconds_explaining: float
    audit: Any
    environment: str

    @property
    def predicted(self) -> np.ndarray:
        return self.logits.argmax(-1)

    @property
    def accuracy(self) -> float:
        return float((self.predicted == self.labels).mean())

    @property
    def relative_cost(self) -> float:
        return self.cost[self.composite] / self.cost["value_and_grad"]

    @property
    def per_second(self) -> float:
        return self.cost_batch / self.cost[self.composite]

    def maps(self, classes: np.ndarray) -> np.ndarray:
        return self.relevance[np.arange(len(classes)), classes]


METHODS = ("LRP", "gradient x input", "random")
MAX_ERRORS = 8


# Pictures


def figures(results: Results) -> dict[str, bytes]:
    """Every picture of the report as PNG."""
    predicted, logits = results.predicted, results.logits
    return {
        "heatmaps": heatmaps(results),
        "compared": compared(results),
        "errors": errors(results),
        "classes": digits_figures.class_means(
            results.images, results.maps(results.labels), results.labels
        ),
        "conservation": digits_figures.conservation(
            logits[np.arange(len(logits)), predicted],
            {
                "LRP": results.maps(predicted).sum((1, 2)),
                "gradient × input": results.gradient_times_input.sum((1, 2)),
            },
        ),
        "flipping": digits_figures.flipping(
            results.flips,
            {
                name.replace(" x ", " × "): results.faithfulness[name]
                for name in METHODS
            },
        ),
    }


def logit_titles(logits: np.ndarray, classes: np.ndarray) -> list[str]:
    """ "logit of 7: 12.3" for each image."""
    return [
        f"logit of {k}: {row[k]:.1f}".replace("-", "−")
        for row, k in zip(logits, classes, strict=True)
    ]


def heatmaps(results: Results) -> bytes:
    chosen = results.examples
    labels, confused = results.labels[chosen], results.confused[chosen]
    logits = results.logits[chosen]
    return digits_figures.relevance_panel(
        results.images[chosen],
        [f"digit {k}" for k in labels],
        [
            Column(
                "true class",
                results.maps(results.labels)[chosen],
                logit_titles(logits, labels),
            ),
            Column(
                "most confused",
                results.maps(results.confused)[chosen],
                logit_titles(logits, confused),
            ),
        ],
        groups=2,
    )


def compared(results: Results) -> bytes:
    """Three digits under every composite and under gradient × input."""
    chosen = results.examples[2:9:3]
    predicted = results.predicted
    maps = {
        "gradient × input": results.gradient_times_input,
        results.composite: results.maps(predicted),
    } | results.others

    def column(heading: str, relevance: np.ndarray) -> Column:
        return Column(
            heading.replace("epsilon-", "epsilon-\n", 1).replace(" × ", "\n× "),
            relevance[chosen],
            [f"sum {number(r.sum())}" for r in relevance[chosen]],
        )

    return digits_figures.relevance_panel(
        results.images[chosen],
        [f"logit of {predicted[i]}: {results.logits[i].max():.1f}" for i in chosen],
        [column(name, relevance) for name, relevance in maps.items()],
    )


def errors(results: Results) -> bytes:
    chosen = results.errors[:MAX_ERRORS]
    labels, predicted = results.labels[chosen], results.predicted[chosen]
    # Without any error, the least certain image against its runner-up.
    other = np.where(labels == predicted, results.confused[chosen], labels)
    relevance = results.relevance[chosen]
    rows = np.arange(len(chosen))
    logits = results.logits[chosen]
    chosen_maps, other_maps = relevance[rows, predicted], relevance[rows, other]
    differences = logits[rows, predicted] - logits[rows, other]
    return digits_figures.relevance_panel(
        results.images[chosen],
        [f"digit {k}" for k in labels],
        [
            Column("predicted", chosen_maps, logit_titles(logits, predicted)),
            Column(
                "true" if (labels != predicted).any() else "runner-up",
                other_maps,
                logit_titles(logits, other),
            ),
            Column(
                "difference",
                chosen_maps - other_maps,
                [
                    f"{p} over {o}: {d:.1f}"
                    for p, o, d in zip(predicted, other, differences, strict=True)
                ],
            ),
        ],
        groups=2 if len(chosen) > 1 else 1,
        cell=1.03,
    )


# HTML


def tag(name: str, content: str, **attributes: str) -> str:
    written = "".join(
        f' {key.rstrip("_")}="{html.escape(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{written}>{content}</{name}>"


def figure(png: bytes, text: str, caption: str) -> str:
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    # Bytes 16 to 20 of a PNG are its width; text in it should match the page's.
    width = int.from_bytes(png[16:20]) * 96 // digits_figures.DPI
    image = f'<img src="{source}" alt="{html.escape(text)}" width="{width}">'
    return tag("figure", image + tag("figcaption", caption))


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], strong: int | None = None
) -> str:
    """A table whose first column is text and whose others are numbers."""
    head = tag("tr", "".join(tag("th", cell, scope="col") for cell in header))
    body = "".join(
        tag(
            "tr",
            tag("th", row[0], scope="row") + "".join(tag("td", c) for c in row[1:]),
            **({"class_": "strong"} if index == strong else {}),
        )
        for index, row in enumerate(rows)
    )
    return tag("table", tag("thead", head) + tag("tbody", body))


def number(value: float, digits: int = 1) -> str:
    """With a proper minus, thousands apart, and no negative zero."""
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−").replace(",", "\N{THIN SPACE}")


def rounded(value: float, figures: int = 3) -> str:
    """To so many significant figures."""
    return number(float(f"{value:.{figures}g}"), 0)


def percent(value: float, digits: int = 1) -> str:
    return number(100 * value, digits) + " %"


def confusion(results: Results) -> str:
    """True class by row, predicted class by column; zeros left blank."""
    size = results.logits.shape[1]
    counts = np.zeros((size, size), int)
    np.add.at(counts, (results.labels, results.predicted), 1)

    def cell(row: int, column: int) -> str:
        count = int(counts[row, column])
        kind = "right" if row == column else "wrong" if count else "none"
        return tag("td", str(count) if count else "", class_=kind)

    head = tag(
        "tr",
        tag("th", "true ↓ predicted →", scope="col")
        + "".join(tag("th", str(k), scope="col") for k in range(size)),
    )
    body = "".join(
        tag(
            "tr",
            tag("th", str(k), scope="row") + "".join(cell(k, j) for j in range(size)),
        )
        for k in range(size)
    )
    return tag("table", tag("thead", head) + tag("tbody", body), class_="confusion")


def conservation_table(audit: Any) -> str:
    """Where the relevance of the output went, from `jaxlrp.audit`."""
    total = audit.total_out
    rows = [
        ("relevance of the logits", number(total), percent(1)),
        (
            "arrives at the pixels",
            number(audit.total_in),
            percent(audit.total_in / total),
        ),
        *(
            (f"absorbed: {html.escape(name)}", number(value), percent(value / total))
            for name, value in audit.absorbed.items()
            if abs(value) >= 5e-4 * abs(total)  # what the table could show
        ),
    ]
    rest = total - audit.total_in - sum(audit.absorbed.values())
    rows.append(("unaccounted for", number(rest), percent(rest / total)))
    return table(("", "sum over the test set", "share"), rows, strong=1)


def faithfulness_table(results: Results) -> str:
    names = {"LRP": f"LRP, {results.composite}"} | {
        name: f"LRP, {name}" for name in results.faithfulness if name not in METHODS
    }
    order = sorted(
        results.faithfulness,
        key=lambda name: -results.faithfulness[name].between[0],
    )
    rows = []
    for name in order:
        flipped = results.faithfulness[name]
        span = results.flips[-1]
        morf, lerf = (
            float(np.trapezoid(curve[:, 0], results.flips)) / span
            for curve in (flipped.morf, flipped.lerf)
        )
        rows.append(
            (
                names.get(name, name.replace(" x ", " × ")),
                number(morf, 3),
                number(lerf, 3),
                f"{number(flipped.between[0], 3)} ± {number(flipped.error[0], 3)}",
                f"{number(flipped.between[1], 1)} ± {number(flipped.error[1], 1)}",
            )
        )
    header = (
        "ranking by",
        "most first",
        "least first",
        "between, probability",
        "between, logit",
    )
    return table(header, rows, strong=order.index("LRP"))


def cost_table(results: Results) -> str:
    grad = results.cost["value_and_grad"]
    names = {
        "forward": "the network alone",
        "value_and_grad": "jax.value_and_grad",
    }
    rows = [
        (
            names.get(name, f"jaxlrp.value_and_lrp, {name}"),
            number(1e3 * seconds, 2),
            rounded(results.cost_batch / seconds),
            number(seconds / grad, 2),
        )
        for name, seconds in results.cost.items()
    ]
    header = ("", "ms a batch", "images a second", "relative to value_and_grad")
    return table(header, rows, strong=list(results.cost).index(results.composite))


CSS = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 54rem; padding: 2rem 1.25rem 4rem; color: #222;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
  Arial, sans-serif; background: #fff; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .5rem; }
p { margin: .6rem 0; max-width: 44rem; }
p.lead { color: #555; }
code { font: .9em ui-monospace, Menlo, Consolas, monospace; background: #f4f4f4;
  padding: .05em .3em; border-radius: 3px; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: .8rem; margin: 1.6rem 0; }
dl div { border: 1px solid #e3e3e3; border-radius: 6px; padding: .7rem .9rem;
  display: flex; flex-direction: column-reverse; justify-content: flex-end; }
dt { font-size: .82rem; line-height: 1.3; color: #555; }
dd { margin: 0; font-size: 1.5rem; font-weight: 600; white-space: nowrap; }
figure { margin: 1.2rem 0; }
img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .88rem; color: #555; margin-top: .4rem; max-width: 44rem; }
table { border-collapse: collapse; margin: 1.2rem 0; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .8rem; border-bottom: 1px solid #e8e8e8; text-align: right;
  font-weight: 400; }
thead th { font-size: .84rem; color: #555; border-bottom-color: #bbb;
  vertical-align: bottom; }
th:first-child { text-align: left; padding-left: 0; }
tr.strong th, tr.strong td { font-weight: 600; }
table.confusion td { text-align: center; width: 1.6rem; padding: .28rem .3rem; }
table.confusion thead th { text-align: center; padding: .28rem .3rem; }
table.confusion th:first-child { padding-right: .8rem; }
td.right { background: #eef3f8; }
td.wrong { background: #f6d5d0; font-weight: 600; }
footer { margin-top: 3rem; color: #777; font-size: .85rem; }
"""


def page(results: Results, pictures: dict[str, bytes], seconds: float) -> str:
    """The whole report."""
    count = len(results.labels)
    wrong = int((results.predicted != results.labels).sum())
    audit = results.audit
    arrives = audit.total_in / audit.total_out
    lrp = results.faithfulness["LRP"]
    plain = results.faithfulness["gradient x input"]
    logit = results.logits.max(-1)
    gradient_share = results.gradient_times_input.sum() / logit.sum()
    composite = tag("code", html.escape(results.composite))

    key_figures = [
        ("test accuracy", percent(results.accuracy)),
        ("of the logits’ relevance arrives at the pixels", percent(arrives)),
        ("images explained a second", rounded(results.per_second)),
        ("times the cost of value_and_grad", number(results.relative_cost, 2)),
        ("area between the flipping curves", number(lrp.between[0], 2)),
    ]
    key = tag(
        "dl",
        "".join(tag("div", tag("dt", n) + tag("dd", v)) for n, v in key_figures),
    )
    shown = len(results.errors[:MAX_ERRORS])
    if wrong:
        error_text = (
            f"The network is wrong on {wrong} of {count} test images"
            + (f"; the first {shown} are shown" if shown < wrong else "")
            + ". The last map is the relevance for the predicted class minus that for"
            " the true class: it sums to the difference of the two logits, up to what"
            " constants absorb. Red made the wrong class win; blue spoke for the"
            " right one."
        )
    else:
        error_text = (
            "The network makes no error on these test images. This is the image on"
            " which it is least certain, explained against the runner-up."
        )

    sections = [
        tag("h1", "Handwritten digits, explained with jaxlrp"),
        tag(
            "p",
            f"A small convolutional network was trained on {results.train_size} digits"
            f" of 8 × 8 pixels and explained on {count} others with Layer-wise"
            f" Relevance Propagation, composite {composite}."
            " LRP divides the score of a class among the pixels: each pixel’s"
            " relevance is its share of the logit.",
            class_="lead",
        ),
        key,
        tag("h2", "Which pixels"),
        figure(
            pictures["heatmaps"],
            "Ten digits, each with a relevance map for its true class and for the"
            " class it is most easily confused with.",
            "The first test image of each class. Red pixels speak for the class, blue"
            " ones against it, white ones do not matter; all maps share one scale."
            " Thin lines are the outline of the digit. Paper counts as evidence too:"
            " where a stroke would have made another digit, its absence is relevant."
            " (Ink is +1 and paper −1 for the network, so a pixel of either kind can"
            " receive relevance; only a grey pixel, 0, cannot.)",
        ),
        figure(
            pictures["classes"],
            "Mean image and mean relevance of each class.",
            "Mean image and mean relevance for the true class, over all test images"
            " of the class.",
        ),
        tag("h2", "The network and its errors"),
        tag(
            "p",
            f"{count - wrong} of {count} test images are classified correctly."
            f" {html.escape(results.network)}",
        ),
        confusion(results),
        tag("p", error_text),
        figure(
            pictures["errors"],
            "Misclassified digits with their relevance maps.",
            "Each image with the relevance for the predicted class, for the true"
            " class, and the difference of the two."
            if wrong
            else "The image with the relevance for the predicted class, for the"
            " runner-up, and the difference of the two.",
        ),
        tag("h2", "Conservation"),
        tag(
            "p",
            "The relevance of the pixels should add up to the logit they explain. The"
            " difference stays with the network’s own constants, such as biases, which"
            " can speak for the class or against it: it can have either sign."
            " <code>jaxlrp.audit</code> counts where it went.",
        ),
        conservation_table(audit),
        figure(
            pictures["conservation"],
            "Scatter plot of summed relevance against the logit.",
            "One point per test image. Gradient × input sums to"
            f" {percent(gradient_share)} of the logits: layer normalisation makes"
            " the network all but blind to contrast, and the gradient knows only what"
            " happens when the image gets a little stronger. LRP holds the"
            " normalisation’s scale fixed and explains the score itself.",
        ),
        tag("h2", "Faithfulness: flipping pixels"),
        tag(
            "p",
            "If the ranking of pixels is right, wiping out the most relevant ones"
            " first should destroy the prediction quickly, and wiping out the least"
            " relevant ones first should leave it alone. Pixels are set to grey, the"
            " value without information; the curves are means over the test set.",
        ),
        figure(
            pictures["flipping"],
            "Probability of the predicted class against flipped pixels.",
            "The area between the two curves of a method is"
            f" {number(lrp.between[0], 2)} for LRP and"
            f" {number(plain.between[0], 2)} for gradient × input; 1 would be perfect"
            " and 0 is chance.",
        ),
        faithfulness_table(results),
        tag(
            "p",
            "Areas are mean heights over all numbers of flipped pixels, as"
            " probability and as logit, with 95 % intervals over images.",
        ),
        tag("h2", "Other composites"),
        figure(
            pictures["compared"],
            "Three digits with the maps of five composites and gradient × input.",
            "The predicted class of three digits, all maps on one scale. Rules that"
            " favour positive evidence (z⁺ in <code>epsilon-plus</code>, γ in"
            " <code>gamma</code>) give calmer maps, and the flat rule in the first"
            " layer blurs on purpose; the table above says how much of the ranking of"
            " single pixels each of them keeps. Every composite hands the pixels about"
            " the same sum, the logit.",
        ),
        tag("h2", "Cost"),
        tag(
            "p",
            f"Medians for a batch of {results.cost_batch} images, compiled, measured"
            " in turn in this run. One pass explains one class. The maps of all ten"
            f" classes for {count} images took {number(results.seconds_explaining, 1)}"
            " s including compilation.",
        ),
        cost_table(results),
        tag(
            "footer",
            f"{html.escape(results.environment)}. The whole job, from loading to this"
            f" page: {number(seconds, 0)} s. The arrays are in"
            " <code>relevances.npz</code>.",
        ),
    ]
    head = (
        '<meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        + tag("title", "Handwritten digits, explained with jaxlrp")
        + tag("style", CSS)
    )
    body = tag("body", tag("main", "\n".join(sections)))
    return "<!DOCTYPE html>\n" + tag("html", tag("head", head) + body, lang="en")
