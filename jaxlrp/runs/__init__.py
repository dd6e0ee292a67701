"""Whole datasets: relevances of all rows, in a folder that nothing can spoil.

`attribute` explains a dataset and writes what comes out, `Attributions` reads it. A run
that is killed goes on where it was, with the same bits; several processes share one by
the same command.
"""

from jaxlrp.runs._attribute import attribute
from jaxlrp.runs._attributions import Attributions
from jaxlrp.runs._export import export_crp, export_virelay
from jaxlrp.runs._inseq import export_inseq
from jaxlrp.runs._parts import restored, scaled_half, summed, targets
from jaxlrp.runs._progress import Progress
from jaxlrp.runs._reductions import ClassMeans, Histogram, Moments, Reduction, Top
from jaxlrp.runs._source import Buckets

__all__ = [
    "Attributions",
    "Buckets",
    "ClassMeans",
    "Histogram",
    "Moments",
    "Progress",
    "Reduction",
    "Top",
    "attribute",
    "export_crp",
    "export_inseq",
    "export_virelay",
    "restored",
    "scaled_half",
    "summed",
    "targets",
]
