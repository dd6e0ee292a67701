"""The rest of a program as a function of a value in it: JAX's own, without rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jax import Array

from jaxlrp._program.program import Value
from jaxlrp._rewriting.backward import Traced
from jaxlrp._rewriting.environment import Run, Visits
from jaxlrp._rewriting.evaluate import evaluate
from jaxlrp.composites import Composite


def onwards(
    traced: Traced, start: Value | None, watched: Sequence[Value]
) -> Callable[[Array | None], tuple[list[Array], list[Array]]]:
    """A function of what stands at a value, which JAX can differentiate.

    Args:
      traced: the function, traced with `keep_calls=False`.
      start: a value of its own, outside of loops and branches, that is replaced, or
        None for the program as it is.
      watched: values, outside of these as well, that are wanted.

    Returns:
      A function from the array in place of `start` to the leaves of the output and the
      watched values.
    """
    reading = traced.reading
    inputs = reading.program.inputs

    def rest(x: Array | None) -> tuple[list[Array], list[Array]]:
        seen: dict[Value, Any] = {}

        def visit(number: int, v: Value, own: Any, shadow: Any) -> Any:
            seen[v] = x if v is start else own
            return seen[v], shadow

        given = list(traced.inputs)
        for i, v in enumerate(inputs):
            if v is start:
                given[i] = x
            seen[v] = given[i]
        own = list(dict.fromkeys(v for v in (start, *watched) if v is not None))
        numbers = {(v,): i for i, v in enumerate(own)}
        visits = Visits(visit, numbers, dict(enumerate(own)))
        run = Run(Composite("own"), visits=visits, without_rules=True)
        nothing = [None] * len(given)
        outs, _ = evaluate(reading, run, given, nothing)
        return outs[: traced.n_out], [seen[v] for v in watched]

    return rest
