"""Which layers lie in a recurrence, and how large relevance gets there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

RNG = np.random.default_rng(0)
WIDTH = 4
U, W, HEAD = RNG.normal(size=(3, WIDTH, WIDTH)) / 2
XS = RNG.normal(size=(3, WIDTH))
MARK = composites.Proportional().on("layer", rules.ZPlus(), recurrent=True)


def recurrent(f, *args):
    """For each layer of a program: does it lie in a recurrence?"""
    rows = jaxlrp.plan(f, MARK)(*args).rows
    return [row.rule.startswith("ZPlus") for row in rows if row.role == "dense"]


def tanh(params, h, x):
    return jnp.tanh(h @ params["u"] + x @ params["w"] + params["b"])


def gru(params, h, x):
    ir, iz, ic = jnp.split(x @ params["w"] + params["b"], 3)
    hr, hz, hc = jnp.split(h @ params["u"] + params["c"], 3)
    r, z = jax.nn.sigmoid(ir + hr), jax.nn.sigmoid(iz + hz)
    return (1 - z) * jnp.tanh(ic + r * hc) + z * h


def lstm(params, state, x):
    h, c = state
    i, f, g, o = jnp.split(h @ params["u"] + x @ params["w"] + params["b"], 4)
    c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


CELLS = {"tanh": (tanh, 1), "GRU": (gru, 3), "LSTM": (lstm, 4)}


def parameters(cell, key, norm=1.0, width=WIDTH):
    size = CELLS[cell][1] * width
    keys = jax.random.split(key, 5)
    u = jax.random.normal(keys[0], (width, size))
    w = jax.random.normal(keys[1], (width, size)) / np.sqrt(width)
    if cell == "tanh":
        u = norm * u / jnp.linalg.norm(u, 2)
    else:
        u, w = norm * u / np.sqrt(width), norm * w
    b, c = 0.1 * jax.random.normal(keys[2], (2, size))
    head = jax.random.normal(keys[3], (width, 8)) / np.sqrt(width)
    return {"u": u, "w": w, "b": b, "c": c, "head": head}


def state_after(cell, unrolled, params, x):
    step = functools.partial(CELLS[cell][0], params)
    zero = jnp.zeros(params["u"].shape[0], x.dtype)
    state = (zero, zero) if cell == "LSTM" else zero
    if unrolled:
        for now in x:
            state = step(state, now)
    else:
        state, _ = lax.scan(lambda s, now: (step(s, now), None), state, x)
    return state[0] if cell == "LSTM" else state


def network(cell, unrolled, params, x):
    return state_after(cell, unrolled, params, x) @ params["head"]


# ---- which layers ----------------------------------------------------------------


@pytest.mark.always
@pytest.mark.parametrize("cell", CELLS)
def test_a_loop_and_its_steps_have_the_same_recurrent_layers(cell):
    params = parameters(cell, jax.random.key(0))
    x = jnp.asarray(XS, jnp.float32)
    loop = recurrent(lambda x: network(cell, False, params, x), x)
    steps = recurrent(lambda x: network(cell, True, params, x), x)
    assert sorted(loop) == [False, True, True]  # head; input and state
    # The first state is a constant: of three steps two have an active state.
    assert sorted(steps) == [False] + [True] * 5


def stack(x):
    return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, jnp.stack([U, W]))[0]


def counted(x):
    weights = jnp.stack([U, W])
    return lax.fori_loop(0, 2, lambda i, h: jnp.tanh(h @ weights[i]), x)


def body(h, x):
    return jnp.tanh(h @ U + x), None


def repeated_stack(x):
    return lax.fori_loop(0, 3, lambda i, h: stack(h), x)


def in_while(x):
    def step(state):
        return state[0] + 1, jnp.tanh(state[1] @ U)

    return lax.while_loop(lambda s: s[0] < 3, step, (0, x))[1]


def in_branch(x):
    def step(h, flag):
        return lax.cond(flag, lambda h: jnp.tanh(h @ U), jnp.sin, h), None

    return lax.scan(step, x, jnp.array([True, False, True]))[0]


def read_inside(x):
    def step(h, x):
        h = jnp.tanh(h @ U + x)
        return h, h @ HEAD

    return lax.scan(step, jnp.zeros(WIDTH), jnp.stack([x, x]))[1].sum(0)


def carried_weights(x):
    def step(state, _):
        h, w = state
        return (jnp.tanh(h @ w), w), None

    return lax.scan(step, (x, jnp.asarray(U)), None, length=3)[0][0]


def called(x):
    cell = jax.jit(lambda h: jnp.tanh(h @ U))
    for _ in range(3):
        x = cell(x)
    return x


def both_ways(x):
    xs = jnp.stack([x, jnp.sin(x)])
    forward = lax.scan(body, jnp.zeros(WIDTH), xs)[0]
    return forward + lax.scan(body, jnp.zeros(WIDTH), xs, reverse=True)[0]


def checkpointed(x):
    step = jax.checkpoint(lambda h, x: body(h, x))
    return lax.scan(step, x, jnp.zeros((3, WIDTH)))[0]


FORMS = {
    "stack of layers": (stack, [False]),
    "weights by the loop's counter": (counted, [False]),
    "tied, applied twice": (lambda x: jnp.tanh(jnp.tanh(x @ U) @ U), [True, True]),
    "two layers": (lambda x: jnp.tanh(jnp.tanh(x @ U) @ W), [False, False]),
    "side by side": (lambda x: jnp.tanh(x @ U) + jnp.sin(-x @ U), [False, False]),
    "a jitted cell": (called, [True, True, True]),
    "stack in a loop that repeats it": (repeated_stack, [True]),
    "while": (in_while, [True]),
    "cond": (in_branch, [True]),
    "remat": (checkpointed, [True]),
    "both ways": (both_ways, [True, True]),
    "output read inside": (read_inside, [True, False]),
    "weights carried along": (carried_weights, [True]),
}


@pytest.mark.whole
@pytest.mark.parametrize("form", FORMS)
def test_weights_that_a_path_meets_again_are_recurrent(form):
    f, expected = FORMS[form]
    assert recurrent(f, jnp.ones(WIDTH)) == expected


def steps_from(state, x):
    for part in jnp.split(x, 2):
        state = jnp.tanh(part @ W + state @ U)
    return state


def one_hot(x):
    return jnp.tanh(x @ W + jax.nn.one_hot(jnp.arange(1), WIDTH)[0] @ U)


@pytest.mark.parametrize(
    ("f", "expected"),
    [(lambda x: steps_from(jnp.ones((1, WIDTH)), x), [True]), (one_hot, [])],
    ids=["first state", "embedding"],
)
def test_a_shift_by_a_first_state_is_recurrent_and_by_another_layer_not(f, expected):
    rows = jaxlrp.plan(f)(jnp.ones((2, WIDTH))).rows
    shifts = ["recurrent=True" in row.won for row in rows if row.role == "shift"]
    assert shifts == expected


def test_a_condition_that_is_none_of_three_values_is_refused():
    with pytest.raises(ValueError, match="recurrent"):
        composites.Default().on("layer", rules.LRP0(), recurrent="yes")


# ---- how large -------------------------------------------------------------------


def explained(cell, unrolled, both, params, x):
    """(largest score, its relevance), of a network that may read in either way."""

    def f(params, x):
        y = network(cell, unrolled, params, x)
        return y + network(cell, unrolled, params, x[::-1]) if both else y

    return f(params, x).max(), jaxlrp.lrp(f)(params, x)


CASES = [("tanh", n, (1.0, 2.0, 4.0), False) for n in (4, 16, 64)]
CASES += [("GRU", 16, (1.0, 3.0), False), ("LSTM", 16, (1.0, 3.0), False)]
CASES += [("LSTM", 16, (1.0, 3.0), True)]


@pytest.mark.parametrize("cell, steps, norms, both", CASES)
def test_the_default_does_not_explode_in_a_recurrence(cell, steps, norms, both):
    def one(norm, key):
        first, second = jax.random.split(key)
        params = parameters(cell, first, norm, 16)
        x = jax.random.normal(second, (steps, 16))
        return explained(cell, False, both, params, x)

    keys = jax.random.split(jax.random.key(1), 4)
    over_keys = jax.vmap(one, (None, 0))
    score, relevance = jax.jit(jax.vmap(over_keys, (0, None)))(jnp.array(norms), keys)
    ratio = jnp.abs(relevance).sum((-2, -1)) / jnp.abs(score)
    assert ratio.max() < 100


@pytest.mark.parametrize("cell", CELLS)
def test_a_loop_is_explained_as_its_steps(cell):
    jax.config.update("jax_enable_x64", True)
    params = parameters(cell, jax.random.key(2), 2.0)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    x = jnp.asarray(RNG.normal(size=(4, WIDTH)))
    loop, steps = (
        jax.jit(functools.partial(explained, cell, u, False))(params, x)[1]
        for u in (False, True)
    )
    np.testing.assert_allclose(loop, steps, rtol=1e-7, atol=1e-9)


@pytest.mark.filterwarnings("ignore::jaxlrp.errors.IndependentArgumentWarning")
def test_a_gate_of_a_constant_state_is_held():
    """As that of a state that is no constant, in any other step."""
    state = jnp.asarray(XS[0], jnp.float32)

    def f(z, x):
        return jnp.tanh(x) + jax.nn.sigmoid(z) * (state @ U)

    z, x = jnp.asarray(XS[1:], jnp.float32)
    gate, signal = jaxlrp.lrp(f, argnums=(0, 1), target=jnp.ones_like)(z, x)
    a, b = jnp.tanh(x), jax.nn.sigmoid(z) * (state @ U)
    g, h = (1 + (jnp.sign(v) == jnp.sign(a + b)) for v in (a, b))
    np.testing.assert_array_equal(gate, 0)
    np.testing.assert_allclose(signal, g * a / (g * a + h * b), rtol=1e-5)


@pytest.mark.always
def test_a_factor_without_a_bound_is_no_gate_of_a_constant_state():
    state, z = jnp.asarray(XS[0], jnp.float32), jnp.asarray(XS[1], jnp.float32)
    f = lambda z: jax.nn.softplus(z) * (state @ U)  # noqa: E731
    np.testing.assert_allclose(jaxlrp.lrp(f, target="all")(z), f(z), rtol=1e-5)


@pytest.mark.filterwarnings("ignore::jaxlrp.errors.IndependentArgumentWarning")
@pytest.mark.parametrize(
    "rest",
    [lambda z: 1 - z, lambda z: 1.0 - z, lambda z: jnp.ones_like(z) - z],
    ids="int float ones".split(),
)
def test_the_rest_of_a_gate_is_a_gate(rest):
    """`(1 - z) n` is held as `z h` is: the candidate takes all."""

    def f(z, n):
        return rest(jax.nn.sigmoid(z)) * jnp.tanh(n)

    z, n = jnp.asarray(XS[:2], jnp.float32)
    explain = jaxlrp.lrp(f, argnums=(0, 1), target="all")
    gate, candidate = explain(z, n)
    np.testing.assert_array_equal(gate, 0)
    np.testing.assert_allclose(candidate, f(z, n), rtol=1e-5)
