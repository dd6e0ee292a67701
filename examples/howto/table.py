"""Which columns of a table decide? The inputs are a dictionary of arrays."""

import jax

import jaxlrp
from examples.howto import small

model, table = small.patients()

# The explanation has the form of the inputs: a dictionary, also of the town's index.
explain = jax.jit(jaxlrp.value_and_lrp(lambda model, table: model(table)))
risk, relevance = explain(model, table)

figure = jaxlrp.plot.features(relevance, table, kind="beeswarm")
figure.savefig("table.png")

# One patient, from what biases kept (the base) to the risk.
one = {name: r[0] for name, r in relevance.items()}
values = {name: v[0] for name, v in table.items()}
base = risk[0, 0] - sum(one.values())
figure = jaxlrp.plot.features(one, values, base=base, title="one patient")
figure.savefig("table_one.png")
