"""What the programs share that write pages: tables, and a command line."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence

from jaxlrp import _files


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_or_check(page: pathlib.Path, render: Callable[[], str]) -> int:
    """Writes a page, or with `--check` says whether it is current; an exit status."""
    parser = argparse.ArgumentParser(description=f"Write docs/{page.name}.")
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    text = render()
    if not parser.parse_args().check:
        _files.write(page, text.encode())
        return 0
    if page.read_text() == text:
        return 0
    program = pathlib.Path(sys.argv[0]).name
    print(f"{page.name} is out of date: run python docs/{program}")
    return 1
