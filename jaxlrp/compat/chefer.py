"""Chefer et al.'s Transformer-Explainability: the relevance half, with its conventions.

    >>> from jaxlrp.compat import chefer
    >>> from jaxlrp.composites import Place
    >>> chefer.RelProp().rule(Place("dense"))
    ZPlus(epsilon=1e-09, stabiliser='plain', bias='ignore')

Relevance starts from one at the target: `target=chefer.one_hot`. Attention maps and
their relevances are captured by name, `capture="attention_map"`, under which they are
what the rollout is made of.

Source: Chefer et al. 2021, "Transformer interpretability beyond attention
visualization", and its code.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import Array

from jaxlrp import rules
from jaxlrp.compat._rows import Row
from jaxlrp.composites import Composite
from jaxlrp.rules import Rule

__all__ = ["TABLE", "Add", "Conv2d", "Full", "Linear", "MatMul", "RelProp", "one_hot"]

_SAFE: dict[str, Any] = {"epsilon": 1e-9, "stabiliser": "plain"}


def one_hot(out: Array) -> Array:
    """The seed: one at the highest score of each example, zero elsewhere.

    Args:
      out: the scores, classes along the last axis.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.compat import chefer
      >>> chefer.one_hot(jnp.array([[1.0, 3.0]])).tolist()
      [[0.0, 1.0]]
    """
    return jax.nn.one_hot(out.argmax(-1), out.shape[-1], dtype=out.dtype)


def Linear(alpha: Any = 1.0) -> Rule:  # noqa: N802
    """Alpha-beta without the bias, `beta = alpha - 1`; for alpha 1 `rules.ZPlus`.

    Args:
      alpha: of the layers' rule; `beta = alpha - 1`.

    Examples:
      >>> from jaxlrp.compat import chefer
      >>> chefer.Linear()
      ZPlus(epsilon=1e-09, stabiliser='plain', bias='ignore')
    """
    if isinstance(alpha, int | float) and alpha == 1:
        return rules.ZPlus(**_SAFE, bias="ignore")
    return rules.AlphaBeta(alpha, alpha - 1, **_SAFE, bias="ignore")


def Conv2d(alpha: Any = 1.0) -> Rule:  # noqa: N802
    """As `Linear`: one denominator for both signs of the input.

    The code has one for each sign, which gives up to twice the relevance.

    Args:
      alpha: of the layers' rule; `beta = alpha - 1`.

    Examples:
      >>> from jaxlrp.compat import chefer
      >>> chefer.Conv2d()
      ZPlus(epsilon=1e-09, stabiliser='plain', bias='ignore')
    """
    return Linear(alpha)


def Add() -> Rule:  # noqa: N802
    """`rules.Rescaled`, over the whole array; under `vmap` each example on its own.

    Examples:
      >>> from jaxlrp.compat import chefer
      >>> chefer.Add()
      Rescaled(epsilon=1e-09, stabiliser='plain')
    """
    return rules.Rescaled(**_SAFE)


def MatMul() -> Rule:  # noqa: N802
    """`rules.UniformSplit` with `s(z) = z + 1e-9`.

    Examples:
      >>> from jaxlrp.compat import chefer
      >>> chefer.MatMul()
      UniformSplit(epsilon=2e-09, stabiliser='plain')
    """
    return rules.UniformSplit(epsilon=2e-9, stabiliser="plain")


def RelProp(alpha: Any = 1.0) -> Composite:  # noqa: N802
    """The rules of `relprop`: alpha-beta on layers, rescaled sums, the identity.

    Layer norm, softmax and activations pass relevance unchanged.

    Args:
      alpha: of the layers' rule; `beta = alpha - 1`.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import chefer
      >>> chefer.RelProp().rule(Place("dense"))
      ZPlus(epsilon=1e-09, stabiliser='plain', bias='ignore')
    """
    return (
        Composite("RelProp")
        .on("layer", Linear(alpha))
        .on("average", rules.Epsilon(**_SAFE))
        .on("sum", Add())
        .on("normaliser", rules.Pass())
        .on("softmax", rules.Pass())
        .on("batch_norm", rules.Pass())
        .on("bilinear", MatMul())
    )


def Full(low: Any, high: Any, alpha: Any = 1.0) -> Composite:  # noqa: N802
    """`RelProp` to the pixels: z-box on a first convolution, as `method="full"`.

    Args:
      low: the smallest pixel of each image, an array that broadcasts to the input.
      high: the largest.
      alpha: as for `RelProp`.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import chefer
      >>> chefer.Full(-1.0, 1.0).rule(Place("convolution", first=True))
      ZBox(low=-1.0, high=1.0, epsilon=1e-09, stabiliser='plain')
    """
    return (
        RelProp(alpha)
        .named("Full")
        .on("convolution", rules.ZBox(low, high, **_SAFE), first=True)
    )


_SAFE_TEXT = 'epsilon=1e-9, stabiliser="plain"'
_RELPROP = (
    f'.on("layer", rules.ZPlus({_SAFE_TEXT}, bias="ignore"))'
    f'.on("average", rules.Epsilon({_SAFE_TEXT}))'
    f'.on("sum", rules.Rescaled({_SAFE_TEXT}))'
    '.on("normaliser", rules.Pass()).on("softmax", rules.Pass())'
    '.on("batch_norm", rules.Pass())'
    '.on("bilinear", rules.UniformSplit(epsilon=2e-9, stabiliser="plain"))'
)

TABLE: tuple[Row, ...] = (
    Row(
        "Linear.relprop(R, alpha=1)",
        f'rules.ZPlus({_SAFE_TEXT}, bias="ignore")',
        "",
        "chefer.Linear()",
    ),
    Row(
        "Linear.relprop(R, alpha=2)",
        f'rules.AlphaBeta(2.0, 1.0, {_SAFE_TEXT}, bias="ignore")',
        "",
        "chefer.Linear(2.0)",
    ),
    Row(
        "Conv2d.relprop(R, alpha=1)",
        f'rules.ZPlus({_SAFE_TEXT}, bias="ignore")',
        "one denominator; the code has two, and gives up to twice the relevance",
        "chefer.Conv2d()",
    ),
    Row(
        "Conv2d.relprop on 3 channels",
        f"rules.ZBox(0.0, 1.0, {_SAFE_TEXT})",
        "give the bounds; the code takes each image's own",
    ),
    Row(
        "Add.relprop",
        f"rules.Rescaled({_SAFE_TEXT})",
        "under `vmap` the examples of a batch do not mix",
        "chefer.Add()",
    ),
    Row(
        "einsum, MatMul and / 2",
        'rules.UniformSplit(epsilon=2e-9, stabiliser="plain")',
        "",
        "chefer.MatMul()",
    ),
    Row(
        "LayerNorm, Softmax, GELU, ReLU, BatchNorm2d",
        "rules.Pass()",
        "",
    ),
    Row(
        "Clone, IndexSelect, Cat",
        "jaxlrp.lrp(f)",
        "exact; the code divides by the value, and loses what lies at zeros",
    ),
    Row(
        "model.relprop(one_hot, alpha=1)",
        f'composites.Composite("RelProp"){_RELPROP}',
        "target: `chefer.one_hot`",
        "chefer.RelProp()",
    ),
    Row(
        'generate_LRP(x, method="full")',
        f'composites.Composite("Full"){_RELPROP}'
        f'.on("convolution", rules.ZBox(0.0, 1.0, {_SAFE_TEXT}), first=True)',
        "a position embedding that is attributed has its part, another takes none",
        "chefer.Full(0.0, 1.0)",
    ),
    Row(
        "blk.attn.get_attn_cam()",
        'jaxlrp.lrp(f, capture="attention_map")',
        "",
    ),
    Row(
        'generate_LRP(x, method="transformer_attribution")',
        "jaxlrp.attribution.transformer_attribution",
        "",
    ),
    Row(
        'generate_LRP(x, method="rollout")',
        "jaxlrp.attribution.attention_rollout",
        "",
    ),
)
"""The code's names, ours, and what differs."""
