"""Grad-CAM, against sums by hand and captum's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from jaxlrp import attribution
from tests.models.networks import golden

RNG = np.random.default_rng(9)
W1 = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)
W2 = jnp.asarray(RNG.normal(size=(6, 5, 4, 3)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(2, 6, 5, 3)), jnp.float32)


def features(x):
    return jnp.tanh(x @ W1)


def head(v):
    return jnp.einsum("...hwc,hwck->...k", v**2, W2)


def f(x):
    return head(checkpoint_name(features(x), "features"))


def by_hand(x, target):
    v = np.asarray(features(x))
    slope = 2 * v * np.asarray(W2)[..., target]
    weights = slope.mean((-3, -2), keepdims=True)
    return np.maximum((weights * v).sum(-1), 0)


def assert_close(value, wanted, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(value, wanted, rtol=rtol, atol=atol)


def test_channels_are_weighted_with_their_mean_gradients():
    explain = attribution.grad_cam(f, "features", target=1)
    assert_close(explain(X), by_hand(X, 1))
    assert_close(explain(X[0]), by_hand(X[0], 1))
    assert_close(jax.jit(jax.vmap(explain))(X), by_hand(X, 1))


def test_examples_are_told_by_the_output_or_by_batch_ndim():
    whole = attribution.grad_cam(f, "features", target=1, batch_ndim=0)(X)
    v = np.asarray(features(X))
    weights = (2 * v * np.asarray(W2)[..., 1]).mean((0, 1, 2))
    assert_close(whole, np.maximum((weights * v).sum(-1), 0))


def test_the_highest_class_is_explained_by_default():
    cams = attribution.grad_cam(f, "features")(X)
    wanted = [by_hand(x, int(f(x).argmax())) for x in X]
    assert_close(cams, np.stack(wanted))


def test_maps_are_resized_linearly():
    small = attribution.grad_cam(f, "features", target=1)(X)
    large = attribution.grad_cam(f, "features", target=1, size=(12, 15))(X)
    assert large.shape == (2, 12, 15)
    assert_close(large, jax.image.resize(small, (2, 12, 15), "bilinear"))


def test_the_channels_may_be_any_axis():
    def first(x):
        v = checkpoint_name(jnp.moveaxis(features(x), -1, 1), "features")
        return head(jnp.moveaxis(v, 1, -1))

    for axis in (1, -3):
        explain = attribution.grad_cam(first, "features", channel_axis=axis, target=1)
        assert_close(explain(X), by_hand(X, 1))


def test_a_layer_of_a_loop_has_a_map_for_each_iteration():
    def looped(x):
        def step(v, w):
            return checkpoint_name(jnp.tanh(v @ w), "features"), None

        ws = jnp.stack([jnp.eye(4), jnp.eye(4)[::-1]])
        return head(jax.lax.scan(step, features(x), ws)[0])

    def written_out(x):
        v = checkpoint_name(jnp.tanh(features(x)), "one")
        return head(checkpoint_name(jnp.tanh(v[..., ::-1]), "two"))

    both = attribution.grad_cam(looped, "features", target=1)(X)
    assert both.shape == (2, 2, 6, 5)
    for name, cam in zip(("one", "two"), both, strict=True):
        assert_close(cam, attribution.grad_cam(written_out, name, target=1)(X))


@pytest.mark.always
def test_grad_cam_is_that_of_captum():
    # captum 0.9.0, LayerGradCam(relu_attributions=True) at conv1 of cnn.npz.
    sums = [3.8496957263, 3.4653312494]
    row = [0.0513485065, 0.1556559457, 0.125485796]
    row += [0.1170268806, 0.1202839254, 0.1678547401]

    def f(params, x):
        x = golden.batch_norm(params, "bn0", golden.conv2d(params, "conv0", x))
        x = golden.max_pool(jax.nn.relu(x))
        x = checkpoint_name(golden.conv2d(params, "conv1", x), "conv1")
        x = golden.average_pool(jax.nn.relu(golden.batch_norm(params, "bn1", x)))
        return golden.dense(params, "fc", x.reshape(x.shape[0], -1))

    with jax.enable_x64(True):
        _, params, x = golden.cnn()
        explain = attribution.grad_cam(f, "conv1", channel_axis=1)
        cams = np.asarray(jax.jit(explain)(params, x))
    assert_close(cams.sum((1, 2)), sums, 1e-8, 1e-10)
    assert_close(cams[0, 2], row, 1e-8, 1e-10)


def test_auxiliary_data_comes_back_beside_the_map():
    explain = attribution.grad_cam(lambda x: (f(x), "aux"), "features", has_aux=True)
    cam, aux = explain(X)
    assert aux == "aux"
    assert_close(cam, attribution.grad_cam(f, "features")(X))


@pytest.mark.whole
@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        ("feature", {}, "layer: got 'feature', which names no value; .*'features'"),
        (3, {}, "layer: got 3, expected a pattern of names"),
        ("features", {"channel_axis": 4}, "channel_axis: got 4, but 'features' has"),
        ("features", {"channel_axis": 0}, "channel_axis: got 0, but the first 1 axes"),
        ("features", {"size": (3,)}, r"size: got \(3,\), expected 2 sizes for a map"),
        ("features", {"batch_ndim": 9}, "batch_ndim: got 9"),
    ],
)
def test_bad_arguments_are_refused(layer, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        attribution.grad_cam(f, layer, **options)(X)


def test_a_pattern_that_names_several_layers_is_refused():
    def twice(x):
        v = checkpoint_name(features(x), "block")
        return head(checkpoint_name(jnp.sin(v), "block"))

    with pytest.raises(ValueError, match="names several: 'block#0', 'block#1'"):
        attribution.grad_cam(twice, "block")(X)
