"""What is claimed of a value without running it, it keeps when it runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import Literal

import jaxlrp
from jaxlrp import _compat, composites
from jaxlrp._program.program import Value, flatten
from jaxlrp._reading import facts as facts_module
from jaxlrp._reading.context import Context, Options
from jaxlrp._reading.facts import Facts, analyse, facts_of, input_facts
from jaxlrp._reading.read import read


def analysed(f, *args, active=None):
    """The program of `f`, the facts of its values, and the values: all by `Value`."""
    program = flatten(jax.make_jaxpr(f)(*args))
    active = [True] * len(args) if active is None else active
    inputs = [
        input_facts(v.aval, a) for v, a in zip(program.inputs, active, strict=True)
    ]
    facts = analyse(program, inputs, Context(Options()))
    values = dict(zip(program.inputs, args, strict=True)) | dict(program.constants)
    for equation in program.equations:
        bind = _compat.primitive_bind(equation.primitive, dict(equation.params))
        operands = [
            v.val if isinstance(v, Literal) else values[v] for v in equation.inputs
        ]
        values.update(zip(equation.outputs, bind(*operands), strict=True))
    return program, facts, values


def outputs(f, *args, active=None):
    """The facts of the outputs of `f`."""
    program, facts, _ = analysed(f, *args, active=active)
    return [facts_of(v, facts) for v in program.outputs]


X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)

UNARY = {
    name: getattr(lax, name)
    for name in "neg abs exp tanh logistic square cbrt sin erf expm1 sign floor".split()
} | {
    "relu": jax.nn.relu,
    "softplus": jax.nn.softplus,
    "softmax": jax.nn.softmax,
    "gelu": jax.nn.gelu,
    "transpose": jnp.transpose,
    "cumsum": lambda x: jnp.cumsum(x, 0),
    "sort": jnp.sort,
    "mean": lambda x: jnp.broadcast_to(x.mean(0), x.shape),
    "max": lambda x: jnp.broadcast_to(x.max(1, keepdims=True), x.shape),
    "prod": lambda x: jnp.broadcast_to(x.prod(0), x.shape),
    "shifted": lambda x: x - 0.5,
    "raised": lambda x: x + 0.5,
    "halved": lambda x: x * 0.5,
    "turned": lambda x: -2.0 * x,
    "clipped": lambda x: jnp.clip(x, 0, 1),
    "clipped below zero": lambda x: jnp.clip(x, -1, 1),
    "cubed": lambda x: x**3,
    "inverse": lambda x: (1 + x * x) ** -3,
    "masked": lambda x: jnp.where(jnp.eye(4) > 0, x, 0.0),
    "masked below zero": lambda x: jnp.where(jnp.eye(4) > 0, x, -1.0),
    "padded": lambda x: lax.pad(x[:2], 0.5, ((1, 1, 0), (0, 0, 0))),
    "padded below zero": lambda x: lax.pad(x[:2], -0.5, ((1, 1, 0), (0, 0, 0))),
    "taken": lambda x: x[jnp.array([3, 0, 1, 1])],
    "filled": lambda x: x.at[jnp.array([0, 9, 1, 7])].get(mode="fill", fill_value=-1.0),
    "reversed": lambda x: x[::-1],
    "trace of a square": lambda x: jnp.broadcast_to(
        jnp.einsum("ij,ji->", x[:, : x.shape[0]], x[:, : x.shape[0]]), x.shape
    ),
    "gram": lambda x: jnp.einsum("ij,kj->ik", x, x),
    "squares": lambda x: jnp.broadcast_to(jnp.einsum("ij,ij->i", x, x), x.shape),
    "bits": lambda x: lax.bitcast_convert_type(
        lax.bitcast_convert_type(x, jnp.uint32), jnp.float32
    ),
    "not": lambda x: (~jnp.floor(x).astype(jnp.int32)).astype(jnp.float32),
    "narrowed": lambda x: (
        (jnp.abs(x) * 100).astype(jnp.uint8).astype(jnp.int8).astype(jnp.float32)
    ),
}
BINARY = {
    "add": jnp.add,
    "subtract": jnp.subtract,
    "multiply": jnp.multiply,
    "maximum": jnp.maximum,
    "minimum": jnp.minimum,
    "divide": jnp.divide,
    "matmul": jnp.matmul,
    "concatenate": lambda a, b: jnp.concatenate([a[:2], b[2:]]),
    "updated": lambda a, b: a.at[1].set(b[0]),
    "where": lambda a, b: jnp.where(a > b, a, b),
    "power": lambda a, b: jnp.abs(a) ** b,
}


def assert_signs_hold(f, x):
    _, facts, values = analysed(f, x)
    for value, known in facts.items():
        if known.nonnegative:
            y = np.asarray(values[value]).astype(float)
            assert not (y < 0).any()


@pytest.mark.whole
@pytest.mark.parametrize("name", UNARY)
def test_value_that_is_called_nonnegative_is(name):
    assert_signs_hold(UNARY[name], X)
    assert_signs_hold(lambda x: UNARY[name](jax.nn.relu(x)), X)


@pytest.mark.whole
@pytest.mark.parametrize("name", BINARY)
def test_combination_that_is_called_nonnegative_is(name):
    f = BINARY[name]
    assert_signs_hold(f_of(f, jax.nn.relu, jnp.abs), X)
    assert_signs_hold(f_of(f, jax.nn.relu, lambda x: x), X)
    assert_signs_hold(f_of(f, lambda x: x, lambda x: x), X)


def f_of(f, a, b):
    return lambda x: f(a(x), b(x[::-1]))


CHAINED = sorted(set(UNARY) - {"bits", "not", "narrowed"})


@st.composite
def small_programs(draw):
    """A chain of operations on a list of values, as a function of one array."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(CHAINED + sorted(BINARY)),
                st.integers(0, 9),
                st.integers(0, 9),
            ),
            min_size=1,
            max_size=6,
        )
    )

    def f(x):
        values = [x]
        for name, i, j in steps:
            a, b = values[i % len(values)], values[j % len(values)]
            values.append(BINARY[name](a, b) if name in BINARY else UNARY[name](a))
        return values[-1]

    return f


@given(small_programs())
@settings(max_examples=30)
def test_signs_hold_in_any_program(f):
    assert_signs_hold(f, X)


@given(small_programs())
@settings(max_examples=30)
def test_axes_along_which_a_constant_is_said_to_stand_still(f):
    _, facts, values = analysed(f, X, active=[False])
    for value, known in facts.items():
        y = np.asarray(values[value])
        for axis in range(y.ndim):
            if axis not in known.varies and y.shape[axis] > 1:
                first = np.take(y, [0], axis)
                assert np.array_equal(
                    y, np.broadcast_to(first, y.shape), equal_nan=True
                )


@given(small_programs())
@settings(max_examples=30)
def test_what_depends_by_a_derivative_is_active(f):
    program, facts, _ = analysed(f, X)
    (out,) = program.outputs
    slope = jax.grad(lambda x: jnp.where(jnp.isfinite(y := f(x)), y, 0).sum())(X)
    if np.nan_to_num(np.asarray(slope)).any():
        assert isinstance(out, Value) and facts[out].active


def test_literals_speak_for_themselves():
    (a, b) = outputs(lambda x: (x * 0 + 2.0, jnp.maximum(x, -1.0)), X)
    assert not a.nonnegative  # x * 0 may be nan or -0
    assert not b.nonnegative


@pytest.mark.whole
@pytest.mark.parametrize(
    ("f", "layered"),
    [
        (lambda x: x @ X, True),
        (lambda x: jnp.tanh(x) + 1, False),
        (lambda x: x @ X + x, False),
        (lambda x: jnp.tanh(x @ X) @ X, True),
        (lambda x: jnp.concatenate([x @ X, X]), True),
        (lambda x: x @ x, False),
    ],
)
def test_layer_between_value_and_input(f, layered):
    (out,) = outputs(f, X)
    assert out.layered is layered


def test_tests_and_stopped_values_are_cut():
    a, b, c = outputs(lambda x: (jnp.argmax(x), lax.stop_gradient(x), x > 0), X)
    assert [f.active for f in (a, b, c)] == [False] * 3
    assert [f.cut for f in (a, b, c)] == [True] * 3


def test_a_cast_to_an_integer_names_something():
    a, b = outputs(lambda x: (x.astype(int), x.astype(bool)), X)
    assert (a.symbolic, a.active, a.cut) == (True, False, False)
    assert (b.symbolic, b.active, b.cut) == (False, False, True)


def test_what_is_made_of_nonnegative_values_is_known_to_be():
    def f(x):
        a, b = jax.nn.relu(x), jnp.abs(x)
        return (
            *(a + b, a * b, a / b, a @ b, jnp.minimum(a, b), jnp.maximum(a, x)),
            *(a.sum(0), a.mean(1), jnp.cumsum(a, 0), a.max(0), jnp.sort(a), a.T, a[1:]),
            *(
                a.prod(0),
                jnp.concatenate([a, b]),
                jnp.pad(a, 1),
                jnp.where(x > 0, a, b),
            ),
            *(x * x, x @ x.T, x**2, a**3, jnp.sqrt(a), jnp.tanh(a), jnp.exp(x)),
            *(jax.nn.sigmoid(x), jax.nn.softmax(x), jax.nn.softplus(x), 1 - x / b),
        )

    unknown = [18, 27]  # a product of rows with each other, and a difference
    known = [f.nonnegative for f in outputs(f, X)]
    assert [i for i, one in enumerate(known) if not one] == unknown


def test_what_is_narrowed_to_an_integer_may_become_negative():
    def f(x):
        size = jnp.abs(x)
        return size.astype(jnp.int8), size.astype(jnp.float32)

    program, facts, values = analysed(f, jnp.array([0, -200, 255]), active=[False])
    narrow, wide = program.outputs
    assert (values[narrow] < 0).any() and not facts[narrow].nonnegative
    assert (values[wide] >= 0).all() and facts[wide].nonnegative


def test_what_is_at_most_one_is_so_whatever_the_numbers():
    def f(x):
        gate = jax.nn.sigmoid(x)
        rest = 1.0 - gate
        return (
            *(gate, rest, -gate, gate * rest, 1.0 - x * x, gate[::-1]),
            jnp.where(x > 0, gate, rest),
            *(1.0 - x, 1.5 - gate, x * x, gate + gate, gate - x, x, -x, 2.0 * gate),
            *(jnp.where(x > 0, gate, 2.0), x * gate, gate / x),
            -jnp.exp(x) * -jnp.exp(x[::-1]),  # each is below zero
        )

    known = [f.at_most_one for f in outputs(f, X)]
    assert known == [True] * 7 + [False] * 12


def test_the_rest_of_one_is_nonnegative_where_what_is_taken_is_at_most_one():
    def f(x):
        gate = jax.nn.sigmoid(x)
        return 1.0 - gate, 1.0 - gate * gate, 1.0 - x, 1.0 - x * x, 0.5 - gate, x - gate

    assert [f.nonnegative for f in outputs(f, X)] == [True] * 2 + [False] * 4


def test_statistics_come_through_a_reduction():
    def f(x):
        square = (x * x).mean(-1, keepdims=True)
        root = lax.rsqrt(square + 1e-6)
        return square, root, x * root, x.max(-1), x @ X

    square, root, normed, peak, layer = outputs(f, X)
    assert square.reduced and not square.rooted
    assert root.reduced and root.rooted
    assert not normed.reduced and not normed.rooted
    assert peak.reduced
    assert not layer.reduced


def test_carry_is_active_after_any_step():
    """Relevance enters the second carry by way of the first."""

    def f(x):
        step = lambda c, _: ((x, c[0], c[1]), None)  # noqa: E731
        zeros = jnp.zeros_like(x)
        return lax.scan(step, (zeros, zeros, zeros), None, length=4)[0]

    assert [f.active for f in outputs(f, X)] == [True] * 3
    assert [f.nonnegative for f in outputs(f, X)] == [False] * 3


def test_carry_is_nonnegative_only_if_it_starts_and_stays_so():
    def f(x, start, step):
        body = lambda c, r: (step(c, r), c)  # noqa: E731
        return lax.scan(body, start(x[0]), x)

    cases = [
        (jnp.abs, lambda c, r: c + r * r, True),
        (jnp.abs, lambda c, r: c - r * r, False),
        (lambda r: r, lambda c, r: c + r * r, False),
        (jnp.abs, lambda c, r: c + r, False),
    ]
    for start, step, expected in cases:
        carry, stacked = outputs(lambda x, a=start, b=step: f(x, a, b), X)
        assert carry.nonnegative is expected
        assert stacked.nonnegative is expected


def test_recurrent_layer_keeps_its_input_layered():
    def f(x):
        step = lambda h, r: (jnp.tanh(r @ X + h @ X), h)  # noqa: E731
        return lax.scan(step, jnp.zeros(4), x)

    assert [f.layered for f in outputs(f, X)] == [True, True]


def test_what_the_input_makes_by_a_number_of_steps_is_cut():
    def f(x):
        def loop(bound, by):
            step = lambda c: (c[0] + 1.0, c[1] * by)  # noqa: E731
            return lax.while_loop(lambda c: c[0] < bound, step, (0.0, jnp.ones(4)))[1]

        return loop(x.sum(), 2.0), loop(3.0, 2.0), loop(3.0, x[0])

    decided, constant, active = outputs(f, X)
    assert decided.cut and not decided.active
    assert not constant.cut and active.active


def test_what_is_active_by_a_number_of_steps_is_not_cut():
    def f(x):
        by = lambda x: lax.while_loop(lambda c: c.sum() < 9, lambda c: c * 2 + 1, x)  # noqa: E731
        chosen = lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x)
        return by(jnp.exp(x)), chosen, lax.cond(x.sum() > 0, lambda: 1.0, lambda: 2.0)

    loop, branch, constant = outputs(f, X)
    assert loop.active and not loop.cut
    assert branch.active and not branch.cut
    assert constant.cut and not constant.active


def test_branches_are_joined():
    def f(x, i):
        return lax.switch(i, [lambda x: x @ X, jnp.abs, jnp.zeros_like], x)

    (out,) = outputs(f, X, jnp.int32(1), active=[True, False])
    assert out.active and not out.layered and not out.nonnegative
    (out,) = outputs(
        lambda x, i: lax.cond(i, jnp.abs, jnp.exp, x), X, True, active=[True, False]
    )
    assert out.nonnegative


def test_facts_join_as_alternatives():
    layer = Facts(active=True, layered=True, nonnegative=True)
    constant = Facts(varies=frozenset({1}))
    raw = Facts(active=True)
    assert layer.join(constant).layered
    assert not layer.join(raw).layered
    assert not layer.join(raw).nonnegative
    assert layer.join(constant).varies == {1}
    assert layer.join(raw) == raw.join(layer)


@pytest.mark.parametrize(
    "f",
    [
        jax.nn.softplus,
        lambda x: jnp.logaddexp(x, 0.0),
        lambda x: jnp.log1p(jnp.exp(x)),
        lambda x: jnp.expm1(jax.nn.relu(x)),
    ],
)
def test_softplus_is_known_to_be_nonnegative(f):
    """The case for NaN, `where(x != x, ...)`, says nothing about signs."""
    explain = jaxlrp.lrp(
        lambda x: f(x["gate"]) * x["signal"],
        jaxlrp.composites.AttnLRP().on("product", jaxlrp.rules.SignalTakesAll()),
        target="all",
    )
    found = explain({"gate": jnp.ones(3), "signal": -jnp.arange(1.0, 4.0)})
    np.testing.assert_allclose(found["gate"], 0.0)
    assert (found["signal"] < 0).all()


# ---- what is worked out once ---------------------------------------------------------


def nested(depth):
    def loop(x, depth=depth):
        if depth == 0:
            return jnp.tanh(x) * 2.0
        return jax.lax.fori_loop(0, 2, lambda _, h: loop(h, depth - 1), x)

    return loop


def test_the_facts_of_a_body_are_worked_out_once(monkeypatch):
    """The work grows as the program does, not as its power."""
    work = []
    monkeypatch.setattr(
        facts_module,
        "_equation_facts",
        lambda *args, own=facts_module._equation_facts: work.append(0) or own(*args),
    )
    counts = []
    for depth in range(1, 7):
        work.clear()
        read(jax.make_jaxpr(nested(depth))(X), [True], composites.Default())
        counts.append(len(work))
    steps = np.diff(counts)
    assert (steps == steps[0]).all() and counts[0] < 40


def test_calls_that_are_kept_can_be_written_out_inside_of_loops():
    @jax.jit
    def long(x):  # more equations than what is written out anyway, and a contraction
        for _ in range(12):
            x = jnp.tanh(x) * 1.5
        return x @ jnp.eye(x.shape[-1])

    def f(x):
        return jax.lax.fori_loop(0, 2, lambda _, h: long(long(h)), x)

    jaxpr = jax.make_jaxpr(f)(X)

    def roles(keep):
        reading = read(jaxpr, [True], composites.Default(), keep_calls=keep)
        return {s.role for step in reading.steps for b in step.bodies for s in b.steps}

    assert "call" in roles(True) and "call" not in roles(False)
