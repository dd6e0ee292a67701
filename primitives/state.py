"""Mutable arrays and logs: what is written to them cannot be followed.

A jaxpr does not say which write a read sees, so relevance is refused at a write of a
value that depends on the input, as well as at a read.
"""

from __future__ import annotations

from jaxlrp.primitives._book import Entry, Kind, enter

__all__ = []

REASON = (
    "relevance is not followed through mutable arrays; use x.at[...].set(...) and "
    "carries of lax.scan instead"
)

enter(
    "new_ref swap addupdate get freeze accum_grad_in_ref free_ref pin unpin "
    "create_linear get_global new_box box_get box_set new_log log_read log_extend",
    Entry(Kind.REFUSED, writes=True, reason=REASON),
)
enter("empty_ref", Entry(Kind.INERT))
