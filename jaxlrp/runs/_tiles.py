"""The calls of a run, with what they are given, read in the order of the blocks."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from jaxlrp.runs import _schedule, _source


@dataclasses.dataclass(frozen=True)
class Tile:
    """One call.

    Attributes:
      number: the block's.
      start: the block's first row.
      size: how many rows the block has.
      places: the rows of the call, counted from the block's first.
      batch: what is explained; the last row comes again where some are missing.
      lengths: of the rows, where these differ.
      last: is it the last call of its block?
    """

    number: int
    start: int
    size: int
    places: np.ndarray
    batch: Any
    lengths: np.ndarray | None
    last: bool


@dataclasses.dataclass(frozen=True)
class End:
    """Comes after all calls of a stream: how many rows there were."""

    rows: int


@dataclasses.dataclass(frozen=True)
class Data:
    """A dataset with its cut into blocks and calls.

    Attributes:
      source: opened.
      buckets: the lengths of its rows, if these differ.
      block: rows of a block.
      call: rows of a call.
    """

    source: _source.Source
    buckets: _source.Buckets | None
    block: int
    call: int


def tiles(
    data: Data, wanted: Callable[[int], bool]
) -> Generator[Tile | End, None, None]:
    """All calls of the blocks that are wanted."""
    if isinstance(data.source, _source.Stream):
        yield from _of_stream(data, data.source, wanted)
        return
    rows = data.source.length
    for number in range(_schedule.blocks(rows, data.block)):
        if wanted(number):
            start, stop = _schedule.span(number, data.block, rows)
            yield from _of_block(data, number, start, stop - start, None)


def _of_stream(
    data: Data, source: _source.Stream, wanted: Callable[[int], bool]
) -> Iterator[Tile | End]:
    start = 0
    with contextlib.ExitStack() as stack:
        rows = started(source)
        if hasattr(rows, "close"):
            stack.callback(rows.close)  # type: ignore[attr-defined]
        for number in itertools.count():
            try:
                if wanted(number):
                    block = list(itertools.islice(rows, data.block))
                    size = len(block)
                else:
                    block = []
                    size = sum(1 for _ in itertools.islice(rows, data.block))
            except Exception as error:
                error.add_note(f"while reading the source behind row {start}")
                raise
            if block:
                yield from _of_block(data, number, start, size, block)
            start += size
            if size < data.block:
                break
    yield End(start)


def started(source: _source.Stream) -> Iterator[Any]:
    """A stream from its beginning.

    Raises:
      TypeError: if it is none.
    """
    found = source.start()
    try:
        return iter(found)
    except TypeError:
        raise TypeError(
            f"source: returned {found!r}, expected an iterator of rows"
        ) from None


def _of_block(
    data: Data, number: int, start: int, size: int, rows: Sequence[Any] | None
) -> Iterator[Tile]:
    """The calls of one block, whose rows are given or are yet to be read."""
    for places, read, lengths, last in _calls(data, start, size, rows):
        try:
            batch = read(_schedule.filled(places, data.call))
        except Exception as error:
            # The places of a call in a bucket need not follow each other.
            first, final = start + places.min(), start + places.max()
            error.add_note(f"while reading rows {first} to {final} of the source")
            raise
        yield Tile(number, start, size, places, batch, lengths, last)


def _calls(
    data: Data, start: int, size: int, rows: Sequence[Any] | None
) -> Iterator[tuple[np.ndarray, Callable[[np.ndarray], Any], Any, bool]]:
    """`(places, how they are read, their lengths, is it the last)`."""
    source, buckets = data.source, data.buckets
    if buckets is None:
        for places in _schedule.calls(size, data.call):

            def read(filled: np.ndarray) -> Any:
                if rows is not None:
                    return _source.stacked([rows[i] for i in filled])
                assert not isinstance(source, _source.Stream)
                return source.batch(start + filled)

            yield places, read, None, places[-1] == size - 1
        return
    if rows is None:
        assert not isinstance(source, _source.Stream)
        rows = source.rows(start + np.arange(size))
    known = _source.as_dicts(rows)
    lengths = np.array([buckets.length_of(row) for row in known], np.int32)
    calls = list(_schedule.bucketed(lengths, buckets.lengths, data.call))
    for i, (bucket, places) in enumerate(calls):

        def padded(filled: np.ndarray, bucket: int = bucket) -> Any:
            return buckets.batch([known[i] for i in filled], bucket)

        yield places, padded, lengths[places], i == len(calls) - 1


def samples(data: Data) -> list[Any]:
    """A batch for each program that there will be, the longest bucket last.

    Raises:
      ValueError: for a source without rows.
    """
    source, call = data.source, data.call
    if isinstance(source, _source.Stream):
        rows = list(itertools.islice(started(source), 1))
    else:
        rows = source.rows(np.array([0])) if source.length else []
    if not rows:
        raise ValueError("source: got one without rows, expected at least one")
    if data.buckets is None:
        return [_source.stacked(rows * call)]
    (row,) = _source.as_dicts(rows)
    short = {n: v[:1] if data.buckets.is_ragged(n, v) else v for n, v in row.items()}
    return [data.buckets.batch([short] * call, n) for n in data.buckets.lengths]


PROBES = 16
"""So many rows tell one dataset from another."""


def probe(data: Data) -> str:
    """A hash of some rows, the first and the last among them; of a stream the first."""
    source = data.source
    if isinstance(source, _source.Stream):
        rows = list(itertools.islice(started(source), 1))
    else:
        ends = np.linspace(0, source.length - 1, min(PROBES, source.length))
        try:
            rows = source.rows(np.unique(ends.astype(np.int64)))
        except Exception as error:
            error.add_note("while reading the rows that tell the source from others")
            raise
    from jaxlrp.runs import _identity

    if data.buckets is not None:
        rows = _source.as_dicts(rows)
    return _identity.digest([_source.stacked([row]) for row in rows])
