"""Which parts of a language model make it name the right country?"""

import jax

import jaxlrp
from examples.howto import small
from jaxlrp import composites, patching

model = small.writer()
clean = small.ids("rome is in italy . paris is in")
corrupt = small.ids("rome is in italy . oslo is in")
answers = small.ids("france norway")


def f(model, ids):  # weights are an argument, and ids the last one
    return model(ids)[-1]


def metric(scores, answers):
    return scores[answers[0]] - scores[answers[1]]


# `patching.sites(f)(model, clean)` lists what can be patched; axes have names.
sites = {
    "embedding": patching.site("embed", ("position", None)),
    "heads": patching.site("attention_map", (None, None, "head", "position", None)),
    "attention": patching.site("attention.out", ("position", None)),
    "dense": patching.site("hidden", ("position", None)),
}
estimate = patching.effects(f, sites, composites.RelP(), metric)
effects = jax.jit(estimate)(model, clean, corrupt, answers)  # one reverse pass
# What they estimate: the corrupt run with one value of the clean one, for each value.
exact = jax.jit(patching.exact(f, sites, metric))(model, clean, corrupt, answers)

words = [small.WORDS[i] for i in corrupt]
rows = ["embedding", "attention", "dense"]
figure = jaxlrp.plot.tokens(
    words, [effects[name] for name in rows], labels=rows, numbers=True, bar="effect"
)
figure.savefig("patching.png")
