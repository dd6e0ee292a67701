"""The names, defaults and conventions of other packages for LRP.

One module for each: functions that return this package's rules and composites, so that
`lrp(f, zennit.EpsilonPlusFlat())` is zennit's relevance, and a table `TABLE` of names.
`docs/migrating.md` is made from the tables.

    >>> from jaxlrp import rules
    >>> from jaxlrp.compat import captum, zennit
    >>> zennit.Gamma() == rules.GeneralizedGamma(0.25)
    True
    >>> captum.GammaRule() == rules.Gamma(0.25, epsilon=1e-9, bias="whole")
    True

Where a peer's convention is a choice, its numbers are given. Where it is an error, the
paper's are, and the table says so.
"""

from jaxlrp.compat import (
    captum,
    chefer,
    dynamiclrp,
    innvestigate,
    lrp_toolbox,
    lxt,
    relevancepropagation_jl,
    zennit,
)
from jaxlrp.compat._rows import Row

__all__ = [
    "Row",
    "captum",
    "chefer",
    "dynamiclrp",
    "innvestigate",
    "lrp_toolbox",
    "lxt",
    "relevancepropagation_jl",
    "zennit",
]
