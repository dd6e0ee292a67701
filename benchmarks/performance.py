"""All tables of what relevance costs, their records, the page and its picture.

    python -m benchmarks.performance             everything, docs/performance.md
    python -m benchmarks.performance --tables layers deep --quick
    python -m benchmarks.performance --page      the page, from the kept records

A record is kept after each part of a table, one for each table and device, so that rows
of several devices are on one page.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from jaxlib import version as jaxlib_version

from benchmarks import (
    compile_time,
    gradient_ratio,
    layers,
    many_targets,
    performance_page,
    profiles,
    side_by_side,
)
from tests.models.usual import MODELS

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "out" / "performance"
PAGE = ROOT / "docs" / "performance.md"


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
      rounds: of running.
      compiles: of the deep transformer.
      targets: rounds for many targets, each of a call for a hundred.
      tiny: small shapes.
    """

    rounds: int
    compiles: int
    targets: int
    tiny: bool


def _networks(effort: Effort) -> Iterator[list[Any]]:
    for model, network in MODELS.items():
        chosen = {c: gradient_ratio.COMPOSITES[c] for c in gradient_ratio.SUITED[model]}
        yield gradient_ratio.rows(model, network(effort.tiny), chosen, effort.rounds)


def _layers(effort: Effort) -> Iterator[list[Any]]:
    for place in layers.PLACES:
        yield layers.costs(place, effort.rounds, effort.tiny)


def _deep(effort: Effort) -> Iterator[list[Any]]:
    yield compile_time.deep(effort.rounds, effort.compiles, effort.tiny)


def _lengths(effort: Effort) -> Iterator[list[Any]]:
    sizes = (16, 32) if effort.tiny else compile_time.LENGTHS
    yield compile_time.lengths(effort.compiles, sizes)


def _targets(effort: Effort) -> Iterator[list[Any]]:
    count = 4 if effort.tiny else many_targets.TARGETS
    for model in many_targets.NETWORKS:
        yield many_targets.costs(model, effort.targets, effort.tiny, count)


def _side_by_side(effort: Effort) -> Iterator[list[Any]]:
    for model in side_by_side.NETWORKS:
        yield side_by_side.costs(model, effort.rounds, effort.tiny)


def _profiles(effort: Effort) -> Iterator[list[Any]]:
    # What the profiler tells of other devices is told in other words.
    if jax.default_backend() == "cpu":
        yield from profiles.costs(effort.tiny)


TABLES: dict[str, Callable[[Effort], Iterator[list[Any]]]] = {
    "networks": _networks,
    "layers": _layers,
    "deep": _deep,
    "lengths": _lengths,
    "targets": _targets,
    "side-by-side": _side_by_side,
    "profiles": _profiles,
}
"""Each gives its rows part by part."""


def environment(effort: Effort) -> dict[str, Any]:
    facts = gradient_ratio.environment(effort.rounds, effort.tiny)
    now = datetime.datetime.now(datetime.UTC)
    return {
        **facts,
        "jaxlib": jaxlib_version.__version__,
        "date": now.date().isoformat(),
    }


def run(table: str, effort: Effort, records: Path) -> None:
    """Measures a table; prints each part's checks and keeps its rows."""
    facts = environment(effort)
    slug = re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-")
    path = records / f"{table}-{slug}.json"
    rows: list[dict[str, Any]] = []
    for part in TABLES[table](effort):
        rows += map(dataclasses.asdict, part)
        record = {"table": table, "environment": facts, "rows": rows}
        gradient_ratio.write(path, record)
        lines = performance_page.cells(table, rows[-len(part) :])
        print("\n".join(map(performance_page.line, lines)), flush=True)
        jax.clear_caches()


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.performance",
        description="What relevance costs, in units of a gradient.",
    )
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="three rounds, to try it")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try it")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--page", action="store_true", help="write the page only")
    which.add_argument("--no-page", action="store_true", help="keep records only")
    parser.add_argument("--threads", type=int, help="cores to use (Linux)")
    parser.add_argument("--records", type=Path, help="default: out/performance")
    parser.add_argument("--out", type=Path, help="default: docs/performance.md")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"--rounds: got {options.rounds}, expected at least 1")
    if options.threads is not None:
        if not hasattr(os, "sched_setaffinity"):
            parser.error("--threads needs Linux")
        if not 1 <= options.threads <= gradient_ratio.cores():
            most = gradient_ratio.cores()
            parser.error(f"--threads: got {options.threads}, expected 1 to {most}")
    trial = RECORDS / "tiny" if options.tiny else None
    options.records = options.records or trial or RECORDS
    options.out = options.out or (trial / PAGE.name if trial else PAGE)
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    if options.threads is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    if not options.page:
        rounds = min(3, options.rounds) if options.quick else options.rounds
        few = options.quick or options.tiny
        effort = Effort(rounds, 2 if few else 5, 1 if few else 3, options.tiny)
        for table in options.tables:
            print(f"\n{table}\n", flush=True)
            header = performance_page.HEADERS[table]
            print(performance_page.line(header), flush=True)
            run(table, effort, options.records)
    if not options.no_page:
        performance_page.write(performance_page.load(options.records), options.out)


if __name__ == "__main__":
    main()
