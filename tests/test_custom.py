"""Users' own rules: for primitives and for functions, under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive, primitives
from jax.interpreters import ad, batching, mlir

import jaxlrp
from jaxlrp import composites, errors
from jaxlrp.primitives import _book

ATTN_LRP = composites.AttnLRP()
X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
W = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4)), jnp.float32)


@pytest.fixture(autouse=True)
def book_as_found(monkeypatch):
    """Rules that a test registers are taken out again."""
    monkeypatch.setattr(_book, "_by_primitive", dict(_book._by_primitive))


# ---- register_rule -------------------------------------------------------------------


def new_primitive(f, name="cubed"):
    """A primitive that evaluates `f`, with a vmap rule and a derivative."""
    primitive = Primitive(name)
    primitive.def_impl(f)
    primitive.def_abstract_eval(lambda x: x)
    ad.defjvp(primitive, lambda g, x: g * jax.grad(lambda v: f(v).sum())(x))
    batching.defvectorized(primitive)
    mlir.register_lowering(primitive, mlir.lower_fun(f, multiple_results=False))
    return primitive


@pytest.fixture
def cubed_p():
    """With the identity rule."""
    primitive = new_primitive(lambda x: x**3)

    @jaxlrp.register_rule(primitive)
    def identity(apply, active, x, **params):
        y = apply(x)
        return jaxlrp.route(y, [x], [y / x])

    return primitive


def test_registered_rule_is_used(cubed_p):
    f = lambda x: cubed_p.bind(x @ W)  # noqa: E731
    z = X @ W
    expected = X * (z**2 @ W.T)
    np.testing.assert_allclose(
        jaxlrp.lrp(f, ATTN_LRP, target="all")(X), expected, rtol=1e-3, atol=1e-4
    )
    plan = jaxlrp.plan(f)(X)
    assert plan.coverage == 1.0
    assert [(r.role, r.exactness) for r in plan.rows][-1] == ("custom", "custom")


def test_registered_rule_under_transformations(cubed_p):
    f = lambda x: cubed_p.bind(x @ W) @ W  # noqa: E731
    explain = jaxlrp.lrp(f, ATTN_LRP, target="all")
    expected = explain(X)
    close = dict(rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(jax.jit(explain)(X), expected, **close)
    np.testing.assert_allclose(jax.vmap(explain)(X), expected, **close)
    np.testing.assert_allclose(
        jaxlrp.lrp(jax.checkpoint(f), ATTN_LRP, target="all")(X), expected, **close
    )
    scanned = lambda x: lax.scan(lambda c, r: (c, f(r)), None, x)[1]  # noqa: E731
    np.testing.assert_allclose(
        jaxlrp.lrp(scanned, ATTN_LRP, target="all")(X), expected, **close
    )
    # The plain function keeps its derivative, and the relevance has one.
    slope = jax.grad(lambda x: f(x).sum())(X)
    np.testing.assert_allclose(slope, 3 * (X @ W) ** 2 * W.sum(1) @ W.T, **close)
    assert np.isfinite(jax.grad(lambda x: explain(x).sum())(X)).all()


def test_registered_rule_conserves_behind_any_target(cubed_p):
    f = lambda x: cubed_p.bind(x @ W)  # noqa: E731
    _, pull = jaxlrp.relprop(f, X, composite=ATTN_LRP)
    r = jnp.ones((3, 4))
    np.testing.assert_allclose(pull(r).sum(), 12.0, rtol=1e-3)


def test_plain_arithmetic_is_gradient_times_input():
    primitive = new_primitive(lambda x: x**3)
    jaxlrp.register_rule(primitive)(lambda apply, active, x, **params: x * x * x)
    found = jaxlrp.lrp(lambda x: primitive.bind(x), target="all")(X)
    np.testing.assert_allclose(found, 3 * X**3, rtol=1e-5)


def test_route_without_surrogates_lets_nothing_pass():
    primitive = new_primitive(lambda x: x**3)

    @jaxlrp.register_rule(primitive)
    def detach(apply, active, x, **params):
        return jaxlrp.route(apply(x), [], [])

    f = lambda x: primitive.bind(x) + x  # noqa: E731
    np.testing.assert_allclose(jaxlrp.lrp(f, target="all")(X), X, rtol=1e-5)


def test_rule_replaces_that_of_the_book():
    @jaxlrp.register_rule(primitives.tanh_p)
    def gradient(apply, active, x, **params):
        return apply(x)

    found = jaxlrp.lrp(jnp.tanh, target="all")(X)
    np.testing.assert_allclose(found, X / jnp.cosh(X) ** 2, rtol=1e-4)


def test_rule_sees_which_operands_are_active_and_the_parameters():
    seen = []

    @jaxlrp.register_rule(primitives.dot_general_p)
    def spy(apply, active, a, b, **params):
        seen.append((tuple(active), params["dimension_numbers"]))
        return apply(a, b)

    jaxlrp.lrp(lambda x: x @ W)(X)
    jaxlrp.lrp(lambda x: W @ x.T)(X)
    assert [active for active, _ in seen] == [(True, False), (False, True)]
    assert seen[0][1] == (((1,), (0,)), ((), ()))


def test_rule_of_a_primitive_with_several_results():
    @jaxlrp.register_rule(primitives.top_k_p)
    def all_of_it(apply, active, x, **params):
        values, indices = apply(x)
        return [jaxlrp.route(values, [values], [jnp.ones_like(values)]), indices]

    found = jaxlrp.lrp(lambda x: lax.top_k(x, 2)[0], target="all")(X)
    np.testing.assert_allclose(found.sum(), lax.top_k(X, 2)[0].sum(), rtol=1e-5)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda apply, active, x: apply(x)[0], r"returned float32\[4\], expected "),
        (lambda apply, active, x: apply(x) > 0, r"returned bool\[3, ?4\], expected"),
    ],
)
def test_registered_rule_of_the_wrong_form(rule, message):
    primitive = new_primitive(lambda x: x**3, "wrong")
    jaxlrp.register_rule(primitive)(rule)
    with pytest.raises(errors.RuleError, match="rule of primitive 'wrong' " + message):
        jaxlrp.lrp(lambda x: primitive.bind(x))(X)


def test_registered_rule_with_too_few_results():
    jaxlrp.register_rule(primitives.top_k_p)(lambda apply, active, x, **_: apply(x)[:1])
    with pytest.raises(errors.RuleError, match="'top_k' returned 1 results, expected"):
        jaxlrp.lrp(lambda x: lax.top_k(x, 2)[0])(X)


@pytest.mark.whole
@pytest.mark.parametrize("thing", ["tanh", jnp.tanh, None])
def test_only_primitives_can_be_registered(thing):
    with pytest.raises(TypeError, match="primitive: got .*, expected a jax.extend"):
        jaxlrp.register_rule(thing)


# ---- custom_lrp ----------------------------------------------------------------------


def make_scaled():
    """`tanh(a x)`: three quarters to x, one to a, whatever their values."""

    @jaxlrp.custom_lrp
    def scaled(a, x):
        """A scaled tanh."""
        return jnp.tanh(a * x)

    def forward(a, x):
        return scaled.fun(a, x), (a, x)

    def relprop(residuals, r):
        a, x = residuals
        to_a = 0.25 * r
        return to_a.sum() if jnp.ndim(a) == 0 else to_a, 0.75 * r

    scaled.deflrp(forward, relprop)
    return scaled


A = jnp.asarray(np.random.default_rng(2).normal(size=(3, 4)), jnp.float32)


def test_function_with_a_rule_is_the_plain_function():
    scaled = make_scaled()
    assert scaled.__doc__ == "A scaled tanh." and scaled.__name__ == "scaled"
    plain = lambda a, x: jnp.tanh(a * x)  # noqa: E731
    np.testing.assert_allclose(scaled(A, X), plain(A, X), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(scaled)(A, X), plain(A, X), rtol=1e-6)
    np.testing.assert_allclose(
        jax.vmap(scaled, (None, 0))(A[0], X), plain(A[0], X), rtol=1e-6
    )
    for differentiate in (jax.grad, lambda f: jax.jit(jax.grad(f))):
        found, expected = (
            differentiate(lambda x, f=f: f(A, x).sum())(X) for f in (scaled, plain)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    found, expected = (
        jax.jvp(lambda x, f=f: f(A, x), (X,), (W[:3],))[1] for f in (scaled, plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_rule_of_a_function_is_used():
    scaled = make_scaled()
    out, pull = jaxlrp.relprop(scaled, A, X, argnums=(0, 1))
    r = jnp.ones_like(out)
    to_a, to_x = pull(r)
    np.testing.assert_allclose(to_a, 0.25 * r)
    np.testing.assert_allclose(to_x, 0.75 * r)
    explain = jaxlrp.lrp(scaled, target="all")
    np.testing.assert_allclose(explain(A, X), 0.75 * scaled(A, X), rtol=1e-5)


def test_rule_of_a_function_inside_a_network():
    scaled = make_scaled()
    f = lambda x: scaled(A, x @ W) @ W  # noqa: E731
    found = jaxlrp.lrp(f, ATTN_LRP, target="all")(X)
    np.testing.assert_allclose(found.sum(), 0.75 * f(X).sum(), rtol=1e-4)
    audit = jaxlrp.audit(f, ATTN_LRP, target="all")(X)
    np.testing.assert_allclose(
        audit.absorbed["custom"], 0.25 * f(X).sum(), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (0, None)])
def test_mapping_sums_what_an_unmapped_operand_gets(axes):
    scaled = make_scaled()
    args = [v if axis == 0 else v[0] for v, axis in zip((A, X), axes, strict=True)]

    def f(a, x):
        return jax.vmap(scaled, axes)(a, x)

    _, pull = jaxlrp.relprop(f, *args, argnums=(0, 1))
    r = jnp.arange(12.0).reshape(3, 4)
    for got, share, axis in zip(pull(r), (0.25, 0.75), axes, strict=True):
        np.testing.assert_allclose(got, share * (r if axis == 0 else r.sum(0)))


def test_mapping_over_other_axes():
    scaled = make_scaled()
    f = lambda x: jax.vmap(scaled, (1, 1), 1)(A, x)  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(X)
    np.testing.assert_allclose(found, 0.75 * jnp.tanh(A * X), rtol=1e-5)


def test_function_with_a_rule_under_transformations():
    scaled = make_scaled()
    f = lambda x: scaled(0.5, x @ W) @ W  # noqa: E731
    explain = jaxlrp.lrp(f, ATTN_LRP, target="all")
    expected = explain(X)
    close = dict(rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(explain)(X), expected, **close)
    np.testing.assert_allclose(jax.vmap(explain)(X), expected, **close)
    for g in (
        jax.checkpoint(f),
        jax.jit(f),
        lambda x: lax.scan(lambda c, r: (c, f(r)), None, x)[1],
        lambda x: lax.cond(True, f, lambda x: x, x),
        jax.vmap(f),
    ):
        found = jaxlrp.lrp(g, ATTN_LRP, target="all")(X)
        np.testing.assert_allclose(found, expected, **close)


def test_relevance_of_a_carry():
    """In a loop, the rule takes and hands on relevance at every step."""
    scaled = make_scaled()

    def f(x):
        return lax.fori_loop(0, 3, lambda _, h: scaled(jnp.float32(2.0), h), x)

    found = jaxlrp.lrp(f, target="all")(X)
    np.testing.assert_allclose(found, 0.75**3 * f(X), rtol=1e-4)


def test_trees_and_none():
    @jaxlrp.custom_lrp
    def f(params, x):
        return {"y": x * params["w"], "n": x.sum()}

    def relprop(_, r):
        return None, 2.0 * r["y"]

    f.deflrp(lambda params, x: (f.fun(params, x), None), relprop)
    target = lambda out: {"y": jnp.ones(4), "n": jnp.zeros(())}  # noqa: E731
    to_w, to_x = jaxlrp.lrp(f, argnums=(0, 1), target=target)({"w": A[0]}, X[0])
    np.testing.assert_allclose(to_x, 2.0)
    assert not np.asarray(to_w["w"]).any()


def test_integer_argument_of_a_function_with_a_rule():
    @jaxlrp.custom_lrp
    def pick(x, i):
        return x[i]

    pick.deflrp(
        lambda x, i: (x[i], (x, i)),
        lambda res, r: (jnp.zeros_like(res[0]).at[res[1]].set(r), None),
    )
    found = jaxlrp.lrp(lambda i, x: pick(x, i))(jnp.int32(2), X[0])
    np.testing.assert_allclose(found, [0, 0, X[0, 2], 0])


def test_effectless_rule_runs_only_for_relevance():
    calls = []

    @jaxlrp.custom_lrp
    def f(x):
        return x * 2

    def forward(x):
        calls.append("forward")
        return x * 2, None

    f.deflrp(forward, lambda _, r: (r,))
    f(X)
    jax.grad(lambda x: f(x).sum())(X)
    assert not calls
    jaxlrp.lrp(f)(X)
    assert calls


def wrong(relprop):
    @jaxlrp.custom_lrp
    def f(a, x):
        return a * x

    f.deflrp(lambda a, x: (a * x, None), relprop)
    return f


@pytest.mark.whole
@pytest.mark.parametrize(
    ("relprop", "message"),
    [
        (
            lambda _, r: r,
            "returned .*, expected a tuple with the relevance of each",
        ),
        (lambda _, r: (r,), "expected a tuple with the relevance of each of 2"),
        (lambda _, r: (r, r[0]), r"returned relevances of shapes \[\(4,\)\], expected"),
        (lambda _, r: (r, (r, r)), "returned relevances of shapes"),
    ],
)
def test_rule_of_a_function_of_the_wrong_form(relprop, message):
    with pytest.raises(errors.RuleError, match="custom_lrp function 'f': its rule"):
        jaxlrp.lrp(wrong(relprop))(A, X)
    with pytest.raises(errors.RuleError, match=message):
        jaxlrp.lrp(wrong(relprop))(A, X)


def test_function_without_a_rule():
    f = jaxlrp.custom_lrp(lambda x: x)
    with pytest.raises(errors.RuleError, match="has no rule: call .*deflrp"):
        f(X)
