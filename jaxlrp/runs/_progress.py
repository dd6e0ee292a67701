"""How far a run is: a bar in a terminal, or a function of the user's."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a run tells of itself after each block.

    Attributes:
      rows: that this shard has done, those of an earlier start included.
      total: that it has to do, None for a stream.
      rate: rows a second since this start.
      left: seconds that remain at this rate, None for a stream.
      bytes: written since this start.

    Examples:
      >>> from jaxlrp import runs
      >>> told = lambda p: print(f"{p.rows} of {p.total} rows")
      >>> told(runs.Progress(rows=50, total=200, rate=10.0, left=15.0, bytes=4000))
      50 of 200 rows
    """

    rows: int
    total: int | None
    rate: float
    left: float | None
    bytes: int


Report = Callable[[int, int], None]
"""Is told of rows that are done, and of bytes that were written for them."""


@contextlib.contextmanager
def reporting(progress: Any, done: int, total: int | None) -> Iterator[Report]:
    """A function to be called after each block.

    Args:
      progress: None for a bar where standard error is a terminal, True for one in any
        case, False for none, or a function of a `Progress`.
      done: rows that were done before.
      total: rows that there are.

    Raises:
      TypeError: for anything else.
    """
    if progress is not None and not isinstance(progress, bool | Callable):
        raise TypeError(
            f"progress: got {progress!r}, expected None, a bool or a function"
        )
    with contextlib.ExitStack() as stack:
        show: Callable[[Progress], Any] = lambda state: None  # noqa: E731
        if callable(progress):
            show = progress
        elif progress or (progress is None and sys.stderr.isatty()):
            show = stack.enter_context(_bar(done, total))
        start, rows, size = time.monotonic(), 0, 0

        def report(more: int, written: int) -> None:
            nonlocal rows, size
            rows, size = rows + more, size + written
            rate = rows / max(time.monotonic() - start, 1e-9)
            left = None if total is None else (total - done - rows) / max(rate, 1e-9)
            show(Progress(done + rows, total, rate, left, size))

        yield report


@contextlib.contextmanager
def _bar(done: int, total: int | None) -> Iterator[Callable[[Progress], Any]]:
    from rich import console, progress

    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]:,.0f} rows/s"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[size]:,.0f} MB"),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True)) as bars:
        task = bars.add_task("", total=total, completed=done, rate=0.0, size=0.0)

        def show(state: Progress) -> None:
            size = state.bytes / 1e6
            bars.update(task, completed=state.rows, rate=state.rate, size=size)

        yield show
