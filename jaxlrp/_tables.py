"""Tables as text of a bounded width, and the user's lines without their folders."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

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
    least: Mapping[str, int] | None = None,
    width: int = WIDTH,
) -> list[str]:
    """Lines of a table that is as wide as asked at most, with a rule below its head.

    Args:
      head: the names of the columns.
      rows: their cells.
      whole: the columns that are never cut.
      ends: those of which the end says more than the beginning.
      least: the characters that a column needs to be understood: 8 without an entry.
      width: in characters. Too long cells are cut, where `…` stands: those first that
        have most beyond what they need. A column without any text is left out.
    """
    kept = [i for i in range(len(head)) if not rows or any(row[i] for row in rows)]
    head = [head[i] for i in kept]
    cells = [head, *([row[i] for i in kept] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    need = [(least or {}).get(name, 8) for name in head]
    free = [i for i, name in enumerate(head) if name not in whole]
    between = " " * (2 if sum(widths) + 2 * (len(head) - 1) <= width else 1)
    while sum(widths) + len(between) * (len(head) - 1) > width:
        free = [i for i in free if widths[i] > len(head[i])]
        if not free:
            break
        widths[max(free, key=lambda i: widths[i] / need[i])] -= 1
    cut = [
        [_cut(c, w, h in ends) for c, w, h in zip(row, widths, head, strict=True)]
        for row in cells
    ]
    lines = [between.join(map(str.ljust, row, widths)).rstrip() for row in cut]
    return [lines[0], between.join("-" * w for w in widths), *lines[1:]]


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
    name = text.rsplit("/", 1)[-1]
    if end and len(name) <= width and _LINE.fullmatch(text):
        return name  # a file's folder says least
    return "…" + text[len(text) - width + 1 :] if end else text[: width - 1] + "…"
