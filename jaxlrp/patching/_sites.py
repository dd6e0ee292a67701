"""Sites as the user names them, and as the program has them: one shape for both."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._program.bodies import bodies_of
from jaxlrp._reading import sites as named
from jaxlrp._reading.steps import Reading


@dataclasses.dataclass(frozen=True)
class Site:
    """A place of a program that is patched; made by `jaxlrp.patching.site`.

    Attributes:
      pattern: the name of a value, or a glob for several that are stacked.
      axes: the names of the value's axes, None for those that a node goes along, or
        None where every element is a node.
      only: by name of an axis, the indices that are asked about; all others are left
        out of scores.

    Examples:
      >>> from jaxlrp import patching
      >>> patching.site("mlp_out", ("layer", None)).axes
      ('layer', None)
    """

    pattern: str
    axes: tuple[str | None, ...] | None = None
    only: tuple[tuple[str, tuple[int, ...]], ...] = ()


def site(
    pattern: str,
    axes: Sequence[str | None] | None = None,
    *,
    only: Mapping[str, int | Sequence[int]] | None = None,
) -> Site:
    """A place of a program, with names for its axes.

    What a pattern names is one array: values that it meets more than once, in a scan
    over layers or written out, are stacked along a new first axis, in the order in
    which they run (along a scan, that of what it goes over). So both forms of a network
    have the same scores.

    Args:
      pattern: the name of a value, or a glob, as for `capture` of `jaxlrp.lrp`: a tag
        of `jax.ad_checkpoint.checkpoint_name`, a `jax.named_scope`, a parameter's path.
      axes: a name for each axis of that array, the one of the stack first. A node is
        one index along all named axes together; it goes along those called None, and
        scores are summed there. Without `axes` every element is a node.
      only: by name of an axis, an index or several: scores and exact patching are of
        those alone. Negative ones count from the end.

    Returns:
      A `Site`, for the functions of this module.

    Raises:
      TypeError: for a pattern or a name that is no string, or an index that is no int.
      ValueError: for a name that stands there twice, or one of `only` that is no axis.

    Examples:
      >>> from jaxlrp import patching
      >>> heads = patching.site("*/z", ("layer", "position", "head", None))
      >>> last = patching.site("*/z", heads.axes, only={"position": -1})
      >>> last.only
      (('position', (-1,)),)
    """
    if not isinstance(pattern, str):
        raise TypeError(f"pattern: got {pattern!r}, expected a name or a glob, a str")
    if axes is not None:
        axes = _checked_axes(axes)
    chosen = []
    for name, indices in dict(only or {}).items():
        if axes is None or name not in axes:
            raise ValueError(
                f"only: got {name!r}, expected the name of an axis, one of {axes}"
            )
        chosen.append((name, _checked_indices(name, indices)))
    return Site(pattern, axes, tuple(chosen))


def _checked_axes(axes: Any) -> tuple[str | None, ...]:
    if isinstance(axes, str) or not isinstance(axes, Sequence):
        raise TypeError(f"axes: got {axes!r}, expected a tuple of names or None")
    if not all(a is None or isinstance(a, str) for a in axes):
        raise TypeError(f"axes: got {axes!r}, expected names, or None for no node")
    names = [a for a in axes if a is not None]
    if len(set(names)) != len(names):
        raise ValueError(f"axes: got {tuple(axes)!r}, in which a name stands twice")
    return tuple(axes)


def _checked_indices(name: str, indices: Any) -> tuple[int, ...]:
    several = indices if isinstance(indices, Sequence | np.ndarray) else (indices,)
    if not all(isinstance(i, int | np.integer) for i in several) or not len(several):
        raise TypeError(
            f"only[{name!r}]: got {indices!r}, expected an int or a sequence of ints"
        )
    return tuple(int(i) for i in several)


Sites = Any
"""A pattern, a `Site`, a sequence of these, or a dict from names to these."""


def as_sites(sites: Sites, argument: str = "sites") -> dict[str, Site]:
    """Sites by the names under which results are returned."""
    if isinstance(sites, str | Site):
        sites = (sites,)
    if isinstance(sites, Mapping):
        items = list(sites.items())
    elif isinstance(sites, Sequence):
        items = [(s.pattern if isinstance(s, Site) else s, s) for s in sites]
    else:
        items = []
    whole = all(isinstance(s, str | Site) and isinstance(n, str) for n, s in items)
    if not items or not whole:
        raise TypeError(
            f"{argument}: got {sites!r}, expected a name, a patching.site, several, or "
            f"a dict of them"
        )
    found = {name: s if isinstance(s, Site) else site(s) for name, s in items}
    if len(found) < len(items):
        names = ", ".join(repr(name) for name, _ in items)
        raise ValueError(f"{argument}: got {names}, of which some are the same")
    return found


# ---- in a program ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """The values of a program that one site names, as one array.

    Attributes:
      name: under which results are returned.
      site: as the user named it.
      parts: the values, in the program's order.
      order: where in the stack the iterations of each part are, one part after the
        other; or None where there is no stack.
      axes: names of the axes of the array.
    """

    name: str
    site: Site
    parts: tuple[named.Site, ...]
    order: tuple[int, ...] | None
    axes: tuple[str | None, ...]

    @property
    def value(self) -> Any:
        """Shape and dtype of each value in the stack."""
        return self.parts[0].value.aval

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        stack = () if self.order is None else (len(self.order),)
        return (*stack, *self.value.shape)

    @property
    def summed(self) -> tuple[int, ...]:
        """The axes that a node goes along."""
        return tuple(i for i, name in enumerate(self.axes) if name is None)

    @property
    def chosen(self) -> tuple[np.ndarray, ...]:
        """Of each named axis, the indices that are asked about."""
        only = dict(self.site.only)
        return tuple(
            np.arange(n)[list(only[name])] if name in only else np.arange(n)
            for name, n in zip(self.axes, self.shape, strict=True)
            if name is not None
        )

    @property
    def node_shape(self) -> tuple[int, ...]:
        """Of scores: the named axes, with what is asked about."""
        return tuple(len(c) for c in self.chosen)

    def scores(self, products: Array) -> Array:
        """Sums along the axes of a node, of what is asked about."""
        summed = products.sum(self.summed)
        if not self.site.only:
            return summed
        return summed[np.ix_(*self.chosen)] if self.chosen else summed

    def spread(self, nodes: Array, rest: Any) -> Array:
        """An array over nodes as one over elements, of sizes that broadcast.

        Elements that are not asked about get `rest`.
        """
        named_sizes = [
            n for name, n in zip(self.axes, self.shape, strict=True) if name is not None
        ]
        if self.site.only and self.chosen:
            whole = jnp.full(named_sizes, rest, nodes.dtype)
            nodes = whole.at[np.ix_(*self.chosen)].set(nodes)
        sizes = iter(named_sizes)
        return nodes.reshape([1 if a is None else next(sizes) for a in self.axes])

    def split(self, whole: Array) -> list[Array]:
        """The array's part for each value, with the axes of its loops in front.

        Its axes may have size one where a value's are larger.
        """
        if self.order is None:
            return [whole]
        whole = jnp.broadcast_to(whole, (len(self.order), *whole.shape[1:]))
        flat = whole[np.asarray(self.order)] if self._permuted else whole
        parts, start = [], 0
        for part in self.parts:
            stop = start + math.prod(part.lengths)
            parts.append(flat[start:stop].reshape(*part.lengths, *whole.shape[1:]))
            start = stop
        return parts

    def join(self, parts: Sequence[Array]) -> Array:
        """The inverse of `split`."""
        if self.order is None:
            return parts[0]
        rest = [
            a.shape[len(p.lengths) :] for a, p in zip(parts, self.parts, strict=True)
        ]
        flat = [a.reshape(-1, *r) for a, r in zip(parts, rest, strict=True)]
        whole = jnp.concatenate(flat) if len(flat) > 1 else flat[0]
        return whole[np.argsort(self.order)] if self._permuted else whole

    @property
    def _permuted(self) -> bool:
        return self.order != tuple(range(len(self.order or ())))


def find(
    reading: Reading, sites: Mapping[str, Site], argument: str, ruled: bool
) -> dict[str, Group]:
    """The values that sites name.

    Args:
      reading: the program, read with its calls inlined and with names.
      sites: by the names under which results are returned.
      argument: what they were given as, for errors.
      ruled: rules of LRP are in the program, so that nothing inside a unit can be seen.

    Raises:
      ValueError: for a name that no value has, values of several shapes, and axes that
        do not fit.
    """
    every = named.find_sites(reading)
    return {n: _group(n, s, every, argument, ruled) for n, s in sites.items()}


def _group(
    name: str, site: Site, every: Sequence[named.Site], argument: str, ruled: bool
) -> Group:
    parts = _selected(every, site.pattern, argument, ruled)
    for part in parts:
        if any(bodies_of(s.main).flow == "while" for s in part.address[:-1:2]):
            raise ValueError(
                f"{argument}: got {site.pattern!r}, but {part.name!r} lies in a while "
                f"loop, whose steps cannot be told apart; a lax.scan, or a fori_loop "
                f"with bounds that are numbers, has an axis for them"
            )
    shapes = {(p.value.aval.shape, p.value.aval.dtype) for p in parts}
    if len(shapes) > 1:
        found = ", ".join(f"{p.name} {p.value.aval.str_short()}" for p in parts[:6])
        raise ValueError(
            f"{argument}: got {site.pattern!r}, which names values of several shapes, "
            f"that cannot be stacked: {found}"
        )
    shape, _ = next(iter(shapes))
    stacked = bool(parts[0].lengths) or len(parts) > 1
    if site.axes is not None and not stacked:
        stacked = len(site.axes) == len(shape) + 1  # a network of one layer
    order = _order(parts) if stacked else None
    whole = (len(order), *shape) if order is not None else shape
    axes = site.axes
    if axes is None:
        axes = tuple(f"axis {i}" for i in range(len(whole)))
    if len(axes) != len(whole):
        stack = ", the first of the stack" if stacked else ""
        raise ValueError(
            f"axes: got {axes} for {site.pattern!r}, expected {len(whole)} "
            f"names{stack}: its shape is {whole}"
        )
    group = Group(name, site, tuple(parts), order, axes)
    for axis, indices in site.only:
        size = whole[axes.index(axis)]
        wrong = [i for i in indices if not -size <= i < size]
        if wrong:
            raise ValueError(
                f"only[{axis!r}]: got {wrong[0]} for {site.pattern!r}, expected one in "
                f"[{-size}, {size})"
            )
    return group


def _selected(
    every: Sequence[named.Site], pattern: str, argument: str, ruled: bool
) -> tuple[named.Site, ...]:
    """Where no rule needs a unit whole, what lies inside of it can be seen as well."""
    try:
        return named.select(every, pattern, argument)
    except ValueError:
        inside = [s for s in every if s.problem == named.INSIDE]
        if ruled or not any(named.matches(s, pattern) for s in inside):
            raise
        seen = [dataclasses.replace(s, problem=None) for s in inside]
        return named.select(seen, pattern, argument)


def _order(parts: Sequence[named.Site]) -> tuple[int, ...]:
    """The places in the stack: values of one iteration follow on each other."""
    firsts: dict[Any, int] = {}
    for number, part in enumerate(parts):
        for depth in range(0, len(part.address) - 1, 2):
            firsts.setdefault(part.address[depth], number)
    keys = []
    for number, part in enumerate(parts):
        flows = [bodies_of(s.main).flow for s in part.address[:-1:2]]
        for index in itertools.product(*map(range, part.lengths)):
            numbers, key = iter(index), []
            for step, flow in zip(part.address[:-1:2], flows, strict=True):
                key += [firsts[step], next(numbers) if flow == "scan" else 0]
            keys.append((*key, number))
    ranks = sorted(range(len(keys)), key=keys.__getitem__)
    places = [0] * len(keys)
    for place, which in enumerate(ranks):
        places[which] = place
    return tuple(places)
