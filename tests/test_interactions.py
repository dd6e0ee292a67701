"""Interactions against golden numbers, closed forms, brute force and completeness."""

import itertools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import (
    attribution,
    composites,
    errors,
    interactions,
    rules,
    similarity,
    taylor,
)

RNG = np.random.default_rng(11)
W1, W2 = RNG.normal(size=(5, 8)), RNG.normal(size=(8, 3))
X = RNG.normal(size=5)
KEY = jax.random.key(3)
POINT = np.array([1.0, 2.0, -1.0])


def mlp(params, x):
    return jax.nn.gelu(x @ params[0]) @ params[1]


PARAMS = (W1, W2)


def relu_network(x):
    """Without biases: homogeneous of degree one."""
    return jax.nn.relu(x @ W1) @ W2


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


# ---- integrated Hessians -----------------------------------------------------------

# Janizek et al. at (1, 2, -1) from zero; in closed form, the softplus by its authors'
# package with 160,000 points.
GOLDEN = {
    "x1 x2": (lambda x: x[0] * x[1], [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0]]),
    "x1 x2 x3": (lambda x: x.prod(), np.full((3, 3), -2 / 9)),
    "x1^2 x2": (
        lambda x: x[0] ** 2 * x[1],
        [[0.888889, 0.444444, 0], [0.444444, 0.222222, 0], [0, 0, 0]],
    ),
    "softplus": (
        lambda x: jax.nn.softplus(x[0] + 2 * x[1]) - math.log(2),
        [[0.755431, 0.107283, 0], [0.107283, 3.343572, 0], [0, 0, 0]],
    ),
    "sum + 2 x1 x2": (
        lambda x: x.sum() + 2 * x[0] * x[1],
        [[2, 1, 0], [1, 3, 0], [0, 0, -1]],
    ),
}


@pytest.mark.parametrize("quadrature", ["gauss", "gauss-legendre"])
@pytest.mark.parametrize("name", GOLDEN)
def test_integrated_hessians_are_the_golden_ones(name, quadrature):
    f, expected = GOLDEN[name]
    explain = interactions.integrated_hessians(f, quadrature=quadrature)
    np.testing.assert_allclose(jax.jit(explain)(POINT), expected, atol=1e-6)


def test_integrated_hessians_are_the_golden_ones_in_single_precision():
    for f, expected in GOLDEN.values():
        explain = interactions.integrated_hessians(f)
        found = jax.jit(explain)(jnp.asarray(POINT, jnp.float32))
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_one_variable_needs_no_square_of_nodes():
    """`n` nodes of the weight `-log(s)` integrate what `n * n` products do."""
    for count in (1, 2, 5, 16):
        nodes, weights = interactions._nodes("gauss", count)
        for power in range(2 * count):
            moment = (weights * nodes**power).sum()
            np.testing.assert_allclose(moment, 1 / (power + 1) ** 2, rtol=1e-10)
    published = [0.06389079308732, 0.36899706371562, 0.76688030393894]
    np.testing.assert_allclose(interactions._nodes("gauss", 3)[0], published, rtol=1e-9)


@pytest.mark.always
@pytest.mark.parametrize("baseline", [0.0, RNG.normal(size=5)])
def test_rows_are_integrated_gradients(baseline):
    explain = interactions.integrated_hessians(mlp, baseline, target=1)
    found = jax.jit(explain)(PARAMS, X)
    whole = attribution.integrated_gradients(mlp, baseline=baseline, target=1)
    np.testing.assert_allclose(found.sum(1), whole(PARAMS, X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found, found.T, rtol=1e-10, atol=1e-14)
    gain = mlp(PARAMS, X)[1] - mlp(PARAMS, baseline + 0 * X)[1]
    np.testing.assert_allclose(found.sum(), gain, rtol=1e-5)


def test_the_definition_by_derivatives_of_an_integrated_gradient():
    """`d_j d/dz_j` of the integrated gradient of `i`, at `b + c d`, averaged over c."""
    b = RNG.normal(size=5)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    nodes, weights = (nodes + 1) / 2, weights / 2

    def integrated(z):
        slopes = jax.vmap(lambda a: jax.grad(score)(b + a * (z - b)))(nodes)
        return (z - b) * (weights @ slopes)

    def score(x):
        return mlp(PARAMS, x)[1]

    jacobians = jax.jit(jax.vmap(jax.jacobian(integrated)))
    expected = np.einsum("k,kij->ij", weights, jacobians(b + nodes[:, None] * (X - b)))
    explain = interactions.integrated_hessians(mlp, b, target=1, nodes=24)
    found = jax.jit(explain)(PARAMS, X)
    np.testing.assert_allclose(found, expected * (X - b), rtol=1e-6, atol=1e-8)


def test_rows_pairs_units_and_chunks_are_parts_of_the_matrix():
    def ask(**options):
        explain = interactions.integrated_hessians(mlp, **options)
        return np.asarray(jax.jit(explain)(PARAMS, X))

    whole = ask()

    same = {"rtol": 1e-10, "atol": 1e-14}
    np.testing.assert_allclose(ask(rows=[3, 1], chunk=1), whole[[3, 1]], **same)
    np.testing.assert_allclose(ask(rows=2, chunk=99), whole[2], **same)
    pairs = np.array([(0, 1), (4, 2), (0, 0)])
    np.testing.assert_allclose(ask(pairs=pairs), whole[tuple(pairs.T)], **same)
    labels = np.array([0, 1, 0, -1, 1])
    hot = np.stack([labels == 0, labels == 1]).astype(float)
    np.testing.assert_allclose(ask(units=labels), hot @ whole @ hot.T, **same)
    np.testing.assert_allclose(ask(rows="all", chunk=2), whole, **same)


def test_softplus_for_relus_is_the_smooth_network():
    def smooth(params, x):
        return jax.nn.softplus(4 * (x @ params[0])) / 4 @ params[1]

    def kinked(params, x):
        return jax.nn.relu(x @ params[0]) @ params[1]

    explain = interactions.integrated_hessians(kinked, beta=4.0, target=0)
    expected = interactions.integrated_hessians(smooth, target=0)(PARAMS, X)
    np.testing.assert_allclose(jax.jit(explain)(PARAMS, X), expected, rtol=1e-8)
    with pytest.raises(ValueError, match="f: it is not twice differentiable"):
        interactions.integrated_hessians(kinked)(PARAMS, X)
    # Without curvature all is on the diagonal.
    left = interactions.integrated_hessians(kinked, beta=np.inf)(PARAMS, X)
    np.testing.assert_allclose(left - np.diag(np.diag(left)), 0, atol=1e-12)


def test_interactions_of_a_network_with_max_pooling_add_up():
    draw = np.random.default_rng(8)
    kernel, out = draw.normal(size=(6, 8)), draw.normal(size=4)
    x = jnp.asarray(draw.normal(size=6))

    def pooled(x, over):
        return over((x @ kernel).reshape(4, 2)) @ out

    def smooth(x):
        return pooled(x, lambda h: jax.nn.logsumexp(2.0 * h, -1) / 2)

    f = lambda x: pooled(x, lambda h: h.max(-1))  # noqa: E731
    with pytest.raises(ValueError, match="not twice differentiable"):
        interactions.integrated_hessians(f)(x)
    found = interactions.integrated_hessians(f, beta=2.0, nodes=32)(x)
    np.testing.assert_allclose(found.sum(), smooth(x) - smooth(0 * x), rtol=1e-5)
    expected = interactions.integrated_hessians(smooth, nodes=32)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found - np.diag(np.diag(found))).max() > 0.01


def test_examples_and_parameters_are_mapped_over():
    xs = RNG.normal(size=(3, 5))
    found = jax.jit(jax.vmap(interactions.integrated_hessians(mlp), (None, 0)))
    single = interactions.integrated_hessians(mlp)(PARAMS, xs[2])
    np.testing.assert_allclose(found(PARAMS, xs)[2], single, rtol=1e-9)


# ---- expected Hessians -------------------------------------------------------------


@pytest.mark.always
def test_expected_hessians_of_one_reference_tend_to_the_integrated():
    b = RNG.normal(size=5)
    explain = interactions.expected_hessians(mlp, KEY, b[None], samples=4000, chunk=999)
    expected = interactions.integrated_hessians(mlp, b)(PARAMS, X)
    found = jax.jit(explain)(PARAMS, X)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())


def test_expected_hessians_average_over_references():
    """Of a quadratic form the draw on the way does not matter off the diagonal."""
    references = jnp.array([[0.0, 0.0], [2.0, 4.0]])
    explain = interactions.expected_hessians(
        lambda x: x[0] * x[1], KEY, references, samples=8000, chunk=8000, pairs=(0, 1)
    )
    # a c d1 d2 with mean(a c) = 1/4: for (4, 3) from (0, 0) 3, from (2, 4) -1/2.
    found = jax.jit(explain)(jnp.array([4.0, 3.0]))
    np.testing.assert_allclose(found, (3 - 0.5) / 2, atol=0.1)


# ---- second order with rules -------------------------------------------------------


@pytest.mark.always
def test_lrp_hessian_is_the_change_of_relevance():
    composite = composites.Uniform(rules.Gamma(0.3))
    explain = jax.jit(interactions.lrp_hessian(relu_network, composite, target=2))
    found = explain(X)
    relevance = jax.jit(jaxlrp.lrp(relu_network, composite, target=2))
    step = 1e-6
    for j in range(5):
        e = step * np.eye(5)[j]
        slope = (relevance(X + e) - relevance(X - e)) / (2 * step)
        np.testing.assert_allclose(found[:, j], X[j] * slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rule", [rules.LRP0(), rules.Gamma(0.3), rules.ZPlus()])
def test_homogeneous_relevances_are_sums_of_what_they_depend_on(rule):
    """Euler: a relevance of degree one is `sum_j x_j dR_i / dx_j`."""
    composite = composites.Uniform(rule)
    found = jax.jit(interactions.lrp_hessian(relu_network, composite))(X)
    relevance = jax.jit(jaxlrp.lrp(relu_network, composite))(X)
    # The stabiliser of these rules, 1e-6, is of degree zero.
    np.testing.assert_allclose(found.sum(1), relevance, rtol=1e-4, atol=1e-9)
    aside = np.abs(found - np.diag(np.diag(found))).max()
    assert aside < 1e-9 if isinstance(rule, rules.LRP0) else aside > 0.01


def test_lrp_hessian_of_a_gradient_is_the_hessian():
    def f(x):
        return jnp.tanh(x @ W1) @ W2

    def score(x):
        return f(x)[1]

    plain = composites.Composite("plain").on("any", rules.Gradient())
    seed = lambda y: jnp.eye(3)[1]  # noqa: E731
    found = jax.jit(interactions.lrp_hessian(f, plain, target=seed))(X)
    expected = np.asarray(jax.hessian(score)(X)) * X
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_lrp_hessian_has_columns_units_and_a_baseline():
    composite = composites.Uniform(rules.Gamma(0.3))

    def ask(**options):
        return jax.jit(interactions.lrp_hessian(relu_network, composite, **options))(X)

    whole = ask()
    np.testing.assert_allclose(ask(columns=[4, 0]), whole[:, [4, 0]], rtol=1e-9)
    np.testing.assert_allclose(ask(columns=3, chunk=1), whole[:, 3], rtol=1e-9)
    moved = ask(baseline=X / 2)
    np.testing.assert_allclose(moved, whole / 2, rtol=1e-9)
    labels = np.array([1, 0, 1, 1, 0])
    hot = np.stack([labels == 0, labels == 1]).astype(float)
    np.testing.assert_allclose(ask(units=labels), hot @ whole @ hot.T, rtol=1e-9)


# ---- BiLRP as second order ---------------------------------------------------------


features = relu_network
LRP0 = composites.Uniform(rules.LRP0())


def test_bilrp_is_the_second_order_term_of_a_similarity():
    """Mixed terms, twice, at any root on the ray: `x_i y_j d2s / dx_i dy_j`."""
    y = RNG.normal(size=5)
    found = similarity.bilrp(features, LRP0)(X, y)
    scale = 0.25

    def score(both):
        return features(both[:5]) @ features(both[5:])

    both = np.concatenate([X, y])
    explain = taylor.taylor(score, root=scale * both, rows="all", beta=np.inf)
    second = jax.jit(explain)(both).interactions
    mixed = second[:5, 5:] + second[5:, :5].T
    np.testing.assert_allclose(mixed, (1 - scale) ** 2 * found, rtol=1e-7, atol=1e-9)


def test_pairs_of_a_quadratic_form_are_the_hessian_times_the_inputs():
    form = RNG.normal(size=(3, 3))

    def head(h):
        return h @ form @ h

    found = jax.jit(interactions.bilrp(features, head, LRP0))(X)
    hessian = np.asarray(jax.hessian(lambda x: head(features(x)))(X))
    np.testing.assert_allclose(found.relevance, X[:, None] * hessian * X / 2, rtol=1e-8)
    np.testing.assert_allclose(found.relevance.sum(), head(features(X)), rtol=1e-9)
    np.testing.assert_allclose(found.residual, 0, atol=1e-9)


def test_pairs_of_one_score_contain_the_similarity():
    y = RNG.normal(size=5)

    def both(x, y):
        return jnp.concatenate([features(x), features(y)])

    composite = composites.Uniform(rules.Gamma(0.3))
    expected = similarity.bilrp(features, composite)(X, y)
    stacked = interactions.bilrp(
        lambda v: both(v[0], v[1]), lambda h: h[:3] @ h[3:], composite
    )
    found = stacked(jnp.stack([X, y])).relevance
    np.testing.assert_allclose(2 * found[0, :, 1], expected, rtol=1e-9)
    np.testing.assert_allclose(found[0, :, 0], 0, atol=1e-12)
    squared = interactions.bilrp(features, lambda h: h @ h, composite)(X)
    same = similarity.bilrp(features, composite)(X, X)
    np.testing.assert_allclose(squared.relevance, same, rtol=1e-9)


def test_what_is_no_quadratic_form_is_left():
    b = np.array([1.0, -2.0, 0.5])

    def head(h):
        return h @ h + b @ h + 3

    found = interactions.bilrp(features, head, LRP0)(X)
    np.testing.assert_allclose(found.residual, b @ features(X) + 3, rtol=1e-9)
    reduced = interactions.bilrp(features, head, LRP0, reduce=lambda r: r[:2])(X)
    np.testing.assert_allclose(reduced.relevance, found.relevance[:2, :2], rtol=1e-9)


def test_heads_are_checked():
    with pytest.raises(ValueError, match=r"^head: it returned .*expected one number"):
        interactions.bilrp(features, lambda h: h)(X)
    with pytest.raises(TypeError, match="^head: got 3"):
        interactions.bilrp(features, 3)


# ---- sets of units -----------------------------------------------------------------


def value(present, x, b):
    """A game of four units; not differentiable."""
    z = np.where(present, x, b)
    return float(z[0] * z[1] * z[2] + max(z[3], z[0]) + 0.5 * z[1])


def game(x):
    return x[0] * x[1] * x[2] + jnp.maximum(x[3], x[0]) + 0.5 * x[1]


GAME_X, GAME_B = np.array([1.0, 2.0, -1.0, 3.0]), np.array([0.5, -1.0, 2.0, 0.0])


def by_set():
    return {
        s: value([i in s for i in range(4)], GAME_X, GAME_B)
        for size in range(5)
        for s in itertools.combinations(range(4), size)
    }


def subsets(s):
    return itertools.chain.from_iterable(
        itertools.combinations(s, n) for n in range(len(s) + 1)
    )


@pytest.mark.parametrize("chunk", [3, 64])
def test_dividends_by_inclusion_and_exclusion(chunk):
    values = by_set()
    explain = interactions.harsanyi(game, GAME_B, chunk=chunk)
    found = jax.jit(explain)(GAME_X)
    assert found.units == 4
    for s in values:
        own = sum((-1) ** (len(s) - len(u)) * values[u] for u in subsets(s))
        np.testing.assert_allclose(found.of(*s), own, atol=1e-12)
        total = sum(found.of(*u) for u in subsets(s))
        np.testing.assert_allclose(total, values[s], atol=1e-12)


@pytest.mark.always
@pytest.mark.parametrize("order", [1, 2, 3])
def test_shapley_taylor_by_its_definition(order):
    """Sundararajan et al. 2020, equation 3: discrete derivatives over all sets."""
    values = by_set()
    found = interactions.shapley_taylor(game, GAME_B, order=order)(GAME_X)

    def derivative(s, t):
        return sum(
            (-1) ** (len(s) - len(u)) * values[tuple(sorted({*t, *u}))]
            for u in subsets(s)
        )

    for s in values:
        if len(s) < order:
            expected = derivative(s, ())
        elif len(s) == order:
            others = [i for i in range(4) if i not in s]
            expected = (
                order
                / 4
                * sum(derivative(s, t) / math.comb(3, len(t)) for t in subsets(others))
            )
        else:
            expected = 0.0
        np.testing.assert_allclose(found.of(*s), expected, atol=1e-12)
    np.testing.assert_allclose(found.values.sum(), values[0, 1, 2, 3])


def test_order_one_is_the_shapley_value():
    values = by_set()
    found = interactions.shapley_taylor(game, GAME_B, order=1)(GAME_X)
    for i in range(4):
        gains = []
        for order in itertools.permutations(range(4)):
            before = tuple(sorted(order[: order.index(i)]))
            gains.append(values[tuple(sorted({*before, i}))] - values[before])
        np.testing.assert_allclose(found.of(i), np.mean(gains))


def test_a_product_is_all_on_the_pair():
    """Integrated Hessians have a quarter of it there."""
    found = interactions.shapley_taylor(lambda x: x[0] * x[1])(POINT)
    np.testing.assert_allclose(found.matrix(), [[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(found.of(0, 1), 2)


def test_sets_of_patches_and_of_labels():
    def f(x):
        return x[:2].sum() * x[2:].sum()

    x = jnp.arange(8.0).reshape(4, 2)
    found = jax.jit(interactions.harsanyi(f, units=(2, 1)))(x)
    np.testing.assert_allclose(found.values, [0, 0, 0, f(x)])
    labels = np.where(np.arange(8).reshape(4, 2) < 4, 0, -1)
    alone = interactions.harsanyi(f, units=labels)(x)
    np.testing.assert_allclose(alone.values, [0, f(x)])


@pytest.mark.whole
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interactions.integrated_hessians(mlp, nodes=0), "^nodes: "),
        (lambda: interactions.integrated_hessians(mlp, chunk=1.5), "^chunk: "),
        (
            lambda: interactions.integrated_hessians(mlp, quadrature="x"),
            "^quadrature: got 'x', expected one of gauss, gauss-legendre",
        ),
        (
            lambda: interactions.integrated_hessians(mlp, np.zeros(4))(PARAMS, X),
            r"^baseline: got shape \(4,\)",
        ),
        (
            lambda: interactions.expected_hessians(mlp, KEY, np.zeros((2, 4)))(
                PARAMS, X
            ),
            r"^references: got shape \(2, 4\)",
        ),
        (lambda: interactions.expected_hessians(mlp, 3, X[None]), "^key: got 3"),
        (
            lambda: interactions.expected_hessians(mlp, KEY, X[None], samples=0),
            "^samples: ",
        ),
        (
            lambda: interactions.lrp_hessian(mlp, columns=[5])(PARAMS, X),
            r"^columns: got \[5\]",
        ),
        (
            lambda: interactions.harsanyi(lambda x: x.sum())(np.zeros(21)),
            r"^units: got 21 units, whose .*bytes.*expected at most 20",
        ),
        (
            lambda: interactions.shapley_taylor(game, order=5)(GAME_X),
            "^order: got 5, expected at most the number of units, 4",
        ),
        (
            lambda: interactions.harsanyi(game)(GAME_X).of(4),
            r"^units: got \(4,\), expected numbers in \[0, 4\)",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_while_loops_have_no_second_derivative():
    def f(x):
        return jax.lax.while_loop(lambda h: h.sum() < 99, lambda h: 2 * h, x).sum()

    for explain in (interactions.integrated_hessians(f), taylor.taylor(f)):
        with pytest.raises(ValueError, match="^f: it has a while loop at"):
            explain(jnp.ones(2))
    with pytest.raises(ValueError, match="^f: it has a while loop at"):
        interactions.lrp_hessian(f)(jnp.ones(2))
    found = interactions.harsanyi(f, 0.5)(jnp.ones(2))
    np.testing.assert_allclose(found.values.sum(), f(jnp.ones(2)))


def steep(x):
    return jnp.tanh(40 * (x[0] * x[1] - 0.5)).sum()


def test_nodes_that_are_too_few_are_told_of():
    x = jnp.array([1.0, 1.0])
    with pytest.warns(errors.RelevanceWarning, match="3 nodes are too few"):
        interactions.integrated_hessians(steep, nodes=3)(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interactions.integrated_hessians(steep, nodes=100)(x)
        # Rows alone do not tell, and compiled nothing is known.
        interactions.integrated_hessians(steep, nodes=3, rows=0)(x)
        jax.jit(interactions.integrated_hessians(steep, nodes=3))(x)
