"""The page of what relevance costs, and its picture, from kept records."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import on_device, performance_figure, performance_limits, rates
from benchmarks.performance_limits import CHECKS, Check, of_cost
from jaxlrp import _files

Record = Mapping[str, Any]
PEERS = "peers"
"""The table of `benchmarks.peers_speed`."""

FALLS_SHORT = """\
[Where the time goes](#where-the-time-goes) has the profiles.

- *Memory of EpsilonGammaBox and EpsilonAlpha2Beta1*: with one example it is mostly
  changed weights. XLA's default schedule on a CPU computes all of them at the start of
  the program. With its other one (`xla_cpu_scheduler_type`,
  `CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED`) the gradient takes 25, 109 and 54 MB on
  ResNet18, VGG16 and ResNet50, and these rules 1.08, 1.14 and 1.66 times that. ResNet50
  has many layers before residual sums, for which a rule's factor is kept in addition to
  what the ReLU after the sum needs.
- *Memory of epsilon on BERT* is at the limit: it divides by outputs of layers that a
  gradient does not keep.
- *Time of these on ResNets*: layers before a residual sum take four products, where a
  ReLU after them would make it three. XLA's convolutions with 1x1 kernels are fast, so
  elementwise work shows next to them.
- *Dense layers with few rows*: rules that change weights write all weights once more in
  each call, with one row three times the gradient's own products. `jaxlrp.prepare` does
  so once for a dataset. With it only the third product of z-plus and gamma is left, for
  one row at the speed of reading the weights.
- *First layers*: flat and w-square are at the number of products that their formulas
  have, z-box at two on the way back, each with its own weights. XLA's convolution to
  three features on a CPU is as slow as one to many, and the elementwise quotient over
  64 features shows next to products of three. Of the 3x3 layer's gradient the forward
  pass alone is half: flat's limit leaves a tenth of it for reading what arrives and
  what it is a multiple of.
- *Hundredths*: LRP-0 runs the operations of the gradient itself; the distance of its
  rows from 1.00 is noise.
- *Compiling a loop over layers*: the function is traced, and traced again with rules in
  it. What is compiled is as much as for the gradient, or less; tracing takes longer,
  1.0 to 1.5 of the gradient's, of which reading is an eighth. The epsilon of
  the default is relative: it has two more kernels for each layer, for a mean square
  and its root.
"""
"""What is above its limit, and why: a section of the page, in Markdown."""

INTRODUCTION = """\
<!-- Written by benchmarks/performance.py, by `make bench`. -->

# Performance

What relevance costs, in units of one gradient: `jaxlrp.value_and_lrp` over
`jax.value_and_grad` with respect to the same input. Both sides are compiled and return
the network's scores as well as the relevance or the gradient of the highest one;
parameters are arguments. Networks have random weights and take one example in float32.

- *time*: medians of rounds in which all programs of a table take turns, each starting
  another one.
- *memory*: temporary memory of the compiled programs, as XLA reports it.
- *contractions*: matrix products and convolutions in the optimised programs, of
  relevance and of the gradient; those in a loop's body count once.
- *flops*: floating-point operations, as XLA counts them.
- *trace*, *compile*, *both*: time to trace, read and lower, to compile, and all of it.

Bold figures are above their limit. Contractions and memory of small networks are
checked by `tests/test_costs.py`; no test looks at a clock.
"""

TITLES = {
    "networks": (
        "Networks",
        "Limits: rules of one pass (proportional, LRP-0, epsilon, AttnLRP, CP-LRP) "
        "1.10 in time and 1.15 in memory, their medians 1.00. The default has the same "
        "limits where it splits no weights of a large layer; its limits elsewhere, and "
        "those of other composites that split weights, are in the summary.",
    ),
    "layers": (
        "One layer",
        "Between ReLUs the input is known to be nonnegative, and relevance arrives "
        "only where the result is positive. With both signs nothing is known. A first "
        "layer comes before a ReLU. *Prepared*: `jaxlrp.prepare` has changed the "
        "weights before.",
    ),
    "deep": (
        "Compiling 24 layers",
        "A decoder of 24 equal layers, one after the other and by `lax.scan` over "
        "stacked weights. Tracing and compiling are medians of new functions.",
    ),
    "lengths": (
        "Long programs",
        "Processor time to trace and read programs of elementwise equations: `chain` "
        "is one activation as a whole, `residual` as many steps as equations. Doubling "
        "a program may take 2.4 times as long.",
    ),
    "targets": (
        "Many targets of one input",
        "One call for all classes, by `jax.vmap` over `target` or by "
        "`jaxlrp.lrp_each`, against a compiled call for each.",
    ),
    "side-by-side": (
        "Gradient and relevance side by side",
        "`jaxlrp.value_grad_and_lrp` gives both from one forward pass; in units of the "
        "gradient alone.",
    ),
    "profiles": (
        "Where the time goes",
        "What threads are busy with, by JAX's profiler, for layers and networks that "
        "are above a limit: contractions, and all other work, in units of "
        "all that the gradient is busy with.",
    ),
}

COST = ("time", "memory", "contractions", "flops", "trace", "compile", "both")
HEADERS: dict[str, tuple[str, ...]] = {
    "networks": ("model", "composite", "gradient, ms", "its MB", *COST),
    "layers": ("layer", "rule", "gradient, ms", *COST[:4]),
    "deep": ("layers", "composite", "gradient, s to compile", *COST),
    "lengths": ("program", "equations", "gradient, s", "relevance, s", "half of it"),
    "targets": ("model", "by", "targets", "separate, s", "together, s", "time"),
    "side-by-side": ("model", "composite", "gradient, ms", *COST[:4]),
    "profiles": (
        "model",
        "composite",
        "gradient, busy ms",
        "its contractions",
        "other work",
        "relevance, contractions",
        "other work",
    ),
}


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(header: Sequence[str], lines: Sequence[Sequence[str]], words: int = 2) -> str:
    """A table in Markdown whose first columns are words."""
    rule = ["---" if i < words else "---:" for i in range(len(header))]
    return "\n".join(map(line, (header, rule, *lines))) + "\n"


def number(value: float | None, over: bool = False) -> str:
    if value is None:
        return "–"
    return f"**{value:.2f}**" if over else f"{value:.2f}"


def cells(name: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The lines of a table."""
    checks = list(CHECKS[name](rows))
    over = {(c.name, c.measure) for c in checks if not c.met}
    if name == "lengths":
        times = {c.name: c for c in checks}
        return [_length(row, times) for row in rows]
    if name == "targets":
        return [_together(row, over) for row in rows]
    if name == "profiles":
        return [_busy(row) for row in rows]
    return [_cost(name, row, over) for row in rows]


def _cost(name: str, row: Mapping[str, Any], over: set) -> tuple[str, ...]:
    base, cost = row["gradient"], row["relevance"]
    key = f"{row['model']}, {row['composite']}"
    found = {
        "time": number(of_cost(row, "run"), (key, "time") in over),
        "memory": number(of_cost(row, "temporary"), (key, "memory") in over),
        "contractions": f"{cost['contractions']} / {base['contractions']}",
        "flops": number(of_cost(row, "flops")),
        "trace": number(of_cost(row, "trace")),
        "compile": number(of_cost(row, "compile")),
        "both": number(of_cost(row, "both"), (key, "trace and compile") in over),
        "gradient, ms": f"{base['run'] * 1e3:.1f}",
        "gradient, s to compile": f"{base['trace'] + base['compile']:.1f}",
        "its MB": "–"
        if base["temporary"] is None
        else f"{base['temporary'] / 1e6:.1f}",
    }
    return (row["model"], row["composite"], *(found[h] for h in HEADERS[name][2:]))


def _length(row: Mapping[str, Any], checks: Mapping[str, Check]) -> tuple[str, ...]:
    program, size = row["program"], row["equations"]
    check = checks.get(f"{program}, {size // 2} to {size} equations")
    ratio = number(check.value, not check.met) if check and size % 2 == 0 else "–"
    seconds = [f"{row[side]:.2f}" for side in ("gradient", "relevance")]
    return (program, str(size), *seconds, ratio)


def _together(row: Mapping[str, Any], over: set) -> tuple[str, ...]:
    key = f"{row['model']}, {row['how']}"
    seconds = [f"{row[side]:.2f}" for side in ("separate", "together")]
    value = number(row["together"] / row["separate"], (key, "time") in over)
    return (row["model"], row["how"], str(row["targets"]), *seconds, value)


def _busy(row: Mapping[str, Any]) -> tuple[str, ...]:
    base = row["gradient"]
    whole = base["contractions"] + base["beside"]
    parts = [
        row[side][of] / whole for side in SIDES for of in ("contractions", "beside")
    ]
    milliseconds = f"{whole * 1e3:.1f}"
    return (row["model"], row["composite"], milliseconds, *map(number, parts))


SIDES = ("gradient", "relevance")


def conditions(record: Record) -> str:
    """Where and when, in a sentence."""
    at = record["environment"]
    packages = ("jaxlrp", "jax", "torch", *performance_figure.PACKAGES)
    named = ", ".join(f"{name} {at[name]}" for name in packages if name in at)
    tiny = "; in small shapes, to try it" if at["tiny"] else ""
    return (
        f"*{at['device']}, {at['cores']} cores; {named}, Python {at['python']}; "
        f"{at['rounds']} rounds; {at['date']}{tiny}.*\n"
    )


def summary(records: Sequence[Record]) -> str:
    """What is checked, and whether it is met, on each device."""
    parts = ["## Summary\n"]
    devices = dict.fromkeys(r["environment"]["device"] for r in records)
    for device in devices:
        checks: list[Check] = []
        for name, of in CHECKS.items():
            for record in records:
                mine = record["environment"]["device"] == device
                if mine and record["table"] == name:
                    checks += of(record["rows"])
        if not checks:
            continue
        lines = []
        for (work, measure), group in performance_limits.groups(checks).items():
            values, limit = [c.value for c in group], group[0].limit
            met = sum(c.met for c in group)
            lines.append(
                (
                    work,
                    measure,
                    f"{limit:.2f}",
                    number(statistics.median(values)),
                    number(max(values), met < len(group)),
                    f"{met} of {len(group)}",
                )
            )
        met = sum(c.met for c in checks)
        header = ("work", "of", "limit", "median", "worst", "met")
        parts += [f"{device}: {met} of {len(checks)} are met.\n", table(header, lines)]
    return "\n".join(parts)


def peers(record: Record) -> str:
    """Other packages, each over the gradient of its own framework."""
    header = ("model", "method", "package", "gradient, ms", "method, ms", "time")
    lines = [
        (
            row["model"],
            row["method"],
            row["package"],
            f"{row['gradient'] * 1e3:.1f}",
            f"{row['seconds'] * 1e3:.1f}",
            number(row["seconds"] / row["gradient"]),
        )
        for row in record["rows"]
    ]
    words = (
        "The same models in PyTorch and in JAX in one run on one machine, by `make "
        "bench-peers`. *time* is over the gradient of the same framework; milliseconds "
        "compare the frameworks. Hooks are in place before the clock starts; JAX is "
        "compiled.\n"
    )
    return "\n".join(["## Peers\n", words, conditions(record), table(header, lines, 3)])


def published() -> str:
    """What peers took when they were last compared at length."""
    header = ("model", "method", "time / gradient")
    lines = [
        (performance_figure.MODELS[p.model], p.method, number(p.ratio))
        for p in performance_figure.PUBLISHED
    ]
    words = (
        "Earlier, in PyTorch, one thread of a shared AMD EPYC machine; each against "
        "the gradient of the same model, batch 1, float32, medians of paired processor "
        "times; PyTorch 2.13.0, zennit 0.5.1, captum 0.9.0, LXT 2.1, dynamicLRP at "
        "commit 0535f39. dynamicLRP is not on PyPI.\n"
    )
    return "\n".join(["## Peers, measured earlier\n", words, table(header, lines)])


def render(records: Sequence[Record], picture: str | None = None) -> str:
    """The page, with a path to its picture."""
    parts = [INTRODUCTION, summary(records)]
    if picture is not None:
        alt = "Time of relevance over that of a gradient, for jaxlrp and its peers"
        parts.append(f"![{alt}]({picture})\n")
    if FALLS_SHORT:
        parts.append(f"## What falls short\n\n{FALLS_SHORT.strip()}\n")
    for name, (title, words) in TITLES.items():
        mine = [record for record in records if record["table"] == name]
        if not any(record["rows"] for record in mine):
            continue
        parts.append(f"## {title}\n\n{words}\n")
        for record in mine:
            parts += [
                conditions(record),
                table(HEADERS[name], cells(name, record["rows"])),
            ]
    parts += [peers(record) for record in records if record["table"] == PEERS]
    parts += filter(None, [on_device.section(), rates.section()])
    return "\n".join([*parts, published()]).rstrip() + "\n"


def load(records: Path) -> list[Record]:
    """All that was kept, by file name."""
    found = [json.loads(path.read_text()) for path in sorted(records.glob("*.json"))]
    return [record for record in found if "table" in record]


def write(records: Sequence[Record], page: Path) -> None:
    """Writes the page, and the picture into `images` next to it."""
    picture = page.parent / "images" / "performance.png"
    drawn = performance_figure.draw(records)
    if drawn is not None:
        _files.write(picture, drawn, folders=True)
    path = None if drawn is None else f"images/{picture.name}"
    _files.write(page, render(records, path).encode(), folders=True)
