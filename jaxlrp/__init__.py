"""Layer-wise Relevance Propagation as a JAX function transformation.

relevance = jax.jit(jaxlrp.lrp(apply_fn))(params, x)
"""

from jaxlrp import (
    attribution,
    clusters,
    compat,
    composites,
    concepts,
    deep_taylor,
    errors,
    evaluation,
    interactions,
    patching,
    plot,
    primitives,
    rules,
    runs,
    similarity,
    targets,
    taylor,
    text,
    walks,
)
from jaxlrp._audit import Audit, audit
from jaxlrp._beside import value_grad_and_lrp
from jaxlrp._check import Findings, check
from jaxlrp._custom import custom_lrp, register_rule, route
from jaxlrp._each import lrp_each
from jaxlrp._lrp import lrp, relprop, value_and_lrp
from jaxlrp._parameters import parameter_relevance
from jaxlrp._plan import Plan, plan
from jaxlrp._prepare import prepare
from jaxlrp._sizes import amplification

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "Findings",
    "Plan",
    "amplification",
    "attribution",
    "audit",
    "check",
    "clusters",
    "compat",
    "composites",
    "concepts",
    "custom_lrp",
    "deep_taylor",
    "errors",
    "evaluation",
    "interactions",
    "lrp",
    "lrp_each",
    "parameter_relevance",
    "patching",
    "plan",
    "plot",
    "prepare",
    "primitives",
    "register_rule",
    "relprop",
    "route",
    "rules",
    "runs",
    "similarity",
    "targets",
    "taylor",
    "text",
    "value_and_lrp",
    "value_grad_and_lrp",
    "walks",
]
