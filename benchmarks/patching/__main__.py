"""Exact against estimated patching of SmolLM2-135M, and the page about it.

    python -m benchmarks.patching                 both tasks, then the page
    python -m benchmarks.patching --pairs 10      fewer pairs
    python -m benchmarks.patching --page          the page, from the kept record

Exact effects are kept in `out/patching`, and what was measured in `out/patching.json`,
after each task; `docs/patching-results.md` is written when both are there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import gradient_ratio
from benchmarks.patching import figures, measure, page, tasks
from examples import smollm
from jaxlrp import _files

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "out" / "patching.json"
KEPT = ROOT / "out" / "patching"
PAGE = ROOT / "docs" / "patching-results.md"
IMAGES = ROOT / "docs" / "images" / "patching"


def measured(
    model: smollm.Loaded, runs: measure.Runs, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is measured of one task, and the arrays that pictures are drawn from."""
    start = time.perf_counter()
    true = measure.exact(model, runs, folder)
    rows, arrays = [], {"exact": true}
    for method in measure.METHODS:
        begun = time.perf_counter()
        found = measure.of_nodes(model, runs, method)
        arrays[method.name] = found
        row: dict[str, Any] = {"method": method.name, "passes": method.passes}
        for kind in (*measure.KINDS, "heads"):
            each = measure.pearson(found[kind], true[kind])
            ranks = measure.spearman(found[kind], true[kind])
            mean = measure.pearson(found[kind].mean(0)[None], true[kind].mean(0)[None])
            row[kind] = {
                "pearson": each.tolist(),
                "spearman": ranks.tolist(),
                "of means": float(mean[0]),
            }
        row["seconds"] = time.perf_counter() - begun
        rows.append(row)
        print(f"{method.name}: {page.said(row)}", flush=True)
    half = len(runs) // 2
    fit, judged = runs.pairs(slice(half)), runs.pairs(slice(half, None))
    circuits = {}
    for name, of_edges in (("nodes", False), ("edges", True)):
        lines = {}
        for method in measure.METHODS:
            scores = measure.circuit_scores(model, fit, method, of_edges)
            lines[method.name] = measure.curves(model, judged, scores, of_edges)
        chance = measure.random_scores(scores, seed=0)
        lines["random"] = measure.curves(model, judged, chance, of_edges)
        circuits[name] = {k: np.asarray(v).tolist() for k, v in lines.items()}
        print(f"circuits of {name}: {page.areas(circuits[name])}", flush=True)
    found = {
        "pairs": len(runs),
        "rows": rows,
        "circuits": circuits,
        "fractions": list(measure.FRACTIONS),
        "change": float((true["clean"] - true["corrupt"]).mean()),
        "exact seconds": float(true["seconds"].sum()),
        "seconds": time.perf_counter() - start,
    }
    return found, arrays


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.patching")
    parser.add_argument("--tasks", nargs="+", default=list(tasks.TASKS))
    parser.add_argument(
        "--pairs", type=int, default=30, help="of prompts, of each task"
    )
    parser.add_argument("--seed", type=int, default=0, help="of their choice")
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--out", type=Path, default=PAGE, help="default: %(default)s")
    options = parser.parse_args(argv)
    record = json.loads(options.record.read_text()) if options.record.exists() else {}
    if not options.page:
        print(f"seed {options.seed}", flush=True)
        model = smollm.load()
        for name in options.tasks:
            pairs = tasks.TASKS[name](model, options.pairs, options.seed)
            runs = measure.read_pairs(model, pairs)
            folder = KEPT / f"{name}-{options.seed}"
            found, arrays = measured(model, runs, folder)
            record[name] = {**found, "seed": options.seed, "example": pairs.texts[0]}
            gradient_ratio.write(options.record, record)
            figures.draw(name, record[name], arrays, IMAGES)
    if set(record) >= set(tasks.TASKS):
        _files.write(options.out, page.render(record).encode(), folders=True)


if __name__ == "__main__":
    main()
