"""What is prepared explains as what is not, and leaves no work on weights."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import experimental, lax
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
    *(("dense", rule) for rule in RULES),
    *(("normalised", rule) for rule in ("Flat", *CHANGED)),
    *(("many rows", rule) for rule in ("ZPlus", "AlphaBeta")),
    *(("stacked", rule) for rule in ("Epsilon", "GeneralizedGamma", "WSquare")),
    ("transformer", "AttnLRP"),
]


@pytest.mark.parametrize(("name", "rule"), PAIRS)
def test_what_is_prepared_explains_alike(name, rule):
    _, params, x = NETWORKS[name]
    explain = explainer(name, rule)
    other = x[::-1] * 0.7 + 0.1
    buffers, rest = jaxlrp.prepare(explain, params, jax.ShapeDtypeStruct(x.shape, "f4"))
    assert_close(run(rest, buffers, other), run(explain, params, other))


@pytest.mark.parametrize(
    ("name", "rule"),
    [("dense", "AlphaBeta"), ("normalised", "ZPlus"), ("stacked", "ZPlus")],
)
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


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        *(("dense", rule) for rule in CHANGED),
        ("many rows", "AlphaBeta"),
        ("stacked", "GeneralizedGamma"),
        ("stacked", "WSquare"),
    ],
)
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


@pytest.mark.parametrize(
    ("name", "rule"),
    [("dense", "ZPlus"), ("dense", "GeneralizedGamma"), ("many rows", "AlphaBeta")],
)
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


def test_what_a_loop_does_there_and_back_is_kept_once():
    _, params, x = NETWORKS["stacked"]
    buffers, _ = jaxlrp.prepare(explainer("stacked", "Gamma"), params, x)
    stacks = [b for b in buffers if b.shape == params["ws"].shape]
    assert len(stacks) == 2  # the weights, and the changed ones


# ---- what is stored --------------------------------------------------------------


def test_arguments_are_not_copied():
    params = jax.tree.map(jnp.asarray, NETWORKS["dense"][1])
    x = NETWORKS["dense"][2]
    buffers, _ = jaxlrp.prepare(explainer("dense", "Epsilon"), params, x)
    own = {id(v) for v in params.values()}
    assert {id(v) for v in buffers} <= own


def test_what_is_made_of_little_is_not_stored():
    """A causal mask, a broadcast, a padding and a transposition."""
    w = jnp.asarray(normal(50, 40))

    def f(w, b, x):
        mask = jnp.tril(jnp.ones((40, 40), bool))
        wide = jnp.pad(jnp.broadcast_to(b, (40, 40)), ((0, 60), (0, 0)))
        h = x @ jnp.where(mask, x.T @ x, wide[:40])
        return h + (x @ w.T) @ w

    arguments = (w, jnp.asarray(normal(40)), normal(6, 40))
    buffers, rest = jaxlrp.prepare(f, *arguments)
    assert sorted(b.shape for b in buffers) == [(40,), (50, 40)]
    assert_close(rest(buffers, arguments[-1]), f(*arguments))


def test_smaller_casts_are_stored_and_larger_ones_are_not():
    w = jnp.asarray(normal(8, 8), jnp.bfloat16)
    x = normal(2, 8)
    buffers, _ = jaxlrp.prepare(lambda w, x: x @ w.astype(x.dtype), w, x)
    assert [b.dtype for b in buffers] == [jnp.bfloat16]
    w = w.astype(jnp.float32)
    buffers, _ = jaxlrp.prepare(lambda w, x: x @ w.astype(jnp.bfloat16), w, x)
    assert [b.dtype for b in buffers] == [jnp.bfloat16]
    # But changed weights are stored, whatever they were cast from.
    w = w.astype(jnp.bfloat16)
    buffers, _ = jaxlrp.prepare(lambda w, x: x @ jnp.abs(w.astype("f4")), w, x)
    assert [b.dtype for b in buffers] == [jnp.float32]


def test_a_barrier_does_not_hold_weights_back():
    def f(w, x):
        w, x = lax.optimization_barrier((w, x))
        return x @ jnp.exp(w)

    w, x = normal(4, 3), normal(2, 4)
    buffers, rest = jaxlrp.prepare(f, w, x)
    assert_close(buffers, (jnp.exp(w),))
    assert "optimization_barrier" in str(jax.make_jaxpr(rest)(buffers, x))


def test_closed_over_arrays_are_buffers():
    w = jnp.asarray(normal(4, 3))
    buffers, rest = jaxlrp.prepare(lambda x: x @ jnp.exp(w), jnp.ones((2, 4)))
    assert_close(buffers, (jnp.exp(w),))
    assert _compat.open_jaxpr(jax.make_jaxpr(rest)(buffers, jnp.ones((2, 4))))[1] == ()


# ---- loops -----------------------------------------------------------------------


def prepared_as_it_is(f, *args):
    """The buffers and the rest, which is checked against `f`."""
    buffers, rest = jaxlrp.prepare(f, *args)
    assert_close(jax.jit(rest)(buffers, args[-1]), f(*args))
    return buffers, rest


@pytest.mark.parametrize("reverse", [False, True])
def test_of_a_loop_what_no_example_decides_is_done_before(reverse):
    def f(w, ws, start, x):
        def step(carry, given):
            number, known, total, h = carry
            u, scale = given
            h = jnp.tanh(h @ jnp.exp(w) + u @ jnp.exp(scale) + known[number] + total)
            known, seen = known * jnp.cos(known), jnp.sin(known)
            return (number + 1, known, total + h.sum(), h), (seen, h, w)

        xs = (jnp.stack([x] * 3), ws)
        carry = (0, start, 0.0, x)  # the sum is known before the first step alone
        return lax.scan(step, carry, xs, reverse=reverse)

    arguments = normal(4, 4), normal(3, 4, 4), normal(4), normal(2, 4)
    buffers, rest = prepared_as_it_is(f, *arguments)
    text = str(jax.make_jaxpr(rest)(buffers, arguments[-1]))
    assert "tanh" in text
    assert not {"exp", "cos", "sin"} & set(re.findall(r"= (\w+)", text))


def test_loops_in_loops_and_in_checkpoints():
    def f(ws, x):
        @jax.checkpoint
        def layer(h, w):
            def step(h, row):
                return jnp.tanh(h @ jnp.exp(w)) + jnp.exp(row), jnp.exp(row)

            return lax.scan(step, h, w)

        h, rows = lax.scan(layer, x, ws)
        return jax.grad(lambda x: lax.scan(layer, x, ws)[0].sum())(x), h, rows

    arguments = normal(3, 4, 4), normal(2, 4)
    buffers, rest = prepared_as_it_is(f, *arguments)
    text = str(jax.make_jaxpr(rest)(buffers, arguments[-1]))
    assert "exp" not in re.findall(r"= (\w+)", text)
    assert "remat2" in text or "checkpoint" in text


def test_a_loop_without_steps():
    def f(ws, x):
        return lax.scan(lambda h, w: (h @ jnp.exp(w), jnp.exp(w)), x, ws)

    prepared_as_it_is(f, np.zeros((0, 4, 4), "f4"), normal(2, 4))


def test_a_loop_of_which_nothing_is_known_stays_as_it_is():
    def f(w, x):
        return lax.scan(lambda h, u: (jnp.tanh(h @ w + u), h), x[0], x)

    x = normal(5, 4, 4)
    _, rest = prepared_as_it_is(f, normal(4, 4), x)


def test_what_is_worked_out_again_still_is():
    """A checkpoint keeps its policy, and is one that has been differentiated."""
    w, x = normal(4, 4), normal(2, 4)
    policy = jax.checkpoint_policies.dots_saveable

    def f(w, x):
        layer = jax.checkpoint(lambda x: jnp.tanh(x @ jnp.exp(w - 3.0)), policy=policy)
        return jax.grad(lambda x: layer(layer(x)).sum())(x)

    buffers, rest = prepared_as_it_is(f, w, x)

    def checkpoints(f, *args):
        eqns = _compat.open_jaxpr(jax.make_jaxpr(f)(*args))[0].eqns
        return [
            (e.params["policy"], e.params["prevent_cse"], e.params["differentiated"])
            for e in eqns
            if _compat.is_remat(e.params)
        ]

    assert checkpoints(rest, buffers, x) == checkpoints(f, w, x) != []


# ---- what is left alone ----------------------------------------------------------


def test_branches_and_loops_of_unknown_length_stay_whole():
    def f(w, x):
        x = lax.cond(x.sum() > 0, lambda w, x: x @ w, lambda w, x: x - 1.0, w, x)
        x = lax.while_loop(lambda x: x.sum() > 0, lambda x: x @ w - 1.0, x)
        return lax.fori_loop(0, 3, lambda i, x: jnp.tanh(x @ w) + i, x)

    prepared_as_it_is(f, normal(4, 4), np.abs(normal(2, 4)))


def test_effects_happen_in_each_call(capfd):
    def f(w, x):
        jax.debug.print("w is {}", w.sum())
        return x @ jnp.exp(w)

    w, x = jnp.ones((2, 2)), jnp.ones((1, 2))
    buffers, rest = jaxlrp.prepare(f, w, x)
    jax.effects_barrier()
    assert capfd.readouterr().out == ""
    for _ in range(2):
        jax.block_until_ready(jax.jit(rest)(buffers, x))
    jax.effects_barrier()
    assert capfd.readouterr().out == "w is 4.0\n" * 2


def test_a_result_of_an_effect_is_not_kept():
    seen = []

    def count(w):
        seen.append(w)
        return np.float32(len(seen))

    def f(w, x):
        shape = jax.ShapeDtypeStruct((), "f4")
        return x + experimental.io_callback(count, shape, jnp.exp(w), ordered=True)

    buffers, rest = jaxlrp.prepare(f, jnp.ones(()), jnp.zeros(()))
    assert not seen
    assert [float(jax.jit(rest)(buffers, jnp.zeros(()))) for _ in range(2)] == [1, 2]


def test_mutable_arrays_are_made_in_each_call():
    def f(w, x):
        kept = jax.new_ref(w)
        kept[0] = kept[0] + x[0]
        return x @ kept[...]

    prepared_as_it_is(f, jnp.asarray(normal(3, 3)), jnp.asarray(normal(3)))


def test_a_derivative_of_its_own_stays():
    """A ReLU's is zero at zero, where that of a maximum is one half."""
    f = lambda w, x: jax.nn.relu(x * jnp.exp(w)).sum()  # noqa: E731
    buffers, rest = jaxlrp.prepare(f, jnp.ones(3), jnp.zeros(3))
    assert jax.grad(rest, argnums=1)(buffers, jnp.zeros(3)).tolist() == [0.0] * 3


def test_random_numbers_of_a_key_that_varies_vary():
    def f(w, key, x):
        return x @ jnp.exp(w) + jax.random.normal(key, x.shape)

    w, x = jnp.ones((3, 3)), jnp.ones((2, 3))
    keys = jax.random.split(jax.random.key(0))
    buffers, rest = jaxlrp.prepare(f, w, keys[0], x, varying=(1, 2))
    for key in keys:
        assert_close(rest(buffers, key, x), f(w, key, x))
    buffers, rest = jaxlrp.prepare(f, w, keys[0], x)
    assert_close(rest(buffers, x), f(w, keys[0], x))


# ---- composition -----------------------------------------------------------------


def test_the_rest_composes():
    _, params, x = NETWORKS["many rows"]
    explain = jaxlrp.lrp(dense, composites.Uniform(rules.ZPlus()))
    buffers, rest = jaxlrp.prepare(explain, params, x)

    def mapped(f, first):
        return run(jax.vmap(f, (None, 0)), first, jnp.stack([x, 0.5 * x]))

    def slope(f, first):
        return run(jax.grad(lambda x, first: (f(first, x) ** 2).sum()), x, first)

    assert_close(mapped(rest, buffers), mapped(explain, params))
    assert_close(slope(rest, buffers), slope(explain, params))


def test_preparing_is_traceable():
    """Under `jit`, for other weights, and for the gradient by the weights."""
    _, params, x = NETWORKS["dense"]
    explain = jaxlrp.lrp(dense, composites.Uniform(rules.ZPlus()))
    _, rest = jaxlrp.prepare(explain, params, x)
    others = jax.tree.map(lambda v: -v, params)
    buffers = run(lambda p: jaxlrp.prepare(explain, p, x)[0], others)
    assert_close(run(rest, buffers, x), run(explain, others, x))

    def by_halves(params):
        buffers, rest = jaxlrp.prepare(explain, params, x)
        return (rest(buffers, x) ** 2).sum()

    whole = jax.grad(lambda p: (explain(p, x) ** 2).sum())
    assert_close(run(jax.grad(by_halves), params), run(whole, params))


def test_weights_over_devices():
    kinds = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("i",), axis_types=kinds, devices=jax.devices()[:2])
    over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "i"))
    w, x = normal(4, 6), normal(2, 4)
    explain = jaxlrp.lrp(lambda w, x: jax.nn.relu(x @ w), composites.EpsilonPlus())
    buffers, rest = jaxlrp.prepare(explain, jax.device_put(w, over), x)
    assert all(b.sharding.is_equivalent_to(over, 2) for b in buffers)
    assert_close(run(rest, buffers, x), run(explain, w, x))


def test_preparing_on_each_device():
    """Inside of a `shard_map`, where what moves between devices still moves."""
    kinds = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("i",), axis_types=kinds, devices=jax.devices()[:2])
    spec = jax.sharding.PartitionSpec("i")

    def f(w, x):
        w, v = lax.ppermute((w, 2 * w), "i", [(0, 1), (1, 0)])
        return x @ jnp.exp(w) + v.sum()

    def halves(w, x):
        buffers, rest = jaxlrp.prepare(f, w, x)
        return rest(buffers, x)

    def over_devices(f):
        mapped = jax.shard_map(f, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
        return jax.jit(mapped)(w, x)

    w, x = normal(6, 2), normal(4, 3)
    assert_close(over_devices(halves), over_devices(f))


def test_several_arguments_vary_and_others_need_be_no_arrays():
    def f(power, weights, x, y):
        return {"sum": x @ weights["w"] ** power + y, "known": weights["w"].sum()}

    weights = {"w": jnp.asarray(normal(4, 3)), "name": "w"}
    x, y = normal(2, 4), normal(2, 3)
    buffers, rest = jaxlrp.prepare(f, 2, weights, x, y, varying=(3, 2))
    assert_close(rest(buffers, y, x), f(2, weights, x, y))
    buffers, rest = jaxlrp.prepare(f, 2, weights, x, y, varying=())
    assert_close(rest(buffers), f(2, weights, x, y))


def test_other_methods_are_prepared_too():
    _, params, x = NETWORKS["dense"]
    explain = jaxlrp.lrp_each(dense, composites.Uniform(rules.ZPlus()))
    buffers, rest = jaxlrp.prepare(explain, params, x)
    assert_close(run(rest, buffers, x), run(explain, params, x))


# ---- errors ----------------------------------------------------------------------


def product(w, x):
    return x["a"] @ w


@pytest.mark.whole
@pytest.mark.parametrize("varying", [2, -3, (0, 0), "x", True])
def test_an_argument_that_is_not_there_cannot_vary(varying):
    with pytest.raises((TypeError, ValueError), match="varying: got"):
        jaxlrp.prepare(product, jnp.ones((3, 2)), {"a": jnp.ones(3)}, varying=varying)


def test_what_is_prepared_has_to_be_arrays():
    with pytest.raises(TypeError, match="f: got 3, expected a function"):
        jaxlrp.prepare(3, 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"argument 1\['a'\] varies: got 'b' of type"):
        jaxlrp.prepare(product, jnp.ones((3, 2)), {"a": "b"})
    shape = jax.ShapeDtypeStruct((3, 2), "f4")
    with pytest.raises(TypeError, match="argument 0 does not vary: .* expected an arr"):
        jaxlrp.prepare(product, shape, {"a": jnp.ones(3)})


@pytest.mark.whole
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            [{"a": np.ones(4, "f4")}],
            r"argument 1\['a'\]: got float32 of shape \(4,\), ",
        ),
        ([{"a": np.ones(3, "i4")}], r"expected float32 of shape \(3,\), as when it"),
        ([{"b": np.ones(3, "f4")}], "argument 1: got a pytree .* expected PyTreeDef"),
        (
            [],
            r"varying: got 0 arguments besides the buffers, expected 1, those at \[1\]",
        ),
    ],
)
def test_the_rest_takes_what_it_was_prepared_for(args, message):
    buffers, rest = jaxlrp.prepare(product, jnp.ones((3, 2)), {"a": jnp.ones(3)})
    with pytest.raises(ValueError, match=message):
        rest(buffers, *args)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("buffers", "message"),
    [
        ((), "buffers: got 0 of them, expected the 1 arrays"),
        ({"w": 1}, "buffers: got a dict, expected the 1 arrays"),
        ((np.ones((2, 3), "f4"),), r"buffers\[0\]: got float32 of shape \(2, 3\), exp"),
    ],
)
def test_the_rest_takes_its_own_buffers(buffers, message):
    _, rest = jaxlrp.prepare(product, jnp.ones((3, 2)), {"a": jnp.ones(3)})
    with pytest.raises(ValueError, match=message):
        rest(buffers, {"a": jnp.ones(3)})
