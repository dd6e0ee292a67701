"""The relevance of biases where they are added: by hand, and complete."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import attribution, composites

DIMS = ("NHWC", "HWIO", "NHWC")


def draw(*shape, seed=0):
    rng = np.random.default_rng([seed, *shape])
    return jnp.asarray(rng.normal(size=shape) / 2, jnp.float32)


PARAMS = {
    "one": {"kernel": draw(3, 3, 2, 4), "bias": draw(4)},
    "two": {"kernel": draw(3, 3, 4, 3), "bias": draw(3)},
    "out": {"kernel": draw(12, 5), "bias": draw(5)},
}
X = draw(8, 8, 2)


def conv(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=DIMS)


def pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def network(params, x, added=(0.0, 0.0, 0.0)):
    """Two convolutions, and a dense layer; `added` to the biases' sums."""
    one, two, out = params["one"], params["two"], params["out"]
    x = pool(jax.nn.relu(conv(x[None], one["kernel"]) + one["bias"] + added[0]))
    x = pool(jax.nn.relu(conv(x, two["kernel"]) + two["bias"] + added[1]))
    return x.reshape(-1) @ out["kernel"] + out["bias"] + added[2]


def close(found, wanted, tolerance=1e-5):
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def test_a_convolutional_network_by_hand():
    zeros = [jnp.zeros(s) for s in ((1, 8, 8, 4), (1, 4, 4, 3), (5,))]
    slopes, of_x = jax.grad(lambda t, x: network(PARAMS, x, t)[2], (0, 1))(zeros, X)
    by_hand = {
        f"{name}.bias": slope * PARAMS[name]["bias"]
        for name, slope in zip(PARAMS, slopes, strict=True)
    }
    find = attribution.fullgrad(lambda p, x: network(p, x), target=2)
    found = jax.jit(find)(PARAMS, X)
    assert found.loops == dict.fromkeys(by_hand, 0)
    close(found.input, of_x * X)
    jax.tree.map(close, found.biases, by_hand)
    score = network(PARAMS, X)[2]
    close(found.total(), score)
    close(found.places((0, 1)).sum(), score)
    sizes = sum(jnp.abs(r).sum() for r in jax.tree.leaves((of_x * X, by_hand)))
    plus = found.places((0, 1), by="size")
    assert plus.shape == (8, 8)
    close(plus.sum(), sizes)


@pytest.mark.always
def test_a_map_is_made_place_by_place():
    """A bias at each second place is spread over both of them and their neighbours."""
    parts = {"b": jnp.array([[0.0, 0.0], [1.0, 2.0]]), "c": jnp.array([8.0])}
    found = attribution.FullGrad(jnp.zeros((4, 1)), parts, {"b": 0, "c": 0})
    ways = jax.image.resize(jnp.eye(2), (4, 2), "linear")
    assert ways[:, 1].tolist() == [0.0, 0.25, 0.75, 1.0]
    close(found.places(0), 3 * ways[:, 1] / 2 + 8 / 4)


def test_layers_in_a_scan_have_an_axis_and_batches_are_mapped():
    width, layers = 3, 2
    params = {
        "w": draw(layers, width, width),
        "b": draw(layers, width),
        "scale": 1 + draw(width),
        "shift": draw(width),
    }

    def scanned(params, x):
        def layer(x, w):
            y = (x - x.mean()) / jnp.sqrt(jnp.var(x) + 1e-3)
            y = y * params["scale"] + params["shift"]
            return x + jax.nn.gelu(y @ w[0] + w[1]), None

        x, _ = lax.scan(layer, x, (params["w"], params["b"]))
        return x - 0.25

    xs = draw(4, width)
    found = jax.vmap(attribution.fullgrad(scanned, target=0), (None, 0))(params, xs)
    shapes = {name: r.shape for name, r in found.biases.items()}
    assert shapes == {
        "shift": (4, layers, width),
        "b[:]": (4, layers, width),
        "constant": (4, width),
    }
    assert found.loops == {"shift": 1, "b[:]": 1, "constant": 0}
    scores = jax.vmap(scanned, (None, 0))(params, xs)[:, 0]
    total = sum(r.reshape(4, -1).sum(1) for r in jax.tree.leaves(found))
    close(total, scores, 1e-4)
    close(found.biases["constant"], jnp.full((4, 3), -0.25) * jnp.eye(3)[0])


def test_gates_stay_gates_and_masks_masks():
    def f(w, x):
        gate = jax.nn.sigmoid(x @ w)
        mixed = gate * x + (1 - gate) * jnp.tanh(x)
        scores = jnp.where(np.tri(3, dtype=bool), 0, -jnp.inf) + mixed
        return jax.nn.softmax(scores) @ mixed

    w, x = draw(3, 3), draw(3)
    explain = attribution.fullgrad(f, composites.Proportional(), target=0)
    found = explain(w, x)
    assert all(jnp.isfinite(r).all() for r in jax.tree.leaves(found))
    plain = jaxlrp.lrp(f, composites.Proportional(), target=0)(w, x)
    close(found.input, plain)
    assert all(not jnp.any(r) for r in found.biases.values())


def test_a_mask_of_infinities_is_no_bias():
    f = lambda x: jax.nn.softmax(x + jnp.array([0.0, -jnp.inf, 1.0]))  # noqa: E731
    found = attribution.fullgrad(f, composites.Proportional(), target=0)(draw(3))
    assert all(jnp.isfinite(r).all() for r in jax.tree.leaves(found))


def test_auxiliary_data_and_several_arguments():
    def f(x, y, b):
        return (x * y[0] + b).sum(keepdims=True), b

    args = jnp.array([1.0, 2.0]), jnp.array([3.0]), jnp.array(0.5)
    explain = attribution.fullgrad(f, argnums=(0,), has_aux=True)
    found, aux = explain(*args)
    assert aux == 0.5
    assert [r.tolist() for r in found.input] == [[3.0, 6.0]]
    assert found.biases["b"].tolist() == [0.5, 0.5]
    with pytest.raises(TypeError, match="input: got .*, expected one array"):
        found.places(0)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="EpsilonPlusFlat, which has rules for first"):
        attribution.fullgrad(network, composites.EpsilonPlusFlat())

    def loop(b, x):
        return lax.while_loop(lambda x: x.sum() < 5, lambda x: 2 * x + b, x)

    with pytest.raises(ValueError, match="a bias is added in a while at"):
        attribution.fullgrad(loop)(jnp.ones(2), jnp.ones(2))
    found = attribution.FullGrad(jnp.zeros((4, 1)), {}, {})
    with pytest.raises(ValueError, match="by: got 'sum'"):
        found.places(0, by="sum")
    with pytest.raises(ValueError, match="axes: got 2, expected"):
        found.places(2)
    with pytest.raises(TypeError, match="axes: got 1.5"):
        found.places(1.5)  # pyright: ignore[reportArgumentType]
