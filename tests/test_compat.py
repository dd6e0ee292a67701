"""Every seam to JAX's inside, by what a public function makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxlrp import _compat

X = jnp.arange(6.0).reshape(2, 3)


def equation(f, *args):
    """The only equation of a traced function."""
    (eqn,) = _compat.open_jaxpr(jax.make_jaxpr(f)(*args))[0].eqns
    return eqn


def test_jaxpr_and_its_constants():
    constant = np.arange(3.0, dtype="float32")
    closed = jax.make_jaxpr(lambda x: x + constant)(X)
    jaxpr, consts = _compat.open_jaxpr(closed)
    assert [eqn.primitive.name for eqn in jaxpr.eqns][-1] == "add"
    variables = _compat.constvars(jaxpr)
    assert len(variables) == len(consts)
    for variable, const in zip(variables, consts, strict=True):
        assert variable.aval.shape == np.shape(const)
    # Opening what is open changes nothing.
    again, none = _compat.open_jaxpr(jaxpr)
    assert [e.primitive for e in again.eqns] == [e.primitive for e in jaxpr.eqns]
    assert len(none) in (0, len(consts))


def scan_with_constants(init, xs, a, b):
    def step(carry, x):
        c, d = carry
        return (c + (a * x)[0], d + (b * x)[0]), x

    return lax.scan(step, (init, init), xs)


@pytest.mark.parametrize("length", [0, 1, 4])
def test_scan_is_split_into_constants_carries_and_inputs(length):
    arguments = (jnp.zeros(()), jnp.zeros(length), jnp.ones(3), jnp.ones(2))
    eqn = equation(scan_with_constants, *arguments)
    consts, carries = _compat.scan_split(dict(eqn.params))
    assert (consts, carries) == (2, 2)
    assert len(eqn.invars) == 5
    assert eqn.params["length"] == length


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (jax.jit(jnp.sin), "jit"),
        (jax.checkpoint(jnp.sin), "remat2"),
        (jax.nn.relu, "custom_jvp_call"),
    ],
)
def test_called_jaxpr_is_found_whatever_its_name(f, name):
    eqn = equation(f, X)
    if eqn.primitive.name != name:  # jit around custom_jvp_call, remat by version
        body = _compat.called_jaxpr(eqn.params)
        (eqn,) = _compat.open_jaxpr(body)[0].eqns
    body = _compat.called_jaxpr(eqn.params)
    assert body is not None
    assert len(_compat.open_jaxpr(body)[0].invars) == 1


def test_called_jaxpr_of_a_custom_vjp():
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g,))
    body = _compat.called_jaxpr(equation(f, X).params)
    assert [e.primitive.name for e in _compat.open_jaxpr(body)[0].eqns] == ["sin"]


def test_plain_equation_calls_nothing():
    assert _compat.called_jaxpr(equation(jnp.sin, X).params) is None


def test_value_is_known_or_traced():
    seen = []
    jax.jit(lambda x: seen.append(_compat.is_known(x)))(X)
    jax.grad(lambda x: (seen.append(_compat.is_known(x)), x.sum())[1])(X)
    assert seen == [False, False]
    assert _compat.is_known(X) and _compat.is_known(3)


def test_source_line_and_scope_of_an_equation():
    def f(x):
        with jax.named_scope("outer"), jax.named_scope("inner"):
            return jnp.sin(x)

    eqn = equation(f, X)
    assert _compat.name_stack(eqn.source_info) == "outer/inner"
    summary = _compat.summarize(eqn.source_info)
    assert "test_compat.py" in summary and summary.endswith("f)")


BINDABLE = {
    "plain": jnp.sin,
    "jit": jax.jit(lambda x: jnp.sin(x) * 2),
    "relu": jax.nn.relu,
    "remat": jax.checkpoint(jnp.sin),
    "scan": lambda x: lax.scan(lambda c, r: (c + r, c), jnp.zeros(3), x),
    "cond": lambda x: lax.cond(True, jnp.sin, jnp.cos, x),
    "top_k": lambda x: lax.top_k(x, 2),
}


@pytest.mark.parametrize("name", BINDABLE)
def test_equation_can_be_evaluated_again(name):
    f = BINDABLE[name]
    jaxpr, consts = _compat.open_jaxpr(jax.make_jaxpr(f)(X))
    values = dict(zip(jaxpr.invars, [X], strict=True))
    values.update(zip(_compat.constvars(jaxpr), consts, strict=True))
    for eqn in jaxpr.eqns:
        operands = [v.val if hasattr(v, "val") else values[v] for v in eqn.invars]
        bind = _compat.primitive_bind(eqn.primitive, dict(eqn.params))
        results = bind(*operands)
        assert isinstance(results, list)
        values.update(zip(eqn.outvars, results, strict=True))
    found = [values[v] for v in jaxpr.outvars]
    for y, expected in zip(found, jax.tree.leaves(f(X)), strict=True):
        np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_context_gives_back_line_and_scope():
    eqn = equation(jnp.sin, X)

    def f(x):
        with _compat.equation_context(eqn.source_info, eqn.ctx, "outer/inner"):
            return jnp.cos(x)

    again = equation(f, X)
    assert _compat.name_stack(again.source_info) == "outer/inner"


def test_defined_call_evaluates_under_every_transformation():
    def evaluate(x, *, factor):
        return [jnp.sin(x) * factor, x.sum()]

    def batch(operands, dims, *, factor):
        outs = jax.vmap(lambda x: evaluate(x, factor=factor), in_axes=tuple(dims))(
            *operands
        )
        return outs, [0, 0]

    primitive = _compat.define_call("doubled", evaluate, batch)
    f = lambda x: primitive.bind(x, factor=2.0)[0]  # noqa: E731
    expected = 2 * jnp.sin(X)
    np.testing.assert_allclose(f(X), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(f)(X), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(f, 1, 1)(X), expected, rtol=1e-6)
    slope = jax.grad(lambda x: f(x).sum())(X)
    np.testing.assert_allclose(slope, 2 * jnp.cos(X), rtol=1e-5)
    assert equation(f, X).primitive.name == "doubled"
    (out, _) = jax.eval_shape(lambda x: primitive.bind(x, factor=2.0), X)
    assert out.shape == X.shape


def test_the_barrier():
    assert equation(lax.optimization_barrier, X).primitive is _compat.barrier()


def test_types_of_arrays():
    (value,) = equation(jnp.sin, X).outvars
    assert _compat.is_sized(value.aval)
    assert _compat.stack_of(value.aval, 4).shape == (4, *X.shape)
    jaxpr = jax.make_jaxpr(lambda x: jax.new_ref(x)[...])(X)
    (made,) = _compat.open_jaxpr(jaxpr)[0].eqns[0].outvars
    assert not _compat.is_sized(made.aval)


@pytest.mark.parametrize("prevent_cse", [True, (True, False)])
def test_a_checkpoint_is_given_another_body(prevent_cse):
    f = jax.checkpoint(lambda a, b: a + b, prevent_cse=prevent_cse)
    try:
        eqn = equation(f, X, X)
    except TypeError:  # JAX 0.10 takes one answer for all operands
        assert prevent_cse is not True
        return
    constant = np.arange(3.0, dtype="float32")
    body = lambda x, y, z: [x * y - z + constant]  # noqa: E731
    bind = _compat.with_body(eqn.primitive, eqn.params, body, [1, None, 0])
    np.testing.assert_array_equal(bind(X, X, X)[0], X * X - X + constant)
    again = equation(lambda *xs: bind(*xs)[0], X, X, X)
    assert again.primitive is eqn.primitive
    if prevent_cse is not True:
        assert again.params["prevent_cse"][-3:] == (False, True, True)
