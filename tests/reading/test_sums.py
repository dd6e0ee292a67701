"""Sums of sums: what each part gets, however the sum is written."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp._reading import sums
from tests.program.test_program import program_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 8))
GAMMA = rules.GeneralizedGamma(1.0)
RULES = {
    "generalised gamma": rules.GeneralizedGamma(2.0),
    "gamma": rules.Gamma(0.5),
    "z-plus": rules.ZPlus(),
    "alpha-beta": rules.AlphaBeta(),
    "absolute": rules.Absolute(joint=True),
}


@pytest.fixture(autouse=True)
def in_float64():
    jax.config.update("jax_enable_x64", True)


def composite(rule):
    return composites.Proportional().on("sum", rule).on("shift", rule)


def relevances(f, xs, rule=GAMMA, start=jnp.ones_like):
    """Of each argument, where the relevance of the output is `start` of it."""
    every = tuple(range(len(xs)))
    explain = jaxlrp.lrp(f, composite(rule), argnums=every, target=start)
    return np.stack([np.asarray(r) for r in explain(*map(jnp.asarray, xs))])


def of_parts(name, parts, weights):
    """The rules' formulas: the share of each part `w_k x_k` in a sum."""
    p, y = np.stack(parts), np.sum(parts, 0)
    plus, minus = np.maximum(p, 0), np.minimum(p, 0)

    def over(a, b):
        return np.where(b == 0, 0, a / np.where(b == 0, 1, b))

    if name == "alpha-beta":
        return 2 * over(plus, plus.sum(0)) - over(minus, minus.sum(0))
    if name == "z-plus":
        return over(plus, plus.sum(0))
    if name == "absolute":
        return over(np.abs(p), np.abs(p).sum(0))
    if name == "gamma":
        w = np.array(weights).reshape(-1, *[1] * y.ndim)
        g = np.where(w > 0, 1.5, 1.0)
    else:
        g = np.where(np.sign(p) == np.sign(y), 3.0, 1.0)
    return g * p / (g * p).sum(0)


@pytest.mark.parametrize(
    "gamma, expected",
    [
        (0.0, (29.99999, -28.99999)),
        (1.0, (1.935484, -0.935484)),
        (10.0, (1.096346, -0.096346)),
    ],
)
def test_what_nearly_cancels_is_bounded_by_gamma(gamma, expected):
    rule = rules.GeneralizedGamma(gamma)
    found = relevances(jnp.add, (3.0, -2.9), rule)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize("gamma", [0.25, 1.0, 10.0])
def test_each_factor_and_the_growth_of_a_merge_are_bounded(gamma):
    a = RNG.normal(size=2000)
    b = np.where(np.arange(2000) % 2, -a * (1 + 1e-9 * RNG.normal(size=2000)), a[::-1])
    found = relevances(jnp.add, (a, b), rules.GeneralizedGamma(gamma))
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-12)
    assert found.min() >= -1 / gamma - 1e-12
    assert found.max() <= 1 + 1 / gamma + 1e-12
    assert np.abs(found).sum(0).max() <= 1 + 2 / gamma + 1e-12


@pytest.mark.whole
@pytest.mark.parametrize("name", RULES)
def test_parts_get_what_the_formula_says(name):
    rule, k = RULES[name], X[2]
    sums = {
        "two": (jnp.add, (1, 1)),
        "difference": (jnp.subtract, (1, -1)),
        "with a constant": (lambda a, b: a + k - b, (1, -1, 1)),
        "turned inside": (lambda a, b: -(a + b) + k, (-1, -1, 1)),
    }
    for f, weights in sums.values():
        constants = (k,) * (len(weights) - 2)
        signed = [w * x for w, x in zip(weights, (*X[:2], *constants), strict=True)]
        found = relevances(f, X[:2], rule)
        wanted = of_parts(name, signed, weights)[:2]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    found = relevances(lambda a: a - k, X[:1], rule)
    wanted = of_parts(name, [X[0], -k], (1, -1))[:1]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


WRITTEN = {
    "from the right": lambda a, b, c: a + (b - c),
    "negated inside": lambda a, b, c: a - (-b - -c),
    "another order": lambda a, b, c: (a - c) + b,
    "casts": lambda a, b, c: (a + b).astype(jnp.float64) - c,
    "jit": jax.jit(lambda a, b, c: jax.jit(jnp.add)(a, b) - c),
    "remat": jax.checkpoint(lambda a, b, c: (a + b) - c),
    "vmap": jax.vmap(lambda a, b, c: a + (b - c)),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", ["generalised gamma", "alpha-beta", "absolute"])
@pytest.mark.parametrize("form", WRITTEN)
def test_the_bracket_does_not_matter(name, form):
    wanted = relevances(lambda a, b, c: (a + b) - c, X, RULES[name])
    found = relevances(WRITTEN[form], X, RULES[name])
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-12)


@pytest.mark.whole
@pytest.mark.parametrize("name", ["generalised gamma", "absolute"])
def test_a_change_of_sign_behind_the_sum_does_not_matter(name):
    """To rules that call neither sign positive."""
    wanted = relevances(lambda a, b, c: (a + b) - c, X, RULES[name])
    found = relevances(lambda a, b, c: -((c - b) - a), X, RULES[name])
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-12)


def test_a_sum_over_an_axis_is_the_same_sum():
    rule = rules.GeneralizedGamma(1.0)
    whole = composite(rule).on("average", rule)
    explain = functools.partial(
        jaxlrp.lrp, composite=whole, argnums=(0, 1, 2), target=jnp.ones_like
    )
    xs = tuple(map(jnp.asarray, X))
    found = explain(lambda a, b, c: jnp.stack([a, b, -c]).sum(0))(*xs)
    wanted = explain(lambda a, b, c: a + b - c)(*xs)
    # On averages the rule has a stabiliser, of 1e-6.
    np.testing.assert_allclose(np.stack(found), np.stack(wanted), rtol=1e-5)


def test_the_bracket_does_not_matter_in_a_scan():
    def network(bracket, a, b, c):
        body = lambda s, now: (bracket(jnp.tanh(s), *now), None)  # noqa: E731
        return lax.scan(body, a, (jnp.stack([b, a]), jnp.stack([c, b])))[0]

    left = functools.partial(network, lambda s, b, c: (s + b) - c)
    right = functools.partial(network, lambda s, b, c: s + (b - c))
    found, wanted = relevances(right, X), relevances(left, X)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-6)


def test_the_bracket_does_not_matter_on_a_mesh():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("d",))
    spread = jax.shard_map(
        lambda a, b, c: a + (b - c), mesh=mesh, in_specs=P("d"), out_specs=P("d")
    )
    wanted = relevances(lambda a, b, c: a + b - c, X)
    np.testing.assert_allclose(relevances(spread, X), wanted, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_keeps_the_bound(dtype):
    a = jnp.asarray(RNG.normal(size=500), dtype)
    b = jnp.asarray(-a * (1 + 0.01 * RNG.normal(size=500)), dtype)
    explain = jaxlrp.lrp(
        jnp.add, composite(GAMMA), argnums=(0, 1), target=jnp.ones_like
    )
    found = np.stack([np.asarray(r, np.float64) for r in explain(a, b)])
    assert np.isfinite(found).all()
    assert np.abs(found).sum(0).max() <= 3.05
    kept = found.sum(0)[np.asarray(a + b) != 0]
    # Each relevance is rounded once or twice to eight bits.
    np.testing.assert_allclose(kept, 1, atol=0.05)


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore::jaxlrp.errors.RelevanceWarning")
@pytest.mark.parametrize("name", RULES)
def test_what_cancels_exactly_and_zeros_give_finite_relevance(name):
    a, b = np.array([1.0, 0.0, 0.0, 2.0]), np.array([-1.0, 0.0, 3.0, 0.0])
    found = relevances(jnp.add, (a, b), RULES[name])
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[:, 1], 0)
    assert found[0, 2] == 0 and found[1, 3] == 0
    np.testing.assert_allclose([found[1, 2], found[0, 3]], found[1, 2], rtol=1e-6)


def test_relevance_that_comes_beside_values_is_shared_too():
    """Flat behind the sum hands on relevance that is no multiple of its input."""
    w = RNG.normal(size=(8, 2))
    flat = composite(GAMMA).on("layer", rules.Flat())
    explain = jaxlrp.lrp(
        lambda a, b: (a + b) @ w,
        flat,
        argnums=(0, 1),
        target=lambda y: jnp.ones_like(y),
    )
    found = np.stack(explain(*map(jnp.asarray, X[:2])))
    p, y = X[:2], X[:2].sum(0)
    g = np.where(np.sign(p) == np.sign(y), 2.0, 1.0)
    np.testing.assert_allclose(found, 0.25 * g * p / (g * p).sum(0), rtol=1e-6)


def test_a_relevance_has_exact_derivatives():
    def first(a, b, gamma):
        whole = composite(rules.GeneralizedGamma(gamma))
        f = lambda a, b: a - jnp.tanh(b) + 0.3 * a * b  # noqa: E731
        return jaxlrp.lrp(f, whole, target="all")(a, b).sum()

    point = [jnp.float64(v) for v in (1.2, 0.7, 1.0)]
    found = jax.jit(jax.grad(first, (0, 1, 2)))(*point)
    value, step = jax.jit(first), 1e-6
    for i, derivative in enumerate(found):
        up, down = list(point), list(point)
        up[i], down[i] = up[i] + step, down[i] - step
        slope = (value(*up) - value(*down)) / (2 * step)
        np.testing.assert_allclose(derivative, slope, rtol=1e-6, atol=1e-9)


def test_gamma_may_be_mapped_over():
    def explain(gamma):
        whole = composite(rules.GeneralizedGamma(gamma))
        return jaxlrp.lrp(jnp.add, whole, argnums=0, target="all")(3.0, -2.9)

    found = jax.vmap(explain)(jnp.array([0.0, 1.0, 10.0]))
    np.testing.assert_allclose(found, [3, 0.1935484, 0.1096346], rtol=1e-6)


W, V = RNG.normal(size=(2, 8, 8))


BY_SIZE = composites.Default().on("sum", rules.Absolute(joint=True), residual=True)


def roles(f, whole=BY_SIZE):
    """(role, rule) of each row of the plan for one vector."""
    rows = jaxlrp.plan(f, whole)(jnp.asarray(X[0])).rows
    return [(row.role, row.rule.split("(")[0]) for row in rows]


def layers_in_scan(x):
    body = lambda h, w: (h + jnp.tanh(h @ w), None)  # noqa: E731
    return lax.scan(body, x, jnp.stack([W, V]))[0]


RESIDUAL = {
    "sum": lambda x: x + jnp.tanh(x @ W),
    "difference": lambda x: x - jnp.tanh(x @ W),
    "reversed": lambda x: jnp.tanh(x @ W) - x,
    "casts": lambda x: (
        x + jnp.tanh(x.astype(jnp.float32) @ W.astype(jnp.float32)).astype(x.dtype)
    ),
    "three terms": lambda x: x + jnp.tanh(x @ W) + jnp.tanh(x @ V),
    "in a scan over layers": layers_in_scan,
}


@pytest.mark.whole
@pytest.mark.parametrize("form", RESIDUAL)
def test_a_sum_of_a_value_and_what_is_made_of_it_is_residual(form):
    sums = [rule for role, rule in roles(RESIDUAL[form]) if role == "sum"]
    assert sums == ["Absolute"]


def test_a_sum_of_two_branches_is_not_residual():
    found = roles(lambda x: jnp.tanh(x @ W) + jnp.sin(x @ V))
    assert ("sum", "GeneralizedGamma") in found


@pytest.mark.parametrize(
    "form",
    [
        lambda x, f, g: (x + f) + g,
        lambda x, f, g: x + (f + g),
        lambda x, f, g: (f + g) + x,
        lambda x, f, g: f - (-g - x),
    ],
)
def test_all_additions_of_a_residual_sum_are_residual(form):
    """Where the residual rule does not compare parts, as the default's, too."""

    def f(x):
        return form(x, jnp.tanh(x @ W), jnp.sin(x @ V))

    found = roles(f, composites.Default())
    assert [rule for role, rule in found if role == "sum"] == ["LRP0"] * 2
    expected = jaxlrp.lrp(lambda x: x + jnp.tanh(x @ W) + jnp.sin(x @ V), target="all")
    np.testing.assert_allclose(
        jaxlrp.lrp(f, target="all")(X[0]), expected(X[0]), rtol=1e-5, atol=1e-6
    )


def test_only_residual_sums_may_have_a_rule():
    whole = composites.Proportional().on("sum", rules.Norm(), residual=True)
    assert ("sum", "Norm") in roles(RESIDUAL["sum"], whole)
    assert ("sum", "LRP0") in roles(lambda x: jnp.tanh(x @ W) + jnp.sin(x @ V), whole)


def turned_halves(x):
    a, b = jnp.split(x, 2)
    angle = jnp.arange(4.0)
    return jnp.concatenate(
        [
            a * jnp.cos(angle) - b * jnp.sin(angle),
            a * jnp.sin(angle) + b * jnp.cos(angle),
        ]
    )


def turned_whole(x):
    turned = jnp.concatenate([-x[4:], x[:4]])
    angle = jnp.tile(jnp.arange(4.0), 2)
    return x * jnp.cos(angle) + turned * jnp.sin(angle)


def test_complex_convolutions_have_no_signs_and_stay_in_proportion():
    draw = np.random.default_rng(0)
    parts = draw.normal(size=(2, 3, 2, 4)).astype(np.float32)
    kernel = jnp.asarray(parts[0] + 1j * parts[1])
    x = jnp.asarray(draw.normal(size=(1, 6, 2)), jnp.float32)

    def f(x):
        layout = ("NWC", "WIO", "NWC")
        z = lax.conv_general_dilated(
            x.astype(kernel.dtype), kernel, (1,), "SAME", dimension_numbers=layout
        )
        return jnp.real(z).sum((0, 1))

    expected = jaxlrp.lrp(f, composites.Proportional(), target=0)(x)
    np.testing.assert_allclose(jaxlrp.lrp(f, target=0)(x), expected, atol=1e-5)


def test_complex_sums_have_no_signs_and_stay_in_proportion():
    a, b = jnp.array([3.0, -1.0]), jnp.array([-2.9, 2.0])

    def f(a, b):
        return jnp.real((a * (1 + 1j) + b * 2j) * (1 - 1j) + (0.5 + 1j))

    found, expected = (
        jaxlrp.lrp(f, composite, argnums=(0, 1), target="all")(a, b)
        for composite in (None, composites.Proportional())
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize(
    "f",
    [turned_halves, turned_whole, lambda x: x - x.mean()],
    ids="halves whole mean".split(),
)
def test_one_linear_map_of_one_value_stays_in_proportion(f):
    x = jnp.asarray(X[0])
    assert "sum" not in [role for role, _ in roles(f)]
    found = jaxlrp.lrp(f, BY_SIZE, target=lambda y: y * V[0])(x)
    wanted = x * jax.grad(lambda x: (f(x) * V[0]).sum())(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("f", [turned_halves, turned_whole], ids="halves whole".split())
def test_a_rotation_is_one_map_whatever_layer_comes_before(f):
    w = jnp.asarray(np.random.default_rng(5).normal(size=(X.shape[1], X.shape[1])))
    assert "sum" not in [role for role, _ in roles(lambda x: f(x @ w))]
    # Of two halves that nothing else adds, the sum has parts.
    half = X.shape[1] // 2
    added = roles(lambda x: (lambda h: h[:half] * 0.5 + h[half:])(x @ w))
    assert "sum" in [role for role, _ in added]


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.T + (jnp.tanh(x) @ V).T,
        lambda x: x.reshape(-1) - jnp.tanh(x).reshape(-1),
        lambda x: jax.vmap(lambda g: g - jnp.tanh(g).mean(), 1, 1)(x),
        lambda x: x + jnp.tanh(x[:, ::-1]),
        lambda x: jnp.abs(x).T - jnp.abs(x)[::-1].T,
    ],
    ids="transposed reshaped mapped reversed same".split(),
)
def test_a_residual_sum_is_one_in_any_layout(f):
    plan = jaxlrp.plan(f)(jnp.asarray(X[:2]))
    (row,) = [row for row in plan.rows if row.role == "sum"]
    assert "residual=True" in row.won


def test_a_sum_inside_an_activation_is_no_sum():
    """Also where parts of it are read elsewhere."""

    def f(x):
        z = jax.nn.sigmoid(x)
        return (1 - z) * jnp.tanh(x) + 0.3 * z

    assert roles(f) == [("activation", "Pass")]
    x = jnp.asarray(X[0])
    np.testing.assert_allclose(jaxlrp.lrp(f, target="all")(x), f(x), rtol=1e-6)


def test_reslrp_bounds_the_sums_of_attnlrp():
    whole = composites.ResLRP(2.0)
    assert ("sum", "GeneralizedGamma") in roles(RESIDUAL["sum"], whole)
    explain = jaxlrp.lrp(jnp.add, whole, argnums=(0, 1), target=jnp.ones_like)
    found = np.stack(explain(jnp.float64(3.0), jnp.float64(-2.9)))
    np.testing.assert_allclose(found, [9 / 6.1, -2.9 / 6.1], rtol=1e-6)


def test_unsplit_z_plus_takes_what_is_added_whatever_its_sign():
    a, b, c = np.array([2.0, -3.0]), np.array([1.0, 4.0]), np.array([4.0, -1.0])
    found = relevances(lambda a, b, c: a - b + c, (a, b, c), rules.ZPlus(split=False))
    np.testing.assert_allclose(found, [a / (a + c), 0 * b, c / (a + c)], rtol=1e-6)


def test_a_sum_with_a_constant_alone_is_a_shift():
    chosen = composites.Proportional().on("sum", rules.ZPlus()).on("shift", GAMMA)
    plan = jaxlrp.plan(lambda x: (x + X[0]) + jnp.sin(x)[::-1], chosen)(X[1])
    assert [row.role for row in plan.rows if row.role in ("sum", "shift")] == ["sum"]
    plan = jaxlrp.plan(lambda x: jnp.cumsum(x + X[0]), chosen)(X[1])
    rows = [(row.role, row.rule) for row in plan.rows]
    assert ("shift", repr(GAMMA)) in rows


# ---- large programs --------------------------------------------------------------


C = np.array([0.5, 2, 1, 4])


def written_row_by_row(count):
    """Rows of an array, written one after the other, of which several sums are made."""

    def f(x):
        y = jnp.zeros((count, 4))
        for i in range(count):
            y = y.at[i].set(2 * x)
        return (y + C * y[::-1]).sum(0)

    return f


def test_each_value_of_a_program_is_looked_at_once(monkeypatch):
    asked = collections.Counter()
    before = sums._before

    def counted(value, claims, made):
        asked[id(value)] += 1
        return before(value, claims, made)

    monkeypatch.setattr(sums, "_before", counted)
    rows = jaxlrp.plan(written_row_by_row(12), composite(GAMMA))(jnp.ones(4)).rows
    assert len(asked) > 12 and max(asked.values()) == 1
    assert "sum" not in {row.role for row in rows}  # one linear map of x


def test_a_sum_may_have_more_parts_than_python_nests_calls():
    program = program_of(lambda x: functools.reduce(jnp.add, [x] * 1100), jnp.ones(2))
    assert len(sums.parts(program.equations)) == 1100
    assert {sign for _, sign in sums.parts(program.equations)} == {1}
