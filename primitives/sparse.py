"""Sparse matrices (`jax.experimental.sparse`): the data carry relevance.

Conversions move or add up elements. A product is a layer without weights where one of
the two is active, and shares in halves where both are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxlrp.primitives._book import Active, Entry, Kind, Params, enter, jointly, only

__all__ = []


def _product(*positions: int) -> Entry:
    """Linear in each of the two operands at `positions`."""

    def linear(active: Active) -> bool:
        return only(*positions)(active) and sum(active) <= 1

    def degree(params: Params, active: Active) -> Callable[..., Any] | None:
        return (lambda *_: 2) if all(active[i] for i in positions) else None

    return Entry(Kind.LINEAR, linear=linear, degree=degree)


enter(
    "bcoo_fromdense bcsr_fromdense coo_fromdense csr_fromdense",
    Entry(Kind.STRUCTURAL, linear=jointly),
)
enter("bcoo_transpose bcoo_sort_indices", Entry(Kind.STRUCTURAL, linear=only(0)))
enter("bcoo_extract", Entry(Kind.STRUCTURAL, linear=only(1)))
enter("bcsr_extract", Entry(Kind.STRUCTURAL, linear=only(2)))
enter(
    "bcoo_todense bcsr_todense coo_todense csr_todense todense bcoo_sum_duplicates",
    Entry(Kind.LINEAR, linear=only(0)),
)
enter("bcoo_dot_general", _product(0, 2))
enter("bcoo_dot_general_sampled", _product(0, 1))
enter("bcsr_dot_general coo_matvec coo_matmat csr_matvec csr_matmat", _product(0, 3))
enter(
    "spsolve",
    Entry(
        Kind.LINEAR,
        linear=only(3),
        held=lambda params, active: (0,) if active[0] and active[3] else (),
        degree=lambda params, active: (lambda *_: -1) if active[0] else None,
    ),
)
enter(
    "bcoo_spdot_general",
    Entry(
        Kind.REFUSED,
        reason="JAX has no transpose for the product of two sparse matrices; make one "
        "of them dense",
    ),
)
enter(
    "coo_spmv coo_spmm csr_spmv csr_spmm",
    Entry(Kind.REFUSED, reason="only occurs inside a product of a sparse matrix"),
)
