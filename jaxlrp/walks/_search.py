"""The largest walks through a chain of matrices, exactly: max-product, best first."""

from __future__ import annotations

import dataclasses
import heapq
import itertools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Chain:
    """Matrices between levels of nodes, each node with some features.

    The walk `w` has the value `end[w_L] M_L[w_L, w_{L-1}] ... start[w_0]`.

    Attributes:
      start: the first level's, (nodes, features).
      matrices: from above to below, (nodes, features above, nodes, features below), the
        lowest first.
      end: the last level's, (nodes, features).
    """

    start: np.ndarray
    matrices: tuple[np.ndarray, ...]
    end: np.ndarray


def largest(
    chain: Chain, count: int, absolute: bool, most: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The walks of the largest values, (walks, levels), these, and how many it opened.

    A beginning of a walk, from the last level down to `l`, is a message at a node
    there. What any walk makes of feature `a` of node `j` lies between two numbers,
    which follow from those of the level below; so does what a message can still become.
    Beginnings wait by that bound, those of one beginning in one entry, and what is
    complete when it comes first is the largest of all that are left.

    Raises:
      ValueError: if `most` beginnings were gone on with and the walks are not found.
    """
    highs, lows = _bounds(chain)
    depth = len(chain.matrices)
    waiting: list[tuple[float, int, int, _Opened, int]] = []
    numbers = itertools.count()

    def wait(opened: _Opened, rank: int) -> None:
        if rank < len(opened.order):
            bound = -float(opened.bounds[opened.order[rank]])
            # Of equal bounds the one further down is gone on with.
            heapq.heappush(waiting, (bound, opened.level, next(numbers), opened, rank))

    def enter(messages: np.ndarray, level: int, above: tuple[int, ...]) -> None:
        bounds = _reach(messages, highs[level], lows[level], absolute)
        order = np.argsort(-bounds, kind="stable")
        wait(_Opened(messages, level, above, bounds, order), 0)

    enter(chain.end, depth, ())
    walks: list[tuple[int, ...]] = []
    values: list[float] = []
    steps = 0
    while waiting and len(walks) < count:
        _, _, _, opened, rank = heapq.heappop(waiting)
        wait(opened, rank + 1)
        node = int(opened.order[rank])
        walk = (node, *opened.above)
        if opened.level == 0:
            walks.append(walk)
            values.append(float(opened.messages[node] @ chain.start[node]))
            continue
        steps += 1
        if steps > most:
            raise ValueError(
                f"most_opened: got {most}, and {len(walks)} of {count} walks are "
                f"found; a larger one goes on, fewer walks or by='neurons' take fewer"
            )
        matrix = chain.matrices[opened.level - 1][node]
        messages = np.tensordot(opened.messages[node], matrix, 1)
        enter(messages, opened.level - 1, walk)
    found = np.array(walks, int).reshape(len(walks), depth + 1)
    return found, np.array(values), steps


@dataclasses.dataclass(frozen=True)
class _Opened:
    """The ways on from one beginning: a message at each node of a level, by bound."""

    messages: np.ndarray
    level: int
    above: tuple[int, ...]
    bounds: np.ndarray
    order: np.ndarray


def _bounds(chain: Chain) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What a walk makes of a feature at most, and at least, from the first level on."""
    highs, lows = [chain.start], [chain.start]
    for matrix in chain.matrices:
        high, low = highs[-1], lows[-1]
        up, down = np.maximum(matrix, 0), np.minimum(matrix, 0)
        most = np.einsum("jakb,kb->jak", up, high) + np.einsum(
            "jakb,kb->jak", down, low
        )
        least = np.einsum("jakb,kb->jak", up, low) + np.einsum(
            "jakb,kb->jak", down, high
        )
        highs.append(most.max(-1))
        lows.append(least.min(-1))
    return highs, lows


def _by_node(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """What a feature above gets from each node below."""
    return np.einsum("jakb,kb->jak", matrix, values)


def _reach(
    messages: np.ndarray, high: np.ndarray, low: np.ndarray, absolute: bool
) -> np.ndarray:
    """The largest value that a message at each node can still become."""
    up, down = np.maximum(messages, 0), np.minimum(messages, 0)
    most = (up * high + down * low).sum(-1)
    if not absolute:
        return most
    return np.maximum(most, -(up * low + down * high).sum(-1))
