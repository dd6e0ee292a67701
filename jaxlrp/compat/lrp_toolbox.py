"""The LRP toolbox's variants and Caffe formula types, with its notation.

    >>> from jaxlrp import rules
    >>> from jaxlrp.compat import lrp_toolbox
    >>> rule = lrp_toolbox.alphabeta(2.0)  # alpha + beta = 1 there: beta is -1
    >>> rule == rules.AlphaBeta(2.0, 1.0, epsilon=1e-16)
    True

Source: lrp_toolbox 1.3.1; Lapuschkin et al. 2016, "The LRP toolbox for artificial
neural networks"; Kohlbrenner et al. 2020, "Towards best practice in explaining neural
network decisions with LRP", for the formula types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxlrp import rules
from jaxlrp.compat._rows import Row
from jaxlrp.composites import Composite
from jaxlrp.rules import Rule

__all__ = [
    "FORMULAS",
    "TABLE",
    "alphabeta",
    "epsilon",
    "flat",
    "formula",
    "lrp",
    "simple",
    "ww",
]

_SMALL: dict[str, Any] = {"epsilon": 1e-16}


def simple() -> Rule:
    """`lrp(R)`: LRP-0, stabilised by 1e-16.

    Examples:
      >>> from jaxlrp.compat import lrp_toolbox
      >>> lrp_toolbox.simple()
      Epsilon(epsilon=1e-16)
    """
    return rules.Epsilon(**_SMALL)


def epsilon(param: Any) -> Rule:
    """`lrp(R, "epsilon", param)`.

    Args:
      param: epsilon.

    Examples:
      >>> from jaxlrp.compat import lrp_toolbox
      >>> lrp_toolbox.epsilon(0.01)
      Epsilon(epsilon=0.01)
    """
    return rules.Epsilon(param)


def alphabeta(param: Any) -> Rule:
    """`lrp(R, "alphabeta", alpha)`: `alpha + beta = 1` there, a difference here.

    Args:
      param: alpha; `beta = 1 - alpha`, negative as there.

    Examples:
      >>> from jaxlrp.compat import lrp_toolbox
      >>> lrp_toolbox.alphabeta(2.0)
      AlphaBeta(alpha=2.0, beta=1.0, epsilon=1e-16)
    """
    return rules.AlphaBeta(param, param - 1, **_SMALL)


def ww() -> Rule:
    """`lrp(R, "ww")`: w-square without the bias.

    Examples:
      >>> from jaxlrp.compat import lrp_toolbox
      >>> lrp_toolbox.ww()
      WSquare(epsilon=1e-16, bias='ignore')
    """
    return rules.WSquare(**_SMALL, bias="ignore")


def flat() -> Rule:
    """`lrp(R, "flat")`.

    Examples:
      >>> from jaxlrp.compat import lrp_toolbox
      >>> lrp_toolbox.flat()
      Flat(epsilon=1e-16)
    """
    return rules.Flat(**_SMALL)


def _pools(name: str, layer: Rule) -> Composite:
    return (
        Composite(name)
        .on("layer", layer)
        .on("average", rules.Norm(1e-12))
        .on("selection", rules.WinnerTakesAll(ties="share"))
    )


def lrp(variant: str = "simple", param: Any = None) -> Composite:
    """`nn.lrp(R, variant, param)`: one rule on every layer, pooling included.

    Sum pooling, and any other average, has the variant's rule: epsilon is added to the
    sum without its factor; w-square, whose weights are all equal there, is flat; after
    a ReLU nothing is negative, so that alpha-beta passes on `alpha` times the relevance
    at each pool. Max pooling shares ties, and under flat and w-square all of a window.

    Args:
      variant: the name of a variant.
      param: epsilon, or alpha, of the variants that have one.

    Raises:
      ValueError: for an unknown variant.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import lrp_toolbox
      >>> lrp_toolbox.lrp("epsilon", 0.01).rule(Place("dense"))
      Epsilon(epsilon=0.01)
    """
    made: dict[str, Callable[[], tuple[Rule, Rule]]] = {
        "simple": lambda: (simple(), rules.Norm(1e-12, unscaled=True)),
        "epsilon": lambda: (epsilon(param), rules.Norm(param, unscaled=True)),
        "alphabeta": lambda: (alphabeta(param), alphabeta(param)),
        "ww": lambda: (ww(), flat()),
        "flat": lambda: (flat(), flat()),
    }
    if variant not in made:
        names = ", ".join(map(repr, made))
        raise ValueError(f"variant: got {variant!r}, expected one of {names}")
    layer, average = made[variant]()
    ties: Rule = rules.WinnerTakesAll(ties="share")
    return (
        Composite("lrp")
        .on("layer", layer)
        .on("average", average)
        .on("selection", flat() if variant in ("ww", "flat") else ties)
    )


FORMULAS = (0, 2, 6, 8, 11, 26, 54, 56, 58, 60, 100, 102, 104, 114, 166)
"""The Caffe formula types that `formula` knows."""


def formula(
    number: int,
    epsilon: Any = 1.0,
    beta: Any = 1.0,
    low: Any = -1.0,
    high: Any = 1.0,
    switch: int = 1,
) -> Composite:
    """The composite of a formula type of the Caffe toolbox.

    0 epsilon; 2 alpha-beta; 6 alpha-beta with z-box first; 8 epsilon with z-box first;
    11 gradient; 26 deconvnet; 54 epsilon and 58 alpha-beta with flat below a layer, 56
    and 60 the same with w-square; 114 epsilon with alpha-beta below a layer; 100
    alpha-beta on convolutions and epsilon on dense
    layers; 102 the same with flat first, 104 with w-square first; 166 guided
    backpropagation.

    Args:
      number: one of `FORMULAS`.
      epsilon: of the epsilon rule.
      beta: of the alpha-beta rule, `alpha = 1 + beta`.
      low: bounds of the z-box.
      high: bounds of the z-box.
      switch: the number of layers, from the input on, that the second rule of 54 to 60
        and of 114 is for. Caffe counts layers of any kind, here dense layers and
        convolutions count.

    Raises:
      ValueError: for an unknown number.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import lrp_toolbox
      >>> lrp_toolbox.formula(6).rule(Place("dense"))
      AlphaBeta(alpha=2.0, beta=1.0, epsilon=1e-16)
    """
    if number not in FORMULAS:
        names = ", ".join(map(str, FORMULAS))
        raise ValueError(f"number: got {number!r}, expected one of {names}")
    name = f"Formula{number}"
    if number in (11, 26, 166):
        composite = Composite(name).on("any", rules.Gradient())
        special = {26: rules.Deconv(), 166: rules.Guided()}
        if number == 11:
            return composite
        return composite.on("activation", special[number])
    signed = rules.AlphaBeta(1 + beta, beta, **_SMALL)
    stable = rules.Epsilon(epsilon)
    composite = _pools(name, signed if number in (2, 6, 58, 60) else stable)
    below = {54: flat(), 56: ww(), 58: flat(), 60: ww(), 114: signed}.get(number)
    if below is not None:
        if number != 114:
            composite = composite.on("shift", rules.Pass(), first=True)
        return composite.on("layer", below, depth=(None, switch))
    if number in (100, 102, 104):
        composite = Composite(name).on("layer", stable).on("convolution", signed)
        composite = composite.on("average", rules.Norm(1e-12))
        composite = composite.on("selection", rules.WinnerTakesAll(ties="share"))
    box = rules.ZBox(low, high, **_SMALL)
    first = {6: box, 8: box, 102: flat(), 104: ww()}.get(number)
    if first is None:
        return composite
    composite = composite.on("shift", rules.Pass(), first=True)
    return composite.on("layer", first, first=True)


_SHARE = (
    '.on("average", rules.Norm(1e-12))'
    '.on("selection", rules.WinnerTakesAll(ties="share"))'
)
_SHIFT = '.on("shift", rules.Pass(), first=True)'


def _variant_row(
    name: str, layer: str, pool: str, call: str, differs: str = "", flat: bool = False
) -> Row:
    selection = "rules.Flat(1e-16)" if flat else 'rules.WinnerTakesAll(ties="share")'
    ours = (
        f'composites.Composite("lrp").on("layer", {layer}).on("average", {pool})'
        f'.on("selection", {selection})'
    )
    return Row(name, ours, differs, f"lrp_toolbox.lrp({call})")


def _formula_row(number: int, title: str, layer: str, first: str = "") -> Row:
    ours = f'composites.Composite("Formula{number}"){layer}{_SHARE}'
    if first:
        ours += f'{_SHIFT}.on("layer", {first}, first=True)'
    return Row(f"{number} ({title})", ours, "", f"lrp_toolbox.formula({number})")


def _switch_row(
    number: int, title: str, above: str, below: str, shift: str = _SHIFT
) -> Row:
    return Row(
        f"{number} ({title})",
        f'composites.Composite("Formula{number}").on("layer", {above}){_SHARE}{shift}'
        f'.on("layer", {below}, depth=(None, 4))',
        "dense layers and convolutions are counted, not layers of any kind",
        f"lrp_toolbox.formula({number}, switch=4)",
    )


_WW = 'rules.WSquare(1e-16, bias="ignore")'
_ALPHA = "rules.AlphaBeta(2.0, 1.0, epsilon=1e-16)"
_MIXED = f'.on("layer", rules.Epsilon(1.0)).on("convolution", {_ALPHA})'

TABLE: tuple[Row, ...] = (
    Row('"simple"', "rules.Epsilon(1e-16)", "", "lrp_toolbox.simple()"),
    Row('"epsilon", 0.01', "rules.Epsilon(0.01)", "", "lrp_toolbox.epsilon(0.01)"),
    Row(
        '"alphabeta", 2',
        "rules.AlphaBeta(2.0, 1.0, epsilon=1e-16)",
        "`alpha + beta = 1` there",
        "lrp_toolbox.alphabeta(2.0)",
    ),
    Row('"ww"', 'rules.WSquare(1e-16, bias="ignore")', "", "lrp_toolbox.ww()"),
    Row('"flat"', "rules.Flat(1e-16)", "", "lrp_toolbox.flat()"),
    _variant_row(
        "nn.lrp(R)", "rules.Epsilon(1e-16)", "rules.Norm(1e-12, unscaled=True)", ""
    ),
    _variant_row(
        'nn.lrp(R, "epsilon", 1.0)',
        "rules.Epsilon(1.0)",
        "rules.Norm(1.0, unscaled=True)",
        '"epsilon", 1.0',
    ),
    _variant_row(
        'nn.lrp(R, "alphabeta", 2)',
        _ALPHA,
        _ALPHA,
        '"alphabeta", 2.0',
        "a sum pool after a ReLU passes on twice its relevance, in both; where its "
        "inputs have both signs, the toolbox has `R` squared in the beta part",
    ),
    _variant_row('nn.lrp(R, "ww")', _WW, "rules.Flat(1e-16)", '"ww"', flat=True),
    _variant_row(
        'nn.lrp(R, "flat")',
        "rules.Flat(1e-16)",
        "rules.Flat(1e-16)",
        '"flat"',
        flat=True,
    ),
    Row(
        "MaxPool",
        'rules.WinnerTakesAll(ties="share")',
        "the default takes the first; `rules.Flat(1e-16)` under flat and w-square",
    ),
    Row(
        "SumPool",
        "rules.Norm(1e-12, unscaled=True)",
        "of `simple`; under the other variants it has their rule, as above",
    ),
    _formula_row(0, "epsilon", '.on("layer", rules.Epsilon(1.0))'),
    _formula_row(2, "alpha-beta", f'.on("layer", {_ALPHA})'),
    _formula_row(
        6, "z-box first", f'.on("layer", {_ALPHA})', "rules.ZBox(-1, 1, epsilon=1e-16)"
    ),
    _formula_row(
        8,
        "z-box first",
        '.on("layer", rules.Epsilon(1.0))',
        "rules.ZBox(-1, 1, epsilon=1e-16)",
    ),
    _formula_row(100, "composite", _MIXED),
    _formula_row(102, "flat first", _MIXED, "rules.Flat(1e-16)"),
    _formula_row(104, "ww first", _MIXED, _WW),
    Row(
        "11 (gradient)",
        'composites.Composite("Formula11").on("any", rules.Gradient())',
        "the seed is the output's value",
        "lrp_toolbox.formula(11)",
    ),
    Row(
        "26 (deconvnet)",
        'composites.DeconvNet().named("Formula26")',
        "the seed is the output's value",
        "lrp_toolbox.formula(26)",
    ),
    Row(
        "166 (guided)",
        'composites.GuidedBackprop().named("Formula166")',
        "the seed is the output's value",
        "lrp_toolbox.formula(166)",
    ),
    Row(
        "18, 22 (deep Taylor)",
        "composites.DeepTaylor()",
        "one variant",
    ),
    _switch_row(54, "epsilon, flat below", "rules.Epsilon(1.0)", "rules.Flat(1e-16)"),
    _switch_row(56, "epsilon, ww below", "rules.Epsilon(1.0)", _WW),
    _switch_row(58, "alpha-beta, flat below", _ALPHA, "rules.Flat(1e-16)"),
    _switch_row(60, "alpha-beta, ww below", _ALPHA, _WW),
    _switch_row(114, "epsilon, alpha-beta below", "rules.Epsilon(1.0)", _ALPHA, ""),
)
"""The toolbox's names, ours, and what differs."""
