"""What is wrong is said by name: the argument, what it was, what was expected."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive

import jaxlrp
from jaxlrp import composites, errors, rules

X = jnp.arange(6.0).reshape(2, 3) - 2.5
W = jnp.arange(12.0).reshape(3, 4) / 7 - 0.8


def dense(x):
    return x @ W


def words(text):
    return re.escape(text)


# ---- targets ------------------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize("function", [jaxlrp.lrp, jaxlrp.value_and_lrp, jaxlrp.audit])
def test_unknown_target(function):
    message = "target: got 'logit', expected 'max' or 'all'"
    with pytest.raises(ValueError, match=words(message)):
        function(dense, target="logit")


@pytest.mark.whole
@pytest.mark.parametrize("target", [1.0, None, True, [0, 1], jnp.array([0.0])])
def test_target_of_the_wrong_type(target):
    with pytest.raises(TypeError, match="target: got .*, expected 'max', 'all', an"):
        jaxlrp.lrp(dense, target=target)


@pytest.mark.whole
@pytest.mark.parametrize("target", [4, -5, np.array([0, 4]), jnp.array([0, 9])])
def test_class_out_of_range(target):
    with pytest.raises(ValueError, match=r"target: got .*\[-4, 4\).*shape \(2, 4\)"):
        jaxlrp.lrp(dense, target=target)(X)


def test_class_for_every_example():
    with pytest.raises(ValueError, match=r"target: got an array of shape \(3,\).*2,"):
        jaxlrp.lrp(dense, target=jnp.array([0, 1, 2]))(X)


def test_class_of_a_scalar():
    with pytest.raises(ValueError, match="target: got class 0 for a scalar output"):
        jaxlrp.lrp(lambda x: dense(x).sum(), target=0)(X)


def test_class_of_several_outputs():
    with pytest.raises(TypeError, match="target: 'max' needs an output that is one"):
        jaxlrp.lrp(lambda x: (dense(x), x))(X)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda out: out[0], r"target\(out\): got shape \(4,\), expected .*\(2, 4\)"),
        (lambda out: (out, out), r"target\(out\): got the structure"),
    ],
)
def test_callable_target_of_the_wrong_form(target, message):
    with pytest.raises(ValueError, match=message):
        jaxlrp.lrp(dense, target=target)(X)


@pytest.mark.whole
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "int32"])
@pytest.mark.parametrize("classes", [4, 300])
def test_class_may_be_of_any_integer_type(dtype, classes):
    """As labels are stored: no index may wrap."""
    w = jnp.cos(jnp.arange(3.0 * classes)).reshape(3, classes)
    f = lambda x: x @ w  # noqa: E731
    labels = np.array([1, 3])
    found = jaxlrp.lrp(f, target=jnp.asarray(labels, dtype))(X)
    np.testing.assert_allclose(found, jaxlrp.lrp(f, target=labels)(X), rtol=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize("target", [-1, 3, np.int64(3), np.array([3, 3])])
def test_ways_to_name_a_class(target):
    expected = X * W[:, 3]
    found = jaxlrp.lrp(dense, composites.AttnLRP(), target=target)(X)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# ---- arguments -----------------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize(
    ("argnums", "error", "message"),
    [
        (1, ValueError, r"argnums: got 1, but f was called with 1 positional"),
        (-2, ValueError, r"argnums: got -2, but f was called with 1 positional"),
        ((0, -1), ValueError, r"argnums: got \(0, -1\), which names an argument twice"),
        ("x", TypeError, "argnums: got 'x', expected an int or a sequence"),
        (True, TypeError, "argnums: got True, expected an int or a sequence"),
        (0.0, TypeError, "argnums: got 0.0, expected an int or a sequence"),
        (None, TypeError, "argnums: got None, expected an int or a sequence"),
        ((0.0,), TypeError, r"argnums: got \(0.0,\), expected an int or a sequence"),
    ],
)
def test_wrong_argnums(argnums, error, message):
    with pytest.raises(error, match=message):
        jaxlrp.lrp(dense, argnums=argnums)(X)


def test_argnums_may_be_numpy_integers_as_for_grad():
    found = jaxlrp.lrp(dense, argnums=np.int64(0))(X)
    np.testing.assert_allclose(found, jaxlrp.lrp(dense)(X))


def test_leaf_that_is_no_array():
    f = lambda p, x: x @ p["w"]  # noqa: E731
    message = r"argument 0\['w'\]\[1\] is attributed: got 'name' of type str, expected"
    with pytest.raises(TypeError, match=message):
        jaxlrp.lrp(f, argnums=0)({"w": [W, "name"]}, X)


@pytest.mark.whole
@pytest.mark.parametrize("dtype", ["int32", "bool", "uint8", "complex64"])
def test_leaf_that_is_not_floating_for_a_method_that_follows_gradients(dtype):
    f = lambda p: p["ids"] * 1.0  # noqa: E731
    message = rf"argument 0\['ids'\] is attributed: got dtype {dtype}, expected a float"
    with pytest.raises(TypeError, match=message):
        jaxlrp.attribution.gradient(f)({"ids": jnp.ones(3, dtype)})


def test_python_float_is_an_array_and_int_is_none():
    assert jaxlrp.lrp(lambda x: 3.0 * x)(2.0) == 6.0
    with pytest.raises(TypeError, match="argument 0 is attributed: got 2 of type int"):
        jaxlrp.lrp(lambda x: 3.0 * x)(2)


def test_argument_that_the_output_does_not_depend_on():
    with pytest.warns(errors.IndependentArgumentWarning, match="argument 1: the"):
        found = jaxlrp.lrp(lambda a, b: dense(a))(X, X)
    assert found.shape == X.shape
    assert not np.asarray(found).any()


@pytest.mark.whole
@pytest.mark.parametrize(
    "f",
    [
        lambda x: lax.stop_gradient(x) @ W,
        lambda x: jnp.argmax(x, -1) * 1.0,
        lambda x: jnp.ones(3),
        lambda x: jnp.where(x > 0, 1.0, 2.0),
    ],
)
def test_argument_that_no_relevance_reaches(f):
    with pytest.warns(errors.IndependentArgumentWarning, match="argument 0"):
        assert not np.asarray(jaxlrp.lrp(f)(X)).any()


def test_no_warning_for_a_leaf_among_others():
    params = {"w": W, "unused": jnp.ones(2)}
    found = jaxlrp.lrp(lambda p: X @ p["w"])(params)
    assert not np.asarray(found["unused"]).any()


def test_output_without_a_floating_leaf():
    with pytest.raises(TypeError, match="f: its output has no floating-point leaf"):
        jaxlrp.lrp(lambda x: jnp.argmax(x, -1))(X)


def test_function_that_is_none():
    with pytest.raises(TypeError, match="f: got 3, expected a function"):
        jaxlrp.lrp(3)(X)


def test_auxiliary_output_that_is_missing():
    with pytest.raises(TypeError, match="has_aux=True: f returned .*, expected a pair"):
        jaxlrp.lrp(dense, has_aux=True)(X)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("relevance", "message"),
    [
        (jnp.ones((2, 3)), r"R_out: got shape \(2, 3\), expected .* \(2, 4\)"),
        (1.0, r"R_out: got shape \(\), expected the output's shape \(2, 4\)"),
        (jnp.ones((4, 2)), r"R_out: got shape \(4, 2\), expected .* \(2, 4\)"),
        ((jnp.ones((2, 4)),), "R_out: got the structure"),
        (None, "R_out: got the structure"),
    ],
)
def test_relevance_of_the_wrong_form(relevance, message):
    _, pull = jaxlrp.relprop(dense, X)
    with pytest.raises(ValueError, match=message):
        pull(relevance)


def test_relevance_of_a_wrong_leaf_is_named():
    _, pull = jaxlrp.relprop(lambda x: {"a": dense(x), "b": x}, X)
    with pytest.raises(ValueError, match=r"R_out\['b'\]: got shape \(3,\), expected"):
        pull({"a": jnp.ones((2, 4)), "b": jnp.ones(3)})


# ---- rules and composites ------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize(
    ("composite", "hint"),
    [
        (rules.Epsilon, "was it meant to be called"),
        (composites.Epsilon, "was it meant to be called"),
        (rules.Epsilon(), r"composites\.Uniform\(Epsilon\("),
        ("epsilon", "expected a Composite or None$"),
    ],
)
@pytest.mark.parametrize("function", [jaxlrp.lrp, jaxlrp.plan, jaxlrp.audit])
def test_composite_that_is_none(function, composite, hint):
    with pytest.raises(TypeError, match=f"composite: got .*{hint}"):
        function(dense, composite)


def test_unknown_role():
    with pytest.raises(ValueError, match="role: got 'linear', expected one of layer"):
        composites.Composite("mine").on("linear", rules.LRP0())


@pytest.mark.whole
@pytest.mark.parametrize(
    ("role", "rule"),
    [
        ("activation", rules.Epsilon()),
        ("softmax", rules.LRP0()),
        ("dense", rules.Merge()),
        ("bilinear", rules.LRP0()),
        ("layer", rules.Epsilon),
        ("sum", rules.WSquare()),
    ],
)
def test_rule_that_makes_no_sense_for_a_role(role, rule):
    with pytest.raises(TypeError, match="rule: got .* for role .*, which takes one of"):
        composites.Composite("mine").on(role, rule)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Transposed(rules.LayerRule):
    """A rule with a surrogate of the wrong shape."""

    def shares(self, layer):
        return (rules.Share(layer.y.T, layer.y, 0.0),)


def test_rule_that_returns_the_wrong_shape():
    message = r"rule Transposed\(\) returned a surrogate of \(4, 2\) .*\(2, 4\)"
    with pytest.raises(errors.RuleError, match=message + ".*test_errors.py"):
        jaxlrp.lrp(dense, composites.Uniform(Transposed()))(X)


# ---- primitives without a rule -------------------------------------------------------

unknown_p = jax.extend.core.Primitive("frobnicate")
unknown_p.def_impl(lambda x: jnp.asarray(np.asarray(x)))  # JAX cannot look inside
unknown_p.def_abstract_eval(lambda x: x)


def test_primitive_without_a_rule():
    with pytest.raises(errors.UnexplainedPrimitiveError) as error:
        jaxlrp.lrp(lambda x: unknown_p.bind(x) @ W)(X)
    text = str(error.value)
    assert "primitive 'frobnicate' of (float32[2,3])" in text
    assert "test_errors.py" in text
    assert "@jaxlrp.register_rule(primitive)" in text and "custom_lrp" in text
    assert isinstance(error.value, NotImplementedError)


def test_primitive_without_a_rule_may_stand_where_no_relevance_passes():
    f = lambda x: x @ unknown_p.bind(W)  # noqa: E731
    np.testing.assert_allclose(jaxlrp.lrp(f)(X), jaxlrp.lrp(dense)(X))
    g = lambda x: x @ W * (unknown_p.bind(x).argmax() >= 0)  # noqa: E731
    np.testing.assert_allclose(jaxlrp.lrp(g)(X), jaxlrp.lrp(dense)(X))


def test_primitive_without_a_rule_inside_a_loop():
    f = lambda x: lax.scan(lambda c, r: (c + unknown_p.bind(r), None), x[0], x)[0]  # noqa: E731
    with pytest.raises(errors.UnexplainedPrimitiveError, match="frobnicate"):
        jaxlrp.lrp(f)(X)


REFUSED = {
    "pure_callback": lambda x: jax.pure_callback(
        np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x
    ),
    "zeta": lambda x: lax.zeta(x, x + 2),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", REFUSED)
def test_refused_primitive_says_why(name):
    with pytest.raises(errors.UnexplainedPrimitiveError) as error:
        jaxlrp.lrp(REFUSED[name])(X)
    text = str(error.value)
    assert f"primitive '{name}'" in text and "test_errors.py" in text
    assert jaxlrp.primitives.entries()[name].reason in text


def test_loop_with_a_constant_number_of_steps_is_not_refused():
    f = lambda x: lax.fori_loop(0, 3, lambda _, v: v * 0.5, x)  # noqa: E731
    np.testing.assert_allclose(jaxlrp.lrp(f, target="all")(X), X / 8)


def test_loop_without_relevance_is_not_refused():
    def f(x):
        n = lax.while_loop(lambda i: i < 5, lambda i: i + 2, 0)
        return x * n

    np.testing.assert_allclose(jaxlrp.lrp(f, target="all")(X), X * 6)


# ---- NaN and infinity ----------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::jaxlrp.errors.RelevanceWarning")
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize(
    "composite",
    [None, composites.EpsilonPlusFlat(), composites.Uniform(rules.AlphaBeta())],
)
def test_one_bad_example_spoils_no_other(bad, composite):
    f = lambda x: jax.nn.relu(x @ W + 0.1) @ W.T  # noqa: E731
    clean = jaxlrp.lrp(f, composite)(X)
    with pytest.warns(errors.RelevanceWarning, match="NaN or infinite"):
        found = jaxlrp.lrp(f, composite)(X.at[1, 0].set(bad))
    np.testing.assert_allclose(found[0], clean[0], rtol=1e-6)
    assert not np.isfinite(found[1]).all()


def test_user_primitive_with_the_name_of_one_of_jax_is_not_taken_for_it():
    own = Primitive("neg")
    own.def_abstract_eval(lambda x: x)
    with pytest.raises(errors.UnexplainedPrimitiveError, match="'neg'"):
        jaxlrp.lrp(own.bind)(X)


class NoPytree(jaxlrp.rules.LayerRule):
    def __init__(self):
        self.own = 1.0


def test_rule_that_is_no_pytree():
    with pytest.raises(TypeError, match="register_dataclass"):
        jaxlrp.composites.Uniform(NoPytree())


def test_role_that_does_not_exist_in_an_assignment():
    with pytest.raises(ValueError, match="role: got 'dnse', expected one of"):
        jaxlrp.composites.Assignment("dnse", jaxlrp.rules.LRP0())


def test_what_is_no_function_is_refused_at_once():
    with pytest.raises(TypeError, match="f: got None, expected a function"):
        jaxlrp.lrp(None)


@pytest.mark.whole
@pytest.mark.parametrize("transform", [jaxlrp.lrp, jaxlrp.value_and_lrp])
def test_warning_points_to_the_line_of_the_user(transform):
    explain = transform(lambda x: jnp.ones((2, 2)))
    with pytest.warns(errors.IndependentArgumentWarning) as caught:
        explain(X)
    assert caught[0].filename == __file__


def test_share_with_a_denominator_of_the_wrong_shape():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Wrong(jaxlrp.rules.LayerRule):
        def shares(self, layer):
            return (jaxlrp.rules.Share(layer.y, layer.y.sum(), 1e-6),)

    with pytest.raises(errors.RuleError, match="returned a z of"):
        jaxlrp.lrp(dense, jaxlrp.composites.Uniform(Wrong()))(X)
