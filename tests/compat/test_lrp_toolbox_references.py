"""A small network, as the LRP toolbox's own modules explain it."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp.compat import lrp_toolbox as toolbox
from tests.models.networks import golden

KEYS = sorted(key for key in golden.arrays("lrp_toolbox") if ".R." in key)
FLOAT64 = 1e-10


def pool(x, kind):
    window = (1, 2, 2, 1)
    if kind == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    return lax.reduce_window(x, 0.0, lax.add, window, window, "VALID") / 2


def network(params, x, kind):
    """LeNet-5's form: ReLU and pool behind three convolutions, and one of a pixel."""
    for i in range(4):
        if i:
            x = pool(jax.nn.relu(x), kind)
        dims = ("NHWC", "HWIO", "NHWC")
        kernel = params[f"conv{i}.w"]
        x = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dims)
        x = x + params[f"conv{i}.b"]
    return x.reshape(x.shape[0], -1)


def composite(variant):
    """`epsilon0.01` is `nn.lrp(R, "epsilon", 0.01)`; mixed: the first layer's own."""
    if variant.startswith("mixed_"):
        first = {"ww": toolbox.ww(), "flat": toolbox.flat()}[variant[6:]]
        return toolbox.lrp("alphabeta", 1.0).on("layer", first, first=True)
    name, number = re.fullmatch(r"([a-z]+)([\d.]*)", variant).groups()
    return toolbox.lrp(name, float(number)) if number else toolbox.lrp(name)


CASES = sorted({key.partition("@")[0] for key in KEYS})


@functools.partial(jax.jit, static_argnums=0)
def explain(kind, composite, params, x):
    """From the highest score, and from all. Variants differ in numbers or in rules."""
    f = functools.partial(network, kind=kind)
    out, pull = jaxlrp.relprop(f, params, x, composite=composite, argnums=1)
    top = jax.nn.one_hot(out.argmax(-1), out.shape[-1], dtype=out.dtype)
    return pull(out * top), pull(out)


@pytest.mark.always
@pytest.mark.parametrize("key", CASES)
def test_variant_gives_what_the_toolbox_does(key):
    kind, _, variant = key.split(".", 2)
    arrays = golden.arrays("lrp_toolbox")
    params = {k: np.float64(v) for k, v in arrays.items() if k.startswith("conv")}
    x = np.float64(arrays["x"])
    with jax.enable_x64(True):
        np.testing.assert_allclose(network(params, x, kind), arrays[f"{kind}.y"])
        top, every = explain(kind, composite(variant), params, x)
    for name, found in ((key, top), (f"{key}@all", every)):
        if name in arrays:
            expected = arrays[name]
            atol = FLOAT64 * np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
