"""The audit: parts add up to the whole, each under its proper name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from benchmarks import hlo
from jaxlrp import _audit, composites, rules
from tests.models import usual as models

ATTN_LRP = composites.AttnLRP()


def draw(*shape, seed=0):
    rng = np.random.default_rng([seed, *shape])
    return rng.uniform(0.2, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def audited(f, *args, composite=ATTN_LRP, target="all", **options):
    """The audit of `f`, checked to add up and to agree with `lrp`."""
    audit = jaxlrp.audit(f, composite, target=target, **options)(*args)
    explain = jaxlrp.value_and_lrp(f, composite, target=target, **options)
    _, relevance = explain(*args)
    total = sum(float(r.sum()) for r in jax.tree.leaves(relevance))
    assert audit.total_in == pytest.approx(total)
    assert audit.residual == pytest.approx(0.0, abs=1e-9 * (1 + abs(audit.total_out)))
    return audit


def only(audit, name, tolerance=1e-9):
    """The amount of one category, where all others are empty."""
    rest = {k: v for k, v in audit.absorbed.items() if k != name}
    assert all(abs(v) < tolerance for v in rest.values()), rest
    return audit.absorbed[name]


X, W, B = draw(2, 4), draw(4, 3), draw(3)


def test_bias_absorbs_what_it_adds():
    audit = audited(lambda x: x @ W + B, X)
    assert only(audit, "bias") == pytest.approx(2 * float(B.sum()))
    assert audit.total_out == pytest.approx(float((X @ W + B).sum()))


def test_bias_and_stabiliser_are_told_apart():
    composite = composites.Uniform(rules.Epsilon(0.5))
    audit = audited(lambda x: x @ W + B, X, composite=composite)
    z = np.asarray(X @ W + B)
    kept = z / (z + 0.5 * np.sign(z))
    assert audit.absorbed["stabiliser"] == pytest.approx((z - z * kept).sum())
    assert audit.absorbed["bias"] == pytest.approx((kept * np.asarray(B)).sum())


def test_stabiliser_of_a_layer_without_a_bias():
    composite = composites.Uniform(rules.Epsilon(0.5))
    z = np.asarray(X @ W)
    audit = audited(lambda x: x @ W, X, composite=composite)
    expected = (z - z * z / (z + 0.5 * np.sign(z))).sum()
    assert only(audit, "stabiliser") == pytest.approx(expected)


CONSTANTS = {
    "added over positions": lambda x: x @ W + draw(2, 3, seed=5),
    "added to the input": lambda x: (x + 1.5) @ W,
    "filled in by a mask": lambda x: jnp.where(jnp.arange(4) > 1, x, 2.0) @ W,
    "concatenated": lambda x: jnp.concatenate([jnp.full((1, 4), 0.3), x]) @ W,
    "padded": lambda x: jnp.pad(x, ((1, 0), (0, 0)), constant_values=0.7) @ W,
    "written over": lambda x: x.at[0].set(1.0) @ W,
    "starting a loop": lambda x: lax.scan(lambda c, r: (c + r, None), jnp.ones(4), x)[
        0
    ],
    "of one branch": lambda x: lax.cond(
        True, lambda x: jnp.ones_like(x) + x, jnp.sin, x
    ),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_absorb_their_part(name):
    f = CONSTANTS[name]
    audit = audited(f, X)
    # f is affine: what it says without its input is what absorbs.
    expected = float(f(jnp.zeros_like(X)).sum())
    assert only(audit, "constants") == pytest.approx(expected)


@pytest.mark.always
def test_a_constant_that_the_input_chooses_is_detached():
    def f(x, by):
        # Alone, and beside a value that is active.
        a = lax.cond(by > 0, lambda: jnp.ones(4), lambda: -2.0 * jnp.ones(4))
        up, down = lambda x: (2 * x, jnp.ones(4)), lambda x: (x, -2.0 * jnp.ones(4))
        y, b = lax.cond(by > 0, up, down, x)
        return x + a + (y + b)

    for sign, each in ((1.0, 1.0), (-1.0, -2.0)):
        chosen = audited(lambda x, s=sign: f(x, s * x[0, 0] ** 2), X)
        assert only(chosen, "detached") == pytest.approx(16 * each)
        given = audited(lambda x, s=sign: f(x, jnp.float64(s)), X)
        assert only(given, "constants") == pytest.approx(16 * each)


@pytest.mark.always
def test_a_rule_that_hands_all_back_absorbs_nothing_in_any_category():
    for rule in (
        rules.Epsilon(0.5, bias="share"),
        rules.AlphaBeta(2.0, 1.0, epsilon=0.5, bias="share"),
        rules.ZPlus(0.5, bias="share"),
        rules.WSquare(0.5, bias="share"),
    ):
        composite = composites.Uniform(rule)
        audit = audited(lambda x: x @ W + B, X, composite=composite)
        assert not any(abs(v) > 1e-9 for v in audit.absorbed.values()), rule


def test_output_that_depends_on_nothing_is_a_constant():
    audit = audited(lambda x: (x @ W, jnp.full(2, 3.0)), X)
    assert only(audit, "constants") == pytest.approx(6.0)


def test_stopped_path_is_detached():
    audit = audited(lambda x: x @ W + lax.stop_gradient(x @ W), X)
    assert only(audit, "detached") == pytest.approx(float((X @ W).sum()))


def test_normaliser_without_a_shift_absorbs_nothing():
    f = lambda x: x @ W / jnp.sqrt(jnp.mean((x @ W) ** 2, -1, keepdims=True))  # noqa: E731
    audit = audited(f, X)
    assert all(abs(v) < 1e-9 for v in audit.absorbed.values())


def test_softmax_absorbs_by_its_expansion():
    audit = audited(lambda x: jax.nn.softmax(x), X)
    # All outputs of a row together do not depend on it.
    assert only(audit, "Taylor") == pytest.approx(2.0)
    assert audit.total_in == pytest.approx(0.0, abs=1e-9)


def test_detached_softmax_is_detached():
    composite = ATTN_LRP.on("softmax", rules.Detach())
    values = draw(2, 4, seed=1)
    audit = audited(lambda x: jax.nn.softmax(x) + x * values, X, composite=composite)
    assert only(audit, "detached") == pytest.approx(2.0)


def test_gradient_of_what_has_no_rule_is_an_expansion():
    audit = audited(lambda x: lax.cumlogsumexp(x, axis=1)[:, -1], X)
    y = jax.scipy.special.logsumexp(X, axis=1)
    expected = float((y - (jax.nn.softmax(X) * X).sum(1)).sum())
    assert only(audit, "Taylor") == pytest.approx(expected, rel=1e-5)


@pytest.mark.whole
@pytest.mark.parametrize("target", ["all", lambda out: out, lambda out: out**2])
def test_activation_loses_nothing(target):
    audit = audited(lambda x: jnp.tanh(x @ W), X, target=target)
    assert all(abs(v) < 1e-9 for v in audit.absorbed.values())


@pytest.mark.parametrize(
    "rule", [rules.Flat(), rules.WSquare(), rules.ZBox(-2.0, 2.0), rules.ZPlus()]
)
@pytest.mark.parametrize("target", ["max", "all", 1, lambda out: out])
def test_parts_add_up_with_shadows(rule, target):
    f = lambda x: jax.nn.relu(x @ W + B) @ W.T - 1.0  # noqa: E731
    composite = composites.Uniform(rule)
    audit = jaxlrp.audit(f, composite, target=target)(X)
    total = float(jaxlrp.lrp(f, composite, target=target)(X).sum())
    assert audit.total_in == pytest.approx(total)
    assert audit.residual == pytest.approx(0.0, abs=1e-9)
    shadowed = isinstance(rule, rules.Flat | rules.WSquare | rules.ZBox)
    if shadowed:  # no constant is fed but the biases
        parts = {
            k: v for k, v in audit.absorbed.items() if k not in ("bias", "stabiliser")
        }
        assert not any(abs(v) > 1e-9 for v in parts.values())


def test_loops_and_branches_add_up():
    u = draw(3, 3)

    def f(x):
        step = lambda h, _: (jnp.tanh(h @ u + B), h)  # noqa: E731
        h, hs = lax.scan(step, x @ W, None, length=4)
        h = lax.cond(h.sum() > 0, lambda h: h @ u + 1, jax.nn.softmax, h)
        return jax.checkpoint(lambda h: jnp.sin(h @ u))(h) + hs.sum(0)

    for composite in (
        ATTN_LRP,
        composites.Epsilon(0.1),
        composites.Uniform(rules.Flat()),
    ):
        audited(f, X, composite=composite)


def test_complex_intermediates_add_up():
    kernel = draw(3, 3) + 1j * draw(3, 3, seed=1)
    f = lambda x: jnp.fft.irfft(jnp.fft.rfft(x) @ kernel, n=4)  # noqa: E731
    audit = audited(f, X)
    assert all(abs(v) < 1e-9 for v in audit.absorbed.values())


def test_absorption_by_scope():
    def f(x):
        with jax.named_scope("first"):
            x = x @ W + B
        with jax.named_scope("second"):
            return x + 10.0 * jnp.arange(2.0)[:, None]

    audit = audited(f, X)
    scopes = audit.by_scope()
    assert scopes["first"]["bias"] == pytest.approx(2 * float(B.sum()))
    assert scopes["second"]["constants"] == pytest.approx(30.0)
    total = sum(v for amounts in scopes.values() for v in amounts.values())
    assert total == pytest.approx(sum(audit.absorbed.values()))


def test_steps_of_the_audit_follow_the_program():
    audit = audited(lambda x: jnp.tanh(x @ W + B) @ W.T, X)
    assert [s.role for s in audit.steps] == ["dense", "activation", "dense"]
    first = audit.steps[0]
    assert "test_audit.py" in first.line
    assert first.arrived - first.passed == pytest.approx(sum(first.absorbed.values()))
    assert first.passed == pytest.approx(audit.total_in)


def test_audit_is_printed():
    def f(x):
        with jax.named_scope("embed"):
            return x @ W + B

    text = str(audited(f, X))
    assert "relevance out" in text and "relevance in" in text
    assert "absorbed: bias" in text and "absorbed: detached" not in text
    assert "not accounted for" in text
    assert any(line.startswith("embed") for line in text.splitlines())
    assert "NaN" not in text


def test_several_arguments_and_trees_are_summed():
    f = lambda p, x: x @ p["w"] + p["b"]  # noqa: E731
    audit = audited(f, {"w": W, "b": B}, X, argnums=(0, 1))
    assert all(abs(v) < 1e-9 for v in audit.absorbed.values())


def test_auxiliary_output_plays_no_part():
    audit = jaxlrp.audit(
        lambda x: (x @ W, x.sum()), ATTN_LRP, has_aux=True, target="all"
    )(X)
    assert audit.total_out == pytest.approx(float((X @ W).sum()))
    assert audit.residual == pytest.approx(0.0, abs=1e-9)


# ---- the culprit -------------------------------------------------------------------


def log_of(x):
    return jnp.log(x - 10)  # NaN


def test_no_culprit_where_all_is_finite():
    assert audited(lambda x: x @ W, X).culprit is None


CULPRITS = {
    "plain": (lambda x: log_of(x) @ W, "log"),
    "infinity": (lambda x: (x / (x - x[0, 0])) @ W, "div"),
    "scan": (
        lambda x: lax.scan(lambda c, r: (jnp.sin(log_of(r) + c), None), x[0], x)[0],
        "log",
    ),
    "scan, late": (
        lambda x: (
            lax.scan(
                lambda c, _: (jnp.sqrt(c), jnp.cos(c - 1)),
                jnp.abs(x) * 0 - 0.0,
                None,
                3,
            )[1].sum()
            + lax.scan(lambda c, r: (jnp.log(c) + r, None), x[0] * 0 + 2.0, x * 0 - 2)[
                0
            ]
        ),
        "log",
    ),
    "cond": (lambda x: lax.cond(x[0, 0] < 9, log_of, jnp.sin, x) @ W, "log"),
    "remat": (lambda x: jax.checkpoint(lambda x: log_of(x) @ W)(x), "log"),
    "jit": (lambda x: jax.jit(lambda x: log_of(x) @ W)(x), "log"),
    "activation": (lambda x: jnp.sqrt(x @ W - 100.0) @ W.T, "sqrt"),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", CULPRITS)
def test_first_equation_with_nan_or_infinity_is_named(name):
    f, primitive = CULPRITS[name]
    audit = jaxlrp.audit(f, ATTN_LRP, target="all")(X)
    assert audit.culprit is not None
    assert f"the result of {primitive} at " in audit.culprit
    assert "test_audit.py" in audit.culprit
    assert "first NaN or infinity" in str(audit)


@pytest.mark.always
def test_the_culprit_of_a_reversed_loop_is_found_in_its_order():
    """From the last element on the carry becomes negative, else it does not."""

    def f(x):
        start, by = 2.0 + 0 * x[0, 0], jnp.array([1.0, -1.0]) + 0 * x[:, 0]
        step = lambda c, r: (jnp.log(c) * r, None)  # noqa: E731
        return lax.scan(step, start, by, reverse=True)[0] * x

    audit = jaxlrp.audit(f, ATTN_LRP, target="all")(X)
    assert "the result of log at " in audit.culprit


def test_argument_with_nan_is_named():
    audit = jaxlrp.audit(lambda x: x @ W, ATTN_LRP)(
        jnp.asarray(X).at[0, 1].set(jnp.nan)
    )
    assert "argument" in audit.culprit


def test_relevance_that_becomes_infinite_where_values_do_not():
    f = lambda x: jnp.sqrt(jnp.abs(x)).sum()  # noqa: E731
    composite = ATTN_LRP.on("activation", rules.Taylor())
    audit = jaxlrp.audit(f, composite)(jnp.asarray(X).at[0, 0].set(0.0))
    if not np.isfinite(audit.total_in):
        assert "relevance" in audit.culprit


def test_scopes_of_a_block_that_is_kept_as_jit_are_told_apart():
    @jax.jit
    def block(x):
        for _ in range(6):
            x = jnp.tanh(x @ W[:, :1] @ W[:, :1].T + 1.0)
        return x

    def f(x):
        with jax.named_scope("enc"):
            x = block(x)
        with jax.named_scope("dec"):
            return block(x)

    assert {"enc", "dec"} <= set(jaxlrp.audit(f)(X).by_scope())


def test_audit_of_traced_arguments_is_refused():
    with pytest.raises(TypeError, match="call it outside jit"):
        jax.jit(lambda x: jaxlrp.audit(lambda x: x * 2)(x).total_in)(X)


# ---- rules that are stated on relevances ---------------------------------------------


def _mixed(x):
    h = jnp.tanh(x @ jnp.array([[1.0, -0.5, 0.3], [0.25, 2.0, 1.0]]) + 0.1)
    h = h + jax.nn.relu(h * jnp.array([2.0, 0.5, 1.0]) + jnp.array([0.1, 0.0, -0.2]))
    mean = h.mean(-1, keepdims=True)
    h = (h - mean) * jax.lax.rsqrt(((h - mean) ** 2).mean(-1, keepdims=True) + 1e-3)
    widths = jnp.array([1.0, 2.0, 3.0])
    return jax.nn.softmax(h) * ((h + 2.0) * widths).max(-1, keepdims=True)


@pytest.mark.always
@pytest.mark.parametrize(
    ("role", "rule", "category"),
    [
        ("any", rules.Gradient(), "Taylor"),
        ("activation", rules.Guided(), "Taylor"),
        ("activation", rules.Taylor(0.1), "Taylor"),
        ("sum", rules.Pass(), "copies"),
        ("sum", rules.Absolute(), "stabiliser"),
        ("sum", rules.Rescaled(), None),
        ("sum", rules.UniformSplit(), None),
        ("normaliser", rules.Pass(), None),
        ("normaliser", rules.Detach(mean=True), None),
        ("softmax", rules.Pass(), None),
        ("selection", rules.Norm(), "stabiliser"),
        ("product", rules.Absolute(), None),
        ("batch_norm", rules.Pass(), None),
        ("shift", rules.Absolute(), "constants"),
        ("dense", rules.TopK(rules.Epsilon(), 0.5), "filter"),
        ("dense", rules.Epsilon(bias="share"), None),
        ("dense", rules.Epsilon(0.5, stabiliser="clip"), "stabiliser"),
    ],
    ids=str,
)
def test_every_rule_adds_up(role, rule, category):
    with jax.enable_x64(True):
        composite = jaxlrp.composites.AttnLRP().on(role, rule)
        x = jnp.array([1.0, -0.5])
        found = jaxlrp.audit(_mixed, composite, target="all")(x)
        relevance = jaxlrp.lrp(_mixed, composite, target="all")(x)
    np.testing.assert_allclose(found.total_in, relevance.sum(), rtol=1e-9)
    assert abs(found.residual) < 1e-9 * (1 + abs(found.total_out))
    if category is not None:
        assert found.absorbed[category] != 0.0


@pytest.mark.always
def test_a_rule_stated_on_relevances_absorbs_by_its_name():
    a = jnp.array([1.0, -2.0, 0.5])
    for role, rule, f, name in (
        ("sum", rules.Pass(), lambda x: x + x[::-1], "copies"),
        ("sum", rules.Gradient(), lambda x: x + x[::-1], "Taylor"),
        ("scale", rules.Gradient(), lambda x: x * a, "Taylor"),
        ("activation", rules.Taylor(0.1), jnp.tanh, "Taylor"),
        ("selection", rules.Norm(0.5), lambda x: x.max(-1), "stabiliser"),
        ("sum", rules.Rescaled(0.5), lambda x: x + x[::-1] ** 2, None),
    ):
        composite = ATTN_LRP.on(role, rule)
        audit = audited(f, jnp.array([0.3, 1.5, -1.0]), composite=composite)
        large = {k for k, v in audit.absorbed.items() if abs(v) > 1e-9}
        assert large <= {name} and (name is None or large)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (rules.ZBox(-2.0, 2.0), ()),
        (rules.Flat(), ()),
        (rules.Epsilon(bias="ignore"), ()),
        (rules.Epsilon(bias="share"), ()),
        (rules.TopK(rules.Epsilon(), 1.0), ("bias",)),
        (rules.TopK(rules.Flat(), 0.5), ("filter",)),
        (rules.TopK(rules.Epsilon(), 0.5), ("bias", "filter")),
        (rules.WSquare(), ("bias",)),
        (rules.WSquare(bias="ignore"), ()),
    ],
    ids=str,
)
def test_a_bias_absorbs_only_where_the_rule_lets_it(rule, expected):
    w, b = jnp.array([[1.0, 2.0], [3.0, -1.0]]), jnp.array([0.5, 0.5])
    composite = composites.Uniform(rule)
    found = jaxlrp.audit(lambda x: x @ w + b, composite, target="all")(
        jnp.array([0.5, -0.4])
    )
    large = {name for name, amount in found.absorbed.items() if abs(amount) > 1e-4}
    assert large == set(expected)
    assert abs(found.residual) < 1e-12


@pytest.mark.parametrize("rule", [rules.Flat(), rules.WSquare()])
def test_relevance_of_a_loops_start_beside_its_value(rule):
    """The start has its share in shadows, and it stays there."""
    w = jax.random.normal(jax.random.key(0), (3, 3))

    def f(x):
        return jax.lax.scan(
            lambda h, v: (jnp.tanh(h @ w) * v, None), jnp.full(3, 0.2), x
        )[0]

    x = jax.random.normal(jax.random.key(1), (4, 3))
    audit = jaxlrp.audit(f, composites.Uniform(rule))(x)
    assert abs(audit.residual) < 1e-5


# ---- outputs of one sign -------------------------------------------------------------

# Contributions to the outputs: of both signs, all positive, all negative.
SIDES = np.array([[1.0, 1.0, -1.0], [-0.5, 2.0, -2.0]])
OF_SIDES = {
    "alpha-beta": (rules.AlphaBeta(2.0, 1.0), lambda y: -1.0 * y[1] + 2.0 * y[2]),
    "alpha-beta without biases": (
        rules.AlphaBeta(2.0, 1.0, bias="ignore"),
        lambda y: -1.0 * y[1] + 2.0 * y[2],
    ),
    "z-plus": (rules.ZPlus(), lambda y: y[2]),
    "z-plus of the inputs' sign": (rules.ZPlus(split=False), lambda y: y[2]),
    "alpha-beta, handed back": (rules.AlphaBeta(2.0, 1.0, bias="share"), lambda y: 0.0),
    "epsilon": (rules.Epsilon(), lambda y: 0.0),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", OF_SIDES)
def test_a_part_without_contributions_is_one_sided(name):
    rule, expected = OF_SIDES[name]
    x = jnp.array([1.0, 1.0])
    audit = audited(lambda x: x @ SIDES, x, composite=composites.Uniform(rule))
    amount = only(audit, "one-sided", 1e-4)
    assert amount == pytest.approx(float(expected(x @ SIDES)), abs=1e-12)


def test_a_bias_takes_the_part_that_no_input_contributes_to():
    """An output with negative contributions alone: its positive part is the bias's."""
    b = jnp.array([0.0, 0.0, 0.5])
    composite = composites.Uniform(rules.AlphaBeta(2.0, 1.0))
    f = lambda x: x @ SIDES + b  # noqa: E731
    audit = audited(f, jnp.array([1.0, 1.0]), composite=composite, target=2)
    assert audit.absorbed["bias"] == pytest.approx(2.0 * -2.5, rel=1e-5)
    assert audit.absorbed["one-sided"] == 0.0


def test_parts_that_are_differences_are_one_sided_too():
    """Layers with many contributions take one part off the sum of both."""
    w = np.abs(draw(100, 3)).astype(np.float32) * np.array([1, -1, 1], np.float32)
    w[::2, 0] *= -1
    x = jnp.asarray(np.abs(draw(100)), jnp.float32)
    composite = composites.Uniform(rules.AlphaBeta(2.0, 1.0))
    audit = jaxlrp.audit(lambda x: x @ w, composite, target="all")(x)
    y = np.asarray(x @ w)
    assert audit.absorbed["one-sided"] == pytest.approx(2 * y[1] - y[2], rel=1e-4)
    assert abs(audit.absorbed["stabiliser"]) < 1e-3 * np.abs(y).max()
    assert abs(audit.residual) < 1e-4 * np.abs(y).sum()


# ---- compiled once -------------------------------------------------------------------


def test_a_second_call_with_the_same_shapes_compiles_nothing():
    traces = []

    def f(scale, x):
        traces.append(x.shape)
        return scale * (x @ W)

    audit = jaxlrp.audit(f, ATTN_LRP, target="all")
    for x in (X, X + 1.0, 2.0 * X):
        assert audit(2.0, x).total_out == pytest.approx(float((2 * x @ W).sum()))
    assert len(traces) == 1
    audit(2.0, X[:1])
    assert audit(3.0, X).total_out == pytest.approx(float((3 * X @ W).sum()))
    with jax.enable_x64(False):
        audit(2.0, X)
    assert len(traces) == 4


def test_arguments_that_cannot_be_compared_are_read_again():
    class Options:
        __hash__ = None

        def __init__(self, scale):
            self.scale = scale

    audit = jaxlrp.audit(lambda o, x: o.scale * (x @ W), ATTN_LRP, target="all")
    for scale in (1.0, 3.0):
        total = audit(Options(scale), X).total_out
        assert total == pytest.approx(scale * float((X @ W).sum()))


def test_bounds_are_checked_at_each_call():
    audit = jaxlrp.audit(lambda x: x @ W, composites.Uniform(rules.ZBox(-2.0, 2.0)))
    audit(X)
    with pytest.warns(jaxlrp.errors.BoundsWarning, match="outside of the bounds"):
        audit(3.0 * X)


@pytest.mark.parametrize("name", ["EpsilonPlus", "Default"])
def test_the_audit_computes_what_a_relevance_does(name):
    """The taps add sums, and no product."""
    composite = getattr(composites, name)()
    module = models.ResNet(((8, 1), (16, 1)), 5)
    apply, params, x = models.network(module, 2, 16, 16, 3)
    explain = jax.jit(jaxlrp.lrp(apply, composite)).lower(params, x).compile()
    given = (apply, (params, x), {}, composite, -1, False, "max")
    prepared = _audit._prepare(*given)
    inputs = _audit._inputs(prepared.traced, (params, x), {})
    audited = prepared.measure.lower(inputs).compile()
    counts = [hlo.contractions(p.as_text()) for p in (explain, audited)]
    assert counts[0] == counts[1]


# ---- sizes ---------------------------------------------------------------------------


def sum_of(audit):
    (step,) = audit.merges
    return step


def test_a_sum_says_how_much_its_terms_cancel():
    f = lambda x: x["a"] + x["b"]  # noqa: E731
    x = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([-2.9, 1.0])}
    audit = audited(f, x)
    step = sum_of(audit)
    assert step.cancellation == pytest.approx((5.9 + 2.0) / 2.1)
    assert step.amplification == pytest.approx((5.9 + 2.0) / 2.1)  # LRP-0's own
    assert audit.cancellation == step
    assert audit.size_out == pytest.approx(2.1)
    assert audit.size_in == pytest.approx(7.9)
    assert audit.amplification == pytest.approx(7.9 / 2.1)
    assert "largest cancellation" in str(audit)


def test_a_bounded_rule_does_not_amplify_what_cancels():
    f = lambda x: x["a"] + x["b"]  # noqa: E731
    x = {"a": jnp.array([3.0]), "b": jnp.array([-2.9])}
    composite = ATTN_LRP.on("sum", rules.UniformSplit())
    step = sum_of(audited(f, x, composite=composite))
    assert step.cancellation == pytest.approx(59.0)
    assert step.amplification == pytest.approx(1.0)


def test_a_value_added_to_itself_counts_twice():
    assert sum_of(audited(lambda x: x + x, X)).cancellation == pytest.approx(1.0)


def test_sizes_are_of_values_and_of_what_is_beside_them_together():
    """Relevance of a multiplier and that of a shadow may be of different signs."""
    f = lambda x: jnp.tanh(x @ W) @ W.T + x  # noqa: E731
    composite = composites.Uniform(rules.Flat())
    audit = jaxlrp.audit(f, composite, target="all")(X)
    relevance = jaxlrp.lrp(f, composite, target="all")(X)
    assert audit.size_in == pytest.approx(float(jnp.abs(relevance).sum()))


def test_no_relevance_has_no_amplification():
    audit = audited(lambda x: jnp.zeros(()) * (x @ W).sum(), X)
    assert audit.amplification == 1.0
    assert all(s.amplification == 1.0 for s in audit.steps)
    assert audit.growth is None


def test_a_relevance_with_nan_is_infinitely_large():
    audit = jaxlrp.audit(lambda x: jnp.log(x) @ W, ATTN_LRP)(X)
    assert audit.amplification == np.inf


T, N = 32, 6
U, V = draw(N, N, seed=7) * 2.0, draw(4, N, seed=8)
HEAD = draw(N, 2, seed=9)
SEQUENCE = draw(T, 4, seed=10)


def move(h, x):
    return jnp.tanh(h @ U + x @ V)


def by_scan(xs):
    return lax.scan(lambda h, x: (move(h, x), None), jnp.zeros(N), xs)[0] @ HEAD


def by_while(xs):
    def body(state):
        i, h = state
        return i + 1, move(h, xs[i])

    state = (0, jnp.zeros(N))
    return lax.while_loop(lambda s: s[0] < T, body, state)[1] @ HEAD


def by_hand(xs):
    h = jnp.zeros(N)
    for x in xs:
        h = move(h, x)
    return h @ HEAD


@pytest.mark.parametrize("f", [by_scan, by_while, by_hand])
def test_growth_names_the_step_of_a_recurrence(f):
    audit = jaxlrp.audit(f, composites.Epsilon())(SEQUENCE)
    assert audit.amplification > 1e6
    growth = audit.growth
    assert growth is not None
    assert growth.step.role in ("dense", "sum") and "(move)" in growth.step.line
    assert growth.step.amplification < 20
    # The recurrence as a whole, within what the head and the first step do.
    assert 1e-3 < growth.times / audit.amplification < 1e3
    assert f"grows most: {growth.step.role} at" in str(audit)
    if f is by_hand:
        assert growth.loop is None and growth.count > T / 2
        assert "such steps" in str(growth)
    else:
        assert growth.loop is not None and growth.loop.role == "loop"
        assert growth.loop == audit.loops[0]
        assert growth.times == growth.loop.amplification
        assert "iteration of the loop at" in str(growth)


def test_what_is_less_than_the_score_does_not_grow():
    """The sum's terms nearly cancel, but what leaves it is a small part of all."""
    f = lambda x: jnp.stack([100.0 * x[0], x[1] - x[2][None][0]])  # noqa: E731
    for size, grows in ((1.0, True), (1e-3, False)):
        x = jnp.array([1.0, 1000.0 * size, 999.0 * size])
        audit = jaxlrp.audit(f, ATTN_LRP, target="all")(x)
        assert (audit.growth is not None) == grows


def test_growth_side_by_side_is_not_multiplied():
    """Twenty layers of the same line, each of which amplifies by 19."""
    cancelling = jnp.array([1.0, -0.9])

    def f(x):
        return jnp.stack([(i + 1.0) * x @ cancelling for i in range(20)])

    growth = jaxlrp.audit(f, composites.Epsilon(), target="all")(jnp.ones(2)).growth
    assert growth is not None
    assert growth.step.amplification == pytest.approx(19.0, rel=1e-3)
    assert growth.count > 5 and growth.times < 20 * 20


def test_loops_in_loops_are_numbered():
    def f(x):
        def outer(h, _):
            return lax.scan(lambda g, _: (jnp.tanh(g @ U), None), h, None, 3)[0], None

        return lax.scan(outer, x, None, length=4)[0] @ HEAD

    audit = jaxlrp.audit(f, composites.Epsilon())(draw(N))
    outer, inner = audit.loops
    assert (outer.loop, inner.loop) == (None, 0)
    assert {s.loop for s in audit.steps if s.role == "activation"} == {1}
    assert outer.size_passed == pytest.approx(audit.size_in)
