"""Sanity checks, against loops over layers and classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import evaluation

RNG = np.random.default_rng(11)
LAYERS = ("body/conv", "body/dense", "head")
PARAMS = {
    "body": {
        "conv": {
            "kernel": RNG.normal(size=(6, 5)).astype(np.float32),
            "bias": np.zeros(5, np.float32),
        },
        "dense": {"kernel": RNG.normal(size=(5, 5)).astype(np.float32)},
    },
    "head": RNG.normal(2.0, 3.0, size=(5, 4)).astype(np.float32),
    "steps": np.array(7),
}
X = RNG.normal(size=(3, 6)).astype(np.float32)
KEY = jax.random.key(5)


def f(params, x):
    h = jax.nn.relu(x @ params["body"]["conv"]["kernel"])
    h = jax.nn.relu(h @ params["body"]["dense"]["kernel"])
    return h @ params["head"]


@jax.jit
def explain(params, x, target=0):
    return jaxlrp.lrp(f, target=target)(params, x)


compared = jax.jit(jax.vmap(lambda a, b: evaluation.compare(a, b)))
fresh_layers = jax.jit(lambda: evaluation.randomise(PARAMS, KEY, LAYERS))


def with_layers(fresh, chosen):
    """PARAMS with the leaves of some layers from `fresh`."""
    mixed = jax.tree.map(lambda v: v, PARAMS)
    if "body/conv" in chosen:
        mixed["body"]["conv"] = fresh["body"]["conv"]
    if "body/dense" in chosen:
        mixed["body"]["dense"] = fresh["body"]["dense"]
    if "head" in chosen:
        mixed["head"] = fresh["head"]
    return mixed


CHOSEN = {
    "cascading": lambda i: LAYERS[i:],
    "independent": lambda i: LAYERS[i : i + 1],
    "bottom_up": lambda i: LAYERS[: i + 1],
}


def test_layers_are_randomised_in_order():
    @jax.jit
    def randomised(params, x):
        return {
            order: evaluation.parameter_randomisation(
                explain,
                params,
                x,
                key=KEY,
                layers=LAYERS,
                order=order,
                measures={"cosine": evaluation.cosine},
                batch_ndim=1,
            )["cosine"]
            for order in CHOSEN
        }

    fresh, base = fresh_layers(), explain(PARAMS, X)
    for order, found in randomised(PARAMS, X).items():
        assert found.shape == (3, 3)
        for i in range(len(LAYERS)):
            other = np.asarray(explain(with_layers(fresh, CHOSEN[order](i)), X))
            norms = np.linalg.norm(base, axis=1) * np.linalg.norm(other, axis=1)
            wanted = (np.asarray(base) * other).sum(1) / norms
            np.testing.assert_allclose(found[i], wanted, rtol=1e-3, atol=1e-5)


def test_each_layer_and_leaf_has_a_key_of_its_own():
    same = {name: {"a": jnp.arange(50.0), "b": jnp.arange(50.0)} for name in "uvw"}
    drawn = evaluation.randomise(same, KEY, ["u", "v", "w"])
    leaves = jax.tree.leaves(drawn)
    assert len({tuple(np.asarray(leaf).tolist()) for leaf in leaves}) == 6
    again = evaluation.randomise(same, jax.random.key(6), ["u", "v", "w"])
    assert not jnp.array_equal(again["u"]["a"], drawn["u"]["a"])


@pytest.mark.always
def test_layer_has_the_same_weights_whichever_others_are_drawn():
    all_of_them, without_head = (
        evaluation.randomise(PARAMS, KEY, layers, init="shuffle")
        for layers in (LAYERS, LAYERS[:2])
    )
    np.testing.assert_array_equal(
        all_of_them["body"]["dense"]["kernel"], without_head["body"]["dense"]["kernel"]
    )
    np.testing.assert_array_equal(without_head["head"], PARAMS["head"])


def test_normal_weights_have_the_mean_and_deviation_of_the_leaf():
    leaf = {"w": jnp.asarray(RNG.normal(4.0, 3.0, 50_000), jnp.float32)}
    drawn = evaluation.randomise(leaf, KEY, ["w"])["w"]
    assert abs(float(drawn.mean()) - 4) < 0.1 and abs(float(drawn.std()) - 3) < 0.1


def test_shuffled_weights_are_the_same_numbers_elsewhere():
    drawn = evaluation.randomise(PARAMS, KEY, ["head"], init="shuffle")["head"]
    np.testing.assert_array_equal(np.sort(drawn, None), np.sort(PARAMS["head"], None))
    assert not np.array_equal(drawn, PARAMS["head"])


def test_weights_may_be_drawn_by_a_function():
    drawn = evaluation.randomise(
        PARAMS, KEY, ["head"], init=lambda key, leaf: jnp.full(leaf.shape, 2.0)
    )
    np.testing.assert_array_equal(drawn["head"], 2.0)
    with pytest.raises(ValueError, match=r"init: it returned shape \(1,\)"):
        evaluation.randomise(PARAMS, KEY, ["head"], init=lambda k, v: jnp.zeros(1))


def test_what_is_constant_or_no_float_stays():
    drawn = evaluation.randomise(PARAMS, KEY, ["body/conv/bias", "steps"])
    np.testing.assert_array_equal(drawn["body"]["conv"]["bias"], 0.0)
    assert drawn["steps"] == 7


def test_layers_are_named_by_paths_and_globs():
    assert evaluation.layer_names(PARAMS) == (*LAYERS, "steps")
    drawn = evaluation.randomise(PARAMS, KEY, ["body/*"], init="shuffle")
    assert not np.array_equal(
        drawn["body"]["dense"]["kernel"], PARAMS["body"]["dense"]["kernel"]
    )
    np.testing.assert_array_equal(drawn["head"], PARAMS["head"])
    # A name is no prefix: layer_1 is not layer_10.
    two = {"layer_1": jnp.arange(3.0), "layer_10": jnp.arange(3.0)}
    kept = evaluation.randomise(two, KEY, ["layer_1"], init="shuffle")["layer_10"]
    assert kept.tolist() == [0, 1, 2]


def test_explanations_of_several_depths_are_compared_each():
    def deep(params):
        h = jax.nn.relu(X @ params["body"]["conv"]["kernel"])
        return {"input": explain(params, X), "hidden": h}

    found = evaluation.parameter_randomisation(
        deep,
        PARAMS,
        key=KEY,
        layers=LAYERS,
        order="independent",
        measures={"cosine": evaluation.cosine},
        batch_ndim=1,
    )["cosine"]
    assert found["input"].shape == found["hidden"].shape == (3, 3)
    # The hidden value does not depend on later layers.
    np.testing.assert_allclose(found["hidden"][1:], 1.0, rtol=1e-5)
    assert (found["hidden"][0] < 0.99).any()


def test_logit_swap_compares_with_each_other_class():
    found = jax.jit(
        lambda x: evaluation.logit_swap(
            lambda t: explain(PARAMS, x, t), 1, jnp.array([0, 2, 3, 1]), chunk=3
        )
    )(X[0])
    others = jnp.array([0, 2, 3, 1])
    relevances = jnp.stack([explain(PARAMS, X[0], t) for t in others])
    wanted = compared(jnp.tile(relevances[3], (4, 1)), relevances)
    assert sorted(found) == ["cosine", "spearman", "ssim"]
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose([v[3] for v in found.values()], 1.0, rtol=1e-5)


def test_random_logit_takes_each_other_class_and_never_the_own():
    own = np.array([0, 1, 2, 3] * 50)
    found = jax.jit(
        lambda key: evaluation.random_logit(
            lambda t: jnp.eye(4)[t],
            own,
            key,
            classes=4,
            measures={"other": lambda a, b: jnp.argmax(b)},
            batch_ndim=1,
        )
    )(KEY)["other"]
    found = np.asarray(found)
    assert (found != own).all()
    for label in range(4):
        drawn = found[own == label]
        assert sorted(set(drawn.tolist())) == [c for c in range(4) if c != label]


def test_random_logit_of_a_batch_is_that_of_the_swap():
    targets = jnp.array([0, 1, 3])
    found = jax.jit(
        lambda key: evaluation.random_logit(
            lambda t: explain(PARAMS, X, t), targets, key, classes=4, batch_ndim=1
        )
    )(KEY)
    others = (targets + jax.random.randint(KEY, (3,), 1, 4)) % 4
    pair = explain(PARAMS, X, targets), explain(PARAMS, X, others)
    for name, wanted in compared(*pair).items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": ["body/con"]}, "near are body/conv"),
        ({"layers": ["body", "body/conv"]}, "is in both 'body' and 'body/conv'"),
        ({"layers": []}, r"layers: got \[\]"),
        ({"layers": "head"}, "layers: got 'head'"),
        ({"layers": [3]}, "layers: got 3"),
        ({"order": "top_down"}, "order: got 'top_down'"),
        ({"init": "zeros"}, "init: got 'zeros'"),
        ({"key": 3}, "key: got 3"),
        ({"batch_ndim": -1}, "batch_ndim: got -1"),
        ({"measures": [evaluation.cosine]}, "measures: got"),
    ],
)
def test_bad_arguments_are_named(given, message):
    options = {"key": KEY, "layers": LAYERS} | given
    with pytest.raises((TypeError, ValueError), match=message):
        evaluation.parameter_randomisation(explain, PARAMS, X, **options)


def test_bad_classes_are_named():
    with pytest.raises(TypeError, match="target: got dtype float32"):
        evaluation.random_logit(lambda t: t, 1.0, KEY, classes=3)
    with pytest.raises(ValueError, match="classes: got 1"):
        evaluation.random_logit(lambda t: t, 0, KEY, classes=1)
    with pytest.raises(ValueError, match="others: got shape"):
        evaluation.logit_swap(lambda t: t, 0, 1)
