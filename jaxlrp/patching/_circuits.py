"""Circuits: a run in which only some nodes or edges are as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._arguments import function
from jaxlrp._operations import own_settings
from jaxlrp.patching import _program
from jaxlrp.patching._edges import PAIRED, Crossing, Edges, _paired, _pairs
from jaxlrp.patching._pairs import Pair, read_pair
from jaxlrp.patching._sites import Group, as_sites


def circuit(
    f: Callable[..., Any],
    nodes: Any = None,
    *,
    edges: tuple[Any, Any] | None = None,
    ablate: Any = "corrupt",
    paired: str | Sequence[str] = PAIRED,
) -> Callable[..., Any]:
    """The clean run in which all that is not kept is ablated.

    A node that is not kept has another value: that of the corrupt run, a mean, or
    zero. An edge that is not kept hands that on: its target is given the source's other
    value, and everyone else its own.

    Args:
      f: as for `effects`.
      nodes: sites as of `effects`, or None where edges are given.
      edges: a pair (sources, targets), as for `edges`.
      ablate: `"corrupt"`; `"mean"`, the mean over the leading axis of `corrupt`, which
        then holds several inputs like `clean`; 0; or a dict of values by site (for
        edges by source).
      paired: as for `edges`.

    Returns:
      A function `(keep, params, clean, corrupt=None)` that returns what `f` does.
      `keep` has for each site an array of booleans over its nodes, or for each
      `(source, target)` one over its edges, as `effects` and `edges` return scores;
      numbers between 0 and 1 keep a share. What `keep` leaves out is kept. `corrupt`
      may be left out where zero or given values are put in. It can be mapped over
      `keep`.

    Raises:
      TypeError: for arguments of the wrong type, and a missing corrupt input.
      ValueError: for both or none of nodes and edges, a site or a shape of `keep` that
        does not fit, and as `effects`.

    Source: Wang et al. 2022, "Interpretability in the wild"; Mueller et al. 2025,
    "MIB".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import patching
      >>> f = lambda w, x: checkpoint_name(x @ w, "h").sum()
      >>> args = jnp.eye(2), jnp.array([1.0, 2.0]), jnp.zeros(2)
      >>> float(patching.circuit(f, "h")({"h": jnp.array([False, True])}, *args))
      2.0
    """
    function("f", f)
    if (nodes is None) == (edges is None):
        raise ValueError("nodes: expected either nodes or edges, and not both")
    _check_ablate(ablate)
    names = _paired(paired)
    if edges is not None:
        if not isinstance(edges, tuple) or len(edges) != 2:
            raise TypeError(f"edges: got {edges!r}, expected a pair (sources, targets)")
        chosen, ends = as_sites(edges[0], "edges"), as_sites(edges[1], "edges")
    else:
        chosen, ends = as_sites(nodes, "nodes"), {}

    @own_settings()
    def run(keep: Any, params: Any, clean: Any, corrupt: Any = None) -> Any:
        if not isinstance(keep, Mapping):
            raise TypeError(f"keep: got {keep!r}, expected a dict")
        if corrupt is None:
            if ablate in ("corrupt", "mean"):
                raise TypeError(f"corrupt: got None, with ablate={ablate!r}")
            corrupt = clean
        one = jax.tree.map(lambda a: a[0], corrupt) if ablate == "mean" else corrupt
        pair = read_pair(f, params, clean, one, None)
        groups, _ = pair.groups(chosen, "edges" if ends else "nodes")
        off = _ablated(f, ablate, pair, groups, chosen, params, corrupt)
        if not ends:
            return _of_nodes(keep, pair, groups, off)
        targets, _ = pair.groups(ends, "edges")
        return _of_edges(keep, pair, groups, targets, off, names)

    return run


def _check_ablate(ablate: Any) -> None:
    known = isinstance(ablate, Mapping) or ablate in ("corrupt", "mean")
    zero = isinstance(ablate, int | float) and ablate == 0
    if not (known or zero):
        raise ValueError(
            f"ablate: got {ablate!r}, expected 'corrupt', 'mean', 0 or a dict of values"
        )


def _ablated(
    f: Any,
    ablate: Any,
    pair: Pair,
    groups: Mapping[str, Group],
    sites: Any,
    params: Any,
    corrupt: Any,
) -> dict[str, Array]:
    """The values of what is not kept."""
    if isinstance(ablate, Mapping):
        missing = [name for name in groups if name not in ablate]
        if missing:
            raise ValueError(f"ablate: got no value for {missing[0]!r}")
        return {
            n: jnp.broadcast_to(jnp.asarray(ablate[n], g.value.dtype), g.shape)
            for n, g in groups.items()
        }
    if ablate == "corrupt":
        _, others = pair.groups(sites, "nodes")
        return _program.values(pair.corrupt, [*others.values()])[1]
    if ablate == "mean":

        def one(x: Any) -> dict[str, Array]:
            here = pair.corrupt.at(params, x)
            return _program.values(here, [*groups.values()])[1]

        each = jax.lax.map(one, corrupt)
        return jax.tree.map(lambda a: a.mean(0), each)
    return {n: jnp.zeros(g.shape, g.value.dtype) for n, g in groups.items()}


def _checked_keep(keep: Any, name: Any, shape: tuple[int, ...]) -> Array:
    kept = jnp.asarray(keep)
    if kept.shape != shape:
        raise ValueError(
            f"keep[{name!r}]: got shape {kept.shape}, expected that of its scores, "
            f"{shape}"
        )
    if kept.dtype != bool and not jnp.issubdtype(kept.dtype, jnp.floating):
        raise TypeError(
            f"keep[{name!r}]: got dtype {kept.dtype}, expected booleans or shares"
        )
    return kept


def _check_names(keep: Mapping[Any, Any], known: Sequence[Any]) -> None:
    for name in keep:
        if name not in known:
            names = ", ".join(map(repr, known))
            raise ValueError(f"keep: got {name!r}, expected one of {names}")


def _of_nodes(
    keep: Mapping[str, Any],
    pair: Pair,
    groups: Mapping[str, Group],
    off: Mapping[str, Array],
) -> Any:
    _check_names(keep, list(groups))
    given = {}
    for name, group in groups.items():
        if name in keep:
            kept = _checked_keep(keep[name], name, group.node_shape)
            lost = ~kept if kept.dtype == bool else 1 - kept
            given[name] = (group.spread(lost, lost.dtype.type(0)), off[name])
    return _program.patched(pair.clean, [groups[n] for n in given], given)


def _of_edges(
    keep: Mapping[Any, Any],
    pair: Pair,
    sources: Mapping[str, Group],
    targets: Mapping[str, Group],
    off: Mapping[str, Array],
    paired: Sequence[str],
) -> Any:
    """Sources write what they differ by into a memory; targets take out of it."""
    ways = {(u, v): (w, t) for u, v, w, t in _pairs(pair, sources, targets, paired)}
    _check_names(keep, list(ways))
    lost: dict[str, dict[str, Array]] = {}
    for (u, v), (_, there) in ways.items():
        if (u, v) in keep:
            kept = _checked_keep(keep[u, v], (u, v), there.shape)
            share = 1 - kept.astype(off[u].dtype)
            lost.setdefault(v, {})[u] = jnp.where(there, share, 0)
    memory = {u: jnp.zeros_like(off[u]) for u in sources}
    numbers = {n: _numbers(g) for n, g in {**sources, **targets}.items()}
    given: dict[str, Any] = {}
    for u in sources:
        given[_source(u)] = {"off": off[u], "number": numbers[u]}
    letters: dict[tuple[str, str], Any] = {}
    for v, group in targets.items():
        shares = {}
        for u, share in lost.get(v, {}).items():
            way, there = ways[u, v]
            shares[u], letters[u, v] = _by_target(share, way, group)
        given[_target(v)] = {"shares": shares}

    def edit(name: str, x: Array, given: Any, memory: Any) -> Any:
        side, _, name = name.partition(":")
        if side == "source":
            number, change = given["number"], x - given["off"]
            group = sources[name]
            old = memory[name]
            new = change if group.order is None else old.at[number].set(change)
            return x, (), memory | {name: new}
        for u, share in given["shares"].items():
            x = x - jnp.einsum(letters[u, name], memory[u], share).astype(x.dtype)
        return x, (), memory

    renamed = [dataclasses.replace(g, name=_source(u)) for u, g in sources.items()]
    renamed += [dataclasses.replace(g, name=_target(v)) for v, g in targets.items()]
    return _program.evaluate(pair.clean, renamed, edit, given, memory)[0]


def _source(name: str) -> str:
    return f"source:{name}"


def _target(name: str) -> str:
    return f"target:{name}"


def _numbers(group: Group) -> Array:
    """The place of each value in its stack."""
    return jnp.arange(1 if group.order is None else len(group.order))


def _by_target(share: Array, way: Crossing, target: Group) -> tuple[Array, str]:
    """Shares with the axis of the target's stack in front, and the sum over sources."""
    one, two = way.letters
    if target.order is None:
        return share, f"{one},{way.out}->{two}"
    stack = two[0]
    place = way.out.index(stack)
    inner = way.out.replace(stack, "")
    return jnp.moveaxis(share, place, 0), f"{one},{inner}->{two[1:]}"


# ---- rankings ----------------------------------------------------------------------


def order(scores: Any, by: str = "signed") -> Any:
    """The place of each node or edge, 0 for the first: `keep` is `order(...) < k`.

    Args:
      scores: a pytree of scores, as `effects` or `edges(...).scores`; or `Edges`, of
        which those that do not exist come last.
      by: `"signed"`, from the most positive to the most negative, or `"size"`, from the
        largest absolute value to the smallest.

    Returns:
      Places as integers, in the form of the scores.

    Raises:
      ValueError: for another `by`, or no scores.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import patching
      >>> scores = {"a": jnp.array([1.0, -3.0]), "b": jnp.array([2.0])}
      >>> {k: v.tolist() for k, v in patching.order(scores).items()}
      {'a': [1, 2], 'b': [0]}
      >>> {k: v.tolist() for k, v in patching.order(scores, "size").items()}
      {'a': [2, 0], 'b': [1]}
    """
    check_by(by)
    exists = None
    if isinstance(scores, Edges):
        exists, scores = scores.exists, scores.scores
    leaves, tree = jax.tree.flatten(scores)
    if not leaves:
        raise ValueError("scores: got none")
    flat = jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])
    flat = flat.astype(jnp.result_type(flat, 1.0))  # unsigned has no negative
    keys = -flat if by == "signed" else -jnp.abs(flat)
    if exists is not None:
        there = [np.ravel(exists[key]) for key in sorted(exists)]
        keys = jnp.where(np.concatenate(there), keys, jnp.inf)
    places = jnp.argsort(jnp.argsort(keys, stable=True), stable=True)
    split = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = [
        part.reshape(jnp.shape(leaf))
        for part, leaf in zip(jnp.split(places, split), leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, parts)


def check_by(by: Any) -> None:
    """Refuses what is neither of the two."""
    if by not in ("signed", "size"):
        raise ValueError(f"by: got {by!r}, expected 'signed' or 'size'")


def faithfulness(
    scores: Any, fractions: Any, *, full: Any = 1.0, none: Any = 0.0
) -> tuple[Array, Array]:
    """The areas under the curve of a circuit's faithfulness, CPR and CMD.

    `F = (m(circuit) - m(none)) / (m(full) - m(none))` as a function of the fraction of
    nodes or edges that it keeps; `CPR` is the area below `F`, the circuit performance
    ratio, and `CMD` that below `|1 - F|`, the circuit-model distance, by trapezia.

    MIB keeps the most positive for CPR, `order(scores)`, and the largest for CMD,
    `order(scores, "size")`, at the fractions .001, .002, .005, .01, .02, .05, .1, .2,
    .5 and 1. From the half to the whole it has no other point, so that areas depend on
    the fractions: a random order then has about a quarter.

    Args:
      scores: `m(circuit)` at each fraction, along the last axis; `F` itself where
        `full` and `none` are left at 1 and 0.
      fractions: ascending numbers between 0 and 1.
      full: `m` of the whole network.
      none: `m` where all is ablated.

    Returns:
      `(CPR, CMD)`, divided by the range of the fractions.

    Raises:
      ValueError: for fractions that do not ascend, or of another number than scores.

    Source: Mueller et al. 2025, "MIB: a mechanistic interpretability benchmark".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import patching
      >>> cpr, cmd = patching.faithfulness(jnp.array([0.0, 1.0, 1.0]), [0.0, 0.5, 1.0])
      >>> float(cpr), float(cmd)
      (0.75, 0.25)
    """
    places = np.asarray(fractions, float)
    ascending = places.ndim == 1 and len(places) > 1 and (np.diff(places) > 0).all()
    if not ascending or places[0] < 0 or places[-1] > 1:
        raise ValueError(
            f"fractions: got {fractions}, expected ascending numbers between 0 and 1"
        )
    found = jnp.asarray(scores, float)
    if found.shape[-1:] != places.shape:
        raise ValueError(
            f"scores: got shape {found.shape} for {len(places)} fractions, expected "
            f"one score for each along the last axis"
        )
    full, none = (jnp.asarray(m, float)[..., None] for m in (full, none))
    ratio = (found - none) / (full - none)
    width = float(places[-1] - places[0])
    return (
        jnp.trapezoid(ratio, places, axis=-1) / width,
        jnp.trapezoid(jnp.abs(1 - ratio), places, axis=-1) / width,
    )
