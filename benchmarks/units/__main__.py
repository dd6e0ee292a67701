"""What is left of a network if units go: by relevance over a dataset, and otherwise.

    python -m benchmarks.units                       all three parts
    python -m benchmarks.units --parts artefact      one

Prints tables in Markdown, from which `docs/patching.md` has its own; what was measured
is in `out/units.json`, part by part.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.units import artefact, digits, language
from examples import smollm
from jaxlrp import _files

RECORD = Path(__file__).parents[2] / "out" / "units.json"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown; all columns but the first are numbers."""
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def of_digits(networks: int, epochs: int) -> dict[str, Any]:
    """Means over networks."""
    runs = [digits.accuracies(seed, epochs, None) for seed in range(networks)]
    names = runs[0][1]
    return {
        "networks": networks,
        "whole": float(np.mean([whole for whole, _ in runs])),
        "accuracy": {n: np.mean([r[n] for _, r in runs], 0).tolist() for n in names},
    }


def digits_table(found: dict[str, Any]) -> str:
    """Accuracy in percent."""
    head = ["removed", *(f"{100 * s:.0f} %" for s in digits.SHARES)]
    lines = [
        [name, *(f"{100 * a:.1f}" for a in row)]
        for name, row in found["accuracy"].items()
    ]
    whole = f"accuracy, {100 * found['whole']:.1f} % of the whole network"
    return f"{whole}, mean of {found['networks']}\n\n{table(head, lines)}"


def language_table(found: dict[str, Any]) -> str:
    """Perplexities; a row has both sites."""
    shares = [f"{100 * s:.0f} %" for s in language.SHARES]
    head = [f"{s} of {site}" for site in language.SITES for s in shares]
    tables = []
    for how, by_site in found["perplexity"].items():
        lines = []
        for name in by_site["neurons"]:
            every = [p for site in language.SITES for p in by_site[site][name]]
            lines.append([name, *map(_short, every)])
        tables.append(table([how, *head], lines))
    whole = f"perplexity, {found['whole']:.1f} of the whole network"
    return "\n\n".join([whole, *tables])


def _short(perplexity: float) -> str:
    if perplexity < 100:
        return f"{perplexity:.1f}"
    return f"{perplexity:.0f}" if perplexity < 1e4 else "> 10,000"


def artefact_table(found: dict[str, Any]) -> str:
    """Percentages, and the rise of the score."""
    head = ["units", "removed by", "how many", "right", "called a three", "rise"]
    lines = [
        [site, name, count, f"{100 * right:.1f}", f"{100 * called:.1f}", f"{rise:.2f}"]
        for site, of_site in found.items()
        for name, of_name in of_site.items()
        for count, (right, called, rise) in of_name.items()
    ]
    return table(head, lines)


def of_language() -> dict[str, Any]:
    """Of the whole network and of what is left."""
    whole, found = language.perplexities(smollm.load())
    return {"whole": whole, "perplexity": found}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.units")
    names = ("digits", "artefact", "language")
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--networks", type=int, default=3, help="for digits")
    parser.add_argument("--epochs", type=int, default=30, help="of their training")
    parser.add_argument("--steps", type=int, default=400, help="of the artefact's")
    parser.add_argument("--record", type=Path, default=RECORD, help="file")
    options = parser.parse_args(argv)
    jobs = {
        "digits": (lambda: of_digits(options.networks, options.epochs), digits_table),
        "artefact": (lambda: artefact.corrected(options.steps), artefact_table),
        "language": (of_language, language_table),
    }
    record = json.loads(options.record.read_text()) if options.record.exists() else {}
    options.record.parent.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        start = time.perf_counter()
        measure, shown = jobs[part]
        record[part] = measure()
        _files.write(options.record, json.dumps(record, indent=1).encode())
        seconds = time.perf_counter() - start
        print(f"\n{part}, {seconds:.0f} s\n\n{shown(record[part])}\n", flush=True)


if __name__ == "__main__":
    main()
