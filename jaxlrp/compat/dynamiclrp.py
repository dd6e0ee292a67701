"""dynamicLRP's engine, with the names and defaults of its options.

    >>> import jaxlrp
    >>> from jaxlrp.compat import dynamiclrp
    >>> composite = dynamiclrp.LRPEngine(use_gamma=True, relevance_filter=0.5)
    >>> composite.rule(jaxlrp.composites.Place("dense")).keep
    0.5

Parameters take part as operands there: sums are shared by absolute size, with biases
and position embeddings too, and what they get does not arrive at the input.

Source: dynamicLRP (arXiv:2512.07010), commit 0535f39.
"""

from __future__ import annotations

from typing import Any

from jaxlrp import composites, rules
from jaxlrp.compat._rows import Row
from jaxlrp.composites import Composite
from jaxlrp.rules import Rule, TopK

__all__ = ["EPSILON", "TABLE", "LRPEngine"]

EPSILON = 1e-11
"""The stabiliser, written 10e-12 there."""


def LRPEngine(  # noqa: N802
    use_gamma: bool | tuple[bool, bool] = False,
    conv_gamma: Any = 100.0,
    mm_gamma: Any = 1.0,
    use_z_plus: bool | tuple[bool, bool] = False,
    use_attn_lrp: bool = False,
    relevance_filter: Any = 1.0,
) -> Composite:
    """The composite of an engine's options.

    Args:
      use_gamma: generalised gamma, for all layers or for (convolutions, dense layers).
      conv_gamma: of convolutions.
      mm_gamma: of dense layers.
      use_z_plus: z-plus, for all layers or for (convolutions, dense layers). The rule
        of the literature: the engine's clamps the weights whatever the input's sign.
      use_attn_lrp: softmax by its Taylor expansion; else attention weights are
        constants, and what they weight gets half.
      relevance_filter: the fraction of each layer's relevances that is propagated.

    Returns:
      A composite. `use_bilinear_mm`, under which weights take half of every layer's
      relevance, is not there: that is a factor 1/2 for each layer.

    Examples:
      >>> from jaxlrp.composites import Place
      >>> from jaxlrp.compat import dynamiclrp
      >>> dynamiclrp.LRPEngine().rule(Place("dense"))
      Epsilon(epsilon=1e-11, bias='absolute')
    """
    keep = None if _is_one(relevance_filter) else relevance_filter
    composite = composites.DynamicLRP(keep=keep, softmax=use_attn_lrp, epsilon=EPSILON)
    layers = zip(
        ("convolution", "dense"),
        _pair("use_gamma", use_gamma),
        (conv_gamma, mm_gamma),
        _pair("use_z_plus", use_z_plus),
        strict=True,
    )
    for role, has_gamma, gamma, z_plus in layers:
        rule: Rule | None = None
        if has_gamma:
            rule = rules.GeneralizedGamma(gamma, epsilon=EPSILON, bias="absolute")
        elif z_plus:
            rule = rules.ZPlus(EPSILON, bias="absolute")
        if rule is not None:
            composite = composite.on(role, rule if keep is None else TopK(rule, keep))
    return composite


def _is_one(value: Any) -> bool:
    return isinstance(value, int | float) and value == 1


def _pair(name: str, value: Any) -> tuple[bool, bool]:
    if isinstance(value, bool):
        return value, value
    if isinstance(value, tuple) and len(value) == 2:
        return value
    raise ValueError(
        f"{name}: got {value!r}, expected a bool or a pair (convolutions, dense layers)"
    )


_GAMMA = 'rules.GeneralizedGamma({}, epsilon=1e-11, bias="absolute")'

TABLE: tuple[Row, ...] = (
    Row(
        "LRPEngine()",
        "composites.DynamicLRP()",
        "constants keep their part of a sum, not of a product: a scale takes nothing",
        "dynamiclrp.LRPEngine()",
    ),
    Row(
        "LRPEngine(use_gamma=True)",
        f'composites.DynamicLRP().on("convolution", {_GAMMA.format(100.0)})'
        f'.on("dense", {_GAMMA.format(1.0)})',
        "",
        "dynamiclrp.LRPEngine(use_gamma=True)",
    ),
    Row(
        "LRPEngine(use_z_plus=True)",
        'composites.DynamicLRP().on("convolution", rules.ZPlus(1e-11, '
        'bias="absolute")).on("dense", rules.ZPlus(1e-11, bias="absolute"))',
        "the rule of the literature; the engine's is unbounded for negative inputs",
        "dynamiclrp.LRPEngine(use_z_plus=True)",
    ),
    Row(
        "LRPEngine(use_attn_lrp=True)",
        "composites.DynamicLRP(softmax=True)",
        "no causal mask but the model's own; weights take nothing",
        "dynamiclrp.LRPEngine(use_attn_lrp=True)",
    ),
    Row(
        "LRPEngine(relevance_filter=0.5)",
        "composites.DynamicLRP(keep=0.5)",
        "",
        "dynamiclrp.LRPEngine(relevance_filter=0.5)",
    ),
    Row(
        "LRPEngine(use_bilinear_mm=True)",
        "rules.UniformSplit()",
        "products of two signals are always halved; layers never, where the engine "
        "gives half to the weights",
    ),
    Row(
        "LRPEngine(starting_relevance=R)",
        "jaxlrp.lrp(f, composites.DynamicLRP(), target=lambda out: out)",
        "by default each example starts from its own highest score",
    ),
    Row(
        "LRPEngine(params_to_interpret=[...])",
        "jaxlrp.lrp(f, composites.DynamicLRP(), argnums=(0, 1))",
        "parameters are arguments",
    ),
    Row(
        "LRPCheckpoint, create_checkpoint(x)",
        'jaxlrp.lrp(f, capture="name")',
        '`jax.ad_checkpoint.checkpoint_name(x, "name")` in the function',
    ),
    Row(
        "a node without a rule",
        "jaxlrp.register_rule",
        "refused, where the engine passes relevance on unchanged",
    ),
)
"""The engine's options, ours, and what differs."""
