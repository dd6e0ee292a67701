"""Exact against estimated patching of two language models, and the page about it.

    python -m benchmarks.patching                     all tasks, then the page
    python -m benchmarks.patching --tasks names       one task
    python -m benchmarks.patching --pairs 10          fewer pairs
    python -m benchmarks.patching --page              the page, from the kept record

What is found is kept in `out/patching` piece by piece, so that a run that was stopped
goes on; what was measured is in `record.json` beside this, after each task.
`docs/patching-results.md` is written of the tasks that are there.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import gradient_ratio
from benchmarks.patching import figures, induction, measure, page, tasks
from examples import smollm
from jaxlrp import _files

ROOT = Path(__file__).parents[2]
RECORD = Path(__file__).with_name("record.json")
KEPT = ROOT / "out" / "patching"
PAGE = ROOT / "docs" / "patching-results.md"
IMAGES = ROOT / "docs" / "images" / "patching"

MAIN = ("gradient", "RelP", "CP-LRP", "gradient, 5 steps", "between", "blend")
EDGES = ("gradient", "RelP", "blend")

TASKS: dict[str, tasks.Task] = {
    "names": tasks.Task(
        tasks.names,
        "Who is given a drink? The corrupt prompt swaps the second name.",
        edges=EDGES,
    ),
    "capitals": tasks.Task(
        tasks.capitals,
        "Of which country is it? The corrupt prompt has another one.",
        methods=MAIN,
    ),
    "others": tasks.Task(
        tasks.others,
        "As the first, but the corrupt prompt is about two other people: three tokens "
        "are changed.",
        count=6,
        methods=MAIN,
    ),
    "induction": tasks.Task(
        induction.repeated,
        "Another model, a decoder of three layers that was trained on this alone "
        "(`benchmarks/patching/induction.py`): what came next before? The corrupt row "
        "had something else there.",
        model=tasks.INDUCTION,
        methods=MAIN,
        edges=EDGES,
    ),
}


def compared(names: Sequence[str]) -> tuple[measure.Method, ...]:
    """The methods of these names, or all."""
    return tuple(m for m in measure.METHODS if not names or m.name in names)


def measured(
    model: smollm.Loaded, runs: measure.Runs, folder: Path, task: tasks.Task
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is measured of one task, and the arrays that pictures are drawn from.

    Args:
      model: the network.
      runs: the pairs.
      folder: where effects are kept.
      task: which methods are compared.
    """
    true = measure.exact(model, runs, folder)
    seconds = float(true["seconds"].sum())
    rows, arrays = [], {"exact": true}
    for method in compared(task.methods):
        found = measure.of_nodes(model, runs, method, folder)
        arrays[method.name] = found
        seconds += float(found["seconds"][0])
        rows.append({"method": method.name, "passes": method.passes})
        for kind in page.KINDS:
            each = measure.pearson(found[kind], true[kind])
            ranks = measure.spearman(found[kind], true[kind])
            mean = measure.pearson(found[kind].mean(0)[None], true[kind].mean(0)[None])
            rows[-1][kind] = {
                "pearson": each.round(6).tolist(),
                "spearman": ranks.round(6).tolist(),
                "of means": round(float(mean[0]), 6),
            }
        print(f"{method.name}: {page.said(rows[-1])}", flush=True)
    circuits, more = circuits_of(model, runs, folder, arrays, task.edges)
    found = {
        "pairs": len(runs),
        "rows": rows,
        "circuits": circuits,
        "fractions": list(measure.FRACTIONS),
        "change": float((true["clean"] - true["corrupt"]).mean()),
        "exact seconds": float(true["seconds"].sum()),
        "seconds": seconds + more,
    }
    return found, arrays


def circuits_of(
    model: smollm.Loaded,
    runs: measure.Runs,
    folder: Path,
    arrays: Mapping[str, Any],
    edges: Sequence[str],
) -> tuple[dict[str, Any], float]:
    """Faithfulness of circuits, by kind, method and order, and how long it took.

    Nodes are also kept by their exact effects: how far can an order of single ones get?
    """
    half = len(runs) // 2
    fit, judged = runs.pairs(slice(half)), runs.pairs(slice(half, None))

    def of_nodes(name: str) -> dict[Any, np.ndarray]:
        found = arrays[name]
        return measure.node_scores({k: found[k][:half] for k in page.KINDS})

    def of_edges(name: str) -> dict[Any, np.ndarray]:
        (method,) = compared((name,))
        return measure.edge_scores(model, fit, method)

    scored: dict[str, tuple[Any, tuple[str, ...]]]
    names = tuple(m.name for m in compared(tuple(arrays)))
    scored = {"nodes": (of_nodes, (*names, "exact"))}
    if edges:
        scored["edges"] = of_edges, tuple(m.name for m in compared(edges))
    circuits: dict[str, Any] = {}
    seconds = 0.0
    for kind, (score, names) in scored.items():
        curve = measure.curve_of(model, judged, kind == "edges")
        lines: dict[str, Any] = {}
        for name, make in _orders(score, names).items():
            found = measure.kept(
                folder / f"{kind} {name}.npz", functools.partial(_curves, curve, make)
            )
            lines[name] = {by: found[by].round(6).tolist() for by in measure.ORDERS}
            seconds += float(found["seconds"][0])
        circuits[kind] = lines
        print(f"circuits of {kind}: {page.areas(lines)}", flush=True)
    return circuits, seconds


Scores = Callable[[], dict[Any, np.ndarray]]


def _orders(
    score: Callable[[str], dict[Any, np.ndarray]], names: Sequence[str]
) -> dict[str, Scores]:
    """By name, what gives scores: each method, and chance."""
    found: dict[str, Scores] = {n: functools.partial(score, n) for n in names}
    first = found[names[0]]
    return found | {"random": lambda: measure.random_scores(first(), seed=0)}


def _curves(
    curve: Callable[[Any, str], np.ndarray], make: Scores
) -> dict[str, np.ndarray]:
    scores = make()
    return {by: curve(scores, by) for by in measure.ORDERS}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.patching")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--pairs", type=int, help="of prompts, of each task")
    parser.add_argument("--methods", nargs="+", help="these alone, where compared")
    parser.add_argument("--seed", type=int, default=0, help="of their choice")
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--out", type=Path, default=PAGE, help="default: %(default)s")
    options = parser.parse_args(argv)
    record = json.loads(options.record.read_text()) if options.record.exists() else {}
    if not options.page:
        print(f"seed {options.seed}", flush=True)
        models: dict[str, smollm.Loaded] = {}
        for name in options.tasks:
            task = TASKS[name]
            if options.methods:
                only = tuple(m.name for m in compared(task.methods))
                only = tuple(n for n in only if n in options.methods)
                ends = tuple(n for n in task.edges if n in only)
                task = dataclasses.replace(task, methods=only, edges=ends)
            if task.model not in models:
                models[task.model] = (
                    smollm.load()
                    if task.model == tasks.SMOLLM
                    else induction.load(KEPT / "induction.npz")
                )
            model = models[task.model]
            pairs = task.pairs(model, options.pairs or task.count, options.seed)
            runs = measure.read_pairs(model, pairs)
            folder = KEPT / f"{name}-{len(runs)}-{options.seed}"
            found, arrays = measured(model, runs, folder, task)
            said = {"seed": options.seed, "example": pairs.texts[0], "text": task.text}
            record[name] = {**found, **said}
            gradient_ratio.write(options.record, record)
            figures.draw(name, record[name], arrays, IMAGES)
    _files.write(options.out, page.render(record).encode(), folders=True)


if __name__ == "__main__":
    main()
