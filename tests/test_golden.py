"""Relevances equal those of zennit, captum, LXT, dynamicLRP and Chefer's code.

One table: a golden array, the network it belongs to, the composite that asks for the
same rules, and how far off the result may be. `tests/golden/README.md` has the peers'
versions and formulas. Every array is in `CASES` or, with the reason, in `NOT_COMPARED`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp.compat import captum, chefer, dynamiclrp, lxt, zennit
from tests.models.networks import golden

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
    """How to get one golden array.

    Attributes:
      file: the file it is in.
      key: its name there.
      composite: the rules.
      options: of the network's builder.
      capture: the value whose relevance it is; else the input's.
      target: where relevance starts.
      after: what is done with the relevance.
      float64, float32: how far off it may be, relative to the largest entry.
    """

    file: str
    key: str
    composite: Any
    options: tuple[tuple[str, Any], ...] = ()
    capture: str | None = None
    target: Any = "max"
    after: Callable[[Any], Any] | None = None
    float64: float = 1e-9
    float32: float = 1e-5

    def __str__(self) -> str:
        return f"{self.file}:{self.key}"


# A convolution's own result, before its batch norm, can be 1e-5 of its terms. The
# epsilon rule divides by it, and float32 knows it to two digits less.
SMALL_RESULTS = 1e-4

# zennit


def everywhere(rule: rules.Rule, canonizers: Any = None) -> Any:
    """zennit's composite with one rule on dense layers and convolutions."""
    return zennit.EpsilonPlus(canonizers=canonizers).on("layer", rule)


BIAS = ["bias"]
RULES = {
    "eps": zennit.Epsilon(),
    "eps25": zennit.Epsilon(0.25),
    "eps_nb": zennit.Epsilon(zero_params=BIAS),
    "gamma": zennit.Gamma(),
    "gamma1": zennit.Gamma(1.0),
    "gamma_nb": zennit.Gamma(zero_params=BIAS),
    "zplus": zennit.ZPlus(),
    "zplus_nb": zennit.ZPlus(zero_params=BIAS),
    "ab21": zennit.AlphaBeta(),
    "ab10": zennit.AlphaBeta(1.0, 0.0),
    "ab32": zennit.AlphaBeta(3.0, 2.0),
    "ab21_nb": zennit.AlphaBeta(zero_params=BIAS),
    "wsq": zennit.WSquare(),
    "wsq_nb": zennit.WSquare(zero_params=BIAS),
    "flat": zennit.Flat(),
    "zbox": zennit.ZBox(-3.0, 3.0),
}
PRESETS: dict[str, Callable[..., Any]] = {
    "eps": lambda **given: everywhere(zennit.Epsilon(), **given),
    "gamma": lambda **given: everywhere(zennit.Gamma(), **given),
    "EpsilonPlus": zennit.EpsilonPlus,
    "EpsilonPlusFlat": zennit.EpsilonPlusFlat,
    "EpsilonGammaBox": functools.partial(zennit.EpsilonGammaBox, -3.0, 3.0),
    "EpsilonAlpha2Beta1": zennit.EpsilonAlpha2Beta1,
    "EpsilonAlpha2Beta1Flat": zennit.EpsilonAlpha2Beta1Flat,
    "EpsilonPlusFlat_nb": functools.partial(zennit.EpsilonPlusFlat, zero_params=BIAS),
    "ExcitationBackprop": zennit.ExcitationBackprop,
    "GuidedBackprop": lambda canonizers=None: zennit.GuidedBackprop(),
    "DeconvNet": lambda canonizers=None: zennit.DeconvNet(),
}


def channel_box(channels: int, spatial: int) -> rules.Rule:
    """The bounds of `zbox_t`, one pair for each channel (axis 1)."""
    shape = (1, channels, *(1,) * spatial)
    low, high = np.linspace(-3.5, -3.0, channels), np.linspace(3.0, 4.0, channels)
    return zennit.ZBox(low.reshape(shape), high.reshape(shape))


def layer_cases() -> Iterator[Case]:
    for name in golden.LAYERS:
        here = (("name", name),)
        if name in ("avgpool", "sum"):
            yield Case("layers", f"{name}.R.norm", zennit.EpsilonPlus(), here)
            continue
        for key, rule in RULES.items():
            yield Case("layers", f"{name}.R.{key}", everywhere(rule), here)
        shape = golden.arrays("layers")[f"{name}.x"].shape
        box = channel_box(shape[1], len(shape) - 2)
        yield Case("layers", f"{name}.R.zbox_t", everywhere(box), here)


def with_hidden(case: Case) -> Iterator[Case]:
    """A case of `mlp`, and the relevance of its activations."""
    yield case
    for i in (0, 1):
        key = case.key.replace("R.", f"R{i}.")
        if key in golden.arrays("mlp"):
            yield dataclasses.replace(case, key=key, capture=f"a{i}")


def mlp_cases() -> Iterator[Case]:
    arrays = golden.arrays("mlp")
    for key, rule in RULES.items():
        if key != "zbox":
            yield from with_hidden(Case("mlp", f"R.zennit.{key}", everywhere(rule)))
    for key, box in (("zbox", RULES["zbox"]), ("zbox_t", channel_box(6, 0))):
        composite = everywhere(zennit.Epsilon()).on("dense", box, first=True)
        yield from with_hidden(Case("mlp", f"R.zennit.{key}", composite))
    for key, preset in PRESETS.items():
        if f"R.zennit.{key}" in arrays and key not in RULES:
            yield from with_hidden(Case("mlp", f"R.zennit.{key}", preset()))


def image_cases() -> Iterator[Case]:
    merge = {"canonizers": ["SequentialMergeBatchNorm"]}
    residual = {"canonizers": ["ResNetCanonizer"]}
    for key, preset in PRESETS.items():
        rounding = SMALL_RESULTS if key == "eps" else 1e-5
        yield Case("cnn", f"R.zennit.{key}", preset(), float32=rounding)
        merged = (("merged", True),)
        yield Case("cnn", f"R.zennit.{key}@merge", preset(**merge), merged)
        yield Case("resnet", f"R.zennit.{key}@resnet", preset(**residual), merged)
    for file in ("cnn", "resnet"):
        yield Case(file, "R.gradxinput", composites.Uniform(rules.LRP0()))


# captum


def captum_cases() -> Iterator[Case]:
    for key, rule in {
        "eps": captum.EpsilonRule(),
        "eps25": captum.EpsilonRule(0.25),
        "gamma": captum.GammaRule(),
        "gamma_nb": captum.GammaRule(set_bias_to_zero=True),
        "a1b0": captum.Alpha1_Beta0_Rule(),
        "a1b0_nb": captum.Alpha1_Beta0_Rule(set_bias_to_zero=True),
    }.items():
        yield Case("mlp", f"R.captum.{key}", captum.LRP(rule))
    # captum stabilises its max pooling, too, by 1e-9.
    image = functools.partial(Case, "cnn", float64=1e-8)
    for key, rule in {
        "eps": captum.EpsilonRule(),
        "gamma": captum.GammaRule(),
        "a1b0": captum.Alpha1_Beta0_Rule(),
    }.items():
        composite = captum.LRP().on("convolution", rule)
        yield image(f"R.captum.{key}", composite)
        if key != "a1b0":
            identity = composite.on("batch_norm", captum.IdentityRule())
            yield image(f"R.captum.{key}_bnid", identity, float32=SMALL_RESULTS)


# LXT


def lxt_cases() -> Iterator[Case]:
    # The Hugging Face models behind most arrays of `vit` and all of `llama` take
    # softmax (and more) in float32 whatever the dtype.
    gamma = lxt.CPLRPGamma(0.25, 0.05, scopes=("*mlp*", "*head*"))
    gradient = composites.Composite("gradient").on("layer", rules.LRP0())
    for role in ("activation", "normaliser", "softmax", "bilinear", "product"):
        gradient = gradient.on(role, rules.Taylor())
    for file, key, composite, tolerance in (
        ("bert", "gradxinput", gradient, 1e-9),
        ("vit", "gradxinput", gradient, 1e-9),
        ("llama", "gradxinput", gradient, 3e-7),
        ("bert", "lxt.attnlrp", lxt.AttnLRP(), 1e-9),
        ("vit", "lxt.attnlrp", lxt.AttnLRP(), 3e-7),
        ("vit", "lxt.cplrp", lxt.CPLRP(), 1e-9),
        ("vit", "lxt.cplrp_hf", lxt.CPLRP(), 3e-7),
        ("vit", "lxt.cplrp_gamma", gamma, 1e-9),
        ("llama", "lxt.attnlrp", lxt.AttnLRP(), 3e-7),
        ("llama", "lxt.cplrp", lxt.CPLRP(hold_gates=True), 3e-7),
    ):
        yield Case(file, f"R.{key}", composite, float64=tolerance)
        for name in ("block0", "block1"):
            found = f"R_{name}.{key}"
            yield Case(file, found, composite, capture=name, float64=tolerance)
    explicit = lxt.AttnLRPExplicit(norms="*norm*")
    masked = (("masked", True),)
    yield Case("bert", "R.lxt.attnlrp_explicit", explicit, masked)
    # Its softmax in float32, and a relevance that the rule makes from it.
    llama = functools.partial(Case, "llama", float64=1e-6)
    yield llama("R.lxt.attnlrp_explicit", lxt.AttnLRPExplicit())
    yield llama("R.lxt.cplrp_explicit", lxt.CPLRPExplicit())


# dynamicLRP


def dynamiclrp_cases() -> Iterator[Case]:
    engine = dynamiclrp.LRPEngine
    yield Case("mlp", "R.dynamiclrp.eps", engine())
    yield Case("mlp", "R.dynamiclrp.gamma1", engine(use_gamma=True))
    # The engine clamps the weights alone, whatever the input's sign.
    clamped = rules.ZPlus(dynamiclrp.EPSILON, split=False, bias="absolute")
    yield Case("mlp", "R.dynamiclrp.zplus", engine().on("layer", clamped))
    # The weights of each of the three layers take half.
    yield Case("mlp", "R.dynamiclrp.bilinear", engine(), after=lambda r: r / 8)
    gamma = engine(use_gamma=True, conv_gamma=0.25, mm_gamma=0.25)
    fused = (("fused", True),)
    for key, composite in (("eps", engine()), ("gamma", gamma)):
        yield Case("cnn", f"R.dynamiclrp.{key}", composite)
        yield Case("cnn", f"R.dynamiclrp.{key}@fused", composite, fused)
    yield Case("vit", "R.dynamiclrp.plain@sdpa", engine())
    for i, part in enumerate(("word", "type", "pos")):
        yield Case(
            "bert",
            f"R.dynamiclrp.plain@sdpa.{part}",
            engine(),
            (("embeddings", True),),
            after=functools.partial(_summed, i),
        )


def _summed(index: int, relevances: Any) -> jax.Array:
    return relevances[index].sum(-1)


# Chefer et al.


def chefer_cases() -> Iterator[Case]:
    # Copies and selections divide by the value plus 1e-9 there.
    case = functools.partial(Case, target=chefer.one_hot, float64=1e-7, float32=1e-4)
    for file in ("vit", "bert"):
        for i in (0, 1):
            key, name = f"attn_cam{i}.chefer", f"attention_map#{i}"
            yield case(file, key, chefer.RelProp(), capture=name)
    yield case("bert", "R.chefer.full", chefer.RelProp(), capture="block0")
    x = golden.arrays("vit")["x"]
    bounds = (f(x, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    composite = chefer.Full(*bounds)
    positions = (("positions", True),)
    pixels = lambda r: r[0].sum(1)  # noqa: E731
    yield case("vit", "R.chefer.full", composite, positions, after=pixels)


CASES = [
    *layer_cases(),
    *mlp_cases(),
    *image_cases(),
    *captum_cases(),
    *lxt_cases(),
    *dynamiclrp_cases(),
    *chefer_cases(),
]
# In float32 a network of each kind, and one of the layers.
RUNS = [(case, "float64") for case in CASES] + [
    (case, "float32")
    for case in CASES
    if case.key.startswith(("R.", "conv2dg."))
    and case.file in ("layers", "mlp", "cnn", "bert")
]

_MASK = "its softmax drops the upper triangle, also where attention has no mask"
_NORM = "its RMS norm, taken apart, gives relevance to weights and constants"
_HALF = "with use_attn_lrp the weights take half of every layer's relevance"
_ELSEWHERE = "compared in tests/attribution"
NOT_COMPARED = {
    **{
        f"vit:R.dynamiclrp.{key}": reason
        for key, reason in (
            ("plain@eager", _MASK),
            ("attnlrp@eager", f"{_MASK}; {_HALF}"),
            ("attnlrp@sdpa", f"{_MASK}; {_HALF}"),
        )
    },
    **{
        f"bert:R.dynamiclrp.{key}.{part}": reason
        for part in ("word", "type", "pos")
        for key, reason in (
            ("plain@eager", _MASK),
            ("attnlrp@eager", f"{_MASK}; {_HALF}"),
            ("attnlrp@sdpa", f"{_MASK}; {_HALF}"),
        )
    },
    **{
        f"llama:R.dynamiclrp.{key}.word": _NORM
        for key in ("plain@eager", "attnlrp@eager", "plain@sdpa", "attnlrp@sdpa")
    },
    "vit:R.chefer.transformer_attribution": _ELSEWHERE,
    "vit:R.chefer.rollout": _ELSEWHERE,
    "bert:R.chefer.transformer_attribution": _ELSEWHERE,
}
"""Arrays that no composite gives, and why."""


def is_relevance(key: str) -> bool:
    return ".R." in key or key.startswith(("R.", "R0.", "R1.", "R_block", "attn_cam"))


@pytest.mark.parametrize("file", NETWORKS)
def test_every_array_is_compared_or_has_a_reason(file):
    stored = {f"{file}:{key}" for key in golden.arrays(file) if is_relevance(key)}
    compared = {str(case) for case in CASES if case.file == file}
    excused = {key for key in NOT_COMPARED if key.startswith(f"{file}:")}
    assert compared | excused == stored
    assert not compared & excused


def run_of(case: Case) -> str:
    """What cases have in common that one run answers."""
    return f"{case.file} {case.options} {case.composite!r} {case.target}"


CAPTURED: dict[str, set[str]] = {}
for one in CASES:
    names = CAPTURED.setdefault(run_of(one), set())
    if one.capture is not None:
        names.add(one.capture)


def explained(case: Case, dtype) -> Any:
    """The relevance of the input, and of all values that the run's cases are about."""
    apply, params, x = NETWORKS[case.file](dtype=dtype, **dict(case.options))
    names = sorted(CAPTURED[run_of(case)])
    if case.file == "layers":
        layer = case.key.split(".")[0]
        seed = jnp.asarray(golden.arrays("layers")[f"{layer}.R_out"], dtype)

        def explain_layer(params, x, seed):
            _, relprop = jaxlrp.relprop(apply, params, x, composite=case.composite)
            return relprop(seed)

        return jax.jit(explain_layer)(params, x, seed)
    explain = jaxlrp.lrp(apply, case.composite, target=case.target, capture=names)
    return jax.jit(explain)(params, x)


@pytest.fixture(scope="module")
def runs() -> dict[tuple[str, str], Any]:
    """What has been run."""
    return {}


def relevance(case: Case, dtype: str, runs: dict[tuple[str, str], Any]) -> np.ndarray:
    key = (run_of(case), dtype)
    with jax.enable_x64(dtype == "float64"):
        if key not in runs:
            runs[key] = explained(case, jnp.dtype(dtype))
        found = runs[key]
        if CAPTURED[run_of(case)]:
            found = found[0] if case.capture is None else found[1][case.capture]
        if case.after is not None:
            found = case.after(found)
        return np.asarray(found, np.float64)


def relative_error(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(value - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("case", "dtype"), RUNS, ids=str)
def test_relevance_equals_the_peer(case, dtype, runs):
    value = relevance(case, dtype, runs)
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
    arrays = golden.arrays(file)
    expected = arrays["logits"]
    np.testing.assert_allclose(value, expected, rtol=0, atol=LOGITS[file])
    np.testing.assert_array_equal(expected.argmax(-1), arrays["target"])


@pytest.mark.parametrize("file", ["vit", "bert"])
def test_network_is_the_one_of_chefer(file):
    arrays = golden.arrays(file)
    np.testing.assert_allclose(
        arrays["logits_chefer"], arrays["logits"], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", golden.LAYERS)
def test_layer_is_the_one_of_the_peer(name):
    with jax.enable_x64(True):
        apply, params, x = golden.layer(name, dtype=jnp.float64)
        value = np.asarray(apply(params, x))
    expected = golden.arrays("layers")[f"{name}.y"]
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)


STRICTER = {
    "dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "transfers": lambda: jax.transfer_guard("disallow"),
    "nans": lambda: jax.debug_nans(True),
    "doubles": lambda: jax.enable_x64(True),
}


@pytest.mark.parametrize("name", ["mlp", "cnn", "bert"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("setting", STRICTER)
def test_relevance_needs_none_of_what_stricter_settings_refuse(setting, dtype, name):
    """A network that is traced before: what it does itself is not the matter."""
    apply, params, x = NETWORKS[name](dtype=jnp.dtype(dtype))
    params, x = jax.device_put((params, x))
    program = jax.make_jaxpr(apply)(params, x)

    def traced(params, x):
        return jaxpr_as_fun(program)(*jax.tree.leaves((params, x)))[0]

    explain = jaxlrp.lrp(traced, composites.DynamicLRP() if name == "mlp" else None)
    # Transfers are those of a call that is not compiled.
    explain = explain if setting == "transfers" else jax.jit(explain)
    with STRICTER[setting]():
        found = explain(params, x)
    assert all(np.isfinite(r).all() for r in jax.tree.leaves(found))
