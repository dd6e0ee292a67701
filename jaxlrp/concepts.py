"""Concepts: what the channels, heads or tokens of an intermediate value stand for.

The relevance of one channel of a value, the examples in which it is highest, the part
of an explanation that passes through it, and the channels further down that it depends
on. A channel is one index along an axis of a value that has a name, a *site*, see
`capture` of `jaxlrp.lrp`.

Source: Achtibat et al. 2023, "From attribution maps to human-understandable
explanations through Concept Relevance Propagation".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp import _compat, _targets
from jaxlrp._arguments import axis as axis_number
from jaxlrp._arguments import function, text
from jaxlrp._reading.sites import MAP, Site, find_sites, select
from jaxlrp._reading.traps import batch_of
from jaxlrp._rewriting.backward import Traced, seed
from jaxlrp._rewriting.capture import Question, backward_at
from jaxlrp._rewriting.environment import Run
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums, checked, trace, wraps
from jaxlrp.composites import Composite

P = ParamSpec("P")

__all__ = [
    "Highest",
    "attribution_graph",
    "channel_relevance",
    "heatmaps",
    "maximise",
    "sites",
]

REDUCTIONS = {"sum": jnp.sum, "max": jnp.max, "mean": jnp.mean}
"""How the relevances of one channel become one number."""


def sites(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    argnums: ArgNums = -1,
    has_aux: bool = False,
) -> Callable[P, dict[str, jax.ShapeDtypeStruct]]:
    """The intermediate values that have a name, for `capture` and `conditions`.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `jaxlrp.lrp`.
      argnums: as for `jaxlrp.lrp`.
      has_aux: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments, which may be `jax.ShapeDtypeStruct`s, that returns
      for each name the shape and dtype of the captured relevance, in the order of the
      program. Nothing is computed.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> def f(x):
      ...     with jax.named_scope("block"):
      ...         p = jax.nn.softmax(x @ x.T)
      ...         x = jnp.tanh(p @ x)
      ...     return x.sum(0)
      >>> for name, value in jaxlrp.concepts.sites(f)(jnp.ones((3, 4))).items():
      ...     print(name, value.shape)
      block/attention_map (3, 3)
      block (3, 4)
    """
    start = _starter(f, composite, argnums, "all", has_aux)

    @wraps(
        f,
        "concepts.sites",
        "the shapes and dtypes of values that have a name, by name.",
    )
    def named(*args: P.args, **kwargs: P.kwargs) -> dict[str, jax.ShapeDtypeStruct]:
        asked = start(args, kwargs)
        return {
            s.name: jax.ShapeDtypeStruct(s.shape, s.dtype)
            for s in find_sites(asked.traced.reading)
            if s.problem is None
        }

    return named


def channel_relevance(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    site: str,
    axis: int = -1,
    examples: int | None = 0,
    reduce: str = "sum",
    argnums: ArgNums = -1,
    target: Target = "max",
) -> Callable[P, Array]:
    """The relevance of each channel of an intermediate value, in each example.

    `R[n, c] = sum of R_v` over all elements of the value that belong to example `n` and
    channel `c`.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `jaxlrp.lrp`.
      site: the name of the value, or a pattern that only it matches.
      axis: the axis of the captured relevance that holds the channels. Channels of a
        convolution, heads and tokens of an attention map are alike in this. A value in
        a loop has a leading axis for the loop.
      examples: the axis that holds the examples, or None where there is only one. Of
        an attention map of NNX and `jax.nn` that is axis 1, and 2 that of the heads:
        an axis of size one comes first.
      reduce: `"sum"`, `"max"` or `"mean"` over all other axes.
      argnums: as for `jaxlrp.lrp`.
      target: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments that returns an array (examples, channels), or
      (channels,) where `examples` is None.

    Raises:
      ValueError: if `site` does not name one value, or it has no such axis, or that of
        the examples has size one where there are others, or where it cannot be told.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> def f(x):
      ...     return checkpoint_name(2.0 * x, "h") @ jnp.ones(2)
      >>> relevance = jaxlrp.concepts.channel_relevance(f, site="h", target="all")
      >>> relevance(jnp.array([[1.0, 2.0], [3.0, 4.0]])).round().astype(int).tolist()
      [[2, 4], [6, 8]]
    """
    text("site", site, _NAME)
    _check_axes(axis=axis, examples=examples)
    if not isinstance(reduce, str) or reduce not in REDUCTIONS:
        raise ValueError(
            f"reduce: got {reduce!r}, expected one of {', '.join(REDUCTIONS)}"
        )
    start = _starter(f, composite, argnums, target)

    @wraps(
        f,
        "concepts.channel_relevance",
        "the relevance of each channel, an array (examples, channels).",
    )
    def relevances(*args: P.args, **kwargs: P.kwargs) -> Array:
        asked = start(args, kwargs)
        at = asked.site(site, "site")
        channels = _channels(at, axis, examples, "axis")
        _check_examples(asked.traced, at, channels[1])
        _, captured = asked.relevance((at,), {})
        return _by_channel(captured[at.name], *channels, REDUCTIONS[reduce])

    return relevances


def heatmaps(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    site: str,
    axis: int = -1,
    channels: Sequence[int] | Array | None = None,
    chunk: int = 16,
    argnums: ArgNums = -1,
    target: Target = "max",
) -> Callable[P, Any]:
    """The part of an explanation that passes each channel of an intermediate value.

    `R_x given c`: the relevance of the input when that of all other channels at the
    site is set to zero on its way back. If all relevance passes the site, the parts add
    up to the explanation.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `jaxlrp.lrp`.
      site: the name of the value, or a pattern that only it matches.
      axis: the axis of the captured relevance that holds the channels.
      channels: which ones; all by default.
      chunk: how many are computed at a time. More take more memory; the function is
        evaluated once for each chunk.
      argnums: as for `jaxlrp.lrp`.
      target: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments that returns what `lrp` returns, with a leading axis
      for the channels in each array.

    Raises:
      ValueError: if `site` does not name one value, or it has no such axis.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> w = jnp.array([[1.0, 0.0], [1.0, 2.0]])
      >>> def f(x):
      ...     return checkpoint_name(x @ w, "h").sum(-1)
      >>> parts = jaxlrp.concepts.heatmaps(f, site="h", target="all")
      >>> parts(jnp.array([3.0, 4.0])).round().astype(int).tolist()
      [[3, 4], [0, 8]]
    """
    text("site", site, _NAME)
    _check_axes(axis=axis)
    start = _starter(f, composite, argnums, target)
    _check_chunk(chunk)

    @wraps(
        f,
        "concepts.heatmaps",
        "the part of the relevance that passes each channel: one axis more in front.",
    )
    def parts(*args: P.args, **kwargs: P.kwargs) -> Any:
        asked = start(args, kwargs)
        at = asked.site(site, "site")
        along, _ = _channels(at, axis, None, "axis")
        size = at.shape[along]

        def one(channel: Array) -> Any:
            leaves, _ = asked.relevance((), _only(at, along, channel))
            return asked.traced.restore(leaves)

        every = channels is None
        wanted = jnp.arange(size) if every else _indices(channels, size, "channels")
        return lax.map(one, wanted, batch_size=chunk)

    return parts


def attribution_graph(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    upper: str,
    lower: str,
    upper_axis: int = -1,
    lower_axis: int = -1,
    upper_channels: Sequence[int] | Array | None = None,
    examples: int | None = 0,
    chunk: int = 16,
    argnums: ArgNums = -1,
    target: Target = "max",
) -> Callable[P, Array]:
    """Which channels further down the channels of a value depend on.

    `R[n, u, l]` is the relevance of channel `l` at the lower site in example `n`, when
    that of all channels but `u` at the upper site is set to zero on its way back. If
    all relevance passes the upper site, `sum_u R[n, u, l]` is the relevance of `l`.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `jaxlrp.lrp`.
      upper: the name of a value, or a pattern that only it matches.
      lower: the name of another that it is computed from.
      upper_axis: the axis of the upper value's captured relevance that holds channels.
      lower_axis: that of the lower one's.
      upper_channels: which ones are asked about; all by default.
      examples: the axis that holds the examples in both, or None for a single one.
      chunk: how many upper channels are computed at a time. More take more memory;
        the function is evaluated once for each chunk.
      argnums: as for `jaxlrp.lrp`.
      target: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments that returns an array (examples, upper channels,
      lower channels), without the first axis where `examples` is None.

    Raises:
      ValueError: if a name does not name one value, or that has no such axis.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> w = jnp.array([[1.0, 0.0], [1.0, 2.0]])
      >>> def f(x):
      ...     low = checkpoint_name(3.0 * x, "low")
      ...     return checkpoint_name(low @ w, "up").sum(-1)
      >>> graph = jaxlrp.concepts.attribution_graph(
      ...     f, upper="up", lower="low", target="all"
      ... )
      >>> graph(jnp.array([[1.0, 2.0]])).round().astype(int).tolist()
      [[[3, 6], [0, 12]]]
    """
    text("upper", upper, _NAME)
    text("lower", lower, _NAME)
    _check_axes(upper_axis=upper_axis, lower_axis=lower_axis, examples=examples)
    start = _starter(f, composite, argnums, target)
    _check_chunk(chunk)

    @wraps(
        f,
        "concepts.attribution_graph",
        "an array (examples, upper channels, lower channels).",
    )
    def graph(*args: P.args, **kwargs: P.kwargs) -> Array:
        asked = start(args, kwargs)
        top, bottom = asked.site(upper, "upper"), asked.site(lower, "lower")
        along, _ = _channels(top, upper_axis, None, "upper_axis")
        axes = _channels(bottom, lower_axis, examples, "lower_axis")
        _check_examples(asked.traced, bottom, axes[1])
        size = top.shape[along]

        def one(channel: Array) -> Array:
            _, captured = asked.relevance((bottom,), _only(top, along, channel))
            return _by_channel(captured[bottom.name], *axes, jnp.sum)

        name, every = "upper_channels", upper_channels is None
        wanted = jnp.arange(size) if every else _indices(upper_channels, size, name)
        return jnp.moveaxis(lax.map(one, wanted, batch_size=chunk), 0, -2)

    return graph


@dataclasses.dataclass(frozen=True)
class Highest:
    """For each channel the examples with the highest scores, in descending order.

    Attributes:
      indices: of the examples, in the order in which they came, from 0; -1 where there
        were too few. Of shape (channels, top).
      scores: theirs; minus infinity where there were too few. Of the same shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import concepts
      >>> best = concepts.maximise(lambda x: x, [jnp.array([[1.0], [3.0]])], top=1)
      >>> best.indices.tolist(), best.scores.tolist()
      ([[1]], [[3.0]])
    """

    indices: Array
    scores: Array


jax.tree_util.register_dataclass(Highest, ["indices", "scores"], [])


def maximise(
    scores: Callable[[Any], Array], batches: Iterable[Any], *, top: int = 8
) -> Highest:
    """The examples of a dataset in which each channel has its highest score.

    With relevances for scores, this is relevance maximisation: what the channel is used
    for, where activation maximisation shows what excites it. Batches are taken one by
    one, and only the best scores are kept.

    Args:
      scores: from a batch to an array (examples, channels), such as
        `jax.jit(lambda x: channel_relevance(f, site="conv3")(params, x))`.
      batches: any iterable of what `scores` takes.
      top: how many examples are kept for each channel.

    Returns:
      The examples and their scores. Of equal scores the first one comes first.

    Raises:
      ValueError: if there is no batch, `top` is not positive, or scores have another
        shape than (examples, channels).

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> batches = [jnp.array([[1.0, 5.0], [3.0, 2.0]]), jnp.array([[2.0, 9.0]])]
      >>> best = jaxlrp.concepts.maximise(lambda batch: batch, batches, top=2)
      >>> best.indices.tolist(), best.scores.tolist()
      ([[1, 2], [2, 0]], [[3.0, 2.0], [9.0, 5.0]])
    """
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise ValueError(f"top: got {top!r}, expected a positive int")
    function("scores", scores)
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches: got {batches!r}, expected an iterable of batches")
    best: Highest | None = None
    count = 0
    for batch in batches:
        given = jnp.asarray(scores(batch))
        if given.ndim != 2 or (best and given.shape[1] != len(best.scores)):
            known = "channels" if best is None else str(len(best.scores))
            raise ValueError(
                f"scores(batch): got shape {given.shape}, expected (examples, {known})"
            )
        best = best or _nothing(given, top)
        best = _merge(best, given, count)
        count += len(given)
    if best is None:
        raise ValueError("batches: got none, expected at least one")
    return best


def _nothing(scores: Array, top: int) -> Highest:
    shape = (scores.shape[1], top)
    low = jnp.full(shape, -jnp.inf, jnp.promote_types(scores.dtype, jnp.float32))
    return Highest(jnp.full(shape, -1), low)


@jax.jit
def _merge(best: Highest, scores: Array, start: Any) -> Highest:
    """The best of those so far and of a batch whose first example has index `start`."""
    new = jnp.broadcast_to(start + jnp.arange(len(scores)), scores.shape[::-1])
    indices = jnp.concatenate([best.indices, new.astype(best.indices.dtype)], axis=1)
    # -0.0 and 0.0 are equal scores, which top_k would distinguish.
    given = jnp.where(scores == 0, 0, scores).T.astype(best.scores.dtype)
    both = jnp.concatenate([best.scores, given], axis=1)
    highest, order = lax.top_k(both, best.scores.shape[1])
    return Highest(jnp.take_along_axis(indices, order, axis=1), highest)


# ---- asking ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A function, traced, that questions are put to."""

    traced: Traced
    composite: Composite
    target: Any

    def site(self, pattern: str, argument: str) -> Site:
        """The one site that a pattern names."""
        one, *others = select(find_sites(self.traced.reading), pattern, argument)
        if others:
            names = ", ".join(repr(s.name) for s in (one, *others[:4]))
            raise ValueError(
                f"{argument}: got {pattern!r}, which names {len(others) + 1} values "
                f"({names}), expected one"
            )
        return one

    def relevance(
        self, captured: tuple[Site, ...], conditions: Any
    ) -> tuple[list[Array], dict[str, Array]]:
        """The relevances of the attributed leaves, and those captured."""
        question = Question(captured, conditions)
        once, by_name = backward_at(self.traced, Run(self.composite), question)
        start = seed(self.target, self.traced.out_tree, once.outs)
        leaves, collected = once.relevance(*start)
        return leaves, by_name(collected)


def _starter(
    f: Callable[..., Any],
    composite: Composite | None,
    argnums: ArgNums,
    target: Any,
    has_aux: bool = False,
) -> Callable[[tuple, dict], _Asked]:
    """From packed arguments to what can be asked; checks at once what can be."""
    rules = checked(f, composite, argnums, target, has_aux)

    def start(args: tuple, kwargs: dict) -> _Asked:
        plain = _targets.is_plain(target)
        given = f, args, kwargs, rules, argnums, has_aux, plain
        traced = trace(*given, keep_calls=False, by_scope=True)
        return _Asked(traced, rules, target)

    return start


_NAME = "the name of a value, or a pattern, a str"


def _check_axes(**axes: Any) -> None:
    """Each is an int; where examples are along no axis that is None."""
    for name, given in axes.items():
        if given is not None or name != "examples":
            axis_number(name, given)


def _check_chunk(chunk: Any) -> None:
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"chunk: got {chunk!r}, expected a positive int")


def _channels(
    site: Site, axis: int, examples: int | None, argument: str
) -> tuple[int, int | None]:
    """The axes of channels and of examples, from the front."""
    rank = len(site.shape)
    for name, given in ((argument, axis), ("examples", examples)):
        if given is not None and not -rank <= given < rank:
            raise ValueError(
                f"{name}: got {given!r}, expected an axis of {site.name!r}, of shape "
                f"{site.shape}"
            )
    along = axis % rank
    each = None if examples is None else examples % rank
    if along == each:
        raise ValueError(
            f"examples: got {examples!r}, which is the axis of the channels of "
            f"{site.name!r}, of shape {site.shape}; expected another, or None"
        )
    return along, each


def _check_examples(traced: Traced, site: Site, examples: int | None) -> None:
    """Raises where an axis is not that of the examples, or that cannot be told.

    Some attention functions make maps with an axis of size one, or of groups, in front
    of the batch; a relevance that is summed over the batch would look right.
    """
    if examples is None:
        return
    size = site.shape[examples]
    count = batch_of(traced.reading, traced.attributed, traced.n_out)
    is_map = MAP in site.known_as
    if size == count or (not is_map and (size != 1 or count is None)):
        return
    if count is None and size != 1:
        return
    known = "one example" if count is None else f"the {count} examples"
    raise ValueError(
        f"examples: got axis {examples} of {site.name!r}, which has the shape "
        f"{site.shape}; expected the axis of {known}: an axis in front of it may be "
        f"that of an attention function, as in NNX and jax.nn. Name the axis, or with "
        f"a single example None"
    )


def _indices(channels: Any, size: int, argument: str) -> Array:
    """Channels as indices from 0, checked where they are known."""
    try:
        indices = jnp.asarray(channels)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{argument}: got {channels!r}, expected a sequence of ints"
        ) from None
    if indices.ndim != 1 or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(f"{argument}: got {channels!r}, expected a sequence of ints")
    if _compat.is_known(indices):
        known = np.asarray(indices)
        if known.size and (known.min() < -size or known.max() >= size):
            raise ValueError(
                f"{argument}: got {channels!r}, expected ints in [{-size}, {size})"
            )
    return jnp.where(indices < 0, indices + size, indices)


def _only(site: Site, axis: int, channel: Array) -> dict[tuple[Any, ...], Any]:
    """The condition that one channel alone passes."""
    mask = jnp.arange(site.shape[axis]) == channel
    shape = [1] * len(site.shape)
    shape[axis] = site.shape[axis]
    loops = len(site.lengths)
    mask = jnp.broadcast_to(mask.reshape(shape), (*site.lengths, *shape[loops:]))
    return {site.address: ((mask, loops),)}


def _by_channel(
    relevance: Array, axis: int, examples: int | None, reduce: Callable[..., Array]
) -> Array:
    """Reduced to (examples, channels), or (channels,)."""
    kept = (axis,) if examples is None else (examples, axis)
    front = jnp.moveaxis(relevance, kept, range(len(kept)))
    return reduce(front, axis=tuple(range(len(kept), front.ndim)))
