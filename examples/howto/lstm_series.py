"""Which sensors, and when, made an LSTM raise an alarm?"""

import jax

import jaxlrp
from examples.howto import small

model, series = small.alarms()

# The recurrence is a loop of the program: nothing has to be said about it.
explain = jax.jit(jaxlrp.lrp(lambda model, series: model(series), target=1))
relevance = explain(model, series[0])  # (time, sensors)

figure = jaxlrp.plot.series(relevance, series[0], names=small.SENSORS)
figure.savefig("lstm_series.png")
