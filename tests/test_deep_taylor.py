"""Root points against the rules that they stand for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, deep_taylor, rules
from tests.rules.test_layer import draw

RULES = {
    "w-square": rules.WSquare(0.0, bias="ignore"),
    "z-plus": rules.ZPlus(0.0, bias="ignore"),
    "z-box": rules.ZBox(-2.0, jnp.linspace(1.6, 2.0, 4), epsilon=0.0),
    "lrp0": rules.LRP0(),
    "gamma": rules.Gamma(0.25, epsilon=0.0, bias="ignore"),
}


@pytest.mark.parametrize("name", RULES)
def test_roots_are_roots_and_give_the_rules_shares(name):
    rule = RULES[name]
    with jax.enable_x64(True):
        x, w, b = draw(2, 4), draw(4, 3), draw(3) * (name != "lrp0")
        # Some contribution to each neuron is positive.
        x, w = x.at[:, 0].set(1.5), w.at[0].set(jnp.abs(w[0]))
        roots = deep_taylor.root_points(rule, x, w, b)
        at_root = jnp.einsum("bij,ji->bi", roots.points, w) + b
        np.testing.assert_allclose(at_root, 0, atol=1e-12)
        shares = deep_taylor.shares(roots, x, w, b)
        np.testing.assert_allclose(shares.sum(-1), 1 + 0 * x[..., :3], rtol=1e-9)
        composite = composites.Uniform(rule)
        _, pull = jaxlrp.relprop(lambda x: x @ w + b, x, composite=composite)
        r = draw(2, 3, seed=5)
        expected = jnp.einsum("bij,bi->bj", shares, r)
        np.testing.assert_allclose(pull(r), expected, rtol=1e-9)


def test_domains():
    """z-plus with a positive bias steps beyond zero; z-box stays in its box."""
    x, w = jnp.array([1.0, 2.0]), jnp.array([[1.0], [1.0]])
    roots = [
        deep_taylor.root_points(rules.ZPlus(), x, w, b).inside.tolist()
        for b in (-1.0, 1.0)
    ]
    assert roots == [[True], [False]]
    # In one of two inputs alone it leaves its domain.
    one = deep_taylor.root_points(rules.ZPlus(), jnp.array([1.0, -2.0]), w, -3.0)
    assert (one.points >= 0).tolist() == [[True, False]]
    assert one.inside.tolist() == [False]
    box = rules.ZBox(-3.0, 3.0)
    assert deep_taylor.root_points(box, x, w).inside.tolist() == [True]
    assert deep_taylor.root_points(rules.WSquare(), x, w).inside.tolist() == [True]


def test_a_direction_that_meets_no_root():
    roots = deep_taylor.root_points(
        rules.ZPlus(), jnp.ones(2), -jnp.ones((2, 1)), jnp.ones(1)
    )
    assert roots.inside.tolist() == [False]


def test_roots_can_be_mapped_and_differentiated():
    """z-plus roots depend on the input: the derivative that claim 2 is about."""
    w = jnp.array([[1.0], [2.0]])
    points = lambda x: deep_taylor.root_points(rules.ZPlus(), x, w, -1.0).points  # noqa: E731
    slope = jax.jacfwd(points)(jnp.array([1.0, 1.0]))
    # x~ = x (1 - (z / (z + 1))) = x / (x1 + 2 x2)
    expected = np.eye(2) / 3 - np.outer([1, 1], [1, 2]) / 9
    np.testing.assert_allclose(slope[0], expected, rtol=1e-5)
    mapped = jax.vmap(points)(jnp.ones((2, 2)))
    assert mapped.shape == (2, 1, 2)


def test_rule_without_a_root():
    with pytest.raises(TypeError, match="rule: got Flat.*expected one with a root"):
        deep_taylor.root_points(rules.Flat(), jnp.ones(2), jnp.ones((2, 1)))


# ---- whole networks ----------------------------------------------------------------

SIZES = (3, 10, 10, 2)
DRAW = np.random.default_rng(4)
PARAMS: Any = {
    "w": [DRAW.normal(size=s) for s in zip(SIZES[:-1], SIZES[1:], strict=True)],
    "b": [-0.1 * np.abs(DRAW.normal(size=s)) for s in SIZES[1:]],
}
INPUT: Any = np.abs(DRAW.normal(size=3))
KEY: Any = jax.random.key(0)


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def mlp(params, x):
    for number, (w, b) in enumerate(zip(params["w"], params["b"], strict=True)):
        x = x @ w + b
        x = jax.nn.relu(x) if number < 2 else x
    return x


def cnn(params, x):
    x = jax.lax.conv(x[None, None], params["conv"], (1, 1), "VALID")
    x = jax.nn.relu(x + params["bias"][:, None, None])
    return x.reshape(-1) @ params["dense"]


CNN = {
    "conv": DRAW.normal(size=(2, 1, 3, 3)),
    "bias": np.array([-0.1, -0.2]),
    "dense": DRAW.normal(size=(2 * 4 * 4, 3)),
}
IMAGE = np.abs(DRAW.normal(size=(6, 6)))


@pytest.mark.always
@pytest.mark.parametrize("name", RULES)
def test_roots_of_a_network_are_those_of_its_layers(double, name):
    rule = RULES[name] if name != "z-box" else rules.ZBox(-1.0, 4.0, epsilon=0.0)
    found = jax.jit(deep_taylor.roots(mlp, rule, key=KEY))(PARAMS, INPUT)
    assert list(found) == ["w[0]", "w[1]", "w[2]"]
    x: Any = INPUT
    for layer, w, b in zip(found.values(), PARAMS["w"], PARAMS["b"], strict=True):
        wanted = deep_taylor.root_points(rule, x, w, b)
        there = np.asarray(layer.there)
        assert there.any()
        chosen = np.asarray(layer.neurons)[there]
        np.testing.assert_allclose(layer.points[there], wanted.points[chosen], 1e-9)
        np.testing.assert_allclose(layer.steps[there], wanted.steps[chosen], 1e-9)
        assert (layer.inside == wanted.inside[layer.neurons])[there].all()
        assert (np.asarray(x @ w + b)[chosen] > 0).all()
        x = np.maximum(x @ w + b, 0)


def test_roots_of_a_convolution_are_roots_of_its_neurons(double):
    found = jax.jit(deep_taylor.roots(cnn, rules.ZPlus(), key=KEY, neurons=8))(
        CNN, IMAGE
    )
    layer = found["conv"]

    def at(image):
        z = jax.lax.conv(image[None, None], CNN["conv"], (1, 1), "VALID")
        return (z + CNN["bias"][:, None, None]).reshape(-1)

    values = jax.vmap(at)(layer.points.reshape(-1, 6, 6))
    there = np.asarray(layer.there)
    assert there.sum() >= 4
    own = np.asarray(values)[np.arange(8), layer.neurons]
    np.testing.assert_allclose(own[there], 0, atol=1e-12)
    # Only the neuron's own field is moved.
    moved = np.asarray(layer.points.reshape(-1, 6, 6) != IMAGE).sum((1, 2))
    assert (moved[there] <= 9).all() and (moved[there] > 0).all()


def test_regions_of_roots_are_those_of_the_rest_of_the_network(double):
    rule = rules.WSquare(0.0, bias="ignore")
    found = jax.jit(deep_taylor.roots(mlp, rule, key=KEY, close=1e-3))(PARAMS, INPUT)
    h: Any = np.maximum(INPUT @ PARAMS["w"][0] + PARAMS["b"][0], 0)
    layer = found["w[1]"]
    target = int(np.asarray(mlp(PARAMS, INPUT)).argmax())

    def rest(h):
        h = jax.nn.relu(h @ PARAMS["w"][1] + PARAMS["b"][1])
        return (h @ PARAMS["w"][2] + PARAMS["b"][2])[target]

    for i in np.flatnonzero(layer.there):
        near = h + (1 - 1e-3) * (layer.points[i] - h)
        region = deep_taylor.same_region(rest, h, near, target="all")
        assert bool(region.gradient) == bool(layer.same_gradient[i])
        assert bool(region.pattern) == bool(layer.same_pattern[i])
    both = {bool(v) for v in layer.same_gradient[layer.there]}
    assert both == {True, False}
    share = np.asarray(layer.same_gradient)[np.asarray(layer.there)].mean()
    np.testing.assert_allclose(layer.share(), share)


def test_a_first_layer_with_bounds_has_its_roots_in_the_box(double):
    composite = composites.DeepTaylorBounded(0.0, 3.0)
    found = jax.jit(deep_taylor.roots(mlp, composite, key=KEY))(PARAMS, INPUT)
    first = found["w[0]"]
    assert first.share("inside") == 1
    points = np.asarray(first.points)[np.asarray(first.there)]
    assert (points >= 0).all() and (points <= 3).all()


def test_chosen_layers_have_the_roots_that_they_have_among_all(double):
    explore = jax.jit(deep_taylor.roots(mlp, key=KEY))(PARAMS, INPUT)
    for asked, names in (("w[1]", ["w[1]"]), (["w[2]", "*1*"], ["w[1]", "w[2]"])):
        some = deep_taylor.roots(mlp, key=KEY, layers=asked)
        found = jax.jit(some)(PARAMS, INPUT)
        assert list(found) == names
        for name in names:
            jax.tree.map(np.testing.assert_array_equal, found[name], explore[name])


THREE: Any = 3


@pytest.mark.whole
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: deep_taylor.roots(mlp, composites.Epsilon(), key=KEY),
            r"rule: got Epsilon.* for the layer 'w\[0\]', expected one with a root",
        ),
        (lambda: deep_taylor.roots(mlp, key=THREE), "key: got 3"),
        (
            lambda: deep_taylor.roots(mlp, key=KEY, target=lambda y: y),
            "target: got .*, a function of relevances",
        ),
        (lambda: deep_taylor.roots(mlp, key=KEY, neurons=0), "neurons: got 0"),
        (lambda: deep_taylor.roots(mlp, key=KEY, layers=THREE), "layers: got 3"),
        (lambda: deep_taylor.roots(mlp, key=KEY, layers=[]), r"layers: got \[\]"),
        (
            lambda: deep_taylor.roots(mlp, key=KEY, layers=["w[0]", "w[7]"]),
            r"layers: got 'w\[7\]', which names no layer; there are w\[0\]",
        ),
        (lambda: deep_taylor.roots(mlp, key=KEY, close=-1.0), "close: got -1"),
        (
            lambda: deep_taylor.roots(lambda p, x: jnp.tanh(x), key=KEY),
            "f: got a function without a layer",
        ),
    ],
)
def test_roots_that_cannot_be_had(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()(PARAMS, INPUT)


def test_share_of_what():
    found = jax.jit(deep_taylor.roots(mlp, key=KEY))(PARAMS, INPUT)["w[0]"]
    with pytest.raises(ValueError, match="what: got 'region', expected one of inside"):
        found.share("region")


# ---- regions -----------------------------------------------------------------------


def test_units_that_flip_are_counted(double):
    f = lambda x: jax.nn.relu(x @ jnp.eye(3))  # noqa: E731
    x = jnp.array([1.0, -1.0, 2.0])
    region = deep_taylor.same_region(f, x, jnp.array([0.5, 1.0, -2.0]), target="all")
    assert (int(region.flipped), region.units) == (2, 3)
    assert not region.gradient and not region.pattern
    inside = deep_taylor.same_region(f, x, 3 * x, target="all")
    assert inside.gradient and inside.pattern and inside.flipped == 0


def test_a_maximum_has_another_gradient_and_no_units(double):
    f = lambda x: x.max()  # noqa: E731
    x = jnp.array([1.0, 2.0])
    region = deep_taylor.same_region(f, x, jnp.array([2.0, 1.0]), target="all")
    assert not region.gradient and region.pattern and region.units == 0


def test_gradients_are_compared_with_a_tolerance(double):
    f = lambda x: (x**2).sum()  # noqa: E731
    x = jnp.array([1.0])
    near, far = (
        deep_taylor.same_region(f, x, x * s, target="all") for s in (1.0005, 1.1)
    )
    assert near.gradient and not far.gradient
    wide = deep_taylor.same_region(f, x, 1.1 * x, target="all", rtol=0.2)
    assert wide.gradient


def test_a_root_has_the_shape_of_the_input():
    with pytest.raises(ValueError, match=r"root: got shape \(2,\), expected that of x"):
        deep_taylor.same_region(lambda x: x, jnp.ones(3), jnp.ones(2))


# ---- search ------------------------------------------------------------------------


def test_the_search_finds_the_nearest_root_of_a_linear_function(double):
    w: Any = np.array([1.0, -2.0, 0.5])
    b, x = 0.3, jnp.array([2.0, 0.5, 1.0])
    found = deep_taylor.root_search(lambda x: x @ w + b, x, steps=1)
    wanted = x - (x @ w + b) / (w @ w) * w
    np.testing.assert_allclose(found.point, wanted)
    roots = deep_taylor.root_points(rules.WSquare(), x, w[:, None], jnp.array([b]))
    np.testing.assert_allclose(found.point, roots.points[0])


@pytest.mark.parametrize("rule", [rules.ZPlus(), rules.ZBox(0.0, 3.0)])
def test_the_search_stays_in_the_domain(double, rule):
    f = lambda x: mlp(PARAMS, x)[0] ** 2 + x.sum() - 0.5  # noqa: E731
    found = jax.jit(lambda x: deep_taylor.root_search(f, x, rule))(INPUT)
    assert found.found and (found.point >= 0).all()
    np.testing.assert_allclose(f(found.point), 0, atol=1e-4)


def test_where_there_is_no_root_none_is_found(double):
    none = deep_taylor.root_search(lambda x: (x**2).sum() + 1, jnp.array([0.3]))
    assert not none.found
    stuck = deep_taylor.root_search(lambda x: x.sum() + 1, jnp.ones(2), rules.ZPlus())
    assert not stuck.found and (stuck.point >= 0).all()
    np.testing.assert_allclose(stuck.value, 1)


def test_the_search_is_of_one_number():
    with pytest.raises(TypeError, match="f: it returned .*expected one number"):
        deep_taylor.root_search(lambda x: x, jnp.ones(2))
    with pytest.raises(TypeError, match="rule: got Epsilon"):
        deep_taylor.root_search(jnp.sum, jnp.ones(2), rules.Epsilon())


# ---- the theorem -------------------------------------------------------------------

LAYERS = [
    lambda x: jax.nn.relu(x @ PARAMS["w"][0] + PARAMS["b"][0]),
    lambda h: jax.nn.relu(h @ PARAMS["w"][1] + PARAMS["b"][1]),
    lambda h: h @ PARAMS["w"][2][:, 0],
]


def constant_roots(x):
    """Roots in the region of an input, whatever a layer is given: near what it has."""
    inputs = [x]
    for layer in LAYERS[:-1]:
        inputs.append(layer(inputs[-1]))

    def at(number, a):
        shape = jax.eval_shape(LAYERS[number], a).shape
        return jnp.broadcast_to(0.999 * inputs[number], (*shape, *a.shape))

    return at


@pytest.mark.always
def test_constant_roots_are_gradient_times_input(double):
    x = jnp.asarray(INPUT)
    explain = deep_taylor.decompose(LAYERS, constant_roots(x))
    gradient = jax.grad(lambda x: LAYERS[2](LAYERS[1](LAYERS[0](x))))(x)
    np.testing.assert_allclose(explain(x), 0.001 * x * gradient, rtol=1e-6)


def test_the_rule_of_roots_skips_their_derivative(double):
    """One layer below another: LRP with z-plus, where the upper root is held."""
    layers = LAYERS[1:]
    x = jnp.asarray(np.abs(DRAW.normal(size=10)))
    h = LAYERS[1](x)

    def at(number, a):
        if number == 1:
            return jnp.zeros_like(a)  # of a linear score through zero
        found = deep_taylor.root_points(
            rules.ZPlus(), a, PARAMS["w"][1], PARAMS["b"][1]
        )
        # An expansion is at the edge of the neuron's region, from inside.
        near = a + (1 - 1e-9) * (found.points - a)
        return jnp.where((h > 0)[:, None], near, a)

    found = deep_taylor.decompose(layers, at)(x)
    shares = deep_taylor.shares(
        deep_taylor.root_points(rules.ZPlus(), x, PARAMS["w"][1], PARAMS["b"][1]),
        x,
        PARAMS["w"][1],
        PARAMS["b"][1],
    )
    score = jnp.where(h > 0, h * PARAMS["w"][2][:, 0], 0)
    np.testing.assert_allclose(found, jnp.nansum(shares * score[:, None], 0), rtol=1e-6)


def test_roots_that_change_with_the_input_give_any_explanation(double):
    """The same roots, with another derivative: the relevance is what was chosen."""
    draw = np.random.default_rng(0)
    first, last = draw.normal(size=(4, 12)), draw.normal(size=12)
    layers = [lambda x: jax.nn.relu(x @ first), lambda h: h @ last]
    x = jnp.asarray(np.abs(draw.normal(size=4)) + 0.5)
    wanted = jnp.array([5.0, -1.0, 2.0, 0.0])
    h = layers[0](x)
    active = np.asarray(h > 0)
    low = 0.5 * x  # where the first layer is expanded
    # (x - low) (first active q) = wanted, for q = last - last' J
    q, *_ = np.linalg.lstsq(first * active, np.asarray(wanted / (x - low)))
    slope = np.outer(last, last - q) / (last @ last)
    held = 0.5 * h

    def at(number, a):
        if number == 0:
            return jnp.broadcast_to(low, (12, 4))
        return held + (a - jax.lax.stop_gradient(a)) @ slope.T

    def without(number, a):
        return jax.lax.stop_gradient(at(number, a))

    np.testing.assert_allclose(at(1, h), without(1, h))
    found = deep_taylor.decompose(layers, at)(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)
    gradient = jax.grad(lambda x: layers[1](layers[0](x)))(x)
    plain = deep_taylor.decompose(layers, without)(x)
    np.testing.assert_allclose(plain, (x - low) * gradient, rtol=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("layers", "at", "words"),
    [
        ([], lambda n, a: a, r"layers: got \[\], expected functions"),
        (LAYERS, 3, "roots: got 3"),
        ([3], lambda n, a: a, r"layers\[0\]: got 3"),
        (LAYERS, lambda n, a: a, r"roots: it returned shape \(3,\) for layer 0"),
    ],
)
def test_decompositions_that_are_none(layers, at, words):
    with pytest.raises((TypeError, ValueError), match=words):
        deep_taylor.decompose(layers, at)(jnp.asarray(INPUT))
