"""`python -m tests.fuzz`: random programs, until one fails or all are done."""

from __future__ import annotations

import argparse
import os
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Each program runs once: to compile it well takes longer than that.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

from tests.fuzz.checks import CHECKS  # noqa: E402
from tests.fuzz.search import Failed, search  # noqa: E402

AT_A_TIME = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--programs", type=int, default=1000, help="how many in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first")
    parser.add_argument(
        "--size", type=int, default=8, help="operations, without bodies"
    )
    parser.add_argument(
        "--first", action="store_true", help="shows it before shrinking"
    )
    parser.add_argument("--check", choices=list(CHECKS), help="this one alone")
    given = parser.parse_args()
    names = [given.check] if given.check else list(CHECKS)
    rounds = max(1, -(-given.programs // (AT_A_TIME * len(names))))
    failed = 0
    told = print if given.first else None
    for seed in range(given.seed, given.seed + rounds):
        for name in names:
            start = time.monotonic()
            try:
                search(name, seed, AT_A_TIME, given.size, found=told)
                verdict = "holds"
            except Failed as error:
                failed += 1
                verdict = f"FAILS\n{error}\n"
            seconds = time.monotonic() - start
            print(f"seed {seed}, {seconds:4.0f} s: {name} {verdict}", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
