# %% [markdown]
# # A graph
#
# Small molecules, as it were: rings of eight atoms of four kinds, with two bonds
# across. The class is 1 where an oxygen is bound to a nitrogen. A graph network in
# plain JAX learns this, and is asked which atoms and which bonds it looked at.

# %%
import jax
import numpy as np
import optax

import jaxlrp
from examples.howto import small

KINDS = ("C", "O", "N", "S")
ATOMS = 8


def molecule(draw):
    kinds = draw.choice(4, ATOMS, p=[0.4, 0.25, 0.25, 0.1])
    bonds = np.roll(np.eye(ATOMS), 1, 0)
    for _ in range(2):
        bonds[tuple(draw.choice(ATOMS, 2, replace=False))] = 1.0
    bonds = np.maximum(bonds, bonds.T)
    return kinds, bonds.astype(np.float32), bonds[kinds == 1][:, kinds == 2].any()


draw = np.random.default_rng(0)
kinds, bonds, labels = map(
    np.stack, zip(*(molecule(draw) for _ in range(160)), strict=True)
)
labels.mean()

# %% [markdown]
# Each atom adds up what its neighbours say, twice; the molecule is the sum of its
# atoms.

# %%
keys = jax.random.split(jax.random.key(0), 6)
shapes = {
    "kinds": (4, 16),
    "own1": (16, 16),
    "from1": (16, 16),
    "own2": (16, 16),
    "from2": (16, 16),
    "scores": (16, 2),
}
params = {
    name: jax.random.normal(key, shape) / np.sqrt(shape[0])
    for key, (name, shape) in zip(keys, shapes.items(), strict=True)
}


def network(params, kinds, bonds):
    h = params["kinds"][kinds]
    for i in ("1", "2"):
        with jax.named_scope(f"messages_{i}"):
            said = bonds @ (h @ params[f"from{i}"])
            h = jax.nn.relu(h @ params[f"own{i}"] + said - 0.5)
    return h.sum(-2) @ params["scores"]


@jax.jit
def fit(params):
    optimiser = optax.adam(1e-2)

    def loss(params):
        return small.cross_entropy(network(params, kinds, bonds), labels * 1).mean()

    def step(carry, _):
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimiser.init(params)), None, 300)[0][0]


params = fit(params)
right = network(params, kinds, bonds).argmax(-1) == labels
print(f"{right.mean():.0%} are right")

# %% [markdown]
# Kinds are indices and bonds are numbers; both are explained at once. In the product of
# bonds and messages each of the two gets half.


# %%
def other(params, kinds, bonds):  # the score of the class, against the other one
    scores = network(params, kinds, bonds)
    return scores[..., 1:] - scores[..., :1]


explain = jax.jit(jaxlrp.value_and_lrp(other, argnums=(1, 2)))
i = int(np.flatnonzero(labels & right)[0])
score, (of_atoms, of_bonds) = explain(params, kinds[i], bonds[i])
atoms = [KINDS[k] for k in kinds[i]]
jaxlrp.plot.tokens(atoms, of_atoms, title=f"score {float(score[0]):.1f}", numbers=True)

# %%
jaxlrp.plot.matrix(
    of_bonds, atoms, atoms, names=("to", "from"), title="relevance of bonds"
)

# %% [markdown]
# On the molecules of the class, how often does the most relevant bond join an oxygen
# and a nitrogen? A bond's relevance is that of both its directions.

# %%
_, (_, every) = jax.vmap(explain, in_axes=(None, 0, 0))(params, kinds, bonds)
hits = []
for k, found in zip(
    kinds[labels & right], np.asarray(every)[labels & right], strict=True
):
    a, b = np.unravel_index((found + found.T).argmax(), found.shape)
    hits.append({int(k[a]), int(k[b])} == {1, 2})
print(f"{np.mean(hits):.0%} of {len(hits)}; by chance {2 * 0.25**2:.0%} or so")
