"""Parts of the tests: every test function is in each, its cases are dealt out.

All cases take longer than one waits for. A part has one case at least of each function,
and all parts together have every case. Tables of cheap cases, marked `whole`, are not
dealt out: each part has all of them.

What is slow takes longer than one waits for even so. `turn` deals out whole files.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence


def of_text(text: str) -> tuple[int, int]:
    """
    >>> of_text("1/3")
    (1, 3)
    """
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected K/N with 1 <= K <= N")
    return int(part), int(parts)


def chosen(names: Sequence[str], part: int, parts: int) -> set[str]:
    """Of these names, `file::function[case]`, those that belong to a part."""
    by_function: dict[str, list[str]] = {}
    for name in names:
        by_function.setdefault(name.partition("[")[0], []).append(name)
    found = set()
    for function, cases in by_function.items():
        # Neighbours are alike, and so are every third where three dtypes take turns.
        dealt = random.Random(function).sample(cases, len(cases))
        found.update(dealt[(part - 1) % len(dealt) :: parts])
    return found


def turn(names: Sequence[str], number: int, count: int) -> set[str]:
    """Of these names those in every `count`-th file: tests of a file share set-ups.

    >>> names = ["a.py::f[1]", "a.py::g", "b.py::f"]
    >>> sorted(sorted(turn(names, n, 2)) for n in (1, 2))
    [['a.py::f[1]', 'a.py::g'], ['b.py::f']]
    """
    found = sorted({name.partition("::")[0] for name in names})
    dealt = random.Random(0).sample(found, len(found))[number - 1 :: count]
    return {name for name in names if name.partition("::")[0] in dealt}
