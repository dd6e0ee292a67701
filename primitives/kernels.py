"""What lies inside kernels (Pallas), and kernels of the cuDNN library.

Those inside never meet relevance: the kernel is one equation, `pallas_call`. Fused
attention is explained through its own derivative where a function brings one.
"""

from __future__ import annotations

from jaxlrp.primitives._book import Entry, Kind, enter

__all__ = []

enter(
    "program_id num_programs semaphore_read",
    Entry(Kind.INERT, reason="inside a kernel"),
)
enter(
    "masked_load masked_swap multiple_of run_scoped delay reciprocal "
    "semaphore_signal semaphore_wait",
    Entry(Kind.REFUSED, reason="only occurs inside a Pallas kernel"),
)
enter(
    "dot_product_attention_fwd dot_product_attention_fwd_wrapper "
    "dot_product_attention_bwd dot_product_attention_bwd_wrapper "
    "dot_product_attention_fp8_fwd dot_product_attention_fp8_fwd_wrapper "
    "dot_product_attention_fp8_bwd dot_product_attention_fp8_bwd_wrapper "
    "cudnn_fusion rnn_fwd rnn_bwd",
    Entry(
        Kind.REFUSED,
        reason="a kernel of cuDNN, whose inside cannot be read; use another "
        "implementation (implementation='xla'), or wrap it in jaxlrp.custom_lrp",
    ),
)
