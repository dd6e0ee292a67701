"""What carries no relevance: integers, comparisons, randomness, constants, barriers.

Such values decide where relevance goes (masks, indices) but receive none.
"""

from __future__ import annotations

from jaxlrp.primitives._book import Entry, Kind, always, enter

__all__ = []

enter("ne", Entry(Kind.INERT, nonnegative=always, differs=True))
enter(
    "lt le gt ge le_to lt_to is_finite argmax argmin",
    Entry(Kind.INERT, nonnegative=always),
)
enter("eq eq_to", Entry(Kind.INERT, nonnegative=always, matches=True))
enter(
    "and or xor not mulhi shift_right_logical",
    Entry(Kind.INERT, combines=True),
)
enter("shift_left", Entry(Kind.INERT, combines=True, shifts=1))
enter("shift_right_arithmetic", Entry(Kind.INERT, combines=True, shifts=-1))
enter(
    "reduce_and reduce_or reduce_xor bitcast_convert_type population_count clz",
    Entry(Kind.INERT),
)
enter("sign", Entry(Kind.INERT))
enter(
    "random_bits random_fold_in random_seed random_split random_unwrap random_wrap "
    "random_clone rng_bit_generator rng_uniform threefry2x32 threefry4x32 "
    "philox2x32 philox4x32 iota_2x32_shape",
    Entry(Kind.INERT),
)
enter(
    "iota empty empty2 axis_index dim_as_value dimension_size create_token "
    "after_all zeros_like platform_index lu_pivots_to_permutation",
    Entry(Kind.INERT),
)
enter("stop_gradient dce_sink", Entry(Kind.INERT, reason="a barrier by definition"))
enter("debug_callback debug_print check", Entry(Kind.INERT))
