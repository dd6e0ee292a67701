"""Relevances of other packages next to ours, on the same networks.

    make peers
    python -m benchmarks.peers --seed 7 --only zennit
    python -m benchmarks.peers --parts trained --seeds 1 --examples 20

Runs zennit, captum and LXT themselves and what `jaxlrp.compat` has under their names,
in float64, and prints a table in markdown of the largest difference relative to the
largest relevance. Fails where that exceeds the limit, 1e-9 but where a row says why
not. `make peers` installs what it needs.

- small: every rule and composite, on small networks with fresh random weights.
- architectures: LXT on Hugging Face's GPT-2, Qwen3 and Gemma 3.
- trained: the networks of `benchmarks.faithfulness`, its methods on its examples.
"""

from benchmarks.peers import architectures, small, trained

# isort: split
import argparse
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import torch

from benchmarks.peers import units
from benchmarks.peers.cases import Case, head, run
from benchmarks.trained import KEPT

PARTS = ("small", "architectures", "trained")


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    clock = int(time.time()) % 100_000
    parser.add_argument("--seed", type=int, default=clock, help="of random weights")
    parser.add_argument("--only", nargs="+", choices=small.PEERS, default=small.PEERS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=3, help="trained networks of each")
    parser.add_argument("--examples", type=int, default=100, help="of each of these")
    parser.add_argument("--trained", type=Path, default=KEPT, help="their weights")
    parser.add_argument("--out", type=Path, default=units.KEPT, help="relevances")
    return parser.parse_args(arguments)


def cases(given: argparse.Namespace) -> Iterator[Case]:
    if "small" in given.parts:
        yield from small.cases(given.seed, given.only)
    if "architectures" in given.parts and "lxt" in given.only:
        yield from architectures.cases(given.seed)
    if "trained" in given.parts:
        yield from trained.cases(given.seeds, given.examples, given.trained, given.only)


def main(arguments: Sequence[str] | None = None) -> int:
    given = options(arguments)
    torch.set_default_dtype(torch.float64)
    jax.config.update("jax_enable_x64", True)
    print(f"seed {given.seed}\n\n{head()}")
    failed = 0
    kept: dict[str, dict] = {}
    with warnings.catch_warnings():
        # torch warns of backward hooks on inputs that need no gradient.
        warnings.simplefilter("ignore")
        for outcome in run(cases(given), lambda row: print(row, flush=True)):
            failed += not outcome.within
            case = outcome.case
            if case.network in trained.NETWORKS:
                kept.setdefault(case.network, {})[f"{case.peer}: {case.name}"] = (
                    outcome.theirs
                )
    for network, relevances in kept.items():
        units.keep(network, relevances, given.out)
    print(f"\n{failed} too large" if failed else "\nall within their limits")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
