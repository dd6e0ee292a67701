"""Rules of what is no layer, against their formulas in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

A = jnp.array([3.0, -1.0, 0.5])
B = jnp.array([-1.0, 0.5, 0.25])
R = jnp.array([1.0, 2.0, -1.0])


def pull(f, composite, *xs, relevance=R):
    """The relevances of several arguments, for a given relevance of the output."""
    _, back = jaxlrp.relprop(lambda xs: f(*xs), xs, composite=composite, argnums=0)
    return jax.jit(back)(relevance)


def on(role, rule):
    return composites.AttnLRP().on(role, rule)


# ---- sums ----------------------------------------------------------------------------

SUMS = {
    "in proportion": (
        rules.Norm(0.0),
        ([1.5, 4.0, -2 / 3], [-0.5, -2.0, -1 / 3]),
    ),
    "by size": (
        rules.Absolute(0.0),
        ([0.75, 4 / 3, -2 / 3], [0.25, 2 / 3, -1 / 3]),
    ),
    "rescaled": (
        rules.Rescaled(0.0),
        ([0.3913043, 1.0434783, -0.1739130], [0.1304348, 0.5217391, 0.0869565]),
    ),
    "copied": (rules.Pass(), ([1.0, 2.0, -1.0], [1.0, 2.0, -1.0])),
    "as a gradient": (rules.Gradient(), ([1.0, 2.0, -1.0], [1.0, 2.0, -1.0])),
    "in halves": (rules.UniformSplit(), ([0.5, 1.0, -0.5], [0.5, 1.0, -0.5])),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", SUMS)
def test_conventions_of_a_residual_sum(name):
    rule, (a, b) = SUMS[name]
    found = pull(lambda a, b: a + b, on("sum", rule), A, B)
    np.testing.assert_allclose(found[0], a, rtol=1e-5)
    np.testing.assert_allclose(found[1], b, rtol=1e-5)


def test_a_difference_is_the_sum_with_the_negative():
    for rule in (rules.Absolute(0.0), rules.Rescaled(0.0), rules.Norm(0.0)):
        difference = pull(lambda a, b: a - b, on("sum", rule), A, B)
        total = pull(lambda a, b: a + b, on("sum", rule), A, -B)
        for d, t in zip(difference, total, strict=True):
            np.testing.assert_allclose(d, t, rtol=1e-6)


def test_an_operand_that_is_added_twice_gets_both_parts():
    (found,) = pull(lambda a: a + a, on("sum", rules.Absolute(0.0)), A)
    np.testing.assert_allclose(found, R, rtol=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_rescaled_sum_of_low_precision(dtype):
    (found,) = pull(
        lambda x: (x.astype(dtype) + x.astype(dtype)).astype(x.dtype),
        on("sum", rules.Rescaled()),
        A,
    )
    np.testing.assert_allclose(found, R, rtol=1e-2)


def test_zero_operands_have_their_share_where_the_rule_gives_one():
    zero = jnp.zeros(3)
    found = pull(lambda a, b: a + b, on("sum", rules.UniformSplit()), A, zero)
    np.testing.assert_allclose(found[1], R / 2)


def test_a_constant_keeps_its_part_by_size():
    c = jnp.array([1.0, 4.0, 0.5])
    (shift,) = pull(lambda a: a + c, on("shift", rules.Absolute(0.0)), A)
    (scale,) = pull(lambda a: a * c, on("scale", rules.Absolute(0.0)), A)
    expected = np.abs(A) / (np.abs(A) + np.abs(c)) * R
    np.testing.assert_allclose(shift, expected, rtol=1e-6)
    np.testing.assert_allclose(scale, expected, rtol=1e-6)


def test_a_product_by_the_size_of_its_factors():
    found = pull(lambda a, b: a * b, on("product", rules.Absolute(0.0)), A, B)
    np.testing.assert_allclose(found[0], R * abs(A) / (abs(A) + abs(B)), rtol=1e-6)
    np.testing.assert_allclose(sum(found), R, rtol=1e-6)


def test_half_of_a_product_may_be_stabilised():
    rule = rules.UniformSplit(1e-2, stabiliser="plain")
    found = pull(lambda a, b: a * b, on("product", rule), A, B)
    expected = A * B / (2 * A * B + 1e-2) * R
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    np.testing.assert_allclose(found[1], expected, rtol=1e-5)


# ---- averages and selections ---------------------------------------------------------

X = jnp.array([1.0, -2.0, 3.0, 0.5])
TWO = jnp.ones(2)


def pairs(x):
    return x.reshape(2, 2)


AVERAGES = {
    "in proportion": (rules.Norm(0.0), [-1.0, 2.0, 6 / 7, 1 / 7]),
    "evenly": (rules.Flat(0.0), [0.5, 0.5, 0.5, 0.5]),
    "as a gradient": (rules.Gradient(), [0.5, 0.5, 0.5, 0.5]),
    "by size": (rules.Absolute(0.0), [1 / 3, 2 / 3, 6 / 7, 1 / 7]),
    # Pairs add up to -1 and 3.5.
    "epsilon of the mean": (rules.Norm(0.5), [-0.5, 1.0, 3 / 4.5, 0.5 / 4.5]),
    "epsilon of the sum": (
        rules.Norm(0.5, unscaled=True),
        [-1 / 1.5, 2 / 1.5, 3 / 4, 0.5 / 4],
    ),
    "by signs": (rules.AlphaBeta(2.0, 1.0, epsilon=0.0), [2, -1, 2 * 6 / 7, 2 / 7]),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", AVERAGES)
def test_conventions_of_an_average(name):
    rule, expected = AVERAGES[name]
    (found,) = pull(lambda x: pairs(x).mean(-1), on("average", rule), X, relevance=TWO)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_signs_of_a_negative_average_are_those_of_what_it_adds():
    """`-mean(x)`: what was positive in `x` is a negative contribution."""
    rule = rules.AlphaBeta(2.0, 1.0, epsilon=0.0)
    (found,) = pull(lambda x: -pairs(x).mean(-1), on("average", rule), X, relevance=TWO)
    np.testing.assert_allclose(found, [-1, 2, -6 / 7, -1 / 7], rtol=1e-6)


def test_an_average_without_negative_contributions_has_alpha_times_its_relevance():
    rule = rules.AlphaBeta(2.0, 1.0)
    (found,) = pull(
        lambda x: lax.reduce_window(jax.nn.relu(x), 0.0, lax.add, (2,), (2,), "VALID"),
        on("average", rule),
        jnp.abs(X),
        relevance=TWO,
    )
    np.testing.assert_allclose(found.sum(), 4.0, rtol=1e-5)


def pool(x, **options):
    return lax.reduce_window(x, -jnp.inf, lax.max, (3,), (2,), **options)


def test_max_pooling_in_proportion_to_what_it_chooses_between():
    x = jnp.array([1.0, 2.0, 3.0, 4.0, 1.0])
    (found,) = pull(
        lambda x: pool(x, padding="VALID"),
        on("selection", rules.Norm(0.0)),
        x,
        relevance=TWO,
    )
    first, second = np.array([1, 2, 3, 0, 0]) / 6, np.array([0, 0, 3, 4, 1]) / 8
    np.testing.assert_allclose(found, first + second, rtol=1e-6)


def test_max_pooling_evenly():
    x = jnp.array([1.0, 2.0, 0.0, 4.0, 1.0])
    f = lambda x: pool(x, padding="VALID")  # noqa: E731
    (found,) = pull(f, on("selection", rules.Flat(0.0)), x, relevance=TWO)
    np.testing.assert_allclose(found, np.array([1, 1, 2, 1, 1]) / 3, rtol=1e-6)


def test_padding_is_no_candidate():
    x = jnp.array([1.0, 2.0, 3.0])
    relevance = jnp.ones(3)
    f = lambda x: lax.reduce_window(  # noqa: E731
        x, -jnp.inf, lax.max, (3,), (1,), padding=((1, 1),)
    )
    for rule in (
        rules.Norm(0.0),
        rules.Flat(0.0),
        rules.WinnerTakesAll(ties="share"),
    ):
        (found,) = pull(f, on("selection", rule), x, relevance=relevance)
        np.testing.assert_allclose(found.sum(), 3.0, rtol=1e-6)


def test_ties_can_be_shared():
    x = jnp.array([2.0, 2.0, 1.0, 0.0, 0.0])
    f = lambda x: pool(x, padding="VALID")  # noqa: E731
    shared = on("selection", rules.WinnerTakesAll(ties="share"))
    (found,) = pull(f, shared, x, relevance=TWO)
    np.testing.assert_allclose(found, [0.5, 0.5, 1.0, 0.0, 0.0])
    (found,) = pull(f, on("selection", rules.WinnerTakesAll()), x, relevance=TWO)
    np.testing.assert_allclose(found, [1.0, 0.0, 1.0, 0.0, 0.0])


def test_a_maximum_over_axes_in_proportion():
    x = jnp.arange(1.0, 9.0).reshape(2, 2, 2)
    (found,) = pull(
        lambda x: x.max((0, 2)), on("selection", rules.Norm(0.0)), x, relevance=TWO
    )
    np.testing.assert_allclose(found, x / x.sum((0, 2))[:, None], rtol=1e-6)


def test_a_selection_without_candidates_says_so():
    composite = on("selection", rules.Norm())
    with pytest.raises(TypeError, match="maximum or minimum over axes"):
        pull(jnp.sort, composite, A)
    with pytest.raises(TypeError, match="'top_k' at .*maximum or minimum over axes"):
        pull(lambda x: lax.top_k(x, 2)[0], composite, A, relevance=R[:2])


def test_masked_elements_are_no_candidates():
    """`jnp.max(where=)` fills with -inf."""
    mask = jnp.array([True, False, True])
    for rule, wanted in (
        (rules.Norm(0.0), [3.0, 0.0, 1.0]),
        (rules.Flat(0.0), [2.0, 0.0, 2.0]),
        (rules.WinnerTakesAll(ties="share"), [4.0, 0.0, 0.0]),
    ):
        (found,) = pull(
            lambda x: jnp.max(x, where=mask, initial=-jnp.inf),
            on("selection", rule),
            jnp.array([3.0, 9.0, 1.0]),
            relevance=jnp.array(4.0),
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


# ---- activations ---------------------------------------------------------------------


ACTIVATIONS = {
    "as a gradient": (rules.Gradient(), lambda x, r: (x > 0) * r),
    "guided": (rules.Guided(), lambda x, r: (x > 0) * np.maximum(r, 0)),
    "deconvnet": (rules.Deconv(), lambda x, r: np.maximum(r, 0)),
    "smooth": (rules.BetaSmooth(10.0), lambda x, r: r / (1 + np.exp(-10 * x))),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_rectifiers_of_the_gradient_methods(name):
    rule, formula = ACTIVATIONS[name]
    # Units that are on and off, each with relevance of both signs.
    x = jnp.array([0.5, 0.75, -0.1, -0.2, 0.0])
    r = jnp.array([1.0, -3.0, 2.0, -0.5, -1.0])
    (found,) = pull(jax.nn.relu, on("activation", rule), x, relevance=r)
    np.testing.assert_allclose(found, formula(np.asarray(x), np.asarray(r)), rtol=1e-5)


def test_gradient_everywhere_is_the_gradient():
    """Relevance that is treated as a gradient, against JAX's own."""
    with jax.enable_x64(True):
        key = jax.random.key(0)
        w, v = jax.random.normal(key, (5, 4)), jax.random.normal(key, (4, 3))
        x = jax.random.normal(key, (2, 5))

        def f(x):
            h = jnp.tanh(x @ w + 0.3) * 2.0
            h = h + jax.nn.relu(h)
            return jax.nn.softmax((h - h.mean(-1, keepdims=True)) @ v)

        composite = composites.Composite("gradient").on("any", rules.Gradient())
        out, back = jaxlrp.relprop(f, x, composite=composite)
        _, transpose = jax.vjp(f, x)
        seed = jax.random.normal(key, out.shape)
        np.testing.assert_allclose(back(seed), transpose(seed)[0], rtol=1e-9)


def test_expansion_at_a_root():
    """`(x - r) f'(r) R / y`, element by element."""
    root = jnp.array([0.5, 0.25, -1.0])
    (found,) = pull(jnp.exp, on("activation", rules.Taylor(root, epsilon=0.0)), A)
    np.testing.assert_allclose(found, (A - root) * jnp.exp(root) * R / jnp.exp(A), 1e-5)


def test_expansion_of_a_layer_at_its_root_is_exact():
    """With `W r + b = 0` nothing is absorbed, the bias included."""
    with jax.enable_x64(True):
        w, b = jnp.array([[1.0], [2.0], [-1.0]]), jnp.array([0.5])
        x = jnp.array([1.0, 0.5, 0.25])
        v = w[:, 0]
        root = x - (x @ w + b)[0] / (v @ v) * v
        composite = on("dense", rules.Taylor(root, epsilon=0.0))
        found = jaxlrp.lrp(lambda x: x @ w + b, composite, target="all")(x)
        np.testing.assert_allclose(found.sum(), (x @ w + b)[0], rtol=1e-12)


# ---- normalisations ------------------------------------------------------------------


def layer_norm(x, shift=(0.1, -0.2, 0.3)):
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    scale = jnp.array([2.0, 1.0, 0.5])
    return (x - mean) * lax.rsqrt(var + 1e-5) * scale + jnp.array(shift)


def fast_norm(x):
    """The variance as the difference of two averages, a group axis, other weights."""
    y = x.reshape(1, 3)
    mean, square = y.mean(-1, keepdims=True), (y * y).mean(-1, keepdims=True)
    scale = lax.rsqrt(square - mean * mean + 1e-6) * jnp.array([2.0, 1.0, 0.5])
    return ((y - mean) * scale).reshape(3)


def rms_norm(x):
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * jnp.arange(1.0, 4.0)


NORMS = {"layer": layer_norm, "fast": fast_norm, "rms": rms_norm}


@pytest.mark.whole
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_identity_on_a_whole_norm(norm):
    """The weights behind it belong to it, wherever the fast one has its reshape."""
    (found,) = pull(norm, on("normaliser", rules.Pass()), A)
    np.testing.assert_allclose(found, R, rtol=1e-6)


def test_identity_on_a_norm_reaches_zeros():
    x = jnp.array([0.0, 1.0, 2.0])
    (found,) = pull(layer_norm, on("normaliser", rules.Pass()), x)
    np.testing.assert_allclose(found, R, rtol=1e-6)


def test_all_statistics_held():
    """`R_x = x R / (x - mean)` but for the share of the shift."""
    composite = on("normaliser", rules.Detach(mean=True))
    for norm in (lambda x: layer_norm(x, shift=(0, 0, 0)), fast_norm):
        (found,) = pull(norm, composite, A)
        np.testing.assert_allclose(found, A * R / (A - A.mean()), rtol=1e-4)


def test_held_statistics_absorb_the_shift():
    composite = on("normaliser", rules.Detach(mean=True))
    y, scale = layer_norm(A), np.array([2.0, 1.0, 0.5])
    std = np.sqrt(np.var(A) + 1e-5)
    (found,) = pull(layer_norm, composite, A)
    np.testing.assert_allclose(found, A * scale / std * R / y, rtol=1e-5)


def test_mean_that_is_read_elsewhere_too():
    def f(x):
        mean = x.mean(-1, keepdims=True)
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(var + 1e-5), mean

    composite = on("normaliser", rules.Pass())
    (found,) = pull(f, composite, A, relevance=(R, jnp.zeros(1)))
    np.testing.assert_allclose(found, R, rtol=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize("masked", [False, True])
def test_identity_on_softmax(masked):
    def f(x):
        x = jnp.where(jnp.array([True, True, not masked]), x, -jnp.inf)
        return jax.nn.softmax(x)

    seed = jnp.array([1.0, 2.0, 0.0])
    (found,) = pull(f, on("softmax", rules.Pass()), A, relevance=seed)
    np.testing.assert_allclose(found, seed, rtol=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize("f", [jax.nn.log_softmax, jax.nn.logsumexp])
def test_pieces_of_a_softmax_keep_their_derivative(f):
    """The identity is one on a whole softmax; a logarithm of it has another shape."""
    seed = jnp.array([1.0, 2.0, -1.0]) if f is jax.nn.log_softmax else jnp.array(2.0)
    found = pull(f, on("softmax", rules.Pass()), A, relevance=seed)
    wanted = pull(f, on("softmax", rules.Taylor()), A, relevance=seed)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


# ---- batch norms ---------------------------------------------------------------------

MEAN, VAR = jnp.array([0.5, -0.5, 0.1]), jnp.array([1.0, 4.0, 0.25])
SCALE, SHIFT = jnp.array([2.0, -1.0, 0.5]), jnp.array([0.1, 0.2, 0.3])


def batch_norm(x):
    return (x - MEAN) * lax.rsqrt(VAR + 1e-5) * SCALE + SHIFT


def test_conventions_of_a_batch_norm():
    y = batch_norm(A)
    factor = SCALE * lax.rsqrt(VAR + 1e-5)
    for rule, expected in (
        (rules.Pass(), R),
        (rules.LRP0(), A * factor * R / y),
        (rules.Epsilon(1e-9), A * factor * R / y),
        (rules.Merge(), A * factor * R / y),
        (rules.Gradient(), factor * R),
        (rules.Detach(), jnp.zeros(3)),
    ):
        (found,) = pull(batch_norm, on("batch_norm", rule), A)
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=str(rule))


@pytest.mark.whole
@pytest.mark.parametrize("bias", [False, True])
def test_batch_norm_behind_a_layer_leaves_it_its_own_bias(bias):
    with jax.enable_x64(True):
        w = jnp.array([[1.0, 0.5, -1.0], [0.25, 2.0, 1.0]])
        b = jnp.array([0.3, -0.2, 0.1]) * bias
        x = jnp.array([1.0, -0.5])

        def f(x):
            h = x @ w
            h = h + b if bias else h
            return batch_norm(h)

        composite = composites.Uniform(rules.Epsilon(0.0)).on(
            "batch_norm", rules.Pass()
        )
        (found,) = pull(f, composite, x)
        expected = x * (w @ (R / (x @ w + b)))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        roles = [r.role for r in jaxlrp.plan(f, composite)(x).rows]
        assert roles == ["dense", "batch_norm"]


def test_batch_norm_is_told_from_a_bias_and_a_scale():
    """A bias in front of a lone scale (layer scale) is the layer's."""
    w = jnp.ones((2, 3))
    composite = composites.AttnLRP().on("batch_norm", rules.Pass())
    f = lambda x: (x @ w + SHIFT) * SCALE  # noqa: E731
    rows = jaxlrp.plan(f, composite)(jnp.ones(2)).rows
    assert [(r.role, r.primitives) for r in rows] == [
        ("dense", ("dot_general", "add")),
        ("batch_norm", ("mul",)),
    ]


# ---- the filter ----------------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize("inner", [rules.LRP0(), rules.Epsilon(0.0), rules.Flat(0.0)])
def test_only_the_largest_relevances_pass(inner):
    with jax.enable_x64(True):
        w = jax.random.normal(jax.random.key(0), (3, 8))
        r = jnp.array([0.1, -5.0, 3.0, 0.2, -4.0, 1.0, 0.3, 0.0])
        x = jnp.array([1.0, 2.0, 3.0])
        kept = jnp.where(jnp.abs(r) >= 3.0, r, 0.0)

        def explain(rule, r):
            return pull(lambda x: x @ w, on("dense", rule), x, relevance=r)[0]

        found = explain(rules.TopK(inner, 3 / 8), r)
        np.testing.assert_allclose(found, explain(inner, kept), rtol=1e-9)
        whole = explain(rules.TopK(inner, 1.0), r)
        np.testing.assert_allclose(whole, explain(inner, r), rtol=1e-9)


def test_a_filter_ranks_each_example_apart():
    w = jnp.ones((2, 4))
    x = jnp.ones((2, 2))
    r = jnp.array([[4.0, 3.0, 2.0, 1.0], [40.0, 30.0, 20.0, 10.0]])
    composite = on("dense", rules.TopK(rules.Flat(), 0.5))
    (found,) = pull(lambda x: x @ w, composite, x, relevance=r)
    np.testing.assert_allclose(found.sum(-1), [7.0, 70.0], rtol=1e-5)


def test_a_filter_of_a_rule_that_the_role_has_not():
    with pytest.raises(TypeError, match="dense"):
        composites.AttnLRP().on("dense", rules.TopK(rules.Guided()))
    with pytest.raises(TypeError, match="rule: got TopK"):
        rules.TopK(rules.TopK())


@pytest.mark.whole
@pytest.mark.parametrize("keep", [0, -0.5, 3])
def test_a_filter_that_keeps_no_fraction(keep):
    with pytest.raises(ValueError, match=f"keep: got {keep}"):
        rules.TopK(rules.Flat(), keep)


# ---- transformations -----------------------------------------------------------------

COMPOSITES = {
    "gradient": composites.Composite("g").on("any", rules.Gradient()),
    "absolute": on("sum", rules.Absolute()).on("average", rules.Absolute()),
    "rescaled": on("sum", rules.Rescaled()),
    "pass": on("normaliser", rules.Pass()).on("softmax", rules.Pass()),
}


def network(x):
    h = x + jnp.tanh(x)
    h = layer_norm(h)
    return jax.nn.softmax(h) + h.mean(-1, keepdims=True)


@pytest.mark.parametrize("name", COMPOSITES)
def test_transformations_apply(name):
    """vmap is each example on its own; the derivative is the finite difference's."""
    with jax.enable_x64(True):
        xs = jax.random.normal(jax.random.key(1), (2, 3))

        def explain(x):
            return jaxlrp.lrp(network, COMPOSITES[name], target="all")(x)

        mapped = jax.jit(jax.vmap(explain))(xs)
        np.testing.assert_allclose(
            mapped, jnp.stack([explain(x) for x in xs]), rtol=1e-9, atol=1e-12
        )
        score = lambda x: (explain(x) ** 2).sum()  # noqa: E731
        direction = jnp.array([0.3, -0.2, 0.5])
        slope = jax.grad(score)(xs[0]) @ direction
        step = 1e-6
        ends = [score(xs[0] + s * step * direction) for s in (1, -1)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-5)


@pytest.mark.always
@pytest.mark.parametrize("name", COMPOSITES)
def test_rules_hold_inside_a_loop(name):
    xs = jnp.array([0.5, -1.0, 2.0])

    def looped(x):
        return lax.scan(lambda c, _: (network(c), None), x, length=2)[0]

    def unrolled(x):
        return network(network(x))

    explain = [
        jaxlrp.lrp(f, COMPOSITES[name], target="all")(xs) for f in (looped, unrolled)
    ]
    np.testing.assert_allclose(explain[0], explain[1], rtol=1e-4, atol=1e-6)


def test_a_filter_keeps_as_many_under_jit():
    """Relevances that are worked out twice may differ in the last digit."""
    x = jax.random.normal(jax.random.key(0), (32, 6))
    w, v = (jax.random.normal(jax.random.key(i), (6, 6)) for i in (1, 2))

    def f(x):
        return jax.nn.gelu(jax.nn.standardize(jax.nn.relu(x @ w) @ v))

    composite = composites.Uniform(rules.TopK(rules.Epsilon(), 0.5))
    explain = jaxlrp.lrp(f, composite, target="all")
    np.testing.assert_allclose(jax.jit(explain)(x), explain(x), rtol=1e-4, atol=1e-5)


def test_activation_that_ends_in_another_precision():
    """`tanh` in float32, rounded for a sum in bfloat16: multipliers keep their type."""
    x, w = jnp.array([0.5, -1.0, 2.0]), jnp.eye(3)[::-1] * 0.7

    def f(x):
        branch = jnp.tanh(x @ w).astype(jnp.bfloat16)
        return (x.astype(jnp.bfloat16) + branch).astype(x.dtype)

    found = jaxlrp.lrp(f, on("sum", rules.UniformSplit()), target="all")(x)
    y = x.astype(jnp.bfloat16) + jnp.tanh(x @ w).astype(jnp.bfloat16)
    wanted = (y + y[::-1]) / 2
    np.testing.assert_allclose(found, wanted.astype(jnp.float32), rtol=2e-2)


# ---- rules of a user's own -----------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Evenly(rules.RelevanceRule):
    """All elements of an operand get the same."""

    def relevances(self, operation, R):  # noqa: N803
        parts = R.sum() / len(operation.xs)
        return tuple(jnp.full(x.shape, parts / x.size) for x in operation.xs)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("role", "f"),
    [
        ("dense", lambda x: x @ jnp.ones((3, 2))),
        ("activation", jnp.tanh),
        ("softmax", lambda x: jax.nn.softmax(x, axis=0).sum()),
        ("selection", jnp.max),
        ("average", jnp.mean),
        ("sum", lambda x: x + x[::-1]),
        ("batch_norm", lambda x: x * jnp.arange(1.0, 4.0) + jnp.arange(3.0)),
    ],
)
def test_a_users_rule_suits_any_role(role, f):
    out = f(A)
    (found,) = pull(f, on(role, Evenly()), A, relevance=jnp.ones(jnp.shape(out)))
    if role != "softmax":  # in pieces, each of which is shared out
        np.testing.assert_allclose(found, np.full(3, np.size(out) / 3), rtol=1e-6)
    assert np.isfinite(found).all()


def test_a_masked_score_has_no_relevance_beside_it():
    """It is minus infinite and receives nothing: zero, and not NaN."""
    mask = jnp.array([0.0, -jnp.inf, 0.0])
    composite = composites.AttnLRP().on("shift", rules.Absolute())
    explain = jaxlrp.lrp(lambda x: jax.nn.softmax(x + mask), composite, target=0)
    assert np.isfinite(explain(jnp.array([1.0, 2.0, -1.0]))).all()


def test_padding_is_no_tie_of_a_zero():
    """The window's maximum is zero, as the padding would be."""
    pool = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (3,), (3,), [(1, 1)])  # noqa: E731
    x = jnp.array([0.0, -1.0, 0.0, 0.0])
    composite = on("selection", rules.WinnerTakesAll(ties="share"))
    _, relevance = jaxlrp.relprop(pool, x, composite=composite)
    np.testing.assert_allclose(relevance(jnp.array([2.0, 3.0])), [2.0, 0.0, 1.5, 1.5])


def test_a_fraction_of_the_relevances_is_rounded_up_and_at_least_one():
    w = jnp.array([[1.0, -2.0, 4.0, 8.0]])
    for keep, kept in ((0.01, 8.0), (0.25, 8.0), (0.3, 12.0), (0.7, 10.0), (1.0, 11.0)):
        composite = on("dense", rules.TopK(rules.Epsilon(0.0), keep))
        found = jaxlrp.lrp(lambda x: x @ w, composite, target="all")(jnp.ones(1))
        np.testing.assert_allclose(found, [kept], rtol=1e-6)


# ---- nothing times an infinite factor ------------------------------------------------


def where_not_zero(divisor):
    """`x / divisor(x)`, and zero where that is zero."""

    def f(x):
        s = divisor(x)
        return jnp.where(s == 0, 0, x / s)

    return f


MASKED = {
    "sum of sizes": where_not_zero(lambda x: jnp.abs(x).sum(-1, keepdims=True)),
    "norm": where_not_zero(lambda x: jnp.linalg.norm(x, axis=-1, keepdims=True)),
    "root": where_not_zero(lambda x: jnp.sqrt((x * x).sum(-1, keepdims=True))),
    "factor": lambda x: jnp.where(
        x == 0, 0, x * jax.lax.rsqrt((x * x).sum(-1, keepdims=True))
    ),
    "reciprocal": lambda x: jnp.where(
        x == 0, 0, x * (1 / jnp.abs(x).sum(-1, keepdims=True))
    ),
    "range": lambda x: jnp.where(
        x.max(-1, keepdims=True) == x.min(-1, keepdims=True),
        0,
        (x - x.min(-1, keepdims=True))
        / (x.max(-1, keepdims=True) - x.min(-1, keepdims=True)),
    ),
    "deviation": lambda x: jnp.nan_to_num(
        (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    ),
    "elementwise": lambda x: jnp.where(x == 0, 0, jnp.sin(x) / x),
    "another element": where_not_zero(lambda x: x[:, ::-1]),
}


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize(
    "composite",
    [
        None,
        composites.AttnLRP(),
        composites.CPLRP(),
        composites.EpsilonPlus(),
        composites.Uniform(rules.Flat()),
        composites.AttnLRP().on("normaliser", rules.Detach(mean=True)),
    ],
)
def test_a_divisor_that_is_zero_and_masked_makes_no_nan(name, composite):
    rows = jnp.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    f = MASKED[name]
    explain = jaxlrp.lrp(f, composite, target="all")
    found = explain(rows)
    assert np.isfinite(found).all()
    # A row that is masked changes nothing for the other one.
    np.testing.assert_allclose(found[0], explain(rows[:1])[0], rtol=1e-5, atol=1e-6)


# ---- classes that are no dataclasses -----------------------------------------------


def test_a_rule_without_numbers_need_not_be_a_dataclass():
    class Halves(rules.RelevanceRule):
        def relevances(self, operation, R):
            return tuple(R / len(operation.xs) for _ in operation.xs)

    composite = composites.AttnLRP().on("sum", Halves())
    explain = jaxlrp.lrp(lambda x: x[0] + x[1], composite, target="all")
    x = jnp.array([1.0, 3.0])
    assert explain(x).tolist() == [2.0, 2.0]
    assert jax.jit(explain)(x).tolist() == [2.0, 2.0]
    again = composites.AttnLRP().on("sum", Halves())
    assert jax.tree.structure(again) == jax.tree.structure(composite)


def test_a_rule_made_from_another_has_its_numbers():
    class Doubled(rules.Epsilon):
        def shares(self, layer):
            (share,) = super().shares(layer)
            return (dataclasses.replace(share, part=2.0),)

    w, x = jnp.array([1.0, 2.0]), jnp.array([1.0, 3.0])
    composite = composites.Uniform(Doubled(1.0))
    assert jax.tree.leaves(composite) == [1.0]
    found = jaxlrp.lrp(lambda x: x @ w, composite)(x)
    np.testing.assert_allclose(found, 2 * 7 / 8 * np.array([1.0, 6.0]), rtol=1e-6)
    assert jax.tree.leaves(composites.Uniform(rules.TopK(Doubled(2.0)))) == [2.0, 0.5]


def test_a_rule_with_attributes_of_its_own_is_a_dataclass():
    class Part(rules.RelevanceRule):
        def __init__(self, part):
            self.part = part

    with pytest.raises(TypeError, match="make Part a frozen dataclass"):
        composites.AttnLRP().on("sum", Part(0.5))
