"""Layer-wise Relevance Propagation as a JAX function transformation.

    relevance = jax.jit(jaxlrp.lrp(apply_fn))(params, x)
"""

from jaxlrp import composites, errors, primitives, rules
from jaxlrp._transform import lrp, relprop, value_and_lrp

__version__ = "0.1.0"

__all__ = [
    "composites",
    "errors",
    "lrp",
    "primitives",
    "relprop",
    "rules",
    "value_and_lrp",
]
