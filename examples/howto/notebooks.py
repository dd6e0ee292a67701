"""What a notebook shows: plans, audits, composites and pictures show themselves."""

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
# That is what it asks of them.
page = "<hr>".join(one._repr_html_() for one in shown)
print(f"{len(shown)} objects, {len(page)} characters of HTML")
