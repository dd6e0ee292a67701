"""`python -m tests.mutations [pattern]`: are changes of the code noticed?"""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.mutations.run import ROOT, TABLE, Options, parse, problems, report, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations")
    parser.add_argument(
        "pattern", nargs="?", default="", help="of those with this text"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--part", default=Options.part, help="K/N, as for make test")
    parser.add_argument("--limit", type=float, default=Options.limit, help="seconds")
    parser.add_argument("--list", action="store_true", help="run nothing")
    given = parser.parse_args()
    mutations = parse(TABLE.read_text("utf-8"))
    chosen = [m for m in mutations if given.pattern in str(m)]
    if given.list:
        print("\n".join(map(str, chosen)))
        wrong = problems(ROOT, mutations)
        print("\n".join([*wrong, f"{len(chosen)} mutations"]))
        return bool(wrong)
    start = time.monotonic()
    options = Options(given.workers, given.part, given.limit)
    try:
        verdicts = run(ROOT, chosen, options, lambda text: print(text, flush=True))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    text, enough = report(verdicts, time.monotonic() - start)
    print(text)
    return not enough


if __name__ == "__main__":
    sys.exit(main())
