"""Composites: which rule each role of a network gets, as plain data.

A composite is a name and a list of assignments. The *last* assignment that matches a
step wins, whatever its conditions, so a composite is changed by adding to it:

    >>> from jaxlrp import composites, rules
    >>> composite = (
    ...     composites.Epsilon()
    ...     .on("convolution", rules.ZPlus())
    ...     .on("convolution", rules.Flat(), first=True)
    ...     .on("dense", rules.Gamma(0.1), scope="*/head*")
    ...     .on("layer", rules.GeneralizedGamma(0.25), depth=(1, 5))
    ... )
    >>> print(composites.EpsilonPlus())
    EpsilonPlus
      role         rule                      documented in
      layer        Epsilon(epsilon=1e-06)    jaxlrp.rules.Epsilon
      convolution  ZPlus(epsilon=1e-06)      jaxlrp.rules.ZPlus
      average      Norm(epsilon=1e-06)       jaxlrp.rules.Norm
      sum          Norm(epsilon=1e-06)       jaxlrp.rules.Norm

Roles: `dense` and `convolution` (together `layer`), `batch_norm`, `average`, `sum`,
`activation`, `normaliser`, `quotient`, `softmax`, `bilinear`, `product`, `scale`,
`shift`, `selection`; `any` is all of them. What no assignment names gets its role's
default (`DEFAULTS`).
"""

from jaxlrp.composites._base import (
    ALLOWED,
    DEFAULTS,
    GROUPS,
    Assignment,
    Composite,
    Depths,
    Place,
    Role,
)
from jaxlrp.composites._presets import (
    BetaSmooth,
    BiLRP,
    DeconvNet,
    DeepTaylor,
    DeepTaylorBounded,
    Default,
    Epsilon,
    EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox,
    EpsilonPlus,
    EpsilonPlusFlat,
    ExcitationBackprop,
    GuidedBackprop,
    Proportional,
    SequentialPresetA,
    SequentialPresetAFlat,
    SequentialPresetB,
    SequentialPresetBFlat,
    SequentialPresetBFlatUntil,
    Uniform,
)
from jaxlrp.composites._transformers import (
    CPLRP,
    GIM,
    AttnLRP,
    AttnLRPGamma,
    CPLRPGamma,
    DynamicLRP,
    MambaLRP,
    RelP,
    ResLRP,
)

__all__ = [
    "ALLOWED",
    "Assignment",
    "AttnLRP",
    "AttnLRPGamma",
    "BetaSmooth",
    "BiLRP",
    "CPLRP",
    "CPLRPGamma",
    "Composite",
    "DEFAULTS",
    "DeconvNet",
    "DeepTaylor",
    "DeepTaylorBounded",
    "Default",
    "Depths",
    "DynamicLRP",
    "Epsilon",
    "EpsilonAlpha2Beta1",
    "EpsilonAlpha2Beta1Flat",
    "EpsilonGammaBox",
    "EpsilonPlus",
    "EpsilonPlusFlat",
    "ExcitationBackprop",
    "GIM",
    "GROUPS",
    "GuidedBackprop",
    "MambaLRP",
    "Place",
    "Proportional",
    "RelP",
    "ResLRP",
    "Role",
    "SequentialPresetA",
    "SequentialPresetAFlat",
    "SequentialPresetB",
    "SequentialPresetBFlat",
    "SequentialPresetBFlatUntil",
    "Uniform",
]
