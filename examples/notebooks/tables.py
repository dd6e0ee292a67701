# %% [markdown]
# # A table
#
# A network of patients: age, dose, and the town, which is an index into an embedding.

# %%
import jax
import numpy as np

import jaxlrp
from examples.howto import small

model, table = small.patients()
explain = jax.jit(jaxlrp.value_and_lrp(lambda model, table: model(table)))
risk, relevance = explain(model, table)
jax.tree.map(lambda r: r.shape, relevance)

# %% [markdown]
# The explanation has the form of the input: a dictionary, with a number for each
# patient and column. What is important on the whole:

# %%
jaxlrp.plot.features(relevance, table)

# %% [markdown]
# And in which direction:

# %%
jaxlrp.plot.features(relevance, table, kind="beeswarm")

# %% [markdown]
# ## One patient
#
# Relevances add up to the score, except for what biases kept: that is the base.

# %%
one = {name: r[3] for name, r in relevance.items()}
values = {name: v[3] for name, v in table.items()}
base = risk[3, 0] - sum(one.values())
jaxlrp.plot.features(one, values, base=base)

# %% [markdown]
# ## Against a reference
#
# Zero years is no sensible reference. With a baseline the difference to another patient
# is explained, and no bias keeps anything. The index has to be looked up outside:
# between two towns there is nothing.


# %%
def of_vectors(model, inputs):
    return model.risk(jax.nn.relu(model.hidden(inputs)))


def vectors(model, table):
    numbers = np.stack([table["age"] / 100, table["dose"]], -1)
    return jax.numpy.concatenate([numbers, model.town(table["town"])], -1)


inputs = vectors(model, table)
mean = inputs.mean(0, keepdims=True)
difference = jaxlrp.lrp(of_vectors, baseline=mean)
found = jax.jit(difference)(model, inputs)
grouped = {"age": found[:, 0], "dose": found[:, 1], "town": found[:, 2:]}
base = of_vectors(model, mean)[0, 0]
total = base + sum(r.reshape(len(r), -1).sum(1) for r in grouped.values())
assert np.allclose(total, of_vectors(model, inputs)[:, 0], atol=1e-3)
jaxlrp.plot.features(
    {name: r[3].sum() for name, r in grouped.items()}, values, base=base
)

# %% [markdown]
# SHAP's own plots take these numbers, too, where it is installed:
#
#     shap.plots.force(jaxlrp.plot.to_shap(relevance, inputs, names, base))
