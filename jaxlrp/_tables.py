"""Tables as text of a bounded width, and the user's lines without their folders."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 100
"""Columns of a printed table."""

_LINE = re.compile(r"(?P<file>.+?):(?P<line>\d+)(?::\d+)?(?P<function> \(.*\))?")
# Of a package, or of a notebook's cells, which lie in a folder of the kernel's own.
_ELSEWHERE = re.compile(r".*/(?:(?:site|dist)-packages|ipykernel_\d+)/")


def short_lines(lines: Iterable[str]) -> dict[str, str]:
    """`file:line (function)` of each line, the file as short as tells it.

    Of an installed package it is what follows `site-packages`, of a notebook's cell its
    name; of all other files what follows the folder that they share. The column goes.
    """
    found = {line: _LINE.fullmatch(line) for line in dict.fromkeys(lines)}
    files = {line: match["file"] for line, match in found.items() if match}
    own = {f for f in files.values() if not _ELSEWHERE.match(f) and "/" in f}
    folders = [os.path.dirname(f) for f in own]
    try:
        shared = os.path.commonpath(folders) if folders else ""
    except ValueError:  # some absolute, some relative
        shared = ""
    short = {}
    for line, match in found.items():
        if match is None:
            short[line] = line
            continue
        file = _ELSEWHERE.sub("", match["file"])
        if shared and file.startswith(f"{shared.rstrip('/')}/"):
            file = file.removeprefix(f"{shared.rstrip('/')}/")
        short[line] = f"{file}:{match['line']}{match['function'] or ''}"
    return short


def places(lines: Iterable[str]) -> dict[str, str]:
    """`file:line` of each line: `short_lines` without functions."""
    return {line: s.split(" (")[0] for line, s in short_lines(lines).items()}


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    whole: Sequence[str] = (),
    ends: Sequence[str] = (),
    wide: Sequence[str] = (),
    width: int = WIDTH,
) -> list[str]:
    """Lines of a table that is as wide as asked at most, with a rule below its head.

    Args:
      head: the names of the columns.
      rows: their cells.
      whole: the columns that are never cut.
      ends: those of which the end says more than the beginning.
      wide: those that are cut later than others. One without any text is left out.
      width: in characters. Too long cells are cut, where `…` stands, those of the
        widest columns first.
    """
    kept = [i for i in range(len(head)) if not rows or any(row[i] for row in rows)]
    head = [head[i] for i in kept]
    cells = [head, *([row[i] for i in kept] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    weight = [0.7 if name in wide else 1.0 for name in head]
    free = [i for i, name in enumerate(head) if name not in whole]
    while sum(widths) + 2 * (len(head) - 1) > width:
        free = [i for i in free if widths[i] > len(head[i])]
        if not free:
            break
        widths[max(free, key=lambda i: widths[i] * weight[i])] -= 1
    cut = [
        [_cut(c, w, h in ends) for c, w, h in zip(row, widths, head, strict=True)]
        for row in cells
    ]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cut]
    return [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]


def wrapped(note: str, width: int = WIDTH) -> list[str]:
    """A note in lines of this width, indented."""
    return textwrap.wrap(
        note,
        width,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _cut(text: str, width: int, end: bool) -> str:
    if len(text) <= width:
        return text
    return "…" + text[len(text) - width + 1 :] if end else text[: width - 1] + "…"
