"""What relevance costs on the accelerator that is there, in under eight minutes.

    python -m benchmarks.on_device                 measures, and adds to the page
    python -m benchmarks.on_device --tiny --no-page    small shapes, to try it

Networks that fill a device, with random weights, in float32 and bfloat16: time and peak
memory of relevance over those of the gradient, and examples a second. Nothing is
downloaded. What has no time left is left out, and said so. The record is kept in
`benchmarks/devices/`, and `docs/performance.md` shows all that are there.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import gradient_ratio
from jaxlrp import _files
from tests.models import usual

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "devices"
PAGE = ROOT / "docs" / "performance.md"
TITLE = "## Accelerators"
BEHIND = "## Peers, measured earlier"
"""The section stands in front of this one."""

SECONDS = 450.0
ROUNDS = 9


def _decoder(tiny: bool) -> usual.Network:
    """A decoder of a billion weights: 16 layers of width 2048 by a loop."""
    if tiny:
        return usual.network(usual.Llama(8, 4, 2, 12, 2, 7, scan=True), 1, 5, 8)
    module = usual.Llama(2048, 32, 8, 8192, 16, 32000, scan=True)
    return usual.network(module, 1, 512, 2048)


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, how many examples fill a device, and the rules that suit it."""

    name: str
    build: Callable[[bool], usual.Network]
    batch: int
    composites: tuple[str, ...]


CASES = (
    Case("VGG16", usual.vgg16, 128, ("default", "epsilon", "epsilon-plus-flat")),
    Case("ViT-B/16", usual.vit_b, 128, ("default", "attnlrp")),
    Case("BERT-base, 128 tokens", usual.bert, 256, ("default", "attnlrp")),
    Case("decoder, 1e9 weights, 512 tokens", _decoder, 8, ("default", "attnlrp")),
)
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Row:
    """What a composite costs.

    Attributes:
      model: the network.
      dtype: of weights and inputs.
      batch: examples in a call.
      composite: the rules.
      gradient: seconds of a call.
      relevance: seconds of a call.
      memory: bytes of temporary memory, the gradient's and relevance's.
    """

    model: str
    dtype: str
    batch: int
    composite: str
    gradient: float
    relevance: float
    memory: tuple[int | None, int | None]


def cast(tree: Any, dtype: str) -> Any:
    """Floating arrays in another dtype."""

    def one(x: Any) -> Any:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(one, tree)


def rows(case: Case, dtype: str, rounds: int, tiny: bool) -> list[Row]:
    """The rows of a network in a dtype."""
    apply, params, x = case.build(tiny)
    batch = 2 if tiny else case.batch
    x = jnp.repeat(x, batch, 0)
    args = cast((params, x), dtype)
    builders: dict[str, Callable[[], Callable]] = {
        "gradient": functools.partial(gradient_ratio.gradient, apply)
    }
    for name in case.composites:
        rule = gradient_ratio.COMPOSITES[name]
        builders[name] = functools.partial(gradient_ratio.relevance, apply, rule)
    costs = gradient_ratio.measure(builders, args, rounds)
    base = costs["gradient"]
    return [
        Row(
            case.name,
            dtype,
            batch,
            name,
            base.run,
            costs[name].run,
            (base.temporary, costs[name].temporary),
        )
        for name in case.composites
    ]


def measured(seconds: float, rounds: int, tiny: bool) -> Iterator[list[Row] | str]:
    """All rows, or what was left out where time was up or memory full."""
    end = time.monotonic() + seconds
    longest = 0.0
    for case in CASES:
        for dtype in DTYPES:
            start = time.monotonic()
            # As long as the longest so far may be too long.
            if start + longest > end:
                yield f"{case.name}, {dtype}: no time left"
                continue
            try:
                yield rows(case, dtype, rounds, tiny)
            except jax.errors.JaxRuntimeError as error:
                yield f"{case.name}, {dtype}: {str(error).splitlines()[0]}"
            longest = max(longest, time.monotonic() - start)
            jax.clear_caches()


HEADER = (
    "| model | dtype | batch | composite | gradient, ms | time | examples a second "
    "| its MB | memory |\n| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |"
)


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    base, own = row["memory"]
    megabytes = "–" if base is None else f"{base / 1e6:,.0f}"
    memory = f"{own / base:.2f}" if base and own is not None else "–"
    cells = (
        row["model"],
        row["dtype"],
        str(row["batch"]),
        row["composite"],
        f"{row['gradient'] * 1e3:.2f}",
        f"{row['relevance'] / row['gradient']:.2f}",
        f"{row['batch'] / row['relevance']:,.0f}",
        megabytes,
        memory,
    )
    return f"| {' | '.join(cells)} |"


def section(records: Path = RECORDS) -> str:
    """What the page has of all devices; nothing where there is no record."""
    found = [json.loads(path.read_text()) for path in sorted(records.glob("*.json"))]
    if not found:
        return ""
    parts = [
        f"{TITLE}\n",
        "By `python -m benchmarks.on_device`, in batches that fill the device. *time* "
        "and *memory* are over the gradient's; random weights.\n",
    ]
    for record in found:
        at = record["environment"]
        left = "".join(f" Left out: {text}." for text in record["left out"])
        parts += [
            f"*{at['device']}; jaxlrp {at['jaxlrp']}, jax {at['jax']}; {at['rounds']} "
            f"rounds; {at['date']}.*{left}\n",
            "\n".join([HEADER, *map(line, record["rows"])]) + "\n",
        ]
    return "\n".join(parts)


def put(page: str, text: str) -> str:
    """The page with the section in it, in place of an older one."""
    page = re.sub(rf"^{TITLE}\n.*?(?=^## |\Z)", "", page, flags=re.M | re.S)
    before, behind, after = page.partition(BEHIND)
    return f"{before.rstrip()}\n\n{text}\n{behind}{after}" if text else page


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_device")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try it")
    parser.add_argument("--no-page", action="store_true", help="print only")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(argv)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    facts = gradient_ratio.environment(options.rounds, options.tiny) | {"date": today}
    print(f"{facts['device']}, jax {facts['jax']}\n\n{HEADER}", flush=True)
    record: dict[str, Any] = {"environment": facts, "rows": [], "left out": []}
    for found in measured(options.seconds, options.rounds, options.tiny):
        if isinstance(found, str):
            record["left out"].append(found)
            print(f"left out: {found}", flush=True)
            continue
        new = [dataclasses.asdict(row) for row in found]
        record["rows"] += new
        print("\n".join(map(line, new)), flush=True)
        if not options.no_page:  # after each part: a machine may be taken away
            slug = re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-")
            gradient_ratio.write(options.records / f"{slug}.json", record)
            text = put(options.page.read_text(), section(options.records))
            _files.write(options.page, text.encode())


if __name__ == "__main__":
    main()
