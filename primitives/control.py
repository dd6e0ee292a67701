"""Calls, loops and branches: their bodies are read like any other program."""

from __future__ import annotations

from jaxlrp.primitives._book import Entry, Kind, enter

enter(
    "jit closed_call eval_jaxpr call custom_jvp_call custom_vjp_call composite",
    Entry(Kind.CALL),
)
enter("remat2 scan cond", Entry(Kind.CONTROL))
enter(
    "while",
    Entry(
        Kind.REFUSED,
        reason="a loop whose number of steps is not known when it is traced; use "
        "lax.scan, or lax.fori_loop with static bounds",
    ),
)
enter(
    "shard_map",
    Entry(
        Kind.REFUSED,
        reason="not read inside a function yet; use lrp inside shard_map, or shard the "
        "arguments of lrp",
    ),
)
enter(
    "custom_vmap_call pallas_call pure_callback io_callback ffi_call buffer_callback "
    "call_exported custom_partitioning",
    Entry(
        Kind.REFUSED,
        reason="its inside cannot be read; wrap the call in jaxlrp.custom_lrp",
    ),
)
