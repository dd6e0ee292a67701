"""Sites: the intermediate values of a program that can be named, and their names.

Three kinds of value have a name, below the named scopes that they lie in:

- what `jax.ad_checkpoint.checkpoint_name` tags: `scope/path/tag`;
- what leaves a named scope: the name of the scope itself;
- the result of a softmax that goes into a contraction: `scope/path/attention_map`.

What a layer gives, or another step with a parameter, goes by that parameter's path in
the arguments as well, `conv1.kernel`: its own name where it has no other, or where it
is asked for by that.

Several values of one name get numbers, `name#0`, `name#1`, in the program's order. The
values inside a step, between a contraction and its bias say, cannot be seen.
"""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend.core import Literal

from jaxlrp import _compat
from jaxlrp._names import CLOSED_OVER, fits_any, nearest, numbered
from jaxlrp._program.bodies import bodies_of
from jaxlrp._program.program import Equation, Value
from jaxlrp._reading.steps import Reading, Step
from jaxlrp.primitives import Kind, lookup

MAP = "attention_map"
"""The name of the result of a softmax that goes into a contraction."""

ON_DEVICES = "it lies inside of a shard_map, on each device another"
INSIDE = "it lies inside a unit that has one rule, such as a layer and its bias"
NOTHING = "no relevance passes it"


@dataclasses.dataclass(frozen=True)
class Site:
    """A value that has a name.

    Attributes:
      name: the name, unique in a program.
      address: the value, preceded by the steps that contain it, each with the number of
        its body: `(step, 0, value)`.
      lengths: of the loops that it lies in, from the outermost.
      problem: why its relevance cannot be seen, or None.
      paths: of the parameters of the step that gives it; patterns match these as well.
      path: what it is called where it is asked for by a path, unique in a program.
    """

    name: str
    address: tuple[Any, ...]
    lengths: tuple[int, ...]
    problem: str | None
    paths: tuple[str, ...] = ()
    path: str = ""

    @property
    def value(self) -> Value:
        """The value itself."""
        return self.address[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all values at the site: one leading axis for each loop around it."""
        return (*self.lengths, *self.value.aval.shape)

    @property
    def dtype(self) -> Any:
        """Of its relevance: the value's own, real for a complex one."""
        return jnp.finfo(self.value.aval.dtype).dtype

    @property
    def is_path(self) -> bool:
        """Is its name the path of a parameter?"""
        return bool(self.paths) and self.name == self.path

    @property
    def known_as(self) -> tuple[str, ...]:
        """What a pattern can match: the name and its last part, with and without #."""
        bare = self.name.partition("#")[0]
        full = (self.name, bare)
        return (*full, *(name.rpartition("/")[2] for name in full))


def find_sites(reading: Reading) -> tuple[Site, ...]:
    """All sites of a program and of the bodies in it, in the program's order.

    Args:
      reading: the program, read; calls in it that were kept are not examined.

    Returns:
      The sites, those that lie in a loop or branch instead of it.
    """
    found = list(_in_program(reading, (), ()))
    names = _numbered([s.name for s in found])
    paths = _numbered([s.path for s in found])
    return tuple(
        dataclasses.replace(s, name=path if s.name == s.path else name, path=path)
        for s, name, path in zip(found, names, paths, strict=True)
    )


def _numbered(names: Sequence[str]) -> list[str]:
    """What is there more than once gets a number, `name#0`."""
    counts = collections.Counter(names)
    seen: collections.Counter[str] = collections.Counter()
    unique = []
    for name in names:
        several = name and counts[name] > 1
        unique.append(f"{name}#{seen[name]}" if several else name)
        seen[name] += 1
    return unique


def select_parts(
    sites: Sequence[Site], pattern: str, argument: str
) -> list[tuple[Site, tuple[int, ...]]]:
    """`select`, and of stacked weights one by its number: a site, and which iteration.

    Args:
      sites: all that there are.
      pattern: as for `select`, or with numbers, as `layers.kernel[3]`.
      argument: what the pattern was given as, for the error.

    Returns:
      Sites, each with the numbers of the iterations around it, or none for all.

    Raises:
      ValueError: if there is none.
    """
    found = []
    if not any(matches(s, pattern) for s in sites):
        found = [(s, i) for s in sites if s.problem is None for i in _at(s, pattern)]
    return found or [(s, ()) for s in select(sites, pattern, argument)]


def _at(site: Site, pattern: str) -> Iterator[tuple[int, ...]]:
    """The iterations of scans whose weights a pattern names by number."""
    if not site.lengths or not any("[:]" in path for path in site.paths):
        return
    for index in itertools.product(*map(range, site.lengths)):
        paths = (numbered(path, index) for path in site.paths)
        if fits_any(pattern, (path for path in paths if path is not None)):
            yield index


def select(sites: Sequence[Site], pattern: str, argument: str) -> tuple[Site, ...]:
    """The sites that a pattern names and that relevance passes.

    Args:
      sites: all that there are.
      pattern: a glob, matched against the whole name and against its last part; where
        no tag or scope fits, against the paths of parameters.
      argument: what the pattern was given as, for the error.

    Returns:
      At least one site.

    Raises:
      ValueError: if there is none.
    """
    # A tag or scope that a pattern names comes before what merely has such a path.
    matching = [s for s in sites if not s.is_path and _is_called(s, pattern)]
    matching = matching or [
        dataclasses.replace(s, name=s.path) for s in sites if matches(s, pattern)
    ]
    passing = tuple(s for s in matching if s.problem is None)
    if passing:
        return passing
    if matching:
        site = matching[0]
        raise ValueError(
            f"{argument}: got {pattern!r}, but the relevance of {site.name!r} cannot "
            f"be seen: {site.problem}{_advice(site)}"
        )
    near = _nearest(sites, pattern)
    raise ValueError(f"{argument}: got {pattern!r}, which names no value; {near}")


def matches(site: Site, pattern: str) -> bool:
    """Does a glob match the site's name, its last part, or a parameter's path?"""
    return _is_called(site, pattern) or fits_any(pattern, site.paths)


def _is_called(site: Site, pattern: str) -> bool:
    """By its own name alone."""
    return any(
        name == pattern or fnmatch.fnmatchcase(name, pattern) for name in site.known_as
    )


def _advice(site: Site) -> str:
    if site.problem != INSIDE:
        return ""
    return "; jax.ad_checkpoint.checkpoint_name(value, name) divides the unit there"


def _nearest(sites: Sequence[Site], pattern: str) -> str:
    passing = [s for s in sites if s.problem is None]
    if not passing:
        return (
            "none has a name: use jax.ad_checkpoint.checkpoint_name or "
            f"jax.named_scope; {CLOSED_OVER}"
        )
    by_path = [s.name for s in passing if s.is_path]
    others = [s.name for s in passing if not s.is_path]
    shown = ", ".join(map(repr, nearest(pattern, others, by_path)))
    names = f"nearest of {len(passing)} names in jaxlrp.concepts.sites: {shown}"
    return names if any(s.paths for s in passing) else f"{names}; {CLOSED_OVER}"


def _in_program(
    reading: Reading, path: tuple[Any, ...], lengths: tuple[int, ...]
) -> Iterator[Site]:
    """The sites of one program and its bodies, their names not yet numbered."""
    names, of_parameters = _names(reading), _parameters(reading)
    inner = {v for s in reading.steps for e in s.equations[:-1] for v in e.outputs}
    for step in reading.steps:
        for number, body in enumerate(step.bodies):
            around, flow = lengths, bodies_of(step.main).flow
            if flow == "scan":
                around = (*lengths, len(_compat.iterations(step.main.params)))
            sites = _in_program(body, (*path, step, number), around)
            if flow == "shard_map":
                sites = (dataclasses.replace(s, problem=ON_DEVICES) for s in sites)
            yield from sites
        for v in dict.fromkeys(v for e in step.equations for v in e.outputs):
            if v in inner and v in step.outputs:
                continue  # where the unit that contains it is met
            problem = None
            if not step.signals or not reading.is_active(v):
                problem = NOTHING
            elif v in inner:
                problem = INSIDE
            paths = of_parameters.get(v, ())
            own = names.pop(v, None) or list(paths[:1])
            for name in own:  # the innermost scope is the layer's
                layer = paths if name == max(own, key=len) else ()
                where = layer[0] if layer else ""
                yield Site(name, (*path, v), lengths, problem, layer, where)


def _names(reading: Reading) -> dict[Value, list[str]]:
    """The names of a program's own values."""
    names: dict[Value, list[str]] = {}
    for v, scope in _leaving(reading):
        names.setdefault(v, []).append(scope)
    for equation in _equations(reading):
        if equation.primitive.name == "name":
            (v,) = equation.outputs
            names.setdefault(v, []).append(
                _below(equation, _compat.tag_of(equation.params))
            )
    for v, equation in _attention_maps(reading).items():
        names.setdefault(v, []).append(_below(equation, MAP))
    return names


def _parameters(reading: Reading) -> dict[Value, tuple[str, ...]]:
    """The paths of the parameters of each step, by its result; the first is shown."""
    named = ((s, s.names(reading.facts)) for s in reading.steps if s.signals)
    return {
        s.outputs[0]: tuple(name for each in names for name in each)
        for s, names in named
        if names and len(s.outputs) == 1
    }


def _equations(reading: Reading) -> list[Equation]:
    return list(dict.fromkeys(e for s in reading.steps for e in s.equations))


def _below(equation: Equation, name: str) -> str:
    return f"{equation.scope}/{name}" if equation.scope else name


def _leaving(reading: Reading) -> Iterator[tuple[Value, str]]:
    """Values that are read outside a scope that they come from, with its name.

    Of a scope's values only those that relevance can pass have its name, if any can.
    """
    program = reading.program
    readers: dict[Value, list[tuple[str, ...]]] = collections.defaultdict(list)
    source: dict[Value, tuple[str, ...]] = {}
    passing: dict[Value, bool] = {}
    for step in reading.steps:
        for equation in step.equations:
            parts = _parts(program.inner_scope(equation))
            for v in equation.inputs:
                if not isinstance(v, Literal):
                    readers[v].append(parts)
            for v in equation.outputs:
                source[v] = parts
                passing[v] = bool(step.signals) and reading.is_active(v)
    for v in program.outputs:
        if not isinstance(v, Literal):
            readers[v].append(())
    leaving: dict[tuple[str, ...], list[Value]] = collections.defaultdict(list)
    for v, parts in source.items():
        for depth in range(1, len(parts) + 1):
            if any(other[:depth] != parts[:depth] for other in readers[v]):
                leaving[parts[:depth]].append(v)
    for parts, values in leaving.items():
        scope = "/".join([*_parts(program.scope), *parts])
        for v in [v for v in values if passing[v]] or values:
            yield v, scope


def _parts(scope: str) -> tuple[str, ...]:
    return tuple(filter(None, scope.split("/")))


def _attention_maps(reading: Reading) -> dict[Value, Equation]:
    """Results of a softmax that reach a contraction, with the equation that ends it."""
    producer = {v: s for s in reading.steps for v in s.outputs}
    maps: dict[Value, Equation] = {}
    for equation in _equations(reading):
        entry = lookup(equation.primitive)
        if entry is None or entry.kind is not Kind.CONTRACTION:
            continue
        for operand in equation.inputs:
            v = _softmax_behind(operand, producer, reading)
            if v is not None:
                maps[v] = producer[v].equations[-1]
    return maps


_LIGHT = ("softmax", "structural", "scale", "shift", "selection")
"""Roles that keep an attention map one: masks, dropout, casts, constants."""


def _softmax_behind(
    atom: Any, producer: Mapping[Value, Step], reading: Reading
) -> Value | None:
    """The softmax result that an operand is, except for masks, casts and shapes."""
    while not isinstance(atom, Literal):
        step = producer.get(atom)
        if step is None:
            return None
        if step.role == "softmax" and _ends(step, reading):
            return atom
        if step.role not in _LIGHT:
            return None
        if len(step.signals) != 1:
            return None
        (atom,) = step.signals
    return None


def _ends(step: Step, reading: Reading) -> bool:
    """Is it the division by the sum, or the exponential after a log-softmax?"""
    if len(step.equations) > 1:
        return True
    entry = lookup(step.main.primitive)
    active = [reading.is_active(v) for v in step.main.inputs]
    if entry is None or entry.kind is not Kind.ELEMENTWISE:
        return False
    divides = len(active) == 2 and all(active) and not entry.linear(active)
    return entry.exponential or (divides and entry.linear([True, False]))
