"""Time and memory of relevance over those of the gradient of the same output.

    python -m benchmarks.gradient_ratio
    python -m benchmarks.gradient_ratio --models vit bert --rounds 21

Prints a table in markdown. Both sides are compiled and return the same value: all
scores of the network, and beside them the relevance of the input or the gradient of
the highest score with respect to it. Rounds are interleaved, so that a machine that
slows down slows down both; the ratio is that of the medians.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import jaxlrp
from benchmarks.models import MODELS, Network
from jaxlrp import composites, rules

COMPOSITES: dict[str, Any] = {
    "default": None,
    "lrp0": composites.Uniform(rules.LRP0()),
    "epsilon": composites.Uniform(rules.Epsilon(1e-6)),
    "epsilon-plus": composites.EpsilonPlus(),
    "epsilon-plus-flat": composites.EpsilonPlusFlat(),
    "epsilon-gamma-box": composites.EpsilonGammaBox(-3.0, 3.0),
    "attnlrp": composites.AttnLRP(),
}
# Which composites suit a model; all others can be asked for.
_IMAGE = ("default", "epsilon", "epsilon-plus-flat", "epsilon-gamma-box")
SUITED = {"vgg16": _IMAGE, "resnet18": _IMAGE}
SUITED |= {
    name: ("default", "epsilon", "attnlrp") for name in MODELS if name not in SUITED
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one compiled function costs; times in seconds, memory in bytes.

    `temporary` is None where the backend does not tell.
    """

    run: float
    temporary: int | None
    trace: float
    compile: float


@dataclasses.dataclass(frozen=True)
class Row:
    model: str
    composite: str
    gradient: Cost
    relevance: Cost


def gradient(apply: Callable) -> Callable:
    """All scores, and the gradient of each example's highest one."""

    def highest(params, x):
        scores = apply(params, x)
        return scores.max(-1).sum(), scores

    def value_and_gradient(params, x):
        (_, scores), slope = jax.value_and_grad(highest, argnums=1, has_aux=True)(
            params, x
        )
        return scores, slope

    return value_and_gradient


def relevance(apply: Callable, composite: Any) -> Callable:
    """All scores, and the relevance of the input for each example's highest one."""
    return jaxlrp.value_and_lrp(apply, composite, argnums=1)


def _seconds(function: Callable, *args) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def _trace(build: Callable[[], Callable], args) -> tuple[float, Any]:
    """Tracing and lowering: the faster of two, with new functions each time."""
    first, _ = _seconds(lambda: jax.jit(build()).lower(*args))
    second, lowered = _seconds(lambda: jax.jit(build()).lower(*args))
    return min(first, second), lowered


def _temporary(compiled: Any) -> int | None:
    analysis = compiled.memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)


def measure(
    builders: Mapping[str, Callable[[], Callable]], args: Sequence[Any], rounds: int
) -> dict[str, Cost]:
    """The cost of every function that `builders` build, rounds interleaved."""
    programs, traces, compiles = {}, {}, {}
    for name, build in builders.items():
        traces[name], lowered = _trace(build, args)
        compiles[name], programs[name] = _seconds(lowered.compile)
        jax.block_until_ready(programs[name](*args))
    runs: dict[str, list[float]] = {name: [] for name in builders}
    names = list(builders)
    for i in range(rounds):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            seconds, _ = _seconds(
                lambda: jax.block_until_ready(programs[name](*args))  # noqa: B023
            )
            runs[name].append(seconds)
    return {
        name: Cost(
            statistics.median(runs[name]),
            _temporary(programs[name]),
            traces[name],
            compiles[name],
        )
        for name in names
    }


def rows(
    model: str, network: Network, composite_names: Sequence[str], rounds: int
) -> list[Row]:
    apply, params, x = network
    args = (params, x)
    # JAX's own start and what it remembers of the network's inner functions belong to
    # neither side.
    jax.jit(gradient(apply)).lower(*args)
    builders: dict[str, Callable[[], Callable]] = {"gradient": lambda: gradient(apply)}
    for name in composite_names:
        builders[name] = lambda name=name: relevance(apply, COMPOSITES[name])
    costs = measure(builders, args, rounds)
    return [
        Row(model, name, costs["gradient"], costs[name]) for name in composite_names
    ]


def _ratio(part: float | None, whole: float | None) -> str:
    return f"{part / whole:.2f}" if part is not None and whole else "–"


HEADER = """\
| model | composite | gradient, ms | time | its MB | memory | trace | compile | both |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def line(row: Row) -> str:
    base, cost = row.gradient, row.relevance
    memory = "–" if base.temporary is None else f"{base.temporary / 1e6:.1f}"
    cells = (
        row.model,
        row.composite,
        f"{base.run * 1e3:.1f}",
        _ratio(cost.run, base.run),
        memory,
        _ratio(cost.temporary, base.temporary),
        _ratio(cost.trace, base.trace),
        _ratio(cost.compile, base.compile),
        _ratio(cost.trace + cost.compile, base.trace + base.compile),
    )
    return f"| {' | '.join(cells)} |"


def cores() -> int:
    """Those that this process may use; XLA starts as many threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment(rounds: int, tiny: bool) -> dict[str, Any]:
    return {
        "jaxlrp": jaxlrp.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "cores": cores(),
        "rounds": rounds,
        "tiny": tiny,
    }


def write(path: Path, record: Any) -> None:
    """Writes what JSON can hold."""
    write_whole(path, (json.dumps(record, indent=1) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """The file is there whole or as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gradient_ratio",
        description="Time and memory of jaxlrp.value_and_lrp over jax.value_and_grad.",
        epilog="On a CPU both sides use all cores the process may use. Give it fewer "
        "with --threads, before JAX starts; where that is not possible (macOS), with "
        "the system's own means.",
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--composites",
        nargs="+",
        choices=COMPOSITES,
        help="default: those that suit the model",
    )
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--threads", type=int, help="cores to use (Linux)")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try it")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error("--rounds has to be at least 1")
    if options.threads is not None:
        if not hasattr(os, "sched_setaffinity"):
            parser.error("--threads needs Linux")
        if not 1 <= options.threads <= cores():
            parser.error(f"--threads has to be between 1 and {cores()}")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    if options.threads is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    facts = environment(options.rounds, options.tiny)
    print(", ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n")
    print(HEADER, flush=True)
    table: list[Row] = []
    for model in options.models:
        names = options.composites or SUITED[model]
        for row in rows(model, MODELS[model](options.tiny), names, options.rounds):
            print(line(row), flush=True)
            table.append(row)
        jax.clear_caches()
        if options.json:
            record = {"environment": facts, "rows": [*map(dataclasses.asdict, table)]}
            write(options.json, record)


if __name__ == "__main__":
    main()
