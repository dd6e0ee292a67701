"""Layer-wise Relevance Propagation as a JAX function transformation.

relevance = jax.jit(jaxlrp.lrp(apply_fn))(params, x)
"""

from jaxlrp import composites, errors, primitives, rules
from jaxlrp._audit import Audit, audit
from jaxlrp._custom import custom_lrp, register_rule, route
from jaxlrp._plan import Plan, plan
from jaxlrp._transform import lrp, relprop, value_and_lrp

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "Plan",
    "audit",
    "composites",
    "custom_lrp",
    "errors",
    "lrp",
    "plan",
    "primitives",
    "register_rule",
    "relprop",
    "route",
    "rules",
    "value_and_lrp",
]
