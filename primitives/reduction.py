"""Sums over axes and windows: linear, so relevance is shared in proportion.

`R_j = x_j R / sum_k x_k`: as a multiplier, JAX's transpose, without the division.
"""

from __future__ import annotations

from jaxlrp.primitives._book import (
    Entry,
    Kind,
    all_nonnegative,
    enter,
    first_nonnegative,
    jointly,
    never,
)

enter(
    "reduce_sum reduce_window_sum",
    Entry(Kind.LINEAR, linear=jointly, nonnegative=all_nonnegative, sums=True),
)
enter("cumsum", Entry(Kind.LINEAR, linear=jointly, nonnegative=all_nonnegative))
enter("select_and_scatter_add", Entry(Kind.SELECTION))
enter("select_and_gather_add", Entry(Kind.SELECTION))
enter("reduce_prod cumprod", Entry(Kind.TAYLOR, nonnegative=first_nonnegative))
enter("cumlogsumexp", Entry(Kind.TAYLOR, nonnegative=never))
enter(
    "reduce reduce_window",
    Entry(
        Kind.REFUSED,
        reason="a reduction by an arbitrary function; use the named reductions "
        "(sum, max, min, prod) instead",
    ),
)
