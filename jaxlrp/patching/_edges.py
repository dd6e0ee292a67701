"""Edges: what one value hands on to another directly, estimated or by running it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp._arguments import function
from jaxlrp._operations import own_settings
from jaxlrp._trace import positive
from jaxlrp.composites import Composite
from jaxlrp.patching import _program
from jaxlrp.patching._effects import (
    check_together,
    checked_at,
    checked_metric,
    checked_rules,
    estimate,
    with_aux,
)
from jaxlrp.patching._pairs import Pair, read_pair
from jaxlrp.patching._reach import reaches
from jaxlrp.patching._sites import Group, Site, as_sites

PAIRED = ("position",)


@dataclasses.dataclass(frozen=True)
class Edges:
    """Scores of edges, by the names of a source and of a target.

    Attributes:
      scores: for each `(source, target)` an array: axes that both have, those of the
        source, those of the target.
      exists: of the same shapes: does the program have this edge? Other scores are
        zero.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import patching
      >>> def f(w, x):
      ...     h = x + checkpoint_name(x @ w, "a")
      ...     return jnp.sum(checkpoint_name(h, "b") ** 2)
      >>> args = jnp.eye(2), jnp.ones(2), jnp.zeros(2)
      >>> a, b = (patching.site(name, (None,)) for name in "ab")
      >>> bool(patching.edges(f, a, b)(*args).exists["a", "b"])
      True
    """

    scores: dict[tuple[str, str], Array]
    exists: dict[tuple[str, str], np.ndarray]


jax.tree_util.register_dataclass(Edges, ["scores"], ["exists"])
"""Which edges there are is known when a program is read, and is no array of JAX."""


@dataclasses.dataclass(frozen=True)
class Crossing:
    """How the axes of a source and of a target meet.

    Attributes:
      paired: names of axes that are one.
      letters: of each axis of either, for `einsum`; what has one letter is one axis.
      out: letters of the scores.
    """

    paired: tuple[str, ...]
    letters: tuple[str, str]
    out: str


def crossing(source: Group, target: Group, paired: Sequence[str]) -> Crossing:
    """How two groups meet.

    Raises:
      ValueError: where axes that are summed, or are one, have other sizes.
    """
    names = iter("abcdefghijklmnopqrstuvwxyz")
    common = tuple(n for n in paired if n in source.axes and n in target.axes)
    letters: dict[tuple[str, Any], str] = {("both", n): next(names) for n in common}

    def of(group: Group, side: str) -> str:
        found, summed = "", 0
        key: tuple[str, Any]
        for axis in group.axes:
            if axis in common:
                key = ("both", axis)
            elif axis is None:
                key, summed = ("summed", summed), summed + 1
            else:
                key = (side, axis)
            if key not in letters:
                letters[key] = next(names)
            found += letters[key]
        return found

    one, two = of(source, "source"), of(target, "target")
    sizes: dict[str, int] = {}
    for group, own in ((source, one), (target, two)):
        for letter, size in zip(own, group.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise ValueError(
                    f"targets: {target.name!r} has shape {target.shape} with axes "
                    f"{target.axes}, which does not meet {source.name!r} of shape "
                    f"{source.shape} with axes {source.axes}: an edge is between "
                    f"values that are added to each other"
                )
    alone = [set(one) - set(two), set(two) - set(one)]
    summed = {letters[k] for k in letters if k[0] == "summed"}
    unmatched = [
        group.name
        for group, rest in zip((source, target), alone, strict=True)
        if rest & summed
    ]
    if unmatched:
        raise ValueError(
            f"axes: {unmatched[0]!r} has an axis called None more than the other end "
            f"of an edge, {source.name!r} {source.axes} to {target.name!r} "
            f"{target.axes}"
        )
    keep = "".join(letters["both", n] for n in common)
    keep += "".join(c for c in one if c not in keep and c not in summed)
    keep += "".join(c for c in two if c not in keep and c not in summed)
    return Crossing(common, (one, two), keep)


def existing(reading: Any, source: Group, target: Group, way: Crossing) -> np.ndarray:
    """Which edges there are, of the shape of the scores."""
    for group in (source, target):
        if group.site.only:
            raise ValueError(f"only: got one for {group.name!r}, which has edges")
    found = reaches(reading, source, target)
    one, two = way.letters
    letters = ""
    for group, own in ((source, one), (target, two)):
        if group.order is None:
            found = found.take(0, axis=len(letters))
        elif group.axes[0] is None or group.axes[0] in way.paired:
            raise ValueError(
                f"axes: got {group.axes} for {group.name!r}, expected a name for the "
                f"axis of its stack, which is not paired"
            )
        else:
            letters += own[0]
    sizes = dict(zip(one + two, source.shape + target.shape, strict=True))
    shape = [sizes[c] if c in letters else 1 for c in way.out]
    order = [letters.index(c) for c in way.out if c in letters]
    spread = found.transpose(order).reshape(shape)
    return np.broadcast_to(spread, [sizes[c] for c in way.out]).copy()


def _paired(paired: Any) -> tuple[str, ...]:
    names = (paired,) if isinstance(paired, str) else paired
    if not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
        raise TypeError(f"paired: got {paired!r}, expected names of axes")
    return tuple(names)


def edges(
    f: Callable[..., Any],
    sources: Any,
    targets: Any,
    composite: Composite | None = None,
    metric: Callable[..., Any] | None = None,
    *,
    at: Any = "corrupt",
    along: str | Site | None = None,
    paired: str | Sequence[str] = PAIRED,
) -> Callable[..., Edges]:
    """What patching each edge would change, estimated for all of them at once.

    An edge goes from a value `u` that is added to the residual stream to a value `v`
    that is read from it. If `v` alone is given `u` as in the clean run, to first order
    the metric changes by

        effect = sum (u_clean - u_corrupt) c_v

    (edge attribution patching). Tag `v` on the branch that reads it, behind where the
    stream itself goes on: `y = norm(checkpoint_name(x, "mlp_in"))`, `x = x + mlp(y)`.

    Args:
      f: as for `effects`.
      sources: as the sites of `effects`: where edges begin, as what attention and MLPs
        give.
      targets: where they end, as what attention and MLPs read.
      composite: as for `effects`.
      metric: as for `effects`.
      at: as for `effects`.
      along: as for `effects`.
      paired: names of axes that source and target share, as an edge stays at its
        position; other axes of the same name, as layers and heads, are each side's own.
        Axes called None are summed, and are the same on both sides.

    Returns:
      A function `(params, clean, corrupt, *aux)` that returns `Edges`. Which edges
      exist is read from the program: those where `u` arrives at `v` by sums, copies
      and changes of shape alone.

    Raises:
      TypeError: as `effects`.
      ValueError: as `effects`, and for axes that do not meet.

    Source: Syed, Rager, Conmy 2023, "Attribution patching outperforms automated circuit
    discovery".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import patching
      >>> def f(w, x):
      ...     h = x + checkpoint_name(x @ w, "a")
      ...     return jnp.sum(checkpoint_name(h, "b") ** 2)
      >>> args = jnp.eye(2), jnp.ones(2), jnp.zeros(2)
      >>> a, b = (patching.site(name, (None,)) for name in "ab")
      >>> float(patching.edges(f, a, b, at="both")(*args).scores["a", "b"])
      4.0
    """
    function("f", f)
    one, two = as_sites(sources, "sources"), as_sites(targets, "targets")
    rules, at, names = checked_rules(composite), checked_at(at), _paired(paired)
    check_together(at, rules)
    route = None if along is None else next(iter(as_sites(along, "along").values()))
    score = checked_metric(metric)

    @own_settings()
    def estimated(params: Any, clean: Any, corrupt: Any, *aux: Any) -> Edges:
        pair = read_pair(f, params, clean, corrupt, rules)
        of_out = with_aux(score, aux)
        found = estimate(pair, one, two, of_out, at, route)
        every = _pairs(pair, found.starts, found.ends, names)

        def scores(slopes: Mapping[str, Array]) -> dict[tuple[str, str], Array]:
            scored = {}
            for u, v, way, there in every:
                letters = f"{way.letters[0]},{way.letters[1]}->{way.out}"
                each = jnp.einsum(letters, found.differences[u], slopes[v])
                scored[u, v] = jnp.where(there, each, 0)
            return scored

        exists = {(u, v): there for u, v, _, there in every}
        return Edges(found.scores(scores), _Static(exists))

    return estimated


class _Static(dict):
    """A dict of NumPy arrays that is equal to another by content, for JAX's caches."""

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(tuple((k, v.shape, v.tobytes()) for k, v in self.items()))

    def __eq__(self, other: Any) -> bool:
        return (
            isinstance(other, dict)
            and self.keys() == other.keys()
            and all(np.array_equal(v, other[k]) for k, v in self.items())
        )


def _pairs(
    pair: Pair,
    sources: Mapping[str, Group],
    targets: Mapping[str, Group],
    paired: Sequence[str],
) -> list[tuple[str, str, Crossing, np.ndarray]]:
    found = []
    reading = pair.clean.traced.reading
    for u, source in sources.items():
        for v, target in targets.items():
            way = crossing(source, target, paired)
            found.append((u, v, way, existing(reading, source, target, way)))
    return found


def exact_edges(
    f: Callable[..., Any],
    sources: Any,
    targets: Any,
    metric: Callable[..., Any] | None = None,
    *,
    batch: int = 64,
    paired: str | Sequence[str] = PAIRED,
) -> Callable[..., Edges]:
    """What patching each edge changes, found by running it.

    `metric(corrupt run in which v is given u as in the clean one) - metric(corrupt)`,
    one forward pass for each edge that exists.

    Args:
      f: as for `edges`.
      sources: as for `edges`.
      targets: as for `edges`.
      metric: as for `edges`.
      batch: how many runs are made together.
      paired: as for `edges`.

    Returns:
      A function `(params, clean, corrupt, *aux)` that returns what `edges` returns.

    Raises:
      TypeError: as `edges`.
      ValueError: as `edges`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import patching
      >>> def f(w, x):
      ...     h = x + checkpoint_name(x @ w, "a")
      ...     return jnp.sum(checkpoint_name(h, "b") ** 2)
      >>> args = jnp.eye(2), jnp.ones(2), jnp.zeros(2)
      >>> a, b = (patching.site(name, (None,)) for name in "ab")
      >>> float(patching.exact_edges(f, a, b)(*args).scores["a", "b"])
      2.0
    """
    function("f", f)
    one, two = as_sites(sources, "sources"), as_sites(targets, "targets")
    batch, names = positive("batch", batch), _paired(paired)
    score = checked_metric(metric)

    @own_settings()
    def run(params: Any, clean: Any, corrupt: Any, *aux: Any) -> Edges:
        pair = read_pair(f, params, clean, corrupt, None)
        of_out = with_aux(score, aux)
        starts = pair.groups(one, "sources")
        ends = pair.groups(two, "targets")
        before = _program.values(pair.corrupt, [*starts[1].values()])
        after = _program.values(pair.clean, [*starts[0].values()])[1]
        base = _program.scalar(of_out, before[0])
        scores, exists = {}, {}
        for u, v, way, there in _pairs(pair, starts[0], ends[0], names):
            change, target = after[u] - before[1][u], ends[1][v]
            scores[u, v] = _run_each(
                pair, of_out, change, target, way, there, batch, base
            )
            exists[u, v] = there
        return Edges(scores, _Static(exists))

    return run


def _run_each(
    pair: Pair,
    metric: Any,
    change: Array,
    target: Group,
    way: Crossing,
    there: np.ndarray,
    batch: int,
    base: Array,
) -> Array:
    """The effects of the edges between two groups that exist; zero elsewhere."""
    wanted = np.flatnonzero(there)
    if not len(wanted):
        return jnp.zeros(there.shape, base.dtype)
    one, two = way.letters
    numbers = np.arange(there.size).reshape(there.shape)

    def edit(name: str, x: Array, added: Any, memory: Any) -> Any:
        return x + added, (), memory

    def each(number: Array) -> Array:
        chosen = (numbers == number).astype(change.dtype)
        added = jnp.einsum(f"{one},{way.out}->{two}", change, chosen)
        given = {target.name: added}
        out, _, _ = _program.evaluate(pair.corrupt, [target], edit, given)
        return _program.scalar(metric, out) - base

    found = lax.map(each, jnp.asarray(wanted), batch_size=batch)
    flat = jnp.zeros(math.prod(there.shape), found.dtype).at[wanted].set(found)
    return flat.reshape(there.shape)
