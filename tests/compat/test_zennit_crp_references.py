"""zennit-crp's trained FashionMNIST network: heatmaps under conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import jaxlrp
from jaxlrp import concepts
from jaxlrp.compat import zennit
from tests.models.networks import golden

COMPOSITE = zennit.EpsilonPlus(canonizers=["SequentialMergeBatchNorm"])
CHANNELS = 16
# Computed in float32, and with the factor 1 / sqrt(1 + 1e-5) that zennit leaves behind
# each batch norm that it merges.
ROUNDING = 5e-5


def conv(params, name, x, stride=1):
    dims = ("NCHW", "OIHW", "NCHW")
    strides = (stride, stride)
    kernel = params[f"{name}.weight"]
    y = lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=dims)
    bias = params.get(f"{name}.bias")
    return y if bias is None else y + bias[:, None, None]


def norm(params, name, x):
    part = lambda key: params[f"{name}.{key}"][:, None, None]  # noqa: E731
    x = (x - part("running_mean")) / jnp.sqrt(part("running_var") + 1e-5)
    return x * part("weight") + part("bias")


def network(params, x):
    h = norm(params, "bn1", conv(params, "conv1", x))
    h = jax.nn.relu(checkpoint_name(h, "conv1"))
    h = checkpoint_name(norm(params, "bn2", conv(params, "conv2", h, 2)), "conv2")
    skip = norm(params, "parallel.1", conv(params, "parallel.0", x, 2))
    h = jax.nn.relu(checkpoint_name(skip, "parallel") + h)
    window = (1, 1, 2, 2)
    h = lax.reduce_window(h, -jnp.inf, lax.max, window, window, "VALID")
    h = h.reshape(h.shape[0], -1) @ params["linear1.weight"].T
    h = jax.nn.relu(h + params["linear1.bias"])
    return h @ params["linear2.weight"].T + params["linear2.bias"]


@pytest.fixture(scope="module")
def setting():
    """The network's weights, its image, and where relevance starts."""
    arrays = golden.arrays("zennit_crp")
    params = {
        key: np.float64(value)
        for key, value in arrays.items()
        if "." in key and not key.startswith("R")
    }
    image = np.float64(arrays["x"])[:, None] / 255
    target = int(arrays["target"][0])
    return params, image, lambda y: abs(y) * jax.nn.one_hot(target, y.shape[-1])


def masks(*chosen):
    mask = np.zeros(CHANNELS)
    mask[list(chosen)] = 1
    return mask


EVERY = np.ones(CHANNELS)
CONDITIONS = np.array(
    [  # of "parallel" and "conv2"
        (EVERY, EVERY),
        (EVERY, masks()),
        (EVERY, masks(2)),
        (masks(), EVERY),
        (masks(), masks(3, 2, 1)),
        *((masks(), masks(i)) for i in range(CHANNELS)),
    ]
)


def close(found, expected):
    """Each map to a part of its largest entry."""
    for value, wanted in zip(found, expected, strict=True):
        assert (
            np.abs(np.asarray(value) - wanted).max() <= ROUNDING * np.abs(wanted).max()
        )


def test_heatmaps_under_conditions(setting):
    params, image, seed = setting
    arrays = golden.arrays("zennit_crp")

    def under(condition):
        parallel, conv2 = jnp.asarray(condition)[..., None, None]
        relevance, caught = jaxlrp.lrp(
            network,
            COMPOSITE,
            target=seed,
            capture="conv1",
            conditions={"parallel": parallel, "conv2": conv2},
        )(params, image)
        return relevance[0, 0], caught["conv1"][0]

    with jax.enable_x64(True):
        maps, conv1 = jax.jit(jax.vmap(under))(CONDITIONS)
    close(maps, [*arrays["R.conditions"], *arrays["R.channels"]])
    close(conv1, [*arrays["R_conv1.conditions"], *arrays["R_conv1.channels"]])


def test_heatmaps_of_channels(setting):
    """`concepts.heatmaps` leaves the parallel path in, these references do not."""
    params, image, seed = setting

    @jax.jit
    def explain(params, image):
        maps = concepts.heatmaps(network, COMPOSITE, site="conv2", axis=1, target=seed)(
            params, image
        )
        other = jaxlrp.lrp(
            network,
            COMPOSITE,
            target=seed,
            conditions={"conv2": masks()[:, None, None]},
        )(params, image)
        return (maps - other)[:, 0, 0]

    with jax.enable_x64(True):
        maps = np.asarray(explain(params, image))
    expected = golden.arrays("zennit_crp")["R.channels"]
    assert np.abs(maps - expected).max() <= ROUNDING * np.abs(expected).max()


def simple(x):
    """Two layers beside each other, of zennit-crp's test_attribution.py."""
    one = checkpoint_name(x @ np.array([[1.0, 0.0], [2.0, 1.0]]), "layer1")
    two = checkpoint_name(x @ np.array([[2.0, 0.0], [3.0, 0.0]]), "layer2")
    return jnp.concatenate([one, two], 1) @ np.array([[1.0], [4.0], [5.0], [0.0]])


@pytest.mark.always
@pytest.mark.parametrize(
    ("conditions", "heatmap", "caught"),
    [
        (None, (-11, 21), ((1, 4), (5, 0))),
        ({"layer1": [1.0, 0.0], "layer2": [0.0, 0.0]}, (-1, 2), None),
        ({"layer1": [1.0, 0.0], "layer2": [1.0, 0.0]}, (-11, 17), None),
    ],
    ids=["none", "a layer", "both layers"],
)
def test_written_values(conditions, heatmap, caught):
    if conditions is not None:
        conditions = {name: np.array(mask) for name, mask in conditions.items()}
    relevance, found = jaxlrp.lrp(
        simple,
        zennit.EpsilonPlus(),
        target=0,
        capture=("layer1", "layer2"),
        conditions=conditions,
    )(jnp.array([[-1.0, 1.0]]))
    np.testing.assert_allclose(relevance[0], heatmap, rtol=1e-5)
    if caught is not None:
        for name, expected in zip(("layer1", "layer2"), caught, strict=True):
            np.testing.assert_allclose(found[name][0], expected, rtol=1e-5, atol=1e-5)
