"""Indexing by integers: the indices decide where relevance goes and receive none."""

from __future__ import annotations

from jaxlrp.primitives._book import (
    Entry,
    Kind,
    Params,
    Signs,
    enter,
    first_nonnegative,
    only,
)


def _gathers_nonnegative(signs: Signs, params: Params) -> bool:
    """What lies out of bounds may be filled with a value of any sign."""
    fill = params.get("fill_value")
    return signs[0] and (fill is None or fill >= 0)


enter(
    "gather",
    Entry(Kind.STRUCTURAL, linear=only(0), nonnegative=_gathers_nonnegative),
)
enter(
    "dynamic_slice",
    Entry(Kind.STRUCTURAL, linear=only(0), nonnegative=first_nonnegative),
)
# `operand.at[...].set(update)`: both carry relevance, each where it remains.
enter("dynamic_update_slice", Entry(Kind.STRUCTURAL, linear=only(0, 1)))
enter("scatter", Entry(Kind.STRUCTURAL, linear=only(0, 2)))
enter("scatter-add scatter-sub", Entry(Kind.LINEAR, linear=only(0, 2)))
enter("scatter-mul", Entry(Kind.TAYLOR, linear=only(0)))
enter("scatter-min scatter-max", Entry(Kind.SELECTION))
