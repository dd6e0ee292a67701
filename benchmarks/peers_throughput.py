"""Examples a second of zennit, captum and LXT, next to jaxlrp's, in large batches.

    python -m benchmarks.peers_throughput
    python -m benchmarks.peers_throughput --models resnet18 bert --batch 32 --rounds 3

Each model with each batch is a part, which takes the place of an older one in
`benchmarks/peers/throughput.json` and on `docs/performance.md`. All of a part is
measured in one process, by turns: PyTorch's gradient and the peers, JAX's gradient and
our composites.
"""

from __future__ import annotations

from benchmarks import peers_speed

# isort: split
import argparse
import dataclasses
import functools
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import torch

from benchmarks import gradient_ratio, rates
from benchmarks.peers_networks import image_network, transformer
from benchmarks.performance import PAGE
from jaxlrp import _files


def _methods(model: str, batch: int, tiny: bool) -> Iterator[peers_speed.Method]:
    """Those of peers that one of our composites is beside."""
    sides = (peers_speed.zennit_methods, peers_speed.captum_methods)
    if model in peers_speed.MAPS:
        sides = (peers_speed.lxt_methods,)
    for side in sides:
        for method in side(model, tiny, batch):
            if method.composite in rates.COMPOSITES[model]:
                yield method


def _calls(
    model: str, batch: int, tiny: bool
) -> tuple[dict[str, Callable[[], Any]], list[peers_speed.Method]]:
    """The gradient and each method by name, and the methods."""
    make = transformer if model in peers_speed.MAPS else image_network
    base = make(model, tiny, batch=batch)
    methods = list(_methods(model, batch, tiny))

    def sent(method: peers_speed.Method) -> Any:
        with method.ready():
            return method.call()

    calls: dict[str, Callable[[], Any]] = {
        "gradient": functools.partial(peers_speed.gradient, base)
    }
    for method in methods:
        calls[method.name] = functools.partial(sent, method)
    return calls, methods


def rows(model: str, batch: int, rounds: int, tiny: bool) -> list[rates.Row]:
    """All rows of a part, whose calls take turns."""
    for call in _calls(model, 2, tiny)[0].values():
        call()  # PyTorch compiles nothing: a few examples warm it as well as many
    calls, methods = _calls(model, batch, tiny)
    found = rates.medians(calls | rates.ours(model, batch, tiny), rounds)
    del calls
    gc.collect()
    jax.clear_caches()
    theirs = [
        rates.Row(m.composite, m.name, m.package, found["gradient"], found[m.name])
        for m in methods
    ]
    return theirs + rates.rows_of_ours(model, found)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers_throughput",
        description="Examples a second of zennit, captum, LXT and jaxlrp.",
    )
    names = list(rates.NETWORKS)
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="of PyTorch; default: all cores")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try it")
    parser.add_argument("--no-page", action="store_true", help="print only")
    parser.add_argument("--record", type=Path, default=rates.RECORD)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"--rounds: got {options.rounds}, expected at least 1")
    if min(options.batch) < 1:
        parser.error(f"--batch: got {options.batch}, expected positive ones")
    torch.set_num_threads(options.threads or gradient_ratio.cores())
    facts = peers_speed.environment(options.rounds, options.tiny)
    print(rates.HEADER, flush=True)
    for model in options.models:
        for batch in options.batch:
            found = rows(model, batch, options.rounds, options.tiny)
            at = facts | {"load": os.getloadavg()[0]}
            part: dict[str, Any] = {"environment": at, "model": model, "batch": batch}
            part["rows"] = [dataclasses.asdict(row) for row in found]
            shown = [rates.line(part, row) for row in part["rows"]]
            print("\n".join([*shown, *rates.verdicts(part)]), flush=True)
            if not options.no_page:  # after each part: a run may be ended early
                rates.keep(part, options.record)
                text = rates.put(
                    options.page.read_text(), rates.section(options.record)
                )
                _files.write(options.page, text.encode())


if __name__ == "__main__":
    main()
