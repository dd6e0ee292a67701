"""RelevancePropagation.jl's rules and composites, with its names and defaults.

    >>> from jaxlrp import rules
    >>> from jaxlrp.compat import relevancepropagation_jl as julia
    >>> julia.GammaRule() == rules.Gamma(0.25, epsilon=1e-9)
    True

Its gamma rule is the plain one, in `EpsilonGammaBox` too; zennit's is the generalised.
Relevance starts there from one; here from the output's value, unless `target` is a
function.

Source: RelevancePropagation.jl 3.0.0.
"""

from __future__ import annotations

from typing import Any

from jaxlrp import composites, rules
from jaxlrp.compat._rows import Row, changed, with_options
from jaxlrp.composites import Composite
from jaxlrp.rules import Rule

__all__ = [
    "TABLE",
    "AlphaBetaRule",
    "EpsilonAlpha2Beta1",
    "EpsilonAlpha2Beta1Flat",
    "EpsilonGammaBox",
    "EpsilonPlus",
    "EpsilonPlusFlat",
    "EpsilonRule",
    "FlatRule",
    "GammaRule",
    "GeneralizedGammaRule",
    "LayerNormRule",
    "PassRule",
    "WSquareRule",
    "ZBoxRule",
    "ZPlusRule",
    "ZeroRule",
]

_SMALL: dict[str, Any] = {"epsilon": 1e-9}


def ZeroRule() -> Rule:  # noqa: N802
    """LRP-0, stabilised by 1e-9: `rules.Epsilon(1e-9)`.

    Examples:
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.ZeroRule()
      Epsilon(epsilon=1e-09)
    """
    return rules.Epsilon(**_SMALL)


def EpsilonRule(epsilon: Any = 1e-6) -> Rule:  # noqa: N802
    """`rules.Epsilon`.

    Args:
      epsilon: the stabiliser, not negative.

    Examples:
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.EpsilonRule()
      Epsilon(epsilon=1e-06)
    """
    return rules.Epsilon(epsilon)


def GammaRule(gamma: Any = 0.25) -> Rule:  # noqa: N802
    """The plain gamma rule, `rules.Gamma`.

    Args:
      gamma: how much more what counts more does, not negative.

    Examples:
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.GammaRule()
      Gamma(gamma=0.25, epsilon=1e-09)
    """
    return rules.Gamma(gamma, **_SMALL)


def GeneralizedGammaRule(gamma: Any = 0.25) -> Rule:  # noqa: N802
    """`rules.GeneralizedGamma`.

    Args:
      gamma: how much more what counts more does, not negative.

    Examples:
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.GeneralizedGammaRule()
      GeneralizedGamma(gamma=0.25, epsilon=1e-09)
    """
    return rules.GeneralizedGamma(gamma, **_SMALL)


def WSquareRule() -> Rule:  # noqa: N802
    """`rules.WSquare` without the bias.

    Examples:
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.WSquareRule()
      WSquare(epsilon=1e-09, bias='ignore')
    """
    return rules.WSquare(**_SMALL, bias="ignore")


def FlatRule() -> Rule:  # noqa: N802
    """`rules.Flat`.

    Examples:
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.FlatRule()
      Flat(epsilon=1e-09)
    """
    return rules.Flat(**_SMALL)


def AlphaBetaRule(alpha: Any = 2.0, beta: Any = 1.0) -> Rule:  # noqa: N802
    """`rules.AlphaBeta`.

    Args:
      alpha: the factor of the positive part, `1 + beta`.
      beta: the factor of the negative part.

    Examples:
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.AlphaBetaRule()
      AlphaBeta(alpha=2.0, beta=1.0, epsilon=1e-09)
    """
    return rules.AlphaBeta(alpha, beta, **_SMALL)


def ZPlusRule() -> Rule:  # noqa: N802
    """`rules.ZPlus`.

    Examples:
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.ZPlusRule()
      ZPlus(epsilon=1e-09)
    """
    return rules.ZPlus(**_SMALL)


def ZBoxRule(low: Any, high: Any) -> Rule:  # noqa: N802
    """`rules.ZBox`.

    Args:
      low: the smallest value of the input, a number or an array that broadcasts to it.
      high: the largest.

    Examples:
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.ZBoxRule(-1.0, 1.0)
      ZBox(low=-1.0, high=1.0, epsilon=1e-09)
    """
    return rules.ZBox(low, high, **_SMALL)


def PassRule() -> Rule:  # noqa: N802
    """`rules.Pass`.

    Examples:
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.PassRule()
      Pass()
    """
    return rules.Pass()


def LayerNormRule() -> Rule:  # noqa: N802
    """`rules.Detach`: the standard deviation is a constant.

    Examples:
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.LayerNormRule()
      Detach()
    """
    return rules.Detach()


def _julia(composite: Composite, canonize: bool) -> Composite:
    """Its stabilisers; batch norms pass unless they are fused."""

    def change(rule: Rule) -> Rule:
        known = hasattr(rule, "stabiliser") and not isinstance(rule, rules.Epsilon)
        return with_options(rule, **_SMALL) if known else rule

    composite = changed(composite, change)
    return composite if canonize else composite.on("batch_norm", rules.Pass())


def EpsilonGammaBox(  # noqa: N802
    low: Any, high: Any, epsilon: Any = 1e-6, gamma: Any = 0.25, canonize: bool = False
) -> Composite:
    """`composites.EpsilonGammaBox` with the plain gamma rule.

    Args:
      low: the smallest value of the input, a number or an array that broadcasts to it.
      high: the largest.
      epsilon: the stabiliser, not negative.
      gamma: how much more what counts more does, not negative.
      canonize: whether batch norms are merged into layers; else relevance passes them.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.EpsilonGammaBox(-1.0, 1.0).rule(Place("dense"))
      Epsilon(epsilon=1e-06)
    """
    preset = composites.EpsilonGammaBox(low, high, epsilon, gamma, generalized=False)
    return _julia(preset, canonize)


def EpsilonPlus(epsilon: Any = 1e-6, canonize: bool = False) -> Composite:  # noqa: N802
    """`composites.EpsilonPlus`.

    Args:
      epsilon: the stabiliser, not negative.
      canonize: whether batch norms are merged into layers; else relevance passes them.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.EpsilonPlus().rule(Place("dense"))
      Epsilon(epsilon=1e-06)
    """
    return _julia(composites.EpsilonPlus(epsilon), canonize)


def EpsilonPlusFlat(epsilon: Any = 1e-6, canonize: bool = False) -> Composite:  # noqa: N802
    """`composites.EpsilonPlusFlat`.

    Args:
      epsilon: the stabiliser, not negative.
      canonize: whether batch norms are merged into layers; else relevance passes them.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.EpsilonPlusFlat().rule(Place("dense"))
      Epsilon(epsilon=1e-06)
    """
    return _julia(composites.EpsilonPlusFlat(epsilon), canonize)


def EpsilonAlpha2Beta1(epsilon: Any = 1e-6, canonize: bool = False) -> Composite:  # noqa: N802
    """`composites.EpsilonAlpha2Beta1`.

    Args:
      epsilon: the stabiliser, not negative.
      canonize: whether batch norms are merged into layers; else relevance passes them.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.EpsilonAlpha2Beta1().rule(Place("dense"))
      Epsilon(epsilon=1e-06)
    """
    return _julia(composites.EpsilonAlpha2Beta1(epsilon), canonize)


def EpsilonAlpha2Beta1Flat(epsilon: Any = 1e-6, canonize: bool = False) -> Composite:  # noqa: N802
    """`composites.EpsilonAlpha2Beta1Flat`.

    Args:
      epsilon: the stabiliser, not negative.
      canonize: whether batch norms are merged into layers; else relevance passes them.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import relevancepropagation_jl as julia
      >>> julia.EpsilonAlpha2Beta1Flat().rule(Place("dense"))
      Epsilon(epsilon=1e-06)
    """
    return _julia(composites.EpsilonAlpha2Beta1Flat(epsilon), canonize)


_NORM = '.on("average", rules.Norm(1e-9)).on("sum", rules.Norm(1e-9))'
_PASS = '.on("batch_norm", rules.Pass())'


def _preset_ours(name: str, convolution: str, first: str = "") -> str:
    return (
        f'composites.Composite("{name}").on("layer", rules.Epsilon(1e-6))'
        f'.on("convolution", {convolution}){_NORM}{first}{_PASS}'
    )


_SHIFT = '.on("shift", rules.Pass(), first=True)'
_FLAT = f'{_SHIFT}.on("layer", rules.Flat(1e-9), first=True)'
_BOX = f'{_SHIFT}.on("convolution", rules.ZBox(-1, 1, epsilon=1e-9), first=True)'
_ALPHA = "rules.AlphaBeta(2.0, 1.0, epsilon=1e-9)"

TABLE: tuple[Row, ...] = (
    Row("ZeroRule()", "rules.Epsilon(1e-9)", "", "relevancepropagation_jl.ZeroRule()"),
    Row(
        "EpsilonRule()",
        "rules.Epsilon(1e-6)",
        "",
        "relevancepropagation_jl.EpsilonRule()",
    ),
    Row(
        "GammaRule()",
        "rules.Gamma(0.25, epsilon=1e-9)",
        "",
        "relevancepropagation_jl.GammaRule()",
    ),
    Row(
        "GeneralizedGammaRule()",
        "rules.GeneralizedGamma(0.25, epsilon=1e-9)",
        "",
        "relevancepropagation_jl.GeneralizedGammaRule()",
    ),
    Row(
        "WSquareRule()",
        'rules.WSquare(1e-9, bias="ignore")',
        "",
        "relevancepropagation_jl.WSquareRule()",
    ),
    Row("FlatRule()", "rules.Flat(1e-9)", "", "relevancepropagation_jl.FlatRule()"),
    Row("AlphaBetaRule()", _ALPHA, "", "relevancepropagation_jl.AlphaBetaRule()"),
    Row("ZPlusRule()", "rules.ZPlus(1e-9)", "", "relevancepropagation_jl.ZPlusRule()"),
    Row(
        "ZBoxRule(-1, 1)",
        "rules.ZBox(-1, 1, epsilon=1e-9)",
        "",
        "relevancepropagation_jl.ZBoxRule(-1, 1)",
    ),
    Row("PassRule()", "rules.Pass()", "", "relevancepropagation_jl.PassRule()"),
    Row(
        "LayerNormRule()",
        "rules.Detach()",
        "the norm's eps is inside the root",
        "relevancepropagation_jl.LayerNormRule()",
    ),
    Row(
        "EpsilonGammaBox(-1, 1)",
        _preset_ours("EpsilonGammaBox", "rules.Gamma(0.25, epsilon=1e-9)", _BOX),
        "`composites.EpsilonGammaBox` has the generalised gamma rule",
        "relevancepropagation_jl.EpsilonGammaBox(-1, 1)",
    ),
    Row(
        "EpsilonPlus()",
        _preset_ours("EpsilonPlus", "rules.ZPlus(1e-9)"),
        "",
        "relevancepropagation_jl.EpsilonPlus()",
    ),
    Row(
        "EpsilonPlusFlat()",
        _preset_ours("EpsilonPlusFlat", "rules.ZPlus(1e-9)", _FLAT),
        "",
        "relevancepropagation_jl.EpsilonPlusFlat()",
    ),
    Row(
        "EpsilonAlpha2Beta1()",
        _preset_ours("EpsilonAlpha2Beta1", _ALPHA),
        "",
        "relevancepropagation_jl.EpsilonAlpha2Beta1()",
    ),
    Row(
        "EpsilonAlpha2Beta1Flat()",
        _preset_ours("EpsilonAlpha2Beta1Flat", _ALPHA, _FLAT),
        "",
        "relevancepropagation_jl.EpsilonAlpha2Beta1Flat()",
    ),
    Row(
        "canonize(model)",
        "rules.Merge()",
        "`canonize=True` above; the batch norm's eps is kept, which is forgotten there",
    ),
    Row(
        "LRP(model, composite)",
        "jaxlrp.lrp(f, composites.EpsilonPlus())",
        "relevance starts from the output's value, not from one",
    ),
    Row(
        "show_layer_indices, model checks",
        "jaxlrp.plan(f, composites.EpsilonPlus())",
        "the rule of every step, before anything runs",
    ),
)
"""RelevancePropagation.jl's names, ours, and what differs."""
