"""JAX's transformations around `lrp`, inside what it explains, and both at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

rng = np.random.default_rng(0)


def normal(*shape):
    return np.asarray(rng.normal(size=shape), np.float32)


COMPOSITES = {
    "Default": None,
    "AttnLRP": composites.AttnLRP(),
    "Epsilon": composites.Epsilon(),
    "EpsilonPlusFlat": composites.EpsilonPlusFlat(),
    "EpsilonGammaBox": composites.EpsilonGammaBox(-4.0, 4.0),
    "AlphaBeta": composites.Uniform(rules.AlphaBeta(2.0, 1.0)).on(
        "layer", rules.ZBox(-4.0, 4.0), first=True
    ),
    "Gamma": composites.Uniform(rules.Gamma(0.25)).on(
        "layer", rules.WSquare(), first=True
    ),
}


def convolutional(params, x):
    y = lax.conv_general_dilated(x, params["kernel"], (1,), "SAME")
    y = jax.nn.relu(y + params["bias"][:, None])
    y = lax.reduce_window(y, -jnp.inf, lax.max, (1, 1, 2), (1, 1, 2), "VALID")
    y = jax.nn.relu(lax.conv_general_dilated(y, params["second"], (1,), "SAME") + y)
    return y.mean(-1) @ params["head"]


def transformer(params, x):
    def norm(h):
        centred = h - h.mean(-1, keepdims=True)
        return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)

    h = norm(x) @ params["in"]
    q, k, v = h @ params["q"], h @ params["k"], h @ params["v"]
    scores = jnp.einsum("...qd,...kd->...qk", q, k) / 2.0
    mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    attention = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf))
    h = h + attention @ v
    h = h + jax.nn.gelu(norm(h) @ params["up"]) @ params["down"]
    return norm(h).mean(-2) @ params["head"]


def recurrent(params, x):
    """A gated cell, scanned over the last axis but one, from a state of zeros."""

    def step(state, u):
        h, c = state
        i, f, o, g = jnp.split(u @ params["w"] + h @ params["r"] + params["b"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    zeros = jnp.zeros((*x.shape[:-2], 3), x.dtype)
    (h, _), _ = lax.scan(step, (zeros, zeros), jnp.moveaxis(x, -2, 0))
    return h @ params["head"]


def branching(params, x):
    h = jax.nn.relu(x @ params["w"])
    h = lax.cond(params["flag"] > 0, jnp.tanh, lambda h: 2.0 * h, h)
    h = jax.checkpoint(lambda h: jax.nn.silu(h @ params["v"]))(h)
    return h @ params["head"]


NETWORKS = {
    "convolutional": (
        convolutional,
        {
            "kernel": normal(4, 2, 3),
            "bias": normal(4),
            "second": normal(4, 4, 3),
            "head": normal(4, 3),
        },
        normal(3, 2, 6),
    ),
    "transformer": (
        transformer,
        {
            "in": normal(4, 4),
            "q": normal(4, 4),
            "k": normal(4, 4),
            "v": normal(4, 4),
            "up": normal(4, 6),
            "down": normal(6, 4),
            "head": normal(4, 3),
        },
        normal(3, 4, 4),
    ),
    "recurrent": (
        recurrent,
        {
            "w": normal(2, 12),
            "r": normal(3, 12),
            "b": normal(12),
            "head": normal(3, 3),
        },
        normal(3, 4, 2),
    ),
    "branching": (
        branching,
        {
            "w": normal(4, 5),
            "v": normal(5, 5),
            "head": normal(5, 3),
            "flag": np.float32(1.0),
        },
        normal(3, 4),
    ),
}
PAIRS = [
    *(("convolutional", name) for name in COMPOSITES),
    *(("transformer", name) for name in ("Default", "AttnLRP", "Epsilon")),
    *(("recurrent", name) for name in ("Default", "AttnLRP", "EpsilonPlusFlat")),
    *(("branching", name) for name in ("Default", "AlphaBeta", "EpsilonPlusFlat")),
]
each_pair = pytest.mark.parametrize(("network", "composite"), PAIRS)


def explainer(network, composite, **options):
    return jaxlrp.lrp(NETWORKS[network][0], COMPOSITES[composite], **options)


@functools.cache
def compiled(network, composite):
    return jax.jit(explainer(network, composite))


def assert_close(value, expected, tolerance=1e-5):
    """Largest difference, relative to the largest entry."""
    value, expected = np.asarray(value), np.asarray(expected)
    assert value.shape == expected.shape
    assert np.abs(expected).max() > 0
    assert np.abs(value - expected).max() <= tolerance * np.abs(expected).max()


# ---- jit, vmap, scan, checkpoint around lrp ----------------------------------------


@pytest.mark.always
@each_pair
def test_jit_equals_eager(network, composite):
    _, params, x = NETWORKS[network]
    eager = explainer(network, composite)(params, x)
    assert_close(compiled(network, composite)(params, x), eager)


@each_pair
def test_vmap_over_inputs_equals_a_loop(network, composite):
    f, params, x = NETWORKS[network]
    explain = jax.jit(lambda p, x: explainer(network, composite)(p, x[None])[0])
    loop = jnp.stack([explain(params, row) for row in x])
    assert_close(compiled(network, composite)(params, x), loop)
    mapped = jax.vmap(lambda p, x: f(p, x[None])[0], (None, 0))
    inside = jaxlrp.lrp(mapped, COMPOSITES[composite])
    outside = jax.vmap(explain, (None, 0))
    both = jax.jit(lambda p, x: (outside(p, x), inside(p, x)))  # compiled as one
    for relevance in both(params, x):
        assert_close(relevance, loop)


def test_vmap_over_targets_equals_a_loop():
    f, params, x = NETWORKS["convolutional"]

    @jax.jit
    def explain(target):
        return jaxlrp.lrp(f, composites.EpsilonPlus(), target=target)(params, x)

    one = jnp.arange(3)
    assert_close(jax.vmap(explain)(one), jnp.stack([explain(t) for t in one]))
    each = jnp.array([[0, 1, 2], [2, -1, 0]])
    assert_close(jax.vmap(explain)(each), jnp.stack([explain(t) for t in each]))


@pytest.mark.parametrize(
    ("network", "composite"),
    [("convolutional", "EpsilonPlusFlat"), ("transformer", "AttnLRP")],
)
def test_vmap_over_parameters_equals_a_loop(network, composite):
    _, params, x = NETWORKS[network]
    models = [jax.tree.map(lambda p, s=s: s * p, params) for s in (1.0, 0.5, -0.7)]
    explain = compiled(network, composite)
    loop = jnp.stack([explain(model, x) for model in models])
    stacked = jax.tree.map(lambda *ps: jnp.stack(ps), *models)
    assert_close(jax.vmap(explain, (0, None))(stacked, x), loop)


@pytest.mark.parametrize(
    ("network", "composite"),
    [
        ("branching", "Default"),
        ("branching", "AlphaBeta"),
        ("convolutional", "EpsilonPlusFlat"),
    ],
)
def test_an_ensemble_inside_the_function_is_its_members_written_out(network, composite):
    f, params, x = NETWORKS[network]
    models = [jax.tree.map(lambda p, s=s: s * p, params) for s in (1.0, 0.5, 0.7)]
    stacked = jax.tree.map(lambda *ps: jnp.stack(ps), *models)

    def mapped(models, x):
        return jax.vmap(f, (0, None))(models, x)

    def written(models, x):
        return jnp.stack([f(model, x) for model in models])

    explain = [
        jaxlrp.lrp(f, COMPOSITES[composite], target=1) for f in (mapped, written)
    ]
    assert_close(jax.jit(explain[0])(stacked, x), jax.jit(explain[1])(models, x))


SWEEPS = {
    "epsilon": lambda v: composites.Epsilon(v),
    "gamma": lambda v: composites.Uniform(rules.Gamma(v)),
    "generalised gamma": lambda v: composites.Uniform(rules.GeneralizedGamma(v)),
    "alpha-beta": lambda v: composites.Uniform(rules.AlphaBeta(1.0 + v, v)),
    "box": lambda v: composites.EpsilonGammaBox(-4.0 - v, 4.0, gamma=v),
    "norm": lambda v: composites.Epsilon().on("sum", rules.Norm(v)),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_vmap_over_a_hyper_parameter_equals_a_loop(name):
    _, params, x = NETWORKS["convolutional"]
    values = [0.125, 0.5, 2.0]

    def explain(value):
        return jaxlrp.lrp(convolutional, SWEEPS[name](value))(params, x)

    loop = jnp.stack([explain(value) for value in values])
    assert_close(jax.jit(jax.vmap(explain))(jnp.array(values)), loop)
    assert not np.allclose(loop[0], loop[2], rtol=1e-3)


def test_a_composite_is_an_argument_like_any_other():
    _, params, x = NETWORKS["convolutional"]
    explain = jax.jit(lambda c, x: jaxlrp.lrp(convolutional, c)(params, x))
    for epsilon in (1e-3, 0.5):
        composite = composites.Epsilon(epsilon)
        expected = jaxlrp.lrp(convolutional, composite)(params, x)
        assert_close(explain(composite, x), expected)
    assert explain._cache_size() == 1


def test_lrp_inside_a_scan():
    _, params, x = NETWORKS["transformer"]
    explain = explainer("transformer", "AttnLRP")
    scanned = lax.scan(lambda c, row: (c, explain(params, row)), 0, x[:, None])[1]
    assert_close(scanned[:, 0], compiled("transformer", "AttnLRP")(params, x))


def test_lrp_of_a_function_that_closes_over_tracers():
    _, params, x = NETWORKS["branching"]

    @jax.jit
    def outer(params, x):
        model = jax.jit(functools.partial(branching, params))
        return jaxlrp.lrp(model)(x)

    expected = compiled("branching", "Default")(params, x)
    assert_close(outer(params, x), expected)
    stacked = jax.tree.map(lambda p: jnp.stack([p, 2.0 * p]), params)
    assert_close(jax.vmap(outer, (0, None))(stacked, x)[0], expected)

    def size(relevance):
        return (relevance**2).sum()

    through = jax.grad(lambda p: size(outer(p, x)))(params)
    direct = jax.grad(lambda p: size(compiled("branching", "Default")(p, x)))(params)
    assert_close(through["w"], direct["w"])


@pytest.mark.parametrize(
    ("network", "composite"),
    [
        ("convolutional", "EpsilonGammaBox"),
        ("transformer", "AttnLRP"),
        ("recurrent", "EpsilonPlusFlat"),
    ],
)
def test_checkpoint_around_lrp(network, composite):
    _, params, x = NETWORKS[network]
    explain = jax.checkpoint(explainer(network, composite))
    assert_close(jax.jit(explain)(params, x), compiled(network, composite)(params, x))
    grads = jax.jit(jax.grad(lambda p: (explain(p, x) ** 2).sum()))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("composite", ["Default", "EpsilonPlusFlat", "AlphaBeta"])
def test_checkpoint_inside_the_function(composite):
    _, params, x = NETWORKS["convolutional"]
    for options in ({}, {"policy": jax.checkpoint_policies.dots_saveable}):
        inside = jaxlrp.lrp(
            jax.checkpoint(convolutional, **options), COMPOSITES[composite]
        )
        expected = compiled("convolutional", composite)(params, x)
        assert_close(jax.jit(inside)(params, x), expected)


# ---- shapes and export -------------------------------------------------------------


@each_pair
def test_eval_shape_needs_no_arrays(network, composite):
    f, params, x = NETWORKS[network]
    specs = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), (params, x))
    value, relevance = jax.eval_shape(
        jaxlrp.value_and_lrp(f, COMPOSITES[composite]), *specs
    )
    assert relevance.shape == x.shape and relevance.dtype == x.dtype
    assert value.shape == (3, 3)


@pytest.mark.parametrize(
    ("network", "composite"),
    [
        ("convolutional", "EpsilonGammaBox"),
        ("transformer", "AttnLRP"),
        ("recurrent", "EpsilonPlusFlat"),
        ("branching", "Default"),
    ],
)
def test_export_with_a_batch_of_any_size(network, composite):
    _, params, x = NETWORKS[network]
    (batch,) = jax.export.symbolic_shape("batch")
    spec = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
    explain = jax.jit(functools.partial(explainer(network, composite), params))
    exported = jax.export.export(explain)(spec)
    for size in (1, 3):
        assert_close(exported.call(x[:size]), explain(x[:size]))


# ---- derivatives of relevances -----------------------------------------------------


def finite_difference(f, x, direction, step=1e-6):
    """Central, along a direction in a pytree."""

    def moved(amount):
        return f(jax.tree.map(lambda v, d: v + amount * d, x, direction))

    return (moved(step) - moved(-step)) / (2 * step)


def along(gradient, direction):
    terms = jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)
    return sum(jax.tree.leaves(terms))


def directions(tree, seed):
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda v: generator.normal(size=np.shape(v)), tree)


@pytest.mark.parametrize(
    ("network", "composite"), [p for p in PAIRS if p != ("transformer", "AttnLRP")]
)
def test_gradients_of_relevances_equal_finite_differences(network, composite):
    _, params, x = NETWORKS[network]
    weights = directions(x, 1)
    with jax.enable_x64(True):
        both = jax.tree.map(np.float64, (params, x))
        explain = explainer(network, composite, target=1)
        objective = lambda both: (weights * explain(*both)).sum()  # noqa: E731
        slope = jax.jit(jax.value_and_grad(objective))
        direction = directions(both, 2)
        gradient = jax.tree.map(np.asarray, slope(both)[1])
        expected = finite_difference(lambda both: slope(both)[0], both, direction)
        size = sum(np.abs(g).max() for g in jax.tree.leaves(gradient))
        assert abs(along(gradient, direction) - expected) <= 1e-6 * size
        assert size > 1e-2


@pytest.mark.parametrize("composite", ["AttnLRP", "EpsilonPlusFlat"])
def test_forward_mode_equals_reverse_mode(composite):
    _, params, x = NETWORKS["branching"]
    weights, direction = directions(x, 1), directions(x, 2)
    with jax.enable_x64(True):
        x = jnp.asarray(x, jnp.float64)
        explain = jaxlrp.lrp(branching, COMPOSITES[composite], target=1)
        objective = lambda x: (weights * explain(params, x)).sum()  # noqa: E731
        tangent = jax.jit(lambda v: jax.jvp(objective, (v,), (direction,))[1])
        gradient = jax.jit(jax.grad(objective))
        assert_close(tangent(x), along(gradient(x), direction), 1e-10)


@pytest.mark.parametrize("name", SWEEPS)
def test_hyper_parameters_have_gradients(name):
    _, params, x = NETWORKS["convolutional"]
    with jax.enable_x64(True):
        both = jax.tree.map(np.float64, (params, x))
        weights = directions(x, 1)

        def objective(value):
            explain = jaxlrp.lrp(convolutional, SWEEPS[name](value), target=1)
            return (weights * explain(*both)).sum()

        slope = jax.jit(jax.value_and_grad(objective))
        gradient = slope(np.float64(0.5))[1]
        expected = finite_difference(lambda v: slope(v)[0], np.float64(0.5), 1.0)
        assert abs(gradient - expected) <= 1e-6 * abs(expected)


def test_second_derivatives_of_relevances():
    _, params, x = NETWORKS["branching"]
    with jax.enable_x64(True):
        x = jnp.asarray(x[0], jnp.float64)
        weights = directions(x, 1)

        def objective(x):
            return (weights * jaxlrp.lrp(branching, target=1)(params, x)).sum()

        hessian = jax.jit(jax.hessian(objective))(x)
        direction = directions(x, 2)
        slope = jax.jit(jax.grad(objective))
        expected = finite_difference(slope, x, direction, 1e-5)
        assert_close(hessian @ direction, expected, 1e-6)


def test_gradients_where_an_activation_stands_exactly_at_zero():
    """There the secant's slope is half of the second derivative."""
    with jax.enable_x64(True):
        w = jnp.array([[1.0, 2.0], [-1.0, 0.5]])
        u = jnp.array([1.0, 1.0])  # the first unit is zero
        explain = jaxlrp.lrp(
            lambda u: jax.nn.silu(u @ w), composites.AttnLRP(), target="all"
        )
        objective = lambda u: explain(u)[0]  # noqa: E731
        for direction in jnp.eye(2):
            expected = finite_difference(objective, u, direction, 1e-5)
            assert abs(jax.grad(objective)(u) @ direction - expected) < 1e-8


@pytest.mark.parametrize("composite", ["Default", "EpsilonPlusFlat", "EpsilonGammaBox"])
def test_a_training_step_that_regularises_the_explanation(composite):
    """Relevance on half of the pixels is penalised, and falls."""
    f, params, x = NETWORKS["convolutional"]
    labels = jnp.array([0, 1, 2])
    explain = jaxlrp.value_and_lrp(f, COMPOSITES[composite], target=labels)
    forbidden = jnp.arange(6) < 3
    optimiser = optax.adam(0.02)

    def loss(params):
        logits, relevance = explain(params, x)
        fit = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        share = jnp.abs(relevance * forbidden).sum() / jnp.abs(relevance).sum()
        return fit + 5.0 * share, share

    @jax.jit
    def step(params, state):
        (_, share), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimiser.update(grads, state)
        return optax.apply_updates(params, updates), state, share

    state, shares = optimiser.init(params), []
    for _ in range(30):
        params, state, share = step(params, state)
        shares.append(float(share))
    assert np.isfinite(shares).all()
    assert shares[-1] < 0.8 * shares[0]


# ---- lrp of lrp, effects, kept calls -----------------------------------------------


def test_the_relevance_of_a_relevance():
    """On a linear map `R = x w_t`, whose relevance is itself; each step conserves."""
    _, params, x = NETWORKS["convolutional"]
    w = normal(4, 3)
    inner = jaxlrp.lrp(lambda x: x @ w, composites.AttnLRP(), target=1)
    row = normal(4)
    outer = jaxlrp.lrp(inner, composites.AttnLRP(), target="all")
    assert_close(outer(row), inner(row))
    f = lambda x: jax.nn.relu(x @ w + 1.0) @ w.T  # noqa: E731
    inner = jaxlrp.lrp(f, composites.AttnLRP(), target=0)
    outer = jaxlrp.lrp(inner, composites.AttnLRP(), target="all")
    rows = normal(8, 4)
    assert_close(jax.jit(outer)(rows).sum(), inner(rows).sum())
    twice = jaxlrp.lrp(explainer("convolutional", "Epsilon"), target="all")
    assert np.isfinite(jax.jit(twice)(params, x)).all()


@pytest.mark.parametrize("composite", ["Default", "EpsilonPlusFlat"])
def test_effects_run_once(composite):
    _, _, x = NETWORKS["branching"]
    w = normal(4, 4)
    seen = []

    def note(name, v):
        jax.debug.callback(lambda v: seen.append(name), v.sum())

    @jax.jit
    def block(h):
        note("block", h)
        for _ in range(6):
            h = jax.nn.relu(jnp.tanh(h @ w) + h)
        return h

    def f(x):
        note("top", x)

        def step(c, row):
            note("scan", row)
            return c + row @ w, None

        h, _ = lax.scan(step, jnp.zeros(4), x)
        h = lax.cond(h.sum() > -1e9, lambda h: (note("cond", h), h)[1], jnp.tanh, h)
        return block(block(h))

    explain = jaxlrp.lrp(f, COMPOSITES[composite])
    for run in (explain, jax.jit(explain)):
        seen.clear()
        jax.block_until_ready(run(x))
        jax.effects_barrier()
        assert sorted(seen) == ["block"] * 2 + ["cond"] + ["scan"] * 3 + ["top"]


def block(params, state):
    """Enough to be worth keeping; two arrays in, two out."""
    h, memory = state
    for name in ("a", "b"):
        h = h + jax.nn.silu(h @ params[name] + params["bias"]) * 2.0
        memory = jnp.tanh(memory + h @ params["b"])
    return h, memory


def stack(block, params, x):
    state = (x, jnp.zeros_like(x))
    for _ in range(3):
        state = block(params, state)
    return state[0] + state[1]


def count_calls(jaxpr, size=8):
    """The `jit` equations with at least `size` equations of their own."""
    calls = [e for e in jaxpr.eqns if e.primitive.name in ("jit", "pjit")]
    bodies = [getattr(e.params["jaxpr"], "jaxpr", e.params["jaxpr"]) for e in calls]
    return sum(len(b.eqns) >= size for b in bodies)


BLOCK = {"a": normal(4, 4), "b": normal(4, 4), "bias": normal(4)}


@pytest.mark.parametrize(
    "composite", ["Default", "AttnLRP", "EpsilonPlusFlat", "Gamma"]
)
def test_repeated_calls_are_kept_and_change_nothing(composite):
    x = normal(3, 4)
    kept = jaxlrp.lrp(functools.partial(stack, jax.jit(block)), COMPOSITES[composite])
    written = jaxlrp.lrp(functools.partial(stack, block), COMPOSITES[composite])
    assert_close(jax.jit(kept)(BLOCK, x), jax.jit(written)(BLOCK, x))
    jaxprs = [jax.make_jaxpr(f)(BLOCK, x).jaxpr for f in (kept, written)]
    assert count_calls(jaxprs[0]) >= 3
    assert count_calls(jaxprs[1]) == 0


def test_a_repeated_call_is_a_call_even_where_its_result_is_like_its_input():
    """One array in, one of the same shape out: still a network, no activation."""

    def residual(w, h):
        for _ in range(6):
            h = h + jax.nn.relu(h @ w)
        return h

    def deep(block, w, x):
        return block(w, block(w, x)).sum(-1)

    w, x = normal(4, 4), normal(3, 4)
    kept, written = (
        jaxlrp.lrp(functools.partial(deep, b), composites.AttnLRP(), target="all")
        for b in (jax.jit(residual), residual)
    )
    assert_close(kept(w, x), written(w, x))


def test_repeated_calls_that_close_over_tracers():
    x = normal(3, 4)

    def objective(compile, params):
        closed = compile(lambda state: block(params, state))
        explain = jaxlrp.lrp(
            lambda x: stack(lambda _, state: closed(state), None, x), target=0
        )
        return (explain(x) ** 2).sum()

    kept, written = (
        jax.jit(jax.grad(functools.partial(objective, c)))(BLOCK)
        for c in (jax.jit, lambda f: f)
    )
    jax.tree.map(functools.partial(assert_close, tolerance=1e-4), kept, written)


def test_repeated_calls_under_vmap():
    x = normal(3, 4)
    explain = jax.jit(jaxlrp.lrp(functools.partial(stack, jax.jit(block))))
    assert_close(jax.vmap(explain, (None, 0))(BLOCK, x), explain(BLOCK, x))


# ---- scans -------------------------------------------------------------------------


def test_a_scan_is_its_steps_written_out():
    w = normal(4, 4)

    def step(c, t):
        return jnp.tanh(c @ w + t), c

    def scanned(x):
        c, ys = lax.scan(step, x[0], x, reverse=True, unroll=2)
        return c + ys[0]

    def written(x):
        c, ys = x[0], []
        for t in x[::-1]:
            c, y = step(c, t)
            ys.append(y)
        return c + ys[-1]

    x = normal(3, 4)
    for composite in (None, composites.AttnLRP(), composites.Uniform(rules.Flat())):
        explain = [jax.jit(jaxlrp.lrp(f, composite)) for f in (scanned, written)]
        assert_close(explain[0](x), explain[1](x))


def test_a_carry_that_becomes_active_late():
    """The first carry sees the input only from the third step on."""
    w = normal(4, 4)

    def step(carry, t):
        a, b, n = carry
        return (b, b + t @ w, n + 1), a

    def scanned(x):
        (a, _, n), ys = lax.scan(step, (jnp.zeros(4), jnp.zeros(4), 0), x)
        return a * n + ys.sum(0)

    def written(x):
        carry, ys = (jnp.zeros(4), jnp.zeros(4), 0), []
        for t in x:
            carry, y = step(carry, t)
            ys.append(y)
        return carry[0] * carry[2] + sum(ys)

    x = normal(4, 4)
    for name in ("AttnLRP", "Epsilon", "EpsilonPlusFlat"):
        explain = [
            jax.jit(jaxlrp.lrp(f, COMPOSITES[name], target=2))
            for f in (scanned, written)
        ]
        # A stabiliser counts once more where a zero is added to what is active.
        assert_close(explain[0](x), explain[1](x), 1e-4)


def test_nested_scans():
    def inner(d, s):
        return jnp.tanh(d + s), d * 2.0

    def outer(c, t):
        d, e = lax.scan(inner, c[0], t)
        return c + d, e

    def scanned(x):
        c, es = lax.scan(outer, jnp.zeros(4), x)
        return c + es.sum()

    def written(x):
        c, total = jnp.zeros(4), 0.0
        for t in x:
            d = c[0]
            for s in t:
                d, e = inner(d, s)
                total = total + e
            c = c + d
        return c + total

    x = normal(3, 4)
    explain = [
        jaxlrp.lrp(f, composites.AttnLRP(), target=0) for f in (scanned, written)
    ]
    assert_close(explain[0](x), explain[1](x))


def test_an_empty_scan_hands_its_carry_on():
    w = normal(4, 4)

    def f(x):
        return lax.scan(lambda c, t: (c + t @ w, t), x[0], x[:0])[0]

    x = normal(3, 4)
    relevance = jaxlrp.lrp(f, target="all")(x)
    np.testing.assert_array_equal(relevance, x * [[1.0], [0.0], [0.0]])


# ---- loops, named axes, scopes -----------------------------------------------------


def test_fixed_loops_are_explained():
    w = np.abs(normal(4, 4))  # no sum near zero, which would enlarge rounding errors

    def looped(x):
        return lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h @ w) + i, x)

    def written(x):
        for i in range(3):
            x = jnp.tanh(x @ w) + float(i)
        return x

    x = np.abs(normal(3, 4))
    assert_close(jaxlrp.lrp(looped)(x), jaxlrp.lrp(written)(x))


def test_sums_over_a_named_axis():
    """Relevance of an example goes to all the examples that it sums."""
    x = normal(3, 4)
    f = lambda x: x + lax.psum(x, "batch")  # noqa: E731
    explain = jaxlrp.lrp(f, composites.Proportional(), target=1)
    relevance = jax.vmap(explain, axis_name="batch")(x)
    expected = np.zeros_like(x)
    expected[:, 1] = 4 * x[:, 1]
    assert_close(relevance, expected)


@pytest.mark.parametrize("wrapper", ["scan", "jit", "cond", "checkpoint"])
def test_scopes_reach_into_bodies(wrapper):
    """A scope around a loop, call or branch holds for the layers in it."""
    w = normal(4, 4)

    def block(h):
        for _ in range(3):
            h = jnp.tanh(jnp.sin(h @ w) + 1.0) * jnp.cos(h)
        return h, None

    kept = jax.jit(block)
    wrapped = {
        "scan": lambda h: lax.scan(lambda h, _: block(h), h, None, length=2)[0],
        "jit": lambda h: kept(kept(h)[0])[0],
        "cond": lambda h: lax.cond(h.sum() > 0, block, block, h)[0],
        "checkpoint": lambda h: jax.checkpoint(block)(h)[0],
    }[wrapper]

    def f(x):
        with jax.named_scope("stem"):
            return wrapped(x)

    scoped = composites.AttnLRP().on("layer", rules.Flat(), scope="stem*")
    table = jaxlrp.plan(f, scoped)(normal(3, 4))
    layers = [row for row in table.rows if row.role == "dense"]
    assert layers and all("Flat" in row.rule for row in layers)


@pytest.mark.parametrize("target", ["max", "all", 1])
def test_explicitly_sharded_arguments_give_the_same_numbers(target):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    w = jnp.cos(jnp.arange(20.0)).reshape(4, 5)
    x = jnp.sin(jnp.arange(16.0)).reshape(4, 4)
    explain = jaxlrp.lrp(lambda w, x: jax.nn.gelu(x @ w) @ w.T, target=target)
    with jax.set_mesh(mesh):
        found = jax.jit(explain)(w, jax.device_put(x, rows))
    assert found.sharding.spec[0] == "data"
    np.testing.assert_allclose(found, explain(w, x), rtol=1e-4, atol=1e-5)
