"""A whole data set: explained once, kept on disk, and what it comes to by class."""

import jax

import jaxlrp
from examples.howto import small
from jaxlrp import composites, plot, runs

model, images, labels = small.digits()
images, labels = images[:512], labels[:512]
lrp = jaxlrp.value_and_lrp(lambda m, x: m(x), composites.EpsilonPlus())


@jax.jit
def explain(batch):  # of rows: arrays by name, with the rows in front
    scores, relevance = lrp(model, batch["image"])
    quarters = relevance.reshape(-1, 2, 4, 2, 4).sum((2, 4)).reshape(-1, 4)
    return {"relevance": relevance, "quarters": quarters, "label": batch["label"]}


run = runs.attribute(
    explain,
    {"image": images, "label": labels},
    "digits_run",  # killed and started again, it goes on where it was
    reduce={
        "means": runs.ClassMeans("relevance", by="label", classes=10),
        "quarters": runs.Moments("quarters"),
    },
)
assert run.complete and run["relevance"].shape == images.shape

figure = plot.images(run.reduced("means")["mean"], labels=range(10), columns=5)
figure.savefig("whole_dataset.png")

corners = ["upper left", "upper right", "lower left", "lower right"]
chosen = labels < 3
figure = plot.statistics(run["quarters"][:][chosen], labels[chosen], names=corners)
figure.savefig("whole_dataset_classes.png")
