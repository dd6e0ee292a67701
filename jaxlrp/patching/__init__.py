"""Patching: which values of a program matter, by experiment and by estimate.

A value of a clean run is put into a corrupt one. `exact` runs the program for each
node; `effects` estimates all of them by one reverse pass, from the gradient or from
LRP's multipliers. `edges` and `exact_edges` do so for what one value hands on to
another, and `circuit` runs the program with only some of them. `units` and `mean_units`
say what units come to over a dataset, and `prune` which of them to keep.

Source: Rezaei Jafari et al. 2025, "RelP: faithful and efficient circuit discovery via
relevance patching"; Mueller et al. 2025, "MIB".
"""

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
from jaxlrp.patching._graph import Graph, Link, Node, graph
from jaxlrp.patching._graph_files import save, to_html, to_json
from jaxlrp.patching._sites import Site, site
from jaxlrp.patching._units import mean_units, prune, units

__all__ = [
    "Cost",
    "Edges",
    "Graph",
    "Link",
    "Node",
    "Site",
    "circuit",
    "cost",
    "edges",
    "effects",
    "exact",
    "exact_edges",
    "faithfulness",
    "graph",
    "mean_units",
    "multipliers",
    "order",
    "patch",
    "prune",
    "save",
    "site",
    "sites",
    "to_html",
    "to_json",
    "units",
    "values",
]
