"""The rule book: what each JAX primitive does with relevance, one module a family.

Reading it: `elementwise` (sums, products, activations), `structural` (reshape,
transpose, ...), `indexing` (gather, scatter, slices), `contraction` (dot, conv),
`reduction` (sums, averages, cumulative sums), `selection` (max, sort, top-k),
`transform` (linear algebra, FFT), `inert` (what carries no relevance), `control`
(calls, loops, branches), `collective` (across devices), `sparse` (sparse matrices),
`state` (mutable arrays), `kernels` (Pallas, cuDNN), `internal` (JAX's own passes).
"""

from jaxlrp.primitives import (
    collective,
    contraction,
    control,
    elementwise,
    indexing,
    inert,
    internal,
    kernels,
    reduction,
    selection,
    sparse,
    state,
    structural,
    transform,
)
from jaxlrp.primitives._book import (
    Entry,
    Kind,
    enter_primitive,
    entries,
    lookup,
)

__all__ = [
    "Entry",
    "Kind",
    "collective",
    "contraction",
    "control",
    "elementwise",
    "enter_primitive",
    "entries",
    "indexing",
    "inert",
    "internal",
    "kernels",
    "lookup",
    "reduction",
    "selection",
    "sparse",
    "state",
    "structural",
    "transform",
]
