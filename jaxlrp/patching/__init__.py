"""Patching."""

from jaxlrp.patching._effects import (
    Cost,
    cost,
    effects,
    exact,
    multipliers,
    patch,
    sites,
    values,
)
from jaxlrp.patching._sites import Site, site

__all__ = [
    "Cost",
    "Site",
    "cost",
    "effects",
    "exact",
    "multipliers",
    "patch",
    "site",
    "sites",
    "values",
]
