"""Which tests `make test` leaves to `make test-slow`, and so to CI.

Most of what a test takes goes into compiling, the first time. `slow.txt` has the test
functions whose cases then take four fifths of a second or more, with the seconds of a
case. To bring it up to date, time them with nothing compiled before:

    make clean && make test-slow PYTEST_ARGS="--junitxml=out/slow.xml"
    make clean && make test PYTEST_ARGS="--junitxml=out/quick.xml"
    python -m tests.slow out/slow.xml out/quick.xml
"""

from __future__ import annotations

import argparse
import collections
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

LIST = Path(__file__).with_name("slow.txt")
LIMIT = 0.8
"""Seconds that a function's cases may take on average."""
AROUND = ("tests/examples/", "tests/benchmarks/test_real_")
"""Files whose tests share what takes long: a network that is trained, weights."""


def seconds_of(results: Sequence[Path]) -> dict[str, float]:
    """The mean over cases of each function, `file::function`, from JUnit's XML."""
    found: dict[str, list[float]] = collections.defaultdict(list)
    for path in results:
        for case in ElementTree.parse(path).iter("testcase"):
            file = case.attrib["classname"].replace(".", "/") + ".py"
            name = case.attrib["name"].partition("[")[0]
            found[f"{file}::{name}"].append(float(case.attrib["time"]))
    return {name: statistics.mean(took) for name, took in found.items()}


def written(seconds: dict[str, float], limit: float = LIMIT) -> str:
    """The list: a line for each function at or above the limit, by name.

    >>> written({"tests/test_a.py::test_b": 1.26, "tests/test_a.py::test_c": 0.1})
    '1.3 tests/test_a.py::test_b\\n'
    """
    slow = sorted(name for name, took in seconds.items() if took >= limit)
    kept = (name for name in slow if not name.startswith(AROUND))
    return "".join(f"{seconds[name]:.1f} {name}\n" for name in kept)


def listed(text: str) -> set[str]:
    """The functions on a list."""
    return {line.partition(" ")[2] for line in text.splitlines()}


def chosen(names: Iterable[str]) -> set[str]:
    """Of these names, `file::function[case]`, those of slow functions."""
    slow = listed(LIST.read_text("utf-8"))
    return {n for n in names if n.partition("[")[0] in slow or n.startswith(AROUND)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="JUnit's XML")
    parser.add_argument("--limit", type=float, default=LIMIT, help="in seconds")
    given = parser.parse_args()
    LIST.write_text(written(seconds_of(given.results), given.limit), "utf-8")


if __name__ == "__main__":
    main()
