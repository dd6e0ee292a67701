"""Which output is explained, and the relevance that it starts with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules

LRP0 = composites.Uniform(rules.LRP0())
W = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
X = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)), jnp.float32)
OUT = np.asarray(X @ W)


def linear(x):
    return x @ W


def expected(classes):
    return np.asarray(X) * np.asarray(W)[:, np.asarray(classes)].T


def explain(target, x=X):
    return jaxlrp.lrp(linear, LRP0, target=target)(x)


def assert_close(value, wanted):
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)


def test_max_is_the_highest_output_of_each_example():
    assert_close(explain("max"), expected(OUT.argmax(-1)))


def test_max_takes_the_first_of_several_highest():
    w = jnp.array([[-1.0, 2.0, 0.0, 6.0], [0.0, 1.0, 2.0, -2.0]])
    tied = jaxlrp.lrp(lambda x: x @ w, LRP0)  # -1, 4, 4, 2
    x = np.array([[1.0, 2.0], [1.0, 2.0]], np.float32)
    np.testing.assert_array_equal(tied(x), [[2.0, 2.0]] * 2)
    np.testing.assert_array_equal(jax.jit(tied)(x[0]), [2.0, 2.0])


def test_max_along_the_last_axis_whatever_the_rank():
    deep = jaxlrp.lrp(linear, LRP0)(X.reshape(5, 1, 4))
    assert_close(deep, expected(OUT.argmax(-1)).reshape(5, 1, 4))
    assert_close(jaxlrp.lrp(linear, LRP0)(X[0]), expected(OUT.argmax(-1))[0])


def test_all_starts_with_the_whole_output():
    assert_close(explain("all"), X * W.sum(1))


@pytest.mark.whole
@pytest.mark.parametrize("target", [1, -2, np.int64(1), jnp.int32(1), np.int8(-2)])
def test_one_class_for_all_examples(target):
    assert_close(explain(target), expected([1] * 5))


@pytest.mark.whole
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_one_class_for_each_example(kind):
    classes = [0, 2, 1, -1, -3]
    assert_close(explain(kind(classes)), expected(classes))


def test_classes_may_be_traced():
    traced = jax.jit(lambda x, t: jaxlrp.lrp(linear, LRP0, target=t)(x))
    assert_close(traced(X, jnp.int32(2)), expected([2] * 5))
    assert_close(traced(X, jnp.array([0, 1, 2, -1, 1])), expected([0, 1, 2, 2, 1]))


def test_one_class_for_each_position_of_a_sequence():
    classes = np.array([[0, 1, 2], [2, 2, 1]])
    x = jnp.stack([X[:3], X[1:4]])
    relevance = jaxlrp.lrp(linear, LRP0, target=classes)(x)
    assert_close(
        relevance, np.asarray(x) * np.moveaxis(np.asarray(W)[:, classes], 0, 2)
    )


def test_a_callable_gives_the_outputs_relevance_itself():
    relevance = explain(lambda out: jnp.ones_like(out))
    share = np.asarray(X)[:, :, None] * np.asarray(W) / OUT[:, None, :]
    np.testing.assert_allclose(relevance, share.sum(-1), rtol=1e-4, atol=1e-4)


def test_a_callable_may_repeat_the_named_targets():
    assert_close(explain(lambda out: out), explain("all"))
    assert_close(
        explain(lambda out: out * jax.nn.one_hot(out.argmax(-1), 3)), explain("max")
    )


def test_a_callable_may_contrast_two_classes():
    def contrast(out):
        return out * jnp.array([1.0, -1.0, 0.0])

    assert_close(explain(contrast), explain(0) - explain(1))


def test_a_callable_may_return_numpy_and_pytrees():
    f = jaxlrp.lrp(
        lambda x: {"a": x @ W, "b": (x,)},
        LRP0,
        target=lambda out: {"a": np.zeros(out["a"].shape), "b": (out["b"][0],)},
    )
    assert_close(f(X), X)


def test_a_callable_under_jit_and_vmap():
    f = jaxlrp.lrp(linear, LRP0, target=lambda out: out.at[..., 0].set(0.0))
    whole = f(X)
    assert_close(jax.jit(f)(X), whole)
    assert_close(jax.vmap(f)(X), whole)


@pytest.mark.whole
@pytest.mark.parametrize("target", ["max", "all"])
def test_a_scalar_output_is_its_own_target(target):
    f = jaxlrp.lrp(lambda x: (x @ W).sum(), LRP0, target=target)
    assert_close(f(X), X * W.sum(1))


@pytest.mark.whole
@pytest.mark.parametrize("tree", [lambda y: [y], lambda y: {"logits": y}])
def test_an_output_that_is_one_array_in_a_container(tree):
    f = jaxlrp.value_and_lrp(lambda x: tree(x @ W), LRP0)
    value, relevance = f(X)
    assert jax.tree.structure(value) == jax.tree.structure(tree(0))
    assert_close(relevance, explain("max"))


def test_the_target_is_chosen_by_the_value_with_masked_outputs():
    """A masked output is -inf: it is never the target and receives nothing."""
    mask = jnp.array([True, False, True])
    f = jaxlrp.lrp(lambda x: jnp.where(mask, x @ W, -jnp.inf), LRP0)
    classes = np.where(mask, OUT, -np.inf).argmax(-1)
    assert_close(f(X), expected(classes))
    whole = jaxlrp.lrp(lambda x: jnp.where(mask, x @ W, -jnp.inf), LRP0, target="all")
    assert_close(whole(X), expected([0] * 5) + expected([2] * 5))
    target = jaxlrp.lrp(lambda x: jnp.where(mask, x @ W, -jnp.inf), LRP0, target=2)
    assert_close(target(X), expected([2] * 5))


def test_class_out_of_range_is_refused_under_jit_too():
    f = lambda x: x @ jnp.ones((4, 3))  # noqa: E731
    with pytest.raises(ValueError, match=r"target: got 99, expected classes in"):
        jax.jit(jaxlrp.lrp(f, target=99))(jnp.ones((2, 4)))


# ---- a class against the others ----------------------------------------------------

AGAINST = {"contrastive": jaxlrp.targets.Contrastive, "odds": jaxlrp.targets.LogOdds}


def log_odds(y):
    """`log(p / (1 - p))` of each class, for the softmax's probabilities."""
    p = np.exp(np.asarray(y, np.float64))
    p /= p.sum(-1, keepdims=True)
    return np.log(p) - np.log1p(-p)


@pytest.mark.whole
@pytest.mark.parametrize("classes", ["max", 1, -1, jnp.array([0, 1, 2, 1, 0])])
def test_contrastive_explains_a_class_less_the_mean_of_the_others(classes):
    index = OUT.argmax(-1) if isinstance(classes, str) else np.asarray(classes) % 3
    index = np.broadcast_to(index, 5)
    own = OUT[np.arange(5), index]
    relevance = explain(jaxlrp.targets.Contrastive(classes))
    assert_close(relevance.sum(-1), own - (OUT.sum(-1) - own) / 2)
    others = (OUT.sum(-1) - own) / 2
    assert np.abs(others).max() > 0.1


@pytest.mark.whole
@pytest.mark.parametrize("classes", [0, jnp.array([0, 1, 2, 1, 0])])
def test_log_odds_seed_is_their_gradient_times_the_scores(classes):
    index = np.broadcast_to(classes, 5)
    out, step = OUT.astype(np.float64), 1e-5
    gradient = np.empty_like(out)
    for j in range(3):
        moved = step * np.eye(3)[j]
        up, down = log_odds(out + moved), log_odds(out - moved)
        gradient[:, j] = (up - down)[np.arange(5), index] / (2 * step)
    wanted = np.asarray(X) * (gradient @ np.asarray(W).T)
    np.testing.assert_allclose(
        explain(jaxlrp.targets.LogOdds(classes)), wanted, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("kind", AGAINST.values(), ids=AGAINST)
def test_targets_against_others_are_taken_everywhere(kind):
    target = kind("max")
    relevance = explain(target)
    value, again = jaxlrp.value_and_lrp(linear, LRP0, target=target)(X)
    audit = jaxlrp.audit(linear, LRP0, target=target)(X)
    given = jaxlrp.parameter_relevance(lambda w, x: x @ w, LRP0, target=target)(W, X)
    assert_close(value, OUT)
    assert_close(again, relevance)
    assert audit.total_in == pytest.approx(float(relevance.sum()), rel=1e-4)
    assert audit.residual == pytest.approx(0.0, abs=1e-4)
    assert_close(given.sum(), relevance.sum())


@pytest.mark.parametrize("kind", AGAINST.values(), ids=AGAINST)
def test_targets_against_others_are_pytrees(kind):
    compiled = jax.jit(lambda target, x: explain(target, x))
    assert_close(compiled(kind(1), X), explain(kind(1)))
    assert_close(compiled(kind("max"), X), explain(kind("max")))
    each = jax.vmap(lambda t: explain(kind(t)))(jnp.arange(3))
    assert_close(each[2], explain(kind(2)))


@pytest.mark.whole
@pytest.mark.parametrize("own", ["all", 1.5, True, len])
def test_only_a_class_is_set_against_others(own):
    with pytest.raises(TypeError, match="which is set against the others"):
        explain(jaxlrp.targets.Contrastive(own))


def test_one_class_has_no_others():
    with pytest.raises(ValueError, match="expected at least two classes"):
        jaxlrp.lrp(lambda x: x[:, :1], target=jaxlrp.targets.LogOdds("max"))(X)


# ---- places, and targets in the structure of the output ------------------------------

PLACES = jnp.asarray(np.random.default_rng(3).normal(size=(4, 24)), jnp.float32)


def picture(x):
    """A class for each place: (examples, height, width, classes)."""
    return (x @ PLACES).reshape(-1, 2, 4, 3)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
@pytest.mark.parametrize("look", [jaxlrp.lrp, jaxlrp.attribution.gradient])
@pytest.mark.parametrize("target", [(1, 3, 2), (-1, -1, -1), (0, np.int64(2), 1)])
def test_a_tuple_is_a_place_along_the_last_axes(wrap, look, target):
    def hot(out):
        chosen = jnp.zeros_like(out).at[(slice(None), *target)].set(1)
        return chosen if look is not jaxlrp.lrp else chosen * out

    found = wrap(look(picture, target=target))(X)
    np.testing.assert_allclose(found, look(picture, target=hot)(X), rtol=1e-5)


def test_a_tuple_of_one_is_a_class():
    f = lambda x: x @ W  # noqa: E731
    found = jaxlrp.lrp(f, target=(1,))(X)
    np.testing.assert_array_equal(found, jaxlrp.lrp(f, target=1)(X))


def test_a_tuple_of_all_axes_is_one_number():
    found = jaxlrp.lrp(picture, LRP0, target=(2, 1, 3, 0))(X)
    np.testing.assert_allclose(found[2], X[2] * PLACES[:, 21], rtol=1e-5)
    assert not np.asarray(found[np.array([0, 1, 3, 4])]).any()


def test_each_example_may_have_its_place():
    places = [(0, 1, 2), (1, 0, 0), (1, 3, 1), (0, 0, 0), (-1, -1, -1)]
    along = tuple(np.array(axis) for axis in zip(*places, strict=True))
    found = jaxlrp.lrp(picture, LRP0, target=places)(X)
    for given in (along, tuple(map(jnp.asarray, along))):
        again = jax.jit(lambda t: jaxlrp.lrp(picture, LRP0, target=t)(X))(given)
        np.testing.assert_allclose(again, found, rtol=1e-6)
    for i, place in enumerate(places):
        one = jaxlrp.lrp(picture, LRP0, target=place)(X)
        np.testing.assert_allclose(found[i], one[i], rtol=1e-6)


WRONG_PLACES = [
    ((2, 0, 0), ValueError, r"places along axis 1 in \[-2, 2\)"),
    ((0, 0, 3), ValueError, r"classes in \[-3, 3\)"),
    ((0,) * 5, ValueError, "5 places, for an output of shape"),
    (([0, 1], 0, 0), TypeError, "target"),
    ((0.5, 0, 0), TypeError, "target"),
    ((True, 0, 0), TypeError, "target"),
    ((), TypeError, r"target: got \(\), expected"),
    (("max", 0), TypeError, "expected ints"),
    ([(0, 0), (0, 0, 0)], TypeError, "tuples of as many ints"),
    ([(0, 0, 0)], ValueError, r"array of shape \(1,\), expected"),
    ((np.arange(3), 0, 0), ValueError, r"array of shape \(3,\), expected"),
]


@pytest.mark.whole
@pytest.mark.parametrize(("target", "error", "message"), WRONG_PLACES, ids=str)
def test_places_that_there_are_not(target, error, message):
    with pytest.raises(error, match=message):
        jaxlrp.lrp(picture, target=target)(X)


def tree(x):
    return {"class": x @ W, "box": (jnp.tanh(x), 2.0 * x)}


TREES = {
    "one leaf": (
        {"class": 1, "box": None},
        lambda out: {
            "class": out["class"] * jnp.eye(3)[1],
            "box": tuple(map(jnp.zeros_like, out["box"])),
        },
    ),
    "several": (
        {"class": "max", "box": ("all", (2,))},
        lambda out: {
            "class": out["class"] * jax.nn.one_hot(out["class"].argmax(-1), 3),
            "box": (out["box"][0], out["box"][1] * jnp.eye(4)[2]),
        },
    ),
    "a callable": (
        {"class": jaxlrp.targets.Contrastive(0), "box": (lambda y: y**2, None)},
        lambda out: {
            "class": out["class"] * jnp.array([1.0, -0.5, -0.5]),
            "box": (out["box"][0] ** 2, jnp.zeros_like(out["box"][1])),
        },
    ),
    "a target for a part": (
        {"class": None, "box": "all"},
        lambda out: {"class": jnp.zeros_like(out["class"]), "box": out["box"]},
    ),
}


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
@pytest.mark.parametrize("name", TREES)
def test_a_target_in_the_structure_of_the_output(wrap, name):
    target, seed = TREES[name]
    expected = jaxlrp.lrp(tree, LRP0, target=seed)(X)
    found = wrap(jaxlrp.lrp(tree, LRP0, target=target))(X)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TREES)
def test_every_method_takes_such_a_target(name):
    target, seed = TREES[name]
    audit = jaxlrp.audit(tree, LRP0, target=target)(X)
    wanted = sum(float(r.sum()) for r in jax.tree.leaves(seed(tree(X))))
    assert audit.total_out == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    out = lambda x: tree(x)  # noqa: E731
    for method in (
        jaxlrp.attribution.gradient,
        jaxlrp.attribution.integrated_gradients,
        jaxlrp.attribution.guided_backprop,
        lambda f, target: jaxlrp.lrp(f, baseline=0.0, target=target),
        lambda f, target: jaxlrp.lrp_each(f, target=target),
        lambda f, target: jaxlrp.check(f, target=target),
    ):
        assert method(out, target=target)(X) is not None


def test_lists_named_tuples_and_one_leaf_are_structures():
    lists = lambda x: [x @ W, x]  # noqa: E731
    found = jaxlrp.lrp(lists, LRP0, target=(1, None))(X)
    np.testing.assert_allclose(found, X * W[:, 1], rtol=1e-5)
    one = lambda x: {"y": x @ W}  # noqa: E731
    for target in (1, (1,), {"y": 1}, {"y": (1,)}):
        found = jaxlrp.lrp(one, LRP0, target=target)(X)
        np.testing.assert_allclose(found, X * W[:, 1], rtol=1e-5)


WRONG_TREES = [
    ({"class": 1}, ValueError, "target: got the structure .*expected that of the out"),
    ({"class": 1, "box": (0,)}, ValueError, "target: got the structure"),
    ({"class": "logit", "box": None}, ValueError, r"target\['class'\]: got 'logit'"),
    ({"class": 1.0, "box": None}, TypeError, r"target\['class'\]: got 1.0, expected"),
    ({"class": None, "box": None}, TypeError, "target: got"),
    ({"class": 7, "box": None}, ValueError, r"target: got 7, expected classes"),
    ((0, 0, 0), ValueError, "target: got the structure"),
    ({}, TypeError, "target: got {}, expected"),
]


@pytest.mark.whole
@pytest.mark.parametrize(("target", "error", "message"), WRONG_TREES, ids=str)
def test_targets_of_another_structure(target, error, message):
    with pytest.raises(error, match=message):
        jaxlrp.lrp(tree, target=target)(X)


def test_a_target_for_an_array_has_no_names():
    with pytest.raises(ValueError, match="target: got the structure"):
        jaxlrp.lrp(lambda x: x @ W, target={"y": 1})(X)
