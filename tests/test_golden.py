"""Relevances equal those of zennit, captum and LXT on the same networks.

One table: a golden array, the network it belongs to, the composite that asks for the
same rules, and how far off the result may be. `tests/golden/README.md` has the peers'
versions and formulas.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules
from tests.networks import golden

NETWORKS = {
    "layers": golden.layer,
    "mlp": golden.mlp,
    "cnn": golden.cnn,
    "resnet": golden.resnet,
    "vit": golden.vit,
    "bert": golden.bert,
    "llama": golden.llama,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """`file` and `key` name the array; `options` go to the network's builder."""

    file: str
    key: str
    composite: Any
    options: tuple[tuple[str, Any], ...] = ()
    float64: float = 1e-9
    float32: float = 1e-5

    def __str__(self) -> str:
        return f"{self.file}:{self.key}"


def zennit(rule) -> Any:
    """zennit's composite with one rule on dense layers and convolutions.

    Average pooling and residual sums keep `Norm`, which `composites.Epsilon` has too.
    """
    return composites.Epsilon().on("layer", rule)


RULES = {
    "eps": rules.Epsilon(1e-6),
    "eps25": rules.Epsilon(0.25),
    "gamma": rules.GeneralizedGamma(0.25),
    "gamma1": rules.GeneralizedGamma(1.0),
    "zplus": rules.ZPlus(),
    "ab21": rules.AlphaBeta(2.0, 1.0),
    "ab10": rules.AlphaBeta(1.0, 0.0),
    "ab32": rules.AlphaBeta(3.0, 2.0),
    "wsq": rules.WSquare(),
    "flat": rules.Flat(),
    "zbox": rules.ZBox(-3.0, 3.0),
}
COMPOSITES = {
    "EpsilonPlus": composites.EpsilonPlus(),
    "EpsilonPlusFlat": composites.EpsilonPlusFlat(),
    "EpsilonGammaBox": composites.EpsilonGammaBox(-3.0, 3.0),
    "EpsilonAlpha2Beta1": composites.EpsilonAlpha2Beta1(),
    "EpsilonAlpha2Beta1Flat": composites.EpsilonAlpha2Beta1Flat(),
}
# A rule that ignores the bias is the same rule on a layer that has none.
WITHOUT_BIAS = ("eps", "zplus", "ab21", "wsq")


def channel_box(channels: int, spatial: int) -> rules.ZBox:
    """The bounds of `zbox_t`, one pair for each channel (axis 1)."""
    shape = (1, channels, *(1,) * spatial)
    low, high = np.linspace(-3.5, -3.0, channels), np.linspace(3.0, 4.0, channels)
    return rules.ZBox(low.reshape(shape), high.reshape(shape))


def layer_cases() -> Iterator[Case]:
    for name in golden.LAYERS:
        here = (("name", name),)
        if name in ("avgpool", "sum"):
            yield Case("layers", f"{name}.R.norm", composites.Epsilon(), here)
            continue
        for key, rule in RULES.items():
            yield Case("layers", f"{name}.R.{key}", zennit(rule), here)
        for key in WITHOUT_BIAS:
            options = (*here, ("bias", False))
            yield Case("layers", f"{name}.R.{key}_nb", zennit(RULES[key]), options)
        shape = golden.arrays("layers")[f"{name}.x"].shape
        box = channel_box(shape[1], len(shape) - 2)
        yield Case("layers", f"{name}.R.zbox_t", zennit(box), here)


def mlp_cases() -> Iterator[Case]:
    for key, rule in RULES.items():
        if key == "zbox":
            continue
        yield Case("mlp", f"R.zennit.{key}", zennit(rule))
        for layer in (1, 2):
            options = (("layer", layer),)
            yield Case("mlp", f"R{layer - 1}.zennit.{key}", zennit(rule), options)
    for key, box in (("zbox", RULES["zbox"]), ("zbox_t", channel_box(6, 0))):
        composite = composites.Epsilon().on("dense", box, first=True)
        yield Case("mlp", f"R.zennit.{key}", composite)
    for key, composite in COMPOSITES.items():
        if f"R.zennit.{key}" in golden.arrays("mlp"):
            yield Case("mlp", f"R.zennit.{key}", composite)
    yield Case("mlp", "R.captum.eps", composites.Uniform(rules.Epsilon(1e-9)))
    yield Case("mlp", "R.captum.eps25", composites.Uniform(rules.Epsilon(0.25)))


def image_cases() -> Iterator[Case]:
    merged = (("merged", True),)
    for file, suffix in (("cnn", "@merge"), ("resnet", "@resnet")):
        for key, composite in {
            "eps": composites.Epsilon(),
            "gamma": zennit(RULES["gamma"]),
            **COMPOSITES,
        }.items():
            yield Case(file, f"R.zennit.{key}{suffix}", composite, merged)
        yield Case(file, "R.gradxinput", composites.Uniform(rules.LRP0()))
    # captum leaves batch norm a layer of its own, with a stabiliser of its own.
    epsilon = rules.Epsilon(1e-9)
    composite = composites.Uniform(epsilon).on("average", epsilon)
    yield Case("cnn", "R.captum.eps", composite, float64=1e-8)


# LXT divides an activation by x + 1e-10, without a sign.
ATTN_LRP = composites.AttnLRP().on("activation", rules.Pass(epsilon=1e-10))
# Attention weights and gates are constants, and what they weight takes all.
CP_LRP = (
    ATTN_LRP.on("softmax", rules.Detach())
    .on("bilinear", rules.Taylor())
    .on("product", rules.Taylor())
)
CP_LRP_GATED = CP_LRP.on("activation", rules.Detach())
CP_LRP_GAMMA = (
    CP_LRP.on("convolution", rules.GeneralizedGamma(0.25))
    .on("dense", rules.GeneralizedGamma(0.05), scope="*mlp*")
    .on("dense", rules.GeneralizedGamma(0.05), scope="*head*")
)


def transformer_cases() -> Iterator[Case]:
    # The Hugging Face models behind most arrays of `vit` and all of `llama` take
    # softmax (and more) in float32 whatever the dtype.
    for file, key, composite, tolerance in (
        ("bert", "lxt.attnlrp", ATTN_LRP, 1e-9),
        ("vit", "lxt.attnlrp", ATTN_LRP, 3e-7),
        ("vit", "lxt.cplrp", CP_LRP, 1e-9),
        ("vit", "lxt.cplrp_hf", CP_LRP, 3e-7),
        ("vit", "lxt.cplrp_gamma", CP_LRP_GAMMA, 1e-9),
        ("llama", "lxt.attnlrp", ATTN_LRP, 3e-7),
        ("llama", "lxt.cplrp", CP_LRP_GATED, 3e-7),
    ):
        for block in (None, 0, 1):
            name = f"R.{key}" if block is None else f"R_block{block}.{key}"
            options = (("block", block),)
            yield Case(file, name, composite, options, float64=tolerance)


CASES = [*layer_cases(), *mlp_cases(), *image_cases(), *transformer_cases()]
# In float32 whole networks and some of the layers.
RUNS = [(case, "float64") for case in CASES] + [
    (case, "float32")
    for case in CASES
    if case.key.startswith(("R.", "dense.", "conv2dg.", "convt2d."))
]


def relevance(case: Case, dtype) -> np.ndarray:
    apply, params, x = NETWORKS[case.file](dtype=dtype, **dict(case.options))
    if case.file != "layers":
        explain = jax.jit(jaxlrp.lrp(apply, case.composite))
        return np.asarray(explain(params, x), np.float64)
    layer = case.key.split(".")[0]
    seed = jnp.asarray(golden.arrays("layers")[f"{layer}.R_out"], dtype)

    def explain_layer(params, x, seed):
        _, relprop = jaxlrp.relprop(apply, params, x, composite=case.composite)
        return relprop(seed)

    return np.asarray(jax.jit(explain_layer)(params, x, seed), np.float64)


def relative_error(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(value - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("case", "dtype"), RUNS, ids=str)
def test_relevance_equals_the_peer(case, dtype):
    with jax.enable_x64(dtype == "float64"):
        value = relevance(case, jnp.dtype(dtype))
    expected = golden.arrays(case.file)[case.key]
    assert value.shape == expected.shape
    assert relative_error(value, expected) <= getattr(case, dtype)


# LLaMA's peer takes softmax, norms and rotary embedding in float32.
LOGITS = {"mlp": 1e-12, "cnn": 1e-12, "resnet": 1e-12, "vit": 1e-12, "bert": 1e-12}
LOGITS["llama"] = 1e-6


@pytest.mark.parametrize("file", LOGITS)
def test_network_is_the_one_of_the_peer(file):
    with jax.enable_x64(True):
        apply, params, x = NETWORKS[file](dtype=jnp.float64)
        value = np.asarray(apply(params, x))
    np.testing.assert_allclose(
        value, golden.arrays(file)["logits"], rtol=0, atol=LOGITS[file]
    )


@pytest.mark.parametrize("name", golden.LAYERS)
def test_layer_is_the_one_of_the_peer(name):
    with jax.enable_x64(True):
        apply, params, x = golden.layer(name, dtype=jnp.float64)
        value = np.asarray(apply(params, x))
    expected = golden.arrays("layers")[f"{name}.y"]
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)
