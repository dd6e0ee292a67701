"""zennit's rules and composites, with its names and defaults.

    >>> import jax, jax.numpy as jnp, jaxlrp
    >>> from jaxlrp.compat import zennit
    >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
    >>> f = lambda x: jax.nn.relu(x @ w) @ jnp.ones(2)
    >>> explain = jaxlrp.lrp(f, zennit.EpsilonPlusFlat(), target="all")
    >>> explain(jnp.array([1.0, 2.0])).round(3).tolist()
    [2.5, 2.5]

A canonizer that merges batch norms is named:
`zennit.EpsilonPlusFlat(canonizers=["SequentialMergeBatchNorm"])`; without one a batch
norm passes relevance unchanged, as there. `zero_params=["bias"]` is `bias="ignore"`.

Source: zennit 0.5.1; Anders et al. 2021, "Software for dataset-wide XAI: from local
explanations to global insights with Zennit, CoRelAy, and ViRelAy".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxlrp import composites, rules
from jaxlrp.compat._rows import Row, changed, with_options
from jaxlrp.composites import Composite
from jaxlrp.rules import Rule

__all__ = [
    "CANONIZERS",
    "TABLE",
    "AlphaBeta",
    "BetaSmooth",
    "DeconvNet",
    "Epsilon",
    "EpsilonAlpha2Beta1",
    "EpsilonAlpha2Beta1Flat",
    "EpsilonGammaBox",
    "EpsilonPlus",
    "EpsilonPlusFlat",
    "ExcitationBackprop",
    "Flat",
    "Gamma",
    "GuidedBackprop",
    "Norm",
    "Pass",
    "ReLUBetaSmooth",
    "ReLUDeconvNet",
    "ReLUGuidedBackprop",
    "Stabilizer",
    "WSquare",
    "ZBox",
    "ZPlus",
]

CANONIZERS = (
    "MergeBatchNorm",
    "NamedMergeBatchNorm",
    "SequentialMergeBatchNorm",
    "ResNetBasicBlockCanonizer",
    "ResNetBottleneckCanonizer",
    "ResNetCanonizer",
    "VGGCanonizer",
)
"""The canonizers that merge batch norms. Residual sums need none here."""

Names = Sequence[str] | str | None


@dataclasses.dataclass(frozen=True)
class Stabilizer:
    """`s(z)`: `z + epsilon sign(z)`, or with `clip` `sign(z) max(|z|, epsilon)`.

    With `norm_scale`, epsilon is in units of the root mean square of `z`: over a
    layer's features here, over all axes but the first in zennit.

    Attributes:
      epsilon: its size.
      clip: the form.
      norm_scale: is the size relative?

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> zennit.Epsilon(zennit.Stabilizer(1e-3, norm_scale=True))
      Epsilon(epsilon=0.001, relative=True)
    """

    epsilon: Any = 1e-6
    clip: bool = False
    norm_scale: bool = False

    def options(self) -> dict[str, Any]:
        """The options of a rule that are the same."""
        return {
            "epsilon": self.epsilon,
            "stabiliser": "clip" if self.clip else "sign",
            "relative": self.norm_scale,
        }


def _options(stabilizer: Any, zero_params: Names) -> dict[str, Any]:
    if not isinstance(stabilizer, Stabilizer):
        stabilizer = Stabilizer(stabilizer)
    return {**stabilizer.options(), "bias": _bias(zero_params)}


def _bias(zero_params: Names) -> str:
    names = (zero_params,) if isinstance(zero_params, str) else tuple(zero_params or ())
    if any(name != "bias" for name in names):
        raise ValueError(
            f"zero_params: got {zero_params!r}, expected None or ['bias']: other "
            f"parameters than the bias cannot be chosen here"
        )
    return "ignore" if names else "absorb"


def Epsilon(epsilon: Any = 1e-6, zero_params: Names = None) -> Rule:  # noqa: N802
    """`rules.Epsilon`.

    Args:
      epsilon: the stabiliser, not negative.
      zero_params: `["bias"]` for a bias that plays no part, or None.

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> zennit.Epsilon()
      Epsilon(epsilon=1e-06)
    """
    return with_options(rules.Epsilon(), **_options(epsilon, zero_params))


def Gamma(  # noqa: N802
    gamma: Any = 0.25, stabilizer: Any = 1e-6, zero_params: Names = None
) -> Rule:
    """`rules.GeneralizedGamma`.

    Args:
      gamma: how much more what counts more does, not negative.
      stabilizer: epsilon, or a `Stabilizer`.
      zero_params: `["bias"]` for a bias that plays no part, or None.

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> zennit.Gamma()
      GeneralizedGamma(gamma=0.25)
    """
    rule = rules.GeneralizedGamma(gamma)
    return with_options(rule, **_options(stabilizer, zero_params))


def ZPlus(stabilizer: Any = 1e-6, zero_params: Names = None) -> Rule:  # noqa: N802
    """`rules.ZPlus`.

    Args:
      stabilizer: epsilon, or a `Stabilizer`.
      zero_params: `["bias"]` for a bias that plays no part, or None.

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> zennit.ZPlus()
      ZPlus(epsilon=1e-06)
    """
    return with_options(rules.ZPlus(), **_options(stabilizer, zero_params))


def AlphaBeta(  # noqa: N802
    alpha: Any = 2.0, beta: Any = 1.0, stabilizer: Any = 1e-6, zero_params: Names = None
) -> Rule:
    """`rules.AlphaBeta`.

    Args:
      alpha: the factor of the positive part, `1 + beta`.
      beta: the factor of the negative part.
      stabilizer: epsilon, or a `Stabilizer`.
      zero_params: `["bias"]` for a bias that plays no part, or None.

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> zennit.AlphaBeta()
      AlphaBeta(alpha=2.0, beta=1.0)
    """
    rule = rules.AlphaBeta(alpha, beta)
    return with_options(rule, **_options(stabilizer, zero_params))


def ZBox(  # noqa: N802
    low: Any, high: Any, stabilizer: Any = 1e-6, zero_params: Names = None
) -> Rule:
    """`rules.ZBox`.

    Args:
      low: the smallest value of the input, a number or an array that broadcasts to it.
      high: the largest.
      stabilizer: epsilon, or a `Stabilizer`.
      zero_params: `["bias"]` for a bias that plays no part, or None.

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> zennit.ZBox(-1.0, 1.0)
      ZBox(low=-1.0, high=1.0)
    """
    return with_options(rules.ZBox(low, high), **_options(stabilizer, zero_params))


def WSquare(stabilizer: Any = 1e-6, zero_params: Names = None) -> Rule:  # noqa: N802
    """`rules.WSquare`, the bias squared in the denominator.

    Args:
      stabilizer: epsilon, or a `Stabilizer`.
      zero_params: `["bias"]` for a bias that plays no part, or None.

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> zennit.WSquare()
      WSquare(epsilon=1e-06)
    """
    return with_options(rules.WSquare(), **_options(stabilizer, zero_params))


def Flat(stabilizer: Any = 1e-6, zero_params: Names = None) -> Rule:  # noqa: N802
    """`rules.Flat`.

    Args:
      stabilizer: epsilon, or a `Stabilizer`.
      zero_params: `["bias"]` for a bias that plays no part, or None.

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> zennit.Flat()
      Flat(epsilon=1e-06)
    """
    return with_options(rules.Flat(), **_options(stabilizer, zero_params))


def Norm(stabilizer: Any = 1e-6) -> Rule:  # noqa: N802
    """`rules.Norm`.

    Args:
      stabilizer: epsilon, or a `Stabilizer`.

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> zennit.Norm()
      Norm(epsilon=1e-06)
    """
    return with_options(rules.Norm(), **_options(stabilizer, None))


def Pass() -> Rule:  # noqa: N802
    """`rules.Pass`.

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> zennit.Pass()
      Pass()
    """
    return rules.Pass()


def ReLUDeconvNet() -> Rule:  # noqa: N802
    """`rules.Deconv`.

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> zennit.ReLUDeconvNet()
      Deconv()
    """
    return rules.Deconv()


def ReLUGuidedBackprop() -> Rule:  # noqa: N802
    """`rules.Guided`.

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> zennit.ReLUGuidedBackprop()
      Guided()
    """
    return rules.Guided()


def ReLUBetaSmooth(beta_smooth: Any = 10.0) -> Rule:  # noqa: N802
    """`rules.BetaSmooth`.

    Args:
      beta_smooth: the softplus's steepness.

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> zennit.ReLUBetaSmooth()
      BetaSmooth(beta=10.0)
    """
    return rules.BetaSmooth(beta_smooth)


def _zennit(
    composite: Composite,
    stabilizer: Any,
    zero_params: Names,
    canonizers: Names,
    unmerged: Rule | None = None,
) -> Composite:
    """The preset with zennit's arguments; batch norms as without a canonizer."""
    options = _options(stabilizer, zero_params)
    bias = {"bias": options["bias"]}

    def change(rule: Rule) -> Rule:
        own = bias if isinstance(rule, rules.Epsilon) else options
        stabilised = hasattr(rule, "stabiliser")
        return with_options(rule, **own) if stabilised else rule

    names = (canonizers,) if isinstance(canonizers, str) else tuple(canonizers or ())
    for name in names:
        if name not in CANONIZERS:
            raise ValueError(
                f"canonizers: got {name!r}, expected names among "
                f"{', '.join(CANONIZERS)}"
            )
    composite = changed(composite, change)
    return composite if names else composite.on("batch_norm", unmerged or rules.Pass())


def EpsilonGammaBox(  # noqa: N802
    low: Any,
    high: Any,
    epsilon: Any = 1e-6,
    gamma: Any = 0.25,
    stabilizer: Any = 1e-6,
    *,
    zero_params: Names = None,
    canonizers: Names = None,
) -> Composite:
    """`composites.EpsilonGammaBox`.

    Args:
      low: the smallest value of the input, a number or an array that broadcasts to it.
      high: the largest.
      epsilon: the stabiliser, not negative.
      gamma: how much more what counts more does, not negative.
      stabilizer: epsilon, or a `Stabilizer`.
      zero_params: `["bias"]` for a bias that plays no part, or None.
      canonizers: names in `CANONIZERS` for merged batch norms, or None.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import zennit
      >>> zennit.EpsilonGammaBox(-1.0, 1.0).rule(Place("dense"))
      Epsilon(epsilon=1e-06)
    """
    preset = composites.EpsilonGammaBox(low, high, epsilon, gamma)
    return _zennit(preset, stabilizer, zero_params, canonizers)


def EpsilonPlus(  # noqa: N802
    epsilon: Any = 1e-6,
    stabilizer: Any = 1e-6,
    *,
    zero_params: Names = None,
    canonizers: Names = None,
) -> Composite:
    """`composites.EpsilonPlus`.

    Args:
      epsilon: the stabiliser, not negative.
      stabilizer: epsilon, or a `Stabilizer`.
      zero_params: `["bias"]` for a bias that plays no part, or None.
      canonizers: names in `CANONIZERS` for merged batch norms, or None.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import zennit
      >>> zennit.EpsilonPlus().rule(Place("dense"))
      Epsilon(epsilon=1e-06)
    """
    preset = composites.EpsilonPlus(epsilon)
    return _zennit(preset, stabilizer, zero_params, canonizers)


def EpsilonPlusFlat(  # noqa: N802
    epsilon: Any = 1e-6,
    stabilizer: Any = 1e-6,
    *,
    zero_params: Names = None,
    canonizers: Names = None,
) -> Composite:
    """`composites.EpsilonPlusFlat`.

    Args:
      epsilon: the stabiliser, not negative.
      stabilizer: epsilon, or a `Stabilizer`.
      zero_params: `["bias"]` for a bias that plays no part, or None.
      canonizers: names in `CANONIZERS` for merged batch norms, or None.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import zennit
      >>> zennit.EpsilonPlusFlat().rule(Place("dense"))
      Epsilon(epsilon=1e-06)
    """
    preset = composites.EpsilonPlusFlat(epsilon)
    return _zennit(preset, stabilizer, zero_params, canonizers)


def EpsilonAlpha2Beta1(  # noqa: N802
    epsilon: Any = 1e-6,
    stabilizer: Any = 1e-6,
    *,
    zero_params: Names = None,
    canonizers: Names = None,
) -> Composite:
    """`composites.EpsilonAlpha2Beta1`.

    Args:
      epsilon: the stabiliser, not negative.
      stabilizer: epsilon, or a `Stabilizer`.
      zero_params: `["bias"]` for a bias that plays no part, or None.
      canonizers: names in `CANONIZERS` for merged batch norms, or None.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import zennit
      >>> zennit.EpsilonAlpha2Beta1().rule(Place("dense"))
      Epsilon(epsilon=1e-06)
    """
    preset = composites.EpsilonAlpha2Beta1(epsilon)
    return _zennit(preset, stabilizer, zero_params, canonizers)


def EpsilonAlpha2Beta1Flat(  # noqa: N802
    epsilon: Any = 1e-6,
    stabilizer: Any = 1e-6,
    *,
    zero_params: Names = None,
    canonizers: Names = None,
) -> Composite:
    """`composites.EpsilonAlpha2Beta1Flat`.

    Args:
      epsilon: the stabiliser, not negative.
      stabilizer: epsilon, or a `Stabilizer`.
      zero_params: `["bias"]` for a bias that plays no part, or None.
      canonizers: names in `CANONIZERS` for merged batch norms, or None.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import zennit
      >>> zennit.EpsilonAlpha2Beta1Flat().rule(Place("dense"))
      Epsilon(epsilon=1e-06)
    """
    preset = composites.EpsilonAlpha2Beta1Flat(epsilon)
    return _zennit(preset, stabilizer, zero_params, canonizers)


def ExcitationBackprop(  # noqa: N802
    stabilizer: Any = 1e-6, *, zero_params: Names = None, canonizers: Names = None
) -> Composite:
    """`composites.ExcitationBackprop`; the gradient through an unmerged batch norm.

    Args:
      stabilizer: epsilon, or a `Stabilizer`.
      zero_params: `["bias"]` for a bias that plays no part, or None.
      canonizers: names in `CANONIZERS` for merged batch norms, or None.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import zennit
      >>> zennit.ExcitationBackprop().rule(Place("dense"))
      ZPlus(epsilon=1e-06)
    """
    preset = composites.ExcitationBackprop()
    return _zennit(preset, stabilizer, zero_params, canonizers, rules.Gradient())


def DeconvNet() -> Composite:  # noqa: N802
    """`composites.DeconvNet`.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import zennit
      >>> zennit.DeconvNet().rule(Place("activation"))
      Deconv()
    """
    return composites.DeconvNet()


def GuidedBackprop() -> Composite:  # noqa: N802
    """`composites.GuidedBackprop`.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import zennit
      >>> zennit.GuidedBackprop().rule(Place("activation"))
      Guided()
    """
    return composites.GuidedBackprop()


def BetaSmooth(beta_smooth: Any = 10.0) -> Composite:  # noqa: N802
    """`composites.BetaSmooth`.

    Args:
      beta_smooth: the softplus's steepness.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import zennit
      >>> zennit.BetaSmooth().rule(Place("activation"))
      BetaSmooth(beta=10.0)
    """
    return composites.BetaSmooth(beta_smooth)


_UNMERGED = '.on("batch_norm", rules.Pass())'
_FIRST = "first is where no layer lies before, not what is registered first"

TABLE: tuple[Row, ...] = (
    Row("Epsilon()", "rules.Epsilon(1e-6)", "", "zennit.Epsilon()"),
    Row(
        "Gamma()",
        "rules.GeneralizedGamma(0.25)",
        "`rules.Gamma` is the plain one",
        "zennit.Gamma()",
    ),
    Row("ZPlus()", "rules.ZPlus()", "", "zennit.ZPlus()"),
    Row("AlphaBeta(2, 1)", "rules.AlphaBeta(2.0, 1.0)", "", "zennit.AlphaBeta()"),
    Row("ZBox(-3, 3)", "rules.ZBox(-3, 3)", "", "zennit.ZBox(-3, 3)"),
    Row("WSquare()", "rules.WSquare()", "", "zennit.WSquare()"),
    Row("Flat()", "rules.Flat()", "", "zennit.Flat()"),
    Row("Norm()", "rules.Norm(1e-6)", "", "zennit.Norm()"),
    Row("Pass()", "rules.Pass()", "", "zennit.Pass()"),
    Row("ReLUDeconvNet()", "rules.Deconv()", "", "zennit.ReLUDeconvNet()"),
    Row("ReLUGuidedBackprop()", "rules.Guided()", "", "zennit.ReLUGuidedBackprop()"),
    Row("ReLUBetaSmooth()", "rules.BetaSmooth(10.0)", "", "zennit.ReLUBetaSmooth()"),
    Row(
        'ZPlus(zero_params=["bias"])',
        'rules.ZPlus(bias="ignore")',
        "",
        'zennit.ZPlus(zero_params=["bias"])',
    ),
    Row(
        "Epsilon(Stabilizer(1e-3, norm_scale=True))",
        "rules.Epsilon(1e-3, relative=True)",
        "the root mean square is over the layer's features, not over pixels as well",
        "zennit.Epsilon(zennit.Stabilizer(1e-3, norm_scale=True))",
    ),
    Row(
        "EpsilonGammaBox(-3, 3)",
        f"composites.EpsilonGammaBox(-3, 3){_UNMERGED}",
        _FIRST,
        "zennit.EpsilonGammaBox(-3, 3)",
    ),
    Row(
        "EpsilonPlus()",
        f"composites.EpsilonPlus(){_UNMERGED}",
        "",
        "zennit.EpsilonPlus()",
    ),
    Row(
        "EpsilonPlusFlat()",
        f"composites.EpsilonPlusFlat(){_UNMERGED}",
        _FIRST,
        "zennit.EpsilonPlusFlat()",
    ),
    Row(
        "EpsilonAlpha2Beta1()",
        f"composites.EpsilonAlpha2Beta1(){_UNMERGED}",
        "",
        "zennit.EpsilonAlpha2Beta1()",
    ),
    Row(
        "EpsilonAlpha2Beta1Flat()",
        f"composites.EpsilonAlpha2Beta1Flat(){_UNMERGED}",
        _FIRST,
        "zennit.EpsilonAlpha2Beta1Flat()",
    ),
    Row(
        "EpsilonPlus(canonizers=[SequentialMergeBatchNorm()])",
        "composites.EpsilonPlus()",
        "exact; zennit leaves a factor `1 / sqrt(1 + eps)` after each merged layer",
        'zennit.EpsilonPlus(canonizers=["SequentialMergeBatchNorm"])',
    ),
    Row(
        "EpsilonPlus(canonizers=[ResNetCanonizer()])",
        "composites.EpsilonPlus()",
        "residual sums are seen however they are written",
        'zennit.EpsilonPlus(canonizers=["ResNetCanonizer"])',
    ),
    Row(
        "ExcitationBackprop()",
        'composites.ExcitationBackprop().on("batch_norm", rules.Gradient())',
        "",
        "zennit.ExcitationBackprop()",
    ),
    Row(
        "GuidedBackprop()",
        "composites.GuidedBackprop()",
        "",
        "zennit.GuidedBackprop()",
    ),
    Row("DeconvNet()", "composites.DeconvNet()", "", "zennit.DeconvNet()"),
    Row("BetaSmooth()", "composites.BetaSmooth(10.0)", "", "zennit.BetaSmooth()"),
    Row(
        "LayerMapComposite([(Linear, Epsilon()), ...])",
        'composites.Composite("mine").on("dense", rules.Epsilon())',
        "roles instead of module types; the last line that matches wins",
    ),
    Row(
        'NameMapComposite([(["features.0"], Flat()), ...])',
        'composites.Epsilon().on("layer", rules.Flat(), scope="*features_0*")',
        "globs of named scopes instead of module names",
    ),
    Row(
        "SpecialFirstLayerMapComposite(..., first_map=...)",
        'composites.Epsilon().on("layer", rules.Flat(), first=True)',
        _FIRST,
    ),
    Row(
        "composite not hooked: LayerNorm, Softmax, x + y, ...",
        "composites.DEFAULTS",
        "each role has a rule; zennit takes the gradient, which doubles relevance at "
        "every functional residual sum",
    ),
    Row(
        "Gradient(model, composite)(x, attr_output)",
        "jaxlrp.lrp(f, composites.Epsilon(), target=lambda out: out)",
        "`target` is a class, an array of classes, or a function of the output",
    ),
    Row(
        'imgify(relevance.sum(1), symmetric=True, cmap="coldnhot", grid=True)',
        'jaxlrp.plot.images(relevance, scale="all", percentile=100)',
        "a Figure with titles and a colour bar; sums over channels itself; red and "
        "blue are darkest at the ends, zero is white",
    ),
    Row(
        "imgify(..., level=2.0)",
        "jaxlrp.plot.images(relevance, percentile=99)",
        "large relevances are cut off instead of colours made steeper",
    ),
    Row(
        "imgify(..., vmin=-3.0, vmax=3.0)",
        "jaxlrp.plot.images(relevance, scale=3.0)",
        "a scale always has zero in its middle",
    ),
    Row(
        'imsave("map.png", relevance.sum(1), symmetric=True, grid=True)',
        'jaxlrp.plot.images(relevance, scale="all", percentile=100)',
        'a Figure: `.savefig("map.png")` writes it, with a title and a bar of colours',
    ),
)
"""zennit's names, ours, and what differs."""
