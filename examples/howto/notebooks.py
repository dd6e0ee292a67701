"""What a notebook shows: plans, audits, composites and pictures show themselves."""

import pathlib

import jaxlrp
from examples.howto import small
from jaxlrp import composites

model, images, _ = small.digits()
apply = lambda model, x: model(x)  # noqa: E731

# In a notebook each of these is the last line of a cell.
shown = [
    composites.EpsilonPlus(),
    jaxlrp.plan(apply)(model, images[:1]),
    jaxlrp.audit(apply)(model, images[:1]),
    jaxlrp.text.heatmap(["not", "bad"], [0.4, -0.1]),
]
page = "<hr>".join(one._repr_html_() for one in shown)
pathlib.Path("notebook.html").write_text(f"<!doctype html><meta charset=utf-8>{page}")
