"""Layer-wise Relevance Propagation as a JAX function transformation.

`relevance = jax.jit(jaxlrp.lrp(apply_fn))(params, x)`
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jaxlrp import composites, errors, primitives, rules, targets
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

if TYPE_CHECKING:
    from jaxlrp import (
        attribution,
        clusters,
        compat,
        concepts,
        deep_taylor,
        evaluation,
        interactions,
        patching,
        plot,
        runs,
        similarity,
        taylor,
        text,
        walks,
    )
else:

    def __getattr__(name: str) -> Any:
        """What stands on the transformations is imported when it is first asked for."""
        if name in __all__:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
