"""Relevance that is no multiple of the value, against walks written out in NumPy.

With Flat or w-square on every layer, relevance does not depend on the layers' inputs
at all: an inactive ReLU unit carries it like any other. What remains of the values is
where max pooling finds its winners and how a sum divides.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

EPSILON = 1e-6
RULES = {
    "flat": (rules.Flat(EPSILON), np.ones_like),
    "wsquare": (rules.WSquare(EPSILON), np.square),
}
each_rule = pytest.mark.parametrize(("rule", "share"), RULES.values(), ids=RULES)

rng = np.random.default_rng(0)
X = rng.normal(size=(3, 6))
U = rng.normal(size=(6, 5)) - 0.4  # many dead units
V = rng.normal(size=(5, 5))
W = rng.normal(size=(5, 4))
B = rng.normal(size=5)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def on_layers(rule):
    return composites.Uniform(rule)


def assert_close(value, expected, tolerance=1e-10):
    value, expected = np.asarray(value), np.asarray(expected)
    assert value.shape == expected.shape
    assert np.abs(expected).max() > 0
    assert np.abs(value - expected).max() <= tolerance * np.abs(expected).max()


def relu(x):
    return np.maximum(x, 0)


def back(relevance, w, share, bias=0.0):
    """Through a dense layer, `R_j = sum_i s_ij R_i / (sum_k s_ik + b_i^2)`."""
    s = share(w)
    return (relevance / (s.sum(0) + bias + EPSILON)) @ s.T


def highest(out):
    """The seed: the value at the highest output."""
    return out * np.eye(out.shape[-1])[out.argmax(-1)]


def test_some_units_are_dead():
    assert ((X @ U) < 0).mean() > 0.3


@each_rule
def test_dead_units_carry_relevance(rule, share):
    def f(x):
        return jax.nn.relu(jax.nn.relu(x @ U) @ V) @ W

    out = relu(relu(X @ U) @ V) @ W
    expected = back(back(back(highest(out), W, share), V, share), U, share)
    assert_close(jaxlrp.lrp(f, on_layers(rule))(X), expected)
    assert_close(jax.jit(jaxlrp.lrp(f, on_layers(rule)))(X), expected)
    assert_close(jax.vmap(jaxlrp.lrp(f, on_layers(rule)))(jnp.asarray(X)), expected)


@pytest.mark.always
@each_rule
def test_a_bias_absorbs_where_the_rule_says_so(rule, share):
    def f(x):
        return jax.nn.relu(x @ U + B) @ W

    out = relu(X @ U + B) @ W
    square = B**2 if isinstance(rule, rules.WSquare) else 0.0
    expected = back(back(highest(out), W, share), U, share, square)
    assert_close(jaxlrp.lrp(f, on_layers(rule))(X), expected)


@each_rule
@pytest.mark.parametrize("phi", [jnp.tanh, jax.nn.silu, jax.nn.gelu, jax.nn.sigmoid])
def test_activations_hand_relevance_through(rule, share, phi):
    out = np.asarray(phi(X @ U)) @ W
    expected = back(back(highest(out), W, share), U, share)
    f = jaxlrp.lrp(lambda x: phi(x @ U) @ W, on_layers(rule))
    assert_close(f(X), expected)


@each_rule
def test_an_input_of_zeros_gets_relevance(rule, share):
    out = np.broadcast_to(relu(B) @ W, (3, 4))
    square = B**2 if isinstance(rule, rules.WSquare) else 0.0
    expected = back(back(highest(out), W, share), U, share, square)
    f = jaxlrp.lrp(lambda x: jax.nn.relu(x @ U + B) @ W, on_layers(rule))
    assert_close(f(np.zeros_like(X)), expected)


@each_rule
def test_max_pooling_sends_relevance_to_the_first_winner(rule, share):
    """Of two dead units the first wins: `0 >= 0`."""

    def f(x):
        h = jax.nn.relu(x @ U)
        h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2), (1, 2), "VALID")
        return h @ W[:2]

    h = relu(X @ U)
    pairs = h[:, :4].reshape(3, 2, 2)
    out = pairs.max(-1) @ W[:2]
    pooled = back(highest(out), W[:2], share)
    spread = np.zeros((3, 2, 2))
    rows, columns = np.indices((3, 2))
    spread[rows, columns, pairs.argmax(-1)] = pooled
    at_h = np.concatenate([spread.reshape(3, 4), np.zeros((3, 1))], 1)
    assert_close(jaxlrp.lrp(f, on_layers(rule))(X), back(at_h, U, share))


@pytest.mark.always
@each_rule
def test_the_highest_of_an_axis_wins(rule, share):
    def f(x):
        return jnp.max((x @ U).reshape(3, 5, 1) * np.ones(2), axis=2) @ W

    out = (X @ U) @ W
    expected = back(back(highest(out), W, share), U, share)  # ties share evenly
    assert_close(jaxlrp.lrp(f, on_layers(rule))(X), expected)


@each_rule
def test_residual_sums_divide_in_proportion(rule, share):
    def f(x):
        h = jax.nn.relu(x @ U)
        return (h + jax.nn.relu(h @ V)) @ W

    h = relu(X @ U)
    branch = relu(h @ V)
    total = h + branch
    at_sum = back(highest(total @ W), W, share)
    ratio = np.where(total == 0, 0, at_sum / np.where(total == 0, 1, total))
    at_h = ratio * h + back(ratio * branch, V, share)
    assert_close(jaxlrp.lrp(f, on_layers(rule))(X), back(at_h, U, share))


@each_rule
def test_a_stabilised_residual_sum(rule, share):
    def f(x):
        h = jax.nn.relu(x @ U)
        return (h + jax.nn.relu(h @ V)) @ W

    h = relu(X @ U)
    branch = relu(h @ V)
    total = h + branch
    ratio = back(highest(total @ W), W, share) / (total + 0.1)
    at_h = ratio * h + back(ratio * branch, V, share)
    composite = on_layers(rule).on("sum", rules.Norm(0.1))
    assert_close(jaxlrp.lrp(f, composite)(X), back(at_h, U, share))


@each_rule
def test_concatenation_padding_and_reversal_move_relevance(rule, share):
    def f(x):
        h = jax.nn.relu(x @ U)
        h = jnp.concatenate([h[:, ::-1], x[:, :1]], -1)
        h = jnp.pad(h, ((0, 0), (1, 2)), constant_values=3.0)
        return h.T.reshape(9, 3).T @ KERNEL

    h = np.concatenate([relu(X @ U)[:, ::-1], X[:, :1]], 1)
    h = np.pad(h, ((0, 0), (1, 2)), constant_values=3.0)
    inner = back(highest(h @ KERNEL), KERNEL, share)[:, 1:-2]
    expected = back(inner[:, :5][:, ::-1], U, share)
    expected[:, 0] += inner[:, 5]
    assert_close(jaxlrp.lrp(f, on_layers(rule))(X), expected)


KERNEL = rng.normal(size=(9, 4))


@each_rule
def test_masks_and_lookups_move_relevance(rule, share):
    mask = np.array([True, False, True, True, True])
    index = np.array([4, 0, 0])

    def f(x):
        h = jnp.where(mask, jax.nn.relu(x @ U), 0.5)
        return jnp.take(h, index, axis=1) @ W[:3]

    h = np.where(mask, relu(X @ U), 0.5)[:, index]
    taken = back(highest(h @ W[:3]), W[:3], share)
    at_h = np.zeros((3, 5))
    np.add.at(at_h.T, index, taken.T)
    expected = back(at_h * mask, U, share)
    assert_close(jaxlrp.lrp(f, on_layers(rule))(X), expected)


@each_rule
def test_convolutions_count_padding_as_no_input(rule, share):
    image = rng.normal(size=(2, 1, 7))
    kernel = rng.normal(size=(3, 1, 3))

    def f(x):
        y = lax.conv_general_dilated(x, kernel, (2,), [(1, 1)])
        return jax.nn.relu(y).reshape(2, -1) @ HEAD

    # The convolution as a matrix from 7 pixels to 3 channels of 4 positions.
    matrix, connected = np.zeros((7, 3, 4)), np.zeros((7, 3, 4))
    for p in range(4):
        for k in range(3):
            if 0 <= 2 * p + k - 1 < 7:
                matrix[2 * p + k - 1, :, p] = kernel[:, 0, k]
                connected[2 * p + k - 1, :, p] = 1
    matrix, connected = matrix.reshape(7, 12), connected.reshape(7, 12)
    out = relu(image[:, 0] @ matrix) @ HEAD
    at_y = back(highest(out), HEAD, share)
    expected = back(at_y, matrix, lambda w: share(w) * connected)
    assert_close(jaxlrp.lrp(f, on_layers(rule))(image)[:, 0], expected)


HEAD = rng.normal(size=(12, 4))


@each_rule
def test_a_scan_is_its_steps_written_out(rule, share):
    def f(x):
        h = jax.nn.relu(x @ U)
        h, _ = lax.scan(lambda h, v: (jax.nn.relu(h @ v), None), h, np.stack([V, -V]))
        return h @ W

    relevance = back(SEED, W, share)
    expected = back(back(back(relevance, -V, share), V, share), U, share)
    explain = jaxlrp.lrp(f, on_layers(rule), target=lambda out: SEED)
    assert_close(explain(X), expected)


SEED = rng.normal(size=(3, 4))


@each_rule
def test_a_scans_outputs_and_inputs_carry_relevance(rule, share):
    def f(x):
        def step(h, v):
            h = jax.nn.relu(h @ V + v)
            return h, 2.0 * h[:2]

        h, ys = lax.scan(step, jnp.ones(5), x @ U)
        return ys @ W[:2]

    h, steps = np.ones(5), []
    for v in X @ U:
        total = h @ V + v
        steps.append((h @ V, v, total))
        h = relu(total)
    ys = np.stack([2.0 * relu(t)[:2] for _, _, t in steps])
    arriving = back(highest(ys @ W[:2]), W[:2], share)
    carried, expected = np.zeros(5), np.zeros((3, 5))
    for i in reversed(range(3)):
        from_h, v, total = steps[i]
        at_total = carried + np.concatenate([arriving[i], np.zeros(3)])
        expected[i] = at_total * v / total
        carried = back(at_total * from_h / total, V, share)
    # A dense layer between two shadows; the sum in it divides in proportion.
    assert_close(jaxlrp.lrp(f, on_layers(rule))(X), back(expected, U, share), 1e-8)


@each_rule
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_both_branches_of_a_condition(rule, share, sign):
    def f(sign, x):
        h = jax.nn.relu(x @ U)
        h = lax.cond(sign > 0, lambda h: jax.nn.relu(h @ V), lambda h: h[:, ::-1], h)
        return h @ W

    h = relu(X @ U)
    h = relu(h @ V) if sign > 0 else h[:, ::-1]
    at_h = back(highest(h @ W), W, share)
    at_h = back(at_h, V, share) if sign > 0 else at_h[:, ::-1]
    explain = jaxlrp.lrp(f, on_layers(rule))
    assert_close(explain(sign, X), back(at_h, U, share))
    assert_close(jax.jit(explain)(sign, X), back(at_h, U, share))


@each_rule
def test_a_branch_that_ignores_its_operand_keeps_the_relevance(rule, share):
    def f(flag, x):
        h = jax.nn.relu(x @ U)
        return lax.cond(flag, lambda h: h, lambda h: jnp.ones_like(h), h) @ W

    explain = jax.jit(jaxlrp.lrp(f, on_layers(rule)))
    out = relu(X @ U) @ W
    assert_close(explain(True, X), back(back(highest(out), W, share), U, share))
    np.testing.assert_array_equal(explain(False, X), np.zeros_like(X))


@each_rule
def test_calls_that_are_kept_and_rematerialised_bodies(rule, share):
    @jax.jit
    def block(v, h):
        for _ in range(3):
            h = jax.nn.relu(jnp.maximum(jax.nn.relu(h @ v), 0.0) * 2.0) / 2.0
        return h

    def f(x):
        h = jax.nn.relu(x @ U)
        h = block(V, block(V, h))
        return jax.checkpoint(lambda h: jax.nn.relu(h @ V))(h) @ W

    relevance = back(SEED, W, share)
    for _ in range(7):
        relevance = back(relevance, V, share)
    explain = jaxlrp.lrp(f, on_layers(rule), target=lambda out: SEED)
    assert_close(explain(X), back(relevance, U, share))
    assert_close(jax.jit(explain)(X), back(relevance, U, share))


def test_relevance_of_a_box_is_exact():
    low, high = -2.5, np.linspace(1.5, 3.0, 6)
    rule = rules.ZBox(low, high, epsilon=EPSILON)
    composite = on_layers(rules.Flat(EPSILON)).on("layer", rule, first=True)
    f = jaxlrp.lrp(lambda x: jax.nn.relu(x @ U) @ W, composite)
    at_h = back(highest(relu(X @ U) @ W), W, np.ones_like)
    plus, minus = np.maximum(U, 0), np.minimum(U, 0)
    shares = X[:, :, None] * U - (low * plus) - high[:, None] * minus
    total = shares.sum(1)
    expected = np.einsum("nji,ni->nj", shares, at_h / (total + EPSILON))
    assert_close(f(X), expected)


# ---- where a rule that divides lies above one that does not ------------------------


def scoped(x):
    """A dense layer, and another in the scope `top`."""
    h = x @ U
    with jax.named_scope("top"):
        return jax.nn.relu(h) @ W + 100.0


MIXED = on_layers(rules.LRP0()).on("dense", rules.Flat(EPSILON), scope="top*")


def test_a_layer_that_divides_takes_relevance_in():
    relevance = jaxlrp.lrp(scoped, MIXED)(X)
    z = X @ U
    at_z = back(highest(relu(z) @ W + 100.0), W, np.ones_like)
    assert_close(relevance, X * ((at_z / z) @ U.T))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_layer_of_exact_zeros_drops_the_relevance(dtype):
    """`0 / 0` is absorbed: it is neither a NaN nor an infinity."""
    zeros = jnp.zeros((3, 6), dtype)
    np.testing.assert_array_equal(jaxlrp.lrp(scoped, MIXED)(zeros), zeros)


def test_a_sum_of_exact_zeros_drops_the_relevance():
    f = jaxlrp.lrp(lambda x: (x + x) @ W + 50.0, on_layers(rules.Flat()))
    zeros = jnp.zeros((3, 5), jnp.float32)
    np.testing.assert_array_equal(f(zeros), zeros)


# ---- loops whose body takes relevance in -------------------------------------------

READS = {
    "the last carry": lambda h, ys: (h @ HEAD[:6])[None],
    "every step": lambda h, ys: ys @ W[:4],
    "both": lambda h, ys: h @ HEAD[:6] + ys @ W[:4],
}


@pytest.mark.always
@each_rule
@pytest.mark.parametrize("reads", READS)
def test_a_carry_that_is_a_sum(rule, share, reads):
    """A sum makes relevance a multiplier, in a carry that hands out a shadow."""

    def step(h, v):
        h = h + v
        return h, h[:4]

    def scanned(x):
        return READS[reads](*lax.scan(step, x[0] + 1.0, x))

    def written(x):
        h, ys = x[0] + 1.0, []
        for v in x:
            h, y = step(h, v)
            ys.append(y)
        return READS[reads](h, jnp.stack(ys))

    explain = [jaxlrp.lrp(f, on_layers(rule)) for f in (scanned, written)]
    assert_close(explain[0](X), explain[1](X))


@each_rule
def test_an_empty_loop_keeps_the_relevance(rule, share):
    def f(x):
        return lax.scan(lambda h, v: (h + v, None), x[0], x[:0])[0] @ HEAD[:6]

    relevance = jaxlrp.lrp(f, on_layers(rule), target="all")(X)
    assert_close(relevance[0], back(X[0] @ HEAD[:6], HEAD[:6], share))
    np.testing.assert_array_equal(relevance[1:], np.zeros((2, 6)))


@each_rule
def test_a_carry_of_which_one_part_is_a_product(rule, share):
    def f(x):
        step = lambda h, v: ((h[1], h[1] * v), None)  # noqa: E731
        return lax.scan(step, (x[0], x[1]), x)[0][0] @ HEAD[:6]

    a, b = X[0], X[1]
    for v in X:
        a, b = b, b * v
    at_a = back(highest(a @ HEAD[:6]), HEAD[:6], share)
    # x1 x0 x1: each factor halves what is left.
    expected = np.zeros_like(X)
    expected[1] = at_a / 2 + at_a / 4
    expected[0] = at_a / 4
    assert_close(jaxlrp.lrp(f, on_layers(rule))(X), expected)


def test_identity_with_an_epsilon_is_the_same_beside_a_value():
    composite = composites.AttnLRP().on("activation", rules.Pass(0.1))
    x = jnp.array([1.0, -2.0, 0.5])
    y, pull = jaxlrp.relprop(jax.nn.gelu, x, composite=composite)
    explain = jaxlrp.lrp(jax.nn.gelu, composite, target="all")
    np.testing.assert_allclose(pull(y), explain(x), rtol=1e-5)
    np.testing.assert_allclose(pull(y), x * y / (x + 0.1), rtol=1e-5)


@pytest.mark.always
def test_a_carry_that_a_layer_reads_and_that_leaves_as_a_constant():
    def scanned(x):
        step = lambda h, _: (jnp.full(6, 0.5), h @ U)  # noqa: E731
        return lax.scan(step, x[0], None, length=3)[1].sum(0)

    def decided(x):
        def step(carry):
            i, h, total = carry
            return i + 1, jnp.full(6, 0.5), total + h @ U

        start = (0, x[0], jnp.zeros(5))
        return lax.while_loop(lambda c: c[0] < 3, step, start)[2]

    for rule, share in RULES.values():
        for f in (scanned, decided):
            relevance = jaxlrp.lrp(f, on_layers(rule), target="all")(X)
            assert_close(relevance[0], back(X[0] @ U, U, share), tolerance=1e-6)
            np.testing.assert_array_equal(relevance[1:], np.zeros((2, 6)))
