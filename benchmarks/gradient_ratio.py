"""Time and memory of relevance over those of the gradient of the same output.

    python -m benchmarks.gradient_ratio
    python -m benchmarks.gradient_ratio --models vit bert --rounds 21

Prints a table in markdown. Both sides are compiled and return the same value: all
scores of the network, and with them the relevance of the input or the gradient of the
highest score with respect to it. Rounds are interleaved, so that a machine that slows
down slows down both; the ratio is that of the medians.
"""

import argparse
import dataclasses
import functools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import jaxlrp
from benchmarks import hlo
from jaxlrp import _files, composites, rules
from tests.models.usual import MODELS, Network

COMPOSITES: dict[str, Any] = {
    "default": None,
    "proportional": composites.Proportional(),
    "lrp0": composites.Uniform(rules.LRP0()),
    "epsilon": composites.Uniform(rules.Epsilon(1e-6)),
    "epsilon-plus": composites.EpsilonPlus(),
    "epsilon-plus-flat": composites.EpsilonPlusFlat(),
    "epsilon-gamma-box": composites.EpsilonGammaBox(-3.0, 3.0),
    "epsilon-alpha2-beta1": composites.EpsilonAlpha2Beta1(),
    "attnlrp": composites.AttnLRP(),
    "cplrp": composites.CPLRP(),
}
# Which composites suit a model; all others can be asked for.
_ONE_PASS = ("proportional", "lrp0", "epsilon")
_SPLIT = ("epsilon-plus-flat", "epsilon-gamma-box", "epsilon-alpha2-beta1")
SUITED = {
    name: ("default", *_ONE_PASS)
    + (_SPLIT if name in ("vgg16", "resnet18", "resnet50") else ("attnlrp", "cplrp"))
    for name in MODELS
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one compiled function costs; times in seconds, memory in bytes.

    `contractions` are those of the optimised program, and `flops` what XLA counts in
    it, a loop's body once each. What the backend does not tell is None.
    """

    run: float
    temporary: int | None
    trace: float
    compile: float
    contractions: int
    flops: float | None


@dataclasses.dataclass(frozen=True)
class Row:
    """What was asked of a model, and the gradient of the same."""

    model: str
    composite: str
    gradient: Cost
    relevance: Cost


def gradient(apply: Callable, target: str = "max") -> Callable:
    """All scores, and the gradient of each example's highest one, or of `"all"`."""

    def explained(params, x):
        scores = apply(params, x)
        return (scores.max(-1) if target == "max" else scores).sum(), scores

    def value_and_gradient(params, x):
        (_, scores), slope = jax.value_and_grad(explained, argnums=1, has_aux=True)(
            params, x
        )
        return scores, slope

    return value_and_gradient


def relevance(apply: Callable, composite: Any, target: str = "max") -> Callable:
    """All scores, and the relevance of the input for the same as `gradient`'s."""
    return jaxlrp.value_and_lrp(apply, composite, argnums=1, target=target)


def _seconds(function: Callable, *args) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def _alternating(names: Sequence[str], rounds: int) -> Iterator[str]:
    """All names in each round, starting at another one each time."""
    for i in range(rounds):
        shift = i % len(names)
        yield from names[shift:]
        yield from names[:shift]


def measure(
    builders: Mapping[str, Callable[[], Callable]],
    args: Sequence[Any],
    rounds: int,
    compiles: int = 1,
    others: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, Cost]:
    """The cost of every function that `builders` build, rounds interleaved.

    `others` are the arguments of those that do not take `args`. Tracing, with lowering,
    is the faster of two; with more `compiles` it is their median, and so is compiling.
    Functions are rebuilt each time.
    """
    names = list(builders)
    given = dict.fromkeys(names, args) | dict(others or {})
    traces: dict[str, list[float]] = {name: [] for name in names}
    compilations: dict[str, list[float]] = {name: [] for name in names}
    runs: dict[str, list[float]] = {name: [] for name in names}
    programs: dict[str, Any] = {}
    for name in _alternating(names, max(2, compiles)):
        build = builders[name]
        seconds, lowered = _seconds(lambda: jax.jit(build()).lower(*given[name]))  # noqa: B023
        traces[name].append(seconds)
        if len(compilations[name]) < compiles:
            seconds, programs[name] = _seconds(lowered.compile)
            compilations[name].append(seconds)
    for name in names:
        jax.block_until_ready(programs[name](*given[name]))
    for name in _alternating(names, rounds):
        seconds, _ = _seconds(
            lambda: jax.block_until_ready(programs[name](*given[name]))  # noqa: B023
        )
        runs[name].append(seconds)
    middle = min if compiles == 1 else statistics.median
    return {
        name: Cost(
            run=statistics.median(runs[name]),
            temporary=hlo.temporary(programs[name]),
            trace=middle(traces[name]),
            compile=statistics.median(compilations[name]),
            contractions=hlo.contractions(programs[name].as_text()),
            flops=hlo.flops(programs[name]),
        )
        for name in names
    }


def rows(
    model: str,
    network: Network,
    chosen: Mapping[str, Any],
    rounds: int,
    *,
    target: str = "max",
    compiles: int = 1,
    prepared: Sequence[str] = (),
) -> list[Row]:
    """A row for each of the `chosen` composites, and `prepared` ones once more."""
    apply, params, x = network
    args = (params, x)
    # JAX's own start and what it remembers of the network's inner functions belong to
    # neither side.
    jax.jit(gradient(apply, target)).lower(*args)
    builders: dict[str, Callable[[], Callable]] = {
        "gradient": lambda: gradient(apply, target)
    }
    for name, composite in chosen.items():
        builders[name] = functools.partial(relevance, apply, composite, target)
    others: dict[str, Sequence[Any]] = {}
    for name in prepared:
        explain = relevance(apply, chosen[name], target)
        buffers, rest = jaxlrp.prepare(explain, *args)
        builders[name + PREPARED] = functools.partial(_same, rest)
        others[name + PREPARED] = buffers, x
    costs = measure(builders, args, rounds, compiles, others)
    return [Row(model, name, costs["gradient"], costs[name]) for name in builders][1:]


PREPARED = ", prepared"


def _same(function: Callable) -> Callable:
    return function


def ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _ratio(part: float | None, whole: float | None) -> str:
    found = ratio(part, whole)
    return "–" if found is None else f"{found:.2f}"


HEADER = """\
| model | composite | gradient, ms | time | its MB | memory | contractions | flops \
| trace | compile | both |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


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
        f"{cost.contractions} / {base.contractions}",
        _ratio(cost.flops, base.flops),
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


def device() -> str:
    """The accelerator's kind, or the processor's name."""
    kind = jax.devices()[0].device_kind
    if kind != "cpu":
        return kind
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return " ".join((names or [platform.processor() or "CPU"])[0].split())


def environment(rounds: int, tiny: bool) -> dict[str, Any]:
    return {
        "jaxlrp": jaxlrp.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "backend": jax.default_backend(),
        "device": device(),
        "cores": cores(),
        "rounds": rounds,
        "tiny": tiny,
    }


def write(path: Path, record: Any) -> None:
    """Writes what JSON can hold."""
    content = (json.dumps(record, indent=1) + "\n").encode()
    _files.write(path, content, folders=True)


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
        chosen = {c: COMPOSITES[c] for c in options.composites or SUITED[model]}
        for row in rows(model, MODELS[model](options.tiny), chosen, options.rounds):
            print(line(row), flush=True)
            table.append(row)
        jax.clear_caches()
        if options.json:
            record = {"environment": facts, "rows": [*map(dataclasses.asdict, table)]}
            write(options.json, record)


if __name__ == "__main__":
    main()
