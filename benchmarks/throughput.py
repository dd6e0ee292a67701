"""What `jaxlrp.runs` costs over a bare loop, in time and in memory.

    python -m benchmarks.throughput              50,000 rows, nine interleaved runs
    python -m benchmarks.throughput --rows 5000 --rounds 3
    python -m benchmarks.throughput --memory     peaks at 50,000 and 500,000 rows

The bare loop has two calls on their way and copies results into one array. Both use the
same compiled function, which takes at least 100 microseconds for a row.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxlrp
from jaxlrp import runs

BATCH = 128
FEATURES = 256


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one pass over the dataset.

    Attributes:
      wall: seconds.
      cpu: seconds of all threads.
    """

    wall: float
    cpu: float


@dataclasses.dataclass(frozen=True)
class Rows:
    """A dataset of any length that takes no memory: rows of a small array again."""

    kept: np.ndarray
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> np.ndarray:
        return self.kept[i % len(self.kept)]


def explainer(width: int) -> Callable[[Any], Any]:
    """Relevances of a network of dense layers, so wide."""
    rng = np.random.default_rng(0)
    shapes = ((FEATURES, width), (width, width), (width, 10))
    weights = [rng.normal(size=s).astype(np.float32) / np.sqrt(s[0]) for s in shapes]

    def network(weights: Sequence[Any], x: Any) -> Any:
        for w in weights[:-1]:
            x = jax.nn.relu(x @ w)
        return x @ weights[-1]

    explain = jaxlrp.lrp(network, jaxlrp.composites.Epsilon())
    return jax.jit(lambda x: explain(weights, x))


def loop(explain: Callable[[Any], Any], x: np.ndarray) -> None:
    """What one writes by hand, without anything that could be resumed."""
    out = np.empty_like(x)
    flying: collections.deque[tuple[int, Any]] = collections.deque()

    def land() -> None:
        start, found = flying.popleft()
        out[start : start + BATCH] = found

    for start in range(0, len(x), BATCH):
        flying.append((start, explain(x[start : start + BATCH])))
        if len(flying) > 2:
            land()
    while flying:
        land()


def run(explain: Callable[[Any], Any], x: Any) -> None:
    """The same by `runs.attribute`."""
    with tempfile.TemporaryDirectory() as out:
        runs.attribute(explain, x, Path(out) / "run", batch_size=BATCH, progress=False)


def cost(work: Callable[..., None], *arguments: Any) -> Cost:
    """Of one call."""
    before, wall = _cpu(), time.perf_counter()
    work(*arguments)
    return Cost(time.perf_counter() - wall, _cpu() - before)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def overhead(rows: int, rounds: int, width: int) -> dict[str, float]:
    """Medians of interleaved runs.

    Returns:
      Microseconds for a row of the bare loop, the ratio of the times, and the
      microseconds of CPU for a row that `attribute` takes beside it.
    """
    rows -= rows % BATCH
    x = np.random.default_rng(1).normal(size=(rows, FEATURES)).astype(np.float32)
    explain = explainer(width)
    loop(explain, x[: 4 * BATCH])
    run(explain, x[: 4 * BATCH])
    bare, ours = [], []
    for i in range(rounds):
        order = [(loop, bare), (run, ours)]
        for work, costs in order[:: 1 if i % 2 else -1]:
            costs.append(cost(work, explain, x))
    return {
        "row": 1e6 * statistics.median(c.wall for c in bare) / rows,
        "ratio": statistics.median(
            o.wall / b.wall for o, b in zip(ours, bare, strict=True)
        ),
        "cpu": 1e6
        * statistics.median(o.cpu - b.cpu for o, b in zip(ours, bare, strict=True))
        / rows,
    }


def peak(rows: int) -> float:
    """The peak memory of a run in a process of its own, MB."""
    code = (
        "import resource, numpy as np\n"
        "from benchmarks import throughput as t\n"
        "kept = np.ones((1024, t.FEATURES), np.float32)\n"
        f"t.run(t.explainer(64), t.Rows(kept, {rows}))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=True, capture_output=True
    )
    return float(done.stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--width", type=int, default=1536, help="of the network")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args(arguments)
    if options.memory:
        few, many = peak(options.rows), peak(10 * options.rows)
        print(f"{options.rows} rows {few:.0f} MB, ten times as many {many:.0f} MB")
        return
    found = overhead(options.rows, options.rounds, options.width)
    print(
        f"a row takes {found['row']:.0f} us in a bare loop, {found['ratio']:.3f} times "
        f"as long in a run, which takes {found['cpu']:.1f} us of CPU for each row"
    )


if __name__ == "__main__":
    main()
