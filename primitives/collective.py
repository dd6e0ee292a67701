"""Collectives: linear maps across devices."""

from __future__ import annotations

from jaxlrp.primitives._book import Entry, Kind, enter, jointly

enter(
    "psum psum_invariant unreduced_psum reduce_scatter",
    Entry(Kind.LINEAR, linear=jointly),
)
enter(
    "all_gather all_gather_invariant all_to_all ppermute pbroadcast pvary",
    Entry(Kind.STRUCTURAL, linear=jointly),
)
