"""Pictures of matplotlib: images, series, tables, text, matrices, audits, circuits.

Red speaks for the output and blue against it, white is zero, and both ends of a scale
are equally far from zero. Arrays are NumPy's or JAX's. Each function returns the
`Figure`, which a notebook shows and `figure.savefig` writes, and which needs no
display. With `into=` it draws in a figure, a part of one (`SubFigure`) or, where the
picture is a single panel, in an `Axes`, and returns the figure around it.

matplotlib is imported when something is drawn: `pip install "jaxlrp[plot]"`.
"""

from jaxlrp.plot._audit import audit, flow
from jaxlrp.plot._features import features
from jaxlrp.plot._images import images
from jaxlrp.plot._patching import circuit, effects, faithfulness
from jaxlrp.plot._series import series
from jaxlrp.plot._shap import to_shap
from jaxlrp.plot._statistics import statistics
from jaxlrp.plot._text import matrix, tokens

__all__ = [
    "audit",
    "circuit",
    "effects",
    "faithfulness",
    "features",
    "flow",
    "images",
    "matrix",
    "series",
    "statistics",
    "to_shap",
    "tokens",
]
