"""Calls that cannot be read: kernels, callbacks, fused attention, effects."""

import functools

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.extend.core import Primitive
from jax.interpreters import ad, mlir

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp.errors import UnexplainedPrimitiveError

rng = np.random.default_rng(0)
X, W = (rng.normal(size=s).astype(np.float32) for s in ((3, 4), (4, 4)))
EPSILON = composites.Epsilon(0.1)


def in_pallas(x):
    def kernel(x_ref, y_ref):
        y_ref[...] = jnp.sin(x_ref[...])

    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return pl.pallas_call(kernel, out_shape=shape, interpret=True)(x)


def in_python(x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(np.sin, shape, x, vmap_method="expand_dims")


def with_vjp(call):
    f = jax.custom_vjp(call)
    f.defvjp(lambda x: (call(x), x), lambda x, g: (g * jnp.cos(x),))
    return f


def with_jvp(call):
    f = jax.custom_jvp(call)
    f.defjvp(lambda xs, ts: (call(*xs), jnp.cos(*xs) * ts[0]))
    return f


OPAQUE = {
    "pallas, vjp": with_vjp(in_pallas),
    "pallas, jvp": with_jvp(in_pallas),
    "callback, vjp": with_vjp(in_python),
    "callback, jvp": with_jvp(in_python),
    "inside a jit": with_vjp(jax.jit(in_pallas)),
    "inside another": with_vjp(lambda x: with_vjp(in_pallas)(x)),
    "inside a scan": with_vjp(
        lambda x: lax.scan(lambda c, v: (c, in_pallas(v)), 0, x)[1]
    ),
}


def expected_of(rule):
    """The same with the sine by its gradient."""
    by_gradient = rule.on("activation", rules.Taylor())
    return jaxlrp.lrp(lambda x: jnp.sin(x @ W) @ W, by_gradient)(X)


@pytest.mark.parametrize("rule", [EPSILON, composites.Uniform(rules.Flat())])
@pytest.mark.parametrize("name", OPAQUE)
def test_relevance_is_gradient_times_input_of_what_has_a_derivative(name, rule):
    f = lambda x: OPAQUE[name](x @ W) @ W  # noqa: E731
    for explain in (jaxlrp.lrp(f, rule), jax.jit(jaxlrp.lrp(f, rule))):
        np.testing.assert_allclose(explain(X), expected_of(rule), rtol=1e-4, atol=1e-5)
    each = jax.vmap(jaxlrp.lrp(f, rule))(X)
    np.testing.assert_allclose(each, expected_of(rule), rtol=1e-4, atol=1e-5)


def test_the_plan_and_the_audit_say_so():
    f = lambda x: OPAQUE["pallas, vjp"](x @ W)  # noqa: E731
    row = jaxlrp.plan(f)(X).rows[-1]
    assert (row.role, row.exactness) == ("gradient", "Taylor")
    audit = jaxlrp.audit(f)(X)
    assert audit.absorbed["Taylor"] != 0
    assert abs(audit.residual) < 1e-5


def test_a_readable_function_is_read_through_its_derivative():
    zero = jax.custom_vjp(lambda x: jnp.tanh(x @ W))
    zero.defvjp(lambda x: (jnp.tanh(x @ W), x), lambda x, g: (0 * x,))
    expected = jaxlrp.lrp(lambda x: jnp.tanh(x @ W))(X)
    np.testing.assert_allclose(jaxlrp.lrp(zero)(X), expected, rtol=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize("call", [in_pallas, in_python])
def test_without_a_derivative_it_is_refused_with_a_way_out(call):
    with pytest.raises(UnexplainedPrimitiveError) as caught:
        jaxlrp.lrp(lambda x: call(x @ W))(X)
    for words in ("test_opaque.py", "jax.custom_vjp", "jaxlrp.custom_lrp"):
        assert words in str(caught.value)
    found, aux = jaxlrp.lrp(lambda x: (2 * x, call(x)), target="all", has_aux=True)(X)
    np.testing.assert_allclose(found, 2 * X)
    np.testing.assert_allclose(aux, np.sin(X), rtol=1e-6)


# ---- fused attention ---------------------------------------------------------------


def attention(q, k, v):
    weights = jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", q, k) / 2.0)
    return jnp.einsum("bqk,bkd->bqd", weights, v)


def _in_kernel(q, k, v):
    def kernel(q_ref, k_ref, v_ref, y_ref):
        y_ref[...] = attention(q_ref[...], k_ref[...], v_ref[...])

    shape = jax.ShapeDtypeStruct((*q.shape[:-1], v.shape[-1]), q.dtype)
    return pl.pallas_call(kernel, out_shape=shape, interpret=True)(q, k, v)


def fused(name):
    def call(q, k, v):
        return _in_kernel(q, k, v)

    call.__name__ = name
    f = jax.custom_vjp(call)
    f.defvjp(
        lambda q, k, v: (_in_kernel(q, k, v), (q, k, v)),
        lambda saved, g: jax.vjp(attention, *saved)[1](g),
    )
    return f


TOKENS = rng.normal(size=(2, 5, 4)).astype(np.float32)
Q, K, V = (rng.normal(size=s).astype(np.float32) for s in ((4, 4), (4, 4), (4, 3)))


def block(attend, x):
    return attend(x @ Q, x @ K, x @ V)


def cross(attend, x):
    """Only the values are explained."""
    return attend(TOKENS @ Q, TOKENS @ K, x @ V)


def routed(attend, x):
    """Only the queries are explained."""
    return attend(x @ Q, TOKENS @ K, TOKENS @ V)


RULES = {
    "Epsilon": composites.Epsilon(0.0),
    "AttnLRP": composites.AttnLRP(),
    "CPLRP": composites.CPLRP(),
    "flat": composites.Uniform(rules.Flat()),
}
# Written out, a product with a constant is a layer: under other rules no such product.
CASES = [
    *((block, name) for name in RULES),
    *((cross, name) for name in ("Epsilon", "CPLRP")),
    (routed, "Epsilon"),
]


@pytest.mark.parametrize(("net", "composite"), CASES)
def test_fused_attention_is_attention_written_out(net, composite):
    found, expected = (
        jaxlrp.lrp(functools.partial(net, f), RULES[composite], target="all")(TOKENS)
        for f in (fused("flash_attention"), attention)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_attention_is_known_by_a_name_or_a_scope():
    def roles(f):
        return [r.role for r in jaxlrp.plan(functools.partial(block, f))(TOKENS).rows]

    def scoped(q, k, v):
        with jax.named_scope("self_attention"):
            return fused("mix")(q, k, v)

    assert roles(fused("mha"))[-1] == "bilinear"
    assert roles(scoped)[-1] == "bilinear"
    assert roles(fused("mix"))[-1] == "gradient"


def test_what_has_other_shapes_is_no_attention():
    f = jax.custom_vjp(lambda q, k, v: in_pallas(q + k) + v)
    f.defvjp(lambda q, k, v: (q, None), lambda _, g: (g, g, g))
    narrow = lambda x: f(x, x, x)  # noqa: E731
    assert jaxlrp.plan(narrow)(X).rows[-1].role != "bilinear"


# ---- calls with rules for vmap, effects, donated buffers ---------------------------


def test_a_function_with_a_rule_for_vmap_is_read():
    f = jax.custom_batching.custom_vmap(lambda x: jnp.tanh(x @ W))
    f.def_vmap(lambda size, batched, x: (jnp.tanh(x @ W), True))
    expected = jaxlrp.lrp(lambda x: jnp.tanh(x @ W), EPSILON)(X)
    for g in (f, jax.vmap(f)):
        np.testing.assert_allclose(jaxlrp.lrp(g, EPSILON)(X), expected, rtol=1e-5)
    each = jax.vmap(jaxlrp.lrp(f, EPSILON))(X)
    np.testing.assert_allclose(each, expected, rtol=1e-5)


def test_ordered_effects_keep_their_order():
    seen = []

    def f(x):
        for name in ("a", "b"):
            jax.debug.callback(lambda n=name: seen.append(n), ordered=True)
            x = jnp.tanh(x @ W)
        return x

    jax.block_until_ready(jax.jit(jaxlrp.lrp(f))(X))
    jax.effects_barrier()
    assert seen == ["a", "b"]


def test_effects_in_what_is_rematerialised_run_once():
    seen = []

    @jax.checkpoint
    def f(x):
        jax.debug.callback(lambda v: seen.append(v), x.sum())
        return jnp.tanh(x @ W)

    for explain in (jaxlrp.lrp(f), jax.jit(jaxlrp.lrp(f))):
        seen.clear()
        jax.block_until_ready(explain(X))
        jax.effects_barrier()
        assert len(seen) == 1


def test_donated_buffers():
    f = lambda x: jnp.tanh(x @ W)  # noqa: E731
    expected = jaxlrp.lrp(f)(X)
    given = jnp.array(X)
    found = jax.jit(jaxlrp.lrp(f), donate_argnums=0)(given)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert given.is_deleted()


def test_effects_with_results_in_a_loop_are_refused():
    def body(h):
        noise = jax.experimental.io_callback(lambda: X, jax.typeof(X))
        return h + noise

    f = lambda x: lax.while_loop(lambda h: h.sum() < 9, body, x)  # noqa: E731
    with pytest.raises(UnexplainedPrimitiveError, match="while loop at .*test_opaque"):
        jaxlrp.lrp(f)(jnp.ones_like(X))


# ---- derivatives that stand in for none --------------------------------------------


def straight_through(wrap, quantise):
    f = wrap(quantise)
    if wrap is jax.custom_vjp:
        f.defvjp(lambda x: (quantise(x), None), lambda _, g: (g,))
    else:
        f.defjvp(lambda xs, ts: (quantise(*xs), ts[0]))
    return f


def nearest(x):
    table = jnp.asarray(W)
    return table[((x[:, None] - table) ** 2).sum(-1).argmin(1)]


QUANTISED = {
    "sign": jnp.sign,
    "nearest in a table": nearest,
}


@pytest.mark.parametrize("wrap", [jax.custom_vjp, jax.custom_jvp])
@pytest.mark.parametrize("name", QUANTISED)
def test_a_derivative_counts_where_the_function_itself_passes_nothing(name, wrap):
    quantise = QUANTISED[name]
    x = jnp.asarray(3 * X)
    f = lambda x: straight_through(wrap, quantise)(x) @ W  # noqa: E731
    plain = composites.Composite("plain").on("activation", rules.Taylor())
    found = jaxlrp.lrp(f, plain, target="all")(x)
    np.testing.assert_allclose(found, x * W.sum(1), rtol=1e-4)
    found = jaxlrp.lrp(f, target="all")(x)
    by_identity = wrap is jax.custom_jvp and name != "nearest in a table"
    expected = quantise(x) if by_identity else x
    np.testing.assert_allclose(found, expected * W.sum(1), rtol=1e-3, atol=1e-4)
    audit = jaxlrp.audit(f, target="all")(x)
    assert abs(audit.residual) < 1e-4 * abs(audit.total_out)


# ---- primitives of other packages ----------------------------------------------------


PACKED, SCALES = np.tril(rng.normal(size=(3, 2)), -1), np.array([0.5, 0.8])
PACKED = np.asarray(np.concatenate([PACKED, np.zeros((3, 1))], 1), np.float32)
SCALES = np.asarray(SCALES, np.float32)


def reflected(x):
    """A product of a matrix by reflections, which JAX makes but does not derive."""
    return lax.linalg.householder_product(PACKED + 0 * x.sum(), SCALES) @ x


def foreign_primitive(name, derivative):
    """A primitive in which something is refused, with its own derivative or none."""
    primitive = Primitive(name)
    primitive.def_impl(reflected)
    primitive.def_abstract_eval(lambda x: jax.core.ShapedArray(x.shape, x.dtype))
    mlir.register_lowering(primitive, mlir.lower_fun(reflected, multiple_results=False))
    if derivative:
        ad.deflinear2(primitive, lambda c, x: [by_matrix(c, transpose=True)])
    return primitive


def by_matrix(x, transpose=False):
    q = lax.linalg.householder_product(PACKED, SCALES)
    return (q.T if transpose else q) @ x


derived_p, bare_p = foreign_primitive("derived", True), foreign_primitive("bare", False)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_foreign_primitive_of_what_is_refused_has_its_own_derivative(compiled):
    apply = jax.jit if compiled else lambda f: f
    found = apply(jaxlrp.lrp(lambda x: jnp.tanh(derived_p.bind(x)), target="all"))(X)
    expected = jaxlrp.lrp(lambda x: jnp.tanh(by_matrix(x)), target="all")(X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_plan_counts_its_derivative_as_taylor():
    plan = jaxlrp.plan(lambda x: jnp.tanh(derived_p.bind(x)))(X)
    (row,) = [row for row in plan.rows if "derived" in row.primitives]
    assert (row.role, row.exactness) == ("gradient", "Taylor")
    assert "1 Taylor" in str(plan) and plan.coverage == 1
    report = jaxlrp.audit(lambda x: jnp.tanh(derived_p.bind(x)), target="all")(X)
    assert [step.role for step in report.steps] == ["gradient", "activation"]


def test_it_counts_as_readable_in_a_function_with_a_derivative_of_its_own():
    @jax.custom_jvp
    def f(x):
        return jnp.tanh(derived_p.bind(x))

    f.defjvp(lambda xs, ts: (f(*xs), ts[0]))
    rows = jaxlrp.plan(f)(X).rows
    assert ["derived"] in [list(row.primitives) for row in rows]


def test_an_operand_that_only_the_derivative_knows_has_its_relevance():
    """A solver is given a matrix and its inverse, and reads the latter alone."""
    solve_p = Primitive("solve")
    solve_p.def_impl(lambda a, inverse, b: inverse @ b)
    solve_p.def_abstract_eval(lambda a, inverse, b: b)

    def derivative(primals, tangents):
        a, inverse, b = primals
        x = solve_p.bind(a, inverse, b)
        change = jnp.zeros_like(b)
        if not isinstance(tangents[0], ad.Zero):
            change = change - inverse @ (tangents[0] @ x)
        if not isinstance(tangents[2], ad.Zero):
            change = change + inverse @ tangents[2]
        return x, change

    ad.primitive_jvps[solve_p] = derivative
    lowered = mlir.lower_fun(lambda a, i, b: i @ b, multiple_results=False)
    mlir.register_lowering(solve_p, lowered)
    inverse = np.linalg.inv(W)
    f = lambda a: solve_p.bind(a, lax.stop_gradient(inverse), X[0])  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(W)
    by_hand = W * jax.grad(lambda a: jnp.linalg.solve(a, X[0]).sum())(W)
    np.testing.assert_allclose(found, by_hand, rtol=1e-3, atol=1e-4)


def test_without_a_derivative_it_is_refused():
    with pytest.raises(UnexplainedPrimitiveError, match="householder_product"):
        jaxlrp.lrp(bare_p.bind, target="all")(X)


# ---- loops in functions with a derivative of their own -------------------------------


@jax.custom_jvp
def root_by_loop(x):
    """Newton's method: JAX cannot run the loop backwards."""
    far = lambda c: jnp.abs(c * c - x).max() > 1e-3  # noqa: E731
    return lax.while_loop(far, lambda c: (c + x / c) / 2, jnp.ones_like(x))


@root_by_loop.defjvp
def _(primals, tangents):
    y = root_by_loop(*primals)
    return y, tangents[0] / (2 * y)


@jax.custom_jvp
def sines(x, count):
    return lax.fori_loop(0, count, lambda _, c: jnp.sin(c), x)


@sines.defjvp
def _(primals, tangents):
    return sines(*primals), tangents[0] / 2


LOOPS = {
    "while": root_by_loop,
    "fori_loop with a traced bound": lambda x: sines(x, jnp.int32(3) + (x[0, 0] > 9)),
}
AROUND = {
    "jit": jax.jit,
    "jit in jit": lambda f: jax.jit(lambda x: jax.jit(f)(x) * 2),
    "vmap": lambda f: lambda x: jax.vmap(f)(x[:, None])[:, 0],
    "scan": lambda f: lambda x: lax.scan(lambda c, _: (f(c), None), x, None, 2)[0],
    "checkpoint": jax.checkpoint,
    "cond": lambda f: lambda x: lax.cond(x[0, 0] < 9, f, lambda x: x, x),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_in_a_function_with_its_own_derivative(loop, around, compiled):
    f = AROUND[around](LOOPS[loop])
    explain = jaxlrp.lrp(lambda x: f(x @ W + 9) @ W, EPSILON, target="all")
    found = (jax.jit if compiled else lambda f: f)(explain)(X)
    assert np.isfinite(found).all() and np.asarray(found).any()
