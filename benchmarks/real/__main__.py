"""All real networks, measured one after the other, and the page about them.

    python -m benchmarks.real                        the chosen methods, then the page
    python -m benchmarks.real --all                  every method
    python -m benchmarks.real --parts prompts --methods Default "LXT AttnLRP"
    python -m benchmarks.real --page                 the page, from the kept record

What was measured is kept after each method, in `out/real.json`; a method that is
measured again takes the place of its row. `docs/real-networks.md` is written when every
part is there.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import gradient_ratio
from benchmarks.real import (
    image_figures,
    images,
    page,
    pairs,
    phonemes,
    prompts,
    recurrences,
    sequences,
)
from benchmarks.real.sequences import Setting
from examples import letters, photographs, smollm
from jaxlrp import _files, composites

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "out" / "real.json"
PAGE = ROOT / "docs" / "real-networks.md"

OLD = "Proportional (default before)"

CHOSEN = {
    "images": (
        *("random", "gradient x input", "Default", OLD, "jaxlrp AttnLRP"),
        "Proportional, gamma 0.25 on convolutions",
        *("jaxlrp EpsilonPlus", "jaxlrp EpsilonGammaBox"),
        *("zennit EpsilonPlus", "zennit EpsilonGammaBox"),
        *("integrated gradients", "DeepLIFT", "ResLRP"),
    ),
    "phonemes": (
        *("random", "gradient x input", "integrated gradients", "DeepLIFT"),
        *("integrated gradients from zero",),
        *("Default", OLD, "Proportional, bounded sums", "jaxlrp AttnLRP"),
        *("CPLRP, gates held", "ResLRP", "EpsilonPlus", "captum LRP", "LXT AttnLRP"),
        "dynamicLRP gamma",
    ),
    "prompts": (
        *("random", "gradient x input", "integrated gradients", "DeepLIFT"),
        *("Default", "Default, residual sums by absolute size"),
        *(OLD, "jaxlrp AttnLRP", "LXT AttnLRP", "CPLRP, gates held"),
        *("ResLRP", "EpsilonPlus", "dynamicLRP plain"),
    ),
    "pairs": (
        *("random", "gradient x input", "integrated gradients", "DeepLIFT"),
        *("Default", "Default, residual sums by absolute size"),
        *("Default, residual sums gamma 1", "Default, residual sums gamma 16"),
        *(OLD, "jaxlrp AttnLRP", "LXT AttnLRP", "CPLRP", "CPLRP, gates held"),
        *("ResLRP", "EpsilonPlus", "dynamicLRP plain"),
    ),
    "recurrences": ("Default", "Proportional", "AttnLRP", "ResLRP"),
}
"""What `make real` measures: names of methods, or a side and a name."""

Rows = Iterator[tuple[dict[str, Any], dict[str, Any]]]
"""What is said of a method, and what is said of the whole part."""


def named(names: Sequence[str] | None, methods: Sequence[Any]) -> list[Any]:
    """The methods of these names, in their order; all without any."""
    return [
        method
        for method in methods
        if names is None
        or not {method.name, f"{method.side} {method.name}"}.isdisjoint(names)
    ]


def of_images(names: Sequence[str] | None) -> Rows:
    """Photographs, and pairs of them."""
    network = images.pretrained()
    crops, montages = images.crops(network), images.montages()
    given = images.references(network, crops)
    about = {
        "groups": crops.groups.tolist(),
        "photographs": len(photographs.PHOTOGRAPHS),
        "montages": len(montages.inputs),
    }
    for method in named(names, images.METHODS):
        explain = method.make(network.apply)
        found = images.measure(network, explain, crops, montages, given)
        yield images.row(method, found, crops.groups), about


def of_tokens(
    make: Callable[[], Setting], methods: Sequence[Any], names: Sequence[str] | None
) -> Rows:
    """Letters, words, or pairs of sentences."""
    at = make()
    measure = sequences.measurer(at)
    about = {"examples": len(at.targets), "digits": at.digits}
    for method in named(names, methods):
        yield sequences.row(method, *measure(method.explain)), about


def of_recurrences(names: Sequence[str] | None) -> Rows:
    """Random recurrences under presets."""
    for name in names or CHOSEN["recurrences"]:
        if not hasattr(composites, name):
            continue
        start = time.perf_counter()
        cases = []
        for case in recurrences.CASES:
            try:
                found = recurrences.measure(case, getattr(composites, name)(), seeds=4)
                cases += [[f.name, f.ratio, f.difference] for f in found]
            except KeyError as fault:  # the page says so
                print(f"recurrences: {case.names[0]}: {fault!r}", flush=True)
                cases += [[each, None, None] for each in case.names]
        seconds = time.perf_counter() - start
        row = {"side": "jaxlrp", "method": name, "cases": cases, "seconds": seconds}
        yield row, {"seeds": 4}


PARTS: dict[str, Callable[[Sequence[str] | None], Rows]] = {
    "images": of_images,
    "phonemes": functools.partial(
        of_tokens, lambda: phonemes.setting(letters.load()), phonemes.METHODS
    ),
    "phonemes, zero": functools.partial(
        of_tokens, lambda: phonemes.setting(letters.load(), zero=True), phonemes.METHODS
    ),
    "prompts": functools.partial(
        of_tokens, lambda: prompts.setting(smollm.load(), first=True), prompts.METHODS
    ),
    "pairs": functools.partial(
        of_tokens, lambda: pairs.setting(pairs.pretrained()), pairs.METHODS
    ),
    "recurrences": of_recurrences,
}


def replaced(
    rows: Sequence[dict[str, Any]], row: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows with another one, replacing an older one of the same method."""
    same = [(r["side"], r["method"]) == (row["side"], row["method"]) for r in rows]
    if not any(same):
        return [*rows, row]
    return [row if s else r for r, s in zip(rows, same, strict=True)]


def write_page(record: page.Record, path: Path) -> None:
    _files.write(path, page.render(record).encode(), folders=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--methods", nargs="+", help="names, or a side and a name")
    parser.add_argument("--all", action="store_true", help="every method")
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--out", type=Path, default=PAGE, help="default: %(default)s")
    parser.add_argument("--images", type=Path, default=image_figures.OUT)
    options = parser.parse_args(argv)
    record = json.loads(options.record.read_text()) if options.record.exists() else {}
    if options.page:
        write_page(record, options.out)
        return
    if not options.methods:
        image_figures.main(["--out", str(options.images)])
    for part in options.parts:
        names = options.methods or CHOSEN[part.split(",")[0]]
        for row, about in PARTS[part](None if options.all else names):
            kept = record.get(part, {"rows": []})["rows"]
            record[part] = {**about, "rows": replaced(kept, row)}
            gradient_ratio.write(options.record, record)
            print(f"{part}: {page.said(row, page.digits_of(about))}", flush=True)
    if set(record) >= set(PARTS):
        write_page(record, options.out)


if __name__ == "__main__":
    main()
