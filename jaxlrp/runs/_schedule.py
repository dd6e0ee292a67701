"""Which rows are in which block, whose block it is, and the calls that it takes.

All of it is arithmetic on numbers that every process knows, so that nothing has to be
agreed upon.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

BLOCKS = 64
"""A dataset is cut into so many blocks at least, as far as it is long enough."""

BYTES = 64 * 2**20
"""A block's largest array has so many bytes at most, if its rows are small enough."""

CALLS = 32
"""A block takes so many calls at most."""


def block_size(rows: int | None, batch_size: int, row_bytes: int) -> int:
    """Rows of a block where the user names none: a multiple of `batch_size`.

    Args:
      rows: of the dataset, or None where that is not known.
      batch_size: rows of a call.
      row_bytes: of the largest array.
    """
    by_bytes = BYTES // max(1, batch_size * row_bytes)
    by_rows = CALLS if rows is None else rows // (BLOCKS * batch_size)
    return batch_size * max(1, min(CALLS, by_bytes, by_rows))


def blocks(rows: int, block: int) -> int:
    """How many blocks there are; the last may be short."""
    return -(-rows // block)


def span(number: int, block: int, rows: int) -> tuple[int, int]:
    """The first row of a block, and the first that is not in it."""
    start = number * block
    return start, min(start + block, rows)


def is_own(number: int, shard: tuple[int, int]) -> bool:
    """Does a block belong to this shard? By its number alone, whatever is done."""
    return number % shard[1] == shard[0]


def calls(rows: int, batch_size: int) -> Iterator[np.ndarray]:
    """The rows of a block, counted from its first, that go into each call."""
    for start in range(0, rows, batch_size):
        yield np.arange(start, min(start + batch_size, rows))


def bucket_of(lengths: np.ndarray, buckets: Sequence[int]) -> np.ndarray:
    """The smallest bucket that holds each row.

    Raises:
      ValueError: for a row that is longer than all of them.
    """
    if len(lengths) and lengths.max() > buckets[-1]:
        raise ValueError(
            f"buckets: got {tuple(buckets)}, expected one of at least "
            f"{lengths.max()}, the length of a row"
        )
    return np.asarray(buckets)[np.searchsorted(buckets, lengths)]


def bucketed(
    lengths: np.ndarray, buckets: Sequence[int], batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """`(bucket, rows)` of each call: all rows of a call go into one bucket.

    Rows keep their order inside a bucket, so that the calls are a function of the
    block's lengths alone.
    """
    of_row = bucket_of(lengths, buckets)
    for bucket in buckets:
        (members,) = np.nonzero(of_row == bucket)
        for places in calls(len(members), batch_size):
            yield bucket, members[places]


def filled(places: np.ndarray, batch_size: int) -> np.ndarray:
    """As many rows as a call takes: the last one again where some are missing.

    Not zeros: what an explanation makes of them may be 0 / 0.
    """
    return np.append(places, np.repeat(places[-1], batch_size - len(places)))
