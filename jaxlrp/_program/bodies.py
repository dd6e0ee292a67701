"""How an equation runs the programs in it: loops, branches, calls, maps over shards.

A walk over the equations that comes to one with bodies asks `bodies_of` which operands
these are given, and which of them are carried from one iteration to the next. What is
known of a carry depends on what the body makes of it: `fixpoint` finds it.

A control-flow construct that JAX may add is described here and, with what becomes of
its relevance, in `_rewriting/control.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from jaxlrp import _compat
from jaxlrp._program.program import Equation

Flow = Literal["branch", "scan", "while", "shard_map", "checkpoint", "call"]
"""The kinds: `cond` and `switch`, `scan`, `while`, `jax.shard_map`, `jax.checkpoint`,
and calls, as of `jit`."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Bodies:
    """How the bodies of an equation are run.

    Attributes:
      flow: its kind.
      given: the operands that are given to each body.
      constants: how many of these come first and are the same in each iteration.
      carries: how many of these follow that one iteration passes to the next; so many
        results come first. The others are slices of stacks, one for each iteration.
    """

    flow: Flow
    given: slice
    constants: int = 0
    carries: int = 0

    @property
    def repeats(self) -> bool:
        """Is it a loop?"""
        return self.flow in ("scan", "while")

    @property
    def carried(self) -> slice:
        """Where the carries are among what a body is given."""
        return slice(self.constants, self.constants + self.carries)

    @property
    def slices(self) -> slice:
        """Where the slices of stacks are."""
        return slice(self.constants + self.carries, None)


def bodies_of(equation: Equation) -> Bodies:
    """How the bodies of an equation that has any are run."""
    params = dict(equation.params)
    if _compat.is_branch(params):
        return Bodies("branch", slice(1, None))
    if _compat.is_while(params):
        parts = _compat.while_parts(params)
        given = slice(parts.test_constants, None)
        return Bodies("while", given, parts.constants, len(equation.outputs))
    if _compat.is_loop(params):
        return Bodies("scan", slice(None), *_compat.scan_split(params))
    if _compat.is_sharded(params):
        return Bodies("shard_map", slice(None))
    return Bodies("checkpoint" if _compat.is_remat(params) else "call", slice(None))


def fixpoint(step: Callable[[list[T]], tuple[list[T], Any]], carry: list[T]) -> Any:
    """What `step` finds of a carry that it no longer changes.

    Args:
      step: from what is known of a carry to (what is known of it or of what the body
        makes of it, whatever else is found). It ends since what is known only grows, in
        steps of which there are finitely many.
      carry: what is known at first.

    Returns:
      `(carry, found)`, the last results of `step`.
    """
    while True:
        again, found = step(carry)
        if again == carry:
            return carry, found
        carry = again
