"""Loops whose number of steps is not known before they run, against their steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import jaxlrp
from jaxlrp import composites, rules

rng = np.random.default_rng(0)
W, V = (rng.normal(size=(4, 4)) for _ in range(2))
B = rng.normal(size=4)
X = rng.normal(size=(3, 4))

COMPOSITES = {
    "AttnLRP": composites.AttnLRP(),
    "Epsilon": composites.Epsilon(0.1),
    "Gamma": composites.Uniform(rules.Gamma(0.25)),
    "AlphaBeta": composites.Uniform(rules.AlphaBeta(2.0, 1.0)),
    "flat": composites.Uniform(rules.Flat()),
    "w-square": composites.Uniform(rules.WSquare()),
    "box": composites.Epsilon().on("layer", rules.ZBox(-30.0, 30.0)),
    "Taylor": composites.Epsilon().on("activation", rules.Taylor()),
    "by relevance": composites.Epsilon().on("sum", rules.UniformSplit()),
}


@pytest.fixture(autouse=True)
def double_precision():
    jax.config.update("jax_enable_x64", True)


def step(h):
    return jnp.tanh(h @ W + B) + h


def loop(n, x, step=step):
    def body(state):
        i, h = state
        return i + 1, step(h)

    return lax.while_loop(lambda state: state[0] < n, body, (0, x))[1]


def written(n, x, step=step):
    for _ in range(n):
        x = step(x)
    return x


def assert_close(found, expected, tolerance=1e-9):
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=tolerance * np.abs(expected).max()
    )


@functools.cache
def compiled(composite, checkpoints=64):
    explain = jaxlrp.lrp(loop, COMPOSITES[composite], checkpoints=checkpoints)
    return jax.jit(explain)


@pytest.mark.always
@pytest.mark.parametrize(
    ("composite", "target"),
    [
        *((name, "max") for name in COMPOSITES),
        ("Epsilon", "beside"),
        ("flat", "beside"),
    ],
)
def test_a_loop_is_its_steps_written_out(composite, target):
    if target == "beside":  # relevance arrives beside the output
        target = lambda y: y**2  # noqa: E731
    rule = COMPOSITES[composite]
    explain = jax.jit(jaxlrp.lrp(loop, rule, target=target))
    for n in (0, 1, 4):
        expected = jaxlrp.lrp(functools.partial(written, n), rule, target=target)(X)
        assert_close(explain(n, X), expected)


@pytest.mark.parametrize("checkpoints", [1, 2, 3, 64])
def test_the_number_of_carries_that_are_kept_changes_nothing(checkpoints):
    for n in (0, 1, 3, 11):
        expected = jaxlrp.lrp(functools.partial(written, n), COMPOSITES["Epsilon"])(X)
        assert_close(compiled("Epsilon", checkpoints)(n, X), expected)


def test_the_number_of_steps_may_depend_on_the_data():
    halve = lambda h: jnp.tanh(h @ W) / 8 + h / 4  # noqa: E731

    def until_small(x):
        return lax.while_loop(lambda h: jnp.abs(h).max() > 0.1, halve, x)

    def steps(x):
        n = 0
        while np.abs(x).max() > 0.1 and n < 99:
            x, n = halve(x), n + 1
        return n

    explain = jax.jit(jaxlrp.lrp(until_small, composites.Epsilon(0.1), target="all"))
    numbers = [steps(scale * X) for scale in (0.01, 1.0, 30.0)]
    assert numbers[0] == 0 and len(set(numbers)) == 3
    for n, scale in zip(numbers, (0.01, 1.0, 30.0), strict=True):
        plain = functools.partial(written, n, step=halve)
        expected = jaxlrp.lrp(plain, composites.Epsilon(0.1), target="all")(scale * X)
        assert_close(explain(scale * X), expected)


@pytest.mark.parametrize("composite", ["AttnLRP", "flat"])
def test_examples_with_different_numbers_of_steps(composite):
    """`vmap` of the relevance, and the relevance of a `vmap`."""
    numbers = jnp.array([4, 0, 2])
    explain = jaxlrp.lrp(loop, COMPOSITES[composite], target="all")
    expected = [
        jaxlrp.lrp(functools.partial(written, n), COMPOSITES[composite], target="all")(
            x
        )
        for n, x in zip((4, 0, 2), X, strict=True)
    ]
    assert_close(jax.jit(jax.vmap(explain))(numbers, X), np.stack(expected))
    inside = jaxlrp.lrp(jax.vmap(loop), COMPOSITES[composite], target="all")
    assert_close(jax.jit(inside)(numbers, X), np.stack(expected))
    twice = jaxlrp.lrp(jax.vmap(jax.vmap(loop)), COMPOSITES[composite], target="all")
    both = jax.jit(twice)(numbers[None], X[None])
    assert_close(both[0], np.stack(expected))


def test_an_example_that_has_finished_is_left_alone():
    """One more step would take the logarithm of a negative number."""
    f = lambda x: lax.while_loop(lambda h: h > 1.0, lambda h: jnp.log(h), x)  # noqa: E731
    x = np.array([0.0, 2.5, 4.0])
    found = jaxlrp.lrp(jax.vmap(f), composites.AttnLRP(), target="all")(x)
    each = [jaxlrp.lrp(f, composites.AttnLRP(), target="all")(v) for v in x]
    assert_close(found, np.stack(each))
    assert np.isfinite(found).all()


def test_a_fori_loop_with_a_traced_bound():
    def f(n, x):
        return lax.fori_loop(1, n, lambda i, h: jnp.tanh(h @ W) + i, x)

    def plain(x):
        for i in range(1, 4):
            x = jnp.tanh(x @ W) + float(i)
        return x

    for rule in (composites.AttnLRP(), composites.Uniform(rules.Flat())):
        assert_close(jax.jit(jaxlrp.lrp(f, rule))(4, X), jaxlrp.lrp(plain, rule)(X))


def scan(f, h, n=2):
    return lax.scan(lambda h, _: (f(h), None), h, None, length=n)[0]


NESTED = {
    "scan in while": (
        lambda n, x: loop(n, x, lambda h: scan(step, h)),
        lambda x: written(6, x),
    ),
    "while in scan": (
        lambda n, x: scan(lambda h: loop(n, h), x),
        lambda x: written(6, x),
    ),
    "while in while": (
        lambda n, x: loop(n, x, lambda h: loop(2, h)),
        lambda x: written(6, x),
    ),
    "cond in while": (
        lambda n, x: loop(n, x, lambda h: lax.cond(h.sum() < 99, step, jnp.sin, h)),
        lambda x: written(3, x),
    ),
    "while in cond": (
        lambda n, x: lax.cond(n > 0, lambda h: loop(n, h), jnp.sin, x),
        lambda x: written(3, x),
    ),
    "remat in while": (
        lambda n, x: loop(n, x, jax.checkpoint(step)),
        lambda x: written(3, x),
    ),
    "while in remat": (
        lambda n, x: jax.checkpoint(lambda h: loop(n, h))(x),
        lambda x: written(3, x),
    ),
    "jit in while": (
        lambda n, x: loop(n, x, lambda h: block(block(h))),
        lambda x: written(3, x, lambda h: block(block(h))),
    ),
    "while in while, mapped": (
        lambda n, x: jax.vmap(lambda x: loop(n, x, lambda h: loop(2, h)))(x),
        lambda x: written(6, x),
    ),
}


@jax.jit
def block(h):
    for _ in range(4):
        h = jnp.tanh(jnp.sin(h @ W) + h)
    return h


@pytest.mark.parametrize("name", NESTED)
def test_loops_in_loops_are_their_steps_written_out(name):
    nested, plain = NESTED[name]
    rule = COMPOSITES["flat"]  # relevance travels beside the values
    found = jax.jit(jaxlrp.lrp(nested, rule, checkpoints=2))(3, X)
    assert_close(found, jax.jit(jaxlrp.lrp(plain, rule))(X))


@pytest.mark.filterwarnings("ignore::jaxlrp.errors.TrainingWarning")
def test_a_carry_of_many_kinds():
    """Integers, booleans, random keys and constants beside what carries relevance."""

    def body(state):
        i, key, even, h, unread, table = state
        key, own = jax.random.split(key)
        mask = jax.random.bernoulli(own, 0.7, h.shape)
        h = jnp.where(even, step(jnp.where(mask, h, 0.0)), h + table[i])
        return i + 1, key, ~even, h, unread * 2.0, table

    start = lambda x: (0, jax.random.key(3), jnp.bool_(True), x, x, jnp.asarray(V))  # noqa: E731

    def f(n, x):
        return lax.while_loop(lambda state: state[0] < n, body, start(x))[3]

    def plain(x):
        state = start(x)
        for _ in range(4):
            state = body(state)
        return state[3]

    for rule in (composites.AttnLRP(), composites.Uniform(rules.Flat())):
        found = jax.jit(jaxlrp.lrp(f, rule, checkpoints=2))(4, X)
        assert_close(found, jaxlrp.lrp(plain, rule)(X))


@pytest.mark.parametrize("composite", ["Epsilon", "flat"])
def test_a_carry_that_becomes_active_late(composite):
    def body(state):
        i, a, b, c = state
        return i + 1, jnp.tanh(b @ W), c, b + c

    def f(n, x):
        zero = jnp.zeros_like(x)
        return lax.while_loop(lambda s: s[0] < n, body, (0, zero, zero, x))[1]

    def scanned(x):  # read once for all steps, as the loop is
        zero = jnp.zeros_like(x)
        return scan(body, (0, zero, zero, x), 4)[1]

    rule = COMPOSITES[composite]
    assert_close(jax.jit(jaxlrp.lrp(f, rule))(4, X), jaxlrp.lrp(scanned, rule)(X))


def test_relevance_of_what_the_body_closes_over():
    def f(n, x):
        return loop(n, jnp.ones_like(x), lambda h: jnp.tanh(h @ W + x @ V))

    def scanned(x):
        return scan(lambda h: jnp.tanh(h @ W + x @ V), jnp.ones_like(x), 3)

    for rule in (composites.Epsilon(0.1), composites.Uniform(rules.Flat())):
        assert_close(jax.jit(jaxlrp.lrp(f, rule))(3, X), jaxlrp.lrp(scanned, rule)(X))


def test_no_relevance_passes_through_the_condition():
    def f(x, y):
        test = lambda s: s[0] < jnp.abs(y).sum()  # noqa: E731
        return lax.while_loop(test, lambda s: (s[0] + 1.0, step(s[1])), (0.0, x))[1]

    y = jnp.array([1.5, -1.0])
    explain = jaxlrp.lrp(f, composites.Epsilon(0.1), argnums=(0, 1))
    first, second = explain(X, y)
    expected = jaxlrp.lrp(functools.partial(written, 3), composites.Epsilon(0.1))(X)
    assert_close(first, expected)
    np.testing.assert_array_equal(second, 0)


def test_a_count_that_is_read_is_cut_off():
    """How often a loop ran is no multiple of its input."""
    halve = lambda s: (s[0] / 2, s[1] + 1)  # noqa: E731
    f = lambda x: x * lax.while_loop(lambda s: s[0] > 0.1, halve, (x, 0.0))[1]  # noqa: E731
    x = jnp.asarray(1.0)
    assert float(jaxlrp.lrp(f, target="all")(x)) == 4.0


def test_parameters_and_hyper_parameters():
    params = {"w": jnp.asarray(W), "b": jnp.asarray(B)}

    def net(n, p, x):
        return loop(n, x, lambda h: jnp.tanh(h @ p["w"] + p["b"]))

    def plain(p, x):
        return written(3, x, lambda h: jnp.tanh(h @ p["w"] + p["b"]))

    rule = composites.Epsilon(0.1)
    explain = jax.jit(
        lambda p, x: jaxlrp.parameter_relevance(
            lambda p, x: net(3 + 0 * x[0, 0].astype(int), p, x), rule
        )(p, x)
    )
    expected = jaxlrp.parameter_relevance(plain, rule)(params, X)
    found = explain(params, X)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_close(a, b)

    epsilons = jnp.array([0.01, 0.1, 1.0])
    swept = jax.vmap(lambda e: jaxlrp.lrp(net, composites.Epsilon(e))(3, params, X))
    one = [jaxlrp.lrp(plain, composites.Epsilon(float(e)))(params, X) for e in epsilons]
    assert_close(jax.jit(swept)(epsilons), np.stack(one))


def test_memory_does_not_grow_with_the_number_of_steps():
    """Two levels of sixteen carries, and a few more, for ten thousand steps."""
    h = jnp.ones((64, 64))
    w = jnp.asarray(rng.normal(size=(64, 64)) / 8)
    small = lambda h: jnp.tanh(h @ w) * 0.5 + 0.5 * h  # noqa: E731
    explain = jax.jit(
        jaxlrp.lrp(lambda n, x: loop(n, x, small), composites.Epsilon(), checkpoints=16)
    )
    program = explain.lower(10, h).compile()
    assert program.memory_analysis().temp_size_in_bytes < (2 * 16 + 10) * h.nbytes


def test_ten_thousand_steps():
    x = jnp.array([0.3, -0.7])
    move = lambda h: h + 1e-4 * (h[::-1] * jnp.array([1.0, -1.0]))  # noqa: E731
    found = jax.jit(jaxlrp.lrp(lambda n, x: loop(n, x, move), target="all"))(10_000, x)
    scanned = lambda x: scan(move, x, 10_000)  # noqa: E731
    assert_close(found, jax.jit(jaxlrp.lrp(scanned, target="all"))(x))


def test_forward_mode_passes_and_reverse_mode_is_refused():
    explain = compiled("Epsilon")
    total = lambda x: (explain(3, x) * X).sum()  # noqa: E731
    _, slope = jax.jvp(total, (X,), (B + X,))
    step_size = 1e-6
    ahead, behind = (total(X + s * step_size * (B + X)) for s in (1, -1))
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step_size), rtol=1e-6)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(total)(X)


def test_effects_run_once():
    seen = []

    def note(name, v):
        jax.debug.callback(lambda v: seen.append(name), v.sum())

    def inner(h):
        note("inner", h)
        note("constant", jnp.ones(2))
        return h * 0.5 + jnp.tanh(h)

    def f(n, x):
        note("top", x)

        def body(state):
            i, h, k = state
            note("while", h)
            h = scan(inner, h)
            h = loop(1, h, inner)
            h = lax.cond(i < 9, inner, jnp.sin, h)
            k = lax.cond(i < 9, lambda k: (note("branch", k), k + 1)[1], jnp.sin, k)
            return i + 1, h, k

        i, h, k = lax.while_loop(lambda s: s[0] < n, body, (0, x, 0.0))
        return h * k

    explain = jaxlrp.lrp(f, composites.AttnLRP(), checkpoints=2)
    for run in (explain, jax.jit(explain)):
        seen.clear()
        jax.block_until_ready(run(5, X))
        jax.effects_barrier()
        counts = {name: seen.count(name) for name in set(seen)}
        assert counts == {
            "top": 1,
            "while": 5,
            "inner": 20,
            "constant": 20,
            "branch": 5,
        }


def test_the_plan_shows_the_rows_in_the_loop():
    with jax.named_scope("outer"):
        rows = jaxlrp.plan(loop)(3, X).rows
    assert [row.role for row in rows] == ["dense", "activation", "sum"]
    assert {row.depth for row in rows} == {1}


@pytest.mark.parametrize("composite", ["Epsilon", "flat", "AttnLRP"])
def test_the_audit_accounts_for_what_a_loop_absorbs(composite):
    def f(n, x):
        start = jnp.zeros_like(x) + B  # a constant that becomes active
        body = lambda s: (s[0] + 1, jnp.tanh(s[1] @ W + B), s[2] + 0.5 * s[1])  # noqa: E731
        return lax.while_loop(lambda s: s[0] < n, body, (0, x, start))[2]

    audit = jaxlrp.audit(f, COMPOSITES[composite])(4, X)
    assert abs(audit.total_out) > 0.1
    assert abs(audit.residual) < 1e-9 * abs(audit.total_out)
    assert audit.absorbed["constants"] != 0 or audit.absorbed["bias"] != 0


def test_the_audit_names_the_culprit_in_a_loop():
    f = lambda x: lax.while_loop(lambda h: h[0] > -2.0, lambda h: jnp.log(h), x)  # noqa: E731
    culprit = jaxlrp.audit(f, target="all")(jnp.array([2.0, 0.0])).culprit
    assert "log" in culprit


@pytest.mark.always
def test_capture_in_a_loop_is_the_sum_over_its_steps():
    tagged = lambda h: checkpoint_name(step(h), "hidden")  # noqa: E731
    explain = jaxlrp.lrp(
        lambda n, x: loop(n, x, tagged), COMPOSITES["Epsilon"], capture="hidden"
    )
    relevance, captured = explain(4, X)
    scanned = lambda x: scan(tagged, x, 4)  # noqa: E731
    expected = jaxlrp.lrp(scanned, COMPOSITES["Epsilon"], capture="hidden")(X)
    assert_close(relevance, expected[0])
    assert_close(captured["hidden"], expected[1]["hidden"].sum(0))


def test_conditions_in_a_loop_hold_in_every_step():
    tagged = lambda h: checkpoint_name(step(h), "hidden")  # noqa: E731
    options = {"conditions": {"hidden": jnp.array([1.0, 0.0, 0.5, 1.0])}}
    found = jaxlrp.lrp(lambda n, x: loop(n, x, tagged), **options)(4, X)
    assert_close(found, jaxlrp.lrp(lambda x: scan(tagged, x, 4), **options)(X))


def test_an_inactive_loop_is_run_as_it_is():
    f = lambda n, x: x * loop(n, jnp.ones(4))  # noqa: E731
    expected = X * written(3, jnp.ones(4))
    assert_close(jaxlrp.lrp(f, target="all")(3, X), expected)


def test_relevance_of_a_relevance_function():
    out, pull = jaxlrp.relprop(loop, 3, X, checkpoints=2)
    many = jax.vmap(pull)(jnp.stack([out, 2 * out]))
    assert_close(many[1], 2 * many[0])


@pytest.mark.whole
@pytest.mark.parametrize(
    ("checkpoints", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_a_bad_number_of_checkpoints_is_refused(checkpoints, error):
    with pytest.raises(error, match="checkpoints: got"):
        jaxlrp.lrp(loop, checkpoints=checkpoints)
