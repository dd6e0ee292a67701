"""A call of a function, traced and read: values, edits and multipliers at its sites."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec

from jaxlrp import _trace
from jaxlrp._operations import zero_beside
from jaxlrp._rewriting.backward import Traced, backward
from jaxlrp._rewriting.capture import expose, expose_both
from jaxlrp._rewriting.environment import Run, Visits, as_arrays
from jaxlrp._rewriting.forward import Edits, forward
from jaxlrp._rewriting.quotients import Options
from jaxlrp._rewriting.quotients import evaluate as evaluate_both
from jaxlrp._warn import warn
from jaxlrp.composites import Composite, Proportional
from jaxlrp.errors import ConstantsWarning
from jaxlrp.patching._sites import Group, Site, find

LARGE = 2**25
"""Constants of so many bytes take long to compile."""

Metric = Callable[..., Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A function, traced and read at one set of arguments.

    Attributes:
      traced: the function.
      composite: the rules that it was read for, or None for its own gradient.
    """

    traced: Traced
    composite: Composite | None

    def groups(self, sites: Mapping[str, Site], argument: str) -> dict[str, Group]:
        """The values that sites name."""
        ruled = self.composite is not None
        return find(self.traced.reading, sites, argument, ruled)

    def out(self, leaves: Sequence[Array]) -> Any:
        """The output of the function."""
        return jax.tree.unflatten(self.traced.out_tree, leaves[: self.traced.n_out])

    def at(self, *args: Any) -> Program:
        """The same program at other arguments of the same shapes."""
        leaves = jax.tree_util.tree_flatten_with_path((args, {}))[0]
        found = dict(leaves)
        inputs = tuple(_trace.as_array(found[path]) for path in self.traced.paths)
        return Program(dataclasses.replace(self.traced, inputs=inputs), self.composite)


def read(
    f: Callable[..., Any], args: tuple[Any, ...], composite: Composite | None
) -> Program:
    """Traces and reads `f(*args)`; what reaches the last argument can be a site.

    Raises:
      TypeError: as `jaxlrp.lrp`.
    """
    if not args:
        raise TypeError("args: got none, expected the arguments of f")
    traced = _trace.trace(
        f,
        args,
        {},
        Proportional() if composite is None else composite,
        len(args) - 1,
        False,
        strict=composite is not None,
        keep_calls=False,
        by_scope=True,
    )
    constants = [c for _, c in traced.reading.program.constants]
    size = sum(c.nbytes for c in constants if isinstance(c, np.ndarray | Array))
    if size > LARGE:
        warn(
            f"f closes over {size / 2**20:.0f} MiB of arrays, which are compiled into "
            f"the program: give it the weights as an argument, f(params, x)",
            ConstantsWarning,
        )
    return Program(traced, composite)


# ---- values and edits --------------------------------------------------------------

Edit = Callable[[str, Array, Any, Any], tuple[Array, Any, Any]]
"""`edit(group's name, value, given, memory)` returns `(value, record, memory)`."""


def evaluate(
    program: Program,
    groups: Sequence[Group],
    edit: Edit,
    given: Mapping[str, Any] | None = None,
    memory: Any = (),
) -> tuple[Any, dict[str, Any], Any]:
    """Evaluates a program with an edit at each value of some groups.

    Args:
      program: the program.
      groups: where.
      edit: what is done; what it is given and what it records are pytrees of arrays.
      given: by group's name, arrays like the group's.
      memory: what the first edit is given.

    Returns:
      The output, the records by group's name with arrays like the group's, and the
      memory after the last edit.
    """
    given = given or {}
    names, numbers, own = [], {}, {}
    for group in groups:
        leaves, tree = jax.tree.flatten(given.get(group.name, ()))
        split = [group.split(leaf) for leaf in leaves]
        for i, part in enumerate(group.parts):
            if part.address in numbers:
                raise ValueError(
                    f"sites: {part.name!r} belongs to two of them, {group.name!r} and "
                    f"{names[numbers[part.address]]!r}"
                )
            numbers[part.address] = len(names)
            own[len(names)] = jax.tree.unflatten(tree, [leaf[i] for leaf in split])
            names.append(group.name)

    def here(number: int, x: Array, given: Any, memory: Any) -> Any:
        return edit(names[number], x, given, memory)

    reading, inputs = program.traced.reading, program.traced.inputs
    outs, records, memory = forward(reading, inputs, Edits(here, numbers, own), memory)
    joined = {}
    for group in groups:
        parts = [records[numbers[part.address]] for part in group.parts]
        tree = jax.tree.structure(parts[0])
        columns = zip(*(jax.tree.leaves(p) for p in parts), strict=True)
        joined[group.name] = jax.tree.unflatten(tree, [group.join(c) for c in columns])
    return program.out(outs), joined, memory


def values(program: Program, groups: Sequence[Group]) -> tuple[Any, dict[str, Array]]:
    """The output, and the values of groups."""

    def record(name: str, x: Array, given: Any, memory: Any) -> Any:
        return x, x, memory

    out, found, _ = evaluate(program, groups, record)
    return out, found


def patched(program: Program, groups: Sequence[Group], given: Mapping[str, Any]) -> Any:
    """The output where `given` is an array, or a pair (mask, array), for each group."""

    def replace(name: str, x: Array, new: Any, memory: Any) -> Any:
        return _mixed(x, new), (), memory

    return evaluate(program, groups, replace, given)[0]


def _mixed(x: Array, new: Any) -> Array:
    if not isinstance(new, tuple):
        return jnp.broadcast_to(new, x.shape).astype(x.dtype)
    mask, new = new
    if mask.dtype == bool:
        return jnp.where(mask, new, x).astype(x.dtype)
    return (x + mask * (new - x)).astype(x.dtype)


# ---- multipliers -------------------------------------------------------------------


def multipliers(
    program: Program,
    groups: Sequence[Group],
    metric: Metric | None,
    along: tuple[Group, Array] | None = None,
) -> tuple[Any, dict[str, Array], dict[str, Array]]:
    """The output, and values and multipliers of groups.

    Args:
      program: the program; with its composite's rules, or JAX's derivative.
      groups: where.
      metric: of the output, a scalar; None where that is one itself.
      along: a group whose values are others, and these.
    """
    if program.composite is None:
        return _gradients(program, groups, metric, along)
    return _ruled(program, groups, metric, along)


def _gradients(
    program: Program,
    groups: Sequence[Group],
    metric: Metric | None,
    along: tuple[Group, Array] | None,
) -> tuple[Any, dict[str, Array], dict[str, Array]]:
    taps = {g.name: jnp.zeros(g.shape, g.value.dtype) for g in groups}
    # The moved group has a name of its own, unless it is one of those asked about.
    every, moved = list(groups), {}
    if along is not None:
        same = [g for g in groups if g.parts == along[0].parts]
        place = same[0] if same else dataclasses.replace(along[0], name=_ALONG)
        every += [] if same else [place]
        moved = {place.name: along[1]}

    def tapped(taps: Mapping[str, Array]) -> Any:
        given = {g.name: {} for g in every}
        for name, zeros in taps.items():
            given[name]["tap"] = zeros
        for name, new in moved.items():
            given[name]["new"] = new

        def edit(name: str, x: Array, given: Any, memory: Any) -> Any:
            x = given.get("new", x)
            y = x + given["tap"] if "tap" in given else x
            return y, x, memory

        out, found, _ = evaluate(program, every, edit, given)
        return scalar(metric, out), (out, found)

    score, pull, (out, found) = jax.vjp(tapped, taps, has_aux=True)
    (slopes,) = pull(jnp.ones_like(score))
    return out, {g.name: found[g.name] for g in groups}, slopes


_ALONG = "along"


def _ruled(
    program: Program,
    groups: Sequence[Group],
    metric: Metric | None,
    along: tuple[Group, Array] | None,
) -> tuple[Any, dict[str, Array], dict[str, Array]]:
    composite = program.composite
    assert composite is not None
    numbers: dict[Any, int] = {}
    taps: dict[int, Any] = {}
    moved: dict[int, Array] = {}
    places: dict[str, list[int]] = {}
    for group in groups:
        for part in group.parts:
            number = numbers.setdefault(part.address, len(numbers))
            places.setdefault(group.name, []).append(number)
            if number not in taps:
                zeros = _zeros(part)
                taps[number] = (zeros, zeros)
    if along is not None:
        for part, new in zip(along[0].parts, along[0].split(along[1]), strict=True):
            moved[numbers.setdefault(part.address, len(numbers))] = new
    names = {n: g for g, own in places.items() for n in own}

    def visit(number: int, arrays: Any, x: Array, shadow: Any) -> tuple[Array, Any]:
        zeros, new = arrays
        if shadow is not None and zeros is not None:
            raise ValueError(
                f"composite: {composite.name} has a rule behind {names[number]!r} that "
                f"gives relevances, not multiples of the value: there is no "
                f"multiplier. Give such layers another rule, as rules.LRP0()"
            )
        if new is not None:
            x = new.astype(x.dtype)
            shadow = None if shadow is None else zero_beside(x)
        return (x if zeros is None else expose(x, *zeros)), shadow

    def with_visits(taps: Mapping[int, Any]) -> Run:
        arrays = {n: (taps.get(n), moved.get(n)) for n in numbers.values()}
        return Run(composite, visits=Visits(visit, numbers, arrays))

    once = backward(program.traced, with_visits, taps)
    out = program.out(once.outs)
    score, pull = jax.vjp(lambda out: scalar(metric, out), out)
    (seeds,) = pull(jnp.ones_like(score))
    _, collected = once.relevance(jax.tree.leaves(seeds), None)
    found, slopes = {}, {}
    for group in groups:
        pairs = [collected[n] for n in places[group.name]]
        found[group.name] = group.join([value for value, _ in pairs])
        slopes[group.name] = group.join([slope for _, slope in pairs])
    return out, found, slopes


@dataclasses.dataclass(frozen=True)
class Quotients:
    """What two runs differ by, and how the metric's change rests on it.

    Attributes:
      clean: values of one run, by group's name.
      corrupt: those of the other.
      slopes: multipliers between both.
      at_corrupt: the gradient in the corrupt run, or None.
      change: of the metric, from the corrupt to the clean run.
    """

    clean: dict[str, Array]
    corrupt: dict[str, Array]
    slopes: dict[str, Array]
    at_corrupt: dict[str, Array] | None
    change: Array


def quotients(
    clean: Program,
    corrupt: Program,
    groups: Sequence[Group],
    metric: Metric | None,
    gradient: bool,
) -> Quotients:
    """Both runs' values of groups, and the multipliers between both.

    A step `y = g(x)` passes the difference quotient between the two runs, so that
    `sum_i c_i (x_i - x0_i) = c_y (y - y0)`; and the metric does, by quadrature.

    Args:
      clean: one program, whose branches are taken.
      corrupt: the same program at other inputs.
      groups: where.
      metric: as for `multipliers`.
      gradient: that of the corrupt run is wanted as well.
    """
    traced = clean.traced
    references: list[Any] = [None] * len(traced.inputs)
    for i in traced.attributed:
        references[i] = corrupt.traced.inputs[i]
    numbers: dict[Any, int] = {}
    places: dict[str, list[int]] = {}
    taps: dict[int, Any] = {}
    for group in groups:
        for part in group.parts:
            number = numbers.setdefault(part.address, len(numbers))
            places.setdefault(group.name, []).append(number)
            taps[number] = (_zeros(part),) * 4

    def visit(number: int, zeros: Any, x: Array, reference: Any) -> tuple[Array, Any]:
        value, other, slope, own = zeros
        beside = x if reference is None else reference
        x = expose_both(x, lax.stop_gradient(beside), value, other, slope)
        if reference is not None and gradient:
            reference = expose(reference, jnp.zeros_like(own), own)
        return x, reference

    variables = traced.reading.program.outputs

    def run(taps: Mapping[int, Any]) -> Any:
        visits = Visits(visit, numbers, taps)
        options = Options(apart=True, visits=visits, followed=gradient)
        outs, others = evaluate_both(traced.reading, traced.inputs, references, options)
        others = [
            lax.stop_gradient(y) if r is None else r
            for y, r in zip(outs, others, strict=True)
        ]
        both = as_arrays(variables, outs), as_arrays(variables, others)
        return (_floats(both[0]), _floats(both[1])), both

    _, pull, (outs, others) = jax.vjp(run, taps, has_aux=True)
    slopes = _mean_gradient(clean, metric, others, outs)
    own = [jnp.zeros_like(c) for c in slopes]
    if gradient:
        own = _mean_gradient(clean, metric, others, others, _ONE_NODE)
    (collected,) = pull((slopes, own))
    found: tuple[dict[str, Array], ...] = ({}, {}, {}, {})
    for group in groups:
        columns = zip(*(collected[n] for n in places[group.name]), strict=True)
        for joined, column in zip(found, columns, strict=True):
            joined[group.name] = group.join(column)
    change = scalar(metric, clean.out(outs)) - scalar(metric, clean.out(others))
    return Quotients(*found[:3], found[3] if gradient else None, change)


def _floats(leaves: Sequence[Array]) -> list[Array]:
    return [y for y in leaves if jnp.issubdtype(y.dtype, jnp.inexact)]


_NODES = np.polynomial.legendre.leggauss(8)


def _mean_gradient(
    program: Program,
    metric: Metric | None,
    starts: Sequence[Array],
    ends: Sequence[Array],
    quadrature: Any = _NODES,
) -> list[Array]:
    """The metric's derivative by the floating outputs, its mean between two."""

    def score(moved: Sequence[Array]) -> Array:
        left = iter(moved)
        leaves = [next(left) if _floats([y]) else y for y in ends]
        return scalar(metric, program.out(leaves))

    one, two = _floats(starts), _floats(ends)
    total = [jnp.zeros_like(y) for y in two]
    for node, weight in zip(*quadrature, strict=True):
        share = (1 + node) / 2
        at = [
            (a + share * (b - a)).astype(b.dtype) for a, b in zip(one, two, strict=True)
        ]
        slopes = jax.grad(score)(at)
        total = [
            (t + weight / 2 * c).astype(t.dtype)
            for t, c in zip(total, slopes, strict=True)
        ]
    return total


_ONE_NODE = np.array([-1.0]), np.array([2.0])
"""At the start alone."""


def _zeros(part: Any) -> Array:
    """Zeros for what a value reports, on the devices where it is."""
    shape, aval = part.shape, part.value.aval
    if not any(aval.sharding.spec):
        return jnp.zeros(shape, aval.dtype)
    spec = PartitionSpec(*[None] * len(part.lengths), *aval.sharding.spec)
    with jax.sharding.use_abstract_mesh(aval.sharding.mesh):
        sharding = NamedSharding(aval.sharding.mesh, spec)
        return jnp.zeros(shape, aval.dtype, device=sharding)


def scalar(metric: Metric | None, out: Any, aux: Sequence[Any] = ()) -> Array:
    """A metric of the output: a real number.

    Raises:
      ValueError: for anything else.
    """
    name = "f" if metric is None else "metric"
    found = out if metric is None else metric(out, *aux)
    shape = getattr(found, "shape", None) if not isinstance(found, int | float) else ()
    if shape != () or not jnp.issubdtype(jnp.result_type(found), jnp.floating):
        shown = (
            f"shape {shape} and dtype {jnp.result_type(found)}"
            if shape is not None
            else repr(jax.tree.structure(found))
        )
        hint = "; without a metric the output is the score" if metric is None else ""
        raise ValueError(f"{name}: got {shown}, expected a real number{hint}")
    return jnp.asarray(found)
