"""`lrp` with a baseline: the relevance of a difference, and what goes along with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import jaxlrp
from jaxlrp import attribution, composites
from jaxlrp.errors import IndependentArgumentWarning

RNG = np.random.default_rng(5)
W = jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)
V = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
X, X0 = jnp.asarray(RNG.normal(size=(2, 5, 4)), jnp.float32)


def network(w, x):
    h = jax.nn.gelu(x @ w + 0.5)
    return jax.nn.sigmoid(h @ V) * (h @ V + 1.0)


def of_tree(scale, tree):
    return network(W * scale, tree["a"] + tree["b"][0])


TREE = {"a": X, "b": [X[::-1]]}
TREE0 = {"a": X0, "b": [jnp.zeros(4)]}
SCALE = jnp.float32(1.5)


def assert_close(value, wanted, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(value, wanted, rtol=rtol, atol=atol)


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(assert_close, found, wanted)


def total(tree):
    return sum(leaf.sum() for leaf in jax.tree.leaves(tree))


# ---- what it is --------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [0.5, X0, X0[0], np.asarray(X0)])
@pytest.mark.parametrize("target", ["max", "all", 1])
def test_the_relevance_adds_up_to_the_difference_of_the_scores(baseline, target):
    relevance = jaxlrp.lrp(network, baseline=baseline, target=target)(W, X)
    end, start = network(W, X), network(W, jnp.broadcast_to(baseline, X.shape))
    if target == "all":
        gain = (end - start).sum(-1)
    else:
        classes = end.argmax(-1) if target == "max" else jnp.full(5, target)
        gain = (end - start)[jnp.arange(5), classes]
    assert_close(relevance.sum(-1), gain)


def test_each_operation_has_its_difference_quotient():
    """`tanh(u) v` with `u = 2 a`, `v = b + 1`, by hand: rescale rule and half way."""
    x, x0 = np.array([0.7, 3.0]), np.array([-0.2, 1.0])
    with jax.enable_x64(True):
        f = lambda x: jnp.tanh(2.0 * x[0]) * (x[1] + 1.0)  # noqa: E731
        found = jaxlrp.lrp(f, baseline=x0)(x)
    t, t0 = np.tanh(2 * x[0]), np.tanh(2 * x0[0])
    v, v0 = x[1] + 1, x0[1] + 1
    wanted = [(t - t0) * (v + v0) / 2, (v - v0) * (t + t0) / 2]
    assert_close(found, wanted, rtol=1e-12)


CHOICES = {
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "hard_tanh": jax.nn.hard_tanh,
    "sparse_plus": jax.nn.sparse_plus,
    "prelu": lambda x: jnp.where(x > 0, x, 0.25 * x),
    "huber": lambda x: jnp.where(jnp.abs(x) < 1, x**2 / 2, jnp.abs(x) - 0.5),
    "threshold": lambda x: x * (x > 0.5),
    "sign": lambda x: jnp.sign(x) * jnp.sqrt(jnp.abs(x)),
    "guard": lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), x - 1),
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_by_its_own_variable_has_its_difference_quotient(name):
    g = CHOICES[name]
    found = jaxlrp.lrp(g, baseline=X0, target="all")(X)
    assert_close(found, g(X) - g(X0))
    score = lambda x: (jnp.tanh(g(x @ W)) @ V).sum()  # noqa: E731
    whole = jaxlrp.lrp(score, baseline=X0)(X)
    assert_close(whole.sum(), score(X) - score(X0), rtol=1e-3)


def test_a_choice_of_an_infinite_value_is_finite():
    masked = lambda x: jax.nn.softmax(jnp.where(x > 0, x, -jnp.inf))  # noqa: E731
    x, x0 = jnp.array([1.0, 2.0, -1.0, 3.0]), jnp.array([2.0, -1.0, -2.0, 1.0])
    found = jaxlrp.lrp(masked, baseline=x0, target=0)(x)
    assert jnp.isfinite(found).all() and abs(found).max() > 0


def test_choices_in_a_loop_and_of_a_named_value_have_theirs():
    def f(x):
        def body(h, _):
            h = checkpoint_name(0.5 * h, "half")
            return jax.nn.leaky_relu(h + jnp.sin(x)), None

        return lax.scan(body, x, length=3)[0]

    found = jaxlrp.lrp(f, baseline=X0, target="all")(X)
    assert_close(found, f(X) - f(X0), rtol=1e-3)


def test_what_another_value_decides_or_is_held_is_that_of_the_input():
    cases = {
        "other": lambda x: jnp.where(x[..., ::-1] > 0, x, 0.25 * x),
        "held": lambda x: x * lax.stop_gradient(jnp.where(x > 0, 1.0, 0.25)),
    }
    factors = {
        "other": np.where(X[..., ::-1] > 0, 1, 0.25),
        "held": np.where(X > 0, 1, 0.25),
    }
    for name, f in cases.items():
        found = jaxlrp.lrp(f, baseline=X0, target="all")(X)
        assert_close(found, factors[name] * (X - X0))


def test_what_is_the_baseline_has_no_relevance():
    x = X0.at[:, 1].add(1.0)
    relevance = jaxlrp.lrp(network, baseline=X0)(W, x)
    assert np.abs(relevance[:, 1]).min() > 0
    np.testing.assert_array_equal(relevance.at[:, 1].set(0.0), jnp.zeros_like(x))


def test_a_baseline_of_zero_is_a_baseline():
    relevance = jaxlrp.lrp(network, baseline=0)(W, X)
    assert_close(relevance, attribution.deep_lift(network)(W, X))
    assert np.abs(relevance - jaxlrp.lrp(network)(W, X)).max() > 0.01


def second(out):
    return jnp.zeros_like(out).at[:, 1].set(1.0)


def with_aux(w, x):
    return network(w, x), {"name": "x", "mean": x.mean()}


SAME = {
    "target": (network, (W, X), {"baseline": X0, "target": 2}),
    "classes": (network, (W, X), {"baseline": X0, "target": np.array([0, 1, 2, 0, 1])}),
    "contrast": (
        network,
        (W, X),
        {"baseline": X0, "target": jaxlrp.targets.Contrastive("max")},
    ),
    "callable": (network, (W, X), {"baseline": X0, "target": second}),
    "weights": (network, (W, X), {"baseline": 0.1, "argnums": 0}),
    "pytree": (of_tree, (SCALE, TREE), {"baseline": TREE0}),
    "several": (of_tree, (SCALE, TREE), {"baseline": (TREE0, 1.0), "argnums": (1, 0)}),
    "auxiliary": (with_aux, (W, X[0]), {"baseline": 0.0, "has_aux": True}),
}


@pytest.mark.parametrize("name", sorted(set(SAME) - {"auxiliary"}))
def test_it_is_deep_lift_in_all_its_forms(name):
    f, args, options = SAME[name]
    found = jaxlrp.lrp(f, **options)(*args)
    assert_same(found, attribution.deep_lift(f, **options)(*args))
    argnums = options.get("argnums", -1)
    wanted = tuple(args[n] for n in argnums) if name == "several" else args[argnums]
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, wanted)
    assert_same(jax.jit(jaxlrp.lrp(f, **options))(*args), found)


def test_several_arguments_share_the_difference():
    f, args, options = SAME["several"]
    both = jaxlrp.lrp(f, target="all", **options)(*args)
    gain = f(*args).sum() - f(jnp.float32(1.0), TREE0 | {"a": X0}).sum()
    assert_close(total(both), gain)


# ---- value and auxiliary data ------------------------------------------------------


def test_the_value_is_that_at_the_input():
    explain = jaxlrp.value_and_lrp(network, baseline=X0)
    value, relevance = explain(W, X)
    np.testing.assert_array_equal(value, network(W, X))
    np.testing.assert_array_equal(relevance, jaxlrp.lrp(network, baseline=X0)(W, X))
    assert_same(jax.jit(explain)(W, X), (value, relevance))


def test_auxiliary_data_is_that_at_the_input():
    options = {"baseline": X0, "has_aux": True}
    (value, aux), relevance = jaxlrp.value_and_lrp(with_aux, **options)(W, X)
    again, aux_again = jaxlrp.lrp(with_aux, **options)(W, X)
    np.testing.assert_array_equal(value, network(W, X))
    np.testing.assert_array_equal(again, relevance)
    np.testing.assert_array_equal(again, jaxlrp.lrp(network, baseline=X0)(W, X))
    for found in (aux, aux_again):
        assert found["name"] == "x"
        np.testing.assert_array_equal(found["mean"], X.mean())


def test_auxiliary_data_may_be_made_by_what_has_no_quotient():
    def f(w, x):
        def body(v):
            jax.debug.print("", ordered=False)
            return v + 1.0

        return network(w, x), lax.while_loop(lambda v: v.sum() < 9, body, x)

    relevance, aux = jaxlrp.lrp(f, baseline=X0, has_aux=True)(W, X)
    np.testing.assert_array_equal(relevance, jaxlrp.lrp(network, baseline=X0)(W, X))
    assert aux.shape == X.shape


def test_integer_outputs_stand_beside_the_others():
    f = lambda x: {"y": network(W, x), "n": jnp.argmax(x, -1)}  # noqa: E731
    value, relevance = jaxlrp.value_and_lrp(f, baseline=X0, target="all")(X)
    np.testing.assert_array_equal(value["n"], X.argmax(-1))
    assert_close(relevance.sum(), (network(W, X) - network(W, X0)).sum())


# ---- transformations ---------------------------------------------------------------


def test_many_baselines_are_one_vmap():
    baselines = jnp.stack([X0, 0 * X0, X0 + 1.0])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def against(x0, x):
        return jaxlrp.lrp(network, baseline=x0, target=0)(W, x)

    one = [jaxlrp.lrp(network, baseline=b, target=0)(W, X) for b in baselines]
    assert_close(against(baselines, X), jnp.stack(one))


def test_vmap_over_examples_is_the_batch():
    explain = lambda x, x0: jaxlrp.lrp(network, baseline=x0)(W, x)  # noqa: E731
    assert_close(jax.vmap(explain)(X, X0), explain(X, X0))


@pytest.mark.parametrize("checkpoints", [1, 2, 64])
def test_checkpoints_of_a_loop_change_nothing(checkpoints):
    def f(x):
        step = lambda s: (s[0] + 1, jnp.tanh(s[1] @ W @ V[:, :1]) + s[1])  # noqa: E731
        return lax.while_loop(lambda s: s[0] < 7, step, (0, x))[1]

    options = {"baseline": X0, "target": "all"}
    found = jaxlrp.lrp(f, checkpoints=checkpoints, **options)(X)
    assert_close(found, attribution.deep_lift(f, **options)(X))
    assert_close(found.sum(), (f(X) - f(X0)).sum())


# ---- errors ------------------------------------------------------------------------

BESIDE = {
    "a composite": {"composite": composites.EpsilonPlus()},
    "capture": {"capture": "hidden"},
    "conditions": {"conditions": {"hidden": jnp.ones(6)}},
    "remat": {"remat": True},
}


@pytest.mark.whole
@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("explain", [jaxlrp.lrp, jaxlrp.value_and_lrp])
def test_what_has_to_do_with_rules_is_refused_beside_a_baseline(explain, name):
    message = f"baseline: a baseline and {name} cannot both be given"
    with pytest.raises(ValueError, match=message):
        explain(network, baseline=0.0, **BESIDE[name])


def test_a_baseline_of_another_form_is_refused():
    with pytest.raises(ValueError, match=r"baseline: got shape \(3,\) for argument 1,"):
        jaxlrp.lrp(network, baseline=jnp.ones(3))(W, X)
    with pytest.raises(ValueError, match="baseline: got the structure .* expected a"):
        jaxlrp.lrp(of_tree, baseline={"a": X0})(SCALE, TREE)
    with pytest.raises(
        ValueError, match=r"got shape \(3,\) for argument 1\['b'\]\[0\]"
    ):
        jaxlrp.lrp(of_tree, baseline=TREE0 | {"b": [jnp.ones(3)]})(SCALE, TREE)
    with pytest.raises(TypeError, match="baseline: got 'mean', expected numbers or"):
        jaxlrp.lrp(network, baseline="mean")(W, X)
    with pytest.raises(TypeError, match="baseline: got None, expected numbers or"):
        attribution.deep_lift(network, baseline=None)


def test_integers_have_no_differences():
    f = lambda ids: W.T[ids]  # noqa: E731
    message = "argument 0 is attributed: got dtype int32, .* without a baseline"
    with pytest.raises(TypeError, match=message):
        jaxlrp.lrp(f, baseline=0.0, target="all")(jnp.arange(3))


def test_an_argument_that_does_nothing_warns():
    with pytest.warns(IndependentArgumentWarning) as caught:
        relevance = jaxlrp.lrp(lambda x: jnp.ones(3), baseline=0.0)(X)
    np.testing.assert_array_equal(relevance, jnp.zeros_like(X))
    assert caught[0].filename == __file__


@pytest.mark.always
def test_a_maximum_that_is_held_is_each_inputs_own():
    def held(x):
        e = jnp.exp(x - jax.lax.stop_gradient(x.max()))
        return e / e.sum()

    x, x0 = jnp.array([1.0, -2.0, 60.0, 3.0]), jnp.array([-30.0, 5.0, -1.0, 2.0])
    expected = jaxlrp.lrp(jax.nn.softmax, target=1, baseline=x0)(x)
    assert_close(jaxlrp.lrp(held, target=1, baseline=x0)(x), expected)


@pytest.mark.always
@pytest.mark.parametrize("far", [1000.0, -1000.0])
def test_a_softmax_has_the_maximum_of_each_input(far):
    """With that of the other one, an exponential of a difference would overflow."""
    x, x0 = jnp.array([1.0, 2.0, 0.0]), far + jnp.array([0.5, 0.0, 1.0])
    explain = jaxlrp.lrp(jax.nn.softmax, target=1, baseline=x0)
    difference = jax.nn.softmax(x)[1] - jax.nn.softmax(x0)[1]
    assert_close(explain(x).sum(), difference)


def test_a_branch_has_its_value_at_each_end():
    """`tanh(x + sin x)`: what stands beside the branch is of the same end."""
    x, x0 = jnp.array([0.7, 3.0]), jnp.array([-0.2, 1.0])

    def f(x):
        return jnp.tanh(x + lax.switch(1 + 0 * x.size, [jnp.cos, jnp.sin], x)).sum()

    def g(x):  # whose index is not known before
        index = (x.sum() > -9).astype(jnp.int32)
        return jnp.tanh(x + lax.switch(index, [jnp.cos, jnp.sin], x)).sum()

    value, relevance = jaxlrp.value_and_lrp(g, baseline=x0)(x)
    assert_close(value, f(x))
    assert_close(relevance.sum(), f(x) - f(x0))
