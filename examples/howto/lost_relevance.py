"""The relevances do not add up to the score: where did the rest stay?"""

import jaxlrp
from examples.howto import small
from jaxlrp import composites, rules

model, images, _ = small.digits()
apply = lambda model, x: model(x)  # noqa: E731

audit = jaxlrp.audit(apply)(model, images[:1])
print(audit)
jaxlrp.plot.audit(audit).savefig("lost_relevance.png")
jaxlrp.plot.flow(audit).savefig("lost_flow.png")

# Biases keep most of it. Under this option they pass on what they would keep.
sharing = composites.Epsilon().on("layer", rules.Epsilon(bias="ignore"))
shared = jaxlrp.audit(apply, sharing)(model, images[:1])
assert abs(shared.absorbed["bias"]) < 1e-3 < abs(audit.absorbed["bias"])
assert abs(shared.total_in - shared.total_out) < 0.05 * abs(shared.total_out)
