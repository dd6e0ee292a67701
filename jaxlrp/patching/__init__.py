"""Patching."""

from jaxlrp.patching._circuits import circuit, faithfulness, order
from jaxlrp.patching._edges import Edges, edges, exact_edges
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
    "Edges",
    "Site",
    "circuit",
    "cost",
    "edges",
    "effects",
    "exact",
    "exact_edges",
    "faithfulness",
    "multipliers",
    "order",
    "patch",
    "site",
    "sites",
    "values",
]
