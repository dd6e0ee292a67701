"""The functions themselves: arguments, structure of results, values."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp.errors import IndependentArgumentWarning

LRP0 = composites.Uniform(rules.LRP0())
W = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)
V = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)
X = jnp.asarray(np.random.default_rng(2).normal(size=(2, 4)), jnp.float32)


def assert_close(value, expected, tolerance=1e-5):
    """Largest difference, relative to the largest entry."""
    value, expected = np.asarray(value), np.asarray(expected)
    assert value.shape == expected.shape
    assert np.abs(value - expected).max() <= tolerance * np.abs(expected).max()


def network(w, x):
    return jax.nn.relu(x @ w) @ V


def linear_relevance(w, x, target):
    """`x_j w_jt` in NumPy, for `x @ w` with one target for each row."""
    return np.asarray(x) * np.asarray(w)[:, np.asarray(target)].T


# ---- argnums -----------------------------------------------------------------------


def test_the_last_argument_is_attributed_by_default():
    relevance = jaxlrp.lrp(lambda w, x: x @ w, LRP0)(W, X)
    assert_close(relevance, linear_relevance(W, X, np.asarray(X @ W).argmax(-1)))


@pytest.mark.parametrize(("argnums", "same"), [(0, -2), (1, -1)])
def test_negative_argnums_count_from_the_end(argnums, same):
    explain = functools.partial(jaxlrp.lrp, network)
    expected = explain(argnums=argnums)(W, X)
    assert expected.shape == (W, X)[argnums].shape
    np.testing.assert_array_equal(explain(argnums=same)(W, X), expected)


def test_several_argnums_give_a_tuple_in_their_order():
    def f(a, b, c):
        return a * c + b @ W

    a, b, c = X, 2 * X, jnp.ones(())
    for argnums in ((1, 0), [1, 0], (-2, -3)):
        pair = jaxlrp.lrp(f, LRP0, argnums=argnums, target="all")(a, b, c)
        assert isinstance(pair, tuple)
        assert_close(pair[1], a)
        assert_close(pair[0].sum(), (b @ W).sum())


def test_one_number_in_a_tuple_still_gives_a_tuple():
    (relevance,) = jaxlrp.lrp(network, argnums=(1,))(W, X)
    np.testing.assert_array_equal(relevance, jaxlrp.lrp(network)(W, X))


def test_several_arguments_share_the_relevance():
    both = jaxlrp.lrp(network, argnums=(0, 1), target="all")(W, X)
    assert_close(both[0].sum() + both[1].sum(), network(W, X).sum())


def test_attributed_weights_receive_what_reaches_them():
    relevance = jaxlrp.lrp(network, LRP0, argnums=0, target="all")(W, X)
    assert_close(relevance, W * jax.grad(lambda w: network(w, X).sum())(W))


# ---- arguments of all kinds --------------------------------------------------------


def test_relevance_has_the_arguments_structure():
    tree = {"image": [X, None], "table": (jnp.ones(4), {})}

    def f(tree):
        return tree["image"][0] @ W + tree["table"][0]

    relevance = jaxlrp.lrp(f, LRP0, target=1)(tree)
    assert jax.tree.structure(relevance) == jax.tree.structure(tree)
    assert_close(relevance["image"][0], linear_relevance(W, X, [1, 1]))
    np.testing.assert_array_equal(relevance["table"][0], [0, 2, 0, 0])


def test_nodes_of_other_types_are_pytrees_too():
    batch = jax.tree_util.Partial(print, X)
    relevance = jaxlrp.lrp(lambda b: b.args[0] @ W, LRP0)(batch)
    np.testing.assert_array_equal(
        relevance.args[0], jaxlrp.lrp(lambda x: x @ W, LRP0)(X)
    )


def test_keyword_arguments_are_passed_and_not_attributed():
    def f(x, *, scale, mode="plain"):
        return x @ W * scale if mode == "plain" else x

    relevance = jaxlrp.lrp(f, LRP0)(X, scale=jnp.float32(3.0), mode="plain")
    assert_close(relevance, 3 * jaxlrp.lrp(lambda x: x @ W, LRP0)(X))


def test_default_arguments_partials_methods_and_callable_objects():
    class Model:
        def __call__(self, x, power=1):
            return x @ W**power

        def apply(self, x):
            return self(x)

    expected = jaxlrp.lrp(lambda x: x @ W, LRP0)(X)
    model = Model()
    for f in (model, model.apply, functools.partial(lambda w, x: x @ w, W)):
        np.testing.assert_array_equal(jaxlrp.lrp(f, LRP0)(X), expected)


def test_python_numbers_among_the_arguments_stay_static():
    relevance = jaxlrp.lrp(lambda x, n, name: x[:n] @ W, LRP0, argnums=0)(X, 1, "a")
    assert_close(relevance[:1], jaxlrp.lrp(lambda x: x @ W, LRP0)(X[:1]))
    np.testing.assert_array_equal(relevance[1:], np.zeros((1, 4)))


def test_integer_and_key_arguments_take_part_without_relevance():
    def f(index, key, x):
        return x[index] @ W + jax.random.normal(key, (4,))

    index = jnp.array([1, 1, 0])
    relevance = jaxlrp.lrp(f, LRP0, target=0)(index, jax.random.key(3), X)
    counts = np.array([[1.0], [2.0]])
    assert_close(relevance, counts * linear_relevance(W, X, [0, 0]))


def test_numpy_inputs_are_welcome():
    relevance = jaxlrp.lrp(network)(np.asarray(W), np.asarray(X, np.float64))
    assert isinstance(relevance, jax.Array)
    np.testing.assert_array_equal(relevance, jaxlrp.lrp(network)(W, X))


@pytest.mark.parametrize("x", [2.0, np.float32(2.0), jnp.float32(2.0)])
def test_numbers_are_attributed(x):
    relevance = jaxlrp.lrp(lambda x: 3.0 * x, target="all")(x)
    assert relevance.shape == () and float(relevance) == 6.0


def test_a_scalar_that_is_spread_collects_its_relevance():
    relevance = jaxlrp.lrp(lambda s: s * jnp.arange(3.0) + s)(jnp.float32(2.0))
    assert_close(relevance, 6.0)


@pytest.mark.parametrize("composite", [None, composites.EpsilonPlusFlat()])
def test_an_empty_batch_has_an_empty_relevance(composite):
    relevance = jaxlrp.lrp(network, composite)(W, jnp.zeros((0, 4)))
    assert relevance.shape == (0, 4)


def test_no_features_have_no_relevance():
    f = jaxlrp.lrp(lambda x: x @ jnp.zeros((0, 3)) + 1.0)
    assert f(jnp.zeros((2, 0))).shape == (2, 0)


def test_the_signature_is_that_of_the_function():
    def f(a, b=2):
        """Docs."""

    explain = jaxlrp.lrp(f)
    assert inspect.signature(explain) == inspect.signature(f)
    assert explain.__name__ == "lrp_f" and explain.__doc__.endswith("Docs.\n")


# ---- outputs of all kinds ----------------------------------------------------------


def test_an_output_that_is_an_input_keeps_its_relevance():
    value, relevance = jaxlrp.value_and_lrp(lambda x: (x, x), target="all")(X)
    np.testing.assert_array_equal(value[0], X)
    np.testing.assert_array_equal(relevance, 2 * X)


def test_constant_outputs_stand_beside_the_others():
    f = jaxlrp.value_and_lrp(lambda x: {"y": x @ W, "c": 1.0, "k": W}, target="all")
    value, relevance = f(X)
    assert value["c"] == 1.0
    np.testing.assert_array_equal(value["k"], W)
    assert_close(relevance.sum(), (X @ W).sum())


def test_integer_outputs_carry_no_relevance():
    def f(x):
        return x @ W, jnp.argmax(x, -1)

    value, relevance = jaxlrp.value_and_lrp(f, LRP0, target="all")(X)
    np.testing.assert_array_equal(value[1], f(X)[1])
    assert_close(relevance, X * W.sum(1))
    out, pull = jaxlrp.relprop(f, X, composite=LRP0)
    assert_close(pull(out), X * W.sum(1))


def test_an_output_without_the_input_warns_and_explains_nothing():
    with pytest.warns(IndependentArgumentWarning):
        relevance = jaxlrp.lrp(lambda x: jnp.ones(3))(X)
    np.testing.assert_array_equal(relevance, jnp.zeros_like(X))


def test_a_value_used_twice_counts_twice():
    h = jaxlrp.lrp(lambda x: x @ W, LRP0, target="all")(X)
    doubled = jaxlrp.lrp(lambda x: (lambda h: h + h)(x @ W), LRP0, target="all")(X)
    assert_close(doubled, 2 * h)
    nothing = jaxlrp.lrp(lambda x: (lambda h: h - h)(x @ W), LRP0, target="all")(X)
    np.testing.assert_array_equal(nothing, jnp.zeros_like(X))
    joined = jaxlrp.lrp(
        lambda x: (lambda h: jnp.concatenate([h, h], -1))(x @ W), LRP0, target="all"
    )(X)
    assert_close(joined, 2 * h)
    square = jaxlrp.lrp(lambda x: x * x, target="all")(X)
    assert_close(square, X * X)
    gram = jaxlrp.lrp(lambda x: jnp.einsum("id,jd->ij", x, x), target="all")(X)
    assert_close(gram.sum(), (X @ X.T).sum())


# ---- value and auxiliary data ------------------------------------------------------

FUNCTIONS = {
    "relu": lambda x: jax.nn.relu(x @ W + 1.0) @ V,
    "attention": lambda x: jax.nn.softmax(x @ x.T) @ x,
    "norm": lambda x: (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1),
    "scan": lambda x: lax.scan(lambda c, t: (jnp.tanh(c @ W + t), c), x[0], x)[1],
    "cond": lambda x: lax.cond(x.sum() > 0, lambda x: x @ W, lambda x: x, x),
    "remat": jax.checkpoint(lambda x: jnp.exp(x @ W) / 7.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("composite", [LRP0, composites.EpsilonPlusFlat()])
def test_the_value_is_the_functions_own_bit_for_bit(name, composite):
    f = FUNCTIONS[name]
    explain = jaxlrp.value_and_lrp(f, composite)
    np.testing.assert_array_equal(explain(X)[0], f(X))
    np.testing.assert_array_equal(jax.jit(explain)(X)[0], jax.jit(f)(X))
    out, _ = jaxlrp.relprop(f, X, composite=composite)
    np.testing.assert_array_equal(out, f(X))


def test_value_and_lrp_explains_as_lrp_does():
    value, relevance = jaxlrp.value_and_lrp(network)(W, X)
    np.testing.assert_array_equal(relevance, jaxlrp.lrp(network)(W, X))
    np.testing.assert_array_equal(value, network(W, X))


def test_auxiliary_data_comes_back_untouched():
    def f(w, x):
        return network(w, x), {"sum": x.sum(), "n": jnp.arange(3), "none": None}

    expected = f(W, X)
    relevance, aux = jaxlrp.lrp(f, has_aux=True)(W, X)
    np.testing.assert_array_equal(relevance, jaxlrp.lrp(network)(W, X))
    jax.tree.map(np.testing.assert_array_equal, aux, expected[1])
    (value, aux), again = jaxlrp.value_and_lrp(f, has_aux=True)(W, X)
    np.testing.assert_array_equal(again, relevance)
    jax.tree.map(np.testing.assert_array_equal, (value, aux), expected)


def test_auxiliary_data_explains_nothing_whatever_it_is_made_of():
    """A loop without reverse mode matters only where relevance passes it."""

    def f(x):
        steps = lax.while_loop(lambda v: v.sum() < 3, lambda v: v + 1.0, x)
        return x @ W, steps

    relevance, _ = jaxlrp.lrp(f, LRP0, has_aux=True)(X)
    np.testing.assert_array_equal(relevance, jaxlrp.lrp(lambda x: x @ W, LRP0)(X))


def test_loops_that_relevance_does_not_pass_are_run():
    def f(x):
        steps = lax.while_loop(
            lambda v: v < 3, lambda v: v + 1.0, lax.stop_gradient(x.sum())
        )
        return x @ W * steps + jnp.searchsorted(jnp.arange(4.0), x)

    value, relevance = jaxlrp.value_and_lrp(f, LRP0, target=0)(X)
    np.testing.assert_array_equal(value, f(X))
    assert np.isfinite(relevance).all() and np.abs(relevance).max() > 0


# ---- relprop -----------------------------------------------------------------------


def test_relprop_can_be_called_many_times_and_is_linear():
    out, pull = jaxlrp.relprop(network, W, X)
    first, second = out, jnp.ones_like(out)
    both = pull(first + 2.0 * second)
    assert_close(both, pull(first) + 2.0 * pull(second))
    np.testing.assert_array_equal(both, pull(first + 2.0 * second))


def test_relprop_of_the_value_is_lrp_of_all_outputs():
    out, pull = jaxlrp.relprop(network, W, X)
    assert_close(pull(out), jaxlrp.lrp(network, target="all")(W, X))


def test_relprop_is_vmapped_over_output_relevances():
    out, pull = jaxlrp.relprop(network, W, X)
    seeds = jnp.stack([out * (jnp.arange(3) == k) for k in range(3)])
    mapped = jax.vmap(pull)(seeds)
    expected = [jaxlrp.lrp(network, target=k)(W, X) for k in range(3)]
    assert_close(mapped, jnp.stack(expected))


def test_relprop_takes_argnums_and_pytrees_of_relevance():
    def f(w, x):
        return {"a": x @ w, "b": x}

    out, pull = jaxlrp.relprop(f, W, X, composite=LRP0, argnums=(1, 0))
    on_x, on_w = pull({"a": jnp.zeros_like(out["a"]), "b": jnp.ones_like(X)})
    np.testing.assert_array_equal(on_x, jnp.ones_like(X))
    np.testing.assert_array_equal(on_w, jnp.zeros_like(W))


def test_relprop_under_jit():
    def explain(w, x):
        out, pull = jaxlrp.relprop(network, w, x)
        return pull(out)

    assert_close(jax.jit(explain)(W, X), explain(W, X))


def test_auxiliary_data_that_is_no_array_comes_back_as_it_is():
    f = lambda x: (x @ W, {"name": "x", "norm": (x**2).sum(), "none": None})  # noqa: E731
    _, aux = jaxlrp.lrp(f, LRP0, has_aux=True)(X)
    assert aux["name"] == "x" and aux["none"] is None
    np.testing.assert_allclose(aux["norm"], (X**2).sum(), rtol=1e-6)


CONSTANT_LEAVES = {
    "float": 1.0,
    "int": 3,
    "bool": True,
    "complex": 1j,
    "NumPy's array": np.ones(2, np.float32),
    "NumPy's number": np.float32(2),
}


@pytest.mark.parametrize("name", CONSTANT_LEAVES)
def test_constants_in_the_output_are_arrays(name):
    x = jnp.array([1.0, -2.0, 4.0])
    leaf = CONSTANT_LEAVES[name]

    def f(x):
        return (x * x).sum(), leaf

    def first(out):
        return jax.tree.map(jnp.zeros_like, out)[0] + out[0], out[1] * 0

    value, found = jaxlrp.value_and_lrp(f, target=first)(x)
    assert all(isinstance(v, jax.Array) for v in jax.tree.leaves(value))
    np.testing.assert_allclose(found, x * x, rtol=1e-6)
    out, pull = jaxlrp.relprop(f, x)
    np.testing.assert_allclose(pull(first(out)), x * x, rtol=1e-6)
    audit = jaxlrp.audit(f, target=first)(x)
    np.testing.assert_allclose(audit.total_out, (x * x).sum(), rtol=1e-6)
    (_, aux), _ = jaxlrp.value_and_lrp(
        lambda x: ((x * x).sum()[None], leaf), has_aux=True
    )(x)
    assert isinstance(aux, jax.Array)
    weights = jaxlrp.parameter_relevance(
        lambda w, x: ((w * x).sum(), leaf), target=first
    )(x, x)
    np.testing.assert_allclose(weights, x * x, rtol=1e-6)
    if name not in ("int", "bool", "complex"):
        found = jaxlrp.attribution.deep_lift(
            f, baseline=0.0, target=lambda out: (jnp.ones(()), out[1] * 0)
        )(x)
        np.testing.assert_allclose(found, x * x, rtol=1e-5)


EXPLAINED = {
    "relprop": lambda f, x: (lambda out, pull: pull(out))(*jaxlrp.relprop(f, x)),
    "lrp_each": lambda f, x: jaxlrp.lrp_each(lambda x: f(x)[:, None])(x),
    "value_grad_and_lrp": lambda f, x: jaxlrp.value_grad_and_lrp(f)(x)[2],
    "deep_lift": lambda f, x: jaxlrp.attribution.deep_lift(f)(x),
    "audit": lambda f, x: jaxlrp.audit(f)(x).total_in,
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_a_guard_against_transfers_is_for_the_users_code(name):
    x = jax.device_put(jnp.array([1.0, -2.0, 4.0]))
    f = lambda x: jnp.tanh(x) * x[::-1]  # noqa: E731
    with jax.transfer_guard("disallow"):
        found = EXPLAINED[name](f, x)
    np.testing.assert_allclose(found, EXPLAINED[name](f, x), rtol=1e-6)
