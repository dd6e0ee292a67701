"""The rows of the libraries' models in the table of coverage."""

import argparse
import dataclasses
import importlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import jax

from benchmarks import coverage
from benchmarks.zoo.weights import Model

LIBRARIES = (
    "huggingface",
    "keras_models",
    "equinox_models",
    "diffrax_models",
    "haiku_models",
    "flax_models",
    "torch_models",
)
"""The modules of this package that have models, one for each library."""


ATTENTION = (
    "half of what attention passes on goes to its weights. Softmax's expansion passes "
    "on the part by which they differ and keeps the rest, *Taylor*. Under `CPLRP` the "
    "values take all of it."
)
"""Where the relevance of a model with attention goes under the default."""


def rows(
    library: ModuleType, names: Sequence[str], rounds: int
) -> Iterator[coverage.Row]:
    """The rows of a library's models, all or some; those that fail are told of."""
    for family, models in library.MODELS.items():
        for name, build in models.items():
            if names and name not in names:
                continue
            try:
                found = row(library, family, name, build, rounds)
            except Exception:
                print(f"{library.LIBRARY}: {name} failed")
                traceback.print_exc()
            else:
                print(f"| {' | '.join(coverage.cells([found]))} |", flush=True)
                yield found
            jax.clear_caches()


def row(
    library: ModuleType,
    family: str,
    name: str,
    build: Callable[[], Model],
    rounds: int,
) -> coverage.Row:
    """The row of one model."""
    f, args = build()
    found = coverage.measure(
        name,
        library.LIBRARY,
        f,
        args,
        family=family,
        rounds=rounds,
    )
    notes: Mapping[str, str] = getattr(library, "NOTES", {})
    large = {role for role, share in found.expansions.items() if abs(share) > 0.05}
    note = notes.get(name, ATTENTION if large == {"softmax"} else "")
    return dataclasses.replace(found, note=note)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zoo",
        description="Read, audit and time models of other libraries.",
    )
    parser.add_argument("libraries", nargs="+", choices=LIBRARIES)
    parser.add_argument("--models", nargs="+", default=(), help="names; default: all")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--records", type=Path, default=coverage.RECORDS)
    options = parser.parse_args(argv)
    failed = 0
    for name in options.libraries:
        library = importlib.import_module(f"benchmarks.zoo.{name}")
        print(f"\n{library.LIBRARY}\n\n| {' | '.join(coverage.HEADER)} |", flush=True)
        found = []
        for one in rows(library, options.models, options.rounds):
            found.append(one)
            if not options.models:
                coverage.save(f"{name}-{jax.__version__}", found, options.records)
        failed += sum(map(len, library.MODELS.values())) - len(found)
    return 1 if failed and not options.models else 0
