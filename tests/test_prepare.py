"""What is prepared explains as what is not, and leaves no work on weights."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params

import jaxlrp
from jaxlrp import _compat, composites, rules

rng = np.random.default_rng(0)


def normal(*shape):
    return np.asarray(rng.normal(size=shape), np.float32) / math.sqrt(shape[0])


def dense(params, x):
    h = jax.nn.relu(x @ params["w"] + params["b"])
    return jax.nn.relu(h @ params["v"] + params["c"])


def normalised(params, x):
    """Convolutions with batch norm in inference, and a dense layer."""
    kinds = ("NHWC", "HWIO", "NHWC")

    def block(x, kernel, norm):
        y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=kinds)
        y = (y - norm["mean"]) * lax.rsqrt(norm["var"] + 1e-5)
        return jax.nn.relu(y * norm["scale"] + norm["bias"])

    h = block(x, params["k1"], params["n1"])
    h = block(h, params["k2"], params["n2"])
    return h.mean((1, 2)) @ params["head"]


def stacked(params, x):
    """Layers by `scan`."""

    def layer(h, weights):
        w, b = weights
        return jax.nn.relu(h @ w + b), None

    h, _ = lax.scan(layer, x, (params["ws"], params["bs"]))
    return h @ params["head"]


def transformer(params, x):
    def norm(h):
        centred = h - h.mean(-1, keepdims=True)
        return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)

    h = x
    for p in params["blocks"]:
        q, k, v = (norm(h) @ p[name] for name in "qkv")
        scores = jnp.einsum("...qd,...kd->...qk", q, k) / 3.0
        mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        h = h + jax.nn.softmax(jnp.where(mask, scores, -1e9)) @ v
        h = h + jax.nn.gelu(norm(h) @ p["up"]) @ p["down"]
    return h.mean(-2) @ params["head"]


def statistics(n):
    norm = {name: normal(n) for name in ("mean", "scale", "bias")}
    return {**norm, "var": np.abs(normal(n)) + 0.5}


def block(n):
    shapes = {"q": n, "k": n, "v": n, "up": 3 * n}
    return {**{k: normal(n, m) for k, m in shapes.items()}, "down": normal(3 * n, n)}


NETWORKS = {
    "dense": (
        dense,
        {"w": normal(23, 67), "b": normal(67), "v": normal(67, 5), "c": normal(5)},
        normal(3, 23),
    ),
    "many rows": (
        dense,
        {"w": normal(23, 67), "b": normal(67), "v": normal(67, 5), "c": normal(5)},
        normal(32, 23),
    ),
    "normalised": (
        normalised,
        {
            "k1": normal(3, 3, 2, 6),
            "n1": statistics(6),
            "k2": normal(3, 3, 6, 7),
            "n2": statistics(7),
            "head": normal(7, 4),
        },
        normal(2, 5, 5, 2),
    ),
    "stacked": (
        stacked,
        {"ws": normal(3, 11, 11), "bs": normal(3, 11), "head": normal(11, 4)},
        normal(20, 11),
    ),
    "transformer": (
        transformer,
        {"blocks": [block(9), block(9)], "head": normal(9, 4)},
        normal(2, 6, 9),
    ),
}
RULES = {
    "LRP0": rules.LRP0(),
    "Epsilon": rules.Epsilon(),
    "Absolute": rules.Absolute(),
    "Gamma": rules.Gamma(0.3),
    "GeneralizedGamma": rules.GeneralizedGamma(0.3),
    "AlphaBeta": rules.AlphaBeta(2.0, 1.0),
    "ZPlus": rules.ZPlus(),
    "WSquare": rules.WSquare(),
    "Flat": rules.Flat(),
    "ZBox": rules.ZBox(-3.0, 3.0),
    "TopK": rules.TopK(rules.ZPlus(), 0.5),
}
GAMMA = composites.AttnLRP().on("layer", rules.GeneralizedGamma(0.3))
CHANGED = ("Gamma", "GeneralizedGamma", "AlphaBeta", "ZPlus", "WSquare", "ZBox")


def explainer(name, rule):
    composite = GAMMA if rule == "AttnLRP" else composites.Uniform(RULES[rule])
    return jaxlrp.value_and_lrp(NETWORKS[name][0], composite)


# What XLA makes of the arithmetic does not depend on these.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def run(f, *args):
    return jax.jit(f).lower(*args).compile(compiler_options=QUICK)(*args)


def assert_close(found, expected, tolerance=1e-6):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        scale = np.abs(b).max() if np.size(b) else 0
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(scale, 1e-30))


PAIRS = [
    *((name, rule) for name in ("dense", "normalised") for rule in RULES),
    *(("many rows", rule) for rule in ("ZPlus", "AlphaBeta", "WSquare")),
    *(("stacked", rule) for rule in ("Epsilon", *CHANGED)),
    ("transformer", "AttnLRP"),
]


@pytest.mark.parametrize(("name", "rule"), PAIRS)
def test_what_is_prepared_explains_alike(name, rule):
    _, params, x = NETWORKS[name]
    explain = explainer(name, rule)
    other = x[::-1] * 0.7 + 0.1
    buffers, rest = jaxlrp.prepare(explain, params, jax.ShapeDtypeStruct(x.shape, "f4"))
    assert_close(run(rest, buffers, other), run(explain, params, other))


@pytest.mark.parametrize("rule", ["ZPlus", "AlphaBeta"])
@pytest.mark.parametrize("name", ["dense", "normalised", "stacked"])
def test_in_double_precision_they_are_the_same(name, rule):
    jax.config.update("jax_enable_x64", True)
    _, params, x = NETWORKS[name]
    params, x = jax.tree.map(lambda v: v.astype("f8"), (params, x))
    explain = explainer(name, rule)
    buffers, rest = jaxlrp.prepare(explain, params, x)
    assert_close(run(rest, buffers, x), run(explain, params, x), 1e-12)


# ---- what is left to do ----------------------------------------------------------


def results(jaxpr):
    """(primitive, shape) of what is made in a jaxpr and in its bodies."""
    for eqn in _compat.open_jaxpr(jaxpr)[0].eqns:
        bodies = list(jaxprs_in_params(eqn.params))
        for body in bodies:
            yield from results(body)
        if not bodies:
            yield from ((eqn.primitive, v.aval.shape) for v in eqn.outvars)


def sizes(shape):
    """A shape whatever the order of its axes."""
    return tuple(sorted(n for n in shape if n > 1))


def on_weights(jaxpr, name):
    """The primitives of a jaxpr whose results are as large as weights."""
    weights = {sizes(NETWORKS[name][1][w].shape) for w in WEIGHTS[name]}
    if name == "stacked":  # a loop reads a layer's
        weights.add((11, 11))
    return [primitive for primitive, shape in results(jaxpr) if sizes(shape) in weights]


WEIGHTS = {
    "dense": ("w", "v"),
    "many rows": ("w", "v"),
    "stacked": ("ws", "head"),
    "normalised": ("k1", "k2", "head"),
}


@pytest.mark.parametrize("rule", CHANGED)
@pytest.mark.parametrize("name", ["dense", "many rows", "stacked"])
def test_no_work_on_weights_is_left(name, rule):
    _, params, x = NETWORKS[name]
    explain = explainer(name, rule)
    assert on_weights(jax.make_jaxpr(explain)(params, x), name)
    buffers, rest = jaxlrp.prepare(explain, params, x)
    assert not on_weights(jax.make_jaxpr(rest)(buffers, x), name)


def test_of_a_convolution_only_reversals_for_the_transpose_are_left():
    _, params, x = NETWORKS["normalised"]
    buffers, rest = jaxlrp.prepare(explainer("normalised", "ZPlus"), params, x)
    left = on_weights(jax.make_jaxpr(rest)(buffers, x), "normalised")
    assert {p.name for p in left} == {"rev"}


# An instruction: its result's shape, and what makes it.
INSTRUCTION = re.compile(r"= \w+\[([\d,]*)\]\S* ([\w-]+)\(")
# What is handed in, or is the same in another form.
NO_WORK = {"parameter", "bitcast", "get-tuple-element", "opt-barrier"}


@pytest.mark.parametrize("rule", ["ZPlus", "GeneralizedGamma", "AlphaBeta"])
@pytest.mark.parametrize("name", ["dense", "many rows"])
def test_xla_does_no_work_on_weights(name, rule):
    _, params, x = NETWORKS[name]
    explain = explainer(name, rule)
    buffers, rest = jaxlrp.prepare(explain, params, x)
    shapes = {sizes(params[w].shape) for w in WEIGHTS[name]}

    def work(f, *args):
        text = jax.jit(f).lower(*args).compile().as_text()
        found = [
            (map(int, filter(None, shape.split(","))), operation)
            for shape, operation in INSTRUCTION.findall(text)
        ]
        return {op for shape, op in found if sizes(shape) in shapes} - NO_WORK

    assert work(explain, params, x)
    assert not work(rest, buffers, x)
