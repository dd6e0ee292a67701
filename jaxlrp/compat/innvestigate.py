"""iNNvestigate's rules and analyzers, with its names and defaults.

    >>> from jaxlrp import rules
    >>> from jaxlrp.compat import innvestigate
    >>> zeros = {"epsilon": 1e-7, "stabiliser": "zeros"}
    >>> rule = innvestigate.Alpha1Beta0Rule()
    >>> rule == rules.AlphaBeta(1.0, 0.0, bias="whole", **zeros)
    True

Its conventions: exact zeros alone are stabilised, by 1e-7, and the alpha-beta rules
have the whole bias, of both signs, in the denominator of either part. Batch norms are
merged here; iNNvestigate has its own rule for them.

Source: iNNvestigate 2.1.2; Alber et al. 2019, "iNNvestigate neural networks!".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxlrp import composites, rules
from jaxlrp.compat._rows import Row
from jaxlrp.composites import Composite
from jaxlrp.rules import Rule

__all__ = [
    "LRPZ",
    "TABLE",
    "Alpha1Beta0IgnoreBiasRule",
    "Alpha1Beta0Rule",
    "Alpha2Beta1IgnoreBiasRule",
    "Alpha2Beta1Rule",
    "AlphaBetaIgnoreBiasRule",
    "AlphaBetaRule",
    "BoundedDeepTaylor",
    "BoundedRule",
    "Deconvnet",
    "DeepTaylor",
    "EpsilonIgnoreBiasRule",
    "EpsilonRule",
    "FlatRule",
    "GuidedBackprop",
    "LRPAlpha1Beta0",
    "LRPAlpha1Beta0IgnoreBias",
    "LRPAlpha2Beta1",
    "LRPAlpha2Beta1IgnoreBias",
    "LRPAlphaBeta",
    "LRPEpsilon",
    "LRPEpsilonIgnoreBias",
    "LRPFlat",
    "LRPSequentialPresetA",
    "LRPSequentialPresetAFlat",
    "LRPSequentialPresetB",
    "LRPSequentialPresetBFlat",
    "LRPSequentialPresetBFlatUntilIdx",
    "LRPWSquare",
    "LRPZIgnoreBias",
    "LRPZPlus",
    "LRPZPlusFast",
    "WSquareRule",
    "ZIgnoreBiasRule",
    "ZPlusFastRule",
    "ZPlusRule",
    "ZRule",
    "input_layer_rule",
]

_ZEROS: dict[str, Any] = {"epsilon": 1e-7, "stabiliser": "zeros"}


def ZRule() -> Rule:  # noqa: N802
    """`R_j = sum_i x_j w_ij R_i / z_i`; zeros are 1e-7.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.ZRule()
      Epsilon(epsilon=1e-07, stabiliser='zeros')
    """
    return rules.Epsilon(**_ZEROS)


def ZIgnoreBiasRule() -> Rule:  # noqa: N802
    """`ZRule` of the layer without its bias.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.ZIgnoreBiasRule()
      Epsilon(epsilon=1e-07, stabiliser='zeros', bias='ignore')
    """
    return rules.Epsilon(**_ZEROS, bias="ignore")


def EpsilonRule(epsilon: Any = 1e-7) -> Rule:  # noqa: N802
    """`rules.Epsilon(1e-7)`.

    Args:
      epsilon: the stabiliser, not negative.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.EpsilonRule()
      Epsilon(epsilon=1e-07)
    """
    return rules.Epsilon(epsilon)


def EpsilonIgnoreBiasRule(epsilon: Any = 1e-7) -> Rule:  # noqa: N802
    """`EpsilonRule` of the layer without its bias.

    Args:
      epsilon: the stabiliser, not negative.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.EpsilonIgnoreBiasRule()
      Epsilon(epsilon=1e-07, bias='ignore')
    """
    return rules.Epsilon(epsilon, bias="ignore")


def WSquareRule() -> Rule:  # noqa: N802
    """`rules.WSquare` without the bias.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.WSquareRule()
      WSquare(epsilon=1e-07, stabiliser='zeros', bias='ignore')
    """
    return rules.WSquare(**_ZEROS, bias="ignore")


def FlatRule() -> Rule:  # noqa: N802
    """`rules.Flat`.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.FlatRule()
      Flat(epsilon=1e-07, stabiliser='zeros')
    """
    return rules.Flat(**_ZEROS)


def AlphaBetaRule(alpha: Any, beta: Any, bias: bool = True) -> Rule:  # noqa: N802
    """`rules.AlphaBeta`, with the whole bias in both denominators or none.

    Args:
      alpha: the factor of the positive part, `1 + beta`.
      beta: the factor of the negative part.
      bias: whether the bias is in both denominators.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.AlphaBetaRule(2.0, 1.0)
      AlphaBeta(alpha=2.0, beta=1.0, epsilon=1e-07, stabiliser='zeros', bias='whole')
    """
    return rules.AlphaBeta(alpha, beta, **_ZEROS, bias="whole" if bias else "ignore")


def AlphaBetaIgnoreBiasRule(alpha: Any, beta: Any) -> Rule:  # noqa: N802
    """`AlphaBetaRule` of the layer without its bias.

    Args:
      alpha: the factor of the positive part, `1 + beta`.
      beta: the factor of the negative part.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.AlphaBetaIgnoreBiasRule(2.0, 1.0)
      AlphaBeta(alpha=2.0, beta=1.0, epsilon=1e-07, stabiliser='zeros', bias='ignore')
    """
    return AlphaBetaRule(alpha, beta, bias=False)


def Alpha2Beta1Rule() -> Rule:  # noqa: N802
    """`AlphaBetaRule(2, 1)`.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.Alpha2Beta1Rule()
      AlphaBeta(alpha=2.0, beta=1.0, epsilon=1e-07, stabiliser='zeros', bias='whole')
    """
    return AlphaBetaRule(2.0, 1.0)


def Alpha2Beta1IgnoreBiasRule() -> Rule:  # noqa: N802
    """`AlphaBetaRule(2, 1)` of the layer without its bias.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.Alpha2Beta1IgnoreBiasRule()
      AlphaBeta(alpha=2.0, beta=1.0, epsilon=1e-07, stabiliser='zeros', bias='ignore')
    """
    return AlphaBetaRule(2.0, 1.0, bias=False)


def Alpha1Beta0Rule() -> Rule:  # noqa: N802
    """`AlphaBetaRule(1, 0)`.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.Alpha1Beta0Rule()
      AlphaBeta(alpha=1.0, beta=0.0, epsilon=1e-07, stabiliser='zeros', bias='whole')
    """
    return AlphaBetaRule(1.0, 0.0)


def Alpha1Beta0IgnoreBiasRule() -> Rule:  # noqa: N802
    """`AlphaBetaRule(1, 0)` of the layer without its bias.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.Alpha1Beta0IgnoreBiasRule()
      AlphaBeta(alpha=1.0, beta=0.0, epsilon=1e-07, stabiliser='zeros', bias='ignore')
    """
    return AlphaBetaRule(1.0, 0.0, bias=False)


def BoundedRule(low: Any = -1.0, high: Any = 1.0) -> Rule:  # noqa: N802
    """`rules.ZBox`.

    Args:
      low: the smallest value of the input, a number or an array that broadcasts to it.
      high: the largest.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.BoundedRule()
      ZBox(low=-1.0, high=1.0, epsilon=1e-07, stabiliser='zeros')
    """
    return rules.ZBox(low, high, **_ZEROS)


def ZPlusRule() -> Rule:  # noqa: N802
    """`rules.ZPlus` without the bias.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.ZPlusRule()
      ZPlus(epsilon=1e-07, stabiliser='zeros', bias='ignore')
    """
    return rules.ZPlus(**_ZEROS, bias="ignore")


def ZPlusFastRule() -> Rule:  # noqa: N802
    """`ZPlusRule` for inputs that are not negative.

    Examples:
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.ZPlusFastRule()
      ZPlus(epsilon=1e-07, stabiliser='zeros', bias='ignore', split=False)
    """
    return rules.ZPlus(**_ZEROS, split=False, bias="ignore")


def _analyzer(name: str, rule: Rule) -> Composite:
    norm = rules.Norm(**_ZEROS)
    return Composite(name).on("layer", rule).on("average", norm).on("sum", norm)


def LRPZ() -> Composite:  # noqa: N802
    """`lrp.z`.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPZ().rule(Place("dense"))
      Epsilon(epsilon=1e-07, stabiliser='zeros')
    """
    return _analyzer("LRPZ", ZRule())


def LRPZIgnoreBias() -> Composite:  # noqa: N802
    """`lrp.z` without biases.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPZIgnoreBias().rule(Place("dense"))
      Epsilon(epsilon=1e-07, stabiliser='zeros', bias='ignore')
    """
    return _analyzer("LRPZIgnoreBias", ZIgnoreBiasRule())


def LRPEpsilon(epsilon: Any = 1e-7) -> Composite:  # noqa: N802
    """`lrp.epsilon`.

    Args:
      epsilon: the stabiliser, not negative.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPEpsilon().rule(Place("dense"))
      Epsilon(epsilon=1e-07)
    """
    return _analyzer("LRPEpsilon", EpsilonRule(epsilon))


def LRPEpsilonIgnoreBias(epsilon: Any = 1e-7) -> Composite:  # noqa: N802
    """`lrp.epsilon` without biases.

    Args:
      epsilon: the stabiliser, not negative.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPEpsilonIgnoreBias().rule(Place("dense"))
      Epsilon(epsilon=1e-07, bias='ignore')
    """
    return _analyzer("LRPEpsilonIgnoreBias", EpsilonIgnoreBiasRule(epsilon))


def LRPWSquare() -> Composite:  # noqa: N802
    """`lrp.w_square`.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPWSquare().rule(Place("dense"))
      WSquare(epsilon=1e-07, stabiliser='zeros', bias='ignore')
    """
    return _analyzer("LRPWSquare", WSquareRule())


def LRPFlat() -> Composite:  # noqa: N802
    """`lrp.flat`.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPFlat().rule(Place("dense"))
      Flat(epsilon=1e-07, stabiliser='zeros')
    """
    return _analyzer("LRPFlat", FlatRule())


def LRPAlphaBeta(alpha: Any, beta: Any, bias: bool = True) -> Composite:  # noqa: N802
    """`lrp.alpha_beta`.

    Args:
      alpha: the factor of the positive part, `1 + beta`.
      beta: the factor of the negative part.
      bias: whether the bias is in both denominators.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPAlphaBeta(2.0, 1.0).rule(Place("dense"))
      AlphaBeta(alpha=2.0, beta=1.0, epsilon=1e-07, stabiliser='zeros', bias='whole')
    """
    return _analyzer("LRPAlphaBeta", AlphaBetaRule(alpha, beta, bias))


def LRPAlpha2Beta1() -> Composite:  # noqa: N802
    """`lrp.alpha_2_beta_1`.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPAlpha2Beta1().rule(Place("dense"))
      AlphaBeta(alpha=2.0, beta=1.0, epsilon=1e-07, stabiliser='zeros', bias='whole')
    """
    return _analyzer("LRPAlpha2Beta1", Alpha2Beta1Rule())


def LRPAlpha1Beta0() -> Composite:  # noqa: N802
    """`lrp.alpha_1_beta_0`.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPAlpha1Beta0().rule(Place("dense"))
      AlphaBeta(alpha=1.0, beta=0.0, epsilon=1e-07, stabiliser='zeros', bias='whole')
    """
    return _analyzer("LRPAlpha1Beta0", Alpha1Beta0Rule())


def LRPAlpha2Beta1IgnoreBias() -> Composite:  # noqa: N802
    """`lrp.alpha_2_beta_1` without biases.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPAlpha2Beta1IgnoreBias().rule(Place("dense"))
      AlphaBeta(alpha=2.0, beta=1.0, epsilon=1e-07, stabiliser='zeros', bias='ignore')
    """
    return _analyzer("LRPAlpha2Beta1IgnoreBias", Alpha2Beta1IgnoreBiasRule())


def LRPAlpha1Beta0IgnoreBias() -> Composite:  # noqa: N802
    """`lrp.alpha_1_beta_0` without biases.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPAlpha1Beta0IgnoreBias().rule(Place("dense"))
      AlphaBeta(alpha=1.0, beta=0.0, epsilon=1e-07, stabiliser='zeros', bias='ignore')
    """
    return _analyzer("LRPAlpha1Beta0IgnoreBias", Alpha1Beta0IgnoreBiasRule())


def LRPZPlus() -> Composite:  # noqa: N802
    """`lrp.z_plus`.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPZPlus().rule(Place("dense"))
      ZPlus(epsilon=1e-07, stabiliser='zeros', bias='ignore')
    """
    return _analyzer("LRPZPlus", ZPlusRule())


def LRPZPlusFast() -> Composite:  # noqa: N802
    """`lrp.z_plus_fast`.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPZPlusFast().rule(Place("dense"))
      ZPlus(epsilon=1e-07, stabiliser='zeros', bias='ignore', split=False)
    """
    return _analyzer("LRPZPlusFast", ZPlusFastRule())


def LRPSequentialPresetA(epsilon: Any = 0.1) -> Composite:  # noqa: N802
    """`lrp.sequential_preset_a`.

    Args:
      epsilon: the stabiliser, not negative.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPSequentialPresetA().rule(Place("dense"))
      Epsilon(epsilon=0.1)
    """
    return composites.SequentialPresetA(epsilon)


def LRPSequentialPresetB(epsilon: Any = 0.1) -> Composite:  # noqa: N802
    """`lrp.sequential_preset_b`.

    Args:
      epsilon: the stabiliser, not negative.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPSequentialPresetB().rule(Place("dense"))
      Epsilon(epsilon=0.1)
    """
    return composites.SequentialPresetB(epsilon)


def LRPSequentialPresetAFlat(epsilon: Any = 0.1) -> Composite:  # noqa: N802
    """`lrp.sequential_preset_a_flat`.

    Args:
      epsilon: the stabiliser, not negative.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPSequentialPresetAFlat().rule(Place("dense"))
      Flat(epsilon=1e-07, stabiliser='zeros')
    """
    return composites.SequentialPresetAFlat(epsilon)


def LRPSequentialPresetBFlat(epsilon: Any = 0.1) -> Composite:  # noqa: N802
    """`lrp.sequential_preset_b_flat`.

    Args:
      epsilon: the stabiliser, not negative.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPSequentialPresetBFlat().rule(Place("dense"))
      Flat(epsilon=1e-07, stabiliser='zeros')
    """
    return composites.SequentialPresetBFlat(epsilon)


def LRPSequentialPresetBFlatUntilIdx(idx: int, epsilon: Any = 0.1) -> Composite:  # noqa: N802
    """`lrp.sequential_preset_b_flat_until_idx`: layers 0 to `idx`, with weights.

    Args:
      idx: how many layers from the input on get the flat rule.
      epsilon: the stabiliser, not negative.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.LRPSequentialPresetBFlatUntilIdx(3).rule(Place("dense"))
      Flat(epsilon=1e-07, stabiliser='zeros')
    """
    return composites.SequentialPresetBFlatUntil(idx + 1, epsilon)


def DeepTaylor() -> Composite:  # noqa: N802
    """`deep_taylor`: z-plus without the bias on every layer, the last one included.

    Its rule for layers without an activation, w-square, never comes into play: its test
    for an activation is true of every Keras layer that could have one.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.DeepTaylor().rule(Place("dense"))
      ZPlus(epsilon=1e-06, bias='ignore')
    """
    return composites.DeepTaylor()


def BoundedDeepTaylor(low: Any = -1.0, high: Any = 1.0) -> Composite:  # noqa: N802
    """`deep_taylor.bounded`.

    Args:
      low: the smallest value of the input, a number or an array that broadcasts to it.
      high: the largest.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.BoundedDeepTaylor().rule(Place("dense"))
      ZPlus(epsilon=1e-06, bias='ignore')
    """
    return composites.DeepTaylorBounded(low, high)


_RULES: dict[str, Callable[[], Rule]] = {
    "Z": ZRule,
    "ZIgnoreBias": ZIgnoreBiasRule,
    "Epsilon": EpsilonRule,
    "EpsilonIgnoreBias": EpsilonIgnoreBiasRule,
    "WSquare": WSquareRule,
    "Flat": FlatRule,
    "Alpha2Beta1": Alpha2Beta1Rule,
    "Alpha2Beta1IgnoreBias": Alpha2Beta1IgnoreBiasRule,
    "Alpha1Beta0": Alpha1Beta0Rule,
    "Alpha1Beta0IgnoreBias": Alpha1Beta0IgnoreBiasRule,
    "ZPlus": ZPlusRule,
    "ZPlusFast": ZPlusFastRule,
}


def input_layer_rule(
    composite: Composite, rule: str | tuple[Any, Any] | Rule
) -> Composite:
    """The argument `input_layer_rule` of an analyzer.

    Args:
      composite: the analyzer.
      rule: the name of a rule, as `"Flat"`; the smallest and the largest value of the
        input, for `BoundedRule`; or a rule.

    Raises:
      ValueError: for an unknown name.

    Examples:
      >>> from jaxlrp import composites
      >>> from jaxlrp.compat import innvestigate
      >>> boxed = innvestigate.input_layer_rule(innvestigate.LRPZ(), (-1.0, 1.0))
      >>> first = boxed.rule(composites.Place("dense", first=True))
      >>> first == innvestigate.BoundedRule(-1.0, 1.0)
      True
    """
    if isinstance(rule, str):
        if rule not in _RULES:
            names = ", ".join(map(repr, _RULES))
            raise ValueError(f"rule: got {rule!r}, expected one of {names}")
        rule = _RULES[rule]()
    elif isinstance(rule, tuple):
        rule = BoundedRule(*rule)
    composite = composite.on("shift", rules.Pass(), first=True)
    return composite.on("layer", rule, first=True)


def GuidedBackprop() -> Composite:  # noqa: N802
    """`guided_backprop`: the seed is the output's value, in iNNvestigate as here.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.GuidedBackprop().rule(Place("activation"))
      Guided()
    """
    return composites.GuidedBackprop()


def Deconvnet() -> Composite:  # noqa: N802
    """`deconvnet`: the seed is the output's value, in iNNvestigate as here.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import innvestigate
      >>> innvestigate.Deconvnet().rule(Place("activation"))
      Deconv()
    """
    return composites.DeconvNet()


_Z = 'epsilon=1e-7, stabiliser="zeros"'
_NORM = f'.on("average", rules.Norm({_Z})).on("sum", rules.Norm({_Z}))'
_FIRST = '.on("shift", rules.Pass(), first=True).on("layer", '
_WHOLE = 'the whole bias is in both denominators; `bias="absorb"` is the paper\'s'


def _analyzer_row(name: str, rule: str, function: str) -> Row:
    ours = f'composites.Composite("{function}").on("layer", {rule}){_NORM}'
    return Row(name, ours, "", f"innvestigate.{function}()")


TABLE: tuple[Row, ...] = (
    Row("ZRule", f"rules.Epsilon({_Z})", "", "innvestigate.ZRule()"),
    Row(
        "ZIgnoreBiasRule",
        f'rules.Epsilon({_Z}, bias="ignore")',
        "",
        "innvestigate.ZIgnoreBiasRule()",
    ),
    Row("EpsilonRule", "rules.Epsilon(1e-7)", "", "innvestigate.EpsilonRule()"),
    Row(
        "EpsilonIgnoreBiasRule",
        'rules.Epsilon(1e-7, bias="ignore")',
        "",
        "innvestigate.EpsilonIgnoreBiasRule()",
    ),
    Row(
        "WSquareRule",
        f'rules.WSquare({_Z}, bias="ignore")',
        "",
        "innvestigate.WSquareRule()",
    ),
    Row("FlatRule", f"rules.Flat({_Z})", "", "innvestigate.FlatRule()"),
    Row(
        "Alpha2Beta1Rule",
        f'rules.AlphaBeta(2.0, 1.0, {_Z}, bias="whole")',
        _WHOLE,
        "innvestigate.Alpha2Beta1Rule()",
    ),
    Row(
        "Alpha2Beta1IgnoreBiasRule",
        f'rules.AlphaBeta(2.0, 1.0, {_Z}, bias="ignore")',
        "",
        "innvestigate.Alpha2Beta1IgnoreBiasRule()",
    ),
    Row(
        "Alpha1Beta0Rule",
        f'rules.AlphaBeta(1.0, 0.0, {_Z}, bias="whole")',
        _WHOLE,
        "innvestigate.Alpha1Beta0Rule()",
    ),
    Row(
        "Alpha1Beta0IgnoreBiasRule",
        f'rules.AlphaBeta(1.0, 0.0, {_Z}, bias="ignore")',
        "",
        "innvestigate.Alpha1Beta0IgnoreBiasRule()",
    ),
    Row(
        "BoundedRule(-1, 1)",
        f"rules.ZBox(-1.0, 1.0, {_Z})",
        "",
        "innvestigate.BoundedRule()",
    ),
    Row(
        "ZPlusRule",
        f'rules.ZPlus({_Z}, bias="ignore")',
        "",
        "innvestigate.ZPlusRule()",
    ),
    Row(
        "ZPlusFastRule",
        f'rules.ZPlus({_Z}, split=False, bias="ignore")',
        "",
        "innvestigate.ZPlusFastRule()",
    ),
    Row(
        "AlphaBetaXRule, AlphaBetaX2m100Rule",
        "rules.Merge()",
        "none here: one of its branches has the wrong coefficient; batch norms, which "
        "it is for, are merged",
    ),
    _analyzer_row('"lrp.z"', f"rules.Epsilon({_Z})", "LRPZ"),
    _analyzer_row('"lrp.epsilon"', "rules.Epsilon(1e-7)", "LRPEpsilon"),
    _analyzer_row(
        '"lrp.alpha_2_beta_1"',
        f'rules.AlphaBeta(2.0, 1.0, {_Z}, bias="whole")',
        "LRPAlpha2Beta1",
    ),
    _analyzer_row(
        '"lrp.alpha_1_beta_0"',
        f'rules.AlphaBeta(1.0, 0.0, {_Z}, bias="whole")',
        "LRPAlpha1Beta0",
    ),
    _analyzer_row(
        "LRPZIgnoreBias",
        f'rules.Epsilon({_Z}, bias="ignore")',
        "LRPZIgnoreBias",
    ),
    _analyzer_row(
        "LRPEpsilonIgnoreBias",
        'rules.Epsilon(1e-7, bias="ignore")',
        "LRPEpsilonIgnoreBias",
    ),
    _analyzer_row(
        '"lrp.w_square"', f'rules.WSquare({_Z}, bias="ignore")', "LRPWSquare"
    ),
    _analyzer_row('"lrp.flat"', f"rules.Flat({_Z})", "LRPFlat"),
    _analyzer_row(
        '"lrp.alpha_2_beta_1_IB"',
        f'rules.AlphaBeta(2.0, 1.0, {_Z}, bias="ignore")',
        "LRPAlpha2Beta1IgnoreBias",
    ),
    _analyzer_row(
        '"lrp.alpha_1_beta_0_IB"',
        f'rules.AlphaBeta(1.0, 0.0, {_Z}, bias="ignore")',
        "LRPAlpha1Beta0IgnoreBias",
    ),
    _analyzer_row('"lrp.z_plus"', f'rules.ZPlus({_Z}, bias="ignore")', "LRPZPlus"),
    _analyzer_row(
        '"lrp.z_plus_fast"',
        f'rules.ZPlus({_Z}, split=False, bias="ignore")',
        "LRPZPlusFast",
    ),
    Row(
        '"lrp.sequential_preset_a"',
        "composites.SequentialPresetA()",
        "",
        "innvestigate.LRPSequentialPresetA()",
    ),
    Row(
        '"lrp.sequential_preset_b"',
        "composites.SequentialPresetB()",
        "",
        "innvestigate.LRPSequentialPresetB()",
    ),
    Row(
        '"lrp.sequential_preset_a_flat"',
        "composites.SequentialPresetAFlat()",
        "",
        "innvestigate.LRPSequentialPresetAFlat()",
    ),
    Row(
        '"lrp.sequential_preset_b_flat"',
        "composites.SequentialPresetBFlat()",
        "",
        "innvestigate.LRPSequentialPresetBFlat()",
    ),
    Row(
        '"lrp.sequential_preset_b_flat_until_idx"',
        "composites.SequentialPresetBFlatUntil(5)",
        "`idx` is the last of these layers, `depth` the first that is not",
        "innvestigate.LRPSequentialPresetBFlatUntilIdx(4)",
    ),
    Row(
        '"deep_taylor"',
        "composites.DeepTaylor()",
        "stabilised by 1e-6, instead of exact zeros by 1e-7; explain `relu(f(x))` for "
        "the ReLU that is put after the output there; batch norms are merged, and "
        "passed there: the same where their scales are positive",
        "innvestigate.DeepTaylor()",
    ),
    Row(
        '"deep_taylor.bounded"',
        "composites.DeepTaylorBounded(-1.0, 1.0)",
        "as for `deep_taylor`",
        "innvestigate.BoundedDeepTaylor()",
    ),
    Row(
        '"guided_backprop"',
        "composites.GuidedBackprop()",
        "",
        "innvestigate.GuidedBackprop()",
    ),
    Row(
        '"deconvnet"',
        "composites.DeconvNet()",
        "",
        "innvestigate.Deconvnet()",
    ),
    Row(
        'input_layer_rule="Flat"',
        f"composites.SequentialPresetA(){_FIRST}rules.Flat({_Z}), first=True)",
        "a constant that is taken from the input absorbs nothing",
        "innvestigate.input_layer_rule(innvestigate.LRPSequentialPresetA(), 'Flat')",
    ),
    Row(
        "input_layer_rule=(-1, 1)",
        f"composites.SequentialPresetA(){_FIRST}rules.ZBox(-1, 1, {_Z}), first=True)",
        "as above",
        "innvestigate.input_layer_rule(innvestigate.LRPSequentialPresetA(), (-1, 1))",
    ),
    Row(
        'create_analyzer("lrp.z", model).analyze(x)',
        'jaxlrp.lrp(f, composites.Composite("LRPZ"))',
        "softmax outputs: explain the logits",
    ),
    Row(
        'neuron_selection_mode="index"',
        "jaxlrp.lrp(f, target=3)",
        '`"max_activation"` is `target="max"`, `"all"` is `target="all"`',
    ),
)
"""iNNvestigate's names, ours, and what differs."""
