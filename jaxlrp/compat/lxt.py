"""LXT's (LRP-eXplains-Transformers) rules and presets, with its names and defaults.

    >>> from jaxlrp.compat import lxt
    >>> print(lxt.AttnLRP())
    AttnLRP
      role        rule                           documented in
      layer       LRP0()                         jaxlrp.rules.LRP0
      activation  Pass(epsilon=1e-10)            jaxlrp.rules.Pass
      bilinear    UniformSplit(pairwise=True)    jaxlrp.rules.UniformSplit
      product     UniformSplit(pairwise=True)    jaxlrp.rules.UniformSplit

`AttnLRP` and `CPLRP` are `lxt.efficient`, which multiplies a gradient by the input;
`AttnLRPExplicit` and `CPLRPExplicit` are `lxt.explicit`, which passes relevances, with
stabilisers that have no sign.

Source: LXT 2.1; Achtibat et al. 2024, "AttnLRP: attention-aware layer-wise relevance
propagation for transformers".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxlrp import composites, rules
from jaxlrp.compat._rows import Row
from jaxlrp.composites import Composite
from jaxlrp.rules import Rule

__all__ = [
    "CPLRP",
    "TABLE",
    "AttnLRP",
    "AttnLRPExplicit",
    "CPLRPExplicit",
    "CPLRPGamma",
    "EpsilonRule",
    "IdentityRule",
    "StopRelevanceRule",
    "TaylorDecompositionRule",
    "UniformEpsilonRule",
    "UniformRule",
    "divide_gradient",
    "identity_rule_implicit",
    "stop_gradient",
]

_PLAIN: dict[str, Any] = {"stabiliser": "plain"}


def identity_rule_implicit() -> Rule:
    """`rules.Pass(1e-10)`: `R_x = x R_y / (x + 1e-10)`, without a sign.

    Examples:
      >>> from jaxlrp.compat import lxt
      >>> lxt.identity_rule_implicit()
      Pass(epsilon=1e-10)
    """
    return rules.Pass(1e-10)


def divide_gradient() -> Rule:
    """`rules.UniformSplit`, for products: half to each factor of a multiplication.

    Examples:
      >>> from jaxlrp.compat import lxt
      >>> lxt.divide_gradient()
      UniformSplit(pairwise=True)
    """
    return rules.UniformSplit(pairwise=True)


def stop_gradient() -> Rule:
    """`rules.Detach`.

    Examples:
      >>> from jaxlrp.compat import lxt
      >>> lxt.stop_gradient()
      Detach()
    """
    return rules.Detach()


def IdentityRule() -> Rule:  # noqa: N802
    """`rules.Pass`.

    Examples:
      >>> from jaxlrp.compat import lxt
      >>> lxt.IdentityRule()
      Pass()
    """
    return rules.Pass()


def StopRelevanceRule() -> Rule:  # noqa: N802
    """`rules.Detach`.

    Examples:
      >>> from jaxlrp.compat import lxt
      >>> lxt.StopRelevanceRule()
      Detach()
    """
    return rules.Detach()


def EpsilonRule(epsilon: Any = 1e-8) -> Rule:  # noqa: N802
    """`rules.Epsilon`, its stabiliser without a sign: `s(z) = z + epsilon`.

    Args:
      epsilon: the stabiliser, not negative.

    Examples:
      >>> from jaxlrp.compat import lxt
      >>> lxt.EpsilonRule()
      Epsilon(epsilon=1e-08, stabiliser='plain')
    """
    return rules.Epsilon(epsilon, **_PLAIN)


def UniformRule() -> Rule:  # noqa: N802
    """`rules.UniformSplit`, by each multiplication.

    Examples:
      >>> from jaxlrp.compat import lxt
      >>> lxt.UniformRule()
      UniformSplit(pairwise=True)
    """
    return rules.UniformSplit(pairwise=True)


def UniformEpsilonRule(epsilon: Any = 1e-6) -> Rule:  # noqa: N802
    """Epsilon, then half to each: `R_a = a (da y)^T R / (2 (y + epsilon))`.

    Args:
      epsilon: the stabiliser, not negative.

    Examples:
      >>> from jaxlrp.compat import lxt
      >>> lxt.UniformEpsilonRule()
      UniformSplit(epsilon=2e-06, stabiliser='plain')
    """
    return rules.UniformSplit(epsilon=2 * epsilon, **_PLAIN)


def TaylorDecompositionRule(ref: Any = None) -> Rule:  # noqa: N802
    """`rules.Taylor` at a root.

    Args:
      ref: the root, an array that broadcasts to the input; None is zero.

    Examples:
      >>> from jaxlrp.compat import lxt
      >>> lxt.TaylorDecompositionRule()
      Taylor()
    """
    return rules.Taylor(ref)


def AttnLRP() -> Composite:  # noqa: N802
    """`composites.AttnLRP` with LXT's activations, products halved one by one.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import lxt
      >>> lxt.AttnLRP().rule(Place("dense"))
      LRP0()
    """
    return (
        composites.AttnLRP()
        .on("activation", identity_rule_implicit())
        .on("bilinear", divide_gradient())
        .on("product", divide_gradient())
    )


def CPLRP(*, hold_gates: bool = False) -> Composite:  # noqa: N802
    """`composites.CPLRP` with LXT's activations.

    Args:
      hold_gates: the activations are gates and constants: LLaMA, Qwen, Gemma.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import lxt
      >>> lxt.CPLRP().rule(Place("dense"))
      LRP0()
    """
    if hold_gates:
        return composites.CPLRP(hold_gates=True)
    return composites.CPLRP().on("activation", identity_rule_implicit())


def CPLRPGamma(  # noqa: N802
    conv_gamma: Any = 0.25, lin_gamma: Any = 0.05, scopes: Sequence[str] = ()
) -> Composite:
    """`composites.CPLRPGamma` with LXT's activations.

    Args:
      conv_gamma: of the patch embedding.
      lin_gamma: of dense layers.
      scopes: globs of the named scopes of the dense layers that get it; all if none.
        LXT reaches `nn.Linear` alone: in torchvision's ViT the two layers of each MLP
        and the head, not the attention's projections.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import lxt
      >>> lxt.CPLRPGamma().rule(Place("dense"))
      GeneralizedGamma(gamma=0.05)
    """
    gamma = rules.GeneralizedGamma(lin_gamma)
    if not scopes:
        preset = composites.CPLRPGamma(conv_gamma, lin_gamma)
        return preset.on("activation", identity_rule_implicit())
    composite = CPLRP().named("CPLRPGamma")
    composite = composite.on("convolution", rules.GeneralizedGamma(conv_gamma))
    for scope in scopes:
        composite = composite.on("dense", gamma, scope=scope)
    return composite


def AttnLRPExplicit(norms: str | None = None) -> Composite:  # noqa: N802
    """AttnLRP as `lxt.explicit` has it, stabilised everywhere and without a sign.

    Layers, sums and bilinear products by 1e-8, shifts by 1e-6, as the result of a layer
    norm is.

    Args:
      norms: a glob for the named scopes of layer norms. Inside them the difference to
        the mean is not stabilised, and outside a shift is by 1e-8, to be exactly LXT's.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import lxt
      >>> lxt.AttnLRPExplicit().rule(Place("dense"))
      Epsilon(epsilon=1e-08, stabiliser='plain')
    """
    composite = (
        Composite("AttnLRPExplicit")
        .on("layer", EpsilonRule())
        .on("sum", EpsilonRule())
        .on("shift", EpsilonRule(1e-6))
        .on("bilinear", rules.UniformSplit(epsilon=1e-8, **_PLAIN))
    )
    if norms is None:
        return composite
    return (
        composite.on("shift", EpsilonRule())
        .on("shift", EpsilonRule(1e-6), scope=norms)
        .on("sum", rules.LRP0(), scope=norms)
    )


def CPLRPExplicit(*, hold_gates: bool = True) -> Composite:  # noqa: N802
    """CP-LRP as `lxt.explicit` has it: `AttnLRPExplicit`, attention weights constant.

    Args:
      hold_gates: the activations are gates and constants.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import lxt
      >>> lxt.CPLRPExplicit().rule(Place("dense"))
      Epsilon(epsilon=1e-08, stabiliser='plain')
    """
    composite = (
        AttnLRPExplicit()
        .named("CPLRPExplicit")
        .on("softmax", rules.Detach())
        .on("bilinear", rules.Taylor())
        .on("product", rules.Taylor())
    )
    return composite.on("activation", rules.Detach()) if hold_gates else composite


_IDENTITY = '.on("activation", rules.Pass(1e-10))'

TABLE: tuple[Row, ...] = (
    Row(
        "monkey_patch(module) with attnLRP",
        f"composites.AttnLRP(){_IDENTITY}"
        '.on("bilinear", rules.UniformSplit(pairwise=True))'
        '.on("product", rules.UniformSplit(pairwise=True))',
        "nothing is patched; any architecture",
        "lxt.AttnLRP()",
    ),
    Row(
        "monkey_patch(module, cp_LRP): BERT, ViT, GPT-2",
        f"composites.CPLRP(){_IDENTITY}",
        "",
        "lxt.CPLRP()",
    ),
    Row(
        "monkey_patch(module, cp_LRP): LLaMA, Qwen, Gemma",
        "composites.CPLRP(hold_gates=True)",
        "",
        "lxt.CPLRP(hold_gates=True)",
    ),
    Row(
        "monkey_patch_zennit with gamma for the ViT",
        f"composites.CPLRPGamma(0.25, 0.05){_IDENTITY}",
        "all dense layers, unless `scopes` names some",
        "lxt.CPLRPGamma()",
    ),
    Row(
        "identity_rule_implicit",
        "rules.Pass(1e-10)",
        "`rules.Pass()` needs no epsilon",
        "lxt.identity_rule_implicit()",
    ),
    Row(
        "divide_gradient",
        "rules.UniformSplit(pairwise=True)",
        "without `pairwise` a product of `n` factors gives `1 / n` to each",
        "lxt.divide_gradient()",
    ),
    Row("stop_gradient", "rules.Detach()", "", "lxt.stop_gradient()"),
    Row("explicit: IdentityRule", "rules.Pass()", "", "lxt.IdentityRule()"),
    Row("explicit: StopRelevanceRule", "rules.Detach()", "", "lxt.StopRelevanceRule()"),
    Row(
        "explicit: EpsilonRule",
        'rules.Epsilon(1e-8, stabiliser="plain")',
        "divides by zero at `z = -epsilon`, as there; the default form does not",
        "lxt.EpsilonRule()",
    ),
    Row(
        "explicit: UniformRule",
        "rules.UniformSplit(pairwise=True)",
        "",
        "lxt.UniformRule()",
    ),
    Row(
        "explicit: UniformEpsilonRule",
        'rules.UniformSplit(epsilon=2e-6, stabiliser="plain")',
        "",
        "lxt.UniformEpsilonRule()",
    ),
    Row(
        "explicit: TaylorDecompositionRule(ref)",
        "rules.Taylor(0.5)",
        "`ref` is the root; None is gradient times input",
        "lxt.TaylorDecompositionRule(0.5)",
    ),
    Row(
        "explicit: softmax",
        "rules.Taylor()",
        "over the softmax's own axis, not always the last",
    ),
    Row(
        "explicit: layer_norm, rms_norm_identity",
        "rules.Detach()",
        "the divisor is a constant; `rules.Pass()` is the identity over the whole norm",
    ),
    Row(
        "explicit: attnlrp",
        'composites.Composite("AttnLRPExplicit")'
        '.on("layer", rules.Epsilon(1e-8, stabiliser="plain"))'
        '.on("sum", rules.Epsilon(1e-8, stabiliser="plain"))'
        '.on("shift", rules.Epsilon(1e-6, stabiliser="plain"))'
        '.on("bilinear", rules.UniformSplit(epsilon=1e-8, stabiliser="plain"))',
        "name the scopes of layer norms (`norms`) to have it exactly",
        "lxt.AttnLRPExplicit()",
    ),
    Row(
        "explicit: cp_lrp",
        'lxt.AttnLRPExplicit().on("softmax", rules.Detach())'
        '.on("bilinear", rules.Taylor()).on("product", rules.Taylor())'
        '.on("activation", rules.Detach())',
        "",
        "lxt.CPLRPExplicit()",
    ),
    Row(
        "(x * x.grad).sum(-1)",
        "jaxlrp.lrp(f, composites.AttnLRP())",
        "the relevance itself; sum over the channels of an embedding",
    ),
)
"""LXT's names, ours, and what differs."""
