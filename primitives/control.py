"""Calls, loops and branches: their bodies are read like any other program."""

from __future__ import annotations

from jaxlrp.primitives._book import Entry, Kind, enter

__all__ = []

enter(
    "jit closed_call eval_jaxpr call program_order custom_jvp_call custom_vjp_call "
    "composite custom_vmap_call",
    Entry(Kind.CALL),
)
enter("remat2 scan while cond shard_map", Entry(Kind.CONTROL))
enter(
    "pallas_call pure_callback io_callback ffi_call buffer_callback call_exported "
    "custom_partitioning",
    Entry(
        Kind.REFUSED,
        reason="its inside cannot be read; give the function around it a derivative "
        "(jax.custom_vjp, jax.custom_jvp), by which relevance is gradient x input, or "
        "a rule (jaxlrp.custom_lrp)",
    ),
)
