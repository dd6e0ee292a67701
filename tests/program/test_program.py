"""A program is a jaxpr with its calls written out, no more and no less."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Literal, Primitive

import jaxlrp
from jaxlrp import _compat
from jaxlrp._program.program import flatten

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)


def program_of(f, *args):
    return flatten(jax.make_jaxpr(f)(*args))


def names(program):
    return [equation.primitive.name for equation in program.equations]


def evaluate(program, *args):
    values = dict(zip(program.inputs, args, strict=True)) | dict(program.constants)

    def read(v):
        return v.val if isinstance(v, Literal) else values[v]

    for equation in program.equations:
        bind = _compat.primitive_bind(equation.primitive, dict(equation.params))
        results = bind(*map(read, equation.inputs))
        values.update(zip(equation.outputs, results, strict=True))
    return [read(v) for v in program.outputs]


@jax.custom_vjp
def twice(x):
    return x + x


twice.defvjp(lambda x: (2 * x, None), lambda _, g: (3 * g,))

FUNCTIONS = {
    "plain": lambda x: jnp.sin(x) * 2,
    "jit": jax.jit(lambda x: jax.jit(jnp.sin)(x) * 2),
    "custom jvp": lambda x: jax.nn.relu(x) @ x,
    "custom vjp": lambda x: twice(x) + 1,
    "closure": lambda x: x @ X + X[0],
    "identity": lambda x: x,
    "constant": lambda x: (x, 1.0, X),
    "repeated": lambda x: functools.reduce(lambda h, _: block(h), range(3), x),
    "scan": lambda x: lax.scan(lambda c, r: (c + jnp.sin(r), c * r), x[0], x),
    "cond": lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
    "remat": jax.checkpoint(lambda x: jnp.sin(jnp.cos(x))),
    "swapped": jax.jit(lambda x: (x[1], x[0], x[1])),
}


@jax.jit
def block(x):
    for _ in range(4):
        x = jnp.tanh(x @ X) * 0.5 + 0.1 - x
    return x


@pytest.mark.parametrize("name", FUNCTIONS)
def test_program_computes_what_the_function_does(name):
    f = FUNCTIONS[name]
    found = evaluate(program_of(f, X), X)
    for y, expected in zip(found, jax.tree.leaves(f(X)), strict=True):
        np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_calls_are_written_out():
    assert names(program_of(FUNCTIONS["jit"], X)) == ["sin", "mul"]
    assert names(program_of(FUNCTIONS["custom vjp"], X)) == ["add", "add"]


def test_elementwise_function_with_its_own_derivative_is_kept():
    kept = names(program_of(lambda x: jax.nn.relu(x) @ x, X))
    assert kept == ["custom_jvp_call", "dot_general"]


def test_custom_jvp_that_mixes_elements_is_written_out():
    @jax.custom_jvp
    def f(x):
        return x / x.sum()

    f.defjvp(lambda p, t: (f(*p), t[0]))
    assert "custom_jvp_call" not in names(program_of(f, X))


def test_a_custom_jvp_of_nothing_is_written_out():
    @jax.custom_jvp
    def held(x):  # as equinox.internal.nondifferentiable
        return x

    @held.defjvp
    def refuse(primals, tangents):
        raise RuntimeError("no derivative")

    def f(x):
        return lax.fori_loop(0, 3, lambda i, x: held(x) + x, x)

    assert "custom_jvp_call" not in names(program_of(held, X))
    found = jaxlrp.lrp(f, target="all")(X)
    np.testing.assert_allclose(found, f(X), rtol=1e-6)


def test_large_repeated_jit_is_kept_and_a_single_one_is_not():
    assert names(program_of(FUNCTIONS["repeated"], X)) == ["jit"] * 3
    assert "jit" not in names(program_of(block, X))


def test_small_repeated_jit_is_written_out():
    small = jax.jit(lambda x: jnp.tanh(x @ X))
    assert "jit" not in names(program_of(lambda x: small(small(x)), X))


def test_dead_equations_are_dropped_and_effects_are_not():
    def f(x):
        jnp.cos(x)
        jax.debug.print("{}", x[0, 0])
        return jnp.sin(x)

    found = names(program_of(f, X))
    assert "cos" not in found
    assert found[-1] == "sin"
    assert any("debug" in name for name in found)


def test_effects_inside_bodies_count():
    def step(c, r):
        jax.debug.print("{}", c)
        return c, None

    def f(x):
        lax.scan(step, 0.0, x)
        return x

    program = program_of(f, X)
    assert any(e.effectful for e in program.equations)


def test_scopes_are_joined_through_calls():
    def f(x):
        with jax.named_scope("outer"):
            return jax.jit(inner)(x)

    def inner(x):
        with jax.named_scope("inner"):
            return jnp.sin(x)

    (equation,) = program_of(f, X).equations
    assert equation.scope.split("/")[0] == "outer"
    assert equation.scope.split("/")[-1] == "inner"


def test_same_input_twice_is_one_value():
    program = program_of(jax.jit(lambda x: x * x), X)
    (equation,) = program.equations
    assert equation.inputs[0] is equation.inputs[1]


def test_equation_knows_its_line():
    (equation,) = program_of(lambda x: jnp.sin(x), X).equations
    assert "test_program.py" in _compat.summarize(equation.source)


def test_zeros_of_both_signs_are_not_merged():
    f = lambda x: jnp.stack([x / 0.0, x / (-0.0)])  # noqa: E731
    value, _ = jax.jit(jaxlrp.value_and_lrp(f, target="all"))(jnp.ones(2))
    np.testing.assert_array_equal(value, f(jnp.ones(2)))


def test_equal_layers_in_different_scopes_keep_their_rules():
    w = jnp.arange(1.0, 7.0).reshape(2, 3)

    def f(x):
        with jax.named_scope("a"):
            y = x @ w
        with jax.named_scope("b"):
            z = x @ w
        return y + 2 * z

    composite = jaxlrp.composites.AttnLRP().on(
        "dense", jaxlrp.rules.Detach(), scope="b*"
    )
    x = jnp.asarray([1.0, -2.0])
    found = jaxlrp.lrp(f, composite, target="all")(x)
    np.testing.assert_allclose(found, x * w.sum(1), rtol=1e-6)


def test_effects_in_a_loop_that_nothing_reads_run():
    seen = []

    def f(x):
        def step(i):
            jax.debug.callback(lambda i: seen.append(int(i)), i)
            return i + 1

        jax.lax.while_loop(lambda i: i < 3, step, 0)
        return x * 2

    jaxlrp.lrp(f, target="all")(jnp.ones(2))
    jax.effects_barrier()
    assert sorted(seen) == [0, 1, 2]


# ---- primitives of other packages -------------------------------------------------


def named_primitive(implementation, name="theirs"):
    primitive = Primitive(name)
    primitive.def_impl(implementation)
    primitive.def_abstract_eval(lambda x, **_: x)
    return primitive


def test_a_primitive_that_is_written_in_jax_is_read_as_what_it_computes():
    theirs_p = named_primitive(lambda x, power: jnp.tanh(x) ** power)
    f = lambda x: theirs_p.bind(x, power=3)  # noqa: E731
    assert names(program_of(f, X)) == ["tanh", "integer_pow"]


@pytest.mark.parametrize(
    "implementation", [lambda x: np.sin(np.asarray(x)), lambda x: x.sum()]
)
def test_a_primitive_of_something_else_is_left_as_it_is(implementation):
    theirs_p = named_primitive(implementation)
    assert names(program_of(theirs_p.bind, X)) == ["theirs"]


def test_a_primitive_that_calls_itself_is_left_as_it_is():
    theirs_p = named_primitive(lambda x: jax.jit(theirs_p.bind)(x))
    assert names(program_of(theirs_p.bind, X)) == ["theirs"]


@pytest.mark.parametrize("readable", [True, False])
def test_it_is_read_in_a_function_with_a_derivative_of_its_own(readable):
    foreign = lambda x: np.sin(np.asarray(x))  # noqa: E731
    theirs_p = named_primitive(jnp.sin if readable else foreign)

    @jax.custom_vjp
    def f(x):
        return lax.cond(x[0, 0] > 0, theirs_p.bind, jnp.cos, x)

    f.defvjp(lambda x: (f(x), None), lambda _, g: (g,))
    expected = "cond" if readable else "custom_vjp_call"
    assert expected in names(program_of(f, X))
