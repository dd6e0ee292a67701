"""Perplexity of a language model against the share of neurons or heads removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.patching import decoder
from benchmarks.units import texts
from examples import smollm
from jaxlrp import composites, patching

TOKENS = 96
SHARES = (0.1, 0.2, 0.3, 0.5)
SITES = {
    "neurons": patching.site("hidden", ("layer", None, "neuron")),
    "heads": patching.site("z", ("layer", None, "head", None)),
}
OF_TOKENS = {
    "neurons": patching.site("hidden", ("layer", "position", "neuron")),
    "heads": patching.site("z", ("layer", "position", "head", None)),
}
GRADIENT, RELP = None, composites.RelP()
CRITERIA = {
    "gradient times value": (GRADIENT, "size", SITES),
    "RelP": (RELP, "size", SITES),
    "AttnLRP": (composites.AttnLRP(), "size", SITES),
    "CP-LRP": (composites.CPLRP(), "size", SITES),
    "gradient times value, token by token": (GRADIENT, "size", OF_TOKENS),
    "RelP, token by token": (RELP, "size", OF_TOKENS),
    "RelP, with its sign": (RELP, "signed", SITES),
}
"""Rules, what is averaged, and whether units are first summed over a passage."""

APART = {"all units together": None, "each layer alone": 1}
"""Which units compete with each other."""

Scores = Mapping[str, Any]


def rows(model: smollm.Loaded, passages: tuple[str, ...]) -> Array:
    """The first tokens of each."""
    return jnp.asarray([model.ids(passage)[:TOKENS] for passage in passages])


def likelihood(logits: Array, ids: Array) -> Array:
    """The log-probability of a passage behind its first token: what is explained."""
    each = jax.nn.log_softmax(logits[:-1])
    return jnp.take_along_axis(each, ids[1:, None], 1).sum()


def network(model: smollm.Loaded) -> Any:
    """The logits of all positions as a function of parameters and tokens."""
    past = decoder.no_past(model.config, model.params)

    def f(params: Any, ids: Array) -> Array:
        states, _ = decoder.states(model.config, params, ids, past)
        return states @ params["embed"].T

    return f


def by_size(model: smollm.Loaded, ids: Array) -> dict[str, Scores]:
    """Criteria without a reverse pass: weights, and weights times activations."""
    layers, heads = model.params["layers"], model.config.heads
    down = jnp.linalg.norm(layers["ffn_down"], axis=1)
    up, gate = (jnp.linalg.norm(layers[n], axis=2) for n in ("ffn_up", "ffn_gate"))
    count, width, _ = layers["attn_output"].shape
    out = layers["attn_output"].reshape(count, width, heads, -1)
    run = jax.jit(jax.vmap(patching.values(network(model), SITES), (None, 0)))
    root = {
        n: jnp.sqrt((v**2).mean((0, 2))) for n, v in run(model.params, ids)[1].items()
    }
    given = jnp.sqrt((out**2).sum(1)) * root["heads"]
    return {
        "magnitude": {
            "neurons": jnp.sqrt(down**2 + up**2 + gate**2),
            "heads": jnp.sqrt((out**2).sum((1, 3))),
        },
        "activation times weight": {
            "neurons": root["neurons"] * down,
            "heads": jnp.sqrt((given**2).sum(-1)),
        },
    }


def all_scores(model: smollm.Loaded) -> dict[str, Scores]:
    """Scores of neurons and heads by each criterion, on the passages for reference."""
    ids = rows(model, texts.REFERENCE)
    f = network(model)
    found: dict[str, Scores] = {}
    for name, (composite, by, sites) in CRITERIA.items():
        find = patching.mean_units(f, sites, composite, likelihood, by=by)
        scores = find(model.params, [(ids, ids)])
        whole = sites is SITES
        found[name] = {n: s if whole else s.sum(1) for n, s in scores.items()}
    found |= by_size(model, ids)
    rng = np.random.default_rng(0)
    some = found["magnitude"]
    found["random"] = {name: rng.random(s.shape) for name, s in some.items()}
    return found


def perplexities(model: smollm.Loaded) -> tuple[float, dict[str, Any]]:
    """Of the whole network, and of what is left of it.

    The latter by who competes, site and criterion, for each share.
    """
    held = rows(model, texts.HELD_OUT)
    f = network(model)
    every = all_scores(model)
    whole, found = 0.0, {how: {site: {} for site in SITES} for how in APART}
    for site, one in SITES.items():
        run = patching.circuit(f, {site: one}, ablate=0)

        @jax.jit
        def perplexity(params: Any, keep: Scores, run: Any = run) -> Array:
            each = jax.lax.map(lambda i: likelihood(run(keep, params, i), i), held)
            return jnp.exp(-each.sum() / (held.size - len(held)))

        for name, scores in every.items():
            mine = {site: jnp.asarray(scores[site], jnp.float32)}
            for how, apart in APART.items():
                keeps = [patching.prune(mine, s, apart=apart) for s in SHARES]
                row = [float(perplexity(model.params, keep)) for keep in keeps]
                found[how][site][name] = row
                print(how, site, name, [f"{p:.1f}" for p in row], flush=True)
        every_unit = {site: jnp.ones(every["random"][site].shape, bool)}
        whole = float(perplexity(model.params, every_unit))
    return whole, found
