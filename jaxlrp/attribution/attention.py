"""Explanations from the attention maps of a transformer.

The maps `A_1 ... A_L` are found in the program by their structure: results of a softmax
that go into a contraction. Each has the shape `(*examples, heads, queries, keys)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import composites
from jaxlrp._arguments import flag
from jaxlrp._reading.sites import MAP
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums, as_composite
from jaxlrp.attribution import _attention, _call, _intermediate
from jaxlrp.attribution._attention import HeadAxis
from jaxlrp.attribution._call import Call
from jaxlrp.composites import Composite

__all__ = [
    "attention_rollout",
    "gradient_attention_rollout",
    "raw_attention",
    "transformer_attribution",
]

P = ParamSpec("P")


def raw_attention(
    f: Callable[P, Any],
    *,
    layer: int = -1,
    token: int | None = None,
    maps: str = MAP,
    head_axis: HeadAxis = -3,
    argnums: ArgNums = -1,
    has_aux: bool = False,
) -> Callable[P, Any]:
    """One layer's attention, averaged over its heads.

    `A = mean_h A_l`: row `i` is what token `i` attends to. It does not depend on the
    output that is explained.

    Args:
      f: a function of pytrees that JAX can trace.
      layer: the number of the layer, in the order in which they run; a layer of a loop
        counts once for each iteration.
      token: the row that is returned, such as 0 for a class token at the front; None
        for the whole matrix.
      maps: the maps that are used: a pattern of names below `jax.named_scope`s, such as
        `"encoder/*/attention_map"`.
      head_axis: the maps' axis of heads, counted from the end; several as a tuple, and
        None where there are no heads. It is `(-5, -3)` for the maps of
        `jax.nn.dot_product_attention`, which Flax NNX uses: their shape is
        `(groups, batch, heads, queries, keys)`.
      argnums: an argument that the maps depend on, of floating-point arrays: the
        embeddings, or the parameters of a function of token numbers.
      has_aux: `f` returns `(output, auxiliary data)`.

    Returns:
      A function of `f`'s arguments that returns an array of at least float32, of shape
      `(*examples, queries, keys)`, or `(*examples, keys)` with a `token`; with
      `has_aux`, `(array, aux)`.

    Raises:
      ValueError: if `maps` names no map, or a number is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> def f(x):  # three tokens, one head without an axis
      ...     a = jax.nn.softmax(x @ x.T)
      ...     return (a @ x)[0]
      >>> x = jnp.array([[0.0, 0.0], [3.0, 1.0], [0.0, 2.0]])
      >>> row = attribution.raw_attention(f, token=0, head_axis=None)(x)
      >>> [round(float(a), 2) for a in row]
      [0.33, 0.33, 0.33]
    """
    _attention.check_head_axis(head_axis)

    def explain(call: Call) -> tuple[Array, Any]:
        traced, sites = _intermediate.find(call, maps, "maps", argnums, None)
        layers = _intermediate.in_order(sites, _intermediate.values(traced, sites))
        site, value = layers[_attention.chosen("layer", layer, len(layers))]
        mean = _attention.mean_over_heads(site.name, value, head_axis)
        return _attention.rows(mean, token), call.auxiliary()

    return _call.wrapped("raw_attention", f, argnums, "all", has_aux, explain)


def attention_rollout(
    f: Callable[P, Any],
    *,
    residual: Any = 0.5,
    start: int = 0,
    token: int | None = None,
    maps: str = MAP,
    head_axis: HeadAxis = -3,
    argnums: ArgNums = -1,
    has_aux: bool = False,
) -> Callable[P, Any]:
    """Attention, followed through the layers and the residual connections.

    With the residual's share `r`,

        R = B_L ... B_1,   B_l = (1 - r) mean_h A_l + r I.

    Rows add up to one. It does not depend on the output that is explained.

    Args:
      f: as for `raw_attention`.
      residual: the share `r` of the residual connection.
      start: the first layer of the product.
      token: as for `raw_attention`.
      maps: as for `raw_attention`; they must be of one set of tokens upon itself.
      head_axis: as for `raw_attention`.
      argnums: as for `raw_attention`.
      has_aux: as for `raw_attention`.

    Returns:
      As for `raw_attention`.

    Raises:
      ValueError: as for `raw_attention`, and if the maps do not fit each other.

    Source: Abnar, Zuidema 2020, "Quantifying attention flow in transformers".

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> def f(x):
      ...     a = jax.nn.softmax(x @ x.T)
      ...     return (a @ x)[0]
      >>> x = jnp.array([[0.0, 0.0], [3.0, 1.0], [0.0, 2.0]])
      >>> row = attribution.attention_rollout(f, token=0, head_axis=None)(x)
      >>> [round(float(a), 2) for a in row]
      [0.67, 0.17, 0.17]
    """
    _attention.check_head_axis(head_axis)

    def explain(call: Call) -> tuple[Array, Any]:
        traced, sites = _intermediate.find(call, maps, "maps", argnums, None)
        ordered = _intermediate.in_order(sites, _intermediate.values(traced, sites))
        layers = [
            (s, _attention.mean_over_heads(s.name, a, head_axis)) for s, a in ordered
        ]
        rolled = _attention.rolled(layers, 1 - residual, residual, False, start)
        return _attention.rows(rolled, token), call.auxiliary()

    return _call.wrapped("attention_rollout", f, argnums, "all", has_aux, explain)


def gradient_attention_rollout(
    f: Callable[P, Any],
    *,
    normalise: bool = True,
    start: int = 0,
    token: int | None = None,
    maps: str = MAP,
    head_axis: HeadAxis = -3,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """Attention rollout, the maps weighted with the score's gradient.

    With the score `S` as in `gradient` and the rows of `n` divided by their sums,

        R = B_L ... B_1,   B_l = n(I + mean_h max(0, A_l * d S / d A_l)).

    Args:
      f: as for `raw_attention`; JAX must be able to differentiate it.
      normalise: whether rows are divided by their sums.
      start: the first layer of the product.
      token: as for `raw_attention`.
      maps: as for `attention_rollout`.
      head_axis: as for `raw_attention`.
      argnums: as for `raw_attention`.
      target: as for `gradient`.
      has_aux: as for `raw_attention`.

    Returns:
      As for `raw_attention`.

    Raises:
      ValueError: as for `attention_rollout`.

    Source: Abnar, Zuidema 2020, with the weights of Chefer, Gur, Wolf 2021, "Generic
    attention-model explainability".

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> def f(x):
      ...     a = jax.nn.softmax(x @ x.T)
      ...     return (a @ x)[0]
      >>> x = jnp.array([[0.0, 0.0], [3.0, 1.0], [0.0, 2.0]])
      >>> rollout = attribution.gradient_attention_rollout(f, token=0, head_axis=None)
      >>> [round(float(a), 2) for a in rollout(x)]  # the score is the mean of x[:, 0]
      [0.5, 0.5, 0.0]
    """
    flag("normalise", normalise)
    _attention.check_head_axis(head_axis)

    def explain(call: Call) -> tuple[Array, Any]:
        traced, sites = _intermediate.find(call, maps, "maps", argnums, None)
        values, gradients = _intermediate.own(traced, sites, target)
        layers = _attention.weighted(sites, values, gradients, head_axis)
        rolled = _attention.rolled(layers, 1.0, 1.0, normalise, start)
        return _attention.rows(rolled, token), call.auxiliary()

    return _call.wrapped(
        "gradient_attention_rollout", f, argnums, target, has_aux, explain
    )


def transformer_attribution(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    weighted: bool = True,
    normalise: bool = False,
    start: int = 0,
    token: int | None = None,
    maps: str = MAP,
    head_axis: HeadAxis = -3,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """Chefer's transformer attribution: relevance of the maps, weighted by gradients.

    With `R(A_l)` the LRP relevance of a map, from a relevance of one at the target, and
    the score `S` as in `gradient`,

        R = B_L ... B_1,   B_l = I + mean_h max(0, R(A_l) * d S / d A_l).

    The authors' numbers are those of `composite=jaxlrp.compat.chefer.RelProp()`, which
    rescales sums over a whole batch: give it one example, or use `jax.vmap`.

    Args:
      f: as for `raw_attention`; JAX must be able to differentiate it, and its
        primitives need rules.
      composite: the rules of LRP; None is `composites.AttnLRP()`.
      weighted: whether relevance is weighted with the gradient; without, this is what
        the authors' code calls rollout.
      normalise: whether the rows of `B_l` are divided by their sums, as the authors'
        code does for BERT but not for vision transformers.
      start: the first layer of the product.
      token: as for `raw_attention`.
      maps: as for `attention_rollout`.
      head_axis: as for `raw_attention`.
      argnums: as for `raw_attention`.
      target: as for `gradient`; a callable gives both the output's relevance and its
        cotangent.
      has_aux: as for `raw_attention`.

    Returns:
      As for `raw_attention`.

    Raises:
      ValueError: as for `attention_rollout`.

    Source: Chefer, Gur, Wolf 2021, "Transformer interpretability beyond attention
    visualization", equations 13 and 14.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> def f(x):
      ...     a = jax.nn.softmax(x @ x.T)
      ...     return (a @ x)[0]
      >>> x = jnp.array([[0.0, 0.0], [3.0, 1.0], [0.0, 2.0]])
      >>> explain = attribution.transformer_attribution(f, token=0, head_axis=None)
      >>> [round(float(a), 2) for a in explain(x)]
      [1.0, 1.5, 0.0]
    """
    flag("weighted", weighted)
    flag("normalise", normalise)
    _attention.check_head_axis(head_axis)
    rules = composites.AttnLRP() if composite is None else as_composite(composite)

    def explain(call: Call) -> tuple[Array, Any]:
        traced, sites = _intermediate.find(call, maps, "maps", argnums, rules)
        relevances = _intermediate.relevances(traced, sites, rules, target)
        weights = jax.tree.map(jnp.ones_like, relevances)
        if weighted:
            _, weights = _intermediate.own(traced, sites, target)
        layers = _attention.weighted(sites, relevances, weights, head_axis)
        rolled = _attention.rolled(layers, 1.0, 1.0, normalise, start)
        return _attention.rows(rolled, token), call.auxiliary()

    return _call.wrapped(
        "transformer_attribution", f, argnums, target, has_aux, explain
    )
