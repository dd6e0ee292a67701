"""The levels that walks pass: values that have a name, with an axis of nodes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from jaxlrp import _compat
from jaxlrp._names import numbered
from jaxlrp._program.bodies import bodies_of
from jaxlrp._reading.sites import Site, find_sites, select_parts
from jaxlrp._rewriting.backward import Traced


@dataclasses.dataclass(frozen=True)
class Level:
    """A value, in one iteration of the scans around it, and its axis of nodes."""

    site: Site
    index: tuple[int, ...]
    axis: int

    @property
    def name(self) -> str:
        """Its name, with the numbers of the iterations."""
        if not self.index:
            return self.site.name
        name = numbered(self.site.name, self.index)
        return name or f"{self.site.name}[{', '.join(map(str, self.index))}]"

    @property
    def nodes(self) -> int:
        """How many there are."""
        return self.site.value.aval.shape[self.axis]


def find_levels(
    traced: Traced, patterns: Sequence[str], axes: Sequence[int]
) -> tuple[Level, ...]:
    """The levels that patterns name, in the order of the program."""
    sites = find_sites(traced.reading)
    found: dict[tuple[Any, ...], Level] = {}
    for pattern, axis in zip(patterns, axes, strict=True):
        for site, index in select_parts(sites, pattern, "sites"):
            _check_site(site)
            rank = len(site.value.aval.shape)
            if not -rank <= axis < rank:
                raise ValueError(
                    f"axis: got {axis}, expected an axis of {site.name!r}, of shape "
                    f"{site.value.aval.shape}"
                )
            every_one = itertools.product(*map(range, site.lengths))
            for place in [index] if index else every_one:
                level = Level(site, place, axis % rank)
                known = found.setdefault((site.address, place), level)
                if known.axis != level.axis:
                    raise ValueError(
                        f"axis: got {axis} for {level.name!r}, and {known.axis} as "
                        f"well, expected one axis for each value"
                    )
    keys = _order(sites)
    ordered = sorted(found.values(), key=lambda v: keys(v.site, v.index))
    first = ordered[0]
    for level in ordered:
        if level.nodes != first.nodes:
            raise ValueError(
                f"sites: {level.name!r}, of shape {level.site.value.aval.shape}, has "
                f"{level.nodes} nodes along axis {level.axis}, and {first.name!r}, of "
                f"shape {first.site.value.aval.shape}, has {first.nodes}; expected one "
                f"number of nodes on all levels"
            )
    return tuple(ordered)


def _check_site(site: Site) -> None:
    """Raises for a value whose iterations cannot be told apart."""
    if any(bodies_of(step.main).flow == "while" for step in site.address[:-1:2]):
        raise ValueError(
            f"sites: {site.name!r} lies in a while loop, whose iterations have no "
            f"number; expected a value outside of it, or in a lax.scan"
        )


def _order(sites: Sequence[Site]) -> Callable[[Site, tuple[int, ...]], Any]:
    """A key by which levels are in the order of the program.

    Values in a loop follow each other within an iteration, and then come those of the
    next: at each depth, where the step stands, and which iteration of it.
    """
    places: dict[Any, int] = {}
    for number, site in enumerate(sites):
        for end in range(1, len(site.address) + 1):
            places.setdefault(site.address[:end], number)

    def key(site: Site, index: tuple[int, ...]) -> Any:
        rest = list(index)
        parts: list[tuple[int, int]] = []
        for depth in range(0, len(site.address) - 1, 2):
            step, body = site.address[depth], site.address[depth + 1]
            turn = body
            if bodies_of(step.main).flow == "scan":
                turn = _compat.iterations(step.main.params).index(rest.pop(0))
            parts.append((places[site.address[: depth + 1]], turn))
        return (*parts, (places[site.address], 0))

    return key
