"""Relevancy maps of any attention model: encoders, decoders, cross-attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._arguments import flag
from jaxlrp._reading.sites import MAP, Site, matches
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums
from jaxlrp.attribution import _attention, _call, _intermediate
from jaxlrp.attribution._attention import HeadAxis
from jaxlrp.attribution._call import Call

__all__ = ["Pair", "attention_relevancy"]

P = ParamSpec("P")

Pair = tuple[str, str]
"""The streams of a map's queries and keys."""

Layer = tuple[str, Pair, jax.Array]


def attention_relevancy(
    f: Callable[P, Any],
    *,
    streams: Mapping[str, Pair] | None = None,
    normalise: bool = True,
    token: int | None = None,
    maps: str = MAP,
    head_axis: HeadAxis = -3,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """Chefer's relevancy maps, for self-attention, cross-attention and co-attention.

    For each attention map `A`, in the order in which they run, let
    `C = mean_h max(0, A * d S / d A)`, with the score `S` as in `gradient`. The maps
    `R_st`, of what tokens of stream `t` matter to those of stream `s`, begin with the
    identity for `s = t` and zero otherwise. Self-attention of `s` changes them by

        R_st += C R_st                     for every stream t,

    and attention of `s` upon another stream `q` by

        R_sq += n(R_ss)^T C n(R_qq),   n(R) = I + rows of (R - I) divided by their sums,
        R_ss += C R_qs.

    With self-attention alone this is `R = (I + C_L) ... (I + C_1)`.

    Args:
      f: as for `raw_attention`; JAX must be able to differentiate it.
      streams: which tokens attend to which: from patterns of the maps' names to pairs
        `(stream of the queries, stream of the keys)`, named freely, as
        `{"encoder/*": ("in", "in"), "decoder/self/*": ("out", "out"),
        "decoder/cross/*": ("out", "in")}`. The first pattern that fits a map counts.
        None: one stream that attends to itself. Cross-attention between as many queries
        as keys looks like self-attention, so it must be named.
      normalise: whether `n` divides; without it is the identity.
      token: the row that is returned, as for `raw_attention`.
      maps: as for `raw_attention`.
      head_axis: as for `raw_attention`.
      argnums: an argument that all maps depend on; several as a tuple.
      target: as for `gradient`.
      has_aux: as for `raw_attention`.

    Returns:
      A function of `f`'s arguments that returns `R` with one stream, and with `streams`
      a dict from pairs `(s, t)` to `R_st`: arrays of at least float32, of shape
      `(*examples, tokens of s, tokens of t)`, without the first of these axes for a
      `token`. With `has_aux`, `(that, aux)`.

    Raises:
      ValueError: if `maps` names no map, `streams` does not name one that is there, or
        the numbers of tokens of a stream differ.

    Two cross-attentions of two streams upon each other, one directly after the other in
    the program, are taken to read the same state, as in a co-attention block.

    Source: Chefer, Gur, Wolf 2021, "Generic attention-model explainability for
    interpreting bi-modal and encoder-decoder transformers", equations 5 to 11.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> def f(x):
      ...     a = jax.nn.softmax(x @ x.T)
      ...     return (a @ x)[0]
      >>> x = jnp.array([[0.0, 0.0], [3.0, 1.0], [0.0, 2.0]])
      >>> row = attribution.attention_relevancy(f, token=0, head_axis=None)(x)
      >>> [round(float(a), 2) for a in row]
      [1.0, 1.0, 0.0]
    """
    _attention.check_head_axis(head_axis)
    _check_streams(streams)
    flag("normalise", normalise)

    def explain(call: Call) -> tuple[Any, Any]:
        traced, sites = _intermediate.find(call, maps, "maps", argnums, None)
        values, gradients = _intermediate.own(traced, sites, target)
        layers = _attention.weighted(sites, values, gradients, head_axis)
        if streams is None:
            _attention.check_square(layers)
        named = [(s.name, _streams_of(s, streams), layer) for s, layer in layers]
        state = _start(named)
        for block in _blocks(named):
            state = _update(state, block, normalise)
        result = {pair: _attention.rows(r, token) for pair, r in state.items()}
        whole = result if streams is not None else result["", ""]
        return whole, call.auxiliary()

    return _call.wrapped("attention_relevancy", f, argnums, target, has_aux, explain)


def _check_streams(streams: Any) -> None:
    if streams is None:
        return
    pairs = list(streams.values()) if isinstance(streams, Mapping) else [None]
    if not pairs or not all(
        isinstance(p, tuple) and len(p) == 2 and all(isinstance(s, str) for s in p)
        for p in pairs
    ):
        raise TypeError(
            f"streams: got {streams!r}, expected a mapping from patterns to pairs of "
            f"names, (stream of the queries, stream of the keys)"
        )


def _streams_of(site: Site, streams: Mapping[str, Pair] | None) -> Pair:
    if streams is None:
        return ("", "")
    for pattern, pair in streams.items():
        if matches(site, pattern):
            return pair
    raise ValueError(
        f"streams: no pattern of {list(streams)} fits {site.name!r}; name its streams, "
        f"or leave it out by `maps`"
    )


def _start(layers: Sequence[Layer]) -> dict[Pair, Array]:
    """Identities, and zeros between streams."""
    sizes: dict[str, int] = {}
    for name, pair, layer in layers:
        for stream, size in zip(pair, layer.shape[-2:], strict=True):
            if sizes.setdefault(stream, size) != size:
                raise ValueError(
                    f"streams: {stream!r} has {sizes[stream]} tokens, but {size} in "
                    f"{name!r}, whose streams are {pair}"
                )
    batch = layers[0][2].shape[:-2]
    dtype = jnp.result_type(*(layer for _, _, layer in layers))

    def entry(s: str, t: str) -> Array:
        shape = (sizes[s], sizes[t])
        block = jnp.eye(sizes[s], dtype=dtype) if s == t else jnp.zeros(shape, dtype)
        return jnp.broadcast_to(block, (*batch, *shape))

    return {(s, t): entry(s, t) for s in sizes for t in sizes}


def _blocks(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Maps that read the same state: two opposite cross-attentions, else one."""
    blocks: list[list[Layer]] = []
    for layer in layers:
        (s, t) = layer[1]
        last = blocks[-1] if blocks else []
        if s != t and len(last) == 1 and last[0][1] == (t, s):
            last.append(layer)
        else:
            blocks.append([layer])
    return blocks


def _update(
    state: Mapping[Pair, Array], block: Sequence[Layer], normalise: bool
) -> dict[Pair, Array]:
    """The state after a block of maps, all of which read the state before it."""
    after = dict(state)
    for _, (s, q), layer in block:
        if s == q:
            for a, b in state:
                if a == s:
                    after[a, b] = after[a, b] + layer @ state[a, b]
            continue
        own, other = state[s, s], state[q, q]
        if normalise:
            own, other = _normalised(own), _normalised(other)
        after[s, q] = after[s, q] + own.swapaxes(-1, -2) @ layer @ other
        after[s, s] = after[s, s] + layer @ state[q, s]
    return after


def _normalised(relevance: Array) -> Array:
    """`I` and the rows of `R - I` divided by their sums; rows of zeros stay."""
    identity = jnp.eye(relevance.shape[-1], dtype=relevance.dtype)
    rest = relevance - identity
    total = rest.sum(-1, keepdims=True)
    return identity + rest / jnp.where(total == 0, 1, total)
