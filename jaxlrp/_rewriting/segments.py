"""Where an evaluation is cut, so that what lies between can be recomputed.

`lrp(f, remat=True)` keeps between the passes only what crosses the cuts. What lies in
one segment is recomputed when relevance comes back to it, so memory is that of all cuts
and of one segment. The cuts are where that is least, by the sizes of values.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

from jaxlrp._program.bodies import bodies_of
from jaxlrp._program.program import Value
from jaxlrp._reading.steps import Reading, Step
from jaxlrp._rewriting.blocks import Block, crossing, last_uses

Item = Step | Block

_MOST = 64
"""Segments that are tried."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of a program.

    Attributes:
      items: what is evaluated, in order.
      inputs: the values that it reads and does not make.
      outputs: those that it makes and that are read after it.
      again: is it recomputed?
    """

    items: tuple[Item, ...]
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    again: bool = False


def segments(items: Sequence[Item], reading: Reading) -> list[Segment]:
    """The items in order, in segments.

    The last segment is not recomputed: relevance begins there. Nor is a loop, each of
    whose iterations is a segment, nor what has effects.
    """
    last = last_uses(items, reading)
    found: list[Segment] = []
    start = 0
    for stop in [*(i for i, item in enumerate(items) if _is_apart(item)), len(items)]:
        for a, b in _cut(items, start, stop, last):
            found.append(_segment(items, a, b, last, again=b < len(items)))
        found += [Segment((item,)) for item in items[stop : stop + 1]]
        start = stop + 1
    return found


def _is_apart(item: Item) -> bool:
    """A loop, or something with effects?"""
    if isinstance(item, Block):
        return False
    loops = bool(item.bodies) and bodies_of(item.main).repeats
    return loops or any(e.effectful for e in item.equations)


def _cut(
    items: Sequence[Item], start: int, stop: int, last: dict[Value, int]
) -> list[tuple[int, int]]:
    """The segments from `start` to `stop` that keep the fewest bytes."""
    if start == stop:
        return []
    sizes = [_made(item) for item in items[start:stop]]
    passing = crossing(items[start:stop], last, _bytes, start)
    best: tuple[int, list[int]] | None = None
    for count in range(1, min(len(sizes), _MOST) + 1):
        cuts = _cuts(sizes, passing, count)
        ends = [0, *cuts, len(sizes)]
        # What crosses the cuts is kept throughout; of the segments one at a time is
        # recomputed, and the largest decides.
        inside = max(sum(sizes[a:b]) for a, b in zip(ends, ends[1:], strict=False))
        cost = inside + sum(passing[i] for i in cuts)
        if best is None or cost < best[0]:
            best = cost, cuts
    assert best is not None
    ends = [start, *(start + i for i in best[1]), stop]
    return list(zip(ends, ends[1:], strict=False))


def _cuts(sizes: Sequence[int], passing: Sequence[int], count: int) -> list[int]:
    """Cuts into `count` segments of about one size, each where the least crosses."""
    before = list(itertools.accumulate(sizes, initial=0))
    share = before[-1] / count
    cuts: set[int] = set()
    for number in range(1, count):
        low, high = (number - 1 / 4) * share, (number + 1 / 4) * share
        near = range(bisect.bisect_left(before, low), bisect.bisect_right(before, high))
        inner = [i for i in near if 0 < i < len(sizes)]
        cuts.update([min(inner, key=lambda i: (passing[i], i))] if inner else [])
    return sorted(cuts)


def _segment(
    items: Sequence[Item], start: int, stop: int, last: dict[Value, int], again: bool
) -> Segment:
    own = tuple(items[start:stop])
    # In order, so that the same program is traced each time.
    made = dict.fromkeys(v for item in own for v in item.outputs)
    read = dict.fromkeys(v for item in own for v in item.reads)
    outputs = tuple(v for v in made if last.get(v, -1) >= stop)
    return Segment(own, tuple(v for v in read if v not in made), outputs, again)


def _made(item: Item) -> int:
    """The bytes of all that is made in an item."""
    steps = item.steps if isinstance(item, Block) else (item,)
    return sum(_bytes(v) for s in steps for e in s.equations for v in e.outputs)


def _bytes(value: Value) -> int:
    shape: Any = getattr(value.aval, "shape", ())
    size = math.prod(n for n in shape if isinstance(n, int))
    return size * getattr(getattr(value.aval, "dtype", None), "itemsize", 4)
