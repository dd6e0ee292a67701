"""What JAX's own passes write: relevance does not meet it in a function that is traced.

Halves of asynchronous collectives, calls that were linearised, loops of kernels.
"""

from __future__ import annotations

from jaxlrp.primitives._book import Entry, Kind, enter, jointly

__all__ = []

enter(
    "all_gather_start all_gather_done all_gather_reduced_start all_to_all_start "
    "all_to_all_done pbroadcast_start pbroadcast_done ppermute_start ppermute_done "
    "psum_start psum_done psum_invariant_start reduce_scatter_start "
    "reduce_scatter_done unreduced_psum_start unreduced_reduce_scatter_start psend "
    "precv unreduced_pmax unreduced_pmin",
    Entry(Kind.REFUSED, reason="JAX has no derivative for half of a collective"),
)
enter(
    "call_hi_primitive_linearized custom_lin custom_jvp_call_jaxpr remat_opt",
    Entry(Kind.REFUSED, reason="a call that JAX has linearised cannot be read"),
)
enter(
    "core_map mpmd_map jaxpr_call run_state",
    Entry(Kind.REFUSED, reason="a call that works on references cannot be read"),
)
enter("compute_on xla_metadata_call fused_call", Entry(Kind.CALL))
enter("linear_call", Entry(Kind.TAYLOR, reason="its own transpose, which is exact"))
# Casts in older versions.
enter(
    "reduced_vary_cast_p vary_unreduced_cast_p global_array_to_host_local_array "
    "host_local_array_to_global_array",
    Entry(Kind.STRUCTURAL, linear=jointly),
)
enter("inspect_sharding shape_assertion unreachable", Entry(Kind.INERT))
