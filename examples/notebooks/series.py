# %% [markdown]
# # A time series with an LSTM
#
# Three sensors, and a network that raises an alarm where the pressure has a peak. It is
# trained here, in seconds.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp
from examples.howto import small
from jaxlrp import composites

model, series = small.alarms()


def alarm(model, series):
    return model(series)[..., 1:]  # the score of the alarm alone


explain = jax.jit(jaxlrp.value_and_lrp(alarm))
score, relevance = explain(model, series[0])
jaxlrp.plot.series(
    relevance, series[0], names=small.SENSORS, title=f"alarm {float(score[0]):.1f}"
)

# %% [markdown]
# ## How each part of the program is read
#
# The loop of the LSTM is a program of its own. Gates are factors that cannot be
# negative: they count as constants, and the signal takes all.

# %%
jaxlrp.plan(alarm)(model, series[0])

# %% [markdown]
# ## Sums that cancel
#
# In proportion to their contributions, sums of both signs amplify relevance a little in
# each step, and more with each further step. The default bounds them.

# %%
maps = {
    name: jax.jit(jaxlrp.lrp(alarm, composite))(model, series[0])
    for name, composite in {
        "default": composites.Default(),
        "in proportion": composites.Proportional(),
    }.items()
}
{name: float(jaxlrp.amplification(r, score[0])) for name, r in maps.items()}

# %%
jaxlrp.plot.series(maps["in proportion"], series[0], names=small.SENSORS)

# %% [markdown]
# ## Is it right?
#
# The peak is known here, so the explanation can be checked: how much of the positive
# relevance is on the pressure?

# %%
many = jax.jit(jaxlrp.lrp(alarm))(model, series)
positive = np.maximum(np.asarray(many), 0)
share = positive[..., 0].sum() / positive.sum()
assert share > 1 / 3
print(f"{share:.0%} of the positive relevance is on the pressure")

# %% [markdown]
# Removing what is most relevant should cost the most:

# %%
order = jnp.argsort(-many[..., 0].reshape(len(many), -1))
gone = series.copy()
for row, best in zip(gone, np.asarray(order[:, :4]), strict=True):
    row[best, 0] = 0.0
before, after = (float(alarm(model, s).mean()) for s in (series, gone))
print(f"mean score {before:.2f}, without the four most relevant moments {after:.2f}")
