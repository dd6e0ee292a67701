"""Selections: an output element is one of the input elements, chosen by value.

The winner takes all. Ties: `reduce_max` shares evenly, `reduce_window_max` (max
pooling) takes the first of the window, `sort` and `top_k` are stable.
"""

from __future__ import annotations

from jaxlrp.primitives._book import Entry, Kind, all_nonnegative, enter

enter(
    "reduce_max reduce_min reduce_window_max reduce_window_min cummax cummin sort "
    "top_k approx_top_k",
    Entry(Kind.SELECTION, nonnegative=all_nonnegative),
)
enter(
    "pmax pmin",
    Entry(Kind.REFUSED, reason="JAX has no derivative for a maximum across devices"),
)
