"""captum's LRP, with its names and defaults.

    >>> import jaxlrp
    >>> from jaxlrp.compat import captum
    >>> print(captum.LRP())
    LRP
      role        rule                      documented in
      layer       Epsilon(epsilon=1e-09)    jaxlrp.rules.Epsilon
      batch_norm  Epsilon(epsilon=1e-09)    jaxlrp.rules.Epsilon
      average     Norm(epsilon=1e-09)       jaxlrp.rules.Norm
      sum         Norm(epsilon=1e-09)       jaxlrp.rules.Norm
    >>> composite = captum.LRP().on("convolution", captum.GammaRule())

captum sets `module.rule`; here a line of the composite does. Max pooling takes the
winner, with a stabiliser of 1e-9 in captum.

Source: captum 0.9.0, `captum.attr.LRP`.
"""

from __future__ import annotations

from typing import Any

from jaxlrp import rules
from jaxlrp.compat._rows import Row
from jaxlrp.composites import Composite
from jaxlrp.rules import Rule

__all__ = [
    "LRP",
    "STABILITY_FACTOR",
    "TABLE",
    "Alpha1_Beta0_Rule",
    "EpsilonRule",
    "GammaRule",
    "IdentityRule",
]

STABILITY_FACTOR = 1e-9
"""The stabiliser of every rule."""


def EpsilonRule(epsilon: Any = STABILITY_FACTOR) -> Rule:  # noqa: N802
    """`rules.Epsilon(1e-9)`.

    Args:
      epsilon: the stabiliser, not negative.

    Examples:
      >>> from jaxlrp.compat import captum
      >>> captum.EpsilonRule()
      Epsilon(epsilon=1e-09)
    """
    return rules.Epsilon(epsilon)


def GammaRule(gamma: Any = 0.25, set_bias_to_zero: bool = False) -> Rule:  # noqa: N802
    """The plain gamma rule, `rules.Gamma`, its bias unchanged.

    Args:
      gamma: how much more what counts more does, not negative.
      set_bias_to_zero: whether the bias plays no part.

    Examples:
      >>> from jaxlrp.compat import captum
      >>> captum.GammaRule()
      Gamma(gamma=0.25, epsilon=1e-09, bias='whole')
    """
    bias = "ignore" if set_bias_to_zero else "whole"
    return rules.Gamma(gamma, epsilon=STABILITY_FACTOR, bias=bias)


def Alpha1_Beta0_Rule(set_bias_to_zero: bool = False) -> Rule:  # noqa: N802
    """`rules.ZPlus(split=False)`: meant for inputs that are not negative.

    Where inputs are negative the shares are without bound, in captum as here;
    `rules.ZPlus()` is the rule of the literature.

    Args:
      set_bias_to_zero: whether the bias plays no part.

    Examples:
      >>> from jaxlrp.compat import captum
      >>> captum.Alpha1_Beta0_Rule()
      ZPlus(epsilon=1e-09, bias='whole', split=False)
    """
    bias = "ignore" if set_bias_to_zero else "whole"
    return rules.ZPlus(epsilon=STABILITY_FACTOR, split=False, bias=bias)


def IdentityRule() -> Rule:  # noqa: N802
    """`rules.Pass`: on layers as well, whose inputs and results are of one shape.

    Examples:
      >>> from jaxlrp.compat import captum
      >>> captum.IdentityRule()
      Pass()
    """
    return rules.Pass()


def LRP(rule: Rule | None = None) -> Composite:  # noqa: N802
    """captum's default rule of each layer type: epsilon 1e-9.

    Args:
      rule: of dense layers and convolutions, instead of epsilon.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import captum
      >>> captum.LRP().rule(Place("dense"))
      Epsilon(epsilon=1e-09)
    """
    norm = rules.Norm(STABILITY_FACTOR)
    return (
        Composite("LRP")
        .on("layer", EpsilonRule() if rule is None else rule)
        .on("batch_norm", EpsilonRule())
        .on("average", norm)
        .on("sum", norm)
    )


_SIGNED = "unbounded for negative inputs; `rules.ZPlus()` splits by their sign"

TABLE: tuple[Row, ...] = (
    Row("EpsilonRule()", "rules.Epsilon(1e-9)", "", "captum.EpsilonRule()"),
    Row(
        "GammaRule()",
        'rules.Gamma(0.25, epsilon=1e-9, bias="whole")',
        "",
        "captum.GammaRule()",
    ),
    Row(
        "GammaRule(set_bias_to_zero=True)",
        'rules.Gamma(0.25, epsilon=1e-9, bias="ignore")',
        "",
        "captum.GammaRule(set_bias_to_zero=True)",
    ),
    Row(
        "Alpha1_Beta0_Rule()",
        'rules.ZPlus(epsilon=1e-9, split=False, bias="whole")',
        _SIGNED,
        "captum.Alpha1_Beta0_Rule()",
    ),
    Row(
        "Alpha1_Beta0_Rule(set_bias_to_zero=True)",
        'rules.ZPlus(epsilon=1e-9, split=False, bias="ignore")',
        _SIGNED,
        "captum.Alpha1_Beta0_Rule(set_bias_to_zero=True)",
    ),
    Row(
        "IdentityRule()",
        "rules.Pass()",
        "on a layer that changes the shape an error says so",
        "captum.IdentityRule()",
    ),
    Row(
        "LRP(model)",
        'composites.Composite("LRP").on("layer", rules.Epsilon(1e-9))'
        '.on("batch_norm", rules.Epsilon(1e-9)).on("average", rules.Norm(1e-9))'
        '.on("sum", rules.Norm(1e-9))',
        "max pooling without a stabiliser; layers of any type; sums however written",
        "captum.LRP()",
    ),
    Row(
        "model.conv.rule = GammaRule()",
        'composites.Epsilon(1e-9).on("layer", rules.Gamma(0.25), scope="*conv*")',
        "no module is changed",
    ),
    Row(
        "LRP(model).attribute(x, target=3)",
        "jaxlrp.lrp(f, composites.Epsilon(1e-9), target=3)",
        "",
    ),
    Row(
        "attribute(..., return_convergence_delta=True)",
        "jaxlrp.audit(f, composites.Epsilon(1e-9))",
        "where relevance is lost, step by step",
    ),
    Row(
        "LayerLRP(model, layer)",
        'jaxlrp.lrp(f, capture="layer")',
        "any value that has a name",
    ),
    Row(
        'visualize_image_attr(attr, image, "heat_map", sign="all")',
        "jaxlrp.plot.images(relevance, percentile=98)",
        "a batch is a grid; red and blue for green and red; absolute values, or one "
        "sign alone, are those of the array that is given",
    ),
    Row(
        'visualize_image_attr(..., "blended_heat_map")',
        'jaxlrp.plot.images(relevance, x, overlay="photograph", beside=False)',
        "the map is seen in proportion to its size, as in `alpha_scaling`",
    ),
    Row(
        'visualize_image_attr_multiple(..., ["original_image", "heat_map"])',
        "jaxlrp.plot.images(relevance, x)",
        "several methods are a mapping of their names to their maps",
    ),
    Row(
        "visualize_image_attr(..., outlier_perc=2, show_colorbar=False)",
        "jaxlrp.plot.images(relevance, percentile=98, bar=None)",
        "the percentile is of single pixels, not of their sum",
    ),
    Row(
        "visualize_timeseries_attr(attr, data)",
        "jaxlrp.plot.series(relevance[0, :, :, 0], x[0, :, :, 0])",
        "time comes first",
    ),
    Row(
        "visualize_text([VisualizationDataRecord(...)])",
        'jaxlrp.text.heatmap(["a", "cat"], [0.1, 0.9])',
        "`jaxlrp.plot.tokens` draws the same as a figure",
    ),
)
"""captum's names, ours, and what differs."""
