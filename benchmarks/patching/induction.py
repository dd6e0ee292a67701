"""A second model: a small decoder that learns to go on with what repeats.

Each row of tokens is a random piece that is repeated; what comes next is known from the
second time on, by looking up what came next before. Pieces have different lengths, so
that no fixed distance helps. The network is that of `decoder`, of three layers, and
learns this in about two minutes on two cores.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from benchmarks.patching import decoder
from benchmarks.patching.tasks import Pairs
from examples.smollm import Config, Loaded
from jaxlrp import _files

CONFIG = Config(heads=4, key_heads=2, rope_base=10_000.0, epsilon=1e-5)
LAYERS, WIDTH, HIDDEN, WORDS = 3, 64, 128, 32
TOKENS = 24
PIECES = (6, 12)
"""Lengths of a piece in training, from and to."""

STEPS, BATCH = 1500, 64


def fresh(key: Array) -> dict[str, Any]:
    """Weights before training."""
    shapes = {
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (WIDTH // 2, WIDTH),
        "attn_v": (WIDTH // 2, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (HIDDEN, WIDTH),
        "ffn_up": (HIDDEN, WIDTH),
        "ffn_down": (WIDTH, HIDDEN),
    }
    keys = iter(jax.random.split(key, len(shapes) + 1))
    layers = {
        name: jax.random.normal(next(keys), (LAYERS, *shape)) / np.sqrt(shape[1])
        for name, shape in shapes.items()
    }
    layers |= {name: jnp.ones((LAYERS, WIDTH)) for name in ("attn_norm", "ffn_norm")}
    embed = jax.random.normal(next(keys), (WORDS, WIDTH)) / np.sqrt(WIDTH)
    return {"embed": embed, "norm": jnp.ones(WIDTH), "layers": layers}


def rows(key: Array) -> tuple[Array, Array]:
    """Tokens, `(batch, tokens + 1)`, and where the next one is known."""
    one, two = jax.random.split(key)
    pieces = jax.random.randint(one, (BATCH, TOKENS + 1), 0, WORDS)
    lengths = jax.random.randint(two, (BATCH, 1), PIECES[0], PIECES[1] + 1)
    places = jnp.arange(TOKENS + 1)
    ids = jnp.take_along_axis(pieces, places % lengths, axis=1)
    return ids, places[1:] >= lengths


def loss(params: Any, ids: Array, known: Array) -> Array:
    """The cross entropy of what is known."""
    past = decoder.no_past(CONFIG, params)
    states = jax.vmap(lambda ids: decoder.states(CONFIG, params, ids, past)[0])
    logits = states(ids[:, :-1]) @ params["embed"].T
    found = optax.softmax_cross_entropy_with_integer_labels(logits, ids[:, 1:])
    return jnp.sum(found * known) / known.sum()


@functools.partial(jax.jit, static_argnums=1)
def trained(key: Array, steps: int) -> tuple[Any, Array]:
    """Weights, and the loss of each step."""
    first, second = jax.random.split(key)
    params = fresh(first)
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 10, steps)
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def step(carry: Any, key: Array) -> Any:
        params, state = carry
        value, slopes = jax.value_and_grad(loss)(params, *rows(key))
        change, state = adam.update(slopes, state)
        return (optax.apply_updates(params, change), state), value

    start = params, adam.init(params)
    (params, _), losses = lax.scan(step, start, jax.random.split(second, steps))
    return params, losses


def load(path: Path, seed: int = 0, steps: int = STEPS) -> Loaded:
    """The trained model; its weights are kept in a file."""
    if not path.exists():
        params, losses = trained(jax.random.key(seed), steps)
        print(f"{path.name}: {steps} steps, loss {losses[-50:].mean():.4f}", flush=True)
        leaves, _ = jax.tree.flatten(params)
        stream = io.BytesIO()
        np.savez(stream, *map(np.asarray, leaves))
        _files.write(path, stream.getvalue(), folders=True)
    none: Any = None  # the tokens are numbers
    tree = jax.tree.structure(jax.eval_shape(fresh, jax.random.key(0)))
    with np.load(path, allow_pickle=False) as kept:
        leaves = [jnp.asarray(kept[name]) for name in kept.files]
    return Loaded(CONFIG, jax.tree.unflatten(tree, leaves), none)


def repeated(model: Loaded, count: int, seed: int) -> Pairs:
    """What came next before? The corrupt row had something else there."""
    rng = np.random.default_rng(seed)
    clean, corrupt, answers = [], [], []
    for _ in range(count):
        words = rng.permutation(WORDS)
        piece, other = words[:8], words[8]
        changed = np.where(np.arange(8) == 4, other, piece)
        clean.append([*piece, *piece[:4]])
        corrupt.append([*changed, *piece[:4]])
        answers.append([piece[4], other])
    text = tuple(" ".join(map(str, ids[0])) for ids in (clean, corrupt))
    ids = (np.array(each) for each in (clean, corrupt, answers))
    return Pairs(*ids, start=4, texts=((text[0], text[1]),))
