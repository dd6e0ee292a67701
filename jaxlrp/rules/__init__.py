"""The rules of LRP, each a frozen dataclass with its formula and its source.

Notation: a layer computes `z = W x + b`; `+` and `-` mark the elementwise maximum and
minimum with zero; `R` is relevance; `s(z) = z + epsilon sign(z)` with `sign(0) = +1`,
or another form of `STABILISERS`. A rule conserves if `sum_j R_j = sum_i R_i`; what a
bias or a stabiliser takes is absorbed, and `jaxlrp.audit` says how much that is.
Conventions on which libraries differ are named arguments: `stabiliser`, `relative`,
and `bias`, one of `BIASES`.

Rules are pytrees: their hyper-parameters can be traced, differentiated and vmapped.

    >>> import jax, jax.numpy as jnp, jaxlrp
    >>> w = jnp.array([[0.5, -1.5], [-1.0, 0.25], [2.0, 1.0]])
    >>> x, b = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.3, -0.4])
    >>> def share(gamma):
    ...     rule = jaxlrp.rules.GeneralizedGamma(gamma)
    ...     layer = jaxlrp.lrp(lambda x: x @ w + b, jaxlrp.composites.Uniform(rule))
    ...     return layer(x)
    >>> jax.vmap(share)(jnp.array([0.0, 0.25])).shape
    (2, 3)
"""

from jaxlrp.rules._base import (
    STABILISERS,
    Layer,
    LayerRule,
    Operation,
    RelevanceRule,
    Rule,
    Share,
    Total,
    negative,
    positive,
)
from jaxlrp.rules._layer import (
    BIASES,
    LRP0,
    Absolute,
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    GeneralizedGamma,
    Norm,
    TopK,
    WSquare,
    ZBox,
    ZPlus,
)
from jaxlrp.rules._operation import (
    BetaSmooth,
    Deconv,
    Detach,
    Gradient,
    Guided,
    Merge,
    Pass,
    Rescaled,
    SignalTakesAll,
    Taylor,
    UniformSplit,
    WinnerTakesAll,
)

__all__ = [
    "BIASES",
    "STABILISERS",
    "LRP0",
    "Absolute",
    "AlphaBeta",
    "BetaSmooth",
    "Deconv",
    "Detach",
    "Epsilon",
    "Flat",
    "Gamma",
    "GeneralizedGamma",
    "Gradient",
    "Guided",
    "Layer",
    "LayerRule",
    "Merge",
    "Norm",
    "Operation",
    "Pass",
    "RelevanceRule",
    "Rescaled",
    "Rule",
    "Share",
    "SignalTakesAll",
    "Taylor",
    "TopK",
    "Total",
    "UniformSplit",
    "WSquare",
    "WinnerTakesAll",
    "ZBox",
    "ZPlus",
    "negative",
    "positive",
]
