"""A small decoder in a scan, written out, and with the rules written by hand.

Rows of tokens in, the logits of the last one out. `taps` are zeros that are added to
what is tagged: the gradient with respect to them is a multiplier.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

LAYERS, TOKENS, WIDTH, HEADS, HIDDEN, WORDS = 2, 4, 6, 2, 5, 7

AXES = ("layer", "position", None)
TAGS = ("residual", "attention_out", "mlp_in", "hidden", "mlp_out")


def weights(seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[-2]), jnp.float32)

    return {
        "embed": 2 * draw(WORDS, WIDTH),
        "out": draw(WIDTH, WORDS),
        "layers": {name: draw(LAYERS, WIDTH, WIDTH) for name in ("q", "k", "v", "o")}
        | {
            "gate": draw(LAYERS, WIDTH, HIDDEN),
            "up": draw(LAYERS, WIDTH, HIDDEN),
            "down": draw(LAYERS, HIDDEN, WIDTH),
        },
    }


PARAMS = weights()
CLEAN = jnp.array([1, 2, 3, 4])
CORRUPT = jnp.array([1, 5, 3, 6])
ANSWERS = jnp.array([2, 3])


def metric(out, answers=ANSWERS):
    return out[answers[0]] - out[answers[1]]


def norm(x):
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-3)


class Plain:
    """The network as it is; what is a product, a softmax and so on has a name."""

    norm = staticmethod(norm)
    act = staticmethod(jax.nn.silu)
    softmax = staticmethod(jax.nn.softmax)

    @staticmethod
    def half(y):
        """Behind an elementwise product."""
        return y

    matmul_half = half


def _stopped_norm(x):
    size = jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-3)
    return x / lax.stop_gradient(size)


def _identity(x):
    return x * lax.stop_gradient(jax.nn.silu(x) / x)


def _half(y):
    return y / 2 + lax.stop_gradient(y / 2)


class AttnLRP(Plain):
    norm = staticmethod(_stopped_norm)
    act = staticmethod(_identity)
    half = staticmethod(_half)
    matmul_half = staticmethod(_half)


class RelP(AttnLRP):
    matmul_half = staticmethod(lambda y: y)


class CPLRP(AttnLRP):
    matmul_half = staticmethod(lambda y: y)
    softmax = staticmethod(lambda x: lax.stop_gradient(jax.nn.softmax(x)))


def _softer(x, temperature=2.0):
    soft = temperature * jax.nn.softmax(x / temperature)
    return soft + lax.stop_gradient(jax.nn.softmax(x) - soft)


class GIM(AttnLRP):
    act = staticmethod(jax.nn.silu)
    softmax = staticmethod(_softer)


def layer(x, w, tag, rules=Plain):
    x = tag(x, "residual")
    y = rules.norm(x)
    q, k, v = ((y @ w[n]).reshape(len(x), HEADS, -1) for n in "qkv")
    scores = rules.matmul_half(jnp.einsum("qhd,khd->hqk", q, k))
    scores = jnp.where(np.tri(len(x), dtype=bool), scores, -jnp.inf)
    read = jnp.einsum("hqk,khd->qhd", rules.softmax(scores), v)
    z = tag(rules.matmul_half(read), "z")
    x = x + tag(z.reshape(x.shape) @ w["o"], "attention_out")
    y = rules.norm(tag(x, "mlp_in"))
    hidden = tag(rules.half(rules.act(y @ w["gate"]) * (y @ w["up"])), "hidden")
    return x + tag(hidden @ w["down"], "mlp_out")


def unrolled(params, ids, tag=checkpoint_name, rules=Plain):
    x = tag(params["embed"][ids], "embedding")
    for i in range(LAYERS):
        w = jax.tree.map(lambda a, i=i: a[i], params["layers"])
        x = layer(x, w, tag, rules)
    return rules.norm(tag(x, "final")[-1]) @ params["out"]


def scanned(params, ids, wrap=lambda body: body):
    x = checkpoint_name(params["embed"][ids], "embedding")
    body = wrap(lambda x, w: (layer(x, w, checkpoint_name), None))
    x, _ = lax.scan(body, x, params["layers"])
    return norm(checkpoint_name(x, "final")[-1]) @ params["out"]


scanned_again = functools.partial(scanned, wrap=jax.checkpoint)


def by_hand(rules, ids, name):
    """The multipliers at a tag by `jax.grad`, layers stacked."""
    sizes = {"hidden": HIDDEN}
    shape = (LAYERS, TOKENS, sizes.get(name, WIDTH))

    def tapped(taps):
        left = iter(taps)

        def tag(x, tagged):
            return x + next(left) if tagged == name else x

        return metric(unrolled(PARAMS, ids, tag, rules))

    return jax.grad(tapped)(jnp.zeros(shape))


def patched_by_hand(ids, changes):
    """The score where `changes[name, layer]` is what a tagged value becomes."""
    seen = {}

    def tag(x, name):
        number = seen[name] = seen.get(name, -1) + 1
        change = changes.get((name, number))
        return x if change is None else change(x)

    return metric(unrolled(PARAMS, ids, tag))
